"""Frames without compression on a pipe: Y4M, or planes one after the other."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import VideoError

if TYPE_CHECKING:
    import av

# Colour spaces of Y4M as ffmpeg writes them, and the pixel formats they are.
_Y4M = {
    "420": "yuv420p", "420jpeg": "yuv420p", "420mpeg2": "yuv420p", "420paldv": "yuv420p", "422": "yuv422p",
    "444": "yuv444p", "mono": "gray", "420p10": "yuv420p10le", "422p10": "yuv422p10le", "444p10": "yuv444p10le",
    "420p12": "yuv420p12le", "422p12": "yuv422p12le", "444p12": "yuv444p12le", "mono10": "gray10le",
    "mono12": "gray12le", "mono16": "gray16le",
}  # fmt: skip
# Packed formats, with bytes a pixel; of the others a pipe has the planes.
_PACKED = {"rgb24": 3, "bgr24": 3, "rgb48le": 6}
# Where chroma lies, of `yuv.SITINGS`, by Y4M's words for it; "left" by all others.
_SITINGS = {"C420": "center", "C420jpeg": "center", "C420paldv": "topleft"}
RAW_FORMATS = (*_PACKED, *dict.fromkeys(_Y4M.values()), "gbrp", "gbrp10le", "nv12", "p010le")
_MAGIC = b"YUV4MPEG2"
_MOST_PIXELS = 1 << 28  # with 128 more on each axis
_LONGEST = 1024  # bytes of a header line


@dataclass(frozen=True)
class Layout:
    """What the bytes on a pipe are. ``header``: the words of a Y4M header but for the size; None: there is none."""

    width: int
    height: int
    format: str
    full_range: bool = False
    header: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if (self.width + 128) * (self.height + 128) >= _MOST_PIXELS:
            raise VideoError(f"frames of {self.width} x {self.height} are larger than ffmpeg takes")

    @property
    def siting(self) -> str:
        return next((_SITINGS[word] for word in self.header or () if word in _SITINGS), "left")

    def sized(self, size: tuple[int, int], stretched: bool) -> Layout:
        """The same for frames of (height, width); if stretched, they keep the shape that they have on the screen."""
        change = Fraction(self.width * size[0], self.height * size[1]) if stretched else Fraction(1)
        words = None if self.header is None else tuple(_aspect(word, change) for word in self.header)
        return replace(self, height=size[0], width=size[1], header=words)

    @property
    def planes(self) -> list[tuple[int, int]]:
        """(rows, bytes of a row) of each plane."""
        from av import VideoFormat

        if self.format in _PACKED:
            return [(self.height, self.width * _PACKED[self.format])]
        form = VideoFormat(self.format, self.width, self.height)
        deep = 2 if max(component.bits for component in form.components) > 8 else 1
        whole, small = (self.height, self.width * deep), (form.chroma_height(), form.chroma_width() * deep)
        if len(form.components) == 1:
            return [whole]
        if self.format in ("nv12", "p010le"):
            return [whole, (small[0], small[1] * 2)]
        return [whole, whole, whole] if form.is_rgb else [whole, small, small]


def _aspect(word: str, change: Fraction) -> str:
    match = re.fullmatch(r"A(\d+):(\d+)", word)
    if not match or not (int(match[1]) and int(match[2])):
        return word
    aspect = (Fraction(int(match[1]), int(match[2])) * change).limit_denominator(1000)
    return f"A{aspect.numerator}:{aspect.denominator}"


class Reader:
    """Frames from a pipe. ``layout`` None: it is Y4M, whose header says it. VideoError for what it is not.

    ``cut`` says, when the frames have ended, how many bytes of one more there were.
    """

    def __init__(self, pipe: io.RawIOBase, layout: Layout | None) -> None:
        self._pipe = pipe
        self.cut = 0
        self._y4m = layout is None
        self.layout = layout or self._header()

    def _header(self) -> Layout:
        start = self._exactly(len(_MAGIC))
        if not start:
            raise VideoError("nothing came on standard input")
        if start != _MAGIC:
            raise VideoError("standard input is no Y4M; raw frames need --input-size and --format")
        words = self._line().split()
        found = {word[0]: word[1:] for word in words if word[0] != "X"}
        try:
            width, height = int(found["W"]), int(found["H"])
        except (KeyError, ValueError):
            width = height = 0
        if width < 1 or height < 1:
            raise VideoError("the Y4M header has no size")
        space = found.get("C", "420")
        if space not in _Y4M:
            raise VideoError(f"Y4M of colour space {space!r}; those known are {', '.join(_Y4M)}")
        if found.get("I", "p") not in "p?":
            raise VideoError("the Y4M is interlaced; deinterlace it before, as with ffmpeg -vf bwdif")
        kept = tuple(word for word in words if word[0] not in "WH")
        return Layout(width, height, _Y4M[space], "XCOLORRANGE=FULL" in words, kept)

    def _line(self) -> str:
        line = bytearray()
        while (byte := self._exactly(1)) not in (b"", b"\n"):
            line += byte
            if len(line) > _LONGEST:
                raise VideoError("the Y4M is damaged: a header without an end")
        return line.decode("ascii", "replace")

    def _exactly(self, size: int) -> bytearray:
        """As many bytes, or fewer at the end."""
        buffer = bytearray(size)
        view, done = memoryview(buffer), 0
        while done < size:
            read = self._pipe.readinto(view[done:])
            if not read:
                break
            done += read
        view.release()
        del buffer[done:]
        return buffer

    def frames(self) -> Iterator[av.VideoFrame]:
        size = sum(rows * length for rows, length in self.layout.planes)
        while True:
            if self._y4m:
                mark = self._exactly(5)
                if mark != b"FRAME":
                    if len(mark) == 5:
                        raise VideoError("the Y4M is damaged: no frame where one should begin")
                    self.cut = len(mark)
                    return
                self._line()  # parameters of the frame
            data = self._exactly(size)
            if len(data) < size:
                self.cut = len(data) + 5 * self._y4m
                return
            yield self._frame(data)

    def _frame(self, data: bytearray) -> av.VideoFrame:
        import av

        frame = av.VideoFrame(self.layout.width, self.layout.height, self.layout.format)
        whole, done = np.frombuffer(data, np.uint8), 0
        for plane, (rows, length) in zip(frame.planes, self.layout.planes, strict=True):
            _lines(plane, rows, length)[:] = whole[done : done + rows * length].reshape(rows, length)
            done += rows * length
        return frame


class Writer:
    """Frames onto a pipe, each as soon as it is given."""

    def __init__(self, pipe: io.RawIOBase, layout: Layout) -> None:
        self._pipe, self._layout = pipe, layout
        if layout.header is not None:
            words = " ".join(["YUV4MPEG2", f"W{layout.width}", f"H{layout.height}", *layout.header])
            self._all(f"{words}\n".encode())

    def write(self, frame: av.VideoFrame) -> None:
        parts = [b"FRAME\n"] if self._layout.header is not None else []
        for plane, (rows, length) in zip(frame.planes, self._layout.planes, strict=True):
            parts.append(_lines(plane, rows, length).tobytes())
        self._all(b"".join(parts))

    def _all(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._pipe.write(view) or 0 :]


def _lines(plane: Any, rows: int, length: int) -> np.ndarray:
    """The bytes of a plane, [rows, length], without what pads its lines."""
    return np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[:rows, :length]
