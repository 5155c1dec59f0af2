"""What encoders are told, and that what they wrote is read back."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from liif_fast import Upscaler

av = pytest.importorskip("av")

from clips import decoded, film, shown  # noqa: E402
from liif_fast.video import VideoError, encoding  # noqa: E402
from liif_fast.video.encoding import Choice  # noqa: E402
from test_video import make, stills  # noqa: E402


def test_hevc_in_mp4_is_what_macs_play(tmp_path: Path, film_upscaler: Upscaler) -> None:
    """Of whatever encoder; here ffmpeg's own choice."""
    source, quiet = film(tmp_path / "in.mkv", 3, sounds=0), {"x265-params": "log-level=none"}
    make(film_upscaler, source, tmp_path / "out.mp4", choice=Choice("hevc", preset="ultrafast", options=quiet))
    with av.open(str(tmp_path / "out.mp4")) as made:
        assert made.streams.video[0].codec_context.codec_tag == "hvc1"
    assert len(decoded(tmp_path / "out.mp4")) == 3


def test_quality_of_macs_encoders() -> None:
    """They are not here; but what they are told is a setting of every encoder, so another takes it."""
    for codec in ("h264_videotoolbox", "hevc_videotoolbox"):
        told = encoding._options(codec, Choice(crf=60))
        context = av.CodecContext.create("mpeg4", "w")
        context.width, context.height, context.pix_fmt, context.time_base = 64, 48, "yuv420p", Fraction(1, 25)
        context.options = told
        context.open()
        assert context.options == {}, "what nobody took"
        assert context.flags & av.codec.context.Flags.qscale
        assert encoding._options(codec, Choice()) == {}


@pytest.mark.parametrize(("codec", "most"), [("libx264", 51), ("libx265", 51), ("libsvtav1", 63), ("libvpx-vp9", 63)])
def test_crf_is_one_that_the_encoder_has(codec: str, most: int) -> None:
    """Some take the nearest without a word."""
    for crf in (0, most, 17.5):
        assert encoding._options(codec, Choice(crf=crf))["crf"] == str(crf)
    for crf in (-1, most + 0.5, math.nan):
        with pytest.raises(VideoError, match=rf"--crf is {crf:g}, of {codec} must be from 0 to {most}"):
            encoding._options(codec, Choice(crf=crf))
    with pytest.raises(VideoError, match=r"-2, of h264_nvenc must be from 0$"):
        encoding._options("h264_nvenc", Choice(crf=-2))


@pytest.mark.parametrize("codec", ["libx265", "libsvtav1", "libvpx-vp9", "ffv1"])
def test_encoders(tmp_path: Path, film_upscaler: Upscaler, codec: str) -> None:
    source = film(tmp_path / "in.mkv", 14, sounds=0)
    choice = Choice(codec, preset={"libx265": "ultrafast", "libsvtav1": "12", "libvpx-vp9": "8"}.get(codec))
    make(film_upscaler, source, tmp_path / "out.mkv", choice=choice, segment=6)
    assert shown(tmp_path / "out.mkv") == shown(source)
    for found, still in zip(decoded(tmp_path / "out.mkv", "rgb24"), stills(source, (96, 128)), strict=True):
        assert np.abs(found.astype(int) - still).mean() < 12


@pytest.mark.parametrize("width", [34, 48, 50])
def test_narrow_films_of_10_bits(tmp_path: Path, film_upscaler: Upscaler, width: int) -> None:
    """x265 4.2, left to itself, ends the process."""
    source = film(tmp_path / "in.mkv", 6, size=(24, 32), codec="ffv1", format="yuv420p10le", sounds=0)
    choice = Choice(preset="ultrafast", options={"x265-params": "min-keyint=2"})
    make(film_upscaler, source, tmp_path / "out.mkv", f"{width}x36", choice)
    assert [frame.shape for frame in decoded(tmp_path / "out.mkv", "rgb24")] == [(36, width, 3)] * 6


def test_what_cannot_be_read_back(tmp_path: Path, film_upscaler: Upscaler) -> None:
    """QuickTime does not say of raw video what its decoder needs to know."""
    source = film(tmp_path / "in.mkv", 3)
    with pytest.raises(VideoError, match=r"out\.mov: its rawvideo could not be read back; \.mkv may hold it"):
        make(film_upscaler, source, tmp_path / "out.mov", choice=Choice("rawvideo"))
    assert not (tmp_path / "out.mov").exists()
    assert make(film_upscaler, source, tmp_path / "out.mkv", choice=Choice("rawvideo")).frames == 3
