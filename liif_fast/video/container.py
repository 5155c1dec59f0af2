"""Files that hold films: what their suffixes mean, and one to write."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from .errors import VideoError

# ffmpeg's names.
CONTAINERS = {".mkv": "matroska", ".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".webm": "webm"}


def container_of(path: str) -> str:
    """ffmpeg's name of the container that the suffix means; VideoError for another."""
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in CONTAINERS:
        raise VideoError(f"{path}: the suffix {suffix!r} names no container, which are {', '.join(CONTAINERS)}")
    return CONTAINERS[suffix]


@contextmanager
def container(file: BinaryIO, path: str) -> Iterator[Any]:
    """PyAV's container, of the kind that ``path`` says, written to ``file``.

    Where writing fails, this ends with the error of ``file``, which PyAV forgets now and then.
    """
    import av

    kept = _Kept(file)
    try:
        with av.open(kept, "w", format=container_of(path)) as out:
            yield out
    except Exception:
        if not kept.error:
            raise
    if kept.error:
        raise kept.error


class _Kept:
    """A file that keeps the error at which writing ended, and takes no more from there on."""

    def __init__(self, file: BinaryIO) -> None:
        self.error: OSError | None = None
        self._file, self.seek, self.tell = file, file.seek, file.tell

    def write(self, data: bytes) -> int:
        """A number below zero is an error to ffmpeg; an exception might be printed."""
        if not self.error:
            try:
                return self._file.write(data)
            except OSError as error:
                self.error = error
        return -errno.EIO
