"""Frames as decoders give them <-> the pictures that the network sees, by the matrix and range that the film names."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import VideoError

if TYPE_CHECKING:
    import av

# Numbers of ISO/IEC 23091-2, which ffmpeg uses too.
RGB, BT709, UNSPECIFIED, BT2020 = 0, 1, 2, 9
MATRICES = {"bt709": BT709, "fcc": 4, "bt601": 6, "smpte240m": 7, "bt2020": BT2020}
LIMITED, FULL = 1, 2
# Where a film does not say, players take the matrix of high definition from this many lines on.
_HD_LINES = 720


@dataclass(frozen=True)
class Colors:
    """How the numbers of a film's frames become colours. ``matrix`` and the others are those of ISO/IEC 23091-2."""

    matrix: int
    range: int
    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED

    @classmethod
    def of(cls, frame: av.VideoFrame) -> Colors:
        """Those of a decoded frame; what it does not say is what players assume.

        VideoError for a rare matrix, and for floats.
        """
        name = frame.format.name
        if bits(name) > 16:
            raise VideoError(f"its pixel format, {name}, is of floats, which are not read")
        if is_rgb(name):
            return cls(RGB, FULL, frame.color_primaries, frame.color_trc)
        matrix = frame.colorspace
        if matrix in (UNSPECIFIED, 3, RGB):
            matrix = BT709 if frame.height >= _HD_LINES else MATRICES["bt601"]
        matrix = MATRICES["bt601"] if matrix == 5 else matrix  # two numbers for the same equations
        if matrix not in MATRICES.values():
            raise VideoError(f"its colour matrix, number {matrix}, is not one of {', '.join(MATRICES)}")
        # Gray that does not say is full to ffmpeg, and what it makes of pictures is.
        full = frame.color_range == FULL or name.startswith("yuvj") or (is_gray(name) and frame.color_range != LIMITED)
        return cls(matrix, FULL if full else LIMITED, frame.color_primaries, frame.color_trc)

    def within(self, format: str) -> Colors:
        """The same for frames of another pixel format: RGB knows no matrix."""
        if is_rgb(format):
            return replace(self, matrix=RGB, range=FULL)
        return replace(self, matrix=BT709, range=LIMITED) if self.matrix == RGB else self


def is_rgb(format: str) -> bool:
    return _format(format).is_rgb


def is_gray(format: str) -> bool:
    return len(_format(format).components) == 1 and format.startswith(("gray", "mono"))


def has_alpha(format: str) -> bool:
    return any(component.is_alpha for component in _format(format).components)


def bits(format: str) -> int:
    return max(component.bits for component in _format(format).components)


def subsampling(format: str) -> tuple[int, int]:
    """(down, across): luma pixels per chroma pixel."""
    from av import VideoFormat

    whole = VideoFormat(format, 64, 64)
    return 64 // (whole.chroma_height() or 64), 64 // (whole.chroma_width() or 64)


@cache
def _format(name: str) -> Any:
    from av import VideoFormat

    try:
        return VideoFormat(name)
    except ValueError:
        raise VideoError(f"{name!r} is no pixel format that ffmpeg knows") from None


class Swscale:
    """Frames -> pictures and back, with swscale at its most exact: what `planes.Converter` has no code for.

    A picture is numpy ``[H, W, C]``, C of 3 (RGB) or 1 (a gray film), uint8 or, of more than 8 bits, uint16 whose white
    is 65535. Chroma is interpolated bicubically. Gray of limited range stays in its range. For one thread.
    """

    @cached_property
    def _swscale(self) -> Any:
        from av.video.reformatter import VideoReformatter

        return VideoReformatter()

    def picture(self, frame: av.VideoFrame, colors: Colors | None = None) -> np.ndarray:
        """``colors`` None: those that the frame names."""
        colors = colors or Colors.of(frame)
        name = frame.format.name
        deep = bits(name) > 8
        gray = is_gray(name)
        target = ("gray16le" if deep else "gray") if gray else ("rgb48le" if deep else "rgb24")
        made = self._convert(frame, target, colors)
        array = made.to_ndarray()
        if deep:
            array = _whiter(_white(bits(name), colors.range, gray))[array]
        return array.reshape(frame.height, frame.width, -1)

    def frame(self, picture: np.ndarray, format: str, colors: Colors) -> av.VideoFrame:
        """As the encoder wants it. ``colors`` are those to write."""
        import av

        if picture.dtype == np.uint16:
            depth = bits(format)
            if depth <= 8:
                picture = ((picture.astype(np.uint32) + 128) // 257).astype(np.uint8)
            elif not is_rgb(format):
                picture = _darker(_white(depth, colors.range, picture.shape[2] == 1))[picture]
        deep = picture.dtype == np.uint16
        source = {(3, False): "rgb24", (3, True): "rgb48le", (1, False): "gray", (1, True): "gray16le"}
        flat = picture[..., 0] if picture.shape[2] == 1 else picture
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(flat), source[picture.shape[2], deep])
        made = self._convert(frame, format, colors, back=True)
        made.colorspace, made.color_range = colors.matrix, colors.range
        made.color_primaries, made.color_trc = colors.primaries, colors.transfer
        return made

    def _convert(self, frame: av.VideoFrame, format: str, colors: Colors, back: bool = False) -> av.VideoFrame:
        from av.video.reformatter import Interpolation as I

        flags = I.BICUBIC | I.ACCURATE_RND | I.FULL_CHR_H_INT | I.FULL_CHR_H_INP | I.BITEXACT
        matrix = 5 if colors.matrix in (RGB, MATRICES["bt601"]) else colors.matrix  # swscale's own numbers
        before, after = (FULL, colors.range) if back else (colors.range, FULL)
        return self._swscale.reformat(
            frame,
            format=format,
            src_colorspace=matrix,
            dst_colorspace=matrix,
            src_color_range=before,
            dst_color_range=after,
            interpolation=flags,
        )


def _white(bits: int, range: int, gray: bool) -> int:
    """What swscale makes of white in 16 bits: it shifts, so that there is no white of 65535."""
    return 255 << 8 if range == LIMITED and not gray else ((1 << bits) - 1) << (16 - bits)


@cache
def _whiter(white: int) -> np.ndarray:
    levels = np.arange(65536, dtype=np.int64)
    return np.minimum((levels * 65535 + white // 2) // white, 65535).astype(np.uint16)


@cache
def _darker(white: int) -> np.ndarray:
    return ((np.arange(65536, dtype=np.int64) * white + 32767) // 65535).astype(np.uint16)
