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

from .pixels import VARYING, place, store

TABLES = ["y_index", "y_offset", "y_weight", "x_index", "x_offset", "x_weight"]


@triton.jit
def _queries(offset_y, offset_x, like):
    """[ROWS, 16] of the type of ``like``: the offsets' (high, low, high) for weights' (high, high, low), then zeros."""
    lane = tl.arange(0, 16)[None, :]
    value = tl.where(lane < 3, offset_y[:, None], tl.where(lane < 6, offset_x[:, None], 0.0))
    high = value.to(like.dtype.element_ty).to(tl.float32)
    return tl.where((lane == 1) | (lane == 4), value - high, high).to(like.dtype.element_ty)


@triton.jit
def _product(h, weight, column, acc, OUT: tl.constexpr, DEPTH: tl.constexpr):
    """``acc`` plus the chunks ``h``, DEPTH wide, times ``weight``, [in, OUT], from its column ``column`` on."""
    tile = tl.arange(0, DEPTH)[:, None] * OUT + tl.arange(0, acc.shape[1])[None, :]
    for k in tl.static_range(len(h)):
        acc = tl.dot(h[k], tl.load(weight + (k * DEPTH * OUT + column) + tile), acc, input_precision="tf32x3")
    return acc


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
    NEIGHBOURS: tl.constexpr = SIDES * SIDES
    PIXELS: tl.constexpr = ROWS // NEIGHBOURS
    start = tl.program_id(0).to(tl.int64) * PIXELS
    line = tl.arange(0, ROWS)
    row, column = place(start, line // NEIGHBOURS, columns, paired)
    inside = row < rows
    at_y = line % NEIGHBOURS // SIDES * rows + row
    at_x = line % SIDES * x_size + column
    cell = tl.load(y_index + at_y, inside, 0).to(tl.int64) * z_columns + tl.load(x_index + at_x, inside, 0)
    share = tl.load(y_weight + at_y, inside, 0.0) * tl.load(x_weight + at_x, inside, 0.0)
    queries = _queries(tl.load(y_offset + at_y, inside, 0.0), tl.load(x_offset + at_x, inside, 0.0), first)

    h = ()
    for n in tl.static_range(WIDTHS[0] // CHUNK):
        channel = n * CHUNK + tl.arange(0, CHUNK)
        acc = tl.load(z + cell[:, None] * CHANNELS + channel[None, :], channel[None, :] < CHANNELS, 0.0).to(tl.float32)
        acc += tl.load(cell_term + channel, channel < CHANNELS, 0.0)[None, :]
        acc = _product((queries,), first, n * CHUNK, acc, WIDTHS[0], 16)
        # Rounded first: a rectified pair of halves is one register and one instruction.
        h = h + (tl.maximum(acc.to(last.dtype.element_ty), 0.0),)
    for i in tl.static_range(len(WIDTHS) - 1):
        hidden = ()
        for n in tl.static_range(WIDTHS[i + 1] // CHUNK):
            channel = n * CHUNK + tl.arange(0, CHUNK)
            acc = tl.zeros((ROWS, CHUNK), tl.float32) + tl.load(biases[i] + channel)[None, :]
            acc = _product(h, weights[i], n * CHUNK, acc, WIDTHS[i + 1], CHUNK)
            hidden = hidden + (tl.maximum(acc.to(last.dtype.element_ty), 0.0),)
        h = hidden
    acc = _product(h, last, 0, tl.zeros((ROWS, 16), tl.float32), 16, CHUNK)

    color = tl.sum(tl.reshape(acc * share[:, None], (PIXELS, NEIGHBOURS, 16)), 1)
    color = tl.sum(tl.reshape(color, (PIXELS, 8, 2)), 2)
    row, column = place(start, tl.arange(0, PIXELS), columns, paired)
    channel = tl.arange(0, 8)[None, :]
    color += tl.load(last_bias + channel, channel < 3, 0.0)
    scale = tl.where(channel == 0, scale_0, tl.where(channel == 1, scale_1, scale_2))
    shift = tl.where(channel == 0, shift_0, tl.where(channel == 1, shift_1, shift_2))
    target = out + row.to(tl.int64)[:, None] * out_row_stride + column.to(tl.int64)[:, None] * out_column_stride
    store(
        target + channel * out_channel_stride, color * scale + shift, low, high, (row < rows)[:, None] & (channel < 3)
    )
