"""A film enlarged: read, enlarged and encoded side by side, in segments from which a broken-off run goes on."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from ..batch import Request
from ..console import Meter, Stopped, say_error
from ..output import ImageError, check_place, one_line_errors, whole_file
from ..words import counted
from .colors import has_alpha
from .container import container_of
from .encoding import Choice, Encoding, fitted
from .errors import VideoError, check_library
from .mux import Copied, Cut, check, verify, write
from .segments import Encoded, Work
from .source import Clip, Source
from .stages import Pipeline

if TYPE_CHECKING:
    from ..upscaler import Upscaler
    from .planes import Converter

# Frames of a segment, all that a killed run loses at most. Each begins with a key frame, about as often as is usual.
SEGMENT = 120


@dataclass(frozen=True)
class Job:
    """One film to make."""

    input: str
    output: str
    request: Request
    choice: Choice = field(default_factory=Choice)
    start: Fraction | None = None  # seconds
    end: Fraction | None = None
    frames: int | None = None
    deinterlace: bool = False
    leave_out: bool = False
    resume: bool = False
    force: bool = False
    segment: int = SEGMENT


@dataclass(frozen=True)
class Made:
    """What came of it."""

    width: int
    height: int
    frames: int
    resumed: int  # frames of an earlier run
    seconds: float
    codec: str
    pixel_format: str
    steps: dict[str, float]  # seconds of work of each step
    damage: str  # what was wrong with the input, "" if nothing


class FilmMeter(Meter):
    """Progress in frames a second, with the step that the others wait for."""

    def __init__(self, shown: bool) -> None:
        super().__init__(1, shown)
        self.slowest: Callable[[], str] = str

    def picture(self, name: str) -> None:
        super().picture(name)
        if self._shown:
            self._bar.update(self._one, note="getting ready")

    def _speed(self, done: int, seconds: float) -> str:
        slowest = self.slowest()
        return f"{done / seconds:.1f} fps" + (f", {slowest} is slowest" if slowest else "")


# `preview.write_strip`, its file and whether to replace that given.
Preview = Callable[..., None]


def make(job: Job, upscaler: Callable[[], Upscaler], meter: FilmMeter, preview: Preview | None = None) -> Made:
    """Makes the film. ``upscaler`` is called when all that can be refused without it has been, then ``preview``.

    Raises VideoError, OSError. Segments that were finished before are kept for ``job.resume``.
    """
    check_library()
    _check_places(job)
    bytes_before = os.path.getsize(job.input)
    meter.picture(os.path.basename(job.output))
    with Source(job.input, job.start, job.end, job.deinterlace) as source:
        clip = source.clip
        if has_alpha(clip.format):
            warnings.warn(f"{job.input}: the alpha channel of {clip.format} is left out", stacklevel=2)
        encoding = encoding_of(job, clip)
        if job.choice.pixel_format is None and (lost := encoding.lost(clip.format)):
            warnings.warn(f"{job.output}: {lost}", stacklevel=2)
        check(job.input, job.output, encoding, job.leave_out)
        up = upscaler()
        work = Work(job.output, _settings(job, encoding, up), job.segment, job.resume, job.force)
        try:
            if preview:
                size = (encoding.height, encoding.width)
                length = min(clip.frames, job.frames or clip.frames) / clip.rate
                preview(job.input, job.start or Fraction(0), length, job.deinterlace, up, size)
            begun = time.perf_counter()
            done, steps = _encode(job, source, encoding, up, work, meter)
            if (now := os.path.getsize(job.input)) != bytes_before:
                raise VideoError(f"{job.input}: was {bytes_before} bytes when this began and is {now} now; begin again")
            _finish(job, source, encoding, work, done)
            work.remove()
        except (Stopped, OSError, ImageError):  # as on a full disk
            if kept := work.count():
                say_error(
                    f"{counted(kept * job.segment, 'frame')} kept in {work.folder}; --resume goes on from there", ""
                )
            raise
        finally:
            work.close()
        seconds = time.perf_counter() - begun
        return Made(
            encoding.width, encoding.height, done[1], done[0], seconds, encoding.codec, encoding.format, steps,
            str(source.damage),
        )  # fmt: skip


def _check_places(job: Job) -> None:
    container_of(job.output)
    if not os.path.exists(job.input):
        raise FileNotFoundError(f"{job.input}: no such file")
    if os.path.exists(job.output) and os.path.samefile(job.input, job.output):
        raise VideoError(f"{job.output}: the result would replace the input; give it another name")
    check_place(job.output, job.force)


def target(clip: Clip, request: Request, down: int, across: int) -> tuple[int, int]:
    """(height, width) of the frames as they are stored, for a size asked of the picture as players show it.

    A side that the request leaves open is a multiple of the step that chroma needs.
    """
    turned = clip.rotation % 180 == 90
    rows, columns = request.target(*((clip.width, clip.height) if turned else (clip.height, clip.width)))
    if turned:
        rows, columns = columns, rows
    return fitted((rows, columns), request, down, across)


def encoding_of(job: Job, clip: Clip) -> Encoding:
    """What the result is encoded with; VideoError for what cannot be."""
    size = target(clip, job.request, 1, 1)
    # A picture forced into another shape is shown in its own, which is what pixels that are not square are for.
    change = Fraction(clip.width * size[0], clip.height * size[1]) if job.request.stretches else Fraction(1)
    return Encoding.choose(
        job.output, job.choice, lambda down, across: target(clip, job.request, down, across), clip.format, clip.colors,
        (clip.aspect * change).limit_denominator(1000), clip.rate, clip.time_base, clip.mastering,
    )  # fmt: skip


def _settings(job: Job, encoding: Encoding, upscaler: Upscaler) -> dict[str, Any]:
    """All that decides about the bits of a segment, in words for a person who changed it."""
    from ..backends import BACKENDS

    found, decoder = os.stat(job.input), upscaler.decoder
    layers = upscaler.weights.quantized.get(upscaler.precision)
    parts = {name: str(value) for name, value in asdict(encoding).items()}
    parts["options"] = " ".join(f"{name}={value}" for name, value in encoding.options.items())
    return {
        "input": [os.path.basename(job.input), found.st_size, found.st_mtime_ns],
        "model": [upscaler.weights.name, upscaler.weights.fingerprint],
        "precision": upscaler.precision,
        "backend": [decoder.backend, decoder.description],
        "features": [str(decoder.dtype), BACKENDS[decoder.backend].describe(decoder.dtype)],
        "calibration": layers.fingerprint if layers else None,
        "engine": upscaler.encoder.engine,
        "cell clamp": upscaler.cell_clamp,
        "--self-ensemble": upscaler.encoder.self_ensemble,
        "--start": str(job.start),
        "--deinterlace": job.deinterlace,
        **parts,
    }


def _encode(
    job: Job, source: Source, encoding: Encoding, upscaler: Upscaler, work: Work, meter: FilmMeter
) -> tuple[tuple[int, int], dict[str, float]]:
    """Fills the segments; (frames that were there before, frames in all) and the seconds of work of each step."""
    from .frames import enlarged, pictures_of
    from .planes import Converter

    first = work.finished * job.segment
    wanted = source.clip.frames if job.frames is None else min(job.frames, source.clip.frames)
    total = max(1, wanted - first)
    if first and (first > (job.frames or first) or (job.end and max(work.starts()) * encoding.time_base >= job.end)):
        raise VideoError(f"{job.output}: {first} frames are finished, more than asked for now; --force begins again")
    count = None if job.frames is None else max(0, job.frames - first)
    done = 0
    with Pipeline("encoding") as pipeline:
        meter.slowest = pipeline.slowest
        pictures = pipeline.step("decoding", pictures_of(source, first, count, Converter(upscaler.device)))
        frames = pipeline.step("upscaling", enlarged(pictures, upscaler, (encoding.height, encoding.width)))

        def checked() -> Iterator[tuple[Any, int, int]]:
            nonlocal done
            for item in frames:
                if source.damage.jump:
                    way = "end there with --end, or set it right: ffmpeg -i IN -c copy OUT"
                    raise VideoError(f"{job.input}: {source.damage.jump}; {way}")
                yield item
                done += 1
                meter(min(done, total - 1), total)

        encode_segments(checked(), encoding, work, job.segment, Converter(upscaler.device))
        steps = pipeline.seconds()
    if first + done == 0:
        raise VideoError(f"{job.input}: no frame in the part asked for")
    return (first, first + done), steps


def encode_segments(
    frames: Iterator[tuple[Any, int, int]],
    encoding: Encoding,
    work: Work,
    length: int,
    by: Converter,
) -> None:
    """Each of ``length`` frames, and the last with what is left; by an encoder of its own, so that any can be the first
    of a run that goes on. ``by`` makes frames of the pictures."""
    for head in frames:  # one more segment as long as there is a frame for it
        encoder = encoding.open()
        durations: dict[int, int] = {}
        with work.segment() as segment:
            for picture, start, duration in chain([head], islice(frames, length - 1)):
                durations[start] = duration
                frame = by.frame(picture, encoding.format, encoding.colors)
                frame.pts, frame.time_base, frame.duration = start, encoding.time_base, duration
                _store(encoder.encode(frame), segment, durations)
            _store(encoder.encode(None), segment, durations)


def _store(packets: list[Any], segment: Any, durations: dict[int, int]) -> None:
    for packet in packets:
        segment.add(Encoded(packet.pts, durations.get(packet.pts, 1), packet.is_keyframe, bytes(packet)))


def _finish(job: Job, source: Source, encoding: Encoding, work: Work, done: tuple[int, int]) -> None:
    """The film under its name, once it is whole."""
    clip, base = source.clip, encoding.time_base
    end = job.end
    if job.frames is not None and not source.damage:
        starts = work.starts()
        longest = max(starts) * base + 1 / clip.rate
        end = longest if end is None else min(end, longest)
    cut = Cut(job.start or Fraction(0), end)
    with one_line_errors(job.output), whole_file(job.output, job.force, work.folder) as file:
        copied: Copied = write(file, job.output, job.input, encoding, work, clip, cut)
        verify(file, job.output, copied)
    source.damage.refused = copied.refused
    if copied.packets[copied.video] != done[1]:
        raise VideoError(f"{job.output}: {copied.packets[copied.video]} of {done[1]} frames were encoded")
