"""The op boundary: schema, fake implementation, autograd, and the choice of implementation by device.

An implementation is a function `mix_into(out, target_out, plan, x, target, norm, lam, box, partner, state, seed,
offset, sample_offset, recipe, replay, extras)` that fills the first three tensors. `extras` are what a recipe with
choices needs besides: knobs float32 [choices + 1, KNOBS], fill float32 [choices + 1, 2, C], field int32 [B, H, W].
`augment_into` takes gray float32 [B] in place of lam and box, and a geometry after the recipe; its knobs have three
rows more (geometry, affine, colour), its fill one (what lies beyond an image).
"""

import importlib
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from .layout import as_dense, is_channels_last, on_large_pages
from .recipe import (
    METHOD_MIXUP,
    PLAN_BOX,
    PLAN_LAM,
    PLAN_METHOD,
    PLAN_PARTNER,
    Geometry,
    Recipe,
)
from .reference.family import adjoint_family, unpack
from .reference.masks import inside

LIBRARY = torch.library.Library("fusedmix", "DEF")

# The recipe's `mode` is called `sharing` here: torch passes a keyword `mode` of its own to an op's implementation.
RECIPE = """float mixup_alpha, float cutmix_alpha, float p, float switch_prob, int sharing, int pairing,
    bool correct_lam, float minmax_lo, float minmax_hi, int num_classes, float smoothing, bool adjoint, int[] choices,
    int erase"""
SEEDED = "Tensor? state, SymInt seed, SymInt offset, SymInt sample_offset"
EXTRAS = "Tensor? knobs, Tensor? fill, Tensor? field"
DRAWN = f"""Tensor? target, Tensor? norm, Tensor? plan, Tensor? lam, Tensor? box, Tensor? partner, {SEEDED}, {RECIPE},
    bool want_plan, {EXTRAS}"""
PLACED = f"""Tensor? target, Tensor? norm, Tensor? plan, Tensor? gray, Tensor? partner, {SEEDED}, {RECIPE},
    int[] geometry, bool want_plan, {EXTRAS}"""
LIBRARY.define(f"mix(Tensor x, {DRAWN}, ScalarType? out_dtype, bool? channels_last) -> (Tensor, Tensor, Tensor)")
LIBRARY.define(f"mix_(Tensor(a!) x, {DRAWN}) -> (Tensor, Tensor)")
LIBRARY.define(f"mix_out(Tensor x, Tensor(a!) out, {DRAWN}) -> (Tensor, Tensor)")
LIBRARY.define(f"augment(Tensor x, {PLACED}, ScalarType? out_dtype, bool? channels_last) -> (Tensor, Tensor, Tensor)")
LIBRARY.define(f"augment_out(Tensor x, Tensor(a!) out, {PLACED}) -> (Tensor, Tensor)")

Extras = tuple[Tensor | None, Tensor | None, Tensor | None]
NO_EXTRAS: Extras = (None, None, None)

IMPLEMENTATIONS = {"cpu": "cpu", "cuda": "launch"}  # device type: module


@cache
def implementation(device_type: str, name: str = "mix_into") -> Callable[..., None]:
    """The `mix_into` or `augment_into` for a kind of device."""
    try:
        module = importlib.import_module(f".{IMPLEMENTATIONS[device_type]}", __package__)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "triton":
            raise RuntimeError(f"x is on {device_type}: this needs triton (pip install triton), not found") from error
        raise
    return getattr(module, name)


def allocate_image(
    x: Tensor, out_dtype: torch.dtype | None, channels_last: bool | None, size: tuple[int, int] | None = None
) -> Tensor:
    """An empty tensor for the mixed images, in x's dtype, layout and size unless told otherwise."""
    if out_dtype is None and channels_last is None and size is None and x.is_contiguous():
        return on_large_pages(torch.empty_like(x))
    last = is_channels_last(x) if channels_last is None else channels_last
    image = torch.empty(
        x.shape if size is None else (*x.shape[:2], *size), dtype=out_dtype or x.dtype, device=x.device,
        memory_format=torch.channels_last if last else torch.contiguous_format,
    )  # fmt: skip
    return on_large_pages(image)


def allocate_target(target: Tensor | None, recipe: Recipe) -> Tensor | None:
    """float32 [B, K] rows; int64 [B] for classes of unknown number."""
    if target is None:
        return None
    if target.dim() == 2:
        return on_large_pages(torch.empty_like(target, dtype=torch.float32))
    if recipe.num_classes == 0:
        return torch.empty_like(target)
    return on_large_pages(target.new_empty((target.shape[0], recipe.num_classes), dtype=torch.float32))


def allocate_plan(x: Tensor, recipe: Recipe, geometry: Geometry | None = None) -> Tensor:
    columns = recipe.columns + (0 if geometry is None else geometry.columns)
    return x.new_empty((x.shape[0], columns), dtype=torch.int32)


def call_mix_into(
    x: Tensor, out: Tensor, target: Tensor | None, norm: Tensor | None, plan: Tensor | None, lam: Tensor | None,
    box: Tensor | None, partner: Tensor | None, state: Tensor | None, seed: int, offset: int, sample_offset: int,
    recipe: Recipe, want_plan: bool, extras: Extras = NO_EXTRAS,
) -> tuple[Tensor | None, Tensor | None]:  # fmt: skip
    """Fills `out`; returns the new targets and the plan (the drawn one where wanted, else the given one or None)."""
    replay = plan is not None
    target_out = allocate_target(target, recipe)
    if want_plan and not replay:
        plan = allocate_plan(x, recipe)
    implementation(x.device.type)(
        out, target_out, plan, x, target, norm, lam, box, partner, state, seed, offset, sample_offset, recipe, replay,
        extras,
    )  # fmt: skip
    return target_out, plan


def recipe_of(numbers) -> Recipe:
    """The recipe of an op's numbers: its choices come as a list."""
    *others, choices, erase = numbers
    return Recipe(*others)._replace(choices=tuple(choices), erase=erase)


def call_augment_into(
    x: Tensor, out: Tensor, target: Tensor | None, norm: Tensor | None, plan: Tensor | None, gray: Tensor | None,
    partner: Tensor | None, state: Tensor | None, seed: int, offset: int, sample_offset: int, recipe: Recipe,
    geometry: Geometry, want_plan: bool, extras: Extras,
) -> tuple[Tensor | None, Tensor | None]:  # fmt: skip
    """As `call_mix_into`, for FusedAugment."""
    replay = plan is not None
    target_out = allocate_target(target, recipe)
    if want_plan and not replay:
        plan = allocate_plan(x, recipe, geometry)
    implementation(x.device.type, "augment_into")(
        out, target_out, plan, x, target, norm, gray, partner, state, seed, offset, sample_offset, recipe, geometry,
        replay, extras,
    )  # fmt: skip
    return target_out, plan


def or_empty(result: Tensor | None, x: Tensor) -> Tensor:
    return x.new_empty(0) if result is None else result


def _mix_out(x, out, target, norm, plan, lam, box, partner, state, seed, offset, sample_offset, *numbers):
    *recipe, want_plan, knobs, fill, field = numbers
    target_out, drawn = call_mix_into(
        as_dense(x), out, target, norm, plan, lam, box, partner, state, seed, offset, sample_offset, recipe_of(recipe),
        want_plan, (knobs, fill, field),
    )  # fmt: skip
    return or_empty(target_out, x), or_empty(drawn if plan is None else None, x)


def _mix_(x, *arguments):
    return _mix_out(x, x, *arguments)


def _mix(x, *arguments):
    *shared, out_dtype, channels_last = arguments
    out = allocate_image(x, out_dtype, channels_last)
    return out, *_mix_out(x, out, *shared)


def _fake_mix_out(x, out, target, norm, plan, lam, box, partner, state, seed, offset, sample_offset, *numbers):
    recipe, want_plan = recipe_of(numbers[:-4]), numbers[-4]
    target_out = allocate_target(target, recipe)
    return or_empty(target_out, x), or_empty(allocate_plan(x, recipe) if want_plan and plan is None else None, x)


def _fake_mix_(x, *arguments):
    return _fake_mix_out(x, x, *arguments)


def _fake_mix(x, *arguments):
    *shared, out_dtype, channels_last = arguments
    out = allocate_image(x, out_dtype, channels_last)
    return out, *_fake_mix_out(x, out, *shared)


def _augment_out(x, out, target, norm, plan, gray, partner, state, seed, offset, sample_offset, *numbers):
    *recipe, geometry, want_plan, knobs, fill, field = numbers
    target_out, drawn = call_augment_into(
        as_dense(x), out, target, norm, plan, gray, partner, state, seed, offset, sample_offset, recipe_of(recipe),
        Geometry.of(geometry), want_plan, (knobs, fill, field),
    )  # fmt: skip
    return or_empty(target_out, x), or_empty(drawn if plan is None else None, x)


def _augment(x, *arguments):
    *shared, out_dtype, channels_last = arguments
    out = allocate_image(x, out_dtype, channels_last, size_of(shared))
    return out, *_augment_out(x, out, *shared)


def size_of(arguments) -> tuple[int, int]:
    """(H, W) of the result, from the shared arguments of `augment`."""
    geometry = Geometry.of(arguments[-5])
    return geometry.height, geometry.width


def _fake_augment_out(x, out, target, norm, plan, gray, partner, state, seed, offset, sample_offset, *numbers):
    *recipe, geometry, want_plan, _knobs, _fill, _field = numbers
    target_out = allocate_target(target, recipe_of(recipe))
    drawn = allocate_plan(x, recipe_of(recipe), Geometry.of(geometry)) if want_plan and plan is None else None
    return or_empty(target_out, x), or_empty(drawn, x)


def _fake_augment(x, *arguments):
    *shared, out_dtype, channels_last = arguments
    out = allocate_image(x, out_dtype, channels_last, size_of(shared))
    return out, *_fake_augment_out(x, out, *shared)


for _name, _real, _fake in (
    ("mix", _mix, _fake_mix),
    ("augment", _augment, _fake_augment),
    ("augment_out", _augment_out, _fake_augment_out),
    ("mix_", _mix_, _fake_mix_),
    ("mix_out", _mix_out, _fake_mix_out),
):
    for _key in ("CPU", "CUDA"):
        LIBRARY.impl(_name, _real, _key)
    torch.library.register_fake(f"fusedmix::{_name}", _fake, lib=LIBRARY)


# Autograd: mixing is linear, so the gradient is the adjoint mix of the same plan, and the gradient of that the mix.


def _setup_context(ctx, inputs, output):
    x, target, norm, plan, *_ = inputs
    recipe = recipe_of(inputs[11:-6])
    ctx.recipe, ctx.x_dtype, ctx.x_last = recipe, x.dtype, is_channels_last(x)
    ctx.target_dtype = None if target is None else target.dtype
    field = inputs[-3]
    ctx.save_for_backward(output[2] if plan is None else plan, *(t for t in (norm, field) if t is not None))
    ctx.has_norm = norm is not None
    ctx.mark_non_differentiable(output[2])


def _backward(ctx, grad_out, grad_target, _grad_plan):
    plan, *others = ctx.saved_tensors
    norm, field = others[: ctx.has_norm], others[ctx.has_norm :]
    if len(plan) != len(grad_out):
        raise RuntimeError("fusedmix::mix needs want_plan=True to be differentiated")
    grads: list[Tensor | None] = [None] * (17 + len(Recipe._fields))
    if ctx.needs_input_grad[0]:
        scale = torch.stack([torch.zeros_like(norm[0][0]), norm[0][1]]) if norm else None
        grads[0] = image_adjoint(grad_out, plan, scale, ctx.recipe, ctx.x_dtype, ctx.x_last, *field)
    if ctx.needs_input_grad[1]:
        own = plan.view(torch.float32)[:, PLAN_LAM, None]
        grad = scatter_adjoint(grad_target, plan, own) * (1.0 - ctx.recipe.smoothing)
        grads[1] = grad.to(ctx.target_dtype)
    return tuple(grads)


def image_adjoint(
    grad: Tensor, plan: Tensor, scale: Tensor | None, recipe: Recipe, dtype: torch.dtype, channels_last: bool,
    field: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """What each image receives back from its own output and from that of whoever mixed it in."""
    if recipe.choices:
        grad = grad.float() if scale is None else grad * scale[1].view(-1, *[1] * (grad.dim() - 2))
        image = adjoint_family(grad, unpack(plan, recipe), recipe, field).to(dtype)
        return image.contiguous(memory_format=torch.channels_last) if channels_last else image.contiguous()
    if recipe.is_paired and grad.device.type != "cpu":
        recipe = recipe._replace(adjoint=not recipe.adjoint)
        return torch.ops.fusedmix.mix.default(
            grad, None, scale, plan, None, None, None, None, 0, 0, 0, *recipe, False, None, None, None, dtype,
            channels_last,
        )[0]  # fmt: skip
    lam = torch.where(plan[:, PLAN_METHOD] == METHOD_MIXUP, plan.view(torch.float32)[:, PLAN_LAM], 1.0)
    own = lam.view(-1, *[1] * (grad.dim() - 1))
    if recipe.has_box:
        own = torch.where(inside(plan[:, PLAN_BOX:], grad.shape[2], grad.shape[3])[:, None], 0.0, own)
    if scale is not None:
        grad = grad * scale[1].view(-1, *[1] * (grad.dim() - 2))
    image = scatter_adjoint(grad, plan, own).to(dtype)
    return image.contiguous(memory_format=torch.channels_last) if channels_last else image.contiguous()


def scatter_adjoint(grad: Tensor, plan: Tensor, own: Tensor) -> Tensor:
    """own * grad, plus (1 - own) * grad given to the partner. float32; a weight of 0 takes nothing of an infinity."""
    grad = grad.float()
    kept, given = (torch.where(weight == 0, 0.0, weight * grad) for weight in (own, 1 - own))
    return kept.index_add(0, plan[:, PLAN_PARTNER].long(), given)


torch.library.register_autograd("fusedmix::mix", _backward, setup_context=_setup_context, lib=LIBRARY)
