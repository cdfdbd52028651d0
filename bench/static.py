"""What the compiled code lets one expect, without a GPU: `python -m bench.static [--write]`.

A model, not a measurement. Per variant and target it follows the image programs through the machine code: the longest
path without the tile loop (the draws of a program included, slow paths of divisions not), plus the loop as often as the
program has tiles. Instructions are spread over the elements that a program writes. From that, per GPU:

    memory time  bytes that must move / copy bandwidth
    issue time   the busiest of: all instructions over 4 schedulers of 32 lanes, integer and logic ones over ALU lanes,
                 float32 ones over theirs, integer multiplications over 64 lanes, conversions, special functions and
                 sums of a warp over 16, loads and stores over 32, per clock and SM

`margin` is issue time / memory time: above 1 the variant could not reach the bandwidth. It assumes that every tile
takes the longest way through all branches: a bound. Where it is above 1, `expected` takes each way as often as the
tiles and programs do in Triton's interpreter, with the methods' own defaults (bench/paths.py): an estimate, too low
where a compiler fills a block with more rare code than its own, too high in the other case. Bytes: each input byte
is read once and each output byte written once for pairs, of crops the sectors that they lie in; a gathered mixup reads
two samples, a gathered CutMix one and the runs on the edges of boxes, which are left out; in place all of it is assumed
to move. Target rows are left out.
Programs have as many tiles as large batches give them; those that leave a pair to its other sample's count as well.

Besides, per target what a multiprocessor's programs read of images before they wait ("KiB in flight", from registers),
and per GPU how often programs of FULL images follow each other on it ("waves"): few of either leave memory idle, which
`margin` does not know.
"""

import argparse
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Collection
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from statistics import median_high
from typing import Any, NamedTuple
from unittest.mock import patch

import torch

from .paths import ROOT, Chain, early_exits, function_of, place, share_of

RESULT = ROOT / "bench" / "results" / "static.json"


class Gpu(NamedTuple):
    target: str
    sms: int
    clock: float  # GHz, boost
    bandwidth: float  # bytes a second
    alu_lanes: int  # integer and logic lanes per SM
    fp32_lanes: int  # 64 of them also multiply integers


# SMs, lanes, clocks and peak bandwidths from NVIDIA's data sheets; the H200's bandwidth is a measured copy. The B200's
# is that of the Blackwell data sheet, 7.7 TB/s; a driver's bus of 7680 bits at 3996 MHz makes 7.67 (pytorch/ao#4002).
GPUS = {
    "A100 80 GB": Gpu("sm_80", 108, 1.41, 2.04e12, 64, 64),
    "H100 SXM": Gpu("sm_90", 132, 1.98, 3.35e12, 64, 128),
    "H200": Gpu("sm_90", 132, 1.98, 4.3e12, 64, 128),
    "B200": Gpu("sm_100", 148, 1.965, 7.7e12, 64, 128),
}
REGISTERS, MAX_WARPS, MAX_BLOCKS = 65536, 64, 32
FULL = 256  # images
DRAWN = 4096  # crops, for the mean of what they read

# F2FP, which packs two halves, runs with the logic ones.
SPECIAL = ("I2F", "F2I", "F2F.", "MUFU", "POPC", "FRND", "REDUX", "CREDUX")
MEMORY = ("LDG", "STG", "LDS", "STS", "LDC", "ATOM", "RED")
FMA = ("FFMA", "FMUL", "FADD", "IMAD", "IDP", "HFMA", "HADD", "HMUL")  # as NVIDIA's profiling guide says of pipelines
MULTIPLIED = ("IMAD", "IDP")  # integers, dot products among them
SLOW_PATH = "CALL of a slow path"
TWO_LANES = ("FFMA2", "FMUL2", "FADD2")  # two float32 at once


class Instruction(NamedTuple):
    opcode: str
    predicated: bool
    jump: str | None
    chain: Chain  # the statement it comes from, and those that called it, the kernel's first; empty: unknown


def parse(code: str) -> tuple[list[Instruction], dict[str, int]]:
    """Instructions of a disassembly, and the index that each label stands for."""
    instructions: list[Instruction] = []
    labels: dict[str, int] = {}
    callers: list[tuple[str, str]] = []
    ended = True
    for line in code.splitlines():
        if source := re.search(r'//## File "([^"]+)", line (\d+)', line):
            callers = [source.groups()] if ended else [*callers, source.groups()]
            ended = False
            continue
        ended = True
        if label := re.match(r"(\.L_x_\d+):", line.strip()):
            labels[label[1]] = len(instructions)
        elif found := re.search(r"/\*[0-9a-f]{4,}\*/\s+(@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)([^;]*);", line):
            jump = re.search(r"\.L_x_\d+", found[3]) if found[2].startswith("BRA") else None
            places = list(filter(None, (place(file, int(number)) for file, number in reversed(callers))))
            chain = tuple(name for k, name in enumerate(places) if k == 0 or name != places[k - 1])
            opcode = SLOW_PATH if found[2].startswith("CALL") and "slowpath" in found[3] else found[2]
            predicated = found[1] or re.match(r" !?U?P\d, ", found[3])  # in front of the opcode or behind it
            instructions.append(Instruction(opcode, bool(predicated), jump[0] if jump else None, chain))
    return instructions, labels


def successors(instructions: list[Instruction], labels: dict[str, int]) -> list[list[int]]:
    """Where each instruction may go next, without the slow paths of divisions and roots.

    Nor those of a warp whose threads went apart (BRA.DIV), which they never do: branches are of scalars.
    """
    result = []
    calls, places = slow_paths(instructions, labels), len(instructions)
    for n, instruction in enumerate(instructions):
        follows = []
        apart = instruction.opcode == "BRA.DIV"
        ends = instruction.opcode.startswith(("EXIT", "RET", "BRA")) and not instruction.predicated and not apart
        if not ends and n + 1 < places and not (instruction.jump and calls[n + 1]):
            follows.append(n + 1)
        if instruction.jump and not apart and not calls[labels[instruction.jump]]:
            follows.append(labels[instruction.jump])
        result.append(follows)
    return result


def slow_paths(instructions: list[Instruction], labels: dict[str, int]) -> list[bool]:
    """Whether each instruction leads to the call of a slow path, before any jump or label."""
    leads, ahead, places = [False] * len(instructions), False, set(labels.values())
    for n in range(len(instructions) - 1, -1, -1):
        opcode = instructions[n].opcode
        ahead = opcode == SLOW_PATH or (ahead and not opcode.startswith("BRA"))
        leads[n] = ahead
        ahead = ahead and n not in places
    return leads


def in_order(
    instructions: list[Instruction], labels: dict[str, int]
) -> tuple[list[Instruction], list[list[int]], list[tuple[int, int]]]:
    """(instructions, where each may go next without going back, loops as (first, last)), in an order of execution.

    Compilers also put blocks behind the code that they go on to: a jump to a lower address need not be a loop.
    """
    follows = successors(instructions, labels)
    done: list[int] = []  # in reverse
    state = [0] * len(instructions)  # 1: on the way from the start, 2: done
    backs: set[tuple[int, int]] = set()
    stack = [(0, iter(follows[0]))] if instructions else []
    while stack:
        n, ahead = stack[-1]
        state[n] = 1
        for m in ahead:
            if state[m] == 1:
                backs.add((n, m))
            elif state[m] == 0:
                stack.append((m, iter(follows[m])))
                break
        else:
            state[n] = 2
            done.append(n)
            stack.pop()
    order = done[::-1]
    place = {n: k for k, n in enumerate(order)}
    ahead_of = [[place[m] for m in follows[n] if (n, m) not in backs] for n in order]
    loops = [(place[m], place[n]) for n, m in backs if n != m]
    return [instructions[n] for n in order], ahead_of, loops


def weights(
    instructions: list[Instruction], follows: list[list[int]], start: int, end: int, shares: dict[str, float]
) -> list[float]:
    """The share of the tiles that reach each instruction of a loop; 1 for what is not known to be left out by some.

    What is on every path is always reached. The rest comes in blocks, which are reached as often as most of their
    instructions, of those that not all tiles reach: compilers move others into blocks. Blocks of which every path has
    all or none are reached alike: as often as that one of them which is reached most often.
    """
    before, behind = [0] * len(instructions), [0] * len(instructions)  # paths from the start, and to the end
    before[start] = behind[end] = 1
    for n in range(start, end):
        for m in follows[n]:
            if m <= end:
                before[m] += before[n]
    for n in range(end - 1, start - 1, -1):
        behind[n] = sum(behind[m] for m in follows[n] if m <= end)
    entered = {m for n in range(start, end) for m in follows[n] if m != n + 1}
    blocks: dict[int, int] = {}  # first and last instructions
    n = start
    while n <= end:
        last = n
        while last < end and follows[last] == [last + 1] and last + 1 not in entered:
            last += 1
        blocks[n] = last
        n = last + 1
    result = [1.0] * len(instructions)
    alike: dict[int, list[int]] = {}  # blocks, by how many paths they are on
    for n in blocks:
        if before[n] * behind[n] < before[end]:
            alike.setdefault(before[n] * behind[n], []).append(n)
    for some in alike.values():
        while some:
            ways = {some[0]: 1}  # paths from that block
            for n in range(some[0], some[-1]):
                for m in follows[n] if n in ways else ():
                    ways[m] = ways.get(m, 0) + ways[n]
            group = [n for n in some if ways.get(n, 0) * behind[n] == behind[some[0]]]
            some = [n for n in some if n not in group]
            share = max(usual_share(instructions[n : blocks[n] + 1], shares) for n in group)
            for n in group:
                result[n : blocks[n] + 1] = [share] * (blocks[n] + 1 - n)
    return result


def usual_share(instructions: list[Instruction], shares: dict[str, float]) -> float:
    """The share of the tiles that reach most of the instructions of a block, of those that not all reach; or 1."""
    found = [share_of(instruction.chain, shares) for instruction in instructions if instruction.chain]
    return median_high([share for share in found if share < 1] or [1.0])


def longest(follows: list[list[int]], start: int, end: int | None, stores: Collection[int] = ()) -> list[int]:
    """The path from `start` to `end`, or to an exit, that has the most of `stores`, and then the most instructions."""
    length: dict[int, tuple[int, int]] = {}
    last = len(follows) - 1 if end is None else end
    for n in range(last, start - 1, -1):
        reach = [length[m] for m in follows[n] if m in length]
        if reach or n == end or (end is None and not follows[n]):
            most, more = max(reach, default=(0, 0)) if n != end else (0, 0)
            length[n] = most + (n in stores), more + 1
    path, n = [], start
    while True:
        path.append(n)
        following = [m for m in follows[n] if m in length]
        if n == end or not following:
            return path
        n = max(following, key=length.__getitem__)


def flow(follows: list[list[int]], start: int, end: int, weight: list[float]) -> list[float]:
    """How often each instruction runs on the way from `start` to `end`.

    A branch goes each way as often as the shares of the blocks behind it say; where they say nothing, the longer way.
    """
    cost: dict[int, float] = {end: 1.0}
    ways: dict[int, dict[int, float]] = {}
    for n in range(end - 1, start - 1, -1):
        following = [m for m in follows[n] if m in cost]
        if not following:
            continue
        rare = {m: weight[m] for m in following if weight[m] < weight[n]}
        if len(following) == 1:
            ways[n] = {following[0]: 1.0}
        elif not rare or (len(rare) == len(following) and not sum(rare.values())):
            ways[n] = {max(following, key=cost.__getitem__): 1.0}
        elif len(rare) == len(following):
            ways[n] = {m: share / sum(rare.values()) for m, share in rare.items()}
        else:
            ways[n] = {m: share / weight[n] for m, share in rare.items()}
            ways[n] |= {m: 1.0 - sum(ways[n].values()) for m in following if m not in rare}
        cost[n] = 1.0 + sum(share * cost[m] for m, share in ways[n].items())
    runs = [0.0] * len(follows)
    runs[start] = 1.0
    for n in range(start, end):
        for m, share in ways.get(n, {}).items():
            runs[m] += runs[n] * share
    return runs


def kinds(instructions: list[Instruction], runs: list[float]) -> dict[str, float]:
    """How many instructions of each kind run. runs: how often each one does."""
    counts = dict.fromkeys(("all", "special", "memory", "fma", "imad", "alu", "stores"), 0.0)
    for instruction, share in zip(instructions, runs, strict=True):
        opcode = instruction.opcode
        counts["all"] += share
        kind = "special" if opcode.startswith(SPECIAL) else "memory" if opcode.startswith(MEMORY) else None
        kind = kind or ("fma" if opcode.startswith(FMA) else None)
        if kind is None and not opcode.startswith(("BRA", "EXIT", "NOP", "BSSY", "BSYNC", "U", "S2", "R2UR", "BAR")):
            kind = "alu"
        if kind:
            counts[kind] += share * (2 if opcode.startswith(TWO_LANES) else 1)
        counts["imad"] += share * opcode.startswith(MULTIPLIED)
        counts["stores"] += share * opcode.startswith("STG")
    return counts


def dynamic_counts(
    code: str, stores_needed: int, shares: dict[str, float], idle: int = 0, rankings: int = 1
) -> dict[str, float]:
    """Instructions of one thread of an image program, by kind. shares: see bench/paths.py.

    idle: programs, to one of those, that leave the pair to the other sample's. rankings: turns of the loop that ranks.
    """
    instructions, follows, jumps_back = in_order(*parse(code))
    stores = [n for n, instruction in enumerate(instructions) if instruction.opcode.startswith("STG")]
    loops = [(*ends, longest(follows, *ends)) for ends in jumps_back]
    ranks = {n for _, last, body in loops if body[-1] == last for n in body
             if any("beside" in map(function_of, instructions[m].chain) for m in body)}  # fmt: skip

    def along(start: int, end: int | None) -> dict[str, float]:
        """Those between two places: along the longest path, or where shares are known as often as they are reached."""
        if shares and end is not None:
            runs = flow(follows, start, end, weights(instructions, follows, start, end, shares))
        else:
            path = set(longest(follows, start, end, stores))
            runs = [float(n in path) for n in range(len(instructions))]
        return kinds(instructions, [times * (rankings if n in ranks else 1) for n, times in enumerate(runs)])

    tiles = [(len(body), start, last) for start, last, body in loops
             if body[-1] == last and not set(body).isdisjoint(stores)]  # fmt: skip
    if not tiles:  # the only tile, or all of them unrolled: the path of the most stores, which is no row program's
        result = along(0, None)
    else:
        _, header, end = max(tiles)
        before, each, after = along(0, header), along(header, end), along(end, None)
        once = {k: before[k] + after[k] for k in each}
        edges = kinds(instructions, [float(n in (header, end)) for n in range(len(instructions))])  # counted twice
        once = {k: v - edges[k] for k, v in once.items()}
        trips = max(1.0, (stores_needed - once["stores"]) / each["stores"])
        result = {k: once[k] + trips * each[k] for k in once}
    if idle:
        left = along(0, next(n for n, instruction in enumerate(instructions) if leaves(instruction)))
        result = {k: v + idle * left[k] for k, v in result.items()}
    return result


def leaves(instruction: Instruction) -> bool:
    """Whether it ends a program that leaves its pair to the other sample's: the kernel's own branch."""
    goes = instruction.opcode.startswith(("EXIT", "BRA")) and instruction.predicated
    return goes and len(instruction.chain) == 1 and instruction.chain[0] in early_exits()


def read_of_crops(variant: Any) -> float:
    """Bytes that a crop reads of its image, an element of the result: the mean of DRAWN crops."""
    from fusedmix.checks import knobs_of

    from .hot import bytes_of_crops

    geometry, size = variant.geometry, variant.shape[2:]
    knob = knobs_of(variant.placement.knobs(), torch.device("cpu"))[0]
    read = bytes_of_crops(geometry, knob, 0, DRAWN, size, variant.x_dtype.itemsize)
    return float(read.double().mean()) / (geometry.height * geometry.width)


def bytes_per_element(variant: Any) -> float:
    recipe = variant.recipe
    read = variant.x_dtype.itemsize if variant.geometry is None else read_of_crops(variant)
    if not recipe.is_paired and recipe.has_mixup:
        read *= 2 - (recipe.switch_prob if recipe.has_box else 0)
    return read + (variant.out_dtype or variant.x_dtype).itemsize


def margin_of(per_element: dict[str, float], moved: float, gpu: Gpu) -> tuple[float, str]:
    """Issue time / memory time, and what is issued the longest."""
    lanes = {"all": 128, "alu": gpu.alu_lanes, "fma": gpu.fp32_lanes, "imad": 64, "special": 16, "memory": 32}
    cycles, limit = max((per_element[kind] / n, kind) for kind, n in lanes.items())
    issue = cycles / (gpu.sms * gpu.clock * 1e9)
    return round(issue * gpu.bandwidth / moved, 3), limit


def is_limited(figures: dict[str, Any]) -> bool:
    """Whether issue takes longer than memory, where tiles take the branches that are expected of them."""
    return figures.get("expected", figures["margin"]) >= 1


def kernel_names(prepared: Any) -> list[str]:
    """Names of the compile-time constants of a prepared launch."""
    names = prepared.kernel.arg_names
    return names[names.index("ALIGN") :]


def analyse(variant: Any, target: str, kernel: Any = None, shares: dict[str, float] | None = None) -> dict[str, Any]:
    """Code figures of a variant on one target, and margins on the GPUs that have it. shares: see bench/paths.py."""
    from codegen import TARGETS, compile_variant, disassemble, nvidia_report, prepared_for, shape_of

    from fusedmix.kernels.sampling import KEY_CHUNK
    from fusedmix.recipe import EXACT

    kernel = kernel or compile_variant(variant, TARGETS[target])
    report, prepared = nvidia_report(kernel), prepared_for(shape_of(variant), TARGETS[target].arch)
    threads = 32 * prepared.options["num_warps"]
    itemsize = (variant.out_dtype or variant.x_dtype).itemsize
    geometry = variant.geometry
    sample = math.prod(variant.shape[1:])
    if geometry is not None:
        sample = variant.shape[1] * geometry.height * geometry.width
    programs = prepared.grid[0] - prepared.numbers[1]
    recipe = variant.recipe
    by_pair = recipe.is_paired and recipe.pairing != EXACT and not variant.replay
    launched = 1 if by_pair or not recipe.is_paired else 2  # to one that works: the upper sample's leave early
    working = programs / launched
    rankings = math.ceil(variant.shape[0] / (4 * KEY_CHUNK.value))
    elements = sample * variant.shape[0] / working  # written by a working program
    constants = dict(zip(kernel_names(prepared), prepared.constants, strict=True))
    store_bytes = min(16, constants["VEC"] * itemsize, constants["BLOCK"] // threads * itemsize)
    idle = 1.0  # threads per thread that has pixels, where tiles are wider than rows
    if tall := constants.get("TALL"):
        idle = constants["STRIDE"] * constants["BLOCK"] / (tall * constants["W"])
    code, stores = disassemble(kernel), round(elements * idle * itemsize / (store_bytes * threads))

    # A program of the last, ragged tiles still walks them all: so counted, since `working` includes it.
    def spread(weighing: dict[str, float]) -> dict[str, float]:
        counts = dynamic_counts(code, stores, weighing, launched - 1, rankings)
        return {k: v * threads / elements for k, v in counts.items() if k != "stores"}

    per_element = spread({})
    warps = threads // 32
    resident = min(MAX_BLOCKS, MAX_WARPS // warps, REGISTERS // (report["registers"] * threads))
    tile = constants["BLOCK"] * (1 if geometry is None else variant.shape[1]) * variant.images
    accesses = {**{("load", k): v for k, v in report["loads"].items()},
                **{("store", k): v for k, v in report["stores"].items()}}  # fmt: skip
    wide = sum(v for (_, width), v in accesses.items() if width == "128") / sum(accesses.values())
    moved = bytes_per_element(variant)
    result = {
        "registers": report["registers"], "occupancy": round(resident * warps / MAX_WARPS, 2),
        "KiB in flight": round(resident * tile * variant.x_dtype.itemsize / 1024, 1),
        "wide accesses": round(wide, 2), "bytes per element": round(moved, 2),
        "instructions per element": {k: round(v, 2) for k, v in per_element.items()},
    }  # fmt: skip
    for name, gpu in GPUS.items():
        if gpu.target == target:
            margin, limit = margin_of(per_element, moved, gpu)
            waves = programs_for(variant, gpu) / launched / gpu.sms / resident
            result[name] = {"margin": margin, "busiest": limit, "waves": round(waves, 2)}
            if shares and margin >= 1:
                result[name]["expected"] = margin_of(spread(shares), moved, gpu)[0]
    return result


def programs_for(variant: Any, gpu: Gpu) -> int:
    """Those that a GPU launches for FULL images of a variant."""
    from codegen import TARGETS, prepared_for, shape_of

    from fusedmix import launch

    shape = shape_of(variant)
    rows = shape.target_shape and torch.Size((FULL, *shape.target_shape[1:]))
    full = shape._replace(device=0, x_shape=torch.Size((FULL, *shape.x_shape[1:])), target_shape=rows)
    with patch.object(launch, "multiprocessors", lambda _: gpu.sms):
        prepared = prepared_for(full, TARGETS[gpu.target].arch)
    return prepared.grid[0] - prepared.numbers[1]


def model() -> dict[str, Any]:
    """Figures of all hot variants on all GPUs."""
    sys.path.insert(0, str(ROOT / "tests"))
    import triton
    from codegen_variants import HOT

    variants = entries(list(HOT), {})
    limited = [name for name, entry in variants.items() if any(is_limited(entry[gpu]) for gpu in GPUS)]
    shares = counted([name for name in limited if not HOT[name].replay])
    variants |= entries(list(shares), shares)
    return {"triton": triton.__version__, "note": "a model of the compiled code, not a measurement", "gpus": list(GPUS),
            "variants": variants, "shares": shares}  # fmt: skip


def entries(names: list[str], shares: dict[str, dict[str, float]]) -> dict[str, dict[str, Any]]:
    """Figures of hot variants on all targets, each by one of some processes."""
    tests = 0, str(ROOT / "tests")
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), sys.path.insert, tests) as pool:
        return dict(zip(names, pool.map(entry_of, names, [shares.get(name) for name in names]), strict=True))


def entry_of(name: str, shares: dict[str, float] | None) -> dict[str, Any]:
    from codegen_variants import HOT

    entry: dict[str, Any] = {}
    for target in dict.fromkeys(gpu.target for gpu in GPUS.values()):
        figures = analyse(HOT[name], target, shares=shares)
        entry |= {gpu: figures.pop(gpu) for gpu in GPUS if gpu in figures}
        entry[target] = figures
    return entry


def counted(names: list[str]) -> dict[str, dict[str, float]]:
    """What bench/paths.py counts: by processes of their own, since the interpreter takes triton's place."""
    environment = {**os.environ, "TRITON_INTERPRET": "1"}

    def count(name: str) -> dict[str, float]:
        command = [sys.executable, "-m", "bench.paths", name]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT, env=environment)
        return json.loads(done.stdout)[name]

    # FusedAugment's take longest, and come last: so the other way round, that no process is left alone with them.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(names, reversed([*pool.map(count, reversed(names))]), strict=True))


def show(figures: dict[str, Any]) -> None:
    print(f"{'issue time / memory time':40}" + "".join(f"{gpu:>20}" for gpu in GPUS))
    for name, entry in figures["variants"].items():
        cells = [f"{entry[gpu].get('expected', entry[gpu]['margin']):.2f} {entry[gpu]['busiest']}" for gpu in GPUS]
        print(f"{name:40}" + "".join(f"{cell:>20}" for cell in cells))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write bench/results/static.json; most of an hour")
    options = parser.parse_args()
    figures = model()
    show(figures)
    if options.write:
        RESULT.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
