"""Where randomness comes from: the table of streams and words, the polynomials, and the seed of a call.

Philox4x32-10 with key = the call's 64-bit seed and counter = (offset lo, offset hi, index, stream) gives four 32-bit
words. The table below is part of the public contract: a change of any row changes every draw and is a changelog line.

======== ======= ============================ ===== ==========================================================
stream   number  index                        word  use
======== ======= ============================ ===== ==========================================================
MATCHING 0       sample_offset                0     h of the random perfect matching, uniform in [0, n)
SAMPLE   1       sample (see below)           0     apply: mixed when unit(word) < p
SAMPLE   1       sample                       1     switch: CutMix when unit(word) < switch_prob
SAMPLE   1       sample                       2     bits 31..9: u of the Beta draw, lam itself for alpha = 1
                                                    (minmax: box height); bit 0: which side of 1/2 lam falls on
SAMPLE   1       sample                       3     bits 31..9: v of the Beta draw (minmax: box width)
BOX      2       sample                       0     centre row of the box (minmax: top row)
BOX      2       sample                       1     centre column of the box (minmax: left column)
KEYS     3       sample_offset + i // 4       i % 4 sort key of sample i for partner "exact" and "permute"
REGION   4       sample                       0-3   GridMask: d, row offset, column offset, angle; Hide-and-Seek
                                                    and GridMix: key of the cells, cell size; SmoothMix: centre
                                                    row, centre column, sigma; Random Erasing: number of boxes
HOLES    5       sample                       0-3   box (16 * hole + try): area, aspect, row, column; Cutout: row
                                                    and column of its centre
ERASE    6       own index                    0     erase: erased when unit(word) < p; 1: key of the noise
REGION   7       own index                    0-3   REGION of what is erased
HOLES    8       own index                    0-3   HOLES of what is erased
NOISE    9       0                            0-3   normal noise of elements or channels 4 n to 4 n + 3 (number n),
                                                    by NOISE_ROUNDS, as signed integers: the sign, and how rare
                                                    so large a number is (`normal_table`); seed = the key drawn as
                                                    word 1 (mixed: SAMPLE word 1)
CROP     10      own index                    0-3   box of try n (number n): area, aspect, row, column; RandomCrop:
                                                    row and column of try 0
FLIP     11      own index                    0-3   flipped when unit(word) < p: horizontally, vertically; turned;
                                                    coloured
AFFINE   12      own index                    0-3   angle, scale, translation across and down
SHEAR    13      own index                    0, 1  shear across, shear down
COLOR    14      own index                    0-3   brightness, contrast, saturation, grayscale
======== ======= ============================ ===== ==========================================================

`sample` is the global index `sample_offset + i` in mode "elem", the lower global index of the pair in mode "pair",
and 0 in mode "batch"; `own index` is `sample_offset + i` in every mode. A stream of several numbers per index is
addressed as stream + 16 * number (the box, the element). Words not listed are unused. With a list of methods, word 0
of SAMPLE picks the method: the first whose cumulative probability lies above unit(word).

unit(word) = (word >> 8) * 2**-24, in [0, 1);  below(word, n) = (word * n) >> 32, in [0, n).
"""

import math
import threading
from functools import cache
from statistics import NormalDist

import torch

STREAM_MATCHING, STREAM_SAMPLE, STREAM_BOX, STREAM_KEYS = 0, 1, 2, 3
STREAM_REGION, STREAM_HOLES = 4, 5
STREAM_ERASE, STREAM_ERASE_REGION, STREAM_ERASE_HOLES = 6, 7, 8
STREAM_NOISE = 9
STREAM_CROP, STREAM_FLIP, STREAM_AFFINE, STREAM_SHEAR, STREAM_COLOR = 10, 11, 12, 13, 14
STREAM_STEP = 16  # between the numbers of one stream
TRIES = 10  # boxes drawn before Random Erasing gives up, and a random resized crop takes the central one
TRY_STEP = 16  # between the holes of a sample
ROUNDS, NOISE_ROUNDS = 10, 7  # of Philox4x32; 7 pass the tests of BigCrush (Salmon et al., SC 2011), 10 are usual
ROUND_A, ROUND_B, KEY_A, KEY_B = 0xD2511F53, 0xCD9E8D57, 0x9E3779B9, 0xBB67AE85  # of Philox4x32
GOLDEN, MIX_A, MIX_B = 0x9E3779B9, 0x85EBCA6B, 0xC2B2AE35  # hash of a cell: MurmurHash3's finaliser (Appleby)
ROUNDER = 12582912.0  # 1.5 * 2**23: adding it to a small float32 rounds to an integer, halves to even
ROUNDER_BITS = 0x4B400000  # which is then what the bits exceed this by
TURN_BITS = 14  # GridMask's cosine and sine are integers of 2**-14: times 2**16 half pixels they fit 31 bits
TAP_BITS = 15  # pixels of byte images lie whole 2**-15ths between two others: with 8 more bits float32 is exact
BYTE_STEPS = 2.0 ** (23 - TAP_BITS)  # added to bytes, makes their steps whole numbers of float32's last place
GRAY = (0.2989, 0.587, 0.114)  # luma of ITU-R BT.601, as torchvision rounds it
WHITE_GRAY = sum(GRAY)  # of white: 0.9999
BELL_BITS = 15  # SmoothMix's weights along an axis are integers of 2**-15, so that their sums are exact

# log, exp and sin are these polynomials in float32, evaluated by Horner's rule without fused multiply-add, so that
# every implementation returns the same bits. Truncation errors (relative) are below float32's rounding of 6e-8.
LN2 = math.log(2.0)
LN2_HI = 355.0 / 512.0  # 9 bits: n * LN2_HI is exact for |n| < 2**14
LN2_LO = LN2 - LN2_HI
LOG2_E = 1.0 / LN2
SQRT_HALF_BITS = 0x3F3504F3  # float32 sqrt(1/2): mantissas are taken in [sqrt(1/2), sqrt(2))
ONE_BITS = 0x3F800000
LOG_POLY = tuple(2.0 / (2 * k + 1) for k in range(5))  # ln m = s * P(s*s), s = (m-1)/(m+1); error z**5 / 11 < 2e-9
EXP_POLY = tuple(1.0 / math.factorial(k) for k in range(8))  # |r| <= ln2/2: error r**8 / 8! < 6e-9
BELL_POLY = (1.0, 0.69312419, 0.24024099, 0.05590643, 0.00958285)  # 2**f, |f| <= 1/2; error 3e-6 for weights of 15 bits
EXPM1_POLY = tuple((-1.0) ** k / math.factorial(k + 1) for k in range(6))  # 1 - e**-L = L * P(L), L < 1/4: 5e-8
SIN_POLY = tuple((-1.0) ** k * (math.pi / 2) ** (2 * k + 1) / math.factorial(2 * k + 1) for k in range(6))
BETA_MAX_LOG = 85.0  # e**-85 = 1.2e-37: keeps the small side a normal float32, never zero
BETA_MAX_RATIO = 1e30

# Normal numbers: a word is a signed integer s. As float32, in [-2**31, 2**31], it gives the number whose size a share
# |s| / 2**31 exceeds, by lines between points of the inverse distribution, 2**6 to each octave. Within 3e-5 of it.
NORMAL_BITS = 6
NORMAL_SHIFT = 23 - NORMAL_BITS  # of the bits of float32 s, whose sign, exponent and first bits number the line
NORMAL_OCTAVES = 31

SEED_LIMIT = 2**63 - 1


@cache
def normal_table() -> torch.Tensor:
    """The lines, value at s = 0 and slope: float32 [2**15, 2]. Those of other floats than integers' are not used."""
    steps = 1 << NORMAL_BITS
    table = torch.zeros(1 << (32 - NORMAL_SHIFT), 2, dtype=torch.float64)
    points = [math.ldexp(1 + k / steps, e) for e in range(NORMAL_OCTAVES) for k in range(steps)] + [2.0**NORMAL_OCTAVES]
    sizes = [-NormalDist().inv_cdf(s / 2 ** (NORMAL_OCTAVES + 1)) for s in points]
    slopes = [(sizes[n + 1] - sizes[n]) / (points[n + 1] - points[n]) for n in range(len(points) - 1)]
    starts = [size - slope * s for s, size, slope in zip(points, sizes, slopes, strict=False)]
    for sign in (1, -1):
        first = (127 << NORMAL_BITS) + (sign < 0) * len(table) // 2  # of the numbers of 1 and -1
        table[first : first + len(slopes), 0] = sign * torch.tensor(starts, dtype=torch.float64)
        table[first : first + len(slopes), 1] = torch.tensor(slopes, dtype=torch.float64)
    table[0, 0] = -NormalDist().inv_cdf(0.5 / 2 ** (NORMAL_OCTAVES + 1))  # of s = 0
    return table.float()


class SeedBuffer(threading.local):
    """Each thread has one of its own: torch lets go of the interpreter while it draws."""

    def __init__(self) -> None:
        self.word = torch.empty((), dtype=torch.int64)


_buffer = SeedBuffer()


def next_seed(generator: torch.Generator | None = None) -> tuple[int, int]:
    """(seed, offset) of the next call; no two calls get the same pair.

    Without a generator, or with a CPU one, the seed is 63 fresh bits of the CPU generator, whatever device the images
    are on: `torch.manual_seed(s)` gives the same draws on every device. A CUDA generator gives its own seed and moves
    its Philox offset on by 4.
    """
    if generator is None or generator.device.type == "cpu":
        return int(_buffer.word.random_(generator=generator)), 0
    offset = generator.get_offset()
    generator.set_offset(offset + 4)
    return generator.initial_seed() & SEED_LIMIT, offset


def graph_state(device: torch.device) -> torch.Tensor:
    """(seed, offset) as an int64 [2] tensor drawn on the device: fresh on every replay of a graph it is traced into."""
    return torch.randint(SEED_LIMIT, (2,), device=device, dtype=torch.int64)
