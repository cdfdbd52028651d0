"""Properties that hold for every input, searched by hypothesis."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fusedmix

settings.register_profile("fusedmix", deadline=None, max_examples=60, derandomize=True)
settings.load_profile("fusedmix")

shapes = st.tuples(st.integers(1, 9), st.integers(1, 3), st.integers(1, 12), st.integers(1, 12))
policies = st.fixed_dictionaries(
    {
        "mixup_alpha": st.sampled_from([0.0, 0.1, 1.0, 8.0]),
        "cutmix_alpha": st.sampled_from([0.2, 1.0]),
        "prob": st.sampled_from([0.0, 0.5, 1.0]),
        "mode": st.sampled_from(["elem", "pair", "batch"]),
        "partner": st.sampled_from(["matching", "exact", "flip", "roll", "permute"]),
        "minmax": st.sampled_from([None, (0.2, 0.8)]),
    }
).map(lambda d: {**d, "mode": "elem"} if d["mode"] == "pair" and d["partner"] in ("roll", "permute") else d)
seeds = st.integers(0, 2**63 - 2)


def call(policy: dict, x: torch.Tensor, y: torch.Tensor | None, seed: int, **options):
    mix = fusedmix.FusedMix(**policy, inplace=options.pop("inplace", False))
    return mix(x, y, generator=torch.Generator().manual_seed(seed), return_plan=True, **options)


@given(shapes, policies, seeds, st.sampled_from([0.0, 0.1]))
def test_rows_sum_to_the_rows_of_the_inputs(shape: tuple, policy: dict, seed: int, smoothing: float) -> None:
    x = torch.rand(shape)
    y = torch.randint(0, 7, shape[:1])
    _, rows, _ = call({**policy, "num_classes": 7, "smoothing": smoothing}, x, y, seed)
    torch.testing.assert_close(rows.sum(1), torch.ones(shape[0]), atol=1e-6, rtol=0)
    soft = torch.rand(shape[0], 5)
    _, rows, plan = call(policy, x, soft, seed)
    own, other = soft.sum(1), soft[plan.partner].sum(1)
    torch.testing.assert_close(rows.sum(1), plan.lam * own + (1 - plan.lam) * other, atol=1e-5, rtol=0)


@given(shapes, st.sampled_from([0.2, 1.0]), st.sampled_from(["matching", "permute"]), seeds)
def test_lam_is_the_counted_share_of_pixels(shape: tuple, alpha: float, partner: str, seed: int) -> None:
    x = torch.arange(shape[0], dtype=torch.float32).view(-1, 1, 1, 1).expand(shape).contiguous()
    generator = torch.Generator().manual_seed(seed)
    out, plan = fusedmix.fused_cutmix(x, alpha=alpha, partner=partner, generator=generator, return_plan=True)
    kept = (out[:, 0] == torch.arange(shape[0]).view(-1, 1, 1)).flatten(1).sum(1)
    assert torch.equal(plan.lam, kept / float(shape[2] * shape[3]))
    pasted = out[:, 0] == plan.partner.view(-1, 1, 1)
    y0, x0, y1, x1 = plan.box.long().unbind(1)
    mixed = plan.method == 2
    assert torch.equal(pasted.flatten(1).sum(1)[mixed], ((y1 - y0) * (x1 - x0))[mixed])


@given(shapes, policies, seeds, st.sampled_from([torch.float32, torch.bfloat16, torch.uint8]), st.booleans())
def test_in_place_equals_out_of_place(shape: tuple, policy: dict, seed: int, dtype: torch.dtype, last: bool) -> None:
    if policy["partner"] in ("roll", "permute"):
        policy = {**policy, "partner": "matching"}
    x = (torch.rand(shape) * 255).to(dtype)
    if last:
        x = x.contiguous(memory_format=torch.channels_last)
    out, plan = call(policy, x.clone(), None, seed)
    inside = x.clone()
    returned, same_plan = call(policy, inside, None, seed, inplace=True)
    assert returned is inside
    assert torch.equal(plan.packed, same_plan.packed)
    assert torch.equal(inside, out)


@given(shapes, policies, seeds)
def test_replay_equals_the_first_call(shape: tuple, policy: dict, seed: int) -> None:
    x, y = torch.rand(shape), torch.randint(0, 7, shape[:1])
    out, rows, plan = call({**policy, "num_classes": 7}, x, y, seed)
    again, rows_again = plan.apply(x, y, num_classes=7)
    assert torch.equal(again, out)
    assert torch.equal(rows_again, rows)


@given(policies, seeds, st.permutations(range(4)))
def test_permuting_ranks_changes_no_draw(policy: dict, seed: int, order: list[int]) -> None:
    """Four ranks of five samples, started in any order: each global index draws the same."""
    if policy["mode"] == "pair":
        policy = {**policy, "mode": "elem"}  # a pair's draw goes with its lower index, and pairs stay in their shard
    policy = {**policy, "partner": "flip" if policy["partner"] == "permute" else policy["partner"]}
    columns = [0, 1, 4, 5, 6, 7]
    drawn = {rank: call(policy, torch.zeros(6, 1, 8, 8), None, seed, sample_offset=6 * rank)[1] for rank in order}
    whole = call({**policy, "partner": "flip"}, torch.zeros(24, 1, 8, 8), None, seed)[1]
    merged = torch.cat([drawn[rank].packed[:, columns] for rank in range(4)])
    assert torch.equal(merged, whole.packed[:, columns])
