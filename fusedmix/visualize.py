"""See what a call did: images with their boxes, partners and weights, as one picture."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .functional import Plan
from .recipe import TITLES, boxed, method_of

TILE = 160  # pixels of a tile's longer side, at the least
GAP, FOOT, LINE = 8, 54, 17
NAME_LENGTH = 18  # longest name in a caption
INSET = 4  # the partner's inset is this fraction of a tile


def grid(
    x: Tensor,
    plan: Plan | None = None,
    labels: Sequence[Any] | Tensor | None = None,
    *,
    originals: Tensor | None = None,
    columns: int = 6,
    mean: Sequence[float] | float | None = None,
    std: Sequence[float] | float | None = None,
) -> Any:
    """A picture of a batch: every image with its caption, boxes and, if `originals` are given, its partner as an inset.

    Args:
        x: uint8 [B, 1 or 3, H, W], or floats in [0, 1]; normalised ones with the `mean` and `std` that made them, in
            units of bytes where any of these exceeds 1.
        plan: what was drawn; captions then say method, partner and weights.
        labels: B class names or numbers, shown with their weights.
        originals: the batch before mixing, of any H and W (`FusedAugment` may change them), uint8 or like x.
        columns: tiles in a row, >= 1.
        mean, std: per channel, undone before showing.

    Returns: a PIL image (needs Pillow: `pip install "fusedmix[demo]"`).

    Raises:
        TypeError, ValueError: an argument of the wrong kind or size.
        ImportError: Pillow is missing.

    Example:
        >>> import torch, fusedmix
        >>> from fusedmix import visualize
        >>> x, plan = fusedmix.fused_cutmix(torch.rand(4, 3, 32, 32), return_plan=True)
        >>> visualize.grid(x, plan=plan, labels=["cat", "dog", "cat", "fox"]).size
        (680, 222)
    """
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ImportError as error:
        raise ImportError('visualize needs Pillow: pip install "fusedmix[demo]"') from error

    check_arguments(x, plan, labels, originals, columns)
    tiles = [to_bytes(image, mean, std) for image in x]
    before = None if originals is None else [to_bytes(image, mean, std) for image in originals]
    height, width = x.shape[2:]
    scale = max(1, -(-TILE // max(height, width)))
    high, wide = height * scale, width * scale
    across = min(columns, max(len(tiles), 1))
    down = -(-len(tiles) // across)
    sheet = Image.new("RGB", (across * (wide + GAP) + GAP, down * (high + FOOT) + GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=13)
    for i, tile in enumerate(tiles):
        left, top = GAP + i % across * (wide + GAP), GAP + i // across * (high + FOOT)
        sheet.paste(picture(tile, (wide, high)), (left, top))
        if plan is not None:
            for y0, x0, y1, x1 in boxes_of(plan, i):
                corners = (left + x0 * scale, top + y0 * scale, left + x1 * scale - 1, top + y1 * scale - 1)
                draw.rectangle(corners, outline="black", width=3)
                draw.rectangle(corners, outline="yellow", width=1)
            partner = int(plan.partner[i])
            if before is not None and partner != i:
                size = (wide // INSET, high // INSET)
                corner = (left + wide - size[0] - 2, top + 2)
                draw.rectangle((corner[0] - 2, corner[1] - 2, left + wide - 1, top + size[1] + 3), fill="white")
                sheet.paste(picture(before[partner], size), corner)
        for n, line in enumerate(caption(plan, i, labels)):
            draw.text((left, top + high + 1 + n * LINE), line, fill="black", font=font)
    return sheet


def check_arguments(x: Any, plan: Any, labels: Any, originals: Any, columns: Any) -> None:
    if not isinstance(x, Tensor) or x.dim() != 4 or x.shape[1] not in (1, 3):
        came = list(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"x must be [B, 1 or 3, H, W], got {came}")
    if plan is not None and not isinstance(plan, Plan):
        raise TypeError(f"plan must be a fusedmix.Plan, got {type(plan).__name__}")
    if plan is not None and len(plan) != len(x):
        raise ValueError(f"plan is for {len(plan)} samples, but x has {len(x)}")
    if labels is not None and len(labels) != len(x):
        raise ValueError(f"labels must be {len(x)} names or numbers, one per image, got {len(labels)}")
    if originals is not None and (
        not isinstance(originals, Tensor) or originals.dim() != 4 or originals.shape[:2] != x.shape[:2]
    ):
        came = list(originals.shape) if isinstance(originals, Tensor) else type(originals).__name__
        raise ValueError(f"originals must be {list(x.shape[:2])} images of any H and W, as x, got {came}")
    if not isinstance(columns, int) or columns < 1:
        raise ValueError(f"columns must be an int >= 1, got {columns!r}")


def to_bytes(image: Tensor, mean: Any, std: Any) -> Tensor:
    """uint8 [H, W, 3] on the CPU."""
    image = image.detach().cpu()
    if image.dtype != torch.uint8:
        value, white = image.float(), 1.0
        for scaling, undo in ((std, torch.mul), (mean, torch.add)):
            if scaling is not None:
                numbers = torch.as_tensor(scaling, dtype=torch.float32).view(-1, 1, 1)
                value = undo(value, numbers)
                white = 255.0 if float(numbers.max()) > 1 else white
        image = (value.clamp(0, white) * (255 / white)).round().to(torch.uint8)
    return image.expand(3, -1, -1).permute(1, 2, 0)


def picture(tile: Tensor, size: tuple[int, int]) -> Any:
    from PIL import Image

    return Image.fromarray(tile.contiguous().numpy()).resize(size, Image.Resampling.NEAREST)


def boxes_of(plan: Plan, i: int) -> list[list[int]]:
    """The boxes that sample i was cut by, those erased after mixing included."""
    row, found = plan.packed[i].tolist(), []
    if not plan.recipe.choices:
        return [box for box in [plan.box[i].tolist()] if box[2] > box[0] and box[3] > box[1]]
    for slots, code in plan.regions(row):
        if boxed(method_of(code)):
            found += [slots[k : k + 4] for k in range(0, len(slots) - 3, 4)]
    return [box for box in found if box[2] > box[0] and box[3] > box[1]]


def caption(plan: Plan | None, i: int, labels: Any) -> list[str]:
    """Up to three lines: the method, then each label with its weight."""
    names = None if labels is None else [str(v) for v in (labels.tolist() if isinstance(labels, Tensor) else labels)]
    if plan is None:
        return [] if names is None else [short(names[i])]
    partner, lam = int(plan.partner[i]), float(plan.lam[i])
    title = TITLES[int(plan.method[i])]
    if bool(plan.erased[i]):
        title += f" + {TITLES[method_of(plan.recipe.erase)]}"
    if names is None:
        return [title] if partner == i else [title, f"{lam:.2f} own, {1 - lam:.2f} of {partner}"]
    if names[i] == names[partner]:
        return [title, f"1.00 {short(names[i])}"]
    return [title, f"{lam:.2f} {short(names[i])}", f"{1 - lam:.2f} {short(names[partner])}"]


def short(name: str) -> str:
    return name if len(name) <= NAME_LENGTH else name[: NAME_LENGTH - 1] + "…"
