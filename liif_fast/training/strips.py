"""Strips to look at: one detail of a picture by several methods, side by side."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..output import writer
from .testset import to_bytes

SIDE = 96  # of the detail, in HR pixels; less in smaller pictures
ENLARGE = 3
_BAND, _FONT, _GAP = 22, 14, 4


def detail(truth: np.ndarray, worse: np.ndarray, better: np.ndarray, border: int) -> tuple[slice, slice]:
    """The window, rows and columns, where ``better`` gains most over ``worse`` in squared error, ``border`` left out.

    All are [H, W, 3] in [0, 1]; H and W at least 2 * border + 1.
    """
    gain = ((worse - truth) ** 2 - (better - truth) ** 2).sum(-1)[border:-border, border:-border]
    high, wide = (min(SIDE, side) for side in gain.shape)
    sums = np.zeros((gain.shape[0] + 1, gain.shape[1] + 1))
    sums[1:, 1:] = gain.cumsum(0).cumsum(1)
    window = sums[high:, wide:] - sums[:-high, wide:] - sums[high:, :-wide] + sums[:-high, :-wide]
    top, left = (int(i) + border for i in np.unravel_index(window.argmax(), window.shape))
    return slice(top, top + high), slice(left, left + wide)


def strip(panels: Sequence[tuple[str, np.ndarray]], window: tuple[slice, slice]) -> np.ndarray:
    """The window of each panel (label, [H, W, 3] in [0, 1]) in a row, enlarged by whole pixels, under its label: uint8
    [h, w, 3]."""
    crops = [to_bytes(image[window]).repeat(ENLARGE, 0).repeat(ENLARGE, 1) for _, image in panels]
    high, wide = crops[0].shape[:2]
    sheet = Image.new("RGB", (len(panels) * (wide + _GAP) - _GAP, _BAND + high), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_FONT)
    for i, ((label, _), crop) in enumerate(zip(panels, crops, strict=True)):
        left = i * (wide + _GAP)
        while len(label) > 1 and draw.textlength(label, font) > wide - 4:
            label = f"{label.rstrip('…')[:-1]}…"
        draw.text((left + 2, 2), label, fill="black", font=font)
        sheet.paste(Image.fromarray(crop), (left, _BAND))
    return np.asarray(sheet)


def save(path: str | os.PathLike[str], picture: np.ndarray) -> None:
    """As a file, whole or not at all; an older one is replaced."""
    with writer(path, picture.shape, force=True) as out:
        out.write(picture)
