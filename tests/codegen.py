"""Compiles kernel variants without a GPU and reads registers, spills and access widths from the machine code."""

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, CompiledKernel

from fusedmix.kernels.mix import NOT_SPECIALIZED, mix_kernel
from fusedmix.launch import Shape, prepare
from fusedmix.recipe import Recipe

TYPE_NAMES = {
    torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16", torch.uint8: "u8", torch.int64: "i64",
}  # fmt: skip
TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
BIN = Path(triton.__file__).parent / "backends/nvidia/bin"


@dataclass(frozen=True)
class Variant:
    """One combination of compile-time constants, named by what a caller asked for."""

    recipe: Recipe
    x_dtype: torch.dtype = torch.float32
    out_dtype: torch.dtype | None = None
    shape: tuple[int, ...] = (128, 3, 224, 224)
    target_shape: tuple[int, ...] | None = (128,)
    target_dtype: torch.dtype = torch.int64
    channels_last: bool = False
    out_last: bool | None = None
    in_place: bool = False
    replay: bool = False
    has_norm: bool = False

    def key(self) -> Shape:
        elements = 1
        for side in self.shape[1:]:
            elements *= side
        return Shape(
            self.recipe, self.replay, torch.Size(self.shape), elements, self.x_dtype, elements,
            self.out_dtype or self.x_dtype, self.channels_last,
            self.channels_last if self.out_last is None else self.out_last, self.in_place,
            None if self.target_shape is None else torch.Size(self.target_shape), self.target_dtype, self.replay,
            self.has_norm, False, False, False, False, 0,
        )  # fmt: skip


def compile_variant(variant: Variant, target: GPUTarget) -> CompiledKernel:
    key = variant.key()
    prepared = prepare(key)
    names = mix_kernel.arg_names
    constants = dict(zip(names[names.index("ALIGN") :], prepared.constants, strict=True))
    constants["INTERPRETED"] = False
    types = {
        "x_ptr": TYPE_NAMES[key.x_dtype],
        "out_ptr": TYPE_NAMES[key.out_dtype],
        "target_ptr": TYPE_NAMES[variant.target_dtype] if variant.target_shape else None,
        "target_out_ptr": ("fp32" if constants["TARGET"] != 3 else "i64") if variant.target_shape else None,
        "plan_ptr": "i32" if key.has_plan else None,
        "norm_ptr": "fp32" if key.has_norm else None,
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
    source = ASTSource(fn=mix_kernel, signature=signature, constexprs=constants, attrs=attrs)
    return triton.compile(source, target=target, options=dict(prepared.options) or {"num_warps": 4})


@dataclass
class Sass:
    registers: int
    stack: int
    instructions: int
    loads: dict[str, int]
    stores: dict[str, int]
    shared: int


def read_sass(kernel: CompiledKernel) -> Sass:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        usage = subprocess.run([BIN / "cuobjdump", "-res-usage", file.name], capture_output=True, text=True).stdout
        code = subprocess.run([BIN / "nvdisasm", "-c", file.name], capture_output=True, text=True, check=True).stdout
    body = re.findall(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)", code)

    def widths(prefix: str) -> dict[str, int]:
        counts: dict[str, int] = {}
        for op in body:
            if op.startswith(prefix):
                width = next((w for w in ("128", "64", "U8", "U16", "S8", "S16") if f".{w}" in op), "32")
                counts[width] = counts.get(width, 0) + 1
        return counts

    return Sass(
        registers=int(re.search(r"REG:(\d+)", usage)[1]),
        stack=int(re.search(r"STACK:(\d+)", usage)[1]),
        instructions=len(body),
        loads=widths("LDG"),
        stores=widths("STG"),
        shared=kernel.metadata.shared,
    )
