"""Pixel arithmetic in float32: mix, normalise, and the one rounding at the end."""

import triton
import triton.language as tl

from fusedmix import rng

ROUNDER = tl.constexpr(rng.ROUNDER)


PAIRING = tl.constexpr(100)  # from where on GPUs compute two float32 numbers at a time
BYTE_BASE = tl.constexpr(0x4B000000)  # the bits of 2**23: an integer below 2**23 put into them is a float plus 2**23


@triton.jit
def fused(a, b, c, PTX: tl.constexpr):
    """a * b + c, rounded once; two at a time, where GPUs issue them as one. PTX: see `arch_of` in launch.py."""
    if PTX >= PAIRING:
        return tl.inline_asm_elementwise(
            """{
            .reg .b64 a, b, c;
            mov.b64 a, {$2, $3};
            mov.b64 b, {$4, $5};
            mov.b64 c, {$6, $7};
            fma.rn.f32x2 c, a, b, c;
            mov.b64 {$0, $1}, c;
            }""", "=f,=f,f,f,f,f,f,f", [a, b, c], tl.float32, True, 2
        )  # fmt: skip
    return tl.fma(a, b, c)


@triton.jit
def alone(a, b, c, PTX: tl.constexpr):
    """`fused` one at a time, for numbers of which LLVM would make pairs that take more moves than they save."""
    if PTX >= PAIRING:
        return tl.inline_asm_elementwise("fma.rn.f32 $0, $1, $2, $3;", "=f,f,f,f", [a, b, c], tl.float32, True, 1)
    return tl.fma(a, b, c)


@triton.jit
def less(a, b, PTX: tl.constexpr):
    """a - b, as `fused` two at a time."""
    if PTX >= PAIRING:
        return tl.inline_asm_elementwise(
            """{
            .reg .b64 a, b;
            mov.b64 a, {$2, $3};
            mov.b64 b, {$4, $5};
            sub.rn.f32x2 a, a, b;
            mov.b64 {$0, $1}, a;
            }""", "=f,=f,f,f,f,f", [a, b], tl.float32, True, 2
        )  # fmt: skip
    return a - b


@triton.jit
def advanced(start, count, STEP: tl.constexpr, SIZE: tl.constexpr, PTX: tl.constexpr):
    """Pointers `count` times STEP elements of SIZE bytes beyond start, by one instruction. count: uint32.

    Where compilers see a shift, or a product and a sum that they may join, they take two.
    """
    if PTX:
        base = start.to(tl.int64) + (count * 0).to(tl.int64)
        found = tl.inline_asm_elementwise(
            "{ .reg .b64 w; mul.wide.u32 w, $2, $3; add.s64 $0, $1, w; }", "=l,l,r,r",
            [base, count, tl.full([], STEP * SIZE, tl.uint32)], tl.int64, True, 1,
        ).to(start.dtype)  # fmt: skip
    else:
        found = start + count * STEP
    return found


@triton.jit
def to_float(value, PTX: tl.constexpr = 0):
    """float32 of a pixel; of a byte by way of its bits, since conversions are slower than arithmetic.

    PTX: two bfloat16 numbers by one instruction each, where compilers take three for both.
    """
    if value.dtype == tl.uint8:
        return (value.to(tl.int32) | BYTE_BASE).to(tl.float32, bitcast=True) - 8388608.0
    if value.dtype == tl.bfloat16 and PTX:
        bits = tl.inline_asm_elementwise(
            "shl.b32 $0, $2, 16; and.b32 $1, $2, 0xffff0000;", "=r,=r,r", [value], tl.int32, True, 2
        )
        return bits.to(tl.float32, bitcast=True)
    return value.to(tl.float32)


@triton.jit
def bytes_of(word, R: tl.constexpr, VEC: tl.constexpr):
    """float32 [R, VEC] of bytes that lie four to a word, int32 [R, VEC // 4]."""
    value = (word[:, :, None] >> (8 * tl.arange(0, 4))[None, None, :]) & 255
    return tl.reshape((value | BYTE_BASE).to(tl.float32, bitcast=True) - 8388608.0, [R, VEC])


@triton.jit
def lerp(own, other, lam):
    """lam * own + (1 - lam) * other, computed from the side with the larger weight; lam = 1 returns `own` untouched."""
    swap = lam < 0.5
    big, weight = tl.where(swap, other, own), tl.where(swap, lam, lam - 1.0)  # |weight| <= 1/2, exact
    return tl.where(lam == 1.0, own, tl.fma(own - other, weight, big))


@triton.jit
def blend_adjoint(
    own, other, own_lam, other_lam, own_inside, other_inside, HAS_MIXUP: tl.constexpr, HAS_BOX: tl.constexpr
):
    """Gradient of a sample: what it kept of itself plus what its partner took from it.

    A weight of 0 takes nothing, of an infinity either.
    """
    if HAS_MIXUP:
        kept = tl.where(own_lam == 0.0, 0.0, own_lam * own)
        taken = tl.where(other_lam == 1.0, 0.0, (1.0 - other_lam) * other)
        if HAS_BOX:
            kept = tl.where(own_inside, 0.0, kept)
            taken = tl.where(other_inside, other, taken)
    else:
        kept, taken = tl.where(own_inside, 0.0, own), tl.where(other_inside, other, 0.0)
    return kept + taken


@triton.jit
def normalise(value, mean, inverse_std, PTX: tl.constexpr = 0):
    """value / std - mean / std."""
    return fused(value, inverse_std, -(mean * inverse_std), PTX)


@triton.jit
def round_to(value, DTYPE: tl.constexpr, INTERPRETED: tl.constexpr):
    """float32 to DTYPE; to the nearest integer (halves to even) for uint8."""
    if DTYPE == tl.uint8:
        return (value + ROUNDER).to(tl.int32, bitcast=True).to(tl.uint8)  # the integer is the low bits
    if DTYPE == tl.bfloat16 and INTERPRETED:  # the interpreter's own cast truncates
        bits = value.to(tl.int32, bitcast=True)
        bits += 0x7FFF + ((bits >> 16) & 1)
        nan = value != value
        return tl.where(nan, 0x7FC0, bits >> 16).to(tl.int16).to(tl.bfloat16, bitcast=True)
    return value.to(DTYPE)
