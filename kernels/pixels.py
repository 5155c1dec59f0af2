"""What the decoding kernels share: which pixels a program makes, and how they are stored."""

from __future__ import annotations

import triton
import triton.language as tl

# Arguments whose values and alignment change from call to call must not each compile a kernel anew.
VARYING = [
    "z_columns",
    "rows",
    "columns",
    "across",
    "tile_bits",
    "x_size",
    "paired",
    "out_row_stride",
    "out_column_stride",
    "out_channel_stride",
]


@triton.jit
def place(block, line, rows, columns, across, tile_bits, paired, PIXELS: tl.constexpr):
    """Row and column, int32, of the ``line``-th pixels of a block, and whether they are there.

    A block is a tile of PIXELS pixels, 2**tile_bits of them wide; ``across`` tiles lie side by side. So nothing has to
    be divided but the block's number. A list of points is one column; ``paired``, theirs is the column of their row.
    """
    first = block * PIXELS
    # Counted from the picture's first pixel for the compiler's sake: of numbers within a block, which are the same for
    # all blocks of a program, it would fill registers.
    along = first + line
    row = block // across * (PIXELS >> tile_bits) - (first >> tile_bits) + (along >> tile_bits)
    column = (block % across << tile_bits) + (along & ((1 << tile_bits) - 1))
    return row, column + row * paired, (row < rows) & (column < columns)


@triton.jit
def store(target, value, low, high, mask):
    """Clamped; for integers up to 65535 rounded to nearest even."""
    value = tl.minimum(tl.maximum(value, low), high)
    if not target.dtype.element_ty.is_floating():
        # A float32 this large has no fraction: adding it rounds.
        value = (value + 12582912.0) - 12582912.0
    tl.store(target, value.to(target.dtype.element_ty), mask)
