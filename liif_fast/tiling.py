"""Output tiles and the piece of the input each needs.

The encoder sees a crop with a halo, at least as wide as its receptive field, so that a tile's features equal those of
the whole picture; the decoder then reads only cells inside the halo.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

# Crops begin and end on multiples of it, or where the picture does: a fast convolution works on so many lines at once,
# and whatever the tiles, on the same.
LINES = 4


@dataclass(frozen=True)
class Span:
    """Along one axis: outputs [start, stop) need input pixels [crop_start, crop_stop)."""

    start: int
    stop: int
    crop_start: int
    crop_stop: int


def spans(index: torch.Tensor, cells: int, halo: int, length: int) -> Iterator[Span]:
    """Cut an axis into spans of whole outputs whose cells lie within ``length`` consecutive ones, halo not counted.

    ``index`` int32 [sides, outputs] never falls along an axis, so the first side's first and the last side's last entry
    bound a span.
    """
    low, high = index.amin(dim=0), index.amax(dim=0)
    outputs, start = index.shape[1], 0
    while start < outputs:
        first = int(low[start])
        # The last output that reads no cell past the span; at least one, however short `length` is.
        stop = max(start + 1, int(torch.searchsorted(high, first + length)))
        yield Span(start, stop, *crop(first, int(high[stop - 1]) + 1, cells, halo))
        start = stop


def touched(index: torch.Tensor, first: int, last: int, cells: int, halo: int) -> Span:
    """The outputs along an axis that input pixels [first, last) reach, through the features around them."""
    start = int(torch.searchsorted(index.amax(dim=0), first - halo))
    stop = int(torch.searchsorted(index.amin(dim=0), last + halo))
    return Span(start, stop, *crop(int(index[:, start].min()), int(index[:, stop - 1].max()) + 1, cells, halo))


def around(halo: int) -> int:
    """The most lines that a crop has along an axis beside those of its own cells."""
    return 2 * (halo + LINES - 1)


def least_side(halo: int) -> int:
    """Cells along an axis of the smallest tile worth encoding: half as many as lie around it, nine times the work of no
    halo. Below it lies a cliff, where hardly any memory is saved: a single cell has a halo too."""
    return max(1, around(halo) // 2)


def least_cells(halo: int) -> int:
    """Cells of that tile with its halo."""
    return (least_side(halo) + around(halo)) ** 2


def crop(first: int, last: int, cells: int, halo: int) -> tuple[int, int]:
    """What of ``cells`` input pixels cells [first, last) need."""
    return max(0, first - halo) // LINES * LINES, min(cells, -(-(last + halo) // LINES) * LINES)


def tile_shape(height: int, width: int, halo: int, max_cells: int, max_height: int) -> tuple[int, int]:
    """Cells (height, width) of a tile, halo not counted, that waste the fewest cells on halos.

    A tile with its halo holds at most ``max_cells`` and its own cells are at most ``max_height`` high. A budget too
    small for a single cell and its halo gives single cells: the least that can be encoded.
    """
    margin = around(halo)
    best, best_cost = (1, 1), math.inf
    for columns in range(1, width + 1):
        tile_width = math.ceil(width / columns)
        crop_width = min(width, tile_width + margin)
        tile_height = height if crop_width * height <= max_cells else max_cells // crop_width - margin
        tile_height = min(tile_height, max_height, height)
        if tile_height < 1:
            continue
        rows = math.ceil(height / tile_height)
        tile_height = math.ceil(height / rows)
        cost = columns * crop_width * rows * min(height, tile_height + margin)
        if cost < best_cost:
            best, best_cost = (tile_height, tile_width), cost
        elif cost > 4 * best_cost and crop_width < width:
            break  # ever more halo from here on
    return best
