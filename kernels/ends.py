"""Both ends of LIIF's decoding kernels: what they ask and their first layer; the blend, the colour and its place."""

from __future__ import annotations

import triton
import triton.language as tl

from .pixels import place, store


@triton.jit
def rectified(sums, like):
    """ReLU of float32 ``sums``, of the type of ``like``. Halves are rounded first: a rectified pair of them is one
    register and one instruction. Of bfloat16 Triton would make float32 for that, and bfloat16 again."""
    if like.dtype.element_ty == tl.bfloat16:
        return tl.maximum(sums, 0.0).to(tl.bfloat16)
    value = sums.to(like.dtype.element_ty)
    return tl.maximum(value, tl.zeros_like(value)).to(like.dtype.element_ty)


@triton.jit
def _queries(offset_y, offset_x, like):
    """[ROWS, 16] of the type of ``like``: the offsets' (high, low, high) for weights' (high, high, low), then zeros."""
    lane = tl.arange(0, 16)[None, :]
    value = tl.where(lane < 3, offset_y[:, None], tl.where(lane < 6, offset_x[:, None], 0.0))
    high = value.to(like.dtype.element_ty).to(tl.float32)
    return tl.where((lane == 1) | (lane == 4), value - high, high).to(like.dtype.element_ty)


@triton.jit
def ask(
    block, z_columns,
    y_index, y_offset, y_weight, rows,
    x_index, x_offset, x_weight, columns, x_size, across, tile_bits, paired,
    first, SIDES: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Of each row of a block: its cell in z, its share in the blend, its query."""
    NEIGHBOURS: tl.constexpr = SIDES * SIDES
    line = tl.arange(0, ROWS)
    row, column, inside = place(block, line // NEIGHBOURS, rows, columns, across, tile_bits, paired, ROWS // NEIGHBOURS)
    at_y = line % NEIGHBOURS // SIDES * rows + row
    at_x = line % SIDES * x_size + column
    cell = tl.load(y_index + at_y, inside, 0).to(tl.int64) * z_columns + tl.load(x_index + at_x, inside, 0)
    share = tl.load(y_weight + at_y, inside, 0.0) * tl.load(x_weight + at_x, inside, 0.0)
    queries = _queries(tl.load(y_offset + at_y, inside, 0.0), tl.load(x_offset + at_x, inside, 0.0), first)
    return cell, share, queries


@triton.jit
def tile(weight, k, n, OUT: tl.constexpr, DEPTH: tl.constexpr, WIDE: tl.constexpr):
    """[DEPTH, WIDE] of ``weight`` [in, OUT]: the k-th so many rows and the n-th so many columns."""
    into = tl.arange(0, DEPTH)[:, None] * OUT + tl.arange(0, WIDE)[None, :]
    return tl.load(weight + (k * DEPTH * OUT + n * WIDE) + into)


@triton.jit
def gather(z, cell, n, CHANNELS: tl.constexpr, CHUNK: tl.constexpr):
    """The n-th CHUNK of channels of z, of its type."""
    channel = n * CHUNK + tl.arange(0, CHUNK)
    return tl.load(z + cell[:, None] * CHANNELS + channel[None, :], channel[None, :] < CHANNELS, 0.0)


@triton.jit
def plus_cell(part, cell_term, n, CHANNELS: tl.constexpr, CHUNK: tl.constexpr):
    """What the first layer adds to its queries' products, of the n-th CHUNK of channels, float32."""
    channel = n * CHUNK + tl.arange(0, CHUNK)
    return part.to(tl.float32) + tl.load(cell_term + channel, channel < CHANNELS, 0.0)[None, :]


@triton.jit
def answer(
    acc, share, block, rows, columns, across, tile_bits, paired, last_bias,
    scale_0, scale_1, scale_2, shift_0, shift_1, shift_2, low, high,
    out, out_row_stride, out_column_stride, out_channel_stride,
    SIDES: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Blends the last layer's products ``acc`` [ROWS, 16] and stores the colours."""
    NEIGHBOURS: tl.constexpr = SIDES * SIDES
    PIXELS: tl.constexpr = ROWS // NEIGHBOURS
    color = tl.sum(tl.reshape(acc * share[:, None], (PIXELS, NEIGHBOURS, 16)), 1)
    color = tl.sum(tl.reshape(color, (PIXELS, 8, 2)), 2)
    row, column, inside = place(block, tl.arange(0, PIXELS), rows, columns, across, tile_bits, paired, PIXELS)
    channel = tl.arange(0, 8)[None, :]
    color += tl.load(last_bias + channel, channel < 3, 0.0)
    scale = tl.where(channel == 0, scale_0, tl.where(channel == 1, scale_1, scale_2))
    shift = tl.where(channel == 0, shift_0, tl.where(channel == 1, shift_1, shift_2))
    target = out + row.to(tl.int64)[:, None] * out_row_stride + column.to(tl.int64)[:, None] * out_column_stride
    target += channel.to(tl.int64) * out_channel_stride  # twice the stride may be beyond 32 bits
    store(target, color * scale + shift, low, high, inside[:, None] & (channel < 3))
