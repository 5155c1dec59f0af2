"""A move through one picture: encoded once, then every frame a window of it at a scale of its own."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from ..field import Box
from ..image import join, unpack
from ..output import check_place, whole_file
from .colors import BT709, LIMITED, Colors
from .container import container, container_of
from .encoding import Choice, Encoding
from .errors import check_library, one_line
from .planes import Converter
from .stages import Pipeline

if TYPE_CHECKING:
    from ..upscaler import ImageField, Upscaler

# (left, top, right, bottom) in fractions of the picture.
Window = tuple[float, float, float, float]
FULL: Window = (0.0, 0.0, 1.0, 1.0)
# Hours; what is longer is a slip of the keyboard, of which all windows would be planned first.
_MOST_FRAMES = 1 << 20

# Time 0 to 1 -> way 0 to 1. "smooth" starts and ends at rest.
EASINGS: dict[str, Callable[[float], float]] = {
    "linear": lambda t: t,
    "smooth": lambda t: t * t * (3 - 2 * t),
    "in": lambda t: t * t,
    "out": lambda t: t * (2 - t),
}


def zoom(
    picture: Any,
    output: str | os.PathLike[str],
    *,
    start: Window = FULL,
    to: Window,
    seconds: float = 8.0,
    size: tuple[int, int] = (1080, 1920),
    rate: float = 30.0,
    easing: str = "smooth",
    upscaler: Upscaler | None = None,
    codec: str | None = None,
    crf: float | None = None,
    force: bool = False,
) -> None:
    """A film that moves through a picture from one window to another.

    Args:
        picture: a file, or a picture as for `Upscaler` in numpy; alpha is left out.
        output: .mkv, .mp4, .mov or .webm.
        start, to: the first and the last window, (left, top, right, bottom) in fractions of the picture. See `windows`
            for what becomes of one that has another shape than the film.
        seconds, rate: length, and frames a second.
        size: (height, width) of the film in pixels.
        easing: one of `EASINGS`.
        codec, crf: as for the command line.

    Raises VideoError, ImageError, ValueError, OSError.
    """
    from ..upscaler import Upscaler

    choice = Choice(codec, crf)
    found = read(picture) if isinstance(picture, (str, os.PathLike)) else _array(picture)
    path = os.fspath(output)
    plan = Plan(found.shape[:2], start, to, seconds, size, Fraction(rate).limit_denominator(1001), easing)
    encoding = prepare(path, choice, plan, found, force)
    render(path, encoding, plan, found, upscaler or Upscaler(), force)


class Plan:
    """The windows of all frames. ValueError for what cannot be."""

    def __init__(
        self,
        picture: tuple[int, ...],
        start: Window,
        to: Window,
        seconds: float,
        size: tuple[int, int],
        rate: Fraction,
        easing: str,
    ) -> None:
        if easing not in EASINGS:
            raise ValueError(f"easing must be one of {', '.join(EASINGS)}; got {easing!r}")
        if not (math.isfinite(seconds) and seconds > 0 and 0 < rate <= 1000):
            raise ValueError(
                f"seconds must be positive and frames per second from 0.001 to 1000, got {seconds} and {float(rate):g}"
            )
        if round(seconds * rate) > _MOST_FRAMES:
            raise ValueError(f"{seconds:g} s at {float(rate):g} frames per second are more than {_MOST_FRAMES} frames")
        if min(size) < 1:
            raise ValueError(f"a film is at least 1 x 1 pixels, got {size[1]} x {size[0]}")
        self.size, self.rate = size, rate
        self.frames = max(1, round(seconds * rate))
        height, width = picture[:2]
        first, last = (fitted(window, height, width, size) for window in (start, to))
        ease = EASINGS[easing]
        self.boxes = [_between(first, last, ease(i / max(1, self.frames - 1))) for i in range(self.frames)]


def fitted(window: Window, height: int, width: int, size: tuple[int, int]) -> Box:
    """(top, left, bottom, right) in pixels: the window widened to the film's shape, about its middle.

    It is moved where it would reach over the edge; one that is too large for the picture becomes the largest that is
    not. ValueError for one that is none.
    """
    left, top, right, bottom = window
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise ValueError(f"a window is LEFT,TOP,RIGHT,BOTTOM in fractions from 0 to 1, got {window}")
    shape = size[1] / size[0]
    high = max((bottom - top) * height, (right - left) * width / shape)
    high = min(high, height, width / shape)
    wide = min(high * shape, width)
    middle = ((top + bottom) / 2 * height, (left + right) / 2 * width)
    y = min(max(middle[0] - high / 2, 0.0), height - high)
    x = min(max(middle[1] - wide / 2, 0.0), width - wide)
    return (y, x, min(y + high, float(height)), min(x + wide, float(width)))


def _between(first: Box, last: Box, way: float) -> Box:
    """The size changes by the same factor in the same time, towards a point that stands still: no change of speed is
    felt. Windows of one size are moved evenly."""
    before, after = first[2] - first[0], last[2] - last[0]
    if abs(before - after) > 1e-9 * before:
        way = (before * (after / before) ** way - before) / (after - before)
    edges = (min(max(a + (b - a) * way, min(a, b)), max(a, b)) for a, b in zip(first, last, strict=True))
    top, left, bottom, right = edges
    return (top, left, bottom, right)


def read(path: str | os.PathLike[str]) -> np.ndarray:
    """The picture in a file; see `files.read`. A UserWarning for transparency, which a film has not."""
    from ..files import flatten
    from ..files import read as read_file

    picture = flatten(read_file(path)[0], "film.jpg")  # as for a format without alpha
    if picture.shape[2] in (2, 4):
        way = "liif-fast upscale --background white --scale 1 lays it on a colour"
        warnings.warn(f"{os.fspath(path)}: its alpha channel is left out; {way}", stacklevel=2)
    return picture


def _array(picture: Any) -> np.ndarray:
    """Of one picture, of any kind that `image.unpack` takes; ValueError for a batch."""
    frames = unpack(picture).frames
    if len(frames) != 1:
        raise ValueError(f"a film goes through one picture, got a batch of {len(frames)}")
    return join(frames[0]).cpu().numpy()


def prepare(path: str, choice: Choice, plan: Plan, picture: np.ndarray, force: bool) -> Encoding:
    """All that can be refused before the network is needed, and what the film is encoded with."""
    check_library()
    container_of(path)
    check_place(path, force)
    source = "yuv420p" if picture.dtype == np.uint8 else "yuv420p10le"
    colors = Colors(BT709, LIMITED, BT709, BT709)
    return Encoding.choose(
        path, choice, lambda down, across: plan.size, source, colors, Fraction(1), plan.rate, 1 / plan.rate
    )


def frames(plan: Plan, field: ImageField) -> Iterator[np.ndarray]:
    """The pictures of the film, [H, W, C] of the dtype that was encoded. Equal windows are rendered once."""
    before: Box | None = None
    for box in plan.boxes:
        if box != before:
            picture = _rendered(field, box, plan.size)
        before = box
        yield picture


def _rendered(field: ImageField, box: Box, size: tuple[int, int]) -> np.ndarray:
    """A window that has more pixels than the frame is rendered whole and averaged, or its detail would shimmer."""
    high, wide = size
    factor = math.ceil(max((box[2] - box[0]) / high, (box[3] - box[1]) / wide) - 1e-9)
    if factor <= 1:
        return field.render(box=box, size=size)
    fine = field.render(box=box, size=(high * factor, wide * factor))
    mean = fine.reshape(high, factor, wide, factor, -1).mean((1, 3), dtype=np.float32)
    return np.rint(mean).astype(fine.dtype) if fine.dtype.kind == "u" else mean


def render(
    path: str,
    encoding: Encoding,
    plan: Plan,
    picture: np.ndarray,
    upscaler: Upscaler,
    force: bool,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Writes the film, whole or not at all; ``progress`` is called with frames done and frames in all."""
    color = picture if picture.ndim == 3 else picture[..., None]
    color = color[..., : color.shape[2] - 1 + color.shape[2] % 2]  # 1 of 2 and 3 of 4: without alpha
    converter = Converter()
    with whole_file(path, force) as file, Pipeline("encoding") as pipeline, one_line(path):
        rendered = pipeline.step("rendering", frames(plan, upscaler.encode(color)))
        with container(file, path) as out:
            video: Any = out.add_stream(encoding.codec, rate=encoding.rate)
            encoding.configure(video.codec_context)
            for at, made in enumerate(rendered):
                frame = converter.frame(_whole(made), encoding.format, encoding.colors)
                frame.pts, frame.time_base = at, encoding.time_base
                out.mux(video.encode(frame))
                if progress:
                    progress(at + 1, plan.frames)
            out.mux(video.encode(None))


def _whole(picture: np.ndarray) -> np.ndarray:
    """Floats in 0..1 as uint16."""
    if picture.dtype.kind == "u":
        return picture
    return np.rint(np.clip(picture.astype(np.float32), 0, 1) * 65535).astype(np.uint16)
