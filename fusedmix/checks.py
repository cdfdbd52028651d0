"""Checks of a call's arguments. Each names the argument, what came and what is allowed, before anything is written."""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from .labels import check_classes
from .layout import is_channels_last, sample_is_dense
from .ops import IMPLEMENTATIONS
from .recipe import ALONE, KNOBS, Recipe
from .schedule import Number
from .spec import Fill, check_number

IMAGE_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.uint8)
MEMORY_FORMATS = {None: None, torch.contiguous_format: False, torch.channels_last: True, torch.preserve_format: None}
MAX_SIDE = 2**15  # regions hold products of two sides in 31 bits

PerChannel = float | Sequence[float] | Tensor | None


def composes(x: Tensor) -> bool:
    """True where a plain launch would escape something that is tracing, transforming or faking tensor operations."""
    return (
        torch.compiler.is_compiling()
        or type(x) is not Tensor
        or torch._C._len_torch_dispatch_stack() != 0
        or torch._C._functorch.peek_interpreter_stack() is not None
    )


def check_images(x: object, recipe: Recipe) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f"x must be a Tensor of images, got {type(x).__name__}")
    if x.dtype not in IMAGE_DTYPES:
        raise TypeError(f"x must be uint8, float16, bfloat16 or float32, got {x.dtype}")
    if recipe.has_box and x.dim() != 4:
        raise ValueError(f"x must be [B, C, H, W] where boxes are cut, got {list(x.shape)}")
    if recipe.has_box and 0 in x.shape[2:]:
        raise ValueError(f"x must have H and W of at least 1 where boxes are cut, got {list(x.shape)}")
    if recipe.choices and recipe.has_box and max(x.shape[2:]) >= MAX_SIDE:
        raise ValueError(f"x must have H and W below {MAX_SIDE}, got {list(x.shape)}")
    if x.dim() < 2:
        raise ValueError(f"x must be [B, ...] with at least 2 dimensions, got {list(x.shape)}")
    if x.device.type not in IMPLEMENTATIONS and x.device.type != "meta":
        raise ValueError(f"x must be on a cpu or cuda device, got {x.device}")


def check_given(name: str, value: object, x: Tensor, shape: tuple[int, ...], dtypes: tuple[torch.dtype, ...]) -> Tensor:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a Tensor {list(shape)}, got {type(value).__name__}")
    if value.dtype not in dtypes:
        raise TypeError(f"{name} must be {' or '.join(map(str, dtypes))}, got {value.dtype}")
    if value.shape != shape:
        raise ValueError(f"{name} must be {list(shape)}, got {list(value.shape)}")
    if value.device != x.device:
        raise ValueError(f"{name} must be on the device of x ({x.device}), got {value.device}")
    return value


def check_lam(lam: float | Tensor, x: Tensor) -> Tensor:
    batch = x.shape[0]
    if isinstance(lam, Tensor):
        dtypes = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
        return check_given("lam", lam, x, (batch,), dtypes).detach().float().contiguous()
    check_number("lam", lam, 0.0, 1.0)
    # A tensor filled during a capture holds its number only after the first replay: not one to keep.
    keep = not composes(x) and not (x.is_cuda and torch.cuda.is_current_stream_capturing())
    return (cached_lam if keep else full_lam)(batch, float(lam), x.device)


def full_lam(batch: int, lam: float, device: torch.device) -> Tensor:
    return torch.full((batch,), lam, device=device)


cached_lam = lru_cache(maxsize=64)(full_lam)


def check_finish(
    mean: PerChannel, std: PerChannel, dtype: object, memory_format: object, dtype_name: str = "out_dtype"
) -> None:
    """Refuses what no x could be finished with; for modules, which know it before they see one."""
    if dtype is not None:
        check_dtype(dtype, dtype_name)
    check_format(memory_format)
    if not isinstance(mean, Tensor) and not isinstance(std, Tensor):
        channels = max(len(v) if isinstance(v, Sequence) else 1 for v in (mean, std))
        build_norm(mean, std, channels, torch.device("cpu"))


def check_format(memory_format: object) -> None:
    if memory_format not in MEMORY_FORMATS:
        raise ValueError(f"memory_format must be torch.contiguous_format or torch.channels_last, got {memory_format!r}")


def check_memory_format(memory_format: object, x: Tensor) -> bool | None:
    check_format(memory_format)
    if memory_format == torch.channels_last and x.dim() != 4:
        raise ValueError(f"memory_format=torch.channels_last needs x as [B, C, H, W], got {list(x.shape)}")
    return MEMORY_FORMATS[memory_format]  # type: ignore[index]


def check_out_dtype(
    out_dtype: object, x: Tensor, has_norm: bool, out: Tensor | None, name: str = "out_dtype"
) -> torch.dtype:
    """dtype of the result: asked for, else that of `out`, else x's own, else float32 for normalised uint8."""
    if out_dtype is None and isinstance(out, Tensor):
        name, out_dtype = "out.dtype", out.dtype
    if out_dtype is None:
        return torch.float32 if has_norm and x.dtype == torch.uint8 else x.dtype
    out_dtype = check_dtype(out_dtype, name)
    if out_dtype == torch.uint8 and (x.dtype != torch.uint8 or has_norm):
        raise ValueError(f"{name} torch.uint8 needs x of uint8 without mean and std, got x of {x.dtype}")
    return out_dtype


def check_dtype(dtype: object, name: str) -> torch.dtype:
    if not isinstance(dtype, torch.dtype):
        raise TypeError(f"{name} must be a torch.dtype, got {type(dtype).__name__}")
    if dtype not in IMAGE_DTYPES:
        raise ValueError(f"{name} must be float32, float16, bfloat16 or uint8, got {dtype}")
    return dtype


def check_destination(
    x: Tensor, out: object, inplace: bool, recipe: Recipe, partner: Tensor | None, out_dtype: torch.dtype | None,
    channels_last: bool | None, differentiates: bool,
) -> None:  # fmt: skip
    """Refuses an `out` or an in-place `x` that can't be written as asked."""
    if inplace and out is not None:
        raise ValueError("inplace=True and out= exclude each other: give one")
    if inplace:
        if x.requires_grad and x.is_leaf and torch.is_grad_enabled():
            raise ValueError("inplace=True: x is a leaf that requires grad, which can't be written in place")
        if recipe.resizes:
            raise ValueError("inplace=True does not work with ResizeMix, which reads its partner elsewhere: use out=")
        if recipe.pairing != ALONE and (not recipe.is_paired or partner is not None):
            raise ValueError('inplace=True needs partner "matching", "exact" or "flip" (pairs), got another')
        if out_dtype not in (None, x.dtype):
            raise ValueError(f"inplace=True keeps the dtype of x ({x.dtype}), got out_dtype={out_dtype}")
        if channels_last is not None and channels_last != is_channels_last(x):
            raise ValueError("inplace=True keeps the memory format of x, got another memory_format")
        check_writable("x with inplace=True", x)
        return
    check_out(x, out, x.shape, out_dtype, channels_last, differentiates)


def check_out(
    x: Tensor, out: object, shape: tuple[int, ...], out_dtype: torch.dtype | None, channels_last: bool | None,
    differentiates: bool,
) -> None:  # fmt: skip
    """Refuses an `out` of the wrong kind or shape."""
    if not isinstance(out, Tensor):
        raise TypeError(f"out must be a Tensor, got {type(out).__name__}")
    if out.shape != shape:
        raise ValueError(f"out must have the shape of the result {list(shape)}, got {list(out.shape)}")
    if out.dtype != out_dtype:
        raise ValueError(f"out must be {out_dtype}, got {out.dtype}")
    if out.device != x.device:
        raise ValueError(f"out must be on the device of x ({x.device}), got {out.device}")
    if differentiates or out.requires_grad:
        raise ValueError("out does not work with gradients: neither x, y nor out may require grad")
    if channels_last is not None and channels_last != is_channels_last(out):
        raise ValueError("out is not in the memory_format asked for")
    check_writable("out", out)
    if not torch.compiler.is_compiling() and type(x) is Tensor and overlap(x, out):
        raise ValueError("out overlaps x in memory: it must be separate")


def check_writable(name: str, t: Tensor) -> None:
    if t.is_contiguous():
        return
    dense = sample_is_dense(t, False) or (t.dim() == 4 and sample_is_dense(t, True))
    if not dense or (t.shape[0] > 1 and t.stride(0) < t[0].numel()):
        raise ValueError(
            f"{name} must have samples that are dense in memory, contiguous or channels_last, and apart from each "
            f"other; got shape {list(t.shape)} with strides {list(t.stride())}"
        )


def overlap(a: Tensor, b: Tensor) -> bool:
    """True when the memory spans of two tensors meet."""
    at_a, at_b = a.data_ptr(), b.data_ptr()
    first, start, later = (a, at_a, at_b) if at_a <= at_b else (b, at_b, at_a)
    if first.is_contiguous():
        end = start + first.nbytes
    else:
        reach = sum((size - 1) * stride for size, stride in zip(first.shape, first.stride(), strict=True))
        end = start + (reach + 1) * first.element_size()
    return later < end and a.numel() > 0 and b.numel() > 0


def check_values(
    target: Tensor | None, lam: Tensor | None, box: Tensor | None, partner: Tensor | None, recipe: Recipe, x: Tensor
) -> None:
    """Checks of values, where reading them costs nothing (CPU) or `debug` asks for it."""
    if target is not None and target.dim() == 1 and recipe.num_classes:
        check_classes(target, recipe.num_classes)
    if x.shape[0] == 0:
        return
    if lam is not None and not bool(((lam >= 0) & (lam <= 1)).all()):
        raise ValueError(f"lam must be in [0, 1], got values from {float(lam.min())} to {float(lam.max())}")
    if partner is not None and not bool(((partner >= 0) & (partner < x.shape[0])).all()):
        low, high = int(partner.min()), int(partner.max())
        raise ValueError(f"partner must hold indices in [0, {x.shape[0]}), got values from {low} to {high}")
    if box is not None:
        y0, x0, y1, x1 = box.unbind(1)
        if not bool(((y0 >= 0) & (x0 >= 0) & (y0 <= y1) & (x0 <= x1) & (y1 <= x.shape[2]) & (x1 <= x.shape[3])).all()):
            raise ValueError(f"box must hold 0 <= y0 <= y1 <= {x.shape[2]} and 0 <= x0 <= x1 <= {x.shape[3]}")


def norm_of(mean: PerChannel, std: PerChannel, x: Tensor, white: float = 1.0) -> Tensor:
    """float32 [2, C]: mean and inverse std per channel, on x's device, of values in shares of `white`."""
    mean, std = (v if isinstance(v, Tensor | float | int | tuple | str | None) else tuple(v) for v in (mean, std))
    build = build_norm if composes(x) or isinstance(mean, Tensor) or isinstance(std, Tensor) else cached_norm
    return build(mean, std, x.shape[1], x.device, white)


def build_norm(mean: PerChannel, std: PerChannel, channels: int, device: torch.device, white: float = 1.0) -> Tensor:
    rows = []
    for name, value, default in (("mean", mean, 0.0), ("std", std, 1.0)):
        try:
            row = torch.as_tensor(default if value is None else value, dtype=torch.float64)
        except (TypeError, ValueError, RuntimeError):
            raise TypeError(f"{name} must be a number or one per channel ({channels}), got {value!r}") from None
        if row.dim() > 1 or (row.dim() == 1 and row.shape[0] not in (1, channels)):
            raise ValueError(f"{name} must be a number or one per channel ({channels}), got {list(row.shape)}")
        if not torch.compiler.is_compiling():
            if name == "std" and not bool((row > 0).all()):
                raise ValueError(f"std must be > 0, got {row.tolist()}")
            if not bool(row.isfinite().all()):
                raise ValueError(f"{name} must be finite, got {row.tolist()}")
        rows.append(row.expand(channels))
    return torch.stack([rows[0] / white, white / rows[1]]).to(device=device, dtype=torch.float32)


cached_norm = lru_cache(maxsize=64)(build_norm)


def knobs_of(rows: tuple[tuple[Number, ...], ...], device: torch.device) -> Tensor:
    """float32 [rows, KNOBS]: the numbers of a policy on a device; tensors among them are copied, not read."""
    plain = tuple(tuple(0.0 if isinstance(v, Tensor) else float(v) for v in row) for row in rows)
    knobs = (build_knobs if torch.compiler.is_compiling() else cached_knobs)(plain, device)
    scalars = [(r, c, v) for r, row in enumerate(rows) for c, v in enumerate(row) if isinstance(v, Tensor)]
    if scalars:
        knobs = knobs.clone()
        for r, c, value in scalars:
            knobs[r, c] = value.detach()
    return knobs


def build_knobs(rows: tuple[tuple[float, ...], ...], device: torch.device) -> Tensor:
    return torch.tensor([[*row, *[0.0] * (KNOBS - len(row))] for row in rows], dtype=torch.float32).to(device)


cached_knobs = lru_cache(maxsize=256)(build_knobs)


def check_fills(fills: tuple[Fill, ...], x: Tensor) -> None:
    """Refuses what bytes can't hold. Of images that are not normalised."""
    for fill in fills if x.dtype == torch.uint8 else ():
        for value in fill.value if isinstance(fill.value, tuple) else (fill.value,):
            check_number("value of uint8 images (or fill)", value, 0, 255)


def fills_of(fills: tuple[Fill, ...], norm: Tensor | None, x: Tensor, white: float = 1.0) -> Tensor:
    """float32 [rows, 2, C]: value and sigma of each row, in the units of x or, with `white`, all but the last row in
    shares of it, as is norm.
    """
    if all(fill.space == "input" for fill in fills):
        norm = None  # plays no part
    build = build_fills if composes(x) else cached_fills
    return build(fills, norm, x.shape[1], x.device, white)


def build_fills(
    fills: tuple[Fill, ...], norm: Tensor | None, channels: int, device: torch.device, white: float
) -> Tensor:
    rows = []
    for row, fill in enumerate(fills):
        parts = []
        for name in ("value", "sigma"):
            part = torch.tensor(getattr(fill, name), dtype=torch.float32)
            if part.dim() == 1 and part.shape[0] not in (1, channels):
                shown = "value (or fill)" if name == "value" else name
                raise ValueError(
                    f"{shown} must be a number or one per channel ({channels}), got {part.shape[0]} numbers"
                )
            parts.append(part.expand(channels).to(device))
        if norm is not None and fill.space == "output":
            parts = [parts[0] / norm[1] + norm[0], parts[1] / norm[1]]
        elif row + 1 < len(fills):
            parts = [part / white for part in parts]
        rows.append(torch.stack(parts))
    return torch.stack(rows)


cached_fills = lru_cache(maxsize=64)(build_fills)
