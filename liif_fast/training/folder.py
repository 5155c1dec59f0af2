"""The folder of a run: one process at a time writes there, and what is there already is not lost."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from .state import STATE

WEIGHTS = "model.safetensors"


def check(folder: Path, resume: bool) -> None:
    """FileExistsError for one with a run or a network in it, without ``resume``; FileNotFoundError for one without a
    run, with it."""
    state, weights = folder / STATE, folder / WEIGHTS
    if resume and not state.exists():
        raise FileNotFoundError(f"{folder}: no run to resume here")
    if not resume and state.exists():
        raise FileExistsError(f"{state}: a run is here already; resume it or name another folder")
    if not resume and weights.exists():
        raise FileExistsError(f"{weights}: a network is here already; name another folder")


def check_data(folder: Path, data: Sequence[str]) -> None:
    """ValueError for a run inside a folder of its pictures: of its curves it would learn too."""
    whole = folder.resolve()
    around = [place for place in (whole, *whole.parents) if place.exists()]
    for pictures in filter(os.path.exists, data):
        if any(place.samefile(pictures) for place in around):  # not by their paths: Photos may be photos
            raise ValueError(f"{folder} is inside {pictures}, which is searched for pictures: name a folder elsewhere")


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Made if it is not there, kept from other processes, and gone afterwards if nothing came into it.

    BlockingIOError where another process has it, NotADirectoryError where it is a file.
    """
    if folder.is_file():
        raise NotADirectoryError(f"{folder}: is a file, and a run wants a folder")
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        try:
            yield
        finally:
            with suppress(OSError):  # not empty
                folder.rmdir()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(f"{folder}: another process is at work in it") from None
        except OSError:  # a file system that locks no folders
            pass
        yield
    finally:
        os.close(handle)
