"""LIIF's decoder as one kernel: from the projected features to stored pixels, nothing in between leaves the chip.

The contract is csrc/decode.h; what follows is how it is laid out here.

A program decodes ``ROWS`` queries, a row each: ``ROWS / SIDES**2`` pixels, every one with its neighbouring cells side
by side, so that blending is a sum over adjacent rows. The hidden state never exists as one tensor: it is a tuple of
[ROWS, CHUNK] column chunks, which stay in registers as operands of the next layer's products. Whole [ROWS, width]
tensors would not fit there beside the next layer's sums.

All arithmetic but the blend is matrix products on tensor cores with float32 sums:

- First layer: ``relu(z + cell_term + queries @ first)``. A query is its two offsets; they and their weights are sums of
  two numbers of the storage type, high and low, which keeps nearly all of float32's accuracy.
- Hidden layers: chunk by chunk.
- Last layer: its three outputs are padded to a product's least width, which has room for its weights' low halves.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .ends import answer, ask, gather, product, rectified
from .pixels import VARYING

TABLES = ["y_index", "y_offset", "y_weight", "x_index", "x_offset", "x_weight"]


@triton.jit(do_not_specialize=VARYING, do_not_specialize_on_alignment=["out", *TABLES])
def decode(
    z, z_columns,
    y_index, y_offset, y_weight, rows,
    x_index, x_offset, x_weight, columns, x_size, paired,
    cell_term, first, weights, biases, last, last_bias,
    scale_0, scale_1, scale_2, shift_0, shift_1, shift_2, low, high,
    out, out_row_stride, out_column_stride, out_channel_stride,
    CHANNELS: tl.constexpr, WIDTHS: tl.constexpr, SIDES: tl.constexpr, ROWS: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """One program of ceil(pixels / (ROWS / SIDES**2)).

    Args:
        z: [.., .., CHANNELS] float16 or bfloat16, rows ``z_columns`` cells apart.
        y_*, x_*: tables [SIDES, rows] and [SIDES, x_size], see `grid.Axis`.
        paired: 0: a grid, ``columns`` is ``x_size``. 1: a list of ``rows`` points, ``columns`` is 1.
        cell_term: [CHANNELS] float32.
        first: [16, WIDTHS[0]]: high, high and low part of the y offset's weights, the same of x, zeros.
        weights, biases: tuples of [WIDTHS[i], WIDTHS[i + 1]] in the type of z and [WIDTHS[i + 1]] float32.
        last: [WIDTHS[-1], 16]: high and low part of the weights of red, of green, of blue, zeros.
        last_bias: [3] float32. scale, shift, low, high: float32, as in csrc/decode.h.
        out: uint8, uint16 or any float; strides in elements.
        WIDTHS: multiples of CHUNK; what exceeds the network's widths is zeros. With but one of them ``first`` and
            ``last`` are float32, multiplied as sums of three tf32; else they have the type of z.
    """
    start = tl.program_id(0).to(tl.int64) * (ROWS // SIDES**2)
    cell, share, queries = ask(
        start, z_columns, y_index, y_offset, y_weight, rows, x_index, x_offset, x_weight, columns, x_size, paired,
        first, SIDES, ROWS,
    )  # fmt: skip
    h = ()
    for n in tl.static_range(WIDTHS[0] // CHUNK):
        acc = product((queries,), first, n, gather(z, cell, cell_term, n, CHANNELS, CHUNK), WIDTHS[0], 16)
        h = h + (rectified(acc, last),)
    for i in tl.static_range(len(WIDTHS) - 1):
        hidden = ()
        for n in tl.static_range(WIDTHS[i + 1] // CHUNK):
            channel = n * CHUNK + tl.arange(0, CHUNK)
            acc = tl.zeros((ROWS, CHUNK), tl.float32) + tl.load(biases[i] + channel)[None, :]
            acc = product(h, weights[i], n, acc, WIDTHS[i + 1], CHUNK)
            hidden = hidden + (rectified(acc, last),)
        h = hidden
    acc = product(h, last, 0, tl.zeros((ROWS, 16), tl.float32), 16, CHUNK)
    answer(
        acc, share, start, rows, columns, paired, last_bias,
        scale_0, scale_1, scale_2, shift_0, shift_1, shift_2, low, high,
        out, out_row_stride, out_column_stride, out_channel_stride, SIDES, ROWS,
    )  # fmt: skip
