"""The matrices between R'G'B' and the samples of a video.

They are those of ITU-R BT.601-7 (2.5.1), BT.709-6 (3.2, 3.3) and BT.2020-2 (table 4, non-constant luminance), the
ranges those of ITU-T H.273, 8.3, for any number of bits.
"""

from __future__ import annotations

from typing import NamedTuple

# Kr and Kb: the shares of red and blue in luma.
MATRICES = {
    "bt601": (0.299, 0.114),
    "bt709": (0.2126, 0.0722),
    "bt2020": (0.2627, 0.0593),
    "fcc": (0.30, 0.11),
    "smpte240m": (0.212, 0.087),
}
Matrix = list[list[float]]


class Levels(NamedTuple):
    black: float
    luma: float  # from black to white
    chroma: float  # from the lowest to the highest
    zero: float  # of chroma


def levels(bits: int, full_range: bool) -> Levels:
    step, top = float(1 << (bits - 8)), float((1 << bits) - 1)
    return Levels(0.0, top, top, 128 * step) if full_range else Levels(16 * step, 219 * step, 224 * step, 128 * step)


def from_rgb_matrix(shares: tuple[float, float], bits: int, full_range: bool) -> tuple[Matrix, list[float]]:
    """Of R'G'B' in [0, 1], and the samples of black."""
    red, blue = shares
    luma, of = (red, 1 - red - blue, blue), levels(bits, full_range)
    # A colour's blue (red) less its luma is at most 1 - Kb (1 - Kr) on either side of zero.
    cb = [of.chroma * ((c == 2) - luma[c]) / (2 * (1 - blue)) for c in range(3)]
    cr = [of.chroma * ((c == 0) - luma[c]) / (2 * (1 - red)) for c in range(3)]
    return [[of.luma * v for v in luma], cb, cr], [of.black, of.zero, of.zero]


def to_rgb_matrix(shares: tuple[float, float], bits: int, full_range: bool) -> tuple[Matrix, list[float]]:
    """To R'G'B' in [0, 1], and the samples of black."""
    red, blue = shares
    green, of = 1 - red - blue, levels(bits, full_range)
    luma, to_blue, to_red = 1 / of.luma, 2 * (1 - blue) / of.chroma, 2 * (1 - red) / of.chroma
    rows = [
        [luma, 0.0, to_red],
        [luma, -to_blue * blue / green, -to_red * red / green],
        [luma, to_blue, 0.0],
    ]
    return rows, [of.black, of.zero, of.zero]
