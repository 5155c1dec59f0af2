"""How much there is to learn in a part of a picture: edges, rather than foliage or noise, which nobody foretells."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from .metrics import LUMA

_BLOCK = 16  # pixels a side


class Edges:
    """Strengths of the edges in any square of pictures, uint8 [H, W, 3] each.

    A block's strength is sqrt(l1 - l2), l1 and l2 being the eigenvalues of its structure tensor: as gradients that all
    point one way have it, and not those that point anywhere.
    """

    def __init__(self, arrays: Sequence[np.ndarray], device: torch.device) -> None:
        maps = [_integral(_strengths(array)) for array in arrays]
        self._width = torch.tensor([each.shape[1] for each in maps], device=device)
        sizes = torch.tensor([each.size for each in maps], device=device)
        self._start = sizes.cumsum(0) - sizes
        self._sums = torch.from_numpy(np.concatenate([each.ravel() for each in maps])).to(device)

    def strength(self, which: torch.Tensor, top: torch.Tensor, left: torch.Tensor, side: torch.Tensor) -> torch.Tensor:
        """The mean of the blocks that squares of ``side`` pixels touch; int64 of one shape all, and so is the result
        in float64."""
        first_y, first_x = top // _BLOCK, left // _BLOCK
        last_y, last_x = -(-(top + side) // _BLOCK), -(-(left + side) // _BLOCK)

        def above(y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
            return self._sums[self._start[which] + y * self._width[which] + x]

        total = above(last_y, last_x) - above(first_y, last_x) - above(last_y, first_x) + above(first_y, first_x)
        return total / ((last_y - first_y) * (last_x - first_x))


def _strengths(picture: np.ndarray) -> np.ndarray:
    """Of each block, [rows, columns]; those at the end may be smaller."""
    y, x = np.gradient(picture.astype(np.float32) @ np.array(LUMA, np.float32))
    rows, columns = (-(-extent // _BLOCK) for extent in picture.shape[:2])

    def mean(values: np.ndarray) -> np.ndarray:
        missing = [(0, blocks * _BLOCK - extent) for blocks, extent in zip((rows, columns), values.shape, strict=True)]
        return np.pad(values, missing).reshape(rows, _BLOCK, columns, _BLOCK).mean((1, 3), dtype=np.float64)

    yy, xx, yx = mean(y * y), mean(x * x), mean(y * x)
    return np.sqrt(np.hypot(yy - xx, 2 * yx))


def _integral(values: np.ndarray) -> np.ndarray:
    return np.pad(values.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
