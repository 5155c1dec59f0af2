"""Work in progress: encoded packets in finished segments, in a hidden folder beside the result."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ..output import one_line_errors, whole_file, write_text
from .errors import VideoError

_SETTINGS = "settings.json"
_HEAD = struct.Struct("<qqIB")


@dataclass(frozen=True)
class Encoded:
    """One packet of video. Times are in units of the clip's time base; packets come in the order of decoding."""

    start: int  # when it is shown
    duration: int
    key: bool
    data: bytes


class Segment:
    """One being written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def add(self, packet: Encoded) -> None:
        self._file.write(_HEAD.pack(packet.start, packet.duration, len(packet.data), packet.key))
        self._file.write(packet.data)


def _words(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else "none" if value is None else str(value)


class Work:
    """The folder of one result's segments, ``frames`` frames each but the last. One process at a time has it.

    ``settings``: all that decides about the bits. VideoError where a folder is there already and ``resume`` is not
    asked for, where its settings were others, or where another process works in it; ``again`` begins anew.
    """

    def __init__(self, output: str, settings: dict[str, Any], frames: int, resume: bool, again: bool) -> None:
        final = os.path.realpath(output)
        self.folder = Path(os.path.dirname(final), f".{os.path.basename(final)}.liif_fast")
        self.frames = frames
        settings = {**settings, "frames": frames}
        try:
            self.folder.mkdir()
        except FileExistsError:
            if not (resume or again):
                _locked(self.folder, output).close()
                raise VideoError(
                    f"{output}: an earlier run was broken off; --resume goes on from there, --force begins again"
                ) from None
        self._lock = _locked(self.folder, output)
        for part in self.folder.glob(".*.part"):  # of a run that was killed
            part.unlink(missing_ok=True)
        try:
            if again and not resume:
                (self.folder / _SETTINGS).unlink(missing_ok=True)
            self._check(output, settings)
        except BaseException:
            self._lock.close()
            raise
        self.finished = self.count()

    def _check(self, output: str, settings: dict[str, Any]) -> None:
        place = self.folder / _SETTINGS
        try:
            before = json.loads(place.read_text())
        except (OSError, ValueError):
            for segment in self._segments():  # not known what they are
                segment.unlink()
            write_text(place, json.dumps(settings, indent=1))
            return
        others = sorted(name for name in {*before, *settings} if before.get(name) != settings.get(name))
        if others:
            had = "; ".join(f"{name} {_words(before.get(name))}, now {_words(settings.get(name))}" for name in others)
            raise VideoError(
                f"{output}: the run that was broken off had other settings ({had}); give it the same or begin again "
                "with --force"
            )

    def count(self) -> int:
        """The number of whole segments from the first on; what comes after is done again."""
        count = 0
        while (place := self._place(count)).exists() and _count(place) == self.frames:
            count += 1
        for place in self._segments():
            if int(place.stem) >= count:
                place.unlink()
        return count

    def _segments(self) -> Iterator[Path]:
        """Without what Macs keep beside a file on disks of other systems, ._000000.packets, which goes when it goes."""
        return self.folder.glob("[0-9]*.packets")

    def _place(self, number: int) -> Path:
        return self.folder / f"{number:06}.packets"

    @contextmanager
    def segment(self) -> Iterator[Segment]:
        """The next one to write to; it counts when all is on the disk."""
        place = self._place(self.finished)
        with one_line_errors(str(place)), whole_file(place, force=True) as file:
            yield Segment(file)
        self.finished += 1

    def packets(self) -> Iterator[Encoded]:
        """Those of all finished segments."""
        for number in range(self.finished):
            with open(self._place(number), "rb") as file:
                while head := file.read(_HEAD.size):
                    start, duration, size, key = _HEAD.unpack(head)
                    yield Encoded(start, duration, bool(key), file.read(size))

    def starts(self) -> list[int]:
        """When each packet of all finished segments is shown."""
        found = []
        for number in range(self.finished):
            found += list(_starts(self._place(number)))
        return found

    def close(self) -> None:
        """Gives the folder up; with nothing finished in it, it goes."""
        if not any(self._segments()):
            self.remove()
        self._lock.close()

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def _starts(place: Path) -> Iterator[int]:
    with open(place, "rb") as file:
        while len(head := file.read(_HEAD.size)) == _HEAD.size:
            start, _, size, _ = _HEAD.unpack(head)
            file.seek(size, os.SEEK_CUR)
            yield start


def _count(place: Path) -> int:
    return sum(1 for _ in _starts(place))


def _locked(folder: Path, output: str) -> BinaryIO:
    file = open(folder / "lock", "ab")  # noqa: SIM115  # open as long as the work lasts
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        there = bool(os.fstat(file.fileno()).st_nlink)  # if not, the one that had it has just ended
    except (ImportError, OSError) as error:  # others than the first of these: a file system without locks
        there = not isinstance(error, BlockingIOError)
    if not there:
        file.close()
        raise VideoError(f"{output}: another process is making it")
    return file
