"""The decoder of decode.py with its hidden layers' products in float8 (e4m3): twice the rate of halves on tensor cores.

What a hidden layer reads is quantised per channel c with a scale and a zero point, ``q = e4m3(h / scale + zero)``, so
that a rectifier is a maximum with the zero point, which is a number of the type: what is off stays exactly off, and the
sign, which rectified values have no use for, halves the error of the others. Scales are folded into the weights around
them, zero points into biases; an output of a layer, sum ``acc``, becomes what the next one reads by

    max(acc * multiplier + bias, zero), at most 448, the largest of the type, rounded to nearest even.

The first layer, the blend and the last layer are those of decode.py.

With ``RESIDENT`` a program loads all tiles of weights but the last layer's once, into shared memory, and works on one
block of ROWS queries after the other; else it loads what it multiplies with. (The last layer's would take the room in
which wider chunks of z come in.)
"""

from __future__ import annotations

import triton
import triton.language as tl

from .ends import answer, ask, gather, plus_cell, rectified, tile
from .pixels import VARYING

TABLES = ["y_index", "y_offset", "y_weight", "x_index", "x_offset", "x_weight"]


@triton.jit
def _scaled(acc, steps, column, WIDTH: tl.constexpr):
    """``acc`` of the outputs from ``column`` on, times multiplier plus bias: ``steps`` is [multiplier, bias][WIDTH]."""
    at = steps + column + tl.arange(0, acc.shape[1])
    return acc * tl.load(at)[None, :] + tl.load(at + WIDTH)[None, :]


@triton.jit
def _quantized(x, ZERO: tl.constexpr):
    """To e4m3, of each 16 columns (2, 4, 2) the middle axis first.

    That is the order in which one thread's sums of a product are four neighbours of an operand of the next, so nothing
    has to move between threads. `liif_fast.backends.triton.pack` orders the weights' inputs likewise.
    """
    ROWS: tl.constexpr = x.shape[0]
    COLUMNS: tl.constexpr = x.shape[1]
    q = tl.maximum(x, ZERO).to(tl.float8e4nv)
    q = tl.reshape(q, (ROWS, COLUMNS // 16, 2, 4, 2))
    return tl.reshape(tl.permute(q, (0, 1, 3, 2, 4)), (ROWS, COLUMNS))


@triton.jit
def _tile(weight, n, k, INTO: tl.constexpr, DEPTH: tl.constexpr, WIDE: tl.constexpr):
    """[DEPTH inputs, WIDE outputs] of [out, INTO]: inputs are neighbours in memory, as these products read them."""
    into, out = k * DEPTH + tl.arange(0, DEPTH), n * WIDE + tl.arange(0, WIDE)
    return tl.load(weight + out[None, :] * INTO + into[:, None])


@triton.jit
def _block(
    block, of_first, tiles,
    z, z_columns,
    y_index, y_offset, y_weight, rows,
    x_index, x_offset, x_weight, columns, x_size, across, tile_bits, paired,
    cell_term, first, weights, steps, last, last_bias,
    scale_0, scale_1, scale_2, shift_0, shift_1, shift_2, low, high,
    out, out_row_stride, out_column_stride, out_channel_stride,
    CHANNELS: tl.constexpr, WIDTHS: tl.constexpr, SIDES: tl.constexpr, ROWS: tl.constexpr, CHUNK: tl.constexpr,
    WIDE: tl.constexpr, RESIDENT: tl.constexpr, ZERO: tl.constexpr,
):  # fmt: skip
    """Decodes the block of that number; the tiles are all there are with RESIDENT, else none."""
    cell, share, queries = ask(
        block, z_columns, y_index, y_offset, y_weight, rows, x_index, x_offset, x_weight, columns, x_size,
        across, tile_bits, paired, first, SIDES, ROWS,
    )  # fmt: skip
    h = ()
    part = gather(z, cell, 0, CHANNELS, CHUNK)
    for n in tl.static_range(WIDTHS[0] // CHUNK):
        acc = plus_cell(part, cell_term, n, CHANNELS, CHUNK) + ZERO
        if n + 1 < WIDTHS[0] // CHUNK:
            part = gather(z, cell, n + 1, CHANNELS, CHUNK)  # on its way during the products
        if RESIDENT:
            acc = tl.dot(queries, of_first[n], acc)
        else:
            acc = tl.dot(queries, tile(first, 0, n, WIDTHS[0], 16, CHUNK), acc)
        h = h + (_quantized(acc, ZERO),)
    for i in tl.static_range(len(WIDTHS) - 1):
        hidden = ()
        for n in tl.static_range(WIDTHS[i + 1] // WIDE):
            acc = tl.zeros((ROWS, WIDE), tl.float32)
            for k in tl.static_range(len(h)):
                if RESIDENT:
                    acc = tl.dot(h[k], tiles[i][n * len(h) + k], acc)
                else:
                    acc = tl.dot(h[k], _tile(weights[i], n, k, WIDTHS[i], WIDE if i else CHUNK, WIDE), acc)
            acc = _scaled(acc, steps[i], n * WIDE, WIDTHS[i + 1])
            if i == len(WIDTHS) - 2:
                hidden = hidden + (rectified(acc, last),)
            else:
                hidden = hidden + (_quantized(acc, ZERO),)
        h = hidden
    acc = tl.zeros((ROWS, 16), tl.float32)
    for k in tl.static_range(len(h)):
        acc = tl.dot(h[k], tile(last, k, 0, 16, WIDE, 16), acc)
    answer(
        acc, share, block, rows, columns, across, tile_bits, paired, last_bias,
        scale_0, scale_1, scale_2, shift_0, shift_1, shift_2, low, high,
        out, out_row_stride, out_column_stride, out_channel_stride, SIDES, ROWS,
    )  # fmt: skip


@triton.jit(do_not_specialize=[*VARYING, "blocks"], do_not_specialize_on_alignment=["out", *TABLES])
def decode_fp8(
    z, z_columns,
    y_index, y_offset, y_weight, rows,
    x_index, x_offset, x_weight, columns, x_size, across, tile_bits, paired,
    cell_term, first, weights, steps, last, last_bias,
    scale_0, scale_1, scale_2, shift_0, shift_1, shift_2, low, high,
    out, out_row_stride, out_column_stride, out_channel_stride, blocks,
    CHANNELS: tl.constexpr, WIDTHS: tl.constexpr, SIDES: tl.constexpr, ROWS: tl.constexpr, CHUNK: tl.constexpr,
    WIDE: tl.constexpr, RESIDENT: tl.constexpr, ZERO: tl.constexpr,
):  # fmt: skip
    """Any number of programs, which share ``blocks`` blocks of ROWS / SIDES**2 pixels.

    Args as of `decode.decode`, but z, first and last are float16, there are at least two WIDTHS, and
        weights: a tuple of [WIDTHS[i + 1], WIDTHS[i]] e4m3, inputs in the order of `_quantized`.
        steps: a tuple of [2, WIDTHS[i + 1]] float32: multiplier and bias of the layer's outputs.
    """
    of_first, tiles = (), ()
    if RESIDENT:
        for n in tl.static_range(WIDTHS[0] // CHUNK):
            of_first = of_first + (tile(first, 0, n, WIDTHS[0], 16, CHUNK),)
        for i in tl.static_range(len(WIDTHS) - 1):
            of_layer = ()
            for n in tl.static_range(WIDTHS[i + 1] // WIDE):
                for k in tl.static_range(WIDTHS[i] // (WIDE if i else CHUNK)):
                    of_layer = of_layer + (_tile(weights[i], n, k, WIDTHS[i], WIDE if i else CHUNK, WIDE),)
            tiles = tiles + (of_layer,)
        for block in tl.range(tl.program_id(0), blocks, tl.num_programs(0)):
            _block(
                block, of_first, tiles,
                z, z_columns,
                y_index, y_offset, y_weight, rows,
                x_index, x_offset, x_weight, columns, x_size, across, tile_bits, paired,
                cell_term, first, weights, steps, last, last_bias,
                scale_0, scale_1, scale_2, shift_0, shift_1, shift_2, low, high,
                out, out_row_stride, out_column_stride, out_channel_stride,
                CHANNELS, WIDTHS, SIDES, ROWS, CHUNK, WIDE, RESIDENT, ZERO,
            )  # fmt: skip
    else:
        # Not in a loop, out of which the compiler would keep more than there are registers.
        _block(
            tl.program_id(0), of_first, tiles,
            z, z_columns,
            y_index, y_offset, y_weight, rows,
            x_index, x_offset, x_weight, columns, x_size, across, tile_bits, paired,
            cell_term, first, weights, steps, last, last_bias,
            scale_0, scale_1, scale_2, shift_0, shift_1, shift_2, low, high,
            out, out_row_stride, out_column_stride, out_channel_stride,
            CHANNELS, WIDTHS, SIDES, ROWS, CHUNK, WIDE, RESIDENT, ZERO,
        )  # fmt: skip
