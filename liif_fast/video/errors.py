"""What goes wrong with films, as one line each."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from fractions import Fraction

from ..words import counted


class VideoError(ValueError):
    """A film that cannot be read, made or written, with the reason."""


class MissingLibrary(RuntimeError):
    """PyAV, which reads and writes films, is not installed."""

    def __init__(self) -> None:
        if sys.version_info < (3, 11):  # where the extra is empty
            super().__init__(f"films need PyAV 18, and that Python 3.11 or later; this is {platform.python_version()}")
        else:
            super().__init__("films need PyAV: pip install 'liif_fast[video]'")


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


def logged(failing: Callable[[], object]) -> str:
    """What ffmpeg says first about something that fails, which its error is often silent about; "" if nothing."""
    import av.logging as log
    from av.error import FFmpegError

    level = log.get_level()
    log.set_level(log.ERROR)
    try:
        with log.Capture() as messages, suppress(FFmpegError):
            failing()
    finally:
        log.set_level(level)
    return next((text.strip().splitlines()[0] for _, _, text in messages if text.strip()), "")


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
    holes: int = 0  # places where the file holds what nobody can read
    first_hole: str = ""  # where the first of them is
    # Of each hole from behind which no frame has come yet: the latest time of a frame before it, in the stream's unit.
    ahead: list[int] = field(default_factory=list)

    def passed(self, time: int) -> bool:
        """Whether a frame of that time is the first from behind a hole; it is behind none any more then."""
        count = len(self.ahead)
        self.ahead[:] = [before for before in self.ahead if before >= time]
        return len(self.ahead) < count

    def hole(self, begin: Fraction, end: Fraction | None, rate: Fraction) -> None:
        """Counts one from ``begin`` to ``end``, None: of the film, in seconds, with ``rate`` frames in one."""
        frames = 0 if end is None else round((end - begin) * rate)
        if end is None:
            text = f"after {float(begin):.3f} s"
        elif frames <= 0:
            text = f"at {float(end):.3f} s"
        else:
            text = f"of about {counted(frames, 'frame')} from {float(begin):.3f} s to {float(end):.3f} s"
        self.holes, self.first_hole = self.holes + 1, self.first_hole or text

    def __str__(self) -> str:
        texts = [counted(self.packets, "damaged packet")] if self.packets else []
        texts += [counted(self.frames, "damaged frame")] if self.frames else []
        texts += [f"reading broke off ({self.broke_off})"] if self.broke_off else []
        texts += [counted(self.missing, "missing frame")] if self.missing else []
        texts += [f"it ends {self.short:.2f} s early"] if self.short else []
        texts += [self.jump] if self.jump else []
        if self.holes:
            name = "a hole" if self.holes == 1 else f"{self.holes} holes, the first"
            texts.append(f"{name} {self.first_hole}")
        texts += (
            [f"{counted(self.refused, 'packet')} beside the pictures that cannot be copied"] if self.refused else []
        )
        return ", ".join(texts)

    def __bool__(self) -> bool:
        return bool(str(self))
