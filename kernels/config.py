"""The launch table: tile sizes and warps per variant.

Not measured on a GPU yet. Chosen from the compiled code (tests/test_codegen.py): every hot variant has 128-bit
accesses, no spills and at most 128 registers a thread, and a program's draws cost less than its tiles.
"""

from typing import NamedTuple


class Launch(NamedTuple):
    block: int  # elements of a tile
    tiles: int  # tiles a program walks
    num_warps: int
    row_elements: int = 1024  # elements of a block of target rows
    fewest: int = 0  # tiles that a program walks before it does with less than WAVES; 0: a quarter of `tiles`


NUM_WARPS = 4
MAX_REGISTERS = 128  # left to itself, ptxas spills two words on sm_100 to fit one more block
HEAVY_REGISTERS = 255  # for what spills at 128, or works out again what it has no room to keep
WALKED_REGISTERS = 172  # of programs that walk rows and paste or blend: given 255, ptxas takes 184, with this 168
VECTOR_BYTES = 16
MIN_TILES = 4  # of a sample, below which a program gets half the warps
MAX_TILES = 16  # of a pair, with NUM_WARPS
WAVES = 4  # of programs, one after the other on a multiprocessor, so that the last do not leave many idle for long
WARPS, HEAVY_WARPS = 24, 8  # that run on a multiprocessor at a time, about: of up to MAX_REGISTERS and HEAVY_REGISTERS
WALKED_PIXELS, COLORED_PIXELS = 256, 2048  # of a thread that walks down rows, in all images; colour has more draws


def launch_for(
    sample_elements: int, x_itemsize: int, out_itemsize: int, warp_size: int = 32, most: int = 16, images: int = 2,
    heavy: bool = False, vectors: int = 2,
) -> Launch:  # fmt: skip
    """Launch of a batch whose samples have `sample_elements` elements.

    A thread holds so many 16-byte vectors of the wider type of each sample, or `most` elements where regions of the
    family take registers: the more it reads before it waits, the fewer threads keep memory busy.

    Draws are paid by many elements a thread: programs that write one image, not two, walk twice the tiles; where
    threads take so many registers (`heavy`) that few fit on a multiprocessor, programs have half the warps and four
    times the tiles, and where samples have few tiles, half the warps.
    """
    vector = VECTOR_BYTES // max(x_itemsize, out_itemsize)
    per_thread = min(vectors * vector, most)
    warps = NUM_WARPS
    if heavy or (most < 16 and sample_elements < MIN_TILES * per_thread * warp_size * warps):
        warps //= 2
    block = per_thread * warp_size * warps
    most_tiles = MAX_TILES * (2 if heavy else 1) * 2 // images * NUM_WARPS // warps
    tiles = min(most_tiles, max(1, -(-sample_elements // block)))
    return Launch(block, tiles, warps)


def vector_elements(sample_elements: int, itemsize: int, most: int = 16) -> int:
    """Longest power-of-two run of elements that samples are made of, up to 16 bytes and to what a thread holds."""
    return max(1, min(sample_elements & -sample_elements, VECTOR_BYTES // itemsize, most))


def tiles_for(launch: Launch, tiles: int, at_once: int) -> int:
    """Tiles a program, of so many in a batch, where a GPU runs about `at_once` programs at a time.

    Those of the table, or half of them, a quarter and so on: programs of smaller batches come in about WAVES, or in one
    where less than the fewest would be left, since then their draws cost more than they do. Each is a kernel of its
    own: loops of known length are unrolled.
    """
    fair = max(tiles / (WAVES * at_once), min(launch.fewest or launch.tiles / 4, tiles / at_once), 1)
    each = launch.tiles
    while each > 1.5 * fair:
        each //= 2
    return each


def rectangle_for(width: int, block: int, vector: int) -> int:
    """Rows of tiles of `block` pixels that are rectangles of some columns: as wide as wastes little beyond `width`."""
    columns = [side for side in (32, 16, 8) if vector <= side < block] or [block]
    return block // min(columns, key=lambda side: -(-width // side) * side)


def walk_for(
    width: int, warp_size: int = 32, images: int = 2, least: int = 1, colored: bool = False, itemsize: int = 2
) -> tuple[Launch, int]:
    """Launch of programs that walk down the rows of a result, a tile of a row at a time, and the pixels of a thread.

    A warp each, with as many pixels of a row a thread as divide it, up to 8 in all images and to one store of them, or
    fewer where that leaves fewer threads beyond the row's end: what a thread computes for a row, whatever its pixels,
    costs about as much as one of them. But `least` pixels, where they divide it.
    """
    most = min(8 // images, VECTOR_BYTES // itemsize)

    def cost(vector: int) -> int:
        return -(-width // (vector * warp_size)) * (1 + vector)

    vectors = [v for v in (8, 4, 2, 1) if v <= most and width % v == 0]
    vector = min([v for v in vectors if v >= least] or vectors, key=cost)
    pixels = COLORED_PIXELS if colored else WALKED_PIXELS
    tiles = pixels // images // vector
    return Launch(vector * warp_size, tiles, 1, fewest=tiles // 8 if colored else 0), vector
