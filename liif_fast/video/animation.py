"""An animated picture enlarged into another: GIF, WebP, PNG or AVIF, written by Pillow."""

from __future__ import annotations

import io
import os
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np

from ..output import SUFFIXES, check_place, one_line_errors, whole_file
from .animation_source import BLINK, Animation
from .encoding import Choice
from .errors import VideoError
from .film import FilmMeter, Job, Made, Preview
from .palette import with_palette

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..upscaler import Upscaler

# Pillow's name of each format, and the longest side in pixels.
FORMATS = {
    ".gif": ("GIF", 65535), ".webp": ("WEBP", 16383), ".png": ("PNG", 2**31 - 1), ".apng": ("PNG", 2**31 - 1),
    ".avif": ("AVIF", SUFFIXES[".avif"].side),
}  # fmt: skip
_MOST_PLAYS = 65535  # what WebP and GIF can say


def writes(path: str) -> bool:
    """Whether the suffix of a result means an animated picture."""
    return os.path.splitext(path)[1].lower() in FORMATS


def make(job: Job, upscaler: Callable[[], Upscaler], meter: FilmMeter, preview: Preview | None = None) -> Made:
    """Enlarges an animated picture into another, as `film.make` does a film; in one piece.

    Raises VideoError, also for options that only films have, and OSError. Nothing is kept of a run that is broken off.
    """
    name, side = FORMATS[os.path.splitext(job.output)[1].lower()]
    quality = _quality(job, name, preview)
    if os.path.exists(job.output) and os.path.exists(job.input) and os.path.samefile(job.input, job.output):
        raise VideoError(f"{job.output}: the result would replace the input; give it another name")
    check_place(job.output, job.force)
    meter.picture(os.path.basename(job.output))
    animation = Animation.of(job.input)
    size = job.request.target(animation.height, animation.width)
    if max(size) > side:
        raise VideoError(f"{job.output}: {size[1]} x {size[0]} is beyond the {side} pixels a side of {name}")
    _check_memory(job.output, name, animation, size)
    if name == "GIF" and animation.icc_profile:
        warnings.warn(f"{job.output}: GIF has no place for the colour profile (colours may change)", stacklevel=2)
    if name == "AVIF" and animation.plays:
        times = "once" if animation.plays == 1 else f"{animation.plays} times"
        warnings.warn(f"{job.output}: is shown for ever, {job.input} {times}; .webp keeps that", stacklevel=2)
    up = upscaler()
    begun, total = time.perf_counter(), len(animation.durations)

    def pictures() -> Iterator[Image]:
        from PIL import Image

        for done, frame in enumerate(up.stream(animation.frames(), size=size)):
            meter(done + 1, total)
            yield Image.fromarray(frame)

    with whole_file(job.output, job.force) as file, one_line_errors(job.output):
        try:
            file.write(encoded(name, pictures(), animation, quality))
        except OverflowError:  # equal frames are one, which is shown as long as all of them
            raise VideoError(f"{job.output}: a GIF shows no picture for more than 655 s; .webp does") from None
    seconds = time.perf_counter() - begun
    pixels = "pal8" if name == "GIF" else "rgba" if animation.alpha else "rgb24"
    return Made(size[1], size[0], total, 0, seconds, name.lower(), pixels, {}, "")


def _quality(job: Job, name: str, preview: Preview | None) -> int | None:
    """Of WebP and AVIF, None for the usual; VideoError for any other option that only films have."""
    usual = Job(job.input, job.output, job.request, job.choice, force=job.force)
    given = ["preview"] if preview else []
    for found, plain in ((job, usual), (job.choice, Choice(options=job.choice.options))):
        given += [f.name.replace("_", "-") for f in fields(found) if getattr(found, f.name) != getattr(plain, f.name)]
    for option in given:
        raise VideoError(f"{job.output}: --{option} is for films, not for animated pictures")
    quality = None
    for option, value in job.choice.options.items():
        if name not in ("WEBP", "AVIF") or option != "quality":
            raise VideoError(f"{job.output}: {name} has no option {option}; WebP and AVIF have one, quality")
        if not (value.isdecimal() and 1 <= int(value) <= 100):
            raise VideoError(f"{job.output}: quality {value} is not in 1..100")
        quality = int(value)
    return quality


def _check_memory(path: str, name: str, animation: Animation, size: tuple[int, int]) -> None:
    """Refuses what would be too large to keep: of these Pillow keeps all frames, and a copy of each."""
    from .. import memory

    bytes_a_pixel = {"GIF": 2, "PNG": 8 if animation.alpha else 6}.get(name, 0)
    need, free = len(animation.durations) * size[0] * size[1] * bytes_a_pixel, memory.free()
    if need > free:
        raise VideoError(
            f"{path}: {len(animation.durations)} frames of {size[1]} x {size[0]} as {name} need {need / 2**30:.1f} GiB "
            f"of memory, {free / 2**30:.1f} are free; .webp needs little"
        )


class _Rest:
    """Images that are made as they are asked for, to Pillow's encoders of WebP and AVIF one image of several frames."""

    _min_frame = 0  # asked for by Pillow before there is an image

    def __init__(self, images: Iterator[Image], count: int) -> None:
        self._images, self.n_frames = images, count

    def seek(self, number: int) -> None:
        if number == self.n_frames:
            raise EOFError
        self._image = next(self._images)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._image, name)


def encoded(name: str, images: Iterator[Image], animation: Animation, quality: int | None = None) -> bytes:
    """The file: ``images``, RGBA or RGB, with the rest of ``animation``. ``quality``, 1 to 100, is of WebP, None:
    without loss, and of AVIF, None: that of still pictures."""
    durations: list[float] = list(animation.durations)
    plays = min(animation.plays, _MOST_PLAYS)
    options: dict[str, Any] = {"loop": plays}
    if name == "GIF":
        images = with_palette(images, animation)
        durations = _hundredths(durations)
        options["loop"] = None if plays == 1 else max(plays - 1, 0)
        # Frames of which a part is transparent again are drawn on an empty canvas; optimizing would renumber colours.
        options |= {"disposal": 2, "optimize": False} if animation.alpha else {"disposal": 1, "optimize": True}
    else:
        options["icc_profile"] = animation.icc_profile
    if name == "WEBP":
        options |= {"lossless": True} if quality is None else {"quality": quality, "method": 4}
    if name == "AVIF":
        durations = _whole([d or 100 for d in durations])  # which players make of none
        options |= {"quality": quality or SUFFIXES[".avif"].quality, "subsampling": "4:4:4"}
    if name == "PNG":  # a fraction of 16 bits each
        durations = [d if d < 2**16 else min(round(d / 1000), 2**16 - 1) * 1000 for d in durations]
    first = next(images)
    rest: Any = images
    if name == "PNG":  # goes through them twice
        rest = list(images)
    elif name in ("WEBP", "AVIF"):  # would make a list of them
        rest = [_Rest(images, len(durations) - 1)]
    result = io.BytesIO()  # Pillow writing to the file itself would lose the errno of a full disk
    first.save(result, name, save_all=True, append_images=rest, duration=durations, **options)
    return result.getvalue()


def _hundredths(durations: list[float]) -> list[float]:
    """Durations as a GIF has them, without adding up what rounding leaves; short ones are no blink."""
    found, ahead = [], 0.0
    for duration in durations:
        ticks = round((duration + ahead) / 10)
        ticks = max(ticks, 2 if duration > BLINK else 0)
        ahead += duration - 10 * ticks
        ticks = min(ticks, 2**16 - 1)
        found.append(10.0 * ticks)
    return found


def _whole(durations: list[float]) -> list[float]:
    """Durations in whole milliseconds, of which each frame ends where it should."""
    ends = np.round(np.cumsum([0, *durations])).astype(int)
    return np.diff(ends).tolist()
