"""What the decoding kernels share: which pixels a program makes, and how they are stored."""

from __future__ import annotations

import triton
import triton.language as tl

# Arguments whose values and alignment change from call to call must not each compile a kernel anew.
VARYING = [
    "z_columns",
    "rows",
    "columns",
    "x_size",
    "paired",
    "out_row_stride",
    "out_column_stride",
    "out_channel_stride",
]


@triton.jit
def place(start, line, columns, paired):
    """Row and column, int32, of the queries ``start + line``; of a list of points, ``columns`` is 1."""
    along = (start % columns).to(tl.int32) + line
    row = (start // columns).to(tl.int32) + along // columns
    return row, along % columns + row * paired


@triton.jit
def store(target, value, low, high, mask):
    """Clamped; for integers up to 65535 rounded to nearest even."""
    value = tl.minimum(tl.maximum(value, low), high)
    if not target.dtype.element_ty.is_floating():
        # A float32 this large has no fraction: adding it rounds.
        value = (value + 12582912.0) - 12582912.0
    tl.store(target, value.to(target.dtype.element_ty), mask)
