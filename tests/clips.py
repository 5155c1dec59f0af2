"""Small films made on the spot: moving patterns and tones, in whatever way a test wants them odd."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from liif_fast.checkpoint import Architecture

SMALL = Architecture(1, 8, (16, 16))  # of the network that is to enlarge them
RATE = 24
TICKS = 90_000  # of the video's clock a second


def pattern(number: int, height: int = 48, width: int = 64) -> np.ndarray:
    """A picture uint8 [H, W, 3] that moves with ``number``."""
    y, x = np.mgrid[:height, :width]
    waves = np.stack([np.sin((x + 2 * number) / 5), np.cos((y - number) / 6), np.sin((x + y + number) / 9)], -1)
    return np.round(127.5 + 110 * waves).astype(np.uint8)


def film(
    path: str | Path,
    frames: int | Sequence[np.ndarray] = 12,
    size: tuple[int, int] = (48, 64),
    codec: str = "libx264",
    format: str = "yuv420p",
    times: Sequence[int] | None = None,
    sounds: int = 1,
    rotation: int = 0,
    aspect: Fraction = Fraction(1),
    colors: dict[str, int] | None = None,
    options: dict[str, str] | None = None,
    subtitle: bool = False,
    chapters: bool = False,
    metadata: dict[str, str] | None = None,
    early_index: bool = False,
) -> Path:
    """A film of 24 frames a second, or shown at ``times`` (in 1/90000 s), with ``sounds`` tones of the same length."""
    import av

    path = Path(path)
    pictures = [pattern(i, *size) for i in range(frames)] if isinstance(frames, int) else list(frames)
    times = times or [i * TICKS // RATE for i in range(len(pictures))]
    length = (times[-1] + TICKS // RATE) / TICKS if times else 0
    with av.open(str(path), "w", options={"movflags": "faststart"} if early_index else {}) as out:
        out.metadata.update(metadata or {})
        video: Any = out.add_stream(codec, rate=RATE, options=options or ({"crf": "10"} if "x26" in codec else {}))
        video.height, video.width = size if not pictures else pictures[0].shape[:2]
        video.pix_fmt, video.time_base = format, Fraction(1, TICKS)
        video.codec_context.time_base = Fraction(1, TICKS)
        video.sample_aspect_ratio = aspect
        if codec == "libx265" and not options:
            video.codec_context.options |= {"x265-params": "log-level=none"}
        for name, value in (colors or {}).items():
            setattr(video.codec_context, name, value)
        if rotation:
            video.set_display_rotation(rotation)
        tones = [out.add_stream("aac", rate=48_000) for _ in range(sounds)]
        for i, tone in enumerate(tones):
            tone.metadata["language"] = ("eng", "deu", "fra")[i]
        text: Any = None
        if subtitle:  # Matroska only
            words = av.open(io.BytesIO(b"1\n00:00:00,100 --> 00:00:00,300\nhello\n"), format="srt")
            text = out.add_stream_from_template(words.streams[0], opaque=True)
        if chapters:
            half = {"id": 1, "start": 0, "end": 200, "time_base": Fraction(1, 1000), "metadata": {"title": "one"}}
            out.set_chapters([half, {**half, "id": 2, "start": 200, "end": 500, "metadata": {"title": "two"}}])
        for picture, at in zip(pictures, times, strict=True):
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            matrix = (colors or {}).get("colorspace", 5)
            frame = frame.reformat(
                format=format, dst_colorspace=5 if matrix == 6 else matrix, src_color_range=2,
                dst_color_range=(colors or {}).get("color_range", 1),
            )  # fmt: skip
            frame.pts, frame.time_base = at, Fraction(1, TICKS)
            out.mux(video.encode(frame))
        for i, tone in enumerate(tones):
            count = int(48_000 * length)
            wave = np.sin(np.arange(count) * (440 * (i + 1) * 2 * np.pi / 48_000)).astype(np.float32) / 4
            for start in range(0, count, 1024):
                part = wave[None, start : start + 1024].repeat(2, 0)
                sound = av.AudioFrame.from_ndarray(np.ascontiguousarray(part), "fltp", "stereo")
                sound.sample_rate, sound.pts, sound.time_base = 48_000, start, Fraction(1, 48_000)
                out.mux(tone.encode(sound))
        if text is not None:
            for packet in words.demux():
                if packet.dts is not None:
                    packet.stream = text
                    out.mux(packet)
        for stream in (video, *tones):
            out.mux(stream.encode(None))
    return path


def decoded(path: str | Path, format: str | None = None) -> list[Any]:
    """All frames of the film in a file, as arrays; in its own pixel format unless told."""
    import av

    with av.open(str(path)) as source:
        return [frame.to_ndarray(**({"format": format} if format else {})) for frame in source.decode(video=0)]


def shown(path: str | Path) -> list[Fraction]:
    """When each frame is shown, in seconds."""
    import av

    with av.open(str(path)) as source:
        stream = source.streams.video[0]
        assert stream.time_base is not None
        return [(frame.pts or 0) * stream.time_base for frame in source.decode(stream)]
