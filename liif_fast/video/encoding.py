"""What the result is encoded with: codec, quality, pixel format, and an encoder made by it."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from ..batch import Request
from . import colors
from .colors import Colors
from .container import container_of
from .errors import VideoError, logged
from .hdr import Mastering

# A --crf of each encoder at which the result is hard to tell from the pictures it was given, and the highest there is.
_CRF = {
    "libx264": (17, 51),
    "libx264rgb": (17, 51),
    "libx265": (19, 51),
    "libsvtav1": (24, 63),
    "libvpx-vp9": (24, 63),
}
# Encoders in hardware name it in their ways; they keep their own default.
_HARDWARE_QUALITY = {"nvenc": "cq", "qsv": "global_quality", "amf": "qp_i"}
# But Macs', for which ffmpeg has a setting that all encoders share, counted in this.
_LAMBDA = 118
_LOSSLESS = ("ffv1", "ffvhuff", "huffyuv", "utvideo")
# Asked for another, these print more than one line themselves.
_PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo")


@dataclass(frozen=True)
class Choice:
    """The options as typed."""

    codec: str | None = None
    crf: float | None = None
    preset: str | None = None
    pixel_format: str | None = None
    options: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Encoding:
    """Everything that decides about the bits of the result, given its pictures."""

    codec: str
    options: dict[str, str]
    format: str
    width: int
    height: int
    colors: Colors
    aspect: Fraction
    rate: Fraction
    time_base: Fraction

    @classmethod
    def choose(
        cls,
        path: str,
        choice: Choice,
        size: Callable[[int, int], tuple[int, int]],
        source: str,
        found: Colors,
        aspect: Fraction,
        rate: Fraction,
        time_base: Fraction,
        mastering: Mastering | None = None,
    ) -> Encoding:
        """For a result at ``path`` from pictures that have pixel format ``source``.

        ``size(down, across)`` is its (height, width), multiples of the steps that chroma needs where it is free to be;
        ``rate`` frames per second, ``time_base`` seconds. Opens the encoder once: VideoError for whatever it refuses.
        """
        container_of(path)
        codec = choice.codec or _default_codec(path, source)
        able = _formats(codec)
        format = choice.pixel_format or _closest(codec, source, able)
        colors.bits(format)  # a name that is none is refused here
        if able and format not in able:
            raise VideoError(f"{codec} does not encode {format}; it does {', '.join(able)}")
        down, across = colors.subsampling(format)
        height, width = size(down, across)
        if height % down or width % across:
            full = format.replace("420", "444").replace("422", "444")
            raise VideoError(
                f"{format} needs even sizes for its chroma, which those asked for are not; give others, or "
                f"--pixel-format {full}"
            )
        options = _joined(
            _options(codec, choice),
            _spared(codec, format, width),
            mastering.options(codec) if mastering else {},
            choice.options,
        )
        made = cls(codec, options, format, width, height, found.within(format), aspect, rate, time_base)
        made.open()
        return made

    def open(self) -> Any:
        """A new encoder, an ``av.VideoCodecContext`` that is open."""
        from av.error import FFmpegError

        if self.codec == "libsvtav1":
            os.environ.setdefault("SVT_LOG", "1")  # errors only; it has no other way to be told
        context = self._closed()
        try:
            context.open()
        except FFmpegError as error:
            reason = logged(self._closed().open) or (error.strerror or str(error)).strip()
            raise VideoError(f"encoder {self.codec} refuses {self}: {reason}") from error
        if context.options:  # those that nobody took
            raise VideoError(f"{self.codec} has no option {', '.join(context.options)}")
        return context

    def _closed(self) -> Any:
        import av

        context = av.CodecContext.create(self.codec, "w")
        self.configure(context)
        context.flags |= int(av.codec.context.Flags.global_header)
        return context

    def configure(self, context: Any) -> None:
        """Settings of an encoder that is not open yet."""
        context.width, context.height, context.pix_fmt = self.width, self.height, self.format
        context.time_base, context.framerate = self.time_base, self.rate
        context.sample_aspect_ratio = self.aspect
        context.colorspace, context.color_range = self.colors.matrix, self.colors.range
        context.color_primaries, context.color_trc = self.colors.primaries, self.colors.transfer
        context.options = dict(self.options)

    def lost(self, source: str) -> str | None:
        """What its pixel format leaves out of the source's, and what would keep it."""
        fewer = []
        if colors.subsampling(self.format) > colors.subsampling(source) and not colors.is_gray(source):
            fewer.append("colours")
        if colors.bits(self.format) < colors.bits(source):
            fewer.append("bits")
        if not fewer:
            return None
        chroma, depth = "444" if "colours" in fewer else "420", colors.bits(source)
        better = f"yuv{chroma}p" + ("" if depth == 8 else "10le" if depth <= 10 else "12le")
        able = better != self.format and better in _formats(self.codec)
        text = f"{self.format} keeps fewer {' and '.join(fewer)} than {source}"
        return f"{text}; {f'--pixel-format {better} keeps more, ' if able else ''}--codec ffv1 in .mkv all"

    def __str__(self) -> str:
        options = "".join(f", {name}={value}" for name, value in self.options.items())
        return f"{self.width} x {self.height} {self.format}{options}"


def fitted(size: tuple[int, int], request: Request, down: int, across: int) -> tuple[int, int]:
    """(height, width) with whole chroma samples, unless the request says both sides; within the one that it says."""
    if request.width and request.height:
        return size
    whole = math.floor if request.longest or request.fit else round
    return max(1, whole(size[0] / down)) * down, max(1, whole(size[1] / across)) * across


def _default_codec(path: str, source: str) -> str:
    deep = colors.bits(source) > 8
    if container_of(path) == "webm":
        return "libsvtav1" if deep else "libvpx-vp9"  # which is built without 10 bits
    # Players that know 10 bits know them in HEVC.
    return "libx265" if deep else "libx264"


def _formats(codec: str) -> list[str]:
    """Pixel formats that an encoder takes, empty where it does not say; VideoError where there is no such encoder."""
    from av import Codec
    from av.codec.codec import UnknownCodecError

    try:
        found = Codec(codec, "w")
    except UnknownCodecError:
        raise VideoError(
            f"ffmpeg has no encoder {codec!r} here; libx264, libx265, libsvtav1 and ffv1 are usual"
        ) from None
    if found.type != "video":
        raise VideoError(f"{codec} encodes {found.type}, not video")
    return [format.name for format in found.video_formats or ()]


def _closest(codec: str, source: str, able: list[str]) -> str:
    """The source's own pixel format, or the one that loses least of those that players know; its alpha is left out.

    Colours that are whole in RGB stay so only where losing nothing is what the encoder is for.
    """
    depth, rgb = colors.bits(source), colors.is_rgb(source)
    opaque = source.replace("yuva", "yuv").replace("gbrap", "gbrp")
    kept = codec in _LOSSLESS or "yuv420p" not in able or not rgb
    wanted = [opaque] if kept and not colors.has_alpha(opaque) else []
    wanted += [*(("gbrp", "bgr0", "rgb24") if depth <= 8 else (f"gbrp{depth}le",))] if rgb and kept else []
    wanted += [f"yuv420p{bits}le" for bits in (16, 12, 10) if depth >= bits] if depth > 8 else []
    wanted += ["p010le", "yuv420p10le"] if depth > 8 else []
    wanted += ["yuv420p", "nv12", *able[:1]]
    return next((format for format in wanted if not able or format in able), "yuv420p")


def _options(codec: str, choice: Choice) -> dict[str, str]:
    usual, most = _CRF.get(codec, (None, math.inf))
    hardware = next((word for kind, word in _HARDWARE_QUALITY.items() if codec.endswith(kind)), None)
    name, fixed = "crf" if codec in _CRF else hardware, codec.endswith("videotoolbox")
    if choice.crf is not None and name is None and not fixed:
        raise VideoError(f"{codec} has no --crf; --codec-option NAME=VALUE gives it others")
    if choice.crf is not None and not 0 <= choice.crf <= most:  # some take the nearest without a word
        raise VideoError(f"--crf is {choice.crf:g}, of {codec} must be from 0" + f" to {most}" * (most < math.inf))
    value = usual if choice.crf is None else choice.crf
    options = {name: f"{value:g}"} if name and value is not None else {}
    if choice.crf is not None and fixed:
        options = {"flags": "+qscale", "global_quality": str(round(choice.crf * _LAMBDA))}
    if codec == "libvpx-vp9":
        options |= {"b": "0", "row-mt": "1"}  # without a bit rate of zero crf would be a limit only
    if choice.preset is not None:
        if codec in ("libx264", "libx264rgb", "libx265") and choice.preset not in _PRESETS:
            raise VideoError(f"{codec} has no preset {choice.preset!r}; it has {', '.join(_PRESETS)}")
        options["cpu-used" if codec == "libvpx-vp9" else "preset"] = choice.preset
    if codec == "libx265":
        options["x265-params"] = "log-level=error"
    return options


def _spared(codec: str, format: str, width: int) -> dict[str, str]:
    """Of narrow pictures of more than 8 bits x265 4.2 writes past the ends of its buffers as it plans bits ahead."""
    return {"x265-params": "cutree=0"} if codec == "libx265" and width <= 48 and colors.bits(format) > 8 else {}


def _joined(*options: dict[str, str]) -> dict[str, str]:
    """Later ones win, but lists of an encoder's own parameters are put together."""
    every: dict[str, str] = {}
    for name, value in (pair for some in options for pair in some.items()):
        every[name] = f"{every[name]}:{value}" if name.endswith("-params") and name in every else value
    return every
