"""Holes in a Matroska file: what ffmpeg cannot read there it passes over without a word.

Such a file is a chain: each element says what it is and how long, and the next begins where it ends. Where bytes have
been overwritten, lost or put in, the chain breaks, and the demuxer goes on at the next cluster as if nothing had been;
so it does where an element of sound is whole but means nothing, though there are pictures behind it.
The times of the frames are no evidence: an honest film of variable rate has the same gaps, with the same durations.
Nor are tags with the number of frames, which programs that cut films copy as they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, BinaryIO

_CLUSTER, _SEGMENT, _EBML = 0x1F43B675, 0x18538067, 0x1A45DFA3
# What ends a cluster that does not know how long it is, as those of live recordings: all that stand beside or above it.
_ABOVE = {_EBML, _SEGMENT, _CLUSTER, 0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1C53BB6B, 0x1941A469, 0x1043A770, 0x1254C367}
_GROUP, _BLOCKS = 0xA0, {0xA1, 0xA3}  # BlockGroup; Block, in one, and SimpleBlock
_FLAGS = 3  # bytes of a block behind its track and before its frames: an empty one gives no packet
_HEAD = 16  # bytes of an element's name and length and of the number of a track, at most
_CHUNK = 1 << 20


def watched(packets: Iterator[Any], path: str, part: bool, ahead: list[int]) -> Iterator[Any]:
    """``packets`` of a stream of the file, of a ``part`` or from its start. When they come to a hole, the latest of
    their times before it is added to ``ahead``."""
    latest = None
    with open(path, "rb") as file:
        chain = Chain(file, part)
        for packet in packets:
            time = packet.dts if packet.pts is None else packet.pts
            if latest is None:
                latest = (time or 0) - 1
            if not (chain.whole_to_the_end() if not packet.size else packet.pos is None or chain.whole_to(packet.pos)):
                ahead.append(latest)
            if time is not None:
                latest = max(latest, time)
            yield packet


class Chain:
    """The elements of the Matroska ``file``, followed along beside the packets that a demuxer finds in it.

    ``part``: what comes before the first packet asked for does not matter.
    """

    def __init__(self, file: BinaryIO, part: bool = False) -> None:
        self._file, self._skim = file, part
        self._at = 0  # where the next element begins
        self._end = 0.0  # of the cluster around it, infinite where that does not say; 0 outside of clusters
        self._last = (0, 0, b"")  # name of the element before, where its content begins, whose it is if it is a block
        self._track = b""  # whose the packets are
        self._missed = False  # whether the chain has passed a block of theirs of which no packet came
        self._lost = False  # whether the chain is broken, and no cluster found yet from which it goes on

    def whole_to(self, position: int) -> bool:
        """Whether it has held from the packet before to that whose data begin at ``position``; False once a hole."""
        whole, self._missed = True, False
        while self._at <= position:
            if self._lost:
                self._lost, self._end = False, 0.0
                self._at = self._cluster(position)
            elif not self._step(position):
                whole, self._lost = False, True
        name, begin, track = self._last
        if name in _BLOCKS and begin == position:
            self._track = track
        elif whole and not self._lost:
            # What looked like a chain has led past the place: noise may be read as elements too.
            whole, self._lost, self._at = False, True, position + 1
        whole, self._skim = (whole and not self._missed) or self._skim, False
        return whole

    def whole_to_the_end(self) -> bool:
        """Whether it has held since the last packet. Where a file was cut off is no hole, nor is what somebody has put
        behind the film."""
        size = self._file.seek(0, 2)
        while not self._lost and self._at < size:
            inside, self._missed = self._at < self._end <= size, False
            if not self._step(size) or self._missed:
                return not inside
        return True

    def _step(self, position: int) -> bool:
        """Goes over the element that comes next, or into it; False where there is none."""
        if self._at >= self._end:
            self._end = 0.0
        name, begin, size, track = self._head()
        if name in _ABOVE and self._end == math.inf:
            self._end = 0.0
        end = begin + size
        if not name or (self._end and (end > self._end or name in _ABOVE)):
            return False
        self._last = (name, begin, track)
        if name in _BLOCKS and begin != position and size > len(track) + _FLAGS:
            self._missed |= track == self._track
        if name in (_SEGMENT, _GROUP):
            end = begin
        elif name == _CLUSTER and not (self._skim and end <= position):
            self._end, end = end, begin
        if end == math.inf:
            return False
        self._at = int(end)
        return True

    def _head(self) -> tuple[int, int, float, bytes]:
        """Name of the element at hand, 0 for none; where its content begins; how long that is, infinite if unsaid; and
        the number with which it begins, of a block that of its track."""
        self._file.seek(self._at)
        data = self._file.read(_HEAD)
        long = _length(data[:1])
        more = long + _length(data[long : long + 1])
        if not 0 < long <= 4 or more == long or more > len(data):
            return 0, 0, 0.0, b""
        bits = 7 * (more - long)
        size: float = int.from_bytes(data[long:more], "big") & ((1 << bits) - 1)
        size = math.inf if size == (1 << bits) - 1 else size
        track = data[more : more + _length(data[more : more + 1])]
        return int.from_bytes(data[:long], "big"), self._at + more, size, track

    def _cluster(self, limit: int) -> int:
        """Where the next cluster begins, or ``limit`` and a byte, and lost still, where there is none before it."""
        mark, at = _CLUSTER.to_bytes(4, "big"), self._at
        while at < limit:
            self._file.seek(at)
            found = self._file.read(min(_CHUNK, limit - at)).find(mark)
            if found >= 0:
                return at + found
            at += _CHUNK - len(mark) + 1
        self._lost = True
        return limit + 1


def _length(first: bytes) -> int:
    """Bytes of a number that begins with this one, 0 for none."""
    return 9 - first[0].bit_length() if first and first[0] else 0
