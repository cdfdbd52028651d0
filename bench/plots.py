"""Plots of bench/gpu.py's results: `python -m bench.plots gpu.json --out DIR [--format svg]`. Needs matplotlib."""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

METHODS = ("mixup", "cutmix", "policy")
OURS = "fusedmix"
COLOURS = {"mixup": "#2a6f97", "cutmix": "#d1603d", "policy": "#6a994e"}
OURS_COLOUR, COMPILED_COLOUR, OTHER_COLOUR = "#2a6f97", "#8aa8bd", "#c4c4c4"
LINES = ("-", "--", ":", "-.")
BLANK = {"facecolor": "white", "edgecolor": "none", "pad": 0.7}  # behind numbers
BAR = 0.26  # inches
COLUMNS = 3

Results = dict[str, Any]
Entry = dict[str, Any]


def title_of(results: Results) -> str:
    env = results["environment"]
    where = f"{env['gpu']}, torch {env['torch']}, triton {env['triton']}"
    return f"DRY RUN, numbers mean nothing; {where}" if results.get("dry_run") else where


def label_of(e: Entry) -> str:
    """The point, and its shape where the name doesn't say it."""
    return f"{e['point']}\n{list(e['shape'])}, K={e['classes']}"


def timed(results: Results, part: str) -> list[Entry]:
    return [e for e in results.get(part, []) if "us" in e]


def strip(axes: Any) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)


def bars(axes: Any, names: list[str], values: list[float], colours: list[str]) -> None:
    """Horizontal bars from the top down, each with its number, and a line where a copy lies."""
    places = range(len(names))
    axes.barh(places, values, color=colours, height=0.75)
    right = max(100.0, *values)
    for place, value in zip(places, values, strict=True):
        number = f"{value:.0f}" if value >= 10 else f"{value:.2g}"
        axes.text(value + 0.015 * right, place, number, va="center", size=7, zorder=4, bbox=BLANK)
    axes.axvline(100, color="#444444", linewidth=0.8, zorder=3)
    axes.set_xlim(0, 1.13 * right)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_yticks(places, names, size=7.5)
    axes.tick_params(axis="x", labelsize=7.5)
    strip(axes)


def kernels(results: Results, pyplot: Any) -> Any:
    """GB/s of the kernels alone as percent of a copy's."""
    entries = timed(results, "bench")
    names = [f"{e['name']}  {e['shape']}  {e['method']}" for e in entries]
    figure, axes = pyplot.subplots(figsize=(8.5, 1.3 + BAR * len(entries)), layout="constrained")
    bars(axes, names, [e["percent_of_copy"] for e in entries], [COLOURS[e["method"]] for e in entries])
    axes.set_xlabel("GB/s as percent of a device copy's in the same run", size=8)
    figure.suptitle(f"One kernel: bytes that must move over time\n{title_of(results)}", size=9)
    return figure


def variants(results: Results, pyplot: Any) -> Any:
    """The same of every hot variant, with a mark where the static model expects it."""
    entries = timed(results, "variants")
    figure, axes = pyplot.subplots(figsize=(8.5, 1.3 + BAR * len(entries)), layout="constrained")
    names = [f"{e['variant']}  {e['shape']}" for e in entries]
    bars(axes, names, [e["percent_of_copy"] for e in entries], [OURS_COLOUR] * len(entries))
    expected = [(n, e["expected"]["margin"]) for n, e in enumerate(entries) if e["expected"]]
    marks = [(100 / margin, n) for n, margin in expected if margin > 1]
    if marks:
        axes.plot(*zip(*marks, strict=True), "D", color=COLOURS["cutmix"], markersize=4, zorder=5)
    axes.set_xlabel("GB/s as percent of a device copy's in the same run; diamonds: the static model's limit", size=8)
    figure.suptitle(f"Hot variants, one launch each\n{title_of(results)}", size=9)
    return figure


def contenders(results: Results, pyplot: Any, method: str) -> Any:
    """A panel a point, a bar a contender: percent of a copy's bandwidth."""
    entries = [e for e in timed(results, "contenders") if e["method"] == method]
    points: dict[str, dict[str, Entry]] = {}
    for e in entries:  # a contender that was timed twice beside different others: the first time
        points.setdefault(e["point"], {}).setdefault(f"{e['contender']}, {e['destination']}", e)
    columns = min(COLUMNS, len(points))
    lines = -(-len(points) // columns)
    most = max(map(len, points.values()))
    size = (4.9 * columns, 0.6 + lines * (1.0 + BAR * most))
    figure, grid = pyplot.subplots(lines, columns, figsize=size, layout="constrained", squeeze=False)
    panels = list(grid.flat)
    for axes, found in zip(panels, points.values(), strict=False):
        ordered = sorted(found.values(), key=lambda e: (e["scope"] != "per sample", -e["percent_of_copy"]))
        names = [f"{e['contender']}, {e['destination']}{', *' * (e['scope'] != 'per sample')}" for e in ordered]
        bars(axes, names, [e["percent_of_copy"] for e in ordered], [colour_of(e["contender"]) for e in ordered])
        axes.set_title(label_of(ordered[0]), size=8.5)
    for axes in panels[len(points) :]:
        axes.set_visible(False)
    figure.supxlabel("GB/s as percent of a device copy's in the same run; * one draw for a pair or a batch", size=8)
    figure.suptitle(f"{method}: public calls\n{title_of(results)}", size=9.5)
    return figure


def colour_of(contender: str) -> str:
    if contender.startswith(OURS):
        return OURS_COLOUR
    return COMPILED_COLOUR if contender.startswith("torch.compile") else OTHER_COLOUR


def growth(results: Results, pyplot: Any) -> Any:
    """Time over batch size and over the number of classes, both on logarithmic axes."""
    entries = timed(results, "growth")
    names = list(dict.fromkeys(e["contender"] for e in entries))
    figure, panels = pyplot.subplots(1, 2, figsize=(10, 4.6), layout="constrained")
    for axes, axis in zip(panels, "BK", strict=True):
        here = [e for e in entries if e["axis"] == axis]
        for method in METHODS:
            for number, name in enumerate(names):
                line = sorted((e["value"], e["us"]) for e in here if (e["contender"], e["method"]) == (name, method))
                if line:
                    axes.plot(*zip(*line, strict=True), LINES[number % len(LINES)], color=COLOURS[method], marker="o",
                              markersize=3, label=f"{method}, {name}")  # fmt: skip
        copies = sorted({e["value"]: e["copy_us"] for e in here}.items())
        if copies:
            axes.plot(*zip(*copies, strict=True), color="#444444", linewidth=0.8, label="copy of the images")
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.set_xticks([value for value, _ in copies], [str(value) for value, _ in copies], size=7.5, minor=False)
            axes.set_xticks([], minor=True)
        axes.set_xlabel({"B": "samples in a batch", "K": "classes"}[axis], size=8.5)
        axes.tick_params(axis="y", labelsize=7.5)
        axes.grid(alpha=0.25, linewidth=0.5)
        strip(axes)
    panels[0].set_ylabel("microseconds a call", size=8.5)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=7.5, frameon=False)
    figure.suptitle(f"bf16, 3 x 224 x 224; 1000 classes (left), 256 samples (right)\n{title_of(results)}", size=9.5)
    return figure


def draw(results: Results, folder: Path, formats: Iterable[str] = ("svg",)) -> list[Path]:
    """Writes the plots there are numbers for; returns their paths."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.rcParams["svg.hashsalt"] = "fusedmix"  # the same numbers give the same file
    makers = {"gpu-kernels": kernels} if timed(results, "bench") else {}
    for method in METHODS:
        if any(e["method"] == method for e in timed(results, "contenders")):
            makers[f"gpu-{method}"] = lambda r, p, m=method: contenders(r, p, m)
    if timed(results, "variants"):
        makers["gpu-variants"] = variants
    if timed(results, "growth"):
        makers["gpu-growth"] = growth
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, make in makers.items():
        figure = make(results, pyplot)
        for kind in formats:
            written.append(folder / f"{name}.{kind}")
            figure.savefig(written[-1], metadata={"Date": None} if kind == "svg" else None, dpi=110)
        pyplot.close(figure)
    return written


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, help="gpu.json")
    parser.add_argument("--out", type=Path, required=True, help="folder for the plots")
    parser.add_argument("--format", default="svg", help="svg or png (default: %(default)s)")
    options = parser.parse_args()
    results = json.loads(options.results.read_text(encoding="utf-8"))
    print(*draw(results, options.out, [options.format]), sep="\n")


if __name__ == "__main__":
    main()
