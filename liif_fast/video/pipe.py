"""Between two other programs: frames on standard input -> larger ones on standard output."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from ..batch import Request
from . import colors
from .colors import MATRICES, Colors
from .encoding import fitted
from .errors import VideoError
from .raw import RAW_FORMATS, Layout, Reader, Writer
from .stages import Pipeline

if TYPE_CHECKING:
    from ..upscaler import Upscaler
    from .planes import Converter


def run(
    source: io.RawIOBase,
    result: io.RawIOBase,
    layout: Layout | None,
    request: Request,
    matrix: str,
    latency: bool,
    upscaler: Callable[[], Upscaler],
) -> tuple[int, int]:
    """Frames done, and bytes of one more that the input broke off in.

    ``layout`` is that of raw frames, None for Y4M. ``matrix``: a name in `colors.MATRICES`, or "auto", of YUV; the
    result has the same. ``latency``: each frame is written before the next is read. Raises VideoError, BrokenPipeError.
    """
    reader = Reader(source, layout)
    found = reader.layout
    _check(found.format, matrix)
    steps = colors.subsampling(found.format)
    size = fitted(request.target(found.height, found.width), request, *steps)
    larger = found.sized(size, stretched=request.stretches)
    if larger.height % steps[0] or larger.width % steps[1]:
        raise VideoError(f"{larger.width} x {larger.height} cannot be {found.format}: its chroma needs even sizes")
    up = upscaler()
    from .planes import Converter

    writer, back, done = Writer(result, larger), Converter(up.device, found.siting), 0
    chosen = _colors(found, matrix)
    with Pipeline("writing") as pipeline:
        pictures = _pictures(reader, chosen, Converter(up.device, found.siting))
        large: Iterable[Any]
        if latency:
            large = up.stream(pictures, size=(larger.height, larger.width), at_once=1)
        else:
            read = pipeline.step("reading", pictures)
            large = pipeline.step("upscaling", up.stream(read, size=(larger.height, larger.width)))
        for picture in large:
            writer.write(back.frame(picture, larger.format, chosen))
            done += 1
    return done, reader.cut


def _check(format: str, matrix: str) -> None:
    if format not in RAW_FORMATS:
        raise VideoError(f"--format must be one of {', '.join(RAW_FORMATS)}; got {format!r}")
    if matrix != "auto" and matrix not in MATRICES:
        raise VideoError(f"--matrix must be auto or one of {', '.join(MATRICES)}; got {matrix!r}")


def _colors(layout: Layout, matrix: str) -> Colors:
    import av

    frame = av.VideoFrame(layout.width, layout.height, layout.format)
    found = Colors.of(frame)
    if matrix != "auto" and found.matrix != colors.RGB:
        found = Colors(MATRICES[matrix], found.range)
    return Colors(found.matrix, colors.FULL) if layout.full_range or found.matrix == colors.RGB else found


def _pictures(reader: Reader, chosen: Colors, by: Converter) -> Iterator[Any]:
    for frame in reader.frames():
        yield by.picture(frame, chosen)
