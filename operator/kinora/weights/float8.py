"""float8_e4m3fn: numbers to codes and back, by tables. Round to nearest, ties to even; what is too large saturates.

The format has 4 bits of exponent (bias 7) and 3 of mantissa, no infinity, and NaN as 0x7f and 0xff; its largest number
is 448. A plain cast in torch makes NaN of what rounds above 448; a weight of NaN would blacken every frame, so that
the codes here are those of a cast after clamping to +-448.
"""

from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

MAX = 448.0
NAN = 0x7F
Codes = NDArray[np.uint8]
Bits16 = NDArray[np.uint16]


@cache
def values() -> NDArray[np.float32]:
    """The number that each of the 256 codes stands for."""
    code = np.arange(256)
    exponent, mantissa = code >> 3 & 15, code & 7
    normal = np.ldexp(8 + mantissa, exponent - 10)
    number: NDArray[np.float32] = np.where(exponent == 0, np.ldexp(mantissa, -9), normal).astype(np.float32)
    number[code & 0x7F == NAN] = np.nan
    number[code >= 0x80] *= -1
    return number


def encode_exactly(numbers: NDArray[np.float64]) -> Codes:
    """The code of each number, by comparison with the midpoints: slow, and plain to see right. Makes the tables."""
    known = values()[:NAN].astype(np.float64)
    middle = (known[1:] + known[:-1]) / 2
    size = np.abs(numbers)
    found = np.searchsorted(middle, size, side="left")
    at_middle = middle[np.minimum(found, len(middle) - 1)] == size
    found = np.where(at_middle, found + (found & 1), found)  # the even one of two neighbours
    found = np.where(np.isnan(numbers), NAN, found)
    return (found | np.where(np.signbit(numbers), 0x80, 0)).astype(np.uint8)


@cache
def half_values(dtype: str) -> NDArray[np.float32]:
    """The number of each of the 65,536 codes of BF16 or F16."""
    codes = np.arange(1 << 16, dtype=np.uint32)
    if dtype == "BF16":
        return (codes << 16).view(np.float32)
    return codes.astype(np.uint16).view(np.float16).astype(np.float32)


@lru_cache(maxsize=4)
def half_table(dtype: str, scale: float = 1.0) -> Codes:
    """Code of BF16 or F16 -> code of the number divided by `scale`, in float32 as torch does it."""
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = half_values(dtype) / np.float32(scale)
    return encode_exactly(scaled.astype(np.float64))


@cache
def single_table() -> Codes:
    """What `single_index` makes of a float32 -> its code.

    A float32 is its upper half and whether anything follows: no midpoint between two codes needs more than 16 bits, so
    that everything that follows lies on one side of all of them.
    """
    index = np.arange(1 << 17, dtype=np.uint32)
    bits = (index >> 1 << 16) | np.where(index & 1, np.uint32(0x8000), np.uint32(0)).astype(np.uint32)
    with np.errstate(invalid="ignore"):
        return encode_exactly(bits.view(np.float32).astype(np.float64))


def single_index(bits: NDArray[np.uint32], out: NDArray[np.uint32]) -> None:
    """Upper half of each float32, then one bit for whether anything follows it."""
    np.bitwise_and(bits, 0xFFFF, out=out)
    np.add(out, 0xFFFF, out=out)
    np.right_shift(out, 16, out=out)  # 1 where the lower half is not 0
    np.bitwise_or(out, np.right_shift(bits, 16) << 1, out=out)
