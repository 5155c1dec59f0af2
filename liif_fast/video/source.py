"""A film to read: what it is, and its frames one after the other."""

from __future__ import annotations

import re
import struct
import warnings
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from heapq import heappop, heappush
from itertools import chain
from typing import TYPE_CHECKING, Any

from .colors import Colors
from .errors import Damage, VideoError, check_library, one_line
from .hdr import Mastering
from .matroska import watched
from .opening import LATE, main_stream, open_input, zero_of

if TYPE_CHECKING:
    import av

_LITTLE = Fraction(1, 4)  # seconds by which durations in containers may be wrong
_REORDERED = 16  # frames by which a packet may come before its turn, at most
# Seconds before the place wanted from which to decode, where seeking led behind it; None: from the beginning.
_BEFORE = (Fraction(0), Fraction(10), Fraction(60), None)


@dataclass(frozen=True)
class Clip:
    """What is the same for all frames of a film."""

    width: int
    height: int
    format: str  # ffmpeg's name of the pixel format
    colors: Colors
    aspect: Fraction  # of a pixel, width to height
    rotation: int  # degrees counter-clockwise by which players turn the picture
    mirrored: bool  # whether they mirror it too
    rate: Fraction  # frames per second, on average
    time_base: Fraction  # seconds, the unit of timestamps
    interlaced: bool
    mastering: Mastering  # of HDR10
    frames: int  # about how many there are


@dataclass(frozen=True)
class Stamped:
    """A decoded frame with its time. ``start`` and ``duration`` are in units of the clip's time base."""

    frame: av.VideoFrame
    start: int
    duration: int


class Source:
    """A film file, read from its start or from ``start`` seconds on. A context manager.

    Raises VideoError for what is no film, has no frame, needs ``deinterlace`` and is not to be, and for a part of no
    length; OSError for the file.
    """

    def __init__(
        self, path: str, start: Fraction | None = None, end: Fraction | None = None, deinterlace: bool = False
    ) -> None:
        check_library()
        if end is not None and end <= (start or 0):
            raise VideoError(f"{path}: the end, {float(end):g} s, is not behind the start, {float(start or 0):g} s")
        self.path, self.start, self.end, self._deinterlace = path, start, end, deinterlace
        self.damage, self._warned = Damage(), False
        self._container = open_input(path)
        self._stream = main_stream(self._container, path)
        try:
            with one_line(path):
                self.clip = self._look()
            if self.clip.interlaced and not deinterlace:
                raise VideoError(f"{path}: is interlaced; --deinterlace makes whole frames of its fields")
        except BaseException:
            self.close()
            raise

    def _look(self) -> Clip:
        """Facts of the first frame, read on a container of its own: seeking back is not exact everywhere."""
        with open_input(self.path) as container:
            stream = main_stream(container, self.path)
            first = next((frame for frame, _ in self._decoded(container, stream, Damage())), None)
            if first is None:
                raise VideoError(f"{self.path}: there is no frame in it that can be decoded")
            try:
                found = Colors.of(first)
            except VideoError as error:
                raise VideoError(f"{self.path}: {error}") from None
            rate = stream.average_rate or stream.guessed_rate or Fraction(25)
            seconds = self._seconds(container, stream)
            return Clip(
                first.width, first.height, first.format.name.replace("yuvj", "yuv"), found,
                stream.sample_aspect_ratio or Fraction(1), first.rotation % 360, _is_mirrored(first, stream), rate,
                stream.time_base or 1 / rate, bool(first.interlaced_frame), Mastering.of(first),
                max(1, round(seconds * rate)),
            )  # fmt: skip

    def _seconds(self, container: Any, stream: Any) -> Fraction:
        """About how long the part that is read is."""
        length = Fraction(container.duration or 0, 1_000_000)
        if stream.duration and stream.time_base:
            length = stream.duration * stream.time_base
        end = length if self.end is None else min(length, self.end)
        return max(Fraction(0), end - (self.start or 0))

    def frames(self) -> Iterator[Stamped]:
        """Frames of the part asked for, in the order in which they are shown, their times from the film's own zero.

        Packets that cannot be decoded are left out and counted in ``damage``. VideoError where the size changes.
        """
        clip, base = self.clip, self.clip.time_base
        zero = round(zero_of(self._container) / base)
        previous: int | None = None
        reached = self.start or Fraction(0)  # the end of the frame before
        held: av.VideoFrame | None = None  # the last before the part
        for frame, step in self._from_start(zero * base):
            usual = max(1, step or round(1 / clip.rate / base))
            start = frame.pts - zero if frame.pts is not None else 0 if previous is None else previous + usual
            hole = self.damage.passed(start + zero)
            if previous is not None and (previous - start) * base > LATE:  # a recording behind another, as a rule
                if self.end is not None and (previous + usual) * base >= self.end:
                    return
                back, at = (float((previous - n) * base) for n in (start, 0))
                self.damage.jump = self.damage.jump or f"its clock jumps back by {back:.3f} s at {at:.3f} s"
            shown = [(frame, start, usual)]
            if self.start:
                begin = round(self.start / base)
                if (start + usual) * base <= self.start:
                    held = frame
                    if frame.pts is None:  # the next one's time is counted from this one's
                        previous = start
                    continue
                if held is not None and start > begin:  # on the screen until now, however short it says that it is
                    shown = [(held, begin, start - begin), *shown]
                elif start < begin:  # on the screen where the part begins; not every container has times before zero
                    shown = [(frame, begin, max(1, start + usual - begin))]
                held = None
            if hole:
                self._note_hole(reached, shown[-1][1] * base)
            for frame, start, usual in shown:
                if self.end is not None and start * base >= self.end:
                    return
                self._check_frame(frame, float(start * base))
                # Two frames at one time, which damaged films have, would be one.
                start = start if previous is None else max(start, previous + 1)
                previous, reached = start, (start + usual) * base
                self.damage.frames += frame.is_corrupt
                yield Stamped(frame, start, usual)

        if self.damage.ahead:
            self.damage.hole(reached, None, clip.rate)
        if previous is not None:
            last = max(1 / clip.rate, usual * base)  # which some animations hold for long
            self.damage.short = _shortage(self.path, self._stream, (zero + previous + 1) * base + last)

    def _note_hole(self, reached: Fraction, start: Fraction) -> None:
        """One in what is asked for, from where the frame before ends to where the next begins."""
        if self.end is None or start < self.end:
            self.damage.hole(reached, start, self.clip.rate)
        elif (self.end - reached) * self.clip.rate >= 1:
            self.damage.hole(reached, self.end, self.clip.rate)

    def _check_frame(self, frame: av.VideoFrame, seconds: float) -> None:
        clip = self.clip
        if (frame.width, frame.height) != (clip.width, clip.height):
            raise VideoError(
                f"{self.path}: its size changes from {clip.width} x {clip.height} to {frame.width} x {frame.height} at "
                f"{seconds:.3f} s; end there with --end"
            )
        if frame.interlaced_frame and not self._deinterlace and not self._warned:
            self._warned = True
            text = f"{self.path}: is interlaced from {seconds:.3f} s on; --deinterlace makes whole frames of its fields"
            warnings.warn(text, stacklevel=3)

    def _from_start(self, zero: Fraction) -> Iterator[tuple[av.VideoFrame, int]]:
        """Decoded frames from ``start`` or a little before on, also where seeking leads behind it: streams without an
        index are searched by guessing, and a decoder needs a key frame to begin with. ``zero``: time of the film's."""
        from av.error import FFmpegError

        if not self.start:
            return self._decoded(self._container, self._stream, self.damage, True)
        base = self.clip.time_base
        for before in _BEFORE:
            at = None if before is None else self.start - before
            if at is None or at <= 0:
                self._container.close()
                self._container = open_input(self.path)
                self._stream = main_stream(self._container, self.path)
                at = None
            else:
                try:
                    self._container.seek(int((at + zero) / base), stream=self._stream, backward=True)
                except FFmpegError:  # raw streams have no times to look for
                    continue
            damage = Damage()
            frames = self._decoded(self._container, self._stream, damage, True)
            first = next(frames, None)
            if at is None or (first is not None and (first[0].pts or 0) * base - zero <= self.start):
                break
        self.damage = damage
        return frames if first is None else chain([first], frames)

    def _decoded(
        self, container: Any, stream: Any, damage: Damage, filtered: bool = False
    ) -> Iterator[tuple[av.VideoFrame, int]]:
        """Frames with their durations, in units of the stream's time base."""
        graph, frames = None, self._raw(container, stream, damage)
        if container.format.name == "avi":
            frames = _times_in_order(frames)
        for frame in frames:
            if not (filtered and self._deinterlace):
                yield frame, frame.duration
                continue
            if graph is None:
                graph = _bwdif(stream)
            graph.vpush(frame)
            yield from _pulled(graph, stream.time_base)
        if graph is not None:
            graph.vpush(None)
            yield from _pulled(graph, stream.time_base)

    def _raw(self, container: Any, stream: Any, damage: Damage) -> Iterator[av.VideoFrame]:
        from av.error import EOFError, FFmpegError

        if not stream.codec_context.is_open:  # it is, where decoding begins again
            stream.thread_type = "AUTO"
        packets = container.demux(stream)
        if "matroska" in container.format.name:
            packets = watched(packets, self.path, bool(self.start), damage.ahead)
        count = 0
        while True:
            try:
                packet = next(packets, None)
            except FFmpegError as error:
                damage.broke_off = (error.strerror or str(error)).strip()
                packet = None
            if packet is not None and not packet.size:
                packet = None
            last = packet is None
            bad = packet is not None and packet.is_corrupt
            try:
                yield from stream.decode(packet)
            except EOFError:
                return
            except FFmpegError:
                bad = True
            damage.packets += bool(bad)
            count += not last
            if last:
                # Only where the container has an exact index, which is without what an edit list leaves out.
                exact = "mp4" in container.format.name and not self.start
                damage.missing = max(0, len(stream.index_entries) - count) if exact else 0
                return

    def check(self) -> None:
        """VideoError where something was wrong on the way."""
        if self.damage:
            raise VideoError(f"{self.path}: {self.damage}")

    def close(self) -> None:
        self._container.close()

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _is_mirrored(frame: av.VideoFrame, stream: Any) -> bool:
    # PyAV frees the tags of side data, which a PNG's colour profile has, twice; see `hdr.Mastering.of` for the other.
    if stream.codec_context.name.endswith("png"):
        return False
    try:
        found: Any = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:
        return False
    a, b, _, c, d = struct.unpack_from("=5i", bytes(found)) if found else (1, 0, 0, 0, 1)
    return a * d < b * c


def _shortage(path: str, stream: Any, reached: Fraction) -> float:
    """Seconds between the end of the frames and that which the container promises, where that is more than a little."""
    promised = Fraction(0)
    if stream.duration and stream.time_base:
        promised = (stream.duration + (stream.start_time or 0)) * stream.time_base
    elif match := re.fullmatch(r"(\d+):(\d+):([\d.]+)", stream.metadata.get("DURATION", "")):
        promised = Fraction(match[1]) * 3600 + Fraction(match[2]) * 60 + Fraction(match[3])
    elif _promises(stream.container):
        # That of the longest stream, which need not be this one.
        promised = Fraction(stream.container.duration or 0, 1_000_000)
        if promised - reached > _LITTLE:
            reached = max(reached, _end(path))
    return float(promised - reached) if promised - reached > _LITTLE else 0.0


def _promises(container: Any) -> bool:
    """Whether it has a duration of its own, not one that ffmpeg concludes from what is there."""
    return any(name in container.format.name for name in ("matroska", "mp4", "avi", "flv"))


def _end(path: str) -> Fraction:
    """When the last packet of any stream ends."""
    from av.error import FFmpegError

    end = Fraction(0)
    with open_input(path) as container, suppress(FFmpegError):
        for packet in container.demux():
            if packet.size and packet.pts is not None:
                end = max(end, (packet.pts + (packet.duration or 0)) * packet.time_base)
    return end


def _times_in_order(frames: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    """AVI has no times but the order of its packets, which is not that of frames: the first frame has the first one."""
    waiting: deque[av.VideoFrame] = deque()
    times: list[int] = []

    def first() -> av.VideoFrame:
        frame = waiting.popleft()
        frame.pts = heappop(times)
        return frame

    for frame in frames:
        if frame.pts is None:
            yield from (first() for _ in range(len(waiting)))
            yield frame
            continue
        waiting.append(frame)
        heappush(times, frame.pts)
        if len(waiting) > _REORDERED:
            yield first()
    yield from (first() for _ in range(len(waiting)))


def _bwdif(stream: Any) -> Any:
    """ffmpeg's deinterlacer: one frame for each, only where frames are flagged as interlaced."""
    from av.filter import Graph

    graph = Graph()
    graph.link_nodes(
        graph.add_buffer(template=stream),
        graph.add("bwdif", "mode=send_frame:deint=interlaced"),
        graph.add("buffersink"),
    ).configure()
    return graph


def _pulled(graph: Any, time_base: Fraction) -> Iterator[tuple[av.VideoFrame, int]]:
    from av.error import BlockingIOError, EOFError

    while True:
        try:
            frame = graph.vpull()
        except (BlockingIOError, EOFError):
            return
        # The filter counts in half units.
        factor = frame.time_base / time_base
        duration = round(frame.duration * factor)
        frame.pts = None if frame.pts is None else round(frame.pts * factor)
        frame.time_base = time_base
        yield frame, duration
