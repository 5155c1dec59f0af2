"""All coordinate arithmetic: sizes, boxes and points -> the (index, offset, weight) tables the decoder reads.

Positions are in pixels of the input, edge based: pixel ``k`` covers ``[k, k + 1)`` and its centre is ``k + 0.5``.
Everything is computed in float64 and rounded to float32 once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray

from .architecture import FACTOR

Weigh = Callable[[torch.Tensor], torch.Tensor]

# The reference shifts each query by this much, in units of half the picture, before it rounds to the nearest cell: it
# decides ties.
TIE_SHIFT = 1e-6
# Fine lines per output line; see csrc/resample.h.
TAPS = 8
# Below this scale one output pixel covers more of the input than the network has ever seen.
MIN_SCALE = 0.5
_RANGE = "_liif_fast_range"  # a tensor's attribute
# No side of a result may be longer: far beyond any file format, and all offsets stay within 63 bits.
MAX_SIDE = 1 << 24
_SEQUENCES = (tuple, list, np.ndarray)


@dataclass(frozen=True)
class Axis:
    """Where each of N output rows (or columns, or points) looks, for each of S neighbouring cells (2 with local
    ensemble, else 1).

    ``index`` int32 [S, N]: cell of the feature map. ``offset`` float32 [S, N]: query centre minus cell centre in half
    cells, the paper's relative coordinate. ``weight`` float32 [S, N]: blend share, summing to one over S; a pixel's
    four shares are the products of its row's and its column's, which is the paper's area of the opposite rectangle (eq.
    4).
    """

    index: torch.Tensor
    offset: torch.Tensor
    weight: torch.Tensor

    @property
    def size(self) -> int:
        return self.index.shape[1]

    def part(self, start: int, stop: int, origin: int = 0) -> Axis:
        """Outputs ``start`` to ``stop``, for a feature map whose first cell is cell ``origin`` of this one's."""
        index = self.index[:, start:stop] - origin
        return Axis(
            index.contiguous(), self.offset[:, start:stop].contiguous(), self.weight[:, start:stop].contiguous()
        )

    def pick(self, chosen: torch.Tensor, origin: int = 0) -> Axis:
        """As `part`, of the outputs ``chosen`` (indices)."""
        return Axis(
            self.index[:, chosen] - origin, self.offset[:, chosen].contiguous(), self.weight[:, chosen].contiguous()
        )

    def to(self, device: torch.device) -> Axis:
        return Axis(_indices_to(self.index, device), _to(self.offset, device), _to(self.weight, device))


@dataclass(frozen=True)
class Taps:
    """What each of N output rows (or columns, or points) is a sum of, in a picture ``FACTOR`` times as fine as cells.

    ``first`` int32 [N]: the first of ``TAPS`` neighbouring fine lines. ``taps`` float32 [N, TAPS]: their shares,
    summing to one. ``lines``: fine lines there are.
    """

    first: torch.Tensor
    taps: torch.Tensor
    lines: int

    @cached_property
    def index(self) -> torch.Tensor:
        """int32 [2, N]: the first and the last cell that is read."""
        last = (self.first + TAPS - 1).clamp(max=self.lines - 1)
        return torch.stack([self.first // FACTOR, last // FACTOR])

    @property
    def size(self) -> int:
        return self.first.shape[0]

    def part(self, start: int, stop: int, origin: int = 0) -> Taps:
        return Taps(self.first[start:stop] - FACTOR * origin, self.taps[start:stop], self.lines - FACTOR * origin)

    def pick(self, chosen: torch.Tensor, origin: int = 0) -> Taps:
        first = self.first[chosen] - FACTOR * origin
        return Taps(first.contiguous(), self.taps[chosen].contiguous(), self.lines - FACTOR * origin)

    def to(self, device: torch.device) -> Taps:
        return Taps(_indices_to(self.first, device), _to(self.taps, device), self.lines)


def _to(table: torch.Tensor, device: torch.device) -> torch.Tensor:
    """To a GPU without a wait for what it does, such as the features that will be looked up: memory that is not pinned
    has been read when the call returns. From there to the processor it has to be waited for."""
    return table.to(device, non_blocking=device.type == "cuda")


def _indices_to(table: torch.Tensor, device: torch.device) -> torch.Tensor:
    """As `_to`, with the range of the indices, so that nobody waits for a GPU to learn it."""
    moved = _to(table, device)
    if moved is not table and table.numel():
        setattr(moved, _RANGE, indices_in(table))
    return moved


def indices_in(table: torch.Tensor) -> tuple[int, int]:
    """The least and the greatest of a table that is not empty, and was not written to since it came to a device."""
    known: tuple[int, int] | None = getattr(table, _RANGE, None)
    if known is None:
        low, high = torch.stack(table.aminmax()).tolist()  # one wait for a device, not two
        return low, high
    return known


def centres(start: float, stop: float, size: int) -> NDArray[np.float64]:
    """Centres of ``size`` equal output pixels over the window [start, stop)."""
    return start + (np.arange(size, dtype=np.float64) + 0.5) * ((stop - start) / size)


def axis(positions: torch.Tensor | NDArray[np.float64], cells: int, local_ensemble: bool = True) -> Axis:
    """Tables for queries at ``positions`` [N] (pixels of the input) on a feature map of ``cells`` cells along this
    axis, on the device of the positions."""
    positions = _on_their_device(positions)
    query = positions * (2 / cells) - 1  # the paper's coordinates: the picture spans [-1, 1]
    shifts = (-1.0, 1.0) if local_ensemble else (0.0,)
    tie = TIE_SHIFT if local_ensemble else 0.0
    near = torch.stack([query + (shift / cells + tie) for shift in shifts]).clamp(-1 + TIE_SHIFT, 1 - TIE_SHIFT)
    index = (((near + 1) * cells - 1) / 2).round().clamp(0, cells - 1)
    offset = 2 * positions - (2 * index + 1)
    if local_ensemble:
        distance = offset.flip(0).abs()  # of the opposite side
        total = distance.sum(dim=0)
        # Both sides on one cell whose centre is hit exactly: any split will do.
        weight = torch.where(total > 0, distance / total, 0.5)
    else:
        weight = torch.ones_like(offset)
    return Axis(index.int(), offset.float(), weight.float())


def taps(positions: torch.Tensor | NDArray[np.float64], cells: int, weigh: Weigh) -> Taps:
    """Tables for a resampling decoder, for queries as in `axis`; differentiable in what ``weigh`` depends on.

    ``weigh`` gives the share of a fine line from its distance in fine lines, [N, TAPS] each; it must vanish from
    ``TAPS / 2`` on, so that a tap that leaves on one side as another enters makes no step. Shares are divided by their
    sum; those of lines outside the picture go to the line at its edge.
    """
    positions = _on_their_device(positions)
    lines = FACTOR * cells
    at = positions * FACTOR - 0.5  # fine line k has its centre at k
    start = at.floor().long() - (TAPS // 2 - 1)
    line = start[:, None] + torch.arange(TAPS, device=positions.device)
    share = weigh((at[:, None] - line).abs())
    share = share / share.sum(dim=1, keepdim=True)
    first = start.clamp(0, max(0, lines - TAPS))
    slot = line.clamp(0, lines - 1) - first[:, None]
    folded = torch.zeros_like(share).scatter_add(1, slot, share)
    return Taps(first.int(), folded.float(), lines)


def cubic(x: torch.Tensor) -> torch.Tensor:
    """Keys' cubic convolution kernel with a = -1/2."""
    x = x.abs()
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return torch.where(x <= 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def _on_their_device(positions: torch.Tensor | NDArray[np.float64]) -> torch.Tensor:
    """float64. Of an array on the processor, whatever PyTorch's default device is."""
    return (torch.from_numpy(positions) if isinstance(positions, np.ndarray) else positions).to(torch.float64)


def cell(start: float, stop: float, size: float, cell_clamp: float | None) -> float:
    """The paper's cell input: an output pixel's side in half input pixels, ``2 * LR / output``.

    ``cell_clamp`` keeps it at the value of that scale for larger scales, which the network was not trained on; None
    does not.
    """
    side = 2 * (stop - start) / size
    return side if cell_clamp is None else max(side, 2 / cell_clamp)


def output_size(
    height: float,
    width: float,
    scale: float | tuple[float, float] | None = None,
    size: tuple[int, int] | None = None,
    longest: int | None = None,
) -> tuple[int, int]:
    """The one output size (height, width) that exactly one of the three requests means.

    ``scale``: a factor or (vertical, horizontal) factors. ``size``: (height, width). ``longest``: length of the longer
    side, aspect kept. Raises ValueError for none or several of them, for values that are not positive and finite, for
    sides above 2^24 and for scales below 0.5; TypeError for values that are not numbers.
    """
    given = [name for name, value in (("scale", scale), ("size", size), ("longest", longest)) if value is not None]
    if len(given) != 1:
        raise ValueError(f"give exactly one of scale, size, longest; got {', '.join(given) or 'none'}")
    sides: tuple[float, ...]
    if size is not None:
        sides = tuple(_side(v) for v in _pair(size, "size", "(height, width)"))
    elif longest is not None:
        long = _side(longest)
        sides = (long, long * width / height) if height >= width else (long * height / width, long)
    else:
        factors = scale if isinstance(scale, _SEQUENCES) else (scale, scale)
        vertical, horizontal = (factor(v) for v in _pair(factors, "scale", "a number or (vertical, horizontal)"))
        sides = height * vertical, width * horizontal
    if max(sides) >= MAX_SIDE + 1:
        told = f"{sides[1]:.9g} x {sides[0]:.9g} pixels"
        raise ValueError(f"output of {told} is too large: no side may exceed {MAX_SIDE}")
    rows, columns = (max(1, round(side)) for side in sides)
    check_scale(rows, height)
    check_scale(columns, width)
    return rows, columns


def check_scale(size: int, extent: float) -> None:
    """Refuse a scale at which the method no longer makes sense; rounding to whole pixels may undercut it (5 -> 2)."""
    if size + 0.5 < MIN_SCALE * extent:
        raise ValueError(_too_small(size / extent, f" ({extent:g} -> {size} pixels)"))


def _too_small(scale: float, pixels: str = "") -> str:
    return (
        f"scale {scale:.3g}{pixels} is below {MIN_SCALE}: networks look at few input pixels per output pixel, so "
        "smaller results would alias; reduce with an antialiased filter, such as Pillow's resize"
    )


def check_box(
    box: tuple[float, float, float, float] | None, height: int, width: int
) -> tuple[float, float, float, float]:
    """A window (top, left, bottom, right) in input pixels; None is all of it. ValueError for anything
    else, also if it is empty or outside."""
    if box is None:
        return 0.0, 0.0, float(height), float(width)
    try:
        top, left, bottom, right = (float(v) for v in box)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"box must be four numbers (top, left, bottom, right), got {box!r}") from None
    if not (0 <= top < bottom <= height and 0 <= left < right <= width):
        raise ValueError(
            f"box (top, left, bottom, right) = {tuple(box)} must be a non-empty window of the input, {height} high and "
            f"{width} wide"
        )
    return top, left, bottom, right


def _pair(value: object, name: str, meaning: str) -> tuple[object, object]:
    if not isinstance(value, _SEQUENCES) or getattr(value, "ndim", 1) != 1 or len(value) != 2:
        raise ValueError(f"{name} must be {meaning}, got {value!r}")
    return value[0], value[1]


def _side(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"a size must be whole pixels, got {value!r}")
    if value < 1:
        raise ValueError(f"a size must be at least 1 pixel, got {value}")
    if value > MAX_SIDE:
        told = value if value < 10**12 else f"a number of {len(str(value))} digits"
        raise ValueError(f"a size is too large: no side may exceed {MAX_SIDE}, got {told}")
    return int(value)


def is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def factor(value: object) -> float:
    """A scale. TypeError for what is no number, ValueError for one that is not finite, not positive or below 0.5."""
    if not is_number(value):
        raise TypeError(f"a scale must be a number, got {value!r}")
    try:
        scale = float(value)
    except OverflowError:
        raise ValueError("a scale must be finite, got a number beyond all floats") from None
    if not (math.isfinite(scale) and scale > 0):
        raise ValueError(f"a scale must be positive and finite, got {value}")
    if scale < MIN_SCALE:
        raise ValueError(_too_small(scale))
    return scale
