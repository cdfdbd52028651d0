"""`native.c`, compiled once for this machine: draws and images of mixup and CutMix, of the family, of FusedAugment.

Without a C compiler, or with FUSEDMIX_NATIVE=0 in the environment, there is no library, and numpy and torch do the
same.
"""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fusedmix import recipe as recipes
from fusedmix import rng
from fusedmix.layout import is_channels_last, sample_is_dense
from fusedmix.recipe import BEYOND_FILL, FLAG_BILINEAR, Geometry, Recipe, has_flag, side_range
from fusedmix.reference.augment import AugmentDraw, Coloring, Placement, brightest
from fusedmix.reference.family import FamilyDraw

Array = NDArray

FOLDER = Path(__file__).parent
FLAGS = ("-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")
VECTORS = {"AVX2": "-march=x86-64-v3", "AVX512": "-march=x86-64-v4"}  # by what torch finds
OPENMP = "-fopenmp"  # its runtime is the one that torch has loaded: both share a pool of threads
COMPILE_SECONDS = 60
TYPES = {torch.uint8: 0, torch.float32: 1, torch.bfloat16: 2, torch.float16: 3}
COPIED = {1: 0, 4: 1, 2: 4}  # by bytes an element, where nothing is computed
NO_MEMORY = 1  # a status of native.c
ONE_THREAD = 1 << 18  # bytes of a batch below which waking a thread costs more than it saves
LARGE = 1 << 25  # bytes of a batch from which writing past the caches is faster


class Settings(ctypes.Structure):
    """As in draw.c."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("height", "width")),
        *((name, ctypes.c_int64 * 2) for name in ("least", "sides")),
        *((name, ctypes.c_int64) for name in ("mode", "has_box", "has_mixup", "correct_lam")),
        *((name, ctypes.c_float) for name in ("p", "switch_prob", "mixup_alpha", "cutmix_alpha")),
    )


class Regions(ctypes.Structure):
    """As in draw.c."""

    _fields_ = (*((name, ctypes.c_void_p) for name in ("slots", "key", "code")), ("count", ctypes.c_int64))


class Placing(ctypes.Structure):
    """As in place.c."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("x", "out")),
        *((name, ctypes.c_int) for name in ("in_type", "out_type")),
        *((name, ctypes.c_int64) for name in ("x_stride", "out_stride", "channels")),
        *((name, ctypes.c_int64) for name in ("in_height", "in_width", "height", "width")),
        *((name, ctypes.c_int) for name in ("in_last", "out_last")),
        *((name, ctypes.c_void_p) for name in ("map", "coloring", "fill", "norm", "limits")),
        *((name, ctypes.c_int) for name in ("beyond", "bilinear", "fades", "steps")),
        ("most", ctypes.c_float),
    )


class Draw(NamedTuple):
    """One row per sample, as the reference's `Draw`."""

    method: Array
    lam: Array
    partner: Array
    mate: Array
    box: Array  # int64 [B, 4]
    addresses: tuple[int | None, ...] | None = None  # of these columns, where `draw` made them; None for others


@functools.lru_cache(maxsize=256)
def settings_of(recipe: Recipe, height: int, width: int) -> Settings:
    ranges = [side_range(recipe.minmax_lo, recipe.minmax_hi, side) for side in (height, width)]
    least, sides = zip(*(ranges if recipe.minmax_hi >= 0 else [(0, 0)] * 2), strict=True)
    names = ("mode", "has_box", "has_mixup", "correct_lam", "p", "switch_prob", "mixup_alpha", "cutmix_alpha")
    return Settings(
        height=height, width=width, least=least, sides=sides, **{name: getattr(recipe, name) for name in names}
    )


@functools.cache
def library() -> ctypes.CDLL | None:
    """Compiled at the first call and kept in the user's cache folder."""
    if os.environ.get("FUSEDMIX_NATIVE") == "0":
        return None
    try:
        folder = cache_folder()
        if folder is not None:
            return load(folder)
        with tempfile.TemporaryDirectory() as private:
            return load(Path(private))
    except (OSError, subprocess.SubprocessError) as error:
        logging.getLogger(__name__).info("no native loops on this machine, numpy and torch work instead: %s", error)
        return None


def cache_folder() -> Path | None:
    """None where it can't be written or belongs to somebody else, whose code we don't run."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fusedmix"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return None
    ours = not hasattr(os, "getuid") or folder.stat().st_uid == os.getuid()
    return folder if ours and os.access(folder, os.W_OK) else None


def constants() -> str:
    """The numbers of recipe.py and rng.py as macros of C, real ones as float32."""

    def literal(value: Any) -> str:
        if isinstance(value, tuple):
            return "{" + ", ".join(map(literal, value)) + "}"
        return f"{float(np.float32(value)).hex()}f" if isinstance(value, float) else str(value)

    values = {name: value for module in (recipes, rng) for name, value in vars(module).items() if name.isupper()}
    numbers = {name: v for name, v in values.items() if isinstance(v[0] if isinstance(v, tuple) else v, int | float)}
    return "".join(f"#define {name} {literal(value)}\n" for name, value in numbers.items())


def load(folder: Path) -> ctypes.CDLL:
    """The library of this source, compiler and kind of processor; built if `folder` lacks it."""
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CC", "cc"), "gcc", "clang"))), None)
    if compiler is None:
        raise OSError("no C compiler")
    vectors = VECTORS.get(torch.backends.cpu.get_cpu_capability())
    choices = [*([(vectors, OPENMP)] if vectors else []), (OPENMP,), ()]
    sources = [path.read_text() for path in sorted(FOLDER.glob("*.[ch]"))]
    key = repr((sources, constants(), FLAGS, choices, compiler, platform.machine(), platform.libc_ver()))
    path = folder / f"native-{hashlib.sha256(key.encode()).hexdigest()[:16]}.so"
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=folder) as unfinished:  # renamed when whole: processes may race
            built = Path(unfinished) / path.name
            Path(unfinished, "constants.h").write_text(constants())
            for choice in choices:
                command = [compiler, *FLAGS, *choice, "-I", unfinished, str(FOLDER / "native.c"), "-o", str(built)]
                done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_SECONDS)
                if done.returncode == 0:
                    break
            else:
                raise OSError(done.stderr)
            os.replace(built, path)
    found = ctypes.CDLL(str(path))
    size, number, real, pointer = ctypes.c_int64, ctypes.c_int, ctypes.c_float, ctypes.c_void_p
    counter, images, flags = (ctypes.c_uint64, ctypes.c_uint64), (pointer, pointer, number, number), (number,) * 3
    functions: tuple[tuple[Any, Any, list[Any]], ...] = (
        (found.fusedmix_words, None, [*counter, size, pointer, pointer, size, number, pointer]),
        (found.fusedmix_draw, None, [pointer, *counter, size, size, number, *[pointer] * 7]),
        (found.fusedmix_mix, number, [*images, *[size] * 7, *[pointer] * 6, number, number]),
        (found.fusedmix_draw_family, None, [*counter, *[size] * 4, number, pointer, size, *[pointer] * 9]),
        (found.fusedmix_family, number, [*images, *[size] * 7, number, *[pointer] * 8, size, *[pointer] * 3, *flags]),
        (found.fusedmix_draw_place, None, [pointer, pointer, *counter, size, size, pointer, real, *[pointer] * 3]),
        (found.fusedmix_place, number, [pointer, pointer, size, number]),
        (found.fusedmix_ranks, number, [pointer, size, size, pointer, number]),
        (found.fusedmix_one_hot, number, [pointer, pointer, pointer, real, real, size, size, pointer, number]),
    )
    for function, result, arguments in functions:
        function.restype, function.argtypes = result, arguments
    return found


@functools.cache
def knows_halves(library: ctypes.CDLL) -> bool:
    return bool(ctypes.c_int.in_dll(library, "fusedmix_knows_halves").value)


def computes_with(library: ctypes.CDLL, *dtypes: torch.dtype) -> bool:
    return all(t in TYPES and (t != torch.float16 or knows_halves(library)) for t in dtypes)


def address(a: Any) -> int | None:
    """Where an array lies; three times as fast as numpy says it."""
    if a is None:
        return None
    try:
        return ctypes.addressof(ctypes.c_char.from_buffer(a))
    except (TypeError, ValueError):  # it can't be written, or is empty
        return a.ctypes.data


def threads_for(nbytes: int) -> int:
    return torch.get_num_threads() if nbytes >= ONE_THREAD else 1


def checked(status: int) -> bool:
    if status == NO_MEMORY:
        raise MemoryError("no memory for the block that is worked on")
    return status == 0


def words(
    library: ctypes.CDLL, seed: int, offset: int, index: Array, stream: Array | int, rounds: int
) -> tuple[Array, Array, Array, Array]:
    """As `sampling.words`."""
    n = len(index)
    out, index = np.empty((4, n), np.uint32), np.ascontiguousarray(index, np.int64)
    streams = np.ascontiguousarray(stream, np.int64)
    assert streams.size in (1, n)
    each = int(streams.size > 1)
    library.fusedmix_words(seed, offset, n, address(index), address(streams), each, rounds, address(out))
    return out[0], out[1], out[2], out[3]


def draw(
    library: ctypes.CDLL, recipe: Recipe, batch: int, height: int, width: int, seed: int, offset: int,
    sample_offset: int, mate: Array | None, lam: Array | None, box: Array | None,
) -> Draw:  # fmt: skip
    """As `sampling.draw`. mate: None for a random matching; lam, box: None unless given."""
    rows, drawn_lam = np.empty((7, batch), np.int64), np.empty(batch, np.float32)
    method, partner, drawn_box = rows[0], rows[1], rows[3:].reshape(batch, 4)
    mates = rows[2] if mate is None else np.ascontiguousarray(mate, np.int64)
    lam = None if lam is None else np.ascontiguousarray(lam, np.float32)
    box = None if box is None else np.ascontiguousarray(box, np.int32)
    first, column = address(rows) or 0, 8 * batch
    at_mate = first + 2 * column if mate is None else address(mates)
    at_method, at_lam, at_partner, at_box = first, address(drawn_lam), first + column, first + 3 * column
    given, drawn = map(address, (lam, box)), (at_method, at_lam, at_partner, at_mate, at_box)
    library.fusedmix_draw(
        ctypes.byref(settings_of(recipe, height, width)), seed, offset, sample_offset, batch, int(mate is None),
        *given, at_mate, at_method, at_partner, at_lam, at_box,
    )  # fmt: skip
    return Draw(method, drawn_lam, partner, mates, drawn_box, drawn)


def addresses_of(drawn: Draw) -> tuple[tuple[int | None, ...], tuple[Array, ...]]:
    """Where C finds the columns: method, lam, partner, mate, box; and what must live meanwhile."""
    if drawn.addresses is not None:
        return drawn.addresses, ()
    dtypes = np.int64, np.float32, np.int64, np.int64, np.int64
    kept = tuple(np.ascontiguousarray(a, dtype) for a, dtype in zip(drawn[:5], dtypes, strict=True))
    return tuple(map(address, kept)), kept


def mix(library: ctypes.CDLL, x: Tensor, out: Tensor, norm: Tensor | None, drawn: Draw, recipe: Recipe) -> bool:
    """Mixes x into `out`, which may be x. False, and nothing written, for what it does not know."""
    last = is_channels_last(x)
    computes = norm is not None or out.dtype != x.dtype or recipe.has_mixup
    if (computes and not computes_with(library, x.dtype, out.dtype)) or is_channels_last(out) != last:
        return False
    types = (TYPES[x.dtype], TYPES[out.dtype]) if computes else (COPIED[x.element_size()],) * 2
    step = x.shape[1] if last else 1
    if recipe.has_box or (last and norm is not None):  # planes, rows, elements of a row
        sizes = (x.shape[1] // step, x.shape[2], x.shape[3] * step)
    else:
        planes = 1 if norm is None else x.shape[1]
        sizes = (planes, x.numel() // max(x.shape[0] * planes, 1), 1)
    if recipe.has_box and last:
        drawn = drawn._replace(box=drawn.box * np.array([1, step, 1, step]), addresses=None)
    norm = None if norm is None else norm.contiguous()
    (method, lam, partner, mate, box), _kept = addresses_of(drawn)
    return checked(
        library.fusedmix_mix(
            x.data_ptr(), out.data_ptr(), *types, x.stride(0) * x.element_size(), out.stride(0) * out.element_size(),
            x.shape[0], *sizes, step, method, lam, partner, mate, box if recipe.has_box else None,
            None if norm is None else norm.data_ptr(), out.nbytes >= LARGE, threads_for(x.nbytes),
        )
    )  # fmt: skip


def one_hot(library: ctypes.CDLL, classes: Tensor, rows: Tensor, drawn: Draw, on: float, off: float) -> bool:
    """Writes target rows, as `mix.write_one_hot`."""
    classes = classes.contiguous()
    (_, lam, partner, *_), _kept = addresses_of(drawn)
    return rows.is_contiguous() and checked(
        library.fusedmix_one_hot(
            classes.data_ptr(), partner, lam, on, off, *rows.shape, rows.data_ptr(),
            threads_for(rows.nbytes),
        )
    )  # fmt: skip


def draw_family(
    library: ctypes.CDLL, recipe: Recipe, knobs: Array, height: int, width: int, seed: int, offset: int,
    sample_offset: int, mate: Array, lam: Array | None, box: Array | None,
) -> tuple[Array, Array, Array, list[tuple[Array, Array, Array]]]:  # fmt: skip
    """Method, lam, partner, and the columns of the region and of what is erased, see `reference.family.FamilyDraw`."""
    batch, choices = len(mate), np.array([*recipe.choices, recipe.erase], np.int64)
    method, drawn_lam, partner = np.empty(batch, np.int32), np.empty(batch, np.float32), np.empty(batch, np.int64)
    columns = [
        (np.empty((batch, slots), np.int64), np.empty(batch, np.int64), np.empty(batch, np.int64))
        for slots in (recipe.slots, recipe.erase_slots)
    ]
    knobs, mate = np.ascontiguousarray(knobs, np.float32), np.ascontiguousarray(mate, np.int64)
    lam = None if lam is None else np.ascontiguousarray(lam, np.float32)
    box = None if box is None else np.ascontiguousarray(box, np.int64)
    library.fusedmix_draw_family(
        seed, offset, sample_offset, batch, height, width, recipe.mode, address(choices), len(recipe.choices),
        *map(address, (knobs, mate, lam, box, method, drawn_lam, partner)),
        *(ctypes.byref(regions_of(*part)) for part in columns),
    )  # fmt: skip
    return method, drawn_lam, partner, columns


def regions_of(slots: Array, key: Array, code: Array) -> Regions:
    """They keep no reference: the arrays must outlive them."""
    return Regions(address(slots), address(key), address(code), slots.shape[1])


def family(
    library: ctypes.CDLL, x: Tensor, out: Tensor, norm: Tensor | None, drawn: FamilyDraw, recipe: Recipe,
    fill: Tensor | None, field: Tensor | None, order: Array | None = None,
) -> bool:  # fmt: skip
    """Makes `out`, which may be x, of the first samples of x, [B, C, H, W]; with `order` some of its samples, those.
    False, and nothing written, for what it does not know.
    """
    last, (channels, height, width) = is_channels_last(x), x.shape[1:]
    if not (computes_with(library, x.dtype, out.dtype) and sample_is_dense(out, last)):
        return False
    method, lam, partner, mate = (column.numpy() for column in drawn[:4])
    method, partner, mate = (np.ascontiguousarray(a, np.int64) for a in (method, partner, mate))
    lam = np.ascontiguousarray(lam, np.float32)
    none = np.empty((0, 0), np.int64)
    columns = [
        tuple(np.ascontiguousarray(column.numpy(), np.int64) for column in part) if part else (none,) * 3
        for part in (drawn.region, drawn.erased)
    ]
    norm, fill, field = (None if t is None else t.contiguous() for t in (norm, fill, field))
    order = None if order is None else np.ascontiguousarray(order, np.int64)
    bilinear = any(has_flag(code, FLAG_BILINEAR) for code in recipe.choices)
    return checked(
        library.fusedmix_family(
            x.data_ptr(), out.data_ptr(), TYPES[x.dtype], TYPES[out.dtype], x.stride(0) * x.element_size(),
            out.stride(0) * out.element_size(), len(method), len(x), channels, height, width, last,
            *map(address, (method, lam, partner, mate)), *(ctypes.byref(regions_of(*c)) for c in columns),
            *(None if t is None else t.data_ptr() for t in (norm, fill)), 0 if fill is None else len(fill),
            None if field is None else field.data_ptr(), rng.normal_table().data_ptr(), address(order), bilinear,
            out.nbytes >= LARGE, threads_for(out.nbytes),
        )
    )  # fmt: skip


def ranks(library: ctypes.CDLL, image: Tensor) -> Tensor:
    """The rank of each pixel of float32 images [B, n], the highest first: int32. Equal ones keep their order."""
    image = image.contiguous()
    batch, n = image.shape
    found = torch.empty((batch, n), dtype=torch.int32)
    checked(library.fusedmix_ranks(image.data_ptr(), batch, n, found.data_ptr(), threads_for(image.nbytes)))
    return found


def draw_place(
    library: ctypes.CDLL, geometry: Geometry, knobs: Tensor, batch: int, height: int, width: int, seed: int,
    offset: int, sample_offset: int, gray: Tensor | None, most: float,
) -> tuple[Placement, Coloring | None]:  # fmt: skip
    """As the reference's `draw_placement` and `draw_coloring`. knobs: the last three rows."""
    numbers = np.array([*geometry, height, width], np.int64)
    map, limits = torch.empty(6, batch), torch.empty((4, batch), dtype=torch.int64)
    coloring = torch.empty(5, batch) if geometry.color else None
    gray = None if gray is None else gray.float().contiguous()
    knobs = knobs.contiguous()
    library.fusedmix_draw_place(
        address(numbers), knobs.data_ptr(), seed, offset, sample_offset, batch,
        None if gray is None else gray.data_ptr(), most, map.data_ptr(), limits.data_ptr(),
        None if coloring is None else coloring.data_ptr(),
    )  # fmt: skip
    placement = Placement(map.unbind(0), limits.unbind(0))
    if coloring is None:
        return placement, None
    brightness, contrast, saturation, pivot, grayscale = coloring.unbind(0)
    return placement, Coloring(brightness, contrast, saturation, pivot, grayscale != 0)


def place(
    library: ctypes.CDLL, x: Tensor, out: Tensor, norm: Tensor | None, member: Array, drawn: AugmentDraw,
    geometry: Geometry, fill: Tensor,
) -> bool:  # fmt: skip
    """Writes the images `member` of x, placed and coloured, to `out`: normalised and cast, if asked. False, and
    nothing written, for what it does not know.
    """
    last, out_last = is_channels_last(x), is_channels_last(out)
    if not computes_with(library, x.dtype, out.dtype) or not sample_is_dense(out, out_last):
        return False
    map, limits = torch.stack(drawn.placement.map, 1).float(), torch.stack(drawn.placement.limits, 1).long()
    coloring = None if drawn.coloring is None else torch.stack([c.float() for c in drawn.coloring], 1)
    norm, fill, member = None if norm is None else norm.contiguous(), fill.contiguous(), np.ascontiguousarray(member)
    steps, (_, channels, in_height, in_width) = x.dtype == torch.uint8, x.shape
    placing = Placing(
        x.data_ptr(), out.data_ptr(), TYPES[x.dtype], TYPES[out.dtype], x.stride(0) * x.element_size(),
        out.stride(0) * out.element_size(), channels, in_height, in_width, *out.shape[2:], last, out_last,
        *(None if t is None else t.data_ptr() for t in (map, coloring, fill, norm, limits)), geometry.beyond,
        geometry.bilinear, steps and geometry.bilinear and geometry.beyond == BEYOND_FILL, steps, brightest(x.dtype),
    )  # fmt: skip
    return checked(library.fusedmix_place(ctypes.byref(placing), address(member), len(member), threads_for(out.nbytes)))
