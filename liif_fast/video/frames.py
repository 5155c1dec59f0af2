"""Films and sequences of frames in Python: enlarged one after the other, whole or through a window of each."""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from ..field import Box
from ..upscaler import Upscaler
from .colors import Colors, has_alpha
from .planes import Converter, to_array
from .source import Source, Stamped

if TYPE_CHECKING:
    import av


def upscale(
    source: str | bytes | os.PathLike[str] | Iterable[Any],
    *,
    scale: float | tuple[float, float] | None = None,
    size: tuple[int, int] | None = None,
    longest: int | None = None,
    boxes: Iterable[Box | None] | None = None,
    upscaler: Upscaler | None = None,
    at_once: int | None = None,
    deinterlace: bool = False,
) -> Iterator[Any]:
    """The frames of a film at another size, in order, each bit for bit what ``Upscaler`` makes of it alone.

    Args:
        source: a file, whose frames come as numpy [H, W, 3] RGB (one channel of a gray film), uint8 or, of more than
            8 bits, uint16, as they are stored: not turned as players turn those of a telephone; or frames, of the kinds
            that `Upscaler` takes, which come back as the same kind, or ``av.VideoFrame``, which come back in the same
            pixel format with their time and colours.
        scale, size, longest: as for `Upscaler`, of the frame or of its box.
        boxes: (top, left, bottom, right) in pixels, or None for the whole, one for each frame: to pan, to stabilise, to
            follow something. Ends with the shorter of the two.
        upscaler: None is ``Upscaler()``.
        at_once: as for `Upscaler.stream`; of no use with ``boxes``.
        deinterlace: of a file whose frames are interlaced, which are refused otherwise.

    Raises, as the frames come, VideoError for a file that is no film or is damaged, and what `Upscaler.stream` raises.
    """
    upscaler = upscaler or Upscaler()
    request = {"scale": scale, "size": size, "longest": longest}
    if isinstance(source, (str, bytes, os.PathLike)):
        return _of_file(os.fsdecode(source), upscaler, request, boxes, at_once, deinterlace)
    return _of_frames(source, upscaler, request, boxes, at_once)


def _of_file(
    path: str,
    upscaler: Upscaler,
    request: dict[str, Any],
    boxes: Iterable[Box | None] | None,
    at_once: int | None,
    deinterlace: bool,
) -> Iterator[Any]:
    with Source(path, deinterlace=deinterlace) as source:
        pictures = (picture for picture, _ in pictures_of(source, by=Converter(upscaler.device)))
        yield from map(to_array, _enlarged(pictures, upscaler, request, boxes, at_once))
        source.check()


def _of_frames(
    frames: Iterable[Any],
    upscaler: Upscaler,
    request: dict[str, Any],
    boxes: Iterable[Box | None] | None,
    at_once: int | None,
) -> Iterator[Any]:
    there, back = Converter(upscaler.device), Converter(upscaler.device)
    waiting: deque[av.VideoFrame | None] = deque()

    def pictures() -> Iterator[Any]:
        for frame in frames:
            decoded = hasattr(frame, "planes") and hasattr(frame, "pts")  # an av.VideoFrame, without importing av
            if decoded and has_alpha(frame.format.name):
                text = f"the alpha channel of {frame.format.name} is left out; as arrays [H, W, 4] frames keep it"
                warnings.warn(text, stacklevel=2)
            waiting.append(frame if decoded else None)
            yield there.picture(frame) if decoded else frame

    for large in _enlarged(pictures(), upscaler, request, boxes, at_once):
        frame = waiting.popleft()
        if frame is None:
            yield large
            continue
        made = back.frame(large, frame.format.name, Colors.of(frame))
        made.pts, made.duration = frame.pts, frame.duration
        if frame.time_base is not None:
            made.time_base = frame.time_base
        yield made


def _enlarged(
    pictures: Iterator[Any],
    upscaler: Upscaler,
    request: dict[str, Any],
    boxes: Iterable[Box | None] | None,
    at_once: int | None,
) -> Iterator[Any]:
    if boxes is None:
        yield from upscaler.stream(pictures, at_once=at_once, **request)
        return
    for picture, box in zip(pictures, boxes, strict=False):
        yield upscaler.encode(picture).render(box=box, **request)


def pictures_of(
    source: Source, first: int = 0, count: int | None = None, by: Converter | None = None
) -> Iterator[tuple[Any, Stamped]]:
    """The pictures of a film from frame ``first`` on, ``count`` of them, each with the frame it comes from.

    They are those that ``by`` makes; None makes arrays.
    """
    by = by or Converter()
    stop = None if count is None else first + count
    for stamped in islice(source.frames(), first, stop):
        yield by.picture(stamped.frame, source.clip.colors), stamped


def enlarged(
    pictures: Iterable[tuple[Any, Stamped]], upscaler: Upscaler, size: tuple[int, int]
) -> Iterator[tuple[Any, int, int]]:
    """(picture, start, duration) of each, at another size."""
    times: deque[tuple[int, int]] = deque()

    def plain() -> Iterator[Any]:
        for picture, stamped in pictures:
            times.append((stamped.start, stamped.duration))
            yield picture

    for large in upscaler.stream(plain(), size=size):
        yield large, *times.popleft()
