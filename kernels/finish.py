"""What follows a convolution, in one pass over its outputs: bias, a sum with other features, the rectifier."""

from __future__ import annotations

import triton
import triton.language as tl

# Values of a program, and its warps.
VALUES, WARPS = 2048, 8


@triton.jit(do_not_specialize=["cells"])
def finish(
    made, bias, other, cells,
    CHANNELS: tl.constexpr, OTHER: tl.constexpr, REPEAT: tl.constexpr, RECTIFY: tl.constexpr,
    VALUES: tl.constexpr,
):  # fmt: skip
    """One program of ceil(cells * CHANNELS / VALUES).

    Args:
        made: [cells, CHANNELS] float16 or bfloat16, replaced by what comes of it.
        bias: float32 [CHANNELS].
        other: [cells, OTHER] of made's type, of which each channel is added to REPEAT neighbouring ones of made, again
            and again; not read where OTHER is 0.
        RECTIFY: whether negative sums become zero.
    """
    start = tl.program_id(0).to(tl.int64) * VALUES
    line = tl.arange(0, VALUES)
    # A multiple of CHANNELS, which tells the compiler that whole vectors are inside.
    inside = start + line < cells.to(tl.int64) * CHANNELS
    # Within 32 bits: divisions of 64 would take longer than the memory.
    along = (start % CHANNELS).to(tl.int32) + line
    channel = along % CHANNELS
    value = tl.load(made + start + line, inside, 0.0).to(tl.float32) + tl.load(bias + channel)
    if OTHER == CHANNELS:
        value += tl.load(other + start + line, inside, 0.0).to(tl.float32)
    elif OTHER > 0:
        cell = start // CHANNELS + along // CHANNELS
        value += tl.load(other + cell * OTHER + channel // REPEAT % OTHER, inside, 0.0).to(tl.float32)
    if RECTIFY:
        value = tl.maximum(value, 0.0, propagate_nan=tl.PropagateNan.ALL)  # or nobody would see them
    tl.store(made + start + line, value.to(made.dtype.element_ty), inside)
