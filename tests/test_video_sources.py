"""Films that are odd on their way in: clocks that run on, no index to seek by, covers, late fields, RGB and alpha."""

from __future__ import annotations

import io
import warnings
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin, features

from liif_fast import Upscaler
from liif_fast.batch import Request

av = pytest.importorskip("av")

from clips import RATE, TICKS, decoded, film, pattern, shown  # noqa: E402
from liif_fast.video import VideoError  # noqa: E402
from liif_fast.video.colors import bits  # noqa: E402
from liif_fast.video.encoding import Choice, fitted  # noqa: E402
from liif_fast.video.hdr import Mastering  # noqa: E402
from test_video import FAST, LOSSLESS, make, packets, stills  # noqa: E402

AVIF = pytest.param(".avif", marks=pytest.mark.skipif(not features.check("avif"), reason="a Pillow without AVIF"))
SECONDLY = {"crf": "10", "g": "24", "keyint_min": "24", "sc_threshold": "0", "bf": "2"}


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_a_clock_that_runs_on(tmp_path: Path, film_upscaler: Upscaler, suffix: str) -> None:
    """A recording of a broadcast: what is asked for and what comes out count from its beginning."""
    times = [1000 * TICKS + i * TICKS // 24 for i in range(48)]
    source = film(tmp_path / "in.ts", 48, times=times, sounds=0)
    assert shown(source)[0] == 1000
    out = tmp_path / f"out{suffix}"
    assert make(film_upscaler, source, out).damage == ""
    assert [round(float(t), 3) for t in shown(out)] == pytest.approx([i / 24 for i in range(48)], abs=2e-3)
    with av.open(str(out)) as made:
        assert made.duration / 1e6 == pytest.approx(2, abs=0.1)
    for part, frames in (({"start": Fraction(1)}, 24), ({"end": Fraction(1, 2)}, 12)):
        assert make(film_upscaler, source, out, force=True, **part).frames == frames
        assert shown(out)[0] < 0.05
    with pytest.raises(VideoError, match="no frame in the part asked for"):
        make(film_upscaler, source, out, force=True, start=Fraction(1001))


@pytest.mark.parametrize("target", [".mkv", ".mp4", ".mov", ".webm"])
@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
def test_the_last_picture_of_a_film_is_shown_as_long(
    tmp_path: Path, film_upscaler: Upscaler, suffix: str, target: str
) -> None:
    """Also where it is not the last that is decoded."""
    source, out = tmp_path / f"a{suffix}", tmp_path / f"out{target}"
    pictures = [Image.fromarray(np.full((30, 40, 3), 20 * i, np.uint8)) for i in range(1, 10)]
    pictures[0].save(source, save_all=True, append_images=pictures[1:], duration=[100, 40, 60, 100] * 2 + [1000])
    make(film_upscaler, source, out, choice=Choice())
    with av.open(str(out)) as made:
        assert made.duration / 1e6 == pytest.approx(1.6, abs=0.02)
        video = made.streams.video[0]
        if target in (".mp4", ".mov"):
            assert float(video.duration * video.time_base) == pytest.approx(1.6, abs=0.02)
            order = [packet.pts for packet in made.demux(video) if packet.size]
            assert suffix != ".gif" or order != sorted(order)


def test_gray_that_does_not_say_is_full(tmp_path: Path, film_upscaler: Upscaler) -> None:
    """As ffmpeg has it: what comes out has the contrast of what went in."""
    ramp = np.repeat(np.repeat(np.arange(0, 256, 4, dtype=np.uint8)[None, :, None], 48, 0), 3, 2)
    source, out = film(tmp_path / "in.mkv", [ramp] * 2, codec="ffv1", format="gray", sounds=0), tmp_path / "out.mkv"
    make(film_upscaler, source, out, choice=Choice("ffv1"))
    with av.open(str(out)) as made:
        assert next(made.decode(video=0)).color_range == 2
    with av.open(str(source)) as before:
        assert next(before.decode(video=0)).color_range != 1


def test_a_part_of_a_raw_stream(tmp_path: Path, film_upscaler: Upscaler) -> None:
    """Which has neither times nor places to seek."""
    source, out = tmp_path / "in.h264", tmp_path / "out.mkv"
    with av.open(str(source), "w", format="h264") as raw:
        stream = raw.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(50):
            raw.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), 4 * i, np.uint8))))
        raw.mux(stream.encode(None))
    lossless = Choice("ffv1")
    assert make(film_upscaler, source, out, choice=lossless).frames == 50
    whole = decoded(out)
    assert make(film_upscaler, source, out, choice=lossless, start=Fraction(1), force=True).frames == 25
    assert np.array_equal(decoded(out), whole[25:])


def test_a_part_that_begins_while_a_frame_is_shown(tmp_path: Path, film_upscaler: Upscaler) -> None:
    """For longer than it says, as in Matroska of a variable rate."""
    source = film(tmp_path / "in.mkv", 4, times=[i * 10 * TICKS for i in range(4)], sounds=0)
    with av.open(str(source)) as opened:
        packet = next(opened.demux(video=0))
        assert packet.duration * packet.time_base < 1
    every, out = stills(source, (96, 128)), tmp_path / "out.mkv"
    for start, end, first, times in ((15, 18, 1, [0]), (15, None, 1, [0, 5, 15]), (20, None, 2, [0, 10])):
        how = {"start": Fraction(start), "end": None if end is None else Fraction(end)}
        make(film_upscaler, source, out, choice=LOSSLESS, force=True, **how)
        assert shown(out) == times
        for found, still in zip(decoded(out, "rgb24"), every[first:][: len(times)], strict=True):
            assert np.array_equal(found, still)
    with pytest.raises(VideoError, match="no frame in the part asked for"):
        make(film_upscaler, source, out, choice=LOSSLESS, force=True, start=Fraction(35))


def test_frames_that_are_not_in_the_order_of_their_packets(tmp_path: Path, film_upscaler: Upscaler) -> None:
    """AVI knows no times."""
    source, out = tmp_path / "in.avi", tmp_path / "out.mkv"
    with av.open(str(source), "w") as made:
        video = made.add_stream("libx264", rate=RATE, options={"crf": "10", "bf": "3", "x264-params": "b-adapt=0"})
        video.height, video.width, video.pix_fmt = 48, 64, "yuv420p"
        for i in range(25):
            made.mux(video.encode(av.VideoFrame.from_ndarray(pattern(i, 48, 64), "rgb24").reformat(format="yuv420p")))
        made.mux(video.encode(None))
    assert shown(source) != sorted(shown(source))
    make(film_upscaler, source, out, choice=LOSSLESS)
    times = shown(out)
    assert len(times) == 25
    assert all(abs(b - a - Fraction(1, RATE)) < Fraction(1, 500) for a, b in pairwise(times))
    for found, still in zip(decoded(out, "rgb24"), stills(source, (96, 128)), strict=True):
        assert np.array_equal(found, still)
    assert make(film_upscaler, source, out, force=True, end=times[7] + Fraction(1, 100)).frames == 8


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_pictures_beside_the_film(tmp_path: Path, film_upscaler: Upscaler, suffix: str) -> None:
    """A second stream whose frames are not shown in their order: Matroska does not say when the first are decoded."""
    source, out = tmp_path / "in.mkv", tmp_path / f"out{suffix}"
    with av.open(str(source), "w") as film_of_two:
        streams = [film_of_two.add_stream("libx264", rate=25) for _ in range(2)]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(50):
            for stream in streams:
                film_of_two.mux(stream.encode(av.VideoFrame.from_ndarray(pattern(i))))
        for stream in streams:
            film_of_two.mux(stream.encode(None))
    assert make(film_upscaler, source, out).damage == ""
    with av.open(str(out)) as made:
        assert sum(1 for _ in made.decode(video=1)) == 50


def test_sound_keeps_its_place_beside_a_clock_that_runs_on(tmp_path: Path, film_upscaler: Upscaler) -> None:
    plain = film(tmp_path / "plain.mkv", 48)
    late = tmp_path / "late.mkv"
    with av.open(str(plain)) as before, av.open(str(late), "w") as after:
        streams = {s.index: after.add_stream_from_template(s, opaque=True) for s in before.streams}
        for packet in before.demux():
            if packet.size:
                packet.stream = streams[packet.stream_index]
                packet.pts += 500_000  # of a thousandth
                packet.dts = None if packet.dts is None else packet.dts + 500_000
                after.mux(packet)
    for name, source in (("plain", plain), ("late", late)):
        make(film_upscaler, source, tmp_path / f"{name}_out.mkv", start=Fraction(1, 2))
    assert packets(tmp_path / "plain_out.mkv", "audio") == packets(tmp_path / "late_out.mkv", "audio")
    assert shown(tmp_path / "plain_out.mkv") == shown(tmp_path / "late_out.mkv")


@pytest.mark.parametrize("options", [SECONDLY, {"crf": "10", "g": "999"}], ids=["a key frame a second", "one in all"])
def test_seeking_without_an_index(tmp_path: Path, film_upscaler: Upscaler, options: dict[str, str]) -> None:
    """No frame is lost where seeking leads past the key frame that decoding has to begin with."""
    source = film(tmp_path / "in.ts", 96, options=options)
    start = Fraction(12, 10)
    wanted = [max(t, start) for t in shown(source) if t + Fraction(1, 24) > start]
    made = make(film_upscaler, source, tmp_path / "out.mkv", start=start)
    assert (made.frames, made.damage) == (len(wanted), "")
    found = [float(t) for t in shown(tmp_path / "out.mkv")]
    assert np.diff(found) == pytest.approx(np.diff([float(t) for t in wanted]), abs=2e-3)


def with_cover(source: Path, target: Path, codec: str, format: str) -> bytes:
    """``source`` with a cover picture, and the picture's bytes."""
    frame = av.VideoFrame.from_ndarray(pattern(1, 32, 32), "rgb24").reformat(format=format)
    frame.pts, frame.time_base = 0, Fraction(1, 24)
    with av.open(str(source)) as before, av.open(str(target), "w") as after:
        streams = {s.index: after.add_stream_from_template(s, opaque=True) for s in before.streams}
        cover = after.add_stream(codec)
        cover.width = cover.height = 32
        cover.pix_fmt, cover.disposition = format, av.stream.Disposition.attached_pic
        pictures = [*cover.encode(frame), *cover.encode(None)]
        data = b"".join(bytes(packet) for packet in pictures)
        for picture in pictures:
            after.mux(picture)
        for packet in before.demux():
            if packet.size:
                packet.stream = streams[packet.stream_index]
                after.mux(packet)
    return data


def covers(path: Path) -> list[bytes]:
    with av.open(str(path)) as source:
        pictures = [s for s in source.streams.video if int(s.disposition) & int(av.stream.Disposition.attached_pic)]
        return [bytes(packet) for packet in source.demux(pictures) if packet.size] if pictures else []


@pytest.mark.parametrize("start", [None, Fraction(1)])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize(("codec", "format"), [("mjpeg", "yuvj420p"), ("png", "rgb24")])
def test_covers(
    tmp_path: Path, film_upscaler: Upscaler, codec: str, format: str, suffix: str, start: Fraction | None
) -> None:
    source = tmp_path / "in.mp4"
    data = with_cover(film(tmp_path / "plain.mp4", 48, options=SECONDLY), source, codec, format)
    assert covers(source) == [data]
    out = tmp_path / f"out{suffix}"
    make(film_upscaler, source, out, start=start)
    assert covers(out) == [data]
    assert shown(out)[0] < 0.05, "the film begins late"
    # And from there once more.
    again = tmp_path / f"again{suffix}"
    make(film_upscaler, out, again)
    assert covers(again) == [data]
    webm = tmp_path / "out.webm"
    silent = film(tmp_path / "silent.mp4", 12, sounds=0)
    with_cover(silent, source, codec, format)
    with pytest.warns(UserWarning, match=r"video stream 1 .* cannot be copied into .*out.webm; it is left out"):
        make(film_upscaler, source, webm, choice=Choice(None, options={"cpu-used": "8"}))


def test_fields_that_begin_later(tmp_path: Path, film_upscaler: Upscaler) -> None:
    """A recording whose first frames are of something else: it is said, and the work is not lost."""
    raw = b""
    for interlaced in (False, True):
        path = tmp_path / f"{interlaced}.mpg"
        with av.open(str(path), "w") as out:
            stream = out.add_stream("mpeg2video", rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            stream.codec_context.time_base = Fraction(1, 25)
            if interlaced:
                flags = av.codec.context.Flags
                stream.codec_context.flags |= int(flags.interlaced_dct) | int(flags.interlaced_me)
            for i in range(6):
                frame = av.VideoFrame.from_ndarray(pattern(i), "rgb24").reformat(format="yuv420p")
                frame.pts, frame.time_base = i, Fraction(1, 25)
                out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
        with av.open(str(path)) as source:
            raw += b"".join(bytes(packet) for packet in source.demux(video=0))
    mixed = tmp_path / "mixed.m2v"
    mixed.write_bytes(raw)
    with pytest.warns(UserWarning, match=r"mixed.m2v: is interlaced from 0\.\d+ s on; --deinterlace") as caught:
        make(film_upscaler, mixed, tmp_path / "out.mkv")
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make(film_upscaler, mixed, tmp_path / "out2.mkv", deinterlace=True)


def test_a_colon_in_the_name(tmp_path: Path, film_upscaler: Upscaler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    film(tmp_path / "12:30: Waves.mkv", 3)
    assert make(film_upscaler, Path("12:30: Waves.mkv"), Path("out: it.mkv")).frames == 3
    assert len(decoded(tmp_path / "out: it.mkv")) == 3


@pytest.mark.parametrize(
    ("source", "choice", "format"),
    [
        (("ffv1", "bgr0"), Choice("ffv1"), "bgr0"),
        (("ffv1", "gbrp10le"), Choice("ffv1"), "gbrp10le"),
        (("ffv1", "bgra"), Choice("ffv1"), "bgr0"),
        (("ffv1", "gbrap10le"), Choice("ffv1"), "gbrp10le"),
        (("ffv1", "bgr0"), FAST, "yuv420p"),
        (("ffv1", "gbrp10le"), Choice("libx265", preset="ultrafast"), "yuv420p10le"),
        (("ffv1", "yuva444p"), FAST, "yuv444p"),
        (("ffv1", "yuva420p"), Choice("ffv1"), "yuv420p"),
        (("ffv1", "yuva444p10le"), Choice("libx265", preset="ultrafast"), "yuv444p10le"),
        (("ffv1", "gray16le"), Choice("libx265", preset="ultrafast"), "yuv420p12le"),
        (("ffv1", "yuv420p10le"), Choice("libvpx-vp9", preset="8"), "yuv420p"),
        (("ffv1", "gbrp10le"), Choice("mpeg4"), "yuv420p"),
    ],
    ids=str,
)
def test_pixel_formats(
    tmp_path: Path,
    film_upscaler: Upscaler,
    source: tuple[str, str],
    choice: Choice,
    format: str,
    recwarn: pytest.WarningsRecorder,
) -> None:
    """What is not asked for stays; where players could not show it, it is said."""
    codec, stored = source
    path = film(tmp_path / "in.mkv", 3, codec=codec, format=stored, sounds=0)
    make(film_upscaler, path, tmp_path / "out.mkv", choice=choice)
    with av.open(str(tmp_path / "out.mkv")) as made:
        assert next(made.decode(video=0)).format.name == format
    said = [str(warning.message) for warning in recwarn]
    assert any("alpha channel" in text for text in said) == (stored[:4] in ("yuva", "bgra", "gbra"))
    fewer = [text for text in said if "keeps fewer" in text]
    lost = ["colours"] if stored in ("bgr0", "gbrp10le") and format.startswith("yuv420p") else []
    lost += ["bits"] if bits(format) < bits(stored) else []
    assert bool(fewer) == bool(lost)
    for text in fewer:
        assert f"keeps fewer {' and '.join(lost)} than {stored}; " in text
        possible = choice.codec in ("libx264", "libx265") and "colours" in lost
        assert (f"--pixel-format {format.replace('420', '444')} keeps more" in text) == possible  # as deep


def test_films_of_10_bits_in_webm(tmp_path: Path, film_upscaler: Upscaler) -> None:
    source = film(tmp_path / "in.mkv", 3, codec="ffv1", format="yuv420p10le", sounds=0)
    make(film_upscaler, source, tmp_path / "out.webm", choice=Choice(preset="12"))
    with av.open(str(tmp_path / "out.webm")) as made:
        assert next(made.decode(video=0)).format.name == "yuv420p10le"


def with_exif(path: Path) -> Path:
    """Motion JPEG of four frames as some cameras write it: each with an EXIF block."""
    exif = Image.Exif()
    exif[0x010F] = "a maker"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for i in range(4):
            file = io.BytesIO()
            Image.fromarray(pattern(i)).save(file, "JPEG", exif=exif)
            packet = av.Packet(file.getvalue())
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, i, i, Fraction(1, 25)
            packet.is_keyframe = True
            out.mux(packet)
    return path


def test_frames_with_exif(tmp_path: Path, film_upscaler: Upscaler) -> None:
    source = with_exif(tmp_path / "in.avi")
    made = make(film_upscaler, source, tmp_path / "out.mkv")
    assert (made.frames, made.damage) == (4, "")
    with av.open(str(source)) as opened:
        frame = next(opened.decode(video=0))
    frame.color_trc = 16  # HDR, whose side data are looked at
    assert Mastering.of(frame) == Mastering()


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".tif", AVIF])
def test_still_pictures_are_refused(tmp_path: Path, film_upscaler: Upscaler, suffix: str) -> None:
    source = tmp_path / f"in{suffix}"
    Image.fromarray(pattern(0)).save(source)
    with pytest.raises(VideoError, match=rf"in{suffix}: is a still picture; liif-fast upscale"):
        make(film_upscaler, source, tmp_path / "out.mkv")


def test_one_frame_of_an_animation_is_a_still_picture(tmp_path: Path, film_upscaler: Upscaler) -> None:
    Image.fromarray(pattern(0)).save(tmp_path / "in.gif")
    with pytest.raises(VideoError, match=r"in\.gif: is a still picture; liif-fast upscale"):
        make(film_upscaler, tmp_path / "in.gif", tmp_path / "out.mkv")


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_pictures_one_behind_the_other_are_a_film(tmp_path: Path, film_upscaler: Upscaler, kind: str) -> None:
    """As cameras send them."""
    source = tmp_path / "in.bin"
    with open(source, "wb") as file:
        for i in range(4):
            Image.fromarray(pattern(i)).save(file, kind)
    assert make(film_upscaler, source, tmp_path / "out.mkv").frames == 4


def test_an_animated_png_behind_a_long_text(tmp_path: Path, film_upscaler: Upscaler) -> None:
    pictures = [Image.fromarray(pattern(i)) for i in range(3)]
    source = tmp_path / "in.png"
    pictures[0].save(source, save_all=True, append_images=pictures[1:], duration=100)
    data, text = source.read_bytes(), io.BytesIO()
    PngImagePlugin.putchunk(text, b"tEXt", b"Comment\0" + b"x" * 3_000_000)
    source.write_bytes(data[:33] + text.getvalue() + data[33:])
    with av.open(str(source)) as opened:
        assert opened.format.name == "png_pipe", "no need for this test"
    assert make(film_upscaler, source, tmp_path / "out.mkv").frames == 3


def test_a_second_film_in_the_file_is_copied(tmp_path: Path, film_upscaler: Upscaler) -> None:
    source, out = tmp_path / "in.mkv", tmp_path / "out.mkv"
    with av.open(str(source), "w") as made:
        streams = [made.add_stream("ffv1", rate=24) for _ in range(2)]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for stream in streams:
            for i in range(3):
                made.mux(stream.encode(av.VideoFrame.from_ndarray(pattern(i, 48, 64), "rgb24")))
            made.mux(stream.encode(None))
    with pytest.warns(UserWarning, match=r"in.mkv: video stream 1 is copied as it is, not enlarged$"):
        make(film_upscaler, source, out)
    with av.open(str(out)) as made:
        assert [stream.width for stream in made.streams.video] == [128, 64]


@pytest.mark.parametrize(
    ("start", "end", "wanted"),
    [(None, None, (100, 200)), ("0.2", None, (0, 100)), (None, "0.25", (100, 150)), ("0.125", "0.25", (0, 125))],
)
def test_a_subtitle_at_the_edge_of_a_part(
    tmp_path: Path, film_upscaler: Upscaler, start: str | None, end: str | None, wanted: tuple[int, int]
) -> None:
    source, out = film(tmp_path / "in.mkv", 24, subtitle=True), tmp_path / "out.mkv"
    make(film_upscaler, source, out, start=start and Fraction(start), end=end and Fraction(end))
    with av.open(str(out)) as made:
        found = [packet for packet in made.demux(subtitles=0) if packet.size]
        assert [(packet.pts, packet.duration, bytes(packet)) for packet in found] == [(*wanted, b"hello")]


@pytest.mark.parametrize("asked", [{"longest": 131}, {"fit": "131x500"}])
def test_never_larger_than_the_most_that_is_asked_for(asked: dict[str, Any]) -> None:
    assert fitted((99, 131), Request.parse(**asked), 2, 2) == (98, 130)
    assert fitted((99, 131), Request.parse(scale="2"), 2, 2) == (100, 132)
