"""The whole call of the family, step by step: a method per sample out of a list, then what is erased."""

from typing import NamedTuple

import torch
from torch import Tensor

from fusedmix import recipe as codes
from fusedmix import rng
from fusedmix.recipe import (
    KNOB_A,
    KNOB_B,
    KNOB_C,
    KNOB_D,
    KNOB_E,
    KNOB_EDGE,
    KNOB_F,
    METHOD_CUTMIX,
    METHOD_CUTOUT,
    METHOD_ERASING,
    METHOD_FMIX,
    METHOD_GRIDMASK,
    METHOD_GRIDMIX,
    METHOD_HIDE,
    METHOD_MIXUP,
    METHOD_NONE,
    METHOD_RESIZEMIX,
    METHOD_SMOOTHMIX,
    MODE_BATCH,
    MODE_PAIR,
    NOISE_PIXEL,
    ROW_SHIFT,
    Recipe,
    count_of,
    method_of,
    slots_of,
)

from .mix import finished, mixed_target
from .philox import Words
from .philox import words as philox_words
from .pixel import fma, lerp
from .regions import (
    as_bits,
    bell,
    bell_share,
    bell_width,
    below,
    between,
    bilinear,
    cut_side,
    erased_box,
    fixed,
    from_bits,
    hole_side,
    inside_cells,
    inside_grid,
    nearest,
    normal,
    soft_share,
    stripe_length,
    turn,
    unit,
)
from .sampling import mates, number, sqrt, symmetric_beta


class Region(NamedTuple):
    """What one stage replaces: slots int64 [B, n] (the region), key int64 [B] (noise), code int64 [B] (choice, row)."""

    slots: Tensor
    key: Tensor
    code: Tensor


class FamilyDraw(NamedTuple):
    """As `Draw`, with the region of the chosen method and what is erased after it (None without)."""

    method: Tensor
    lam: Tensor
    partner: Tensor
    mate: Tensor
    region: Region
    erased: Region | None


def no_boxes(i: Tensor, count: int) -> list[Tensor]:
    return [torch.zeros_like(i) for _ in range(4 * count)]


def first_fitting(
    words: Words, seed: int, offset: int, index: Tensor, stream: int, knob: Tensor, count: Tensor, linear: bool,
    height: int, width: int,
) -> list[Tensor]:  # fmt: skip
    """Random Erasing's box of each index, y0, x0, y1, x1: of ten tries the first that fits, zeros where none does."""
    tries = torch.arange(rng.TRIES)[:, None].expand(-1, len(index))  # [TRIES, B]
    area, aspect, down, across = words(seed, offset, index.expand_as(tries), stream + rng.STREAM_STEP * tries)
    low, high, aspect_low, aspect_high = (knob[k].expand_as(tries) for k in (KNOB_A, KNOB_B, KNOB_C, KNOB_D))
    fits, *edges = erased_box(
        area, aspect, down, across, low, high, aspect_low, aspect_high, count, linear, height, width
    )
    chosen = fits.long().argmax(0)[None]  # the first that fits
    return [torch.where(fits.any(0), edge.gather(0, chosen)[0], 0) for edge in edges]


def holes(
    code: int, knob: Tensor, seed: int, offset: int, index: Tensor, stream: int, count: Tensor, height: int,
    width: int, words: Words,
) -> list[Tensor]:  # fmt: skip
    """The boxes of Cutout or Random Erasing, empty beyond `count` and where ten tries did not fit."""
    slots: list[Tensor] = []
    for hole in range(count_of(code)):
        first = stream + rng.STREAM_STEP * rng.TRY_STEP * hole
        if method_of(code) == METHOD_CUTOUT:
            _, _, word_y, word_x = words(seed, offset, index, first)
            length = knob[KNOB_A].long()
            (y0, y1), (x0, x1) = hole_side(length, word_y, height), hole_side(length, word_x, width)
            slots += [y0, x0, y1, x1]
            continue
        linear = codes.has_flag(code, codes.FLAG_LINEAR)
        edges = first_fitting(words, seed, offset, index, first, knob, count, linear, height, width)
        slots += [torch.where(hole < count, edge, 0) for edge in edges]
    return slots


def dropped_region(
    code: int, knob: Tensor, seed: int, offset: int, index: Tensor, streams: tuple[int, int], height: int, width: int,
    words: Words,
) -> list[Tensor]:  # fmt: skip
    """Slots of a method that drops a region."""
    region_stream, hole_stream = streams
    word_0, word_1, word_2, word_3 = words(seed, offset, index, region_stream)
    method = method_of(code)
    if method == METHOD_GRIDMASK:
        low, high = knob[KNOB_A].long(), knob[KNOB_B].long()
        d = (low + below(word_0, (high - low).clamp(min=1))).clamp(min=1)
        degrees = below(word_3, knob[KNOB_D].long().clamp(min=1))
        cosine, sine = turn(degrees)
        length = stripe_length(d, knob[KNOB_C], knob[KNOB_F])
        inverted = knob[KNOB_E].long().expand(len(index))
        return [d, length, below(word_1, d), below(word_2, d), fixed(cosine), fixed(sine), inverted]
    if method == METHOD_HIDE:
        sizes = knob[KNOB_C:].long()
        size = sizes[below(word_1, knob[KNOB_B].long().clamp(min=1))]
        share = torch.where(size > 0, (knob[KNOB_A] * 2.0**24).long(), 0)
        size = torch.where(size > 0, size, codes.WIDE_CELL)
        return [size, size, word_0, share]
    count = torch.full_like(index, count_of(code))
    if method == METHOD_ERASING:
        low, high = knob[KNOB_E].long(), knob[KNOB_F].long()
        count = low + below(word_0, (high - low + 1).clamp(min=1))
    return holes(code, knob, seed, offset, index, hole_stream, count, height, width, words)


def mixed_region(
    code: int, knob: Tensor, drawn_lam: Tensor, given_lam: bool, box: Tensor | None, word_u: Tensor, word_v: Tensor,
    word_y: Tensor, word_x: Tensor, region_words: tuple[Tensor, ...], height: int, width: int,
) -> tuple[list[Tensor], Tensor]:  # fmt: skip
    """Slots of a method that mixes, and lam as the region leaves it."""
    method, total = method_of(code), float(height * width)
    if method in (METHOD_CUTMIX, METHOD_RESIZEMIX):
        if box is not None:
            slots = [edge.long() for edge in box.unbind(1)]
        elif method == METHOD_CUTMIX and codes.has_flag(code, codes.FLAG_MINMAX):
            slots = []
            for side, word_side, word in ((height, word_u, word_y), (width, word_v, word_x)):
                low, high = (knob[KNOB_B] * side).long(), (knob[KNOB_C] * side).long()
                cut = low + below(word_side, (high - low).clamp(min=1))
                start = below(word, side - cut + 1)
                slots += [start, start + cut]
            slots = [slots[0], slots[2], slots[1], slots[3]]
        else:
            ratio = sqrt(1 - drawn_lam)
            if method == METHOD_RESIZEMIX and not given_lam:
                ratio = between(word_u, knob[KNOB_A], knob[KNOB_B])
            (y0, y1), (x0, x1) = cut_side(ratio, word_y, height), cut_side(ratio, word_x, width)
            slots = [y0, x0, y1, x1]
        y0, x0, y1, x1 = slots
        kept = (height * width - (y1 - y0) * (x1 - x0)).float() / number(total, drawn_lam)
        exact = method == METHOD_RESIZEMIX or codes.has_flag(code, codes.FLAG_CORRECT)
        return slots, kept if exact else drawn_lam
    if method == METHOD_GRIDMIX:
        n = count_of(code)
        cell_height, cell_width = (torch.full_like(word_u, -(-side // n)) for side in (height, width))
        share = ((1 - drawn_lam) * 2.0**24).long()
        slots = [cell_height, cell_width, region_words[0], share]
        taken, area = chosen_cells(slots, height, width)
        return slots, (height * width - (taken * area).flatten(1).sum(1)).float() / number(total, drawn_lam)
    if method == METHOD_SMOOTHMIX:
        row, column = below(region_words[0], height), below(region_words[1], width)
        sigma = between(region_words[2], knob[KNOB_A], knob[KNOB_B])
        wide = [bell_width(sigma, side) for side in (height, width)]
        means = []
        for centre, inverse, side in zip((row, column), wide, (height, width), strict=True):
            distance = torch.arange(side, device=row.device) - centre[:, None]
            means.append(bell_share(bell(distance, inverse[:, None]), side))
        return [row, column, *(as_bits(inverse) for inverse in wide)], 1 - means[0] * means[1]
    if method == METHOD_FMIX:
        kept = torch.floor(drawn_lam * total + unit(word_x)).long().clamp(max=height * width)
        return [kept, *no_boxes(word_u, 1)[:3]], kept.float() / number(total, drawn_lam)
    assert method == METHOD_MIXUP
    return no_boxes(word_u, 1), drawn_lam


def chosen_cells(slots: list[Tensor], height: int, width: int) -> tuple[Tensor, Tensor]:
    """Which cells of a grid are chosen, bool [B, rows, columns], and their pixels; all samples with the same cells."""
    cell_height, cell_width = int(slots[0][0]), int(slots[1][0])
    down, across = torch.arange(0, height, cell_height), torch.arange(0, width, cell_width)
    y, x = pixels(len(down), len(across), slots[2])
    one = torch.ones_like(slots[2])
    taken = inside_cells(columns([one, one, slots[2], slots[3]]), y, x, len(across))
    return taken, (height - down).clamp(max=cell_height)[:, None] * (width - across).clamp(max=cell_width)


def columns(slots: list[Tensor]) -> list[Tensor]:
    """Slots [B] as [B, 1, 1], to be held against pixels."""
    return [slot[:, None, None] for slot in slots]


def pixels(height: int, width: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Row numbers [H, 1] and column numbers [W]."""
    return torch.arange(height, device=like.device)[:, None], torch.arange(width, device=like.device)


def padded(slots: list[Tensor], size: int) -> Tensor:
    return torch.stack([*slots, *(torch.zeros_like(slots[0]) for _ in range(size - len(slots)))], 1)


def draw_family(
    recipe: Recipe,
    knobs: Tensor,
    batch: int,
    height: int,
    width: int,
    seed: int,
    offset: int,
    sample_offset: int = 0,
    *,
    lam: Tensor | None = None,
    box: Tensor | None = None,
    partner: Tensor | None = None,
    words: Words = philox_words,
) -> FamilyDraw:
    """Draws every sample's method, lam, partner and regions, on the CPU; what the caller gave is not drawn.

    knobs: float32 [choices + 1, KNOBS], the last row that of what is erased. `words` may be a faster Philox.
    """
    knobs = knobs.cpu()
    i = torch.arange(batch)
    mate = mates(recipe, seed, offset, sample_offset, batch, partner, words)
    sample = sample_offset + (torch.minimum(i, mate) if recipe.mode == MODE_PAIR else i)
    if recipe.mode == MODE_BATCH:
        sample = torch.zeros_like(i)
    apply, key, word_u, word_v = words(seed, offset, sample, rng.STREAM_SAMPLE)
    if any(method_of(c) != METHOD_NONE and not codes.drops(method_of(c)) for c in recipe.choices):
        word_y, word_x, _, _ = words(seed, offset, sample, rng.STREAM_BOX)
        region_words = words(seed, offset, sample, rng.STREAM_REGION)
    given = None if lam is None else lam.cpu().float().expand(batch).clamp(0, 1)

    method, new_lam = torch.zeros_like(i), torch.ones(batch)
    slots, code = torch.zeros(batch, recipe.slots, dtype=torch.int64), torch.zeros_like(i)
    for k in reversed(range(len(recipe.choices))):  # the first edge above the word is written last
        choice, knob = recipe.choices[k], knobs[k]
        here = unit(apply) < knob[KNOB_EDGE]
        if method_of(choice) == METHOD_NONE:
            drawn, this_lam, mixes = no_boxes(i, 1), torch.ones(batch), False
        elif codes.drops(method_of(choice)):
            streams = rng.STREAM_REGION, rng.STREAM_HOLES
            drawn = dropped_region(choice, knob, seed, offset, sample, streams, height, width, words)
            this_lam, mixes = torch.ones(batch), False
        else:
            drawn_lam = symmetric_beta(word_u, word_v, knob[KNOB_A].expand(batch)) if given is None else given
            drawn, this_lam = mixed_region(
                choice, knob, drawn_lam, given is not None, box if box is None else box.cpu(), word_u, word_v, word_y,
                word_x, region_words, height, width,
            )  # fmt: skip
            mixes = True
        applied = here & (mate != i) if mixes else here  # a sample left alone is not mixed
        empty = here & ~applied
        method = torch.where(here, torch.where(applied, method_of(choice), METHOD_NONE), method)
        new_lam = torch.where(here, torch.where(applied, this_lam, 1.0), new_lam)
        slots = torch.where(applied[:, None], padded(drawn, recipe.slots), torch.where(empty[:, None], 0, slots))
        code = torch.where(here, torch.where(applied, codes.row_code(choice, k), 0), code)
    mixed = (method != METHOD_NONE) & ~drops(method)
    region = Region(slots, torch.where(method == METHOD_NONE, 0, key), code)

    erased = None
    if recipe.erase:
        index, knob = sample_offset + i, knobs[len(recipe.choices)]
        apply, key, _, _ = words(seed, offset, index, rng.STREAM_ERASE)
        here = unit(apply) < knob[KNOB_EDGE]
        streams = rng.STREAM_ERASE_REGION, rng.STREAM_ERASE_HOLES
        drawn = dropped_region(recipe.erase, knob, seed, offset, index, streams, height, width, words)
        row = codes.row_code(recipe.erase, len(recipe.choices))
        erased = Region(
            torch.where(here[:, None], padded(drawn, recipe.erase_slots), 0), torch.where(here, key, 0),
            torch.where(here, row, 0),
        )  # fmt: skip
    return FamilyDraw(method.int(), new_lam, torch.where(mixed, mate, i), mate, region, erased)


def drops(method: Tensor) -> Tensor:
    return (method >= METHOD_CUTOUT) & (method <= METHOD_HIDE)


def in_boxes(slots: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """True inside any of the boxes that the slots hold."""
    taken = torch.zeros(len(slots), y.shape[0], x.shape[0], dtype=torch.bool, device=slots.device)
    for k in range(0, slots.shape[1] - 3, 4):
        y0, x0, y1, x1 = columns(list(slots[:, k : k + 4].unbind(1)))
        taken = taken | ((y >= y0) & (y < y1) & (x >= x0) & (x < x1))
    return taken


def taken_by(region: Region, kinds: tuple[int, ...], height: int, width: int, field: Tensor | None) -> Tensor:
    """True where a region replaces the image: bool [B, H, W]. kinds: the codes that may occur."""
    y, x = pixels(height, width, region.code)
    method = (region.code & 0xFF)[:, None, None]
    taken = torch.zeros(len(region.code), height, width, dtype=torch.bool, device=region.code.device)
    for code in kinds:
        this, slots = method_of(code), columns(list(region.slots[:, : slots_of(code)].unbind(1)))
        if codes.boxed(this):
            found = in_boxes(region.slots[:, : slots_of(code)], y, x)
        elif this == METHOD_GRIDMASK:
            found = inside_grid(slots, y, x, height, width)
        elif this in (METHOD_HIDE, METHOD_GRIDMIX):
            found = inside_cells(slots, y, x, width)
        elif this == METHOD_FMIX:
            assert field is not None
            found = field >= slots[0]
        else:
            continue
        taken = taken | (found & (method == this))
    return taken


def given_weight(drawn: FamilyDraw, recipe: Recipe, height: int, width: int) -> Tensor:
    """Weight of the partner where images are blended, 0 elsewhere: float32 [B, 1, 1] or [B, H, W]."""
    given = torch.where(drawn.method == METHOD_MIXUP, 1 - drawn.lam, 0.0)[:, None, None]
    if blends_softly(recipe):
        y, x = pixels(height, width, drawn.lam)
        share = soft_share(columns(list(drawn.region.slots[:, :4].unbind(1))), y, x)
        given = torch.where((drawn.method == METHOD_SMOOTHMIX)[:, None, None], share, given)
    return given


def blends_softly(recipe: Recipe) -> bool:
    return any(method_of(code) == METHOD_SMOOTHMIX for code in recipe.choices)


def blended(own: Tensor, other: Tensor, plan: FamilyDraw, recipe: Recipe) -> Tensor:
    """Mixup by lam, SmoothMix by a weight a pixel; the others' own images. own, other: float32 [B, ...]."""
    per_sample = -1, *[1] * (own.dim() - 1)
    value = lerp(own, other, torch.where(plan.method == METHOD_MIXUP, plan.lam, 1.0).view(per_sample))
    if blends_softly(recipe):
        soft = fma(other - own, given_weight(plan, recipe, *own.shape[2:])[:, None], own)
        value = torch.where((plan.method == METHOD_SMOOTHMIX).view(per_sample), soft, value)
    return value


def resized(other: Tensor, region: Region, bilinearly: bool) -> Tensor:
    """Each sample's partner, whole, shrunk into the sample's box; anything outside it. other: float32 [B, C, H, W]."""
    height, width = other.shape[2:]
    y, x = pixels(height, width, other)
    y0, x0, y1, x1 = columns(list(region.slots[:, :4].unbind(1)))
    sample = torch.arange(len(other), device=other.device)[:, None, None]

    def pick(row: Tensor, column: Tensor) -> Tensor:
        return other[sample, :, row, column].permute(0, 3, 1, 2)  # [B, H, W, C] -> [B, C, H, W]

    if not bilinearly:
        return pick(nearest(y - y0, y1 - y0, height), nearest(x - x0, x1 - x0, width))
    top, bottom, down = bilinear(y - y0, y1 - y0, height)
    left, right, across = bilinear(x - x0, x1 - x0, width)
    across, down = across[:, None], down[:, None]
    upper, lower = pick(top, left), pick(bottom, left)
    upper = upper + across * (pick(top, right) - upper)
    lower = lower + across * (pick(bottom, right) - lower)
    return upper + down * (lower - upper)


def noise_of(code: int, key: int, shape: torch.Size, words: Words = philox_words) -> Tensor:
    """Standard normal noise of one sample, the same in a channel or of each pixel's own: float32 [C, H, W]."""
    channels, height, width = shape
    if codes.noise_kind(code) == NOISE_PIXEL:
        return normal(key, torch.arange(channels * height * width), words).view(channels, height, width)
    return normal(key, torch.arange(channels), words)[:, None, None].expand(channels, height, width)


def fill_of(region: Region, fill: Tensor, shape: torch.Size, words: Words = philox_words) -> Tensor:
    """What a dropped region is filled with: float32 [B, C, 1, 1], or [B, C, H, W] where there is noise.

    fill: float32 [rows, 2, C], value and sigma. shape: [C, H, W].
    """
    value, sigma = fill[region.code >> ROW_SHIFT].unbind(1)  # [B, C]
    value, sigma = value[:, :, None, None], sigma[:, :, None, None]
    noisy = torch.nonzero(region.code >> codes.NOISE_SHIFT & 3)[:, 0].tolist()
    if not noisy:
        return value
    value = value.expand(-1, *shape).clone()
    for n in noisy:
        noise = noise_of(int(region.code[n]), int(region.key[n]), shape, words)
        value[n] = fma(noise, sigma[n].expand(shape), value[n])
    return value


def mix_family(
    x: Tensor,
    target: Tensor | None,
    recipe: Recipe,
    knobs: Tensor,
    seed: int = 0,
    offset: int = 0,
    sample_offset: int = 0,
    *,
    fill: Tensor | None = None,
    field: Tensor | None = None,
    norm: Tensor | None = None,
    plan: FamilyDraw | None = None,
    lam: Tensor | None = None,
    box: Tensor | None = None,
    partner: Tensor | None = None,
    out_dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor | None, FamilyDraw]:
    """As `mix`, for a recipe with choices. fill: float32 [choices + 1, 2, C]; field: int32 [B, H, W] (FMix's ranks)."""
    height, width = (x.shape[2], x.shape[3]) if recipe.has_box else (1, 1)
    if plan is None:
        plan = draw_family(
            recipe, knobs, len(x), height, width, seed, offset, sample_offset, lam=lam, box=box, partner=partner
        )
    own = x.float()
    value = apply_family(own, own[plan.partner], plan, recipe, fill, field)
    out = finished(value, norm, out_dtype or x.dtype)
    return out, mixed_target(target, recipe, plan.partner, plan.lam), plan


def apply_family(
    own: Tensor, other: Tensor, plan: FamilyDraw, recipe: Recipe, fill: Tensor | None, field: Tensor | None,
    words: Words = philox_words,
) -> Tensor:  # fmt: skip
    """The mixed images before they are normalised. own, other: float32 [B, ...]; other: the partners' images."""
    value = blended(own, other, plan, recipe)
    if not recipe.has_box:
        return value
    height, width = own.shape[2:]
    taken = taken_by(plan.region, recipe.choices, height, width, field)[:, None]
    filling = other
    if recipe.resizes:
        bilinearly = any(codes.has_flag(code, codes.FLAG_BILINEAR) for code in recipe.choices)
        shrunk = resized(other, plan.region, bilinearly)
        filling = torch.where((plan.method == METHOD_RESIZEMIX)[:, None, None, None], shrunk, other)
    if any(codes.drops(method_of(code)) for code in recipe.choices):
        assert fill is not None
        constant = fill_of(plan.region, fill, own.shape[1:], words)
        filling = torch.where(drops(plan.method)[:, None, None, None], constant, filling)
    value = torch.where(taken, filling, value)
    if plan.erased is not None:
        assert fill is not None
        taken = taken_by(plan.erased, (recipe.erase,), height, width, None)[:, None]
        value = torch.where(taken, fill_of(plan.erased, fill, own.shape[1:], words), value)
    return value


def adjoint_family(grad: Tensor, plan: FamilyDraw, recipe: Recipe, field: Tensor | None) -> Tensor:
    """Gradient of the images: what each kept of itself, and what its partners took from it. grad: float32 [B, ...]."""
    if not recipe.has_box:
        given = given_weight(plan, recipe, 1, 1).view(-1, *[1] * (grad.dim() - 1))
        return weighed(1 - given, grad).index_add(0, plan.partner, weighed(given, grad))
    height, width = grad.shape[2:]
    given = given_weight(plan, recipe, height, width).expand(-1, height, width)
    taken = taken_by(plan.region, recipe.choices, height, width, field)
    shrunk = taken & (plan.method == METHOD_RESIZEMIX)[:, None, None]
    copied = taken & ~drops(plan.method)[:, None, None] & ~shrunk
    kept, given = torch.where(taken, 0.0, 1 - given), torch.where(copied, 1.0, torch.where(taken, 0.0, given))
    if plan.erased is not None:
        erased = taken_by(plan.erased, (recipe.erase,), height, width, None)
        kept, given, shrunk = torch.where(erased, 0.0, kept), torch.where(erased, 0.0, given), shrunk & ~erased
    image = weighed(kept[:, None], grad).index_add(0, plan.partner, weighed(given[:, None], grad))
    if recipe.resizes:
        bilinearly = any(codes.has_flag(code, codes.FLAG_BILINEAR) for code in recipe.choices)
        spread = resized_adjoint(torch.where(shrunk[:, None], grad, 0.0), plan.region, bilinearly)
        image = image.index_add(0, plan.partner, spread)
    return image


def weighed(weight: Tensor, grad: Tensor) -> Tensor:
    """weight * grad; a weight of 0 takes nothing of an infinity."""
    return torch.where(weight == 0, 0.0, weight * grad)


def resized_adjoint(grad: Tensor, region: Region, bilinearly: bool) -> Tensor:
    """Gradient of the whole partner from that of its shrunk copy: [B, C, H, W] both."""
    batch, channels, height, width = grad.shape
    y, x = pixels(height, width, grad)
    y0, x0, y1, x1 = columns(list(region.slots[:, :4].unbind(1)))
    spread = torch.zeros(batch, channels, height * width, device=grad.device)

    def add(row: Tensor, column: Tensor, weight: Tensor | float) -> None:
        index = (row * width + column).flatten(1)[:, None].expand(-1, channels, -1)
        spread.scatter_add_(2, index, (weight * grad).flatten(2))

    if not bilinearly:
        add(nearest(y - y0, y1 - y0, height), nearest(x - x0, x1 - x0, width), 1.0)
    else:
        top, bottom, down = bilinear(y - y0, y1 - y0, height)
        left, right, across = bilinear(x - x0, x1 - x0, width)
        for row, vertical in ((top, 1 - down), (bottom, down)):
            for column, horizontal in ((left, 1 - across), (right, across)):
                add(row, column, (vertical * horizontal)[:, None])
    return spread.view_as(grad)


def pack(plan: FamilyDraw) -> Tensor:
    """The plan as one int32 [B, columns] tensor, as kernels write it."""
    parts = [plan.method[:, None].long(), as_bits(plan.lam)[:, None], plan.partner[:, None], plan.mate[:, None]]
    for region in (plan.region, plan.erased):
        if region is not None:
            parts += [region.slots, region.key[:, None], region.code[:, None]]
    return torch.cat(parts, 1).int()  # words keep their bits


def unpack(packed: Tensor, recipe: Recipe) -> FamilyDraw:
    method, lam, partner, mate = packed[:, :4].unbind(1)
    regions, start = [], codes.PLAN_BOX
    for size in (recipe.slots, recipe.erase_slots):
        part = packed[:, start : start + size + 2].long()
        regions.append(Region(part[:, :size], part[:, size], part[:, size + 1]) if part.shape[1] else None)
        start += size + 2
    region, erased = regions
    assert region is not None
    return FamilyDraw(method, from_bits(lam), partner.long(), mate.long(), region, erased)
