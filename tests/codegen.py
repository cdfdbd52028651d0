"""Compiles kernel variants without a GPU and reads registers, spills and access widths from the machine code."""

import json
import math
import re
import subprocess
import sys
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import triton
from codegen_variants import HOT, RARE, Variant, layouts, variants_for
from triton._C.libtriton import ir
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, CompiledKernel
from triton.compiler.compiler import make_backend
from triton.compiler.errors import CompilationError

from bench import static
from fusedmix.kernels.mix import NOT_SPECIALIZED
from fusedmix.launch import Prepared, Shape, noises, prepare, prepare_augment

TYPE_NAMES = {
    torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16", torch.uint8: "u8", torch.int64: "i64",
}  # fmt: skip
TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
SHARES = json.loads(static.RESULT.read_text(encoding="utf-8")).get("shares", {})
BIN = Path(triton.__file__).parent / "backends/nvidia/bin"


def shape_of(variant: Variant) -> Shape:
    """The launch key of a variant."""
    elements, geometry = math.prod(variant.shape[1:]), variant.geometry
    written = elements if geometry is None else variant.shape[1] * geometry.height * geometry.width
    target_shape = None if variant.target_shape is None else torch.Size(variant.target_shape)
    return Shape(
        variant.recipe, variant.replay, torch.Size(variant.shape), elements, variant.x_dtype, written,
        variant.out_dtype or variant.x_dtype, variant.channels_last,
        variant.channels_last if variant.out_last is None else variant.out_last, variant.in_place, target_shape,
        variant.target_dtype, variant.replay or variant.wants_plan, variant.has_norm, variant.given,
        variant.given and variant.recipe.has_box and not variant.recipe.choices, variant.given, -1, geometry, True,
    )  # fmt: skip


def prepared_for(key: Shape, arch: int = 80) -> Prepared:
    """arch: as of `arch_of`."""
    return (prepare if key.geometry is None else prepare_augment)(key, arch=arch)


def compile_variant(variant: Variant, target: GPUTarget) -> CompiledKernel:
    source, options = source_of(variant, target)
    return triton.compile(source, target=target, options=options)


def translate(variant: Variant, target: GPUTarget) -> str | None:
    """What stops triton's first stage, which checks types and is quick, if anything does."""
    source, options = source_of(variant, target)
    backend, context = make_backend(target), ir.context()
    ir.load_dialects(context)
    backend.load_dialects(context)
    parsed = backend.parse_options(options)
    try:
        source.make_ir(target, parsed, backend.get_codegen_implementation(parsed), backend.get_module_map(), context)
    except CompilationError as error:
        return str(error)
    return None


def source_of(variant: Variant, target: GPUTarget) -> tuple[ASTSource, dict[str, Any]]:
    """What is compiled for a variant, and with which options."""
    key = shape_of(variant)
    prepared = prepared_for(key, 0 if target.backend == "hip" else target.arch)
    names = prepared.kernel.arg_names
    constants = dict(zip(names[names.index("ALIGN") :], prepared.constants, strict=True))
    constants["INTERPRETED"] = False
    types = {
        "x_ptr": TYPE_NAMES[key.x_dtype],
        "out_ptr": TYPE_NAMES[key.out_dtype],
        "target_ptr": TYPE_NAMES[variant.target_dtype] if variant.target_shape else None,
        "target_out_ptr": ("fp32" if constants["TARGET"] != 3 else "i64") if variant.target_shape else None,
        "plan_ptr": "i32" if key.has_plan else None,
        "lam_ptr": "fp32" if key.has_lam else None,
        "gray_ptr": "fp32" if key.has_lam else None,
        "box_ptr": "i32" if key.has_box else None,
        "partner_ptr": "i64" if key.has_partner else None,
        "state_ptr": "i64",
        "norm_ptr": "fp32" if key.has_norm else None,
        "knobs_ptr": "fp32",
        "fill_ptr": "fp32" if key.recipe.has_fill or key.geometry else None,
        "field_ptr": "i32" if key.recipe.has_field else None,
        "table_ptr": "fp32" if noises(key.recipe) else None,
    }
    signature, attrs = {}, {}
    for i, name in enumerate(names):
        if name in constants:
            signature[name] = "constexpr"
        elif name.endswith("_ptr"):
            if types.get(name) is None:
                signature[name], constants[name] = "constexpr", None
            else:
                signature[name] = "*" + types[name]
                attrs[(i,)] = [["tt.divisibility", 16]]
        elif name in ("seed", "offset"):
            signature[name] = "i64"
        else:
            signature[name] = "i32" if name in NOT_SPECIALIZED else "fp32"
    source = ASTSource(fn=prepared.kernel, signature=signature, constexprs=constants, attrs=attrs)
    return source, prepared.options


def widths(operations: list[str], prefix: str) -> dict[str, int]:
    """How many accesses of each width: bits, or U8/U16 for single bytes and halfwords."""
    counts: dict[str, int] = {}
    for operation in operations:
        if operation.startswith(prefix):
            parts = operation.split(".")
            width = next((w for w in ("128", "64", "U8", "U16", "S8", "S16") if w in parts), "32")
            counts[width] = counts.get(width, 0) + 1
    return counts


def cubin_tool(kernel: CompiledKernel, tool: str, *options: str) -> str:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        return subprocess.run([BIN / tool, *options, file.name], capture_output=True, text=True, check=True).stdout


@lru_cache(1)  # read for the report and for the static model
def disassemble(kernel: CompiledKernel) -> str:
    return cubin_tool(kernel, "nvdisasm", "-c", "-gi")


@lru_cache(1)
def nvidia_report(kernel: CompiledKernel) -> dict:
    usage, code = cubin_tool(kernel, "cuobjdump", "-res-usage"), disassemble(kernel)
    operations = re.findall(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)", code)
    local = sum(operation.startswith(("LDL", "STL")) for operation in operations)
    return {
        "registers": int(re.search(r"REG:(\d+)", usage)[1]),
        "spills": int(re.search(r"STACK:(\d+)", usage)[1]) + local,
        "instructions": len(operations),
        "loads": widths(operations, "LDG"),
        "stores": widths(operations, "STG"),
        "prefetches": sum(operation.startswith("CCTL") for operation in operations),
        "dots": sum(operation.startswith("IDP.2A") for operation in operations),
        "pairs": sum(operation.startswith(("FFMA2", "FADD2")) for operation in operations),
        "shared": kernel.metadata.shared,
    }


AMD_WIDTHS = {"dwordx4": "128", "dwordx3": "96", "dwordx2": "64", "dword": "32", "ubyte": "U8", "byte": "U8",
              "ushort": "U16", "short": "U16"}  # fmt: skip


def amd_report(kernel: CompiledKernel) -> dict:
    code = kernel.asm["amdgcn"]

    def counted(kind: str) -> dict[str, int]:
        counts: dict[str, int] = {}
        for name in re.findall(rf"(?:global|buffer)_{kind}_(\w+)", code):
            width = next((w for suffix, w in AMD_WIDTHS.items() if suffix in name), name)
            counts[width] = counts.get(width, 0) + 1
        return counts

    return {
        "registers": int(re.search(r"\.vgpr_count:\s+(\d+)", code)[1]),
        # To memory: scalar registers spill to lanes of vector ones.
        "spills": sum(int(n) for n in re.findall(r"\.(?:vgpr_spill_count|private_segment_fixed_size):\s+(\d+)", code)),
        "instructions": len(re.findall(r"^\t[sv]_\w+|^\tglobal_\w+", code, re.M)),
        "loads": counted("load"),
        "stores": counted("store"),
        "shared": kernel.metadata.shared,
    }


def report(name: str, target: str) -> dict:
    variant = HOT.get(name) or RARE[name]
    kernel = compile_variant(variant, TARGETS[target])
    if target.startswith("gfx"):
        return amd_report(kernel)
    if name in RARE:
        return nvidia_report(kernel)
    return {**nvidia_report(kernel), "static": static.analyse(variant, target, kernel, SHARES.get(name))}


if __name__ == "__main__":
    sys.modules["codegen"] = sys.modules["__main__"]  # which static imports by name
    if sys.argv[1] == "layouts":
        print(json.dumps({name: translate(variant, TARGETS["sm_100"]) for name, variant in layouts().items()}))
    else:
        print(json.dumps({name: report(name, sys.argv[1]) for name in (*variants_for(sys.argv[1]), *RARE)}))
