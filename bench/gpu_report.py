"""What a run of bench/gpu.py amounts to: the promises, kept or not, and the short table printed last."""

from typing import Any

Results = dict[str, Any]

BANDWIDTHS = (85.0, 95.0)  # percent of a device copy's
HOST_US = 15.0
AHEAD_OF_COMPILE, AHEAD_OF_TIMM = 1.5, 5.0
CHECKED = (
    "correctness", "launches", "sanitizer", "bench", "variants", "contenders", "growth", "recipes", "tune",
    "first", "capture", "smoke",
)  # fmt: skip


def timed(results: Results, part: str) -> list[dict]:
    return [e for e in results.get(part, []) if "us" in e]


def promise(values: dict[str, float], least: float | None = None, below: float | None = None) -> dict:
    """Kept when every value is; None when nothing was measured."""
    kept = {
        name: (least is None or value >= least) and (below is None or value < below) for name, value in values.items()
    }
    return {
        "kept": all(kept.values()) if kept else None,
        "values": values,
        "broken_by": [n for n, k in kept.items() if not k],
    }


def ahead(results: Results, method: str, rival: str) -> dict[str, float]:
    """How many times ours, into a fresh tensor, the best such rival takes per point; each by the copy beside it."""
    ours: dict[str, float] = {}
    theirs: dict[str, float] = {}
    for e in (e for e in timed(results, "contenders") if e["method"] == method):
        if (e["contender"], e["destination"]) == ("fusedmix", "fresh"):
            ours.setdefault(e["point"], e["times_of_copy"])
        elif e["contender"].startswith(rival):
            theirs[e["point"]] = min(theirs.get(e["point"], float("inf")), e["times_of_copy"])
    return {f"{point}, {method}": theirs[point] / ours[point] for point in ours if point in theirs}


def promises(results: Results) -> dict[str, dict]:
    launches = results.get("launches", [])
    kernels = {e["name"]: e["kernels"] for e in launches if e.get("expected") == 1 and e.get("kernels") is not None}
    host = {e["name"]: e["host_us"] for e in launches if "fused" in e["name"].lower() and "host_us" in e}
    hot = {
        f"{e['name']}, {e['method']}": e["percent_of_copy"] for e in timed(results, "bench")
        if e.get("promised") and not e["in_place"]
    } | {e["variant"]: e["percent_of_copy"] for e in timed(results, "variants") if e["promised"]}  # fmt: skip
    in_place = {
        e["name"]: e["times_of_copy"] for e in timed(results, "bench") if e["in_place"] and e["method"] == "cutmix"
    }
    big = {point for e in timed(results, "bench") if e.get("promised") for point in [e["point"]]}

    def large(values: dict[str, float]) -> dict[str, float]:
        return {name: v for name, v in values.items() if name.rsplit(", ", 1)[0] in big or not big}

    elem = 'timm Mixup(mode="elem")'
    timm = {**ahead(results, "mixup", elem), **ahead(results, "cutmix", elem)}
    return {
        "one launch a call": promise(kernels, 1, 1.01),
        **{f">= {p:g} % of copy bandwidth, every hot variant at [256, 3, 224, 224] and above": promise(hot, p)
           for p in BANDWIDTHS},
        f"host time below {HOST_US:g} us a call": promise(host, below=HOST_US),
        f"mixup >= {AHEAD_OF_COMPILE:g} x ahead of the best torch.compile": promise(
            large(ahead(results, "mixup", "torch.compile")), AHEAD_OF_COMPILE),
        f">= {AHEAD_OF_TIMM:g} x ahead of timm's elem mode": promise(timm, AHEAD_OF_TIMM),
        "CutMix in place faster than a copy": promise(in_place, below=1.0),
    }  # fmt: skip


def entries_of(results: Results) -> list[dict]:
    return [{"part": part, **e} for part in CHECKED for e in results.get(part, [])]


def summary(results: Results) -> bool:
    """Prints the results in short; True when nothing failed."""
    env, ran = results["environment"], results.get("correctness", [])
    print(f"\n{env['gpu']}, torch {env['torch']}, triton {env['triton']}, {results['seconds']}")
    if ran:
        print(f"correctness: {sum(e['ok'] for e in ran)} of {len(ran)} checks passed", end=", ")
        print(f"{sum(bool(e.get('identical')) for e in ran)} identical bit for bit", end=", ")
        print(f"skipped: {[e['name'] for e in ran if 'skipped' in e]}")
    for e in results.get("sanitizer", []):
        print(f"{e['name']}: {e.get('skipped') or e.get('summary') or e.get('error', '')[-200:]}"[:200])
    for e in (e for e in results.get("launches", []) if "host_us" in e):
        print(f"{e['name']:42} {e['kernels']!s:>5} kernels {e['host_us']:9.1f} us host")
    for e in timed(results, "bench"):
        print(f"{e['name']:22} {e['method']:7} {e['us']:9.1f} us {e['gb_per_s']:7.0f} GB/s", end=" ")
        print(f"{e['percent_of_copy']:6.1f} % of copy, {e['times_of_copy']:5.2f} x its time")
    for e in timed(results, "variants"):
        print(
            f"{e['variant']:40} {e['us']:9.1f} us {e['gb_per_s']:7.0f} GB/s {e['percent_of_copy']:6.1f} % of copy",
            end="",
        )
        print(f", issue / memory time expected: {e['expected']['margin']:.2f}" if e["expected"] else "")
    print_contenders(results)
    for e in results.get("recipes", []):
        if "us" in e:
            print(f"{e['recipe'][:24]:24} {e['contender'][:44]:44} {e['images_per_s']:12.0f} images/s", end=" ")
            print(f"{e['times_of_copy']:7.2f} x a copy, {e.get('kernels', '-')!s:>6} kernels")
        elif "contender" in e:
            print(f"{e['recipe'][:24]:24} {e['contender'][:44]:44} {e.get('status', '-')[:60]}")
    for e in (e for e in results.get("tune", []) if "best_is" in e):
        print(f"tune {e['variant']:40} {e['current_percent']:6.1f} -> {e['best_percent']:6.1f} % by {e['best_is']}")
    for e in (e for e in results.get("first", []) if "first_call_s" in e):
        print(f"first call, {e['name']}, {e['caches']} caches: {e['first_call_s']:.2f} s")
    for name, p in results.get("promises", {}).items():
        said = {True: "kept", False: "BROKEN", None: "not measured"}[p["kept"]]
        print(f"promise {said:12} {name}", *([f"by {', '.join(p['broken_by'])}"] if p["broken_by"] else []))
    for part, names in results.get("left_out", {}).items():
        print(f"no time left in {part}: {len(names)} left out, from {names[0]!r} on")
    for reason in results.get("aborted", []):
        print(f"went on in a new process after: {reason.strip().splitlines()[-1][:150]}")
    failed = [e for e in entries_of(results) if not e["ok"]]
    for e in failed[:40]:
        error = e.get("error") or e.get("status") or f"{e.get('kernels')} kernels, {e.get('summary')}"
        print(f"FAILED {e['part']}: {e.get('name')} {e.get('method', '')}: {error.strip().splitlines()[-1][:150]}")
    if results.get("dry_run"):
        print("DRY RUN: none of these numbers means anything")
    return not failed and not results.get("aborted")


def against(entries: list[dict]) -> tuple[list[str], dict[tuple[str, str, str], dict[str, str]]]:
    """The points; per method, contender and destination the times of a copy at each, or what became of it."""
    lines: dict[tuple[str, str, str], dict[str, str]] = {}
    for e in (e for e in entries if "point" in e):
        cell = f"{e['times_of_copy']:.2f}" if "us" in e else e.get("status", "-").partition(":")[0][:9]
        lines.setdefault((e["method"], e["contender"], e["destination"]), {})[e["point"]] = cell
    return list(dict.fromkeys(e["point"] for e in entries if "point" in e)), lines


def print_contenders(results: Results) -> None:
    """One line a contender and method."""
    points, lines = against(results.get("contenders", []))
    if lines:
        print("times of a copy: " + " | ".join(points))
    for (method, contender, destination), cells in lines.items():
        if set(cells.values()) != {"not insta"}:
            print(f"{method:6} {contender[:40]:40} {destination:8}", *(f"{cells.get(p, '-'):>9}" for p in points))
