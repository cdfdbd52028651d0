"""`native.c`, compiled once for this machine: Philox words; mixup and CutMix of whole batches, draws included; boxes,
filled with constants or noise.

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
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fusedmix import rng
from fusedmix.layout import is_channels_last
from fusedmix.recipe import FLAG_LINEAR, KNOB_A, METHOD_ERASING, Recipe, count_of, has_flag, method_of, side_range

Array = NDArray

SOURCE = Path(__file__).with_name("native.c")
FLAGS = ("-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")
VECTORS = {"AVX2": "-march=x86-64-v3", "AVX512": "-march=x86-64-v4"}  # by what torch finds
OPENMP = "-fopenmp"  # its runtime is the one that torch has loaded: both share a pool of threads
COMPILE_SECONDS = 60
TYPES = {torch.uint8: 0, torch.float32: 1, torch.bfloat16: 2}
COPIED = {1: 0, 4: 1, 2: 3}  # by bytes an element, where nothing is computed
NO_MEMORY = 1  # a status of native.c
ONE_THREAD = 1 << 18  # bytes of a batch below which waking a thread costs more than it saves
LARGE = 1 << 25  # bytes of a batch from which writing past the caches is faster


REALS = {
    "log": rng.LOG_POLY, "exp": rng.EXP_POLY, "expm1": rng.EXPM1_POLY, "sin": rng.SIN_POLY, "ln2": rng.LN2,
    "ln2_hi": rng.LN2_HI, "ln2_lo": rng.LN2_LO, "log2_e": rng.LOG2_E, "max_log": rng.BETA_MAX_LOG,
    "max_ratio": rng.BETA_MAX_RATIO,
}  # fmt: skip


class Settings(ctypes.Structure):
    """As in native.c."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("height", "width")),
        *((name, ctypes.c_int64 * 2) for name in ("least", "sides")),
        *((name, ctypes.c_int64) for name in ("mode", "has_box", "has_mixup", "correct_lam")),
        *((name, ctypes.c_float) for name in ("p", "switch_prob", "mixup_alpha", "cutmix_alpha")),
        *((name, ctypes.c_float * len(v) if isinstance(v, tuple) else ctypes.c_float) for name, v in REALS.items()),
    )


class Noise(ctypes.Structure):
    """As in native.c."""

    _fields_ = (*((name, ctypes.c_int64) for name in ("stream", "step", "shift", "first")), ("table", ctypes.c_void_p))


@functools.cache
def noise_source() -> Noise:
    table = rng.normal_table()  # which is kept there
    return Noise(rng.STREAM_NOISE, rng.STREAM_STEP, rng.NORMAL_SHIFT, rng.NORMAL_FIRST, table.data_ptr())


@functools.lru_cache(maxsize=256)
def settings_of(recipe: Recipe, height: int, width: int) -> Settings:
    ranges = [side_range(recipe.minmax_lo, recipe.minmax_hi, side) for side in (height, width)]
    least, sides = zip(*(ranges if recipe.minmax_hi >= 0 else [(0, 0)] * 2), strict=True)
    names = ("mode", "has_box", "has_mixup", "correct_lam", "p", "switch_prob", "mixup_alpha", "cutmix_alpha")
    return Settings(
        height=height, width=width, least=least, sides=sides, **{name: getattr(recipe, name) for name in names}, **REALS
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


def load(folder: Path) -> ctypes.CDLL:
    """The library of this source, compiler and kind of processor; built if `folder` lacks it."""
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CC", "cc"), "gcc", "clang"))), None)
    if compiler is None:
        raise OSError("no C compiler")
    vectors = VECTORS.get(torch.backends.cpu.get_cpu_capability())
    choices = [*([(vectors, OPENMP)] if vectors else []), (OPENMP,), ()]
    key = repr((SOURCE.read_text(), FLAGS, choices, compiler, platform.machine(), platform.libc_ver()))
    path = folder / f"native-{hashlib.sha256(key.encode()).hexdigest()[:16]}.so"
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=folder) as unfinished:  # renamed when whole: processes may race
            built = Path(unfinished) / path.name
            for choice in choices:
                command = [compiler, *FLAGS, *choice, str(SOURCE), "-o", str(built)]
                done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_SECONDS)
                if done.returncode == 0:
                    break
            else:
                raise OSError(done.stderr)
            os.replace(built, path)
    found = ctypes.CDLL(str(path))
    size, number, real, pointer = ctypes.c_int64, ctypes.c_int, ctypes.c_float, ctypes.c_void_p
    counter = (ctypes.c_uint64, ctypes.c_uint64)
    functions: tuple[tuple[Any, Any, list[Any]], ...] = (
        (found.fusedmix_words, None, [*counter, size, pointer, pointer, size, pointer]),
        (found.fusedmix_draw, None, [pointer, *counter, size, size, number, *[pointer] * 7]),
        (found.fusedmix_mix, number, [pointer, pointer, number, number, *[size] * 6, *[pointer] * 6, number, number]),
        (
            found.fusedmix_holes,
            None,
            [pointer, *counter, size, *[pointer] * 3, size, pointer, number, number, size, pointer],
        ),
        (found.fusedmix_fill, None, [pointer, *[size] * 6, pointer, size, pointer, pointer, number, number]),
        (found.fusedmix_noise, None, [pointer, number, *[size] * 5, pointer, size, *[pointer] * 5, number]),
        (found.fusedmix_one_hot, number, [pointer, pointer, pointer, real, real, size, size, pointer, number]),
    )
    for function, result, arguments in functions:
        function.restype, function.argtypes = result, arguments
    return found


def threads_for(nbytes: int) -> int:
    return torch.get_num_threads() if nbytes >= ONE_THREAD else 1


def checked(status: int) -> bool:
    if status == NO_MEMORY:
        raise MemoryError("no memory for the block that is worked on")
    return status == 0


def words(
    library: ctypes.CDLL, seed: int, offset: int, index: Array, stream: Array | int
) -> tuple[Array, Array, Array, Array]:
    """As `sampling.words`."""
    n = len(index)
    out, index = np.empty((4, n), np.uint32), np.ascontiguousarray(index, np.int64)
    streams = np.ascontiguousarray(stream, np.int64)
    assert streams.size in (1, n)
    library.fusedmix_words(
        seed, offset, n, index.ctypes.data, streams.ctypes.data, int(streams.size > 1), out.ctypes.data
    )
    return out[0], out[1], out[2], out[3]


def draw(
    library: ctypes.CDLL, recipe: Recipe, batch: int, height: int, width: int, seed: int, offset: int,
    sample_offset: int, mate: Array | None, lam: Array | None, box: Array | None,
) -> tuple[Array, ...]:  # fmt: skip
    """The columns of `sampling.Draw`. mate: None for a random matching; lam, box: None unless given."""
    rows, drawn_lam = np.empty((7, batch), np.int64), np.empty(batch, np.float32)
    method, partner, drawn_box = rows[0], rows[1], rows[3:].reshape(batch, 4)
    mates = rows[2] if mate is None else np.ascontiguousarray(mate, np.int64)
    lam = None if lam is None else np.ascontiguousarray(lam, np.float32)
    box = None if box is None else np.ascontiguousarray(box, np.int32)
    library.fusedmix_draw(
        ctypes.byref(settings_of(recipe, height, width)), seed, offset, sample_offset, batch, int(mate is None),
        *(None if a is None else a.ctypes.data for a in (lam, box, mates, method, partner, drawn_lam, drawn_box)),
    )  # fmt: skip
    return method, drawn_lam, partner, mates, drawn_box


def mix(
    library: ctypes.CDLL, x: Tensor, out: Tensor, norm: Tensor | None, columns: tuple[Array, ...], recipe: Recipe
) -> bool:
    """Mixes x into `out`, which may be x. False, and nothing written, for what it does not know.

    columns: those of `sampling.Draw`.
    """
    last = is_channels_last(x)
    computes = norm is not None or out.dtype != x.dtype or recipe.has_mixup
    if (
        (computes and not (x.dtype in TYPES and out.dtype in TYPES))
        or (norm is not None and last)
        or is_channels_last(out) != last
    ):
        return False
    types = (TYPES[x.dtype], TYPES[out.dtype]) if computes else (COPIED[x.element_size()],) * 2
    method, lam, partner, mate, edges = columns
    sizes = tuple(x.shape[1:])  # planes, rows, elements of a row
    if not recipe.has_box:
        planes = 1 if norm is None else x.shape[1]
        sizes = (planes, x[0].numel() // max(planes, 1), 1)
    elif last:
        sizes = (1, x.shape[2], x.shape[3] * x.shape[1])
        edges = edges * np.array([1, x.shape[1], 1, x.shape[1]])
    box = np.ascontiguousarray(edges, np.int64) if recipe.has_box else None
    norm = None if norm is None else norm.contiguous()
    lam = np.ascontiguousarray(lam, np.float32)
    method, partner, mate = (np.ascontiguousarray(a, np.int64) for a in (method, partner, mate))
    return checked(
        library.fusedmix_mix(
            x.data_ptr(), out.data_ptr(), *types, x.stride(0) * x.element_size(), out.stride(0) * out.element_size(),
            len(x), *sizes, *(None if a is None else a.ctypes.data for a in (method, lam, partner, mate, box)),
            None if norm is None else norm.data_ptr(), out.nbytes >= LARGE, threads_for(x.nbytes),
        )
    )  # fmt: skip


def one_hot(
    library: ctypes.CDLL, classes: Tensor, rows: Tensor, partner: Array, lam: Array, on: float, off: float
) -> bool:
    """Writes target rows, as `mix.write_one_hot`."""
    classes = classes.contiguous()
    lam, partner = np.ascontiguousarray(lam, np.float32), np.ascontiguousarray(partner, np.int64)
    return rows.is_contiguous() and checked(
        library.fusedmix_one_hot(
            classes.data_ptr(), partner.ctypes.data, lam.ctypes.data, on, off, len(rows), rows.shape[1],
            rows.data_ptr(), threads_for(rows.nbytes),
        )
    )  # fmt: skip


def holes(
    library: ctypes.CDLL, code: int, knob: Array, seed: int, offset: int, index: Array, streams: tuple[int, int],
    height: int, width: int,
) -> Array:  # fmt: skip
    """The boxes of Cutout or Random Erasing, as the reference's `holes`: int64 [n, holes, 4]."""
    index, knob = np.ascontiguousarray(index, np.int64), np.ascontiguousarray(knob[KNOB_A:], np.float32)
    boxes = np.empty((len(index), count_of(code), 4), np.int64)
    stream, step = np.array(streams), np.array([rng.STREAM_STEP, rng.STREAM_STEP * rng.TRY_STEP])
    library.fusedmix_holes(
        ctypes.byref(settings_of(Recipe(), height, width)), seed, offset, len(index), index.ctypes.data,
        stream.ctypes.data, step.ctypes.data, rng.TRIES, knob.ctypes.data, method_of(code) == METHOD_ERASING,
        has_flag(code, FLAG_LINEAR), boxes.shape[1], boxes.ctypes.data,
    )  # fmt: skip
    return boxes


def fill(library: ctypes.CDLL, out: Tensor, box: Array, row: Array, value: Tensor) -> bool:
    """Fills boxes, int64 [B, n, 4], of `out`, [B, C, H, W]; of each sample with the row of value, [rows, C], that `row`
    names, or with nothing at -1. False, and nothing written, for what it does not know.
    """
    planes, height, width = out.shape[1:]
    if is_channels_last(out):
        if not bool((value == value[:, :1]).all()):
            return False
        box, value = box * np.array([1, planes, 1, planes]), value[:, :1]
        planes, width = 1, width * planes
    value = value.contiguous()
    box, row = np.ascontiguousarray(box, np.int64), np.ascontiguousarray(row, np.int64)
    library.fusedmix_fill(
        out.data_ptr(),
        out.element_size(),
        out.stride(0) * out.element_size(),
        len(out),
        planes,
        height,
        width,
        box.ctypes.data,
        box.shape[1],
        row.ctypes.data,
        value.data_ptr(),
        out.nbytes >= LARGE,
        threads_for(out.nbytes),
    )
    return True


def noise(
    library: ctypes.CDLL, out: Tensor, box: Array, row: Array, fill: Tensor, pixels: list[bool], key: Array
) -> bool:
    """Fills boxes of `out` as `fill` does, with noise: value and sigma of the rows of fill, [rows, 2, C], and whether
    every pixel has its own. key: [B], of each sample's noise.
    """
    if out.dtype not in TYPES or is_channels_last(out):
        return False
    fill = fill.contiguous()
    box, row, key = (np.ascontiguousarray(a, np.int64) for a in (box, row, key))
    each = np.array(pixels, np.int64)
    library.fusedmix_noise(
        out.data_ptr(), TYPES[out.dtype], out.stride(0) * out.element_size(), len(out), *out.shape[1:],
        box.ctypes.data, box.shape[1], row.ctypes.data, fill.data_ptr(), each.ctypes.data, key.ctypes.data,
        ctypes.byref(noise_source()), threads_for(out.nbytes),
    )  # fmt: skip
    return True
