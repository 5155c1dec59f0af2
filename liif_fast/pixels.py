"""The last step of every decoder: which pixels there are, what the network's answers become, and where they go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from .image import WHITE

OUT_RANGE = {**WHITE, torch.float16: 1.0, torch.float32: 1.0}


class Pixels(NamedTuple):
    """``out = clamp(scale * answer + shift, low, high)``, rounded to nearest even in whole numbers; see csrc/pixels.h.

    Attributes:
        out: [rows, columns, 3], or, ``paired``, [points, 3]; uint8, uint16, float16 or float32, any strides.
        paired: a list of points, of which each has an entry of its own in both tables.
        scale, shift: a number for each colour.
    """

    out: torch.Tensor
    paired: bool
    scale: list[float]
    shift: list[float]
    low: float
    high: float

    def check(self, rows: int, columns: int) -> None:
        """ValueError and TypeError for an ``out`` that is not of tables with so many entries."""
        shape = (columns, 3) if self.paired else (rows, columns, 3)
        if tuple(self.out.shape) != shape or (self.paired and rows != columns):
            raise ValueError(f"out must be {shape}, got {tuple(self.out.shape)}")
        if self.out.dtype not in OUT_RANGE:
            raise TypeError(f"out must be uint8, uint16, float16 or float32, got {self.out.dtype}")


def output_range(
    mean: Sequence[float], std: Sequence[float], dtype: torch.dtype, peak: float | None
) -> tuple[list[float], list[float], float, float]:
    """``scale``, ``shift``, ``low`` and ``high`` for an output of ``dtype``.

    ``peak``: the value of white, clamped to; None is that of the type; ``inf`` is [0, 1] not clamped at all. ValueError
    for one that the type does not hold.
    """
    free = peak == float("inf")
    white = 1.0 if free else OUT_RANGE.get(dtype, 1.0) if peak is None else peak
    if not dtype.is_floating_point and white > OUT_RANGE.get(dtype, white):
        raise ValueError(f"peak must be at most {OUT_RANGE[dtype]:g}, the largest {dtype}; got {peak}")
    scale, shift = [v * white for v in std], [v * white for v in mean]
    most = torch.finfo(dtype).max if free else white
    return scale, shift, -most if free else 0.0, most
