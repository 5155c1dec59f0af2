"""The finished film: new video from its segments, everything else copied from the source, verified before it counts."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import chain
from typing import Any, BinaryIO

from .container import container, container_of
from .encoding import Encoding
from .errors import VideoError, one_line
from .opening import is_cover, main_stream, open_input, zero_of
from .segments import Encoded, Work
from .source import Clip

# How Matroska attaches a picture of each codec: (media type, suffix).
_COVERS = {
    "mjpeg": ("image/jpeg", "jpg"), "png": ("image/png", "png"), "bmp": ("image/bmp", "bmp"),
    "webp": ("image/webp", "webp"), "gif": ("image/gif", "gif"),
}  # fmt: skip
# Matroska counts in milliseconds.
_TOLERANCE = Fraction(3, 2000)
# Seconds of sound before zero that are kept where an edit list leaves more out: what decoders need to begin.
_WARM_UP = Fraction(1, 10)
# Seconds that a subtitle which is on screen where a part begins may have been there, at most, to be in it.
_ON_SCREEN = Fraction(10)
# Tags about the old streams and files that are not true of the new ones.
_OUTDATED = {
    "encoder", "duration", "bps", "number_of_frames", "number_of_bytes", "vendor_id",
    "major_brand", "minor_version", "compatible_brands",
}  # fmt: skip


@dataclass(frozen=True)
class Cut:
    """The part of the source that is kept, in seconds; what is left begins at zero."""

    start: Fraction = Fraction(0)
    end: Fraction | None = None


@dataclass
class Copied:
    """What went from the source into the result."""

    packets: dict[int, int] = field(default_factory=dict)  # of each stream, by its index in the result
    video: int = 0  # index of the new video in the result
    first: Fraction = Fraction(0)  # when its first and its last frame are shown, seconds
    last: Fraction = Fraction(0)
    earliest: Fraction = Fraction(0)  # start of any packet, where that is before zero
    refused: int = 0  # packets that the container does not take


def check(path: str, output: str, encoding: Encoding, leave_out: bool) -> None:
    """Refuses, before there is any work, a film that the container of the result cannot hold.

    With ``leave_out`` streams that it cannot hold are left out; streams of data, which only their makers read, and
    cover pictures always are, with a warning.
    """
    import av

    place = av.open(io.BytesIO(), "w", format=container_of(output))
    with one_line(output), open_input(path) as source, place as out:
        main = main_stream(source, path)
        streams = _streams(source, out, main, encoding, output)
        for stream in source.streams:
            if stream.index in streams:
                if stream.type == "video" and stream.index != main.index and not is_cover(stream):
                    warnings.warn(f"{path}: video stream {stream.index} is copied as it is, not enlarged", stacklevel=2)
                continue
            if stream.type == "data" and source.chapters() and stream.name in ("bin_data", "text"):
                continue  # the same chapters once more, as a track
            name = getattr(stream.codec_context, "name", None) or "unknown"
            text = f"{path}: {stream.type} stream {stream.index} ({name}) cannot be copied into {output}"
            if stream.type not in ("data", "unknown") and not is_cover(stream) and not leave_out:
                raise VideoError(f"{text}; another suffix may hold it, --leave-out goes without")
            warnings.warn(f"{text}; it is left out", stacklevel=2)
        out.start_encoding()  # what else there is to say against it


def write(file: BinaryIO, output: str, path: str, encoding: Encoding, work: Work, clip: Clip, cut: Cut) -> Copied:
    """The whole film into ``file``. VideoError or OSError."""
    copied = Copied()
    with one_line(output), open_input(path) as source, container(file, output) as out:
        main = main_stream(source, path)
        streams = _streams(source, out, main, encoding, output)
        if clip.rotation or clip.mirrored:  # a mirrored picture is turned before it is mirrored
            degrees = 180 - clip.rotation if clip.mirrored else clip.rotation
            streams[main.index].set_display_rotation(degrees, hflip=clip.mirrored)
        copied.video = streams[main.index].index
        out.metadata.update(_tags(source.metadata))
        zero = zero_of(source)
        there = Cut(cut.start + zero, None if cut.end is None else cut.end + zero)
        out.set_chapters(_chapters(source.chapters(), there))
        out.start_encoding()
        _interleave(source, out, streams, main.index, work, encoding, cut.start, there, copied)
    return copied


def _streams(source: Any, out: Any, main: Any, encoding: Encoding, output: str) -> dict[int, Any]:
    """Those of the result, in the order of the source, by their index there; without what does not fit."""
    streams = {}
    for stream in source.streams:
        new = _video(out, encoding, output) if stream.index == main.index else _template(out, stream)
        if new is not None:
            new.metadata.update(_tags(stream.metadata))
            if new.type != "attachment":
                new.disposition = stream.disposition
            streams[stream.index] = new
    return streams


def _tags(metadata: dict[str, str]) -> dict[str, str]:
    """Without a language in their name, as in BPS-eng."""
    kept = {name: value for name, value in metadata.items() if name.lower().partition("-")[0] not in _OUTDATED}
    return {name: value for name, value in kept.items() if not name.lower().startswith("_statistics_")}


def _video(out: Any, encoding: Encoding, output: str) -> Any:
    """A stream that says about itself what the encoder of the segments said."""
    try:
        video = out.add_stream(encoding.codec, rate=encoding.rate)
    except ValueError:
        more = "" if out.format.name == "matroska" else "; .mkv holds more"
        raise VideoError(f"{output}: {encoding.codec} does not go into this container{more}") from None
    encoding.configure(video.codec_context)
    video.time_base = encoding.time_base
    if video.codec_context.codec.canonical_name == "hevc" and out.format.name in ("mp4", "mov"):
        video.codec_context.codec_tag = "hvc1"  # without it players of one maker show nothing
    return video


def _template(out: Any, stream: Any) -> Any:
    """A copy of a stream in the result; None where its container has no place for it."""
    import av
    from av.error import FFmpegError

    try:
        if stream.type == "attachment":
            if out.format.name != "matroska":  # others take it, and refuse it when they begin
                return None
            name = stream.metadata.get("filename", f"attachment{stream.index}")
            return out.add_attachment(name, stream.mimetype or "application/octet-stream", stream.data)
        if is_cover(stream):
            return _cover(out, stream)
        if stream.type not in ("audio", "subtitle", "video"):
            return None
        with av.open(io.BytesIO(), "w", format=out.format.name) as alone:  # some are refused only when it begins
            _copy(alone, stream)
            alone.start_encoding()
        return _copy(out, stream)
    except (ValueError, NotImplementedError, FFmpegError):
        return None


def _copy(out: Any, stream: Any) -> Any:
    new = out.add_stream_from_template(stream, opaque=True)
    if stream.type == "audio" and re.fullmatch(r"\d+ channels", stream.codec_context.layout.name):
        # PCM in AVI and Matroska does not say which channels they are; MP4 must.
        new.codec_context.layout = f"{stream.codec_context.channels}c"
    return new


def _cover(out: Any, stream: Any) -> Any:
    """A picture that goes with the film: in Matroska an attachment, in MP4 a stream of its kind."""
    codec = stream.codec_context.name if stream.codec_context else ""
    if out.format.name in ("mp4", "mov") and codec in ("mjpeg", "png", "bmp"):
        return out.add_stream_from_template(stream, opaque=True)
    if out.format.name != "matroska" or codec not in _COVERS:
        return None
    mimetype, suffix = _COVERS[codec]
    with open_input(stream.container.name.removeprefix("file:")) as once:
        data = next(bytes(packet) for packet in once.demux(once.streams[stream.index]) if packet.size)
    return out.add_attachment(stream.metadata.get("filename", f"cover.{suffix}"), mimetype, data)


def _chapters(every: list[Any], cut: Cut) -> list[Any]:
    """Those that reach into the part kept, moved with it."""
    kept = []
    for chapter in every:
        unit = chapter["time_base"]
        shift = round(cut.start / unit)
        end = chapter["end"] if cut.end is None else min(chapter["end"], round(cut.end / unit))
        start = max(chapter["start"], shift)
        if start < end:
            kept.append({**chapter, "start": start - shift, "end": end - shift})
    return kept


def _timed(work: Work, starts: list[int], lasting: bool, latest: int | None) -> Iterator[tuple[Encoded, int]]:
    """Packets with the time at which each is to be decoded.

    The encoders of segments knew nothing of each other; here the times of all are put in order and delayed by as many
    frames as it takes for none to be shown before it is decoded. ``lasting``: the packet decoded last, not that shown
    last, has what the film as a whole is longer than that, as in MP4, which knows no other end. None is shown beyond
    ``latest``, the end of the part that is kept.
    """
    ordered = sorted(starts)
    rank = {start: i for i, start in enumerate(ordered)}
    delay = max(i - rank[start] for i, start in enumerate(starts))
    step = ordered[1] - ordered[0] if len(ordered) > 1 else 1
    early = [ordered[0] - (delay - i) * step for i in range(delay)]
    decoded = early + ordered
    end = 0
    for i, packet in enumerate(work.packets()):
        if latest is not None:
            packet = replace(packet, duration=min(packet.duration, max(1, latest - packet.start)))
        end = max(end, packet.start + packet.duration)
        if lasting and i == len(starts) - 1:
            rest = (end - ordered[0]) - (decoded[i] - decoded[0])
            packet = replace(packet, duration=max(packet.duration, rest))
        yield packet, decoded[i]


def _interleave(
    source: Any,
    out: Any,
    streams: dict[int, Any],
    main: int,
    work: Work,
    encoding: Encoding,
    begin: Fraction,
    cut: Cut,
    copied: Copied,
) -> None:
    """All packets in the order of their times, so that no muxer has to keep many.

    The part begins at ``begin`` of the film and at the start of ``cut`` in the source.
    """
    import av
    from av.error import FFmpegError

    def emit(packet: Any, stream: Any) -> None:
        packet.stream, at = stream, packet.pts * packet.time_base
        out.mux_one(packet)
        copied.packets[stream.index] = copied.packets.get(stream.index, 0) + 1
        copied.earliest = min(copied.earliest, at)

    base = encoding.time_base
    offset = round(begin / base)
    starts = work.starts()
    copied.first, copied.last = ((pick(starts) - offset) * base for pick in (min, max))
    latest = None if cut.end is None else round((begin + cut.end - cut.start) / base)
    video = _timed(work, starts, out.format.name in ("mp4", "mov"), latest)
    waiting = next(video, None)

    def video_until(limit: Fraction | None) -> None:
        nonlocal waiting
        while waiting is not None and (limit is None or (waiting[1] - offset) * base <= limit):
            encoded, decoded = waiting
            packet = av.Packet(encoded.data)
            packet.pts, packet.dts, packet.duration = encoded.start - offset, decoded - offset, encoded.duration
            packet.time_base, packet.is_keyframe = base, encoded.key
            emit(packet, streams[main])
            waiting = next(video, None)

    others = [stream for stream in source.streams if stream.index in streams and stream.index != main]
    others = [stream for stream in others if streams[stream.index].type != "attachment"]
    for packet in _packets(source, others, begin, cut) if others else ():
        if not is_cover(packet.stream):
            video_until(packet.dts * packet.time_base)
        try:
            emit(packet, streams[packet.stream_index])
        except FFmpegError as error:
            if isinstance(error, OSError):
                raise
            copied.refused += cut.end is None  # it is damaged, or its time is before that of another
    video_until(None)


def _packets(source: Any, streams: list[Any], begin: Fraction, cut: Cut) -> Iterator[Any]:
    """Those of ``streams`` in the part that is kept, with their times there. See `_interleave`."""
    covers = {stream.index for stream in streams if is_cover(stream)}
    before: dict[int, int] = {}  # dts of the packet before, by stream
    early: dict[int, list[Any]] = {}  # the first of a stream's pictures, which in Matroska have none
    if begin:
        source.seek(int((cut.start - min(begin, _ON_SCREEN)) * 1_000_000), backward=True)
    for packet in source.demux(streams):
        index, kind = packet.stream_index, packet.stream.type
        if is_cover(packet.stream):
            if packet.size and index in covers:
                covers.remove(index)
                packet.pts = packet.dts = 0
                yield packet
            continue
        at = packet.pts if packet.pts is not None else packet.dts
        if at is None:
            continue
        if kind == "subtitle" and packet.duration:
            at = _within(packet, at, begin, cut)
        start = at * packet.time_base
        # What begins before zero is there to be skipped by players, and stays: a decoder wants it.
        if (begin and start < cut.start) or (cut.end is not None and start >= cut.end):
            continue
        if kind == "audio" and packet.is_discard and start < -_WARM_UP:
            continue
        decoded = at if packet.dts is None else packet.dts
        if kind == "audio" and not packet.duration:  # MP4 would end before the last one
            packet.duration = max(0, decoded - before.get(index, decoded))
        if kind == "video" and packet.dts is None and index not in before:
            early.setdefault(index, []).append(packet)
            continue
        before[index] = decoded
        waited = early.pop(index, [])
        for i, one in enumerate(waited):
            yield _moved(one, one.pts, decoded - (len(waited) - i) * max(1, one.duration or 0), cut)
        yield _moved(packet, at, decoded, cut)
    for one in chain.from_iterable(early.values()):
        yield _moved(one, one.pts, one.pts, cut)


def _within(packet: Any, at: int, begin: Fraction, cut: Cut) -> int:
    """When a subtitle begins in the part that is kept; its packet is cut to that."""
    unit, end = packet.time_base, at + packet.duration
    first = max(at, math.ceil(cut.start / unit)) if begin else at
    last = end if cut.end is None else min(end, math.floor(cut.end / unit))
    if first >= last:
        return at
    packet.pts, packet.dts, packet.duration = first, first, last - first
    return first


def _moved(packet: Any, at: int, decoded: int, cut: Cut) -> Any:
    shift = round(cut.start / packet.time_base)
    packet.pts, packet.dts = at - shift, decoded - shift
    return packet


def verify(file: BinaryIO, output: str, copied: Copied) -> None:
    """Reads the film once more: VideoError unless all that was written is there, each frame at its time."""
    import av
    from av.error import FFmpegError

    counts: dict[int, int] = {}
    times: list[Fraction] = []
    file.seek(0)
    with one_line(output), av.open(file, "r", format=container_of(output)) as made:
        main = main_stream(made, output)
        try:
            main.codec_context.open(strict=False)
        except FFmpegError:  # of what some containers do not say all that is needed
            raise VideoError(
                f"{output}: its {main.codec_context.name} could not be read back; .mkv may hold it"
            ) from None
        video = main.index
        for packet in made.demux():
            if not packet.size:
                continue
            counts[packet.stream_index] = counts.get(packet.stream_index, 0) + 1
            if packet.stream_index == video and packet.pts is not None:
                times.append(packet.pts * packet.time_base)
    # In their order: MP4 has no streams without packets, and those behind have other numbers then.
    held = [counts[index] for index in sorted(counts)] + [0] * len(copied.packets)
    for (index, count), there in zip(sorted(copied.packets.items()), held, strict=False):
        if there < count:
            kind = "frames" if index == copied.video else f"packets of stream {index}"
            raise VideoError(f"{output}: holds {there} of {count} {kind}")
    # Matroska has no times before zero: where sound begins earlier, everything begins that much later.
    shift = -copied.earliest if min(times) - copied.first > _TOLERANCE else Fraction(0)
    for name, found, wanted in (("begins", min(times), copied.first), ("ends", max(times), copied.last)):
        if abs(found - wanted - shift) > _TOLERANCE:
            raise VideoError(f"{output}: {name} at {float(found):.4f} s instead of {float(wanted + shift):.4f} s")
