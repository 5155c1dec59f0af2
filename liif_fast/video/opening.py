"""A film's file, opened, and which of its streams is the film."""

from __future__ import annotations

import os
from contextlib import suppress
from fractions import Fraction
from itertools import islice
from typing import Any

from .animation_source import as_film
from .errors import VideoError, one_line

_ATTACHED_PICTURE = 0x0400
_PICTURES = ("image2", "gif", "apng")  # formats that may hold a single one
LATE = Fraction(1)  # seconds; what begins further from zero than that has a clock that runs on, as broadcasts have


def open_input(path: str) -> Any:
    """OSError or VideoError, each with the path; VideoError for a still picture too."""
    import av
    from av.error import FFmpegError

    if os.path.isdir(path):
        raise IsADirectoryError(f"{path}: is a directory")
    if os.path.exists(path) and not os.path.isfile(path):
        raise VideoError(f"{path}: not a file")
    with open(path, "rb"):  # says what is wrong with the file itself
        pass
    name = f"file:{path}"  # a colon in it is no protocol

    with one_line(path):
        format, container = None, _opened(name)
        if container.format.name == "png_pipe":  # also where much stands before the mark of an animation
            with suppress(FFmpegError):
                animated = _opened(name, "apng")
                container.close()
                format, container = "apng", animated
        if container.format.name == "webp_pipe" or "avis" in _brands(container):
            container.close()
            return av.open(as_film(path))
        if _is_still(container):
            container.close()
            raise VideoError(f"{path}: is a still picture; liif-fast upscale enlarges those")
        if _may_be_still(container):  # it was looked into
            container.close()
            container = _opened(name, format)
    return container


def _opened(name: str, format: str | None = None) -> Any:
    import av

    return av.open(name, format=format, metadata_errors="replace")


def _is_still(container: Any) -> bool:
    """Whether it is one picture. Formats of pictures may hold several, one behind the other, as some cameras send."""
    if "avif" in _brands(container) or "mif1" in _brands(container):
        return True
    packets = (packet for packet in container.demux() if packet.size)
    return _may_be_still(container) and len(list(islice(packets, 2))) < 2


def _brands(container: Any) -> str:
    """What a file of MP4's kind says that it is, animated AVIF avis and still pictures avif or mif1."""
    return str(container.metadata.get("major_brand", "") + container.metadata.get("compatible_brands", ""))


def _may_be_still(container: Any) -> bool:
    return container.format.name in _PICTURES or container.format.name.endswith("_pipe")


def zero_of(container: Any) -> Fraction:
    """The time, in seconds, that is the film's zero: its own, or where it begins if its clock ran long before."""
    begins = Fraction(container.start_time or 0, 1_000_000)
    return begins if abs(begins) > LATE else Fraction(0)  # below it where the clock of a broadcast begins again


def is_cover(stream: Any) -> bool:
    """Whether it is a picture that goes with the film."""
    return stream.type == "video" and bool(int(stream.disposition) & _ATTACHED_PICTURE)


def main_stream(container: Any, path: str) -> Any:
    """The film itself, not a cover picture."""
    for stream in container.streams.video:
        if not is_cover(stream):
            if stream.codec_context is None:
                raise VideoError(f"{path}: ffmpeg has no decoder for its codec")
            return stream
    raise VideoError(f"{path}: there is no video in it")
