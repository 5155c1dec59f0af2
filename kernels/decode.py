"""LIIF's decoder as one kernel: from the projected features to stored pixels, nothing in between leaves the chip.

The contract is csrc/decode.h; what follows is how it is laid out here.

A program decodes ``ROWS`` queries, a row each: ``ROWS / SIDES**2`` pixels, every one with its neighbouring cells side
by side, so that blending is a sum over adjacent rows.

Layers go in pairs: a chunk of the first one's outputs is made, rectified and at once multiplied into the sums of all
outputs of the second, in registers. So of two layers one's activations never exist as a whole, there is room for the
other's, and weights are read in a loop that the compiler can pipeline: those of the next chunks are on their way into
shared memory while tensor cores work.

All arithmetic but the blend is matrix products on tensor cores with float32 sums:

- First layer: ``relu(z + cell_term + queries @ first)``. A query is its two offsets; they and their weights are sums of
  two numbers of the storage type, high and low, which keeps nearly all of float32's accuracy.
- Last layer: its three outputs are padded to a product's least width, which has room for its weights' low halves.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .ends import answer, ask, gather, plus_cell, rectified, tile
from .pixels import VARYING

TABLES = ["y_index", "y_offset", "y_weight", "x_index", "x_offset", "x_weight"]


@triton.jit
def _dot(a, b, acc):
    return tl.dot(a, b, acc, input_precision="tf32x3")  # which float32 alone takes notice of


@triton.jit
def _biases(bias, n, ROWS: tl.constexpr, WIDE: tl.constexpr):
    """[ROWS, WIDE] of the n-th so many numbers of ``bias``."""
    return tl.zeros((ROWS, WIDE), tl.float32) + tl.load(bias + n * WIDE + tl.arange(0, WIDE))[None, :]


@triton.jit(do_not_specialize=VARYING, do_not_specialize_on_alignment=["out", *TABLES])
def decode(
    z, z_columns,
    y_index, y_offset, y_weight, rows,
    x_index, x_offset, x_weight, columns, x_size, across, tile_bits, paired,
    cell_term, first, weights, biases, last, last_bias,
    scale_0, scale_1, scale_2, shift_0, shift_1, shift_2, low, high,
    out, out_row_stride, out_column_stride, out_channel_stride,
    CHANNELS: tl.constexpr, WIDTHS: tl.constexpr, SIDES: tl.constexpr, ROWS: tl.constexpr, CHUNK: tl.constexpr,
    WIDE: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """One program for each block of ROWS / SIDES**2 pixels.

    Args:
        z: [.., .., CHANNELS] float16 or bfloat16, rows ``z_columns`` cells apart.
        y_*, x_*: tables [SIDES, rows] and [SIDES, x_size], see `grid.Axis`.
        across, tile_bits: of blocks, see `pixels.place`.
        paired: 0: a grid, ``columns`` is ``x_size``. 1: a list of ``rows`` points, ``columns`` is 1.
        cell_term: [CHANNELS] float32.
        first: [16, WIDTHS[0]]: high, high and low part of the y offset's weights, the same of x, zeros.
        weights, biases: tuples of [WIDTHS[i], WIDTHS[i + 1]] in the type of z and [WIDTHS[i + 1]] float32.
        last: [WIDTHS[-1], 16]: high and low part of the weights of red, of green, of blue, zeros.
        last_bias: [3] float32. scale, shift, low, high: float32, as in csrc/decode.h.
        out: uint8, uint16 or any float; strides in elements.
        WIDTHS: powers of two; what exceeds the network's widths is zeros. With but one of them ``first`` and ``last``
            are float32, multiplied as sums of three tf32; else they have the type of z.
        CHUNK, WIDE: outputs in a chunk of the first layer and of others that are the first of a pair.
        STAGES: of the pipeline: so many chunks' weights are in shared memory.
    """
    block = tl.program_id(0)
    cell, share, queries = ask(
        block, z_columns, y_index, y_offset, y_weight, rows, x_index, x_offset, x_weight, columns, x_size,
        across, tile_bits, paired, first, SIDES, ROWS,
    )  # fmt: skip
    HIDDEN: tl.constexpr = len(WIDTHS) - 1
    if HIDDEN:
        second = weights[0]
        acc = _biases(biases[0], 0, ROWS, WIDTHS[1])
    else:
        second = last
        acc = tl.zeros((ROWS, 16), tl.float32)
    for n in tl.range(0, WIDTHS[0] // CHUNK, num_stages=STAGES):
        part = plus_cell(gather(z, cell, n, CHANNELS, CHUNK), cell_term, n, CHANNELS, CHUNK)
        part = _dot(queries, tile(first, 0, n, WIDTHS[0], 16, CHUNK), part)
        acc = _dot(rectified(part, last), tile(second, n, 0, acc.shape[1], CHUNK, acc.shape[1]), acc)
    for i in tl.static_range(1, HIDDEN, 2):
        h = rectified(acc, last)
        if i + 1 < HIDDEN:
            second = weights[i + 1]
            acc = _biases(biases[i + 1], 0, ROWS, WIDTHS[i + 2])
        else:
            second = last
            acc = tl.zeros((ROWS, 16), tl.float32)
        for n in tl.range(0, WIDTHS[i + 1] // WIDE, num_stages=STAGES):
            part = _biases(biases[i], n, ROWS, WIDE)
            part = _dot(h, tile(weights[i], 0, n, WIDTHS[i + 1], WIDTHS[i], WIDE), part)
            acc = _dot(rectified(part, last), tile(second, n, 0, acc.shape[1], WIDE, acc.shape[1]), acc)
    if HIDDEN % 2:
        acc = _dot(rectified(acc, last), tile(last, 0, 0, 16, WIDTHS[HIDDEN], 16), tl.zeros((ROWS, 16), tl.float32))
    answer(
        acc, share, block, rows, columns, across, tile_bits, paired, last_bias,
        scale_0, scale_1, scale_2, shift_0, shift_1, shift_2, low, high,
        out, out_row_stride, out_column_stride, out_channel_stride, SIDES, ROWS,
    )  # fmt: skip
