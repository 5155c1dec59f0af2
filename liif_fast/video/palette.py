"""One palette for all frames of a GIF, without dithering: what stands still keeps its very numbers, so that nothing
shimmers and frames are stored as what has changed.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from .animation_source import Animation

if TYPE_CHECKING:
    from PIL.Image import Image

_SAMPLES = 1 << 17  # pixels that a palette is made for
_AT_ONCE = 1 << 16  # colours looked up


def with_palette(images: Iterator[Image], animation: Animation) -> Iterator[Image]:
    """Images with one palette. Alpha becomes all or nothing."""
    from PIL import Image

    colors = _palette(animation)
    nearest, clear = Nearest(colors), len(colors)
    for image in images:
        index = nearest(np.asarray(image.convert("RGB")))
        if animation.alpha:
            index[np.asarray(image.getchannel("A")) < 128] = clear
        found = Image.fromarray(index)
        found.putpalette([*colors.flatten().tolist(), *[0, 0, 0] * animation.alpha])
        if animation.alpha:
            found.info["transparency"] = clear
        yield found


def _palette(animation: Animation) -> np.ndarray:
    """At most 255 colours, uint8 [N, 3], for all that is visible. They are known before the first frame is enlarged: a
    plain enlargement of the source has the same ones, those between two neighbours included."""
    from PIL import Image

    share = _SAMPLES // len(animation.durations) + 1
    samples, half, opaque = [], 0, 0
    for frame in animation.frames():
        large = Image.fromarray(frame).resize((2 * animation.width, 2 * animation.height), Image.Resampling.BILINEAR)
        pixels = np.asarray(large.convert("RGBA")).reshape(-1, 4)
        alpha = pixels[:, 3]
        half += np.count_nonzero((alpha > 16) & (alpha < 240))
        opaque += np.count_nonzero(alpha >= 240)
        visible = pixels[alpha >= 128, :3]
        samples.append(visible[:: len(visible) // share + 1])
    if half > opaque:  # more than the edges of a shape
        text = "GIF has nothing half transparent: what is less than half opaque is gone, all else opaque"
        warnings.warn(f"{text}; .webp and .png keep it", stacklevel=2)
    every = np.concatenate([*samples, np.zeros((1, 3), np.uint8)])
    found = Image.fromarray(every[None]).quantize(255, Image.Quantize.MEDIANCUT, kmeans=2)
    return np.array(found.getpalette(), np.uint8).reshape(-1, 3)


class Nearest:
    """uint8 [H, W, 3] -> uint8 [H, W]: which of a palette's ``colors``, uint8 [N, 3], is nearest to each pixel.

    Pillow takes one that is near; on photographs the exact one is 1 to 2 dB better.
    """

    def __init__(self, colors: np.ndarray) -> None:
        self._colors = colors.astype(np.float32)
        self._lengths = np.square(self._colors).sum(axis=1)
        self._known = np.full(1 << 24, -1, np.int16)

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        red, green, blue = np.moveaxis(pixels.astype(np.int32), -1, 0)
        code = red << 16 | green << 8 | blue
        index = self._known[code]
        if (new := np.unique(code[index < 0])).size:
            for first in range(0, len(new), _AT_ONCE):
                part = new[first : first + _AT_ONCE]
                asked = np.stack([part >> 16, part >> 8 & 255, part & 255], axis=1).astype(np.float32)
                # Whole numbers below 2^24: exact.
                self._known[part] = (self._lengths - 2 * asked @ self._colors.T).argmin(axis=1)
            index = self._known[code]
        return index.astype(np.uint8)
