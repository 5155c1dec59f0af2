"""What goes wrong with films, as one line each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class VideoError(ValueError):
    """A film that cannot be read, made or written, with the reason."""


class MissingLibrary(RuntimeError):
    """PyAV, which reads and writes films, is not installed."""

    def __init__(self) -> None:
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
