"""What goes wrong with films, as one line each."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ..words import counted


class VideoError(ValueError):
    """A film that cannot be read, made or written, with the reason."""


class MissingLibrary(RuntimeError):
    """PyAV, which reads and writes films, is not installed."""

    def __init__(self) -> None:
        if sys.version_info < (3, 11):  # where the extra is empty
            super().__init__(f"films need PyAV 18, and that Python 3.11 or later; this is {platform.python_version()}")
        else:
            super().__init__("films need PyAV: pip install 'liif-fast[video]'")


def check_library() -> None:
    """MissingLibrary without PyAV."""
    try:
        import av  # noqa: F401
    except ImportError:
        raise MissingLibrary from None


@contextmanager
def one_line(path: str) -> Iterator[None]:
    """ffmpeg's errors inside become VideoError; those of the file system stay what they are, with ``path``."""
    from av.error import FFmpegError

    try:
        yield
    except FFmpegError as error:
        if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
            raise OSError(error.errno, error.strerror, path) from error
        raise VideoError(f"{path}: {(error.strerror or str(error)).strip()}") from error


@dataclass
class Damage:
    """What was wrong on the way through a film."""

    packets: int = 0  # that are not whole, or cannot be decoded
    frames: int = 0  # of which the decoder had to make up a part
    broke_off: str | None = None  # why reading ended before the end
    missing: int = 0  # frames that the film says it has and that were not there
    short: float = 0.0  # seconds that the film says it has and that were not there
    jump: str | None = None  # where its clock jumps back
    refused: int = 0  # packets of other streams that could not be copied

    def __str__(self) -> str:
        texts = [counted(self.packets, "damaged packet")] if self.packets else []
        texts += [counted(self.frames, "damaged frame")] if self.frames else []
        texts += [f"reading broke off ({self.broke_off})"] if self.broke_off else []
        texts += [counted(self.missing, "missing frame")] if self.missing else []
        texts += [f"it ends {self.short:.2f} s early"] if self.short else []
        texts += [self.jump] if self.jump else []
        texts += (
            [f"{counted(self.refused, 'packet')} beside the pictures that cannot be copied"] if self.refused else []
        )
        return ", ".join(texts)

    def __bool__(self) -> bool:
        return bool(str(self))
