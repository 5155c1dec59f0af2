"""A picture's colour and alpha, enlarged together."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F

from . import grid, pages
from .device_memory import give_back, is_full
from .field import Box, Field, Progress
from .image import Planes, bits, bleed
from .pixels import OUT_RANGE

# Cells on each side of an alpha's own, whose least and greatest value it does not leave.
REACH = 2


class DeviceFull(torch.OutOfMemoryError):
    """Not even small tiles fit into its memory."""


class Frame:
    """One picture's colour and alpha, each a field. An alpha that is the same everywhere needs none.

    An enlarged alpha stays between the least and the greatest of the cells around it: what is wholly transparent or
    opaque there stays so, also at the picture's border, where the network sees black beyond.

    Args:
        make_field: of a plane [H, W, channels] and the bytes it may take.
        budget: bytes for all.
    """

    def __init__(self, planes: Planes, make_field: Callable[[torch.Tensor, int], Field], budget: int) -> None:
        self.planes, self.dtype = planes, planes.color.dtype
        self.alpha: Field | None = None
        color = planes.color
        if planes.alpha is not None and bool((planes.alpha != planes.alpha[0, 0]).any()):
            color, budget = bleed(color, planes.alpha), budget // 2
            self.alpha = make_field(planes.alpha, budget)
        self.color = make_field(color, budget)

    def bands(
        self, size: tuple[int, int], box: Box | None, progress: Progress | None, done: int = 0
    ) -> Iterator[tuple[int, Planes]]:
        """From row ``done`` on; where the device is fuller than it said, the rest in smaller tiles."""
        try:
            for start, planes in self._bands(size, box, progress, done):
                yield start, planes
                done = start + len(planes.color)
            return
        except RuntimeError as error:
            if not is_full(error):
                raise
            fields = [self.color, self.alpha] if self.alpha else [self.color]
            if not all([field.shrink() for field in fields]):
                reason = str(error).partition("\n")[0]
                full = f"{self.color.encoder.device} is full, in small tiles too: {reason}"
                raise DeviceFull(full) from None
        give_back()
        yield from self.bands(size, box, progress, done)

    def _bands(
        self, size: tuple[int, int], box: Box | None, progress: Progress | None, first_row: int
    ) -> Iterator[tuple[int, Planes]]:
        device = self.planes.color.device
        # Both fields have one size and one budget, so their bands are the same rows.
        alphas = self.alpha.bands(size, box, self.dtype, None, first_row) if self.alpha else None
        for start, color in self.color.bands(size, box, self.dtype, progress, first_row):
            alpha = None
            if alphas:
                alpha = self._bounded(next(alphas)[1].to(device), start, size, box)
            elif self.planes.alpha is not None:
                alpha = self.planes.alpha[:1, :1].expand(len(color), color.shape[1], 1)
            yield start, Planes(pages.moved(color, device), alpha)

    def _bounded(self, band: torch.Tensor, start: int, size: tuple[int, int], box: Box | None) -> torch.Tensor:
        """Rows of an enlarged alpha from ``start`` on, between what is around them."""
        assert self.planes.alpha is not None
        top, left, bottom, right = grid.check_box(box, *self.planes.alpha.shape[:2])
        y = _cells(grid.centres(top, bottom, size[0])[start : start + len(band)], self.planes.alpha.shape[0])
        x = _cells(grid.centres(left, right, size[1]), self.planes.alpha.shape[1])
        first = max(0, int(y[0]) - REACH)
        cells = self._known(self.planes.alpha[first : int(y[-1]) + REACH + 1, :, 0])[None]
        greatest, least = (
            (sign * F.max_pool2d(sign * cells, 2 * REACH + 1, 1, REACH))[0, y - first][:, x, None] for sign in (1, -1)
        )
        return torch.minimum(torch.maximum(band.to(torch.float32), least), greatest).to(band.dtype)

    def _known(self, alpha: torch.Tensor) -> torch.Tensor:
        """Values of the alpha as they are drawn."""
        return alpha.to(torch.float32).clamp(0, OUT_RANGE[alpha.dtype])

    def render(self, size: tuple[int, int], box: Box | None, progress: Progress | None) -> Planes:
        planes = self.planes
        bands = self.bands(size, box, progress)
        first = next(bands)
        if len((whole := first[1]).color) == size[0]:  # no need to copy a frame of a film
            return Planes(whole.color, None if whole.alpha is None else whole.alpha.contiguous())
        color = pages.like(planes.color, size, self.dtype, planes.color.device)
        alpha = None if planes.alpha is None else pages.empty(*size, 1, dtype=self.dtype, device=planes.color.device)
        for start, band in itertools.chain([first], bands):
            color[start : start + len(band.color)] = band.color
            if alpha is not None and band.alpha is not None:
                alpha[start : start + len(band.alpha)] = band.alpha
        return Planes(color, alpha)

    def sample(self, points: torch.Tensor, scale: float | None) -> torch.Tensor:
        color, plane = self.color.sample(points, scale), self.planes.alpha
        if self.alpha:
            assert plane is not None
            around = torch.arange(-REACH, REACH + 1, device="cpu")
            y, x = (
                (_cells(at, cells)[:, None] + around).clamp(0, cells - 1)
                for at, cells in zip(points.detach().cpu().double().numpy().T, plane.shape, strict=False)
            )
            near = bits(plane)[y[:, :, None], x[:, None, :], 0].view(plane.dtype)
            near = self._known(near).flatten(1) / OUT_RANGE[plane.dtype]
            least, greatest = (v[:, None].to(color.device) for v in near.aminmax(dim=1))
            alpha = torch.minimum(torch.maximum(self.alpha.sample(points, scale), least), greatest)
            color = torch.cat([color, alpha], dim=1)
        elif plane is not None:
            same = float(plane[0, 0]) / OUT_RANGE[plane.dtype]
            color = torch.cat([color, torch.full_like(color[:, :1], same)], dim=1)
        return color.to(self.planes.color.device)


def _cells(places: np.ndarray, count: int) -> torch.Tensor:
    """The cell of ``count`` that each place, in cells from the first one's edge, is in."""
    return torch.from_numpy(np.floor(places).astype(np.int64)).clamp(0, count - 1)
