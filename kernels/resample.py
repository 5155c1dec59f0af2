"""The resampling decoder as one kernel; the contract, and the layout of z, is csrc/resample.h.

A pixel is eight fine rows, one after the other, of eight fine pixels in three colours, which neighbouring threads read
from the nearest cache and sum at the end: 192 loads of a number each. By counting instructions a picture of 3840x2160
takes an H200 some 0.7 ms, far more than its memory would ask for and little beside an encoder's work. Sums over rows
that neighbouring columns share would save most of it, if it ever counts.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .pixels import VARYING, place, store

# Pixels of a program, and its warps.
PIXELS, WARPS = 256, 8
TABLES = ["y_first", "y_taps", "x_first", "x_taps"]


@triton.jit(do_not_specialize=["z_rows", "z_wide", *VARYING], do_not_specialize_on_alignment=["out", *TABLES])
def resample(
    z, z_columns, z_rows, z_wide,
    y_first, y_taps, rows,
    x_first, x_taps, columns, across, tile_bits, paired,
    scale_0, scale_1, scale_2, shift_0, shift_1, shift_2, low, high,
    out, out_row_stride, out_column_stride, out_channel_stride,
    FACTOR: tl.constexpr, TAPS: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """One program for each block of PIXELS pixels.

    Args:
        z: [z_rows, z_wide, 3 * FACTOR**2] float16, bfloat16 or float32, rows ``z_columns`` cells apart.
        y_*, x_*: tables [rows] and [rows, TAPS], likewise of columns, see `grid.Taps`.
        across, tile_bits: of blocks, see `pixels.place`.
        paired: 0: a grid. 1: a list of ``rows`` points, ``columns`` is 1.
        scale, shift, low, high: float32, as in csrc/resample.h.
        out: uint8, uint16 or any float; strides in elements.
    """
    CELL: tl.constexpr = 3 * FACTOR * FACTOR
    row, column, inside = place(
        tl.program_id(0), tl.arange(0, PIXELS), rows, columns, across, tile_bits, paired, PIXELS
    )
    tap = tl.arange(0, TAPS)[None, :]
    fine_x = tl.load(x_first + column, inside, 0)[:, None] + tap
    share = tl.load(x_taps + column.to(tl.int64)[:, None] * TAPS + tap, inside[:, None], 0.0)
    # A picture of fewer fine lines than there are taps has shares of zero for those it lacks.
    there = inside[:, None] & (fine_x < FACTOR * z_wide)
    at = z + (fine_x // FACTOR).to(tl.int64) * CELL + fine_x % FACTOR
    first_y = tl.load(y_first + row, inside, 0)
    red = tl.zeros((PIXELS, TAPS), tl.float32)
    green, blue = red, red
    for k in range(TAPS):
        fine_y = first_y + k
        weight = tl.load(y_taps + row.to(tl.int64) * TAPS + k, inside, 0.0)[:, None] * share
        line = at + ((fine_y // FACTOR).to(tl.int64) * z_columns * CELL + fine_y % FACTOR * (3 * FACTOR))[:, None]
        exists = there & (fine_y < FACTOR * z_rows)[:, None]
        red += weight * tl.load(line, exists, 0.0).to(tl.float32)
        green += weight * tl.load(line + FACTOR, exists, 0.0).to(tl.float32)
        blue += weight * tl.load(line + 2 * FACTOR, exists, 0.0).to(tl.float32)
    target = out + row.to(tl.int64) * out_row_stride + column.to(tl.int64) * out_column_stride
    store(target, tl.sum(red, 1) * scale_0 + shift_0, low, high, inside)
    target += out_channel_stride  # not twice the stride at once, which may be beyond 32 bits
    store(target, tl.sum(green, 1) * scale_1 + shift_1, low, high, inside)
    target += out_channel_stride
    store(target, tl.sum(blue, 1) * scale_2 + shift_2, low, high, inside)
