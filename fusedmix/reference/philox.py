"""Philox4x32 (Salmon et al., SC 2011) in torch int64 arithmetic."""

from collections.abc import Callable

import torch
from torch import Tensor

from fusedmix.rng import KEY_A, KEY_B, ROUND_A, ROUND_B, ROUNDS

MASK32 = 0xFFFFFFFF
Words = Callable[..., tuple[Tensor, ...]]  # `words` below, or a faster one


def multiply(a: int, b: Tensor) -> tuple[Tensor, Tensor]:
    """High and low 32 bits of a * b for 32-bit a and b, without leaving int64."""
    low = (a & 0xFFFF) * b  # < 2**48
    high = (a >> 16) * b + (low >> 16)  # < 2**49
    return high >> 16, ((high & 0xFFFF) << 16) | (low & 0xFFFF)


def philox(
    counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor], rounds: int = ROUNDS
) -> tuple[Tensor, ...]:
    """Four words, each an int64 tensor holding a value in [0, 2**32), as those of counter and key do."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(rounds):
        hi_a, lo_a = multiply(ROUND_A, c0)
        hi_b, lo_b = multiply(ROUND_B, c2)
        c0, c1, c2, c3 = hi_b ^ c1 ^ k0, lo_b, hi_a ^ c3 ^ k1, lo_a
        k0, k1 = (k0 + KEY_A) & MASK32, (k1 + KEY_B) & MASK32
    return c0, c1, c2, c3


def words(seed: int, offset: int, index: Tensor, stream: int | Tensor, rounds: int = ROUNDS) -> tuple[Tensor, ...]:
    """The four words of a stream at `index`: int64 [n]; see the table in `fusedmix.rng`. A tensor is like index."""

    def fill(value: int | Tensor) -> Tensor:
        return value & MASK32 if isinstance(value, Tensor) else torch.full_like(index, value & MASK32)

    counter = (fill(offset), fill(offset >> 32), index, fill(stream))
    return philox(counter, (fill(seed), fill(seed >> 32)), rounds)
