"""README's speed section and the plot, made from bench/results: `python -m bench.report [--plot]`."""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .gpu_report import against

ROOT = Path(__file__).resolve().parent.parent
README, RESULTS = ROOT / "README.md", ROOT / "bench" / "results"
BEGIN, END = "<!-- speed: written by python -m bench.report -->", "<!-- end of speed -->"
DESTINATIONS = ("fresh", "out", "in place")
SHOWN = {
    "[512, 3, 32, 32]": "[512,3,32,32]",
    "[128, 3, 224, 224]": "[128,3,224,224]",
    "[128, 3, 224, 224], uint8 to normalised bfloat16": "[128,3,224,224], uint8 to normalised bfloat16",
}

Json = dict[str, Any]


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    header = list(header)
    return [" | ".join(["", *cells, ""]).strip() for cells in (header, ["---"] * len(header), *map(list, rows))]


COMPILED = "PyTorch by hand, torch.compile"


def speed_table(cpu: Json, method: str) -> list[str]:
    """Ratios of every contender at the shown points, one column per point and destination."""
    tables = {shown: cpu["tables"].get(f"{method} {point}") for point, shown in SHOWN.items()}
    columns = [
        (shown, d)
        for shown, t in tables.items()
        if t
        for d in DESTINATIONS
        if any(r["destination"] == d and "ratio" in r and r["scope"] != "yardstick" for r in t["rows"])
    ]
    cells: dict[tuple[str, str], dict[tuple[str, str], str]] = {}
    for shown, t in tables.items():
        for r in t["rows"] if t else ():
            if "ratio" in r:
                cells.setdefault((r["contender"], r["scope"]), {})[shown, r["destination"]] = f"{r['ratio']:.3g}"
    scopes = ["per sample", "per pair", "per batch", "yardstick"]
    names = sorted(cells, key=lambda name: scopes.index(name[1]))
    header = [f"{method}, copies", "draws", *(f"{shown} {d}" for shown, d in columns)]
    return table(header, ([name, scope, *(cells[name, scope].get(c, "-") for c in columns)] for name, scope in names))


def render_cpu(cpu: Json) -> list[str]:
    env = cpu["environment"]
    packages = ("torch", "numpy", "timm", "torchvision", "kornia", "composer")
    versions = ", ".join(f"{name} {env[name]}" for name in packages if env.get(name, "not installed")[0].isdigit())
    lines = [
        f"On a CPU ({env['cpu']}, 2 threads, {versions}), as multiples of the time of `out.copy_(x)` into warm memory "
        "in the same interleaved run; float32, int64 classes to dense rows. Every contender's images and rows were "
        "checked before it was timed. \"fresh\" returns new tensors: the memory of `x.clone()` "
        "costs several copies, that of fusedmix less where the system hands it large pages on request.",
        "",
    ]  # fmt: skip
    for method in ("cutmix", "mixup"):
        lines += [*speed_table(cpu, method), ""]
    lines += render_family(cpu)
    host = [cpu["tables"].get(f"host cost {m}") for m in ("cutmix", "mixup")]
    if all(host):
        values = [max(h["host cost in cheapest eager ops"].values()) for h in host]
        lines += [
            "Checks, allocation and dispatch of a call, without the launch, cost at most "
            f"{values[0]:.2f} (CutMix) and {values[1]:.2f} (mixup) times the host time of the cheapest eager torch ops "
            "that mix a batch with one lam.",
            "",
        ]  # fmt: skip
    first = [cpu["tables"].get(f"first call {m}") for m in ("cutmix", "mixup")]
    if all(first):
        times = [t["first and second call ms, this machine only"] for t in first]
        ours = ("fusedmix", "fusedmix without a C compiler")
        shares = [max(t[name][0] / t[COMPILED][0] for t in times) for name in ours]
        lines += [
            f"The first call at [512,3,32,32], which compiles the C loops, took {shares[0]:.1%} of the time of the "
            f"compiled contender's first call, and without a C compiler {shares[1]:.1%}.",
            "",
        ]  # fmt: skip
    return lines


def render_gpu(results: list[Json]) -> list[str]:
    """Per result of bench/gpu.py: the kernels alone, the public calls beside their rivals, recipes, and the goals."""
    if not results:
        return [
            "On a GPU: **not measured** yet. `python bench/gpu.py --out DIR` runs every kernel test against the",
            "reference on the GPU at hand, counts launches, measures the GB/s of every hot variant against a device",
            "copy and everybody else's calls beside ours, and searches the launch table.",
            "",
        ]  # fmt: skip
    lines = []
    for gpu in results:
        found = {part: [e for e in gpu.get(part, []) if "us" in e] for part in ("bench", "variants", "recipes")}
        alone = [[f"{e['name']}, {e['method']}", *speed(e), "-"] for e in found["bench"]]
        alone += [[e["variant"], *speed(e), f"{e['expected']['margin']:.2f}" if e["expected"] else "-"]
                  for e in found["variants"]]  # fmt: skip
        recipes = [[e["recipe"], e["contender"], f"{e['images_per_s']:.0f}", f"{e['times_of_copy']:.2f}"]
                   for e in found["recipes"]]  # fmt: skip
        said = {True: "kept", False: "missed", None: "not measured"}
        goals = [[goal, said[p["kept"]], ", ".join(p["broken_by"]) or "-"]
                 for goal, p in gpu.get("promises", {}).items()]  # fmt: skip
        lines += [f"On a {gpu['environment']['gpu']}, the kernel alone (model: time to issue / time to move):", ""]
        lines += [*table(["kernel", "us", "GB/s", "% of a copy's", "model"], alone), ""]
        points, rivals = against(gpu.get("contenders", []))
        rows = [[*who, *(cells.get(point, "-") for point in points)] for who, cells in rivals.items()]
        lines += ["Times of `out.copy_(x)`:", "", *table(["method", "", "destination", *points], rows), ""] * bool(rows)
        lines += [*table(["recipe", "", "images/s", "times of a copy"], recipes), ""] * bool(recipes)
        lines += [*table(["goal", "", "missed by"], goals), ""] * bool(goals)
    return lines


def speed(entry: Json) -> list[str]:
    return [f"{entry['us']:.1f}", f"{entry['gb_per_s']:.0f}", f"{entry['percent_of_copy']:.1f}"]


def render_static(static: Json | None) -> list[str]:
    """Per GPU of the model in bench/static.py: how many variants memory limits, and the others by name."""
    if static is None:
        return []
    rows = []
    for gpu in static["gpus"]:
        figures = {name: entry[gpu] for name, entry in static["variants"].items()}
        expected = {name: found.get("expected", found["margin"]) for name, found in figures.items()}
        order = sorted((name for name in figures if figures[name]["margin"] >= 1), key=expected.__getitem__)
        above = ", ".join(f"{name} {expected[name]:.2f}" for name in order if expected[name] >= 1)
        bounds = ", ".join(
            f"{name} {expected[name]:.2f} ({figures[name]['margin']:.2f})" for name in order if expected[name] < 1
        )
        below = sum(value < 1 for value in expected.values())
        rows.append([gpu, f"{below} of {len(expected)}", above or "-", bounds or "-"])
    return [
        f"What the compiled code lets one expect (a model, not a measurement; triton {static['triton']}): time to "
        "issue instructions over time to move bytes. Below 1, memory is the limit. Where it would be above 1 if every "
        "tile took every branch, the branches are weighed with the share of the tiles that take them in Triton's "
        "interpreter.",
        "", *table(["GPU", "variants below 1", "above 1", "below 1 (if every tile took every branch)"], rows), "",
    ]  # fmt: skip


def render_family(cpu: Json) -> list[str]:
    """Whole recipes and Random Erasing beside their peers, every method's cost: test_augment.py and test_family.py."""
    lines: list[str] = []
    for kind, head in (
        ("recipe", "uint8 batch to normalised float32, copies of the result"),
        ("random erasing", "Random Erasing, p = 0.5, copies"),
        ("random erasing, noise", "Random Erasing by noise of each pixel, p = 0.5, copies"),
        ("family", "other methods, copies"),
    ):  # fmt: skip
        kept = {title: t for title, t in cpu["tables"].items() if title.startswith(f"{kind} ")}
        tables = {title.removeprefix(f"{kind} "): t for title, t in kept.items()}
        names = list(dict.fromkeys((r["contender"], r["destination"]) for t in tables.values() for r in t["rows"]))
        rows = []
        for name, destination in names:
            found = [
                {(r["contender"], r["destination"]): r.get("ratio") for r in t["rows"]}.get((name, destination))
                for t in tables.values()
            ]
            rows.append([name, destination, *("-" if ratio is None else f"{ratio:.3g}" for ratio in found)])
        if kind == "recipe":
            rows.sort(key=lambda row: sum(float(cell) for cell in row[2:] if cell != "-"))
            lines += ["Whole recipes; torchvision's CutMix takes one box a batch, the others one a sample:", ""]
        if rows:
            shown = (title.replace(", ", ",") if title[0] == "[" else title for title in tables)
            lines += [*table([head, "", *shown], rows), ""]
    return lines


def load(name: str) -> Json | None:
    path = RESULTS / name
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def render() -> str:
    cpu = load("cpu.json")
    gpus = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("gpu*.json"))]
    lines = [*(render_cpu(cpu) if cpu else []), *render_gpu(gpus), *render_static(load("static.json"))]
    return "\n".join(["", *lines])


def with_section(readme: str, section: str) -> str:
    head, _, rest = readme.partition(BEGIN)
    _, found, tail = rest.partition(END)
    if not found:
        raise ValueError(f"README.md must hold {BEGIN} and {END}")
    return f"{head}{BEGIN}\n{section}\n{END}{tail}"


def plot(cpu: Json, path: Path) -> None:
    """Bars of the per-sample contenders at the two plain points, out= where there is one."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise SystemExit("the plot needs matplotlib: pip install 'fusedmix[bench]'") from error
    figure = Figure(figsize=(11, 6), layout="constrained")
    axes = figure.subplots(2, 2)
    for row, method in zip(axes, ("cutmix", "mixup"), strict=True):
        for axis, point in zip(row, ("[512, 3, 32, 32]", "[128, 3, 224, 224]"), strict=True):
            best: dict[str, tuple[float, str]] = {}
            for r in cpu["tables"][f"{method} {point}"]["rows"]:
                if "ratio" in r and r["scope"] == "per sample":
                    best[f"{r['contender']}, {r['destination']}"] = (r["ratio"], r["contender"])
            names = sorted(best, key=lambda name: -best[name][0])
            colours = ["#d1495b" if best[name][1] == "fusedmix" else "#8d99ae" for name in names]
            bars = axis.barh(names, [best[name][0] for name in names], color=colours)
            axis.bar_label(bars, fmt="%.3g", padding=3, fontsize=8)
            axis.set_xscale("log")
            axis.set_xlim(0.5, 3 * max(ratio for ratio, _ in best.values()))
            axis.tick_params(labelsize=8)
            axis.set_title(f"{method} {point}, multiples of a copy", fontsize=10, loc="right")
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plot", action="store_true", help="also draw bench/results/cpu.svg (extra: bench)")
    options = parser.parse_args()
    README.write_text(with_section(README.read_text(encoding="utf-8"), render()), encoding="utf-8")
    cpu = load("cpu.json")
    if options.plot and cpu:
        plot(cpu, RESULTS / "cpu.svg")


if __name__ == "__main__":
    main()
