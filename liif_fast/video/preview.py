"""A strip to look at before a long run: a few frames of a film, bicubic on the left, the network on the right."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from ..output import writer
from ..upscaler import Upscaler
from .frames import pictures_of
from .source import Source

_FRAMES = 3
# A window of each, so that a pixel of the strip is a pixel of the result.
_HEIGHT, _WIDTH = 360, 640


def write_strip(
    path: str,
    force: bool,
    source: str,
    start: Fraction,
    seconds: Fraction,
    deinterlace: bool,
    upscaler: Upscaler,
    size: tuple[int, int],
) -> None:
    """The middle of frames spread over ``seconds`` from ``start`` on, as a picture file; ``size`` is the result's.

    Raises what `output.writer` raises for ``path``.
    """
    rows = []
    for i in range(_FRAMES):
        at = start + seconds * (2 * i + 1) / (2 * _FRAMES)
        with Source(source, at, None, deinterlace) as there:
            found = next(pictures_of(there, 0, 1), None)
        if found is not None:
            rows.append(_pair(found[0], upscaler, size))
    if not rows:
        return
    whole = np.concatenate(rows)
    with writer(path, (whole.shape[0], whole.shape[1], whole.shape[2]), whole.dtype, force=force) as out:
        out.write(whole)


def _pair(picture: np.ndarray, upscaler: Upscaler, size: tuple[int, int]) -> np.ndarray:
    large = upscaler(picture, size=size)
    top, left = (max(0, (n - most) // 2) for n, most in zip(size, (_HEIGHT, _WIDTH), strict=True))
    window = (slice(top, top + _HEIGHT), slice(left, left + _WIDTH))
    return np.concatenate([_bicubic(picture, size)[window], large[window]], axis=1)


def _bicubic(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    from PIL import Image

    top = np.iinfo(picture.dtype).max
    planes = [
        Image.fromarray(picture[..., c].astype(np.float32)).resize(size[::-1], Image.Resampling.BICUBIC)
        for c in range(picture.shape[2])
    ]
    return np.rint(np.clip(np.stack([np.asarray(p) for p in planes], -1), 0, top)).astype(picture.dtype)
