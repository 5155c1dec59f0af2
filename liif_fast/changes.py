"""What differs between a frame and the one before, so that a sequence computes no more than that.

Where a camera stands still, a figure moves before a drawn background, or a screen is recorded, most pixels stay as they
were, also through a film's codec. An output depends on its cells and so many around them: all others are copied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch

from . import dlpack, pages
from .field import Field
from .image import Planes, bits, unpack
from .stream import Job
from .tiling import LINES, around

# One of so many rows is looked at first: what they show may already be too much.
_STEP = 4 * LINES
# What is computed anew, halos and all, at most, as a share of a frame: it also takes copying.
_WORTH = 0.6


class Part(NamedTuple):
    """Cells [top, bottom) by [left, right)."""

    top: int
    bottom: int
    left: int
    right: int

    def area(self, margin: int, height: int, width: int) -> int:
        """With so many cells around it, of a picture that has no more."""
        tall = min(height, self.bottom + margin) - max(0, self.top - margin)
        return tall * (min(width, self.right + margin) - max(0, self.left - margin))


class Changes:
    """Makes a frame from the result of the one before, where they differ in little: the `Workers`' ``renew``.

    Args:
        field_of: a picture [H, W, channels] as a `Field` whose tiles have the bits of the whole.
        size_of: (height, width) of a result.
    """

    def __init__(
        self, field_of: Callable[[torch.Tensor], Field], size_of: Callable[[int, int], tuple[int, int]]
    ) -> None:
        self._field_of, self._size_of = field_of, size_of

    def __call__(self, frame: Any, before: Job) -> Any:
        """None: it is to be made as a whole."""
        try:
            now, then = unpack(frame), unpack(before.frame)
        except (TypeError, ValueError):  # of which frame, is told in its place
            return None
        if any(len(of.frames) != 1 or of.frames[0].alpha is not None for of in (now, then)):
            return None  # a change of an alpha reaches as far as colours are bled
        new, old = now.frames[0].color, then.frames[0].color
        devices = {new.device.type, old.device.type}
        if devices != {"cpu"} or (new.shape, new.dtype) != (old.shape, old.dtype):
            return None
        field, size = self._field_of(new), self._size_of(*new.shape[:2])
        margin = around(field.encoder.halo)
        parts: list[Part] = []
        for step in (_STEP, 1):
            parts = differing(old, new, 2 * margin, step)
            cells = [part.area(margin, field.height, field.width) for part in parts]
            if sum(cells) > _WORTH * field.height * field.width or max(cells, default=0) > field.max_cells:
                return None
        spans = [field.touched(size, part) for part in parts]
        pixels = sum((y.stop - y.start) * (x.stop - x.start) for y, x in spans)
        if pixels * field.channels * new.itemsize > field.band_bytes:
            return None
        pieces = [field.piece(size, y, x) for y, x in spans]
        try:
            made = before.result()  # not before it is needed: it may be at work
        except Exception:  # raised in its place
            return None
        if isinstance(made, torch.Tensor) and not isinstance(before.frame, torch.Tensor):
            made = dlpack.Held(made)  # what an array of another library became, [H, W, C]
        known = unpack(made).frames[0].color
        picture = pages.like(known, size, known.dtype, known.device).copy_(known)
        for (y, x), piece in zip(spans, pieces, strict=True):
            picture[y.start : y.stop, x.start : x.stop] = piece
        return now.pack([Planes(picture, None)])


def differing(old: torch.Tensor, new: torch.Tensor, apart: int, step: int = 1) -> list[Part]:
    """Parts that hold all pixels in which two pictures [H, W, channels] differ, some ``apart`` pixels or more from one
    another. Of every ``step``-th row only, 1 or a multiple of `LINES`, each lies within one of all rows."""
    height, width, channels = new.shape
    planar = pages.planar(new) and pages.planar(old)
    across = LINES if planar else LINES * channels
    squares = np.zeros((-(-height // LINES), -(-width // LINES)), bool)
    # Lines of samples in the order of memory.
    lines = [picture.unbind(2) if planar else [picture.flatten(1)] for picture in (bits(old), bits(new))]
    for before, now in zip(*lines, strict=True):
        rows = before.numpy()[::step] != now.numpy()[::step]
        if step == 1:
            rows = np.logical_or.reduceat(rows, np.arange(0, height, LINES), axis=0)
        squares[:: -(-step // LINES)] |= np.logical_or.reduceat(rows, np.arange(0, rows.shape[1], across), axis=1)
    return [
        Part(LINES * top, min(height, LINES * bottom), LINES * left, min(width, LINES * right))
        for top, bottom, left, right in _apart(squares, apart // LINES, 0, 0)
    ]


def _apart(squares: np.ndarray, apart: int, top: int, left: int) -> Iterator[Part]:
    """Of a map whose first place is (top, left): cut between rows, then between columns, and again while that helps."""
    for first, last in _runs(np.logical_or.reduce(squares, axis=1), apart):
        rows = squares[first:last]
        columns = list(_runs(np.logical_or.reduce(rows, axis=0), apart))
        for start, stop in columns:
            if len(columns) == 1:
                yield Part(top + first, top + last, left + start, left + stop)
            else:
                yield from _apart(rows[:, start:stop], apart, top + first, left + start)


def _runs(flags: np.ndarray, apart: int) -> Iterator[tuple[int, int]]:
    """[first, last) of the set ones, those in one run that are no more than ``apart`` from one another."""
    places = np.flatnonzero(flags)
    for run in np.split(places, np.flatnonzero(np.diff(places) > apart) + 1):
        if len(run):
            yield int(run[0]), int(run[-1]) + 1
