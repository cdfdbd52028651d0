"""The whole call, step by step."""

import torch
from torch import Tensor

from fusedmix.recipe import METHOD_MIXUP, Recipe

from .labels import dense_rows, mix_rows
from .masks import inside
from .pixel import lerp, normalise, round_to
from .sampling import Draw, draw


def mix(
    x: Tensor,
    target: Tensor | None,
    recipe: Recipe,
    seed: int = 0,
    offset: int = 0,
    sample_offset: int = 0,
    *,
    norm: Tensor | None = None,
    plan: Draw | None = None,
    lam: Tensor | None = None,
    box: Tensor | None = None,
    partner: Tensor | None = None,
    out_dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor | None, Draw]:
    """Draws a plan unless one is given, then mixes images and targets by it.

    x: uint8 or float [B, ...], [B, C, H, W] where a box is cut. target: int64 [B], float [B, K] or None. norm: float32
    [2, C], mean and inverse std. Returns the images, the targets (float32 [B, K]; int64 [B] of the partners' classes
    when `num_classes` is unknown; None) and the plan.
    """
    height, width = (x.shape[2], x.shape[3]) if recipe.has_box else (1, 1)
    if plan is None:
        plan = draw(recipe, len(x), height, width, seed, offset, sample_offset, lam=lam, box=box, partner=partner)

    own = x.float()
    other = own[plan.partner]
    per_sample = (-1, *[1] * (x.dim() - 1))
    weight = torch.where(plan.method == METHOD_MIXUP, plan.lam, 1.0)  # a CutMix sample's pixels are not blended
    value = lerp(own, other, weight.view(per_sample))
    if recipe.has_box:
        value = torch.where(inside(plan.box, height, width)[:, None], other, value)
    out = finished(value, norm, out_dtype or x.dtype)
    return out, mixed_target(target, recipe, plan.partner, plan.lam), plan


def finished(value: Tensor, norm: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Normalised if asked, rounded once. What noise lifts out of the range of bytes is clamped."""
    if norm is not None:
        value = normalise(value, norm)
    return round_to(value.clamp(0, 255) if dtype == torch.uint8 else value, dtype)


def mixed_target(target: Tensor | None, recipe: Recipe, partner: Tensor, lam: Tensor) -> Tensor | None:
    """Target rows; the partners' classes where their number is unknown."""
    if target is None:
        return None
    if target.dim() == 1 and recipe.num_classes == 0:
        return target[partner]
    rows = dense_rows(target, recipe.num_classes or target.shape[1], recipe.smoothing)
    return mix_rows(rows, partner, lam)
