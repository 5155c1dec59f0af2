"""Animated pictures to read: GIF, WebP, PNG and AVIF, as Pillow composes them; and as films WebP and AVIF, which
ffmpeg does not read or takes for several."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np

from ..metadata import avif_color
from .errors import VideoError

BLINK = 10  # milliseconds; a frame that is to be shown no longer is shown for 100 by players


@dataclass(frozen=True)
class Animation:
    """An animated picture in a file, whose frames have all been decoded once."""

    path: str
    height: int
    width: int
    durations: tuple[float, ...]  # of each frame, milliseconds
    plays: int  # how often it is shown, 0: for ever
    alpha: bool  # whether anything is transparent
    icc_profile: bytes | None

    @classmethod
    def of(cls, path: str) -> Animation:
        """VideoError for what is no animation of two frames or more or is damaged, OSError for the file."""
        durations, alpha = [], False
        with _opened(path) as im:
            plays, icc = _plays(im), im.info.get("icc_profile")
            if im.format == "AVIF":
                bits, _ = avif_color(im.fp)
                if bits > 8:
                    warnings.warn(f"{path}: its {bits} bits are read as 8", stacklevel=2)
            for frame, duration in _decoded(im):
                durations.append(duration)
                alpha |= bool((frame[..., 3] < 255).any())
        if len(durations) < 2:
            raise VideoError(f"{path}: is a still picture; liif-fast upscale enlarges those")
        return cls(path, im.height, im.width, tuple(durations), plays, alpha, icc)

    def frames(self) -> Iterator[np.ndarray]:
        """The whole canvas of each, [H, W, C] uint8, C of 4 (RGBA) or, where nothing is transparent, 3."""
        with _opened(self.path) as im:
            for frame, _ in _decoded(im):
                yield frame if self.alpha else np.ascontiguousarray(frame[..., :3])


def as_film(path: str) -> io.BytesIO:
    """An animated picture as a film without loss, of 8 bits. VideoError, OSError as `Animation.of`."""
    found = os.stat(path)
    return io.BytesIO(_remuxed(path, found.st_mtime_ns, found.st_size))


@lru_cache(maxsize=1)  # a film is opened several times
def _remuxed(path: str, *_: int) -> bytes:
    import av

    animation, result, start = Animation.of(path), io.BytesIO(), 0
    with av.open(result, "w", format="mov") as out:
        stream: Any = out.add_stream("png", rate=25)
        stream.width, stream.height = animation.width, animation.height
        stream.pix_fmt = "rgba" if animation.alpha else "rgb24"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for picture, duration in zip(animation.frames(), animation.durations, strict=True):
            frame = av.VideoFrame.from_ndarray(picture, stream.pix_fmt)
            frame.pts, frame.time_base = start, Fraction(1, 1000)
            frame.duration = 100 if duration <= BLINK else round(duration)
            start += frame.duration
            for packet in stream.encode(frame):
                packet.duration = frame.duration  # which the last would be without
                out.mux(packet)
        out.mux(stream.encode(None))
    return result.getvalue()


@contextmanager
def _opened(path: str) -> Iterator[Any]:
    """A Pillow image of several frames. Whatever Pillow says against the file inside becomes VideoError."""
    from PIL import Image, UnidentifiedImageError

    if os.path.exists(path) and not os.path.isdir(path) and not os.path.isfile(path):
        raise VideoError(f"{path}: not a file")
    with open(path, "rb") as file:
        try:
            yield Image.open(file, formats=("GIF", "WEBP", "PNG", "AVIF"))
        except UnidentifiedImageError:
            what = "is no GIF, WebP, PNG or AVIF, or a damaged one"
            raise VideoError(f"{path}: {what}; films become .mkv, .mp4, .mov or .webm") from None
        except MemoryError:
            raise
        except Exception as error:  # damaged files make the decoders raise about anything
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise VideoError(f"{path}: cannot be read ({reason})") from error


def _decoded(im: Any) -> Iterator[tuple[np.ndarray, float]]:
    """The whole canvas of each frame, [H, W, 4] uint8, and its duration in milliseconds."""
    # The first picture of a PNG may be there only for those who know no animations.
    for i in range(bool(getattr(im, "default_image", False)), getattr(im, "n_frames", 1)):
        im.seek(i)
        if im.mode.startswith("I"):  # Pillow would cut it off at 255
            raise ValueError("gray of 16 bits is not read in animations")
        frame = np.array(im.convert("RGBA"))
        yield frame, im.info.get("duration", 0)


def _plays(im: Any) -> int:
    """How often it is shown, 0: for ever. A GIF names the repetitions after the first time, or nothing; of AVIF Pillow
    tells none."""
    if im.format != "GIF":
        return int(im.info.get("loop", 0))
    loop = im.info.get("loop")
    return 1 if loop is None else loop and loop + 1
