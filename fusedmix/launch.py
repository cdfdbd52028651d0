"""Launches the Triton kernel on given tensors: the GPU implementation of the op."""

import math
from concurrent.futures import ThreadPoolExecutor
from functools import cache, reduce
from operator import or_
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from . import recipe as codes
from . import rng
from .kernels import config
from .kernels.augment import augment_kernel
from .kernels.family import family_kernel
from .kernels.mix import mix_kernel
from .layout import is_channels_last
from .recipe import BEYOND_EDGE, BEYOND_FILL, EXACT, PERMUTE, Geometry, Recipe, method_of, side_range, smoothed_on_off
from .reference.augment import brightest
from .reference.regions import grid_centre

INTERPRETED: bool = triton.knobs.runtime.interpret

TARGET_NONE, TARGET_ONE_HOT, TARGET_SOFT, TARGET_CLASS = range(4)  # as in kernels/mix.py
MAX_ROWS = 128
MAX_RANKED_ROWS = 4  # partners by rank hold [rows, keys] in registers
MAX_OFFSET = 2**31 - 2**16  # a tile may reach past the end of a sample
MAX_PREPARED = 4096
PAIR_REACH = 2.5  # columns of the source, from a pixel's place to the next one's; 3 and a rounding may be 4 bytes
MIN_TILES = 4  # of a program, below which its draws cost more than what columns share


class Prepared:
    """Everything about a launch that does not change from call to call with the same shapes and recipe."""

    __slots__ = ("compiled", "constants", "grid", "kernel", "numbers", "options")

    def __init__(
        self, kernel: Any, grid: tuple[int, int, int], numbers: tuple, constants: tuple, options: dict[str, Any]
    ):
        self.kernel, self.grid, self.numbers, self.constants, self.options = kernel, grid, numbers, constants, options
        self.compiled: Any = None  # the compiled kernel, once a first launch has returned it


class Shape(NamedTuple):
    """The part of a launch's key that follows from the tensors."""

    recipe: Recipe
    replay: bool
    x_shape: torch.Size
    x_stride: int
    x_dtype: torch.dtype
    out_stride: int
    out_dtype: torch.dtype
    x_last: bool
    out_last: bool
    in_place: bool
    target_shape: torch.Size | None
    target_dtype: torch.dtype | None
    has_plan: bool
    has_norm: bool
    has_lam: bool
    has_box: bool
    has_partner: bool
    device: int
    geometry: Geometry | None = None  # of FusedAugment, whose `has_lam` says whether it is given a mean gray
    on_words: bool = False  # images begin on 4 bytes


def cdiv(a: int, b: int) -> int:
    return -(-a // b)


def target_form(recipe: Recipe, target_shape: torch.Size | None) -> tuple[int, int]:
    """What the row programs write, and how many columns."""
    if target_shape is None:
        return TARGET_NONE, 1
    if len(target_shape) == 2:
        return TARGET_SOFT, target_shape[1]
    return (TARGET_ONE_HOT, recipe.num_classes) if recipe.num_classes else (TARGET_CLASS, 1)


def prepare(shape: Shape, launch: config.Launch | None = None, arch: int | None = None) -> Prepared:
    """Grid, numbers and compile-time constants of a launch. launch: instead of the table's; arch: see `arch_of`."""
    recipe, arch = shape.recipe, arch_of(shape.device) if arch is None else arch
    elements = math.prod(shape.x_shape[1:])
    itemsizes = shape.x_dtype.itemsize, shape.out_dtype.itemsize
    most = most_elements(recipe)
    heavy, at_once = is_heavy(recipe), 0
    if launch is None:
        vectors = 2 if fits_two_vectors(shape) else 1
        launch = config.launch_for(elements, *itemsizes, warp_size(arch), most, images_of(recipe), heavy, vectors)
        at_once = programs_at_once(shape.device, launch, heavy)

    row = shape.x_shape[-1] * (shape.x_shape[1] if shape.out_last else 1)
    layout = layout_of(shape, launch, elements, row if recipe.choices else 0, at_once=at_once)
    transpose = 0 if shape.x_last == shape.out_last else (1 if shape.out_last else 2)
    by_channel = shape.has_norm or transpose != 0 or (shape.out_last and recipe.has_box) or bool(recipe.choices)
    channels = shape.x_shape[1] if by_channel else 1
    pixels = elements // max(channels, 1) if by_channel else 1
    height, width = shape.x_shape[2:4] if recipe.has_box else (1, 1)
    align = alignment(shape, elements, elements)
    lo_h, count_h = side_range(recipe.minmax_lo, recipe.minmax_hi, height)
    lo_w, count_w = side_range(recipe.minmax_lo, recipe.minmax_hi, width)

    sizes = sizes_of(shape, layout, align, elements)
    constants = dict(
        ALIGN=align, C=channels, H=height, W=width, PIXELS=max(pixels, 1),
        SKIP=shape.in_place and not shape.has_norm, TRANSPOSE=transpose,
        VEC=config.vector_elements(elements, max(itemsizes), most), **layout.constants,
    )  # fmt: skip
    numbers: tuple[float, ...]
    if recipe.choices:
        kernel, numbers = family_kernel, (*sizes, *layout.smoothed)
        constants.update(family_constants(recipe, height, width), COLUMNS=recipe.columns, PTX=ptx_of(arch))
    else:
        kernel = mix_kernel
        numbers = (*sizes, recipe.mixup_alpha, recipe.cutmix_alpha, recipe.p, recipe.switch_prob, *layout.smoothed)
        constants.update(
            HAS_MIXUP=recipe.has_mixup, HAS_BOX=recipe.has_box, CORRECT_LAM=recipe.correct_lam,
            HAS_MINMAX=recipe.minmax_hi >= 0, LO_H=lo_h, COUNT_H=count_h, LO_W=lo_w, COUNT_W=count_w,
            ADJOINT=recipe.adjoint, ON_WORDS=shape.on_words and align % 4 == 0,
        )  # fmt: skip
    return prepared_of(kernel, layout, numbers, constants, launch, registers_for(heavy), arch)


class Layout(NamedTuple):
    """How a launch divides into programs: those for rows of targets and plan, then those for images."""

    row_programs: int
    sample_programs: int  # a sample
    grid: tuple[int, int, int]
    smoothed: tuple[float, float, float]  # on, off, keep
    constants: dict[str, Any]


def layout_of(
    shape: Shape, launch: config.Launch, elements: int, row: int, tall: int = 0, at_once: int = 0
) -> Layout:  # fmt: skip
    """elements: those of a sample of the result that programs walk over, in rows of `row` (0: of any length).

    tall: rows of tiles that are rectangles, which programs walk from one to that below it. at_once: programs that the
    GPU runs at a time; 0: as many tiles a program as `launch` says.
    """
    recipe, batch = shape.recipe, shape.x_shape[0]
    form, columns = target_form(recipe, shape.target_shape)
    block_k = min(triton.next_power_of_2(max(columns, 1)), 1024)
    ranked = recipe.pairing in (EXACT, PERMUTE) and not shape.replay
    rows = max(1, launch.row_elements // block_k)
    rows = min(MAX_RANKED_ROWS if ranked else MAX_ROWS, rows, triton.next_power_of_2(max(batch, 1)))
    writes_plan = shape.has_plan and not shape.replay
    row_programs = cdiv(batch, rows) * cdiv(columns, block_k) if writes_plan or form != TARGET_NONE else 0

    by_pair = recipe.is_paired and recipe.pairing != EXACT and not shape.replay  # else the lower sample owns the pair
    if tall:
        stride = cdiv(row, launch.block // tall)
        tiles = stride * cdiv(elements, row * tall)
    else:
        tiles = cdiv(elements, launch.block)
        stride = tile_stride(row, launch.block, tiles)
    each = launch.tiles
    if at_once:
        each = config.tiles_for(launch, tiles * (cdiv(batch, 2) if recipe.is_paired else batch), at_once)
    sample_programs = stride * cdiv(tiles, stride * each)
    image_programs = (cdiv(batch, 2) if by_pair else batch) * sample_programs
    on, off = smoothed_on_off(recipe.smoothing, columns if form in (TARGET_ONE_HOT, TARGET_SOFT) else 0)
    constants = dict(
        K=max(columns, 1), KIND=recipe.pairing, MODE=recipe.mode, REPLAY=shape.replay, PAIRED=recipe.is_paired,
        OUT_LAST=shape.out_last, TARGET=form, BLOCK=launch.block, TILES=cdiv(tiles, max(sample_programs, 1)), ROWS=rows,
        BLOCK_K=block_k, INTERPRETED=INTERPRETED,
    )  # fmt: skip
    if row:
        constants["STRIDE"] = stride
    grid = row_programs + image_programs, 1, 1
    return Layout(row_programs, max(sample_programs, 1), grid, (on, off, 1.0 - recipe.smoothing), constants)


def tile_stride(row: int, block: int, tiles: int) -> int:
    """Tiles from one of a program's to its next: so many that all of them have the same columns, if samples are tall.

    What a method computes from columns alone is then computed once.
    """
    stride = row // math.gcd(row, block) if row else 1
    walked = (
        tiles + (8 * config.MAX_TILES + 1) * stride
    ) * block  # at most, the last programs' tiles past the end with it
    return stride if tiles >= MIN_TILES * stride and walked < 2**31 else 1


def alignment(shape: Shape, unit: int, largest: int) -> int:
    """What `unit` and the strides of samples are multiples of, up to 16. Refuses what 31 bits don't reach."""
    batch, columns = shape.x_shape[0], shape.recipe.columns + (shape.geometry.columns if shape.geometry else 0)
    strides = shape.x_stride, shape.out_stride
    align = math.gcd(16, unit, *(strides if batch > 1 else ()))
    if largest > MAX_OFFSET or max(strides) // align > MAX_OFFSET:
        raise ValueError(f"x: offsets within a sample must fit 31 bits, got samples of {largest} elements")
    if shape.has_plan and batch * columns > MAX_OFFSET:
        raise ValueError(f"x: at most {MAX_OFFSET // columns} samples here, got {batch}")
    return align


def sizes_of(shape: Shape, layout: Layout, align: int, elements: int) -> tuple[int, ...]:
    """The kernels' first numbers. elements: those of a sample of the result that programs walk over."""
    units = shape.x_stride // align, shape.out_stride // align, elements // align
    return shape.x_shape[0], layout.row_programs, layout.sample_programs, *units


def prepared_of(
    kernel: Any,
    layout: Layout,
    numbers: tuple,
    constants: dict[str, Any],
    launch: config.Launch,
    registers: int,
    arch: int,
) -> Prepared:
    names = kernel.arg_names
    ordered = tuple(constants[name] for name in names[names.index("ALIGN") :])
    options = {"num_warps": launch.num_warps, "enable_fp_fusion": False}
    if arch:
        options["maxnreg"] = registers
    return Prepared(kernel, layout.grid, numbers, ordered, options)


def most_elements(recipe: Recipe) -> int:
    """Elements of a thread that leave registers for what the recipe computes (tests/test_codegen.py: no spills)."""
    methods = {method_of(code) for code in recipe.choices}
    if methods <= {codes.METHOD_CUTOUT, codes.METHOD_ERASING} and not recipe.erase and not noises(recipe):
        return 16  # none, or boxes to be filled
    return 4 if codes.any_bilinear(recipe.choices) and (len(recipe.choices) > 1 or recipe.erase) else 8


def fits_two_vectors(shape: Shape) -> bool:
    """Whether threads have registers for two vectors of each sample: where vectors share what is computed for them."""
    recipe = shape.recipe
    by_channel = shape.has_norm or bool(recipe.choices)  # where an element lies then takes registers
    gathers = codes.METHOD_RESIZEMIX in map(method_of, recipe.choices)
    vector = config.VECTOR_BYTES // max(shape.x_dtype.itemsize, shape.out_dtype.itemsize)
    whole = math.prod(shape.x_shape[2 if by_channel else 1 :]) % vector == 0
    in_order = shape.x_last == shape.out_last and not (by_channel and shape.out_last)
    return whole and in_order and not gathers and not is_heavy(recipe)


def images_of(recipe: Recipe) -> int:
    """Images that a program of it writes at the most."""
    return 1 if recipe.choices and not codes.any_mixes(recipe.choices) else 2


def is_heavy(recipe: Recipe) -> bool:
    """True for long lists, whose parameters take more registers than a tile."""
    return len(recipe.choices) > 4


def registers_for(heavy: bool) -> int:
    return config.HEAVY_REGISTERS if heavy else config.MAX_REGISTERS


def noises(recipe: Recipe) -> int:
    """The kinds of noise it may fill with, joined by or."""
    return reduce(or_, (codes.noise_kind(code) for code in (*recipe.choices, recipe.erase)))


def family_constants(recipe: Recipe, height: int, width: int) -> dict[str, Any]:
    """What the family's kernel must be able to do."""
    methods = [method_of(code) for code in recipe.choices]
    return dict(
        CHOICES=recipe.choices, N=len(recipe.choices), ERASE=recipe.erase, ERASED=(recipe.erase,), SLOTS=recipe.slots,
        ERASE_SLOTS=recipe.erase_slots, SOFT=codes.METHOD_SMOOTHMIX in methods,
        BLENDS=codes.METHOD_MIXUP in methods, DROPS=any(codes.drops(method) for method in methods),
        MIXES=codes.any_mixes(recipe.choices),
        CENTRE=grid_centre(height, width),
    )  # fmt: skip


def has_rectangles(shape: Shape) -> bool:
    """Whether FusedAugment's tiles are rectangles: of bytes between which values are interpolated."""
    geometry, (height, width) = shape.geometry, shape.x_shape[2:]
    assert geometry is not None
    between = geometry.bilinear and geometry.beyond in (BEYOND_EDGE, BEYOND_FILL)
    fits = (geometry.height + config.WALKED_PIXELS) * geometry.width < 2**31  # the last program's rows past the end
    return between and fits and shape.x_dtype == torch.uint8 and height > 1 and width > 1


def walks_rows(shape: Shape) -> bool:
    """Whether FusedAugment's programs walk down the rows of a result: crops that are resized, not turned."""
    geometry = shape.geometry
    assert geometry is not None
    return has_rectangles(shape) and not geometry.turns and geometry.beyond == BEYOND_EDGE


def reads_pairs(shape: Shape, vector: int) -> bool:
    """Whether programs that walk down rows read two pixels' neighbours by words: they lie in two, so close they are."""
    geometry, width = shape.geometry, shape.x_shape[3]
    assert geometry is not None
    whole = width % 4 == 0 and width >= 8 and shape.on_words and shape.x_stride % 4 == 0
    return whole and not shape.x_last and vector % 2 == 0 and width <= PAIR_REACH * geometry.width


def prepare_augment(shape: Shape, launch: config.Launch | None = None, arch: int | None = None) -> Prepared:
    """As `prepare`, for FusedAugment: programs walk over pixels, with all their channels."""
    recipe, geometry = shape.recipe, shape.geometry
    arch = arch_of(shape.device) if arch is None else arch
    assert geometry is not None
    channels, in_height, in_width = shape.x_shape[1:]
    pixels, source_pixels = geometry.height * geometry.width, in_height * in_width
    itemsize = max(shape.x_dtype.itemsize, shape.out_dtype.itemsize)
    family = family_constants(recipe, geometry.height, geometry.width)
    most = 4 if geometry.bilinear or geometry.color or family["MIXES"] or is_heavy(recipe) else 8
    warp, walks = warp_size(arch), walks_rows(shape)
    heavy = is_heavy(recipe) or geometry.color or walks or (geometry.bilinear and family["MIXES"])
    tilts = geometry.turns and has_rectangles(shape)
    vector = config.vector_elements(geometry.width if walks or tilts else pixels, itemsize, most)
    given = launch is not None
    if launch is None and walks:
        least = 4 if noises(recipe) else 1  # noise is drawn by fours
        launch, vector = config.walk_for(geometry.width, warp, images_of(recipe), least, geometry.color, itemsize)
    elif launch is None:
        few = heavy or geometry.bilinear
        launch = config.launch_for(pixels, itemsize, itemsize, warp, most, images_of(recipe), few, vectors=1)
    at_once = 0 if given else programs_at_once(shape.device, launch, heavy)
    vector = min(vector, launch.block)
    tall = config.rectangle_for(geometry.width, launch.block, vector) if tilts else int(walks)
    layout = layout_of(shape, launch, pixels, geometry.width, tall, at_once)
    align = alignment(shape, pixels, channels * max(pixels, source_pixels))
    sizes = sizes_of(shape, layout, align, pixels)
    ptx = ptx_of(arch)
    constants = dict(
        ALIGN=align, C=channels, IN_H=in_height, IN_W=in_width, H=geometry.height, W=geometry.width,
        FAMILY_COLUMNS=recipe.columns, COLUMNS=recipe.columns + geometry.columns, CROP=geometry.crop,
        BOX=(geometry.box_y, geometry.box_x, geometry.box_height, geometry.box_width),
        BEYOND=geometry.beyond, LIMITED=geometry.limited, BILINEAR=geometry.bilinear, FLIPS=geometry.flips,
        TURNS=geometry.turns, COLOR=geometry.color, MOST=brightest(shape.x_dtype), IN_LAST=shape.x_last,
        VEC=vector, TALL=tall, WALKS=walks, PAIRS=walks and reads_pairs(shape, vector), PTX=ptx,
        PREFETCHES=walks and ptx > 0,
        **family, **layout.constants,
    )  # fmt: skip
    numbers = (*sizes, *layout.smoothed)
    pastes = {method_of(code) for code in recipe.choices} <= {codes.METHOD_CUTMIX, codes.METHOD_MIXUP}
    plain = walks and pastes and channels <= 3 and not (recipe.erase or geometry.color)
    registers = config.WALKED_REGISTERS if plain else registers_for(heavy)
    return prepared_of(augment_kernel, layout, numbers, constants, launch, registers, arch)


@cache
def arch_of(device: int) -> int:
    """Ten times the compute capability of an NVIDIA GPU, 0 of others; without one, of the first that Triton knows."""
    if torch.version.hip is not None:
        return 0
    major, minor = torch.cuda.get_device_capability(device) if device >= 0 else (8, 0)
    return 10 * major + minor


def ptx_of(arch: int) -> int:
    """For which GPUs a kernel may hold PTX; 0: for none."""
    return 0 if INTERPRETED else arch


def warp_size(arch: int) -> int:
    return 32 if arch else 64


@cache
def multiprocessors(device: int) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count


def programs_at_once(device: int, launch: config.Launch, heavy: bool) -> int:
    """Programs that a GPU runs at a time, about; 0 where there is none."""
    warps = config.HEAVY_WARPS if heavy else config.WARPS
    return multiprocessors(device) * max(warps // launch.num_warps, 1) if device >= 0 else 0


_prepared: dict[Shape, Prepared] = {}


@cache
def unused_state(device: torch.device) -> Tensor:
    """Stands in for `state` where seed and offset are numbers, so that a captured call runs the kernel of eager ones.

    Loading a kernel during a capture is an error, and `state is None` would be a kernel of its own.
    """
    return torch.zeros(2, dtype=torch.int64, device=device)


@cache
def normal_table(device: torch.device) -> Tensor:
    """`rng.normal_table` on a device.

    Copied by a thread of its own: what the warm-up of a CUDA graph allocates is the graph's, for others to write to.
    """
    with ThreadPoolExecutor(1) as apart:
        return apart.submit(rng.normal_table().to, device).result()


@cache
def unused_knobs(device: torch.device) -> Tensor:
    """Stands in for the knobs where a plan is replayed: triton compiles what would read them behind a return, too."""
    return torch.zeros(1, device=device)


def family_pointers(
    extras: tuple[Tensor | None, ...], recipe: Recipe, device: torch.device
) -> tuple[Tensor | None, ...]:  # fmt: skip
    """The last pointers of a kernel of the family."""
    knobs, *others = extras
    knobs = unused_knobs(device) if knobs is None else knobs
    return knobs, *others, normal_table(device) if noises(recipe) else None


def mix_into(
    out: Tensor,
    target_out: Tensor | None,
    plan: Tensor | None,
    x: Tensor,
    target: Tensor | None,
    norm: Tensor | None,
    lam: Tensor | None,
    box: Tensor | None,
    partner: Tensor | None,
    state: Tensor | None,
    seed: int,
    offset: int,
    sample_offset: int,
    recipe: Recipe,
    replay: bool,
    extras: tuple[Tensor | None, ...] = (),
    launch: config.Launch | None = None,
) -> None:
    """One launch that fills `out`, `target_out` and, unless `replay`, `plan`; see `ops.mix` for the arguments.

    x and out: samples dense, [B, ...] in either layout; the others contiguous. `launch` overrides the launch table.
    """
    shape = Shape(
        recipe, replay, x.shape, x.stride(0), x.dtype, out.stride(0), out.dtype, is_channels_last(x),
        is_channels_last(out), out is x, None if target is None else target.shape,
        None if target is None else target.dtype, plan is not None, norm is not None, lam is not None, box is not None,
        partner is not None, x.get_device(), None, x.dtype == torch.uint8 and (x.data_ptr() | out.data_ptr()) % 4 == 0,
    )  # fmt: skip
    if recipe.choices and not replay and extras[0] is None:
        raise ValueError("knobs are missing: a recipe with choices needs their numbers")
    pointers: tuple[Tensor | None, ...] = (x, out, target, target_out, plan, lam, box, partner, norm)
    extras = family_pointers(extras, recipe, x.device) if recipe.choices else ()
    run(prepared_for(shape, launch), x, pointers, state, seed, offset, sample_offset, extras)


def augment_into(
    out: Tensor,
    target_out: Tensor | None,
    plan: Tensor | None,
    x: Tensor,
    target: Tensor | None,
    norm: Tensor | None,
    gray: Tensor | None,
    partner: Tensor | None,
    state: Tensor | None,
    seed: int,
    offset: int,
    sample_offset: int,
    recipe: Recipe,
    geometry: Geometry,
    replay: bool,
    extras: tuple[Tensor | None, ...],
    launch: config.Launch | None = None,
) -> None:
    """One launch that fills `out`, `target_out` and, unless `replay`, `plan`; see `ops.augment` for the arguments."""
    shape = Shape(
        recipe, replay, x.shape, x.stride(0), x.dtype, out.stride(0), out.dtype, is_channels_last(x),
        is_channels_last(out), False, None if target is None else target.shape,
        None if target is None else target.dtype, plan is not None, norm is not None, gray is not None, False,
        partner is not None, x.get_device(), geometry, x.dtype == torch.uint8 and x.data_ptr() % 4 == 0,
    )  # fmt: skip
    pointers = (x, out, target, target_out, plan, gray, partner, norm)
    extras = family_pointers(extras, recipe, x.device)
    run(prepared_for(shape, launch), x, pointers, state, seed, offset, sample_offset, extras)


def prepared_for(shape: Shape, launch: config.Launch | None) -> Prepared:
    """Prepared once per shape, unless the launch table is overridden."""
    found = _prepared.get(shape) if launch is None else None
    if found is None:
        found = (prepare if shape.geometry is None else prepare_augment)(shape, launch)
        if launch is None:
            if len(_prepared) >= MAX_PREPARED:  # sizes that never come again
                _prepared.clear()
            _prepared[shape] = found
    return found


def run(
    prepared: Prepared, x: Tensor, tensors: tuple[Tensor | None, ...], state: Tensor | None, seed: int, offset: int,
    sample_offset: int, extras: tuple[Tensor | None, ...],
) -> None:  # fmt: skip
    """Launches a prepared kernel on x's device: given tensors, state, more tensors, then the numbers."""
    if prepared.grid[0] == 0:
        return
    has_state = int(state is not None)
    if INTERPRETED and not has_state:  # it widens some 32-bit integers wrongly
        has_state, state = 1, torch.tensor([seed, offset])
    if state is None:
        state = unused_state(x.device)
    pointers = (*tensors, state, *extras)
    arguments = (*pointers, has_state, seed, offset, sample_offset, *prepared.numbers, *prepared.constants)
    if INTERPRETED:
        prepared.kernel[prepared.grid](*arguments)
        return
    aligned = True
    for pointer in pointers:
        if pointer is not None and pointer.data_ptr() % 16:
            aligned = False
    with torch.cuda.device_of(x):
        if aligned and prepared.compiled is not None:
            relaunch(prepared, x.get_device(), arguments)
        else:
            compiled = prepared.kernel[prepared.grid](*arguments, **prepared.options)
            if aligned:
                prepared.compiled = compiled


def relaunch(prepared: Prepared, device: int, arguments: tuple) -> None:
    """Launches a compiled kernel again, past Triton's argument inspection.

    The shape key and the 16-byte alignment of every pointer fix all that Triton specialises on, so the kernel that the
    first launch returned is the one it would pick again.
    """
    compiled = prepared.compiled
    stream = torch._C._cuda_getCurrentRawStream(device)
    hooks = triton.knobs.runtime
    if is_hooked(hooks.launch_enter_hook) or is_hooked(hooks.launch_exit_hook):  # a profiler listens
        compiled[prepared.grid](*arguments, stream=stream)
    else:
        compiled.run(*prepared.grid, stream, compiled.function, compiled.packed_metadata, None, None, None, *arguments)


def is_hooked(hook: Any) -> bool:
    return bool(getattr(hook, "calls", hook))
