"""Philox, the samplers bit for bit in all implementations, and where seeds come from."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from cases import DEVICE, without_native

import fusedmix
from fusedmix import rng
from fusedmix.cpu import sampling as cpu_sampling
from fusedmix.kernels import sampling as kernel_sampling
from fusedmix.kernels.philox import words as kernel_words
from fusedmix.reference import sampling
from fusedmix.reference.philox import philox, words

ONES = 0xFFFFFFFF
VECTORS = [  # Random123's known answers for philox4x32-10: counter, key, words
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ONES,) * 4, (ONES, ONES), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]  # fmt: skip
ALPHAS = [0.1, 0.2, 0.4, 1.0, 2.0, 8.0, 32.0]


@triton.jit
def words_kernel(out_ptr, state_ptr, N: tl.constexpr, STREAM: tl.constexpr):
    index = tl.arange(0, N)
    w0, w1, w2, w3 = kernel_words(tl.load(state_ptr), tl.load(state_ptr + 1), index, STREAM)
    tl.store(out_ptr + index, w0.to(tl.int64))
    tl.store(out_ptr + N + index, w1.to(tl.int64))
    tl.store(out_ptr + 2 * N + index, w2.to(tl.int64))
    tl.store(out_ptr + 3 * N + index, w3.to(tl.int64))


@triton.jit
def beta_kernel(out_ptr, words_ptr, alpha, N: tl.constexpr):
    i = tl.arange(0, N)
    u, v = tl.load(words_ptr + i).to(tl.uint32), tl.load(words_ptr + N + i).to(tl.uint32)
    tl.store(out_ptr + i, kernel_sampling.symmetric_beta(u, v, alpha + tl.zeros([N], tl.float32)))


@pytest.mark.parametrize(("counter", "key", "expected"), VECTORS)
def test_known_answers(counter: tuple, key: tuple, expected: tuple) -> None:
    counter_words = tuple(torch.tensor([c]) for c in counter)
    assert tuple(int(w) for w in philox(counter_words, tuple(torch.tensor([k]) for k in key))) == expected
    seed, offset = key[0] | key[1] << 32, counter[0] | counter[1] << 32
    assert cpu_sampling.word(seed, offset, counter[2], counter[3]) == expected
    for context in (nullcontext(), without_native()):
        with context:
            drawn = cpu_sampling.words(seed, offset, np.array([counter[2]]), counter[3])
        assert tuple(int(w[0]) for w in drawn) == expected


@pytest.mark.parametrize("seed", [0, 1, 2**31 + 5, 2**32 - 1, 2**40 + 2**31, 2**63 - 1])
@pytest.mark.parametrize("stream", [rng.STREAM_MATCHING, rng.STREAM_SAMPLE, rng.STREAM_BOX, rng.STREAM_KEYS])
def test_words_are_equal_everywhere(seed: int, stream: int) -> None:
    offset, n = seed // 3, 1024
    want = torch.stack(words(seed, offset, torch.arange(n), stream))
    for context in (nullcontext(), without_native()):
        with context:
            drawn = np.stack(cpu_sampling.words(seed, offset, np.arange(n), stream)).astype(np.int64)
        assert torch.equal(torch.from_numpy(drawn), want)
    got = torch.empty(4 * n, dtype=torch.int64, device=DEVICE)
    words_kernel[(1,)](got, torch.tensor([seed, offset], device=DEVICE), n, stream)
    assert torch.equal(got.cpu().view(4, n), want)


@pytest.mark.parametrize("alpha", [1e-3, 0.05, *ALPHAS, 1e3, 1e6])
def test_beta_is_equal_everywhere(alpha: float) -> None:
    n = 1 << 15
    _, _, u, v = words(77, 5, torch.arange(n), rng.STREAM_SAMPLE)
    edges = torch.tensor([0, 1, 2**9, 2**32 - 1, 2**32 - 2, 2**31])
    u, v = torch.cat([edges, u[6:]]), torch.cat([edges.flip(0), v[6:]])
    want = sampling.symmetric_beta(u, v, torch.full((n,), alpha))
    assert bool(((want >= 0) & (want <= 1)).all())
    cpu = cpu_sampling.symmetric_beta(u.numpy(), v.numpy(), np.float32(alpha))
    assert torch.equal(torch.from_numpy(cpu), want)
    got = torch.empty(n, device=DEVICE)
    options = {} if DEVICE == "cpu" else {"enable_fp_fusion": False}
    beta_kernel[(1,)](got, torch.cat([u, v]).to(DEVICE), alpha, n, **options)
    assert torch.equal(got.cpu(), want)


def test_beta_of_one_is_the_uniform_word() -> None:
    u = torch.arange(0, 2**32, 2**32 // 5000)
    assert torch.equal(sampling.symmetric_beta(u, u, torch.ones(u.shape)), ((u >> 9) + 0.5).float() * 2**-23)


@pytest.mark.parametrize("alpha", [0.1, 0.4, 2.0, 8.0])
def test_small_side_has_full_relative_precision(alpha: float) -> None:
    """Against the same formula in float64: the float32 steps lose a few ulp, not digits."""
    u = torch.arange(0, 2**32, 2**32 // 5000)
    v = u.flip(0)
    small = sampling.symmetric_beta(u & ~1, v, torch.full(u.shape, alpha)).double()
    length = -torch.log(((u >> 9) + 0.5).double() * 2**-23) / torch.tensor(alpha, dtype=torch.float32).double()
    c = torch.sin(torch.pi / 2 * ((v >> 9) + 0.5).double() * 2**-23)
    r = torch.exp(-length) / (-torch.expm1(-length) * c * c)
    exact = r / (2 * torch.sqrt(1 + r) * (torch.sqrt(1 + r) + 1))
    kept = (length < rng.BETA_MAX_LOG) & (r < rng.BETA_MAX_RATIO)
    assert kept.float().mean() > 0.99
    # exp multiplies the rounding of its argument (up to 85) into relative error: 85 * 2**-24 = 5e-6.
    assert (((small - exact) / exact).abs()[kept] < 8e-6).all()


def test_every_pair_is_in_exactly_one_factor() -> None:
    for batch in (*range(1, 18), 32, 33, 64, 65):
        seen: dict[tuple[int, int], int] = {}
        for h in range(batch - 1 if batch % 2 == 0 else batch):
            i = torch.arange(batch)
            mate = sampling.matching(torch.tensor(h), i, batch)
            assert torch.equal(mate[mate], i)
            assert int((mate == i).sum()) == batch % 2
            assert np.array_equal(cpu_sampling.matching(h, i.numpy(), batch), mate.numpy())
            for a, b in zip(i.tolist(), mate.tolist(), strict=True):
                if a < b:
                    seen[a, b] = seen.get((a, b), 0) + 1
        assert len(seen) == batch * (batch - 1) // 2
        assert set(seen.values()) <= {1}


def plan_of(seed: int | None = None, **options) -> torch.Tensor:
    if seed is not None:
        torch.manual_seed(seed)
    return fusedmix.fused_cutmix(torch.zeros(8, 1, 16, 16), return_plan=True, **options)[1].packed


def test_manual_seed_and_generator() -> None:
    assert torch.equal(plan_of(5), plan_of(5))
    assert not torch.equal(plan_of(5), plan_of(6))
    first, second = plan_of(5), plan_of()
    assert not torch.equal(first, second)
    a, b = torch.Generator().manual_seed(3), torch.Generator().manual_seed(3)
    state = torch.get_rng_state()
    assert torch.equal(plan_of(generator=a), plan_of(generator=b))
    assert not torch.equal(plan_of(generator=a), plan_of(generator=torch.Generator().manual_seed(3)))
    assert torch.equal(state, torch.get_rng_state())


def test_no_two_calls_share_seed_and_offset() -> None:
    torch.manual_seed(0)
    drawn = [rng.next_seed() for _ in range(10_000)]
    assert len(set(drawn)) == len(drawn)
    assert all(0 <= seed <= rng.SEED_LIMIT and offset == 0 for seed, offset in drawn)


def test_replay_consumes_no_randomness() -> None:
    x = torch.rand(4, 3, 8, 8)
    _, plan = fusedmix.fused_cutmix(x, return_plan=True)
    state = torch.get_rng_state()
    plan.apply(x)
    assert torch.equal(state, torch.get_rng_state())


def test_sample_offset_gives_shards_the_draws_of_the_whole() -> None:
    """Methods, lam and boxes of two ranks are those of the one batch; only partners stay within the shard."""
    mix = fusedmix.FusedMix(prob=0.9)
    x = torch.zeros(16, 1, 32, 32)
    columns = [0, 1, 4, 5, 6, 7]  # method, lam, box

    def drawn(part: torch.Tensor, offset: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(1)
        return mix(part, sample_offset=offset, generator=generator, return_plan=True)[1].packed[:, columns]

    whole = drawn(x, 0)
    assert torch.equal(torch.cat([drawn(x[:6], 0), drawn(x[6:], 6)]), whole)
    assert torch.equal(torch.cat([drawn(x[:10], 0), drawn(x[10:], 10)]), whole)


def test_batch_mode_is_shared_by_ranks() -> None:
    x = torch.zeros(8, 1, 32, 32)
    drawn = [
        fusedmix.fused_cutmix(
            x, mode="batch", sample_offset=offset, generator=torch.Generator().manual_seed(1), return_plan=True
        )[1].box
        for offset in (0, 8)
    ]
    assert torch.equal(*drawn)
    assert (drawn[0] == drawn[0][0]).all()


def test_threads_get_seeds_of_their_own() -> None:
    """torch lets go of the interpreter while it draws: a number written to a shared place could be read twice."""
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda _: [rng.next_seed()[0] for _ in range(20_000)], range(4)))
    seeds = [seed for part in parts for seed in part]
    assert len(set(seeds)) == len(seeds)
