"""What the compiled code lets one expect, without a GPU: `python -m bench.static [--write]`.

A model, not a measurement. Per variant and target it follows the image programs through the machine code: the longest
path without the tile loop (the draws of a program included, slow paths of divisions not), plus the loop as often as the
program has tiles. Instructions are spread over the elements that a program writes. From that, per GPU:

    memory time  bytes that must move / copy bandwidth
    issue time   the busiest of: all instructions over 4 schedulers of 32 lanes, integer and logic ones over ALU lanes,
                 float32 ones over theirs, integer multiplications over 64 lanes, conversions and special functions over
                 16, loads and stores over 32, per clock and SM

`margin` is issue time / memory time: above 1 the variant could not reach the bandwidth. Bytes: each input byte is read
once and each output byte written once for pairs; a gathered mixup reads two samples, a gathered CutMix one and the runs
on the edges of boxes, which are left out; in place all of it is assumed to move. Target rows are left out.
"""

import argparse
import json
import math
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "bench" / "results" / "static.json"


class Gpu(NamedTuple):
    target: str
    sms: int
    clock: float  # GHz, boost
    bandwidth: float  # bytes a second
    alu_lanes: int  # integer and logic lanes per SM
    fp32_lanes: int  # 64 of them also multiply integers


# SMs, lanes, clocks and peak bandwidths from NVIDIA's data sheets; the H200's bandwidth is a measured copy.
GPUS = {
    "A100 80 GB": Gpu("sm_80", 108, 1.41, 2.04e12, 64, 64),
    "H100 SXM": Gpu("sm_90", 132, 1.98, 3.35e12, 64, 128),
    "H200": Gpu("sm_90", 132, 1.98, 4.3e12, 64, 128),
    "B200": Gpu("sm_100", 148, 1.965, 8.0e12, 64, 128),
}
REGISTERS, MAX_WARPS, MAX_BLOCKS = 65536, 64, 32

SPECIAL = ("I2F", "F2I", "F2F.", "MUFU", "POPC", "FRND")  # F2FP, which packs two halves, runs with the logic ones
MEMORY = ("LDG", "STG", "LDS", "STS", "LDC", "ATOM", "RED")
FMA = ("FFMA", "FMUL", "FADD", "IMAD", "HFMA", "HADD", "HMUL")
TWO_LANES = ("FFMA2", "FMUL2", "FADD2")  # two float32 at once


class Instruction(NamedTuple):
    opcode: str
    predicated: bool
    jump: str | None


def parse(code: str) -> tuple[list[Instruction], dict[str, int]]:
    """Instructions of a disassembly, and the index that each label stands for."""
    instructions: list[Instruction] = []
    labels: dict[str, int] = {}
    for line in code.splitlines():
        if label := re.match(r"(\.L_x_\d+):", line.strip()):
            labels[label[1]] = len(instructions)
        elif found := re.search(r"/\*[0-9a-f]{4,}\*/\s+(@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)([^;]*);", line):
            jump = re.search(r"\.L_x_\d+", found[3]) if found[2].startswith("BRA") else None
            instructions.append(Instruction(found[2], bool(found[1]), jump[0] if jump else None))
    return instructions, labels


def successors(instructions: list[Instruction], labels: dict[str, int]) -> list[list[int]]:
    """Where each instruction may go next, without the jumps back."""
    result = []
    for n, instruction in enumerate(instructions):
        follows = []
        ends = instruction.opcode.startswith(("EXIT", "RET", "BRA")) and not instruction.predicated
        if not ends and n + 1 < len(instructions):
            follows.append(n + 1)
        if instruction.jump and labels[instruction.jump] > n:
            follows.append(labels[instruction.jump])
        result.append(follows)
    return result


def longest(follows: list[list[int]], start: int, end: int | None) -> list[int]:
    """The longest path from `start` to `end`, or to an exit."""
    length: dict[int, int] = {}
    last = len(follows) - 1 if end is None else end
    for n in range(last, start - 1, -1):
        reach = [length[m] for m in follows[n] if m in length]
        if n == end or (end is None and not follows[n]):
            length[n] = 1
        elif reach:
            length[n] = 1 + max(reach)
    path, n = [], start
    while True:
        path.append(n)
        following = [m for m in follows[n] if m in length]
        if n == end or not following:
            return path
        n = max(following, key=length.__getitem__)


def kinds(instructions: list[Instruction], path: list[int]) -> dict[str, int]:
    counts = dict(all=len(path), special=0, memory=0, fma=0, imad=0, alu=0, stores=0)
    for n in path:
        opcode = instructions[n].opcode
        kind = "special" if opcode.startswith(SPECIAL) else "memory" if opcode.startswith(MEMORY) else None
        kind = kind or ("fma" if opcode.startswith(FMA) else None)
        if kind is None and not opcode.startswith(("BRA", "EXIT", "NOP", "BSSY", "BSYNC", "U", "S2", "R2UR", "BAR")):
            kind = "alu"
        if kind:
            counts[kind] += 2 if opcode.startswith(TWO_LANES) else 1
        counts["imad"] += opcode.startswith("IMAD")
        counts["stores"] += opcode.startswith("STG")
    return counts


def dynamic_counts(code: str, stores_needed: int) -> dict[str, float]:
    """Instructions of one thread of an image program, by kind."""
    instructions, labels = parse(code)
    follows = successors(instructions, labels)
    loops = []
    for n, instruction in enumerate(instructions):
        if instruction.jump and labels[instruction.jump] <= n and labels[instruction.jump] != n:
            body = longest(follows, labels[instruction.jump], n)
            if body[-1] == n and any(instructions[m].opcode.startswith("STG") for m in body):
                loops.append((labels[instruction.jump], n, body))
    if not loops:  # the only tile, or all of them unrolled: the longest path is the image path or an upper bound of it
        return {k: float(v) for k, v in kinds(instructions, longest(follows, 0, None)).items()}
    header, end, body = max(loops, key=lambda loop: len(loop[2]))
    outside = longest(follows, 0, header)[:-1] + longest(follows, end, None)[1:]
    once, each = kinds(instructions, outside), kinds(instructions, body)
    trips = max(1.0, (stores_needed - once["stores"]) / each["stores"])
    return {k: once[k] + trips * each[k] for k in once}


def bytes_per_element(variant: Any) -> float:
    recipe = variant.recipe
    read = variant.x_dtype.itemsize
    if not recipe.is_paired and recipe.has_mixup:
        read *= 2 - (recipe.switch_prob if recipe.has_box else 0)
    return read + (variant.out_dtype or variant.x_dtype).itemsize


def kernel_names(prepared: Any) -> list[str]:
    """Names of the compile-time constants of a prepared launch."""
    names = prepared.kernel.arg_names
    return names[names.index("ALIGN") :]


def analyse(variant: Any, target: str, kernel: Any = None) -> dict[str, Any]:
    """Code figures of a variant on one target, and margins on the GPUs that have it."""
    from codegen import TARGETS, compile_variant, disassemble, nvidia_report, prepared_for, shape_of

    from fusedmix.recipe import EXACT

    kernel = kernel or compile_variant(variant, TARGETS[target])
    report, prepared = nvidia_report(kernel), prepared_for(shape_of(variant))
    threads = 32 * prepared.options["num_warps"]
    itemsize = (variant.out_dtype or variant.x_dtype).itemsize
    geometry = variant.geometry
    sample = math.prod(variant.shape[1:])
    if geometry is not None:
        sample = variant.shape[1] * geometry.height * geometry.width
    programs = prepared.grid[0] - prepared.numbers[1]
    recipe = variant.recipe
    by_pair = recipe.is_paired and recipe.pairing != EXACT and not variant.replay
    working = programs if by_pair or not recipe.is_paired else programs / 2  # the upper sample's programs do nothing
    elements = sample * variant.shape[0] / working  # written by a working program
    constants = dict(zip(kernel_names(prepared), prepared.constants, strict=True))
    store_bytes = min(16, constants["VEC"] * itemsize, constants["BLOCK"] // threads * itemsize)
    counts = dynamic_counts(disassemble(kernel), round(elements * itemsize / (store_bytes * threads)))
    # A program of the last, ragged tiles still walks them all: so counted, since `working` includes it.
    per_element = {k: v * threads / elements for k, v in counts.items() if k != "stores"}
    warps = threads // 32
    resident = min(MAX_BLOCKS, MAX_WARPS // warps, REGISTERS // (report["registers"] * threads))
    accesses = {**{("load", k): v for k, v in report["loads"].items()},
                **{("store", k): v for k, v in report["stores"].items()}}  # fmt: skip
    wide = sum(v for (_, width), v in accesses.items() if width == "128") / sum(accesses.values())
    moved = bytes_per_element(variant)
    result = {
        "registers": report["registers"], "occupancy": round(resident * warps / MAX_WARPS, 2),
        "wide accesses": round(wide, 2), "bytes per element": moved,
        "instructions per element": {k: round(v, 2) for k, v in per_element.items()},
    }  # fmt: skip
    for name, gpu in GPUS.items():
        if gpu.target == target:
            lanes = {"all": 128, "alu": gpu.alu_lanes, "fma": gpu.fp32_lanes, "imad": 64, "special": 16, "memory": 32}
            cycles, limit = max((per_element[kind] / n, kind) for kind, n in lanes.items())
            memory = moved / gpu.bandwidth
            issue = cycles / (gpu.sms * gpu.clock * 1e9)
            result[name] = {"margin": round(issue / memory, 3), "busiest": limit}
    return result


def model() -> dict[str, Any]:
    """Figures of all hot variants on all GPUs."""
    sys.path.insert(0, str(ROOT / "tests"))
    import triton
    from codegen_variants import HOT

    variants: dict[str, Any] = {}
    for name, variant in HOT.items():
        entry: dict[str, Any] = {}
        for target in dict.fromkeys(gpu.target for gpu in GPUS.values()):
            figures = analyse(variant, target)
            entry |= {gpu: figures.pop(gpu) for gpu in GPUS if gpu in figures}
            entry[target] = figures
        variants[name] = entry
    return {"triton": triton.__version__, "note": "a model of the compiled code, not a measurement", "gpus": list(GPUS),
            "variants": variants}  # fmt: skip


def show(figures: dict[str, Any]) -> None:
    print(f"{'issue time / memory time':40}" + "".join(f"{gpu:>20}" for gpu in GPUS))
    for name, entry in figures["variants"].items():
        cells = [f"{entry[gpu]['margin']:.2f} {entry[gpu]['busiest']}" for gpu in GPUS]
        print(f"{name:40}" + "".join(f"{cell:>20}" for cell in cells))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write bench/results/static.json; some minutes")
    options = parser.parse_args()
    figures = model()
    show(figures)
    if options.write:
        RESULT.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
