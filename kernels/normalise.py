"""A picture's samples as an encoder takes them, in one pass over each, from wherever they lie."""

from __future__ import annotations

import triton
import triton.language as tl

# Values of a program, and its warps.
VALUES, WARPS = 1024, 4


@triton.jit(
    do_not_specialize=["values", "columns", "row_stride", "column_stride", "channel_stride"],
    do_not_specialize_on_alignment=["image"],
)
def normalise(
    image, row_stride, column_stride, channel_stride,
    white, mean_0, mean_1, mean_2, std_0, std_1, std_2,
    out, values, columns,
    VALUES: tl.constexpr,
):  # fmt: skip
    """One program of ceil(values / VALUES).

    Args:
        image: uint8, uint16, float16 or float32, strides in elements; gray has a channel stride of 0.
        white: float32, of the image's type.
        mean, std: float32, of each colour; what is stored is (image / white - mean) / std, rounded at every step.
        out: [rows, columns, 3] float16 or bfloat16, contiguous; ``values`` in all.
    """
    start = tl.program_id(0).to(tl.int64) * VALUES
    at = start + tl.arange(0, VALUES)
    inside = at < values
    along = (start % 3).to(tl.int32) + tl.arange(0, VALUES)
    color = along % 3
    # Within 32 bits: divisions of 64 would take longer than the memory.
    cell = (start // 3 % columns).to(tl.int32) + along // 3
    row = (start // 3 // columns).to(tl.int64) + cell // columns
    offset = row * row_stride + (cell % columns).to(tl.int64) * column_stride + color.to(tl.int64) * channel_stride
    sample = tl.load(image + offset, inside, 0).to(tl.float32)
    mean = tl.where(color == 0, mean_0, tl.where(color == 1, mean_1, mean_2))
    std = tl.where(color == 0, std_0, tl.where(color == 1, std_1, std_2))
    value = tl.div_rn(tl.div_rn(sample, white) - mean, std)
    tl.store(out + at, value.to(out.dtype.element_ty), inside)
