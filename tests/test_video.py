"""`liif-fast video`: what a film keeps, that its frames are those of still pictures, segments and resuming."""

from __future__ import annotations

import hashlib
import os
from copy import copy
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common import random_weights
from liif_fast import Upscaler
from liif_fast.backends import cpu
from liif_fast.batch import Request
from liif_fast.quantization import INT8, measure

av = pytest.importorskip("av")

from clips import RATE, SMALL, TICKS, decoded, film, pattern, shown  # noqa: E402
from liif_fast.video import VideoError, frames, upscale  # noqa: E402
from liif_fast.video import film as films  # noqa: E402
from liif_fast.video.colors import Colors  # noqa: E402
from liif_fast.video.encoding import Choice  # noqa: E402
from liif_fast.video.planes import Converter  # noqa: E402

LOSSLESS = Choice("libx264rgb", crf=0, preset="ultrafast", pixel_format="rgb24")
FAST = Choice("libx264", preset="ultrafast")


def make(
    up: Upscaler, source: Path, output: Path, size: str = "128x96", choice: Choice = FAST, **job: Any
) -> films.Made:
    request = Request.parse(size=size) if "x" in size else Request.parse(scale=size)
    made = films.Job(str(source), str(output), request, choice, **job)
    return films.make(made, lambda: up, films.FilmMeter(False))


def packets(path: Path, kind: str) -> list[tuple[Fraction, bytes]]:
    """(time, content) of every packet of all streams of a kind."""
    with av.open(str(path)) as source:
        chosen = [stream for stream in source.streams if stream.type == kind]
        return [(p.pts * p.time_base, bytes(p)) for p in source.demux(chosen) if p.size]


def stills(source: Path, size: tuple[int, int]) -> list[np.ndarray]:
    alone, converter = Upscaler(random_weights(SMALL), precision="fp32", threads=1), Converter()
    with av.open(str(source)) as opened:
        return [alone(converter.picture(frame), size=size) for frame in opened.decode(video=0)]


@pytest.mark.parametrize(("codec", "format"), [("libx264", "yuv420p"), ("libx265", "yuv422p10le"), ("ffv1", "gray")])
def test_frames_are_those_of_still_pictures(tmp_path: Path, film_upscaler: Upscaler, codec: str, format: str) -> None:
    source = film(tmp_path / "in.mkv", 7, codec=codec, format=format, sounds=0)
    wanted = stills(source, (96, 128))
    assert wanted[0].dtype == (np.uint16 if "10" in format else np.uint8)
    assert wanted[0].shape[2] == (1 if format == "gray" else 3)
    for found, still in zip(upscale(os.fsencode(source), size=(96, 128), upscaler=film_upscaler), wanted, strict=True):
        assert np.array_equal(found, still)


def test_the_file_holds_these_frames(tmp_path: Path, film_upscaler: Upscaler) -> None:
    source = film(tmp_path / "in.mkv", 7)
    make(film_upscaler, source, tmp_path / "out.mkv", choice=LOSSLESS, segment=3)
    for found, still in zip(decoded(tmp_path / "out.mkv", "rgb24"), stills(source, (96, 128)), strict=True):
        assert np.array_equal(found, still)


def test_everything_else_is_copied(tmp_path: Path, film_upscaler: Upscaler) -> None:
    source = film(
        tmp_path / "in.mkv", 30, sounds=2, subtitle=True, chapters=True, metadata={"title": "Waves"}, rotation=90,
        aspect=Fraction(16, 15),
    )  # fmt: skip
    out = tmp_path / "out.mkv"
    made = make(film_upscaler, source, out, "2", segment=8)
    assert (made.frames, made.damage) == (30, "")
    assert (made.width, made.height) == (128, 96)
    with av.open(str(source)) as before, av.open(str(out)) as after:
        assert [s.type for s in before.streams] == [s.type for s in after.streams]
        assert [s.language for s in before.streams] == [s.language for s in after.streams]
        assert after.metadata["title"] == "Waves"
        assert [c["metadata"]["title"] for c in after.chapters()] == ["one", "two"]
        assert after.streams.video[0].sample_aspect_ratio == Fraction(16, 15)
        assert next(after.decode(video=0)).rotation == 90
    for kind in ("audio", "subtitle"):
        assert packets(source, kind) == packets(out, kind)
    assert shown(source) == shown(out)


def test_attachments_are_copied(tmp_path: Path, film_upscaler: Upscaler) -> None:
    source = film(tmp_path / "plain.mkv", 3)
    letter = tmp_path / "in.mkv"
    with av.open(str(source)) as before, av.open(str(letter), "w") as after:
        streams = {s.index: after.add_stream_from_template(s, opaque=True) for s in before.streams}
        after.add_attachment("font.ttf", "font/ttf", b"not really a font")
        for packet in before.demux():
            if packet.size:
                packet.stream = streams[packet.stream_index]
                after.mux(packet)
    make(film_upscaler, letter, tmp_path / "out.mkv")
    with av.open(str(tmp_path / "out.mkv")) as made:
        (found,) = made.streams.attachments
        assert (bytes(found.data), found.mimetype) == (b"not really a font", "font/ttf")
        assert found.metadata["filename"] == "font.ttf"


def test_sound_and_picture_end_together(tmp_path: Path, film_upscaler: Upscaler) -> None:
    for suffix in (".mp4", ".mkv"):
        source = film(tmp_path / f"in{suffix}", 48)
        out = tmp_path / f"out{suffix}"
        make(film_upscaler, source, out, "1", segment=10)
        ends = [max(t for t, _ in packets(path, "audio")) - max(shown(path)) for path in (source, out)]
        assert abs(ends[0] - ends[1]) <= Fraction(1, 1000)


def test_variable_frame_rate(tmp_path: Path, film_upscaler: Upscaler) -> None:
    times = [0, 2000, 2600, 9000, 9100, 20000, 50000, 50500, 51000, 90000, 91000, 180000]
    for suffix in (".mp4", ".mkv"):
        source = film(tmp_path / f"in{suffix}", 12, times=times)
        make(film_upscaler, source, tmp_path / f"out{suffix}", segment=5)
        assert shown(tmp_path / f"out{suffix}") == shown(source)
    assert shown(tmp_path / "out.mp4") == [Fraction(t, TICKS) for t in times]


@pytest.mark.parametrize(
    ("colors", "format"),
    [
        ({"colorspace": 1, "color_primaries": 1, "color_trc": 1, "color_range": 1}, "yuv420p"),
        ({"colorspace": 6, "color_primaries": 6, "color_trc": 6, "color_range": 2}, "yuv444p"),
        ({"colorspace": 9, "color_primaries": 9, "color_trc": 16, "color_range": 1}, "yuv420p10le"),
    ],
)
def test_colours_stay(tmp_path: Path, film_upscaler: Upscaler, colors: dict[str, int], format: str) -> None:
    flat = [np.full((48, 64, 3), c, np.uint8) for c in ([200, 40, 60], [30, 180, 90], [250, 250, 250])]
    codec = "libx265" if "10" in format else "libx264"
    source = film(tmp_path / "in.mkv", flat, colors=colors, format=format, codec=codec)
    choice = Choice(codec, preset="ultrafast", crf=1)
    make(film_upscaler, source, tmp_path / "out.mkv", "1", choice)
    with av.open(str(tmp_path / "out.mkv")) as made:
        for frame in made.decode(video=0):
            assert {name: getattr(frame, name) for name in colors} == colors
            assert frame.format.name.replace("yuvj", "yuv") == format
    # A network that changes nothing but colours by a matrix would keep the YUV of a flat picture that it keeps.
    converter = Converter()
    with av.open(str(source)) as opened:
        for frame in opened.decode(video=0):
            back = converter.frame(converter.picture(frame), format, Colors.of(frame)).to_ndarray()
            assert np.abs(frame.to_ndarray().astype(int) - back.astype(int)).max() <= (3 if "10" in format else 1)


@pytest.mark.parametrize("matrix", [1, 6, 9])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("format", ["yuv444p", "yuv444p10le"])
def test_matrix_and_range(matrix: int, full: bool, format: str) -> None:
    """Against the equations of ITU-R BT.601, BT.709 and BT.2020."""
    red, blue = {1: (0.2126, 0.0722), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}[matrix]
    depth = 10 if "10" in format else 8
    rgb = np.random.default_rng(0).random((16, 16, 3))
    rgb[0], rgb[1] = 1, 0
    y = rgb @ np.array([red, 1 - red - blue, blue])
    chroma = ((rgb[..., 2] - y) / (2 * (1 - blue)), (rgb[..., 0] - y) / (2 * (1 - red)))
    step, top = 2 ** (depth - 8), 2**depth - 1
    planes = [y * top, *(c * top + 128 * step for c in chroma)]
    if not full:
        planes = [(16 + 219 * y) * step, *((128 + 224 * c) * step for c in chroma)]
    frame = av.VideoFrame(16, 16, format)
    kind = np.uint16 if depth > 8 else np.uint8
    for plane, values in zip(frame.planes, planes, strict=True):
        np.frombuffer(plane, kind).reshape(16, -1)[:, :16] = values.round().clip(0, top)
    frame.colorspace, frame.color_range = matrix, 2 if full else 1
    picture = Converter().picture(frame)
    white = 255 if depth == 8 else 65535
    assert (picture[0] == white).all()
    assert (picture[1] == 0).all()
    assert np.abs(picture / white - rgb).max() < 2.2 / top  # what rounding to YUV can make


def test_hdr10(tmp_path: Path, film_upscaler: Upscaler) -> None:
    params = (
        "log-level=none:hdr10=1:master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
        ":max-cll=1000,400"
    )
    hdr = {"colorspace": 9, "color_primaries": 9, "color_trc": 16}
    options = {"x265-params": params}
    source = film(tmp_path / "in.mkv", 3, codec="libx265", format="yuv420p10le", colors=hdr, options=options)
    make(film_upscaler, source, tmp_path / "out.mkv", choice=Choice(preset="ultrafast"))
    found = []
    for path in (source, tmp_path / "out.mkv"):
        with av.open(str(path)) as opened:
            frame = next(opened.decode(video=0))
            data = {d.type.name: bytes(d) for d in frame.side_data}
            found.append([data["MASTERING_DISPLAY_METADATA"], data["CONTENT_LIGHT_LEVEL"]])
    from liif_fast.video.hdr import Mastering

    assert found[0][1] == found[1][1]
    assert len(found[0][0]) == len(found[1][0])
    with av.open(str(tmp_path / "out.mkv")) as opened:
        mastering = Mastering.of(next(opened.decode(video=0)))
    assert mastering.light == (1000, 400)
    assert mastering.luminance == (Fraction(1, 200), 1000)
    assert mastering.display[0] == (Fraction(34000, 50000), Fraction(16000, 50000))


def test_interlaced(tmp_path: Path, film_upscaler: Upscaler) -> None:
    options = {"x264-params": "interlaced=1:tff=1", "crf": "10"}
    source = film(tmp_path / "in.mkv", 8, options=options, size=(64, 64))
    with pytest.raises(VideoError, match="interlaced; --deinterlace"):
        make(film_upscaler, source, tmp_path / "out.mkv")
    make(film_upscaler, source, tmp_path / "out.mkv", deinterlace=True)
    assert shown(tmp_path / "out.mkv") == shown(source)
    with av.open(str(tmp_path / "out.mkv")) as made:
        assert not any(frame.interlaced_frame for frame in made.decode(video=0))


def test_sizes(tmp_path: Path, film_upscaler: Upscaler) -> None:
    odd = film(tmp_path / "odd.mkv", 2, size=(45, 63), format="yuv444p", sounds=0)
    made = make(film_upscaler, odd, tmp_path / "a.mkv", "2")
    assert (made.height, made.width) == (90, 126)
    made = make(film_upscaler, odd, tmp_path / "b.mkv", "1.5", replace(FAST, pixel_format="yuv420p"))
    assert (made.height, made.width) == (68, 94)
    with pytest.raises(VideoError, match="even sizes"):
        make(film_upscaler, odd, tmp_path / "c.mkv", "65x49", replace(FAST, pixel_format="yuv420p"))
    # The shape on the screen stays: 4:3 pixels that become square.
    wide = film(tmp_path / "wide.mkv", 2, aspect=Fraction(4, 3), sounds=0)
    make(film_upscaler, wide, tmp_path / "d.mkv", "128x72")
    with av.open(str(tmp_path / "d.mkv")) as opened:
        assert opened.streams.video[0].sample_aspect_ratio == 1
    films.make(
        films.Job(str(odd), str(tmp_path / "f.mkv"), Request.parse(scale="2x3"), FAST),
        lambda: film_upscaler,
        films.FilmMeter(False),
    )
    with av.open(str(tmp_path / "f.mkv")) as opened:
        assert opened.streams.video[0].sample_aspect_ratio == Fraction(3, 2)
    # A size is that of the picture as it is shown.
    turned = film(tmp_path / "turned.mp4", 2, rotation=90, sounds=0)
    made = make(film_upscaler, turned, tmp_path / "e.mp4", "96x128")
    assert (made.width, made.height) == (128, 96)


def test_parts(tmp_path: Path, film_upscaler: Upscaler) -> None:
    source = film(tmp_path / "in.mp4", 48, options={"crf": "10", "g": "12"}, chapters=True)
    out = tmp_path / "out.mp4"
    start, end = Fraction(20, RATE), Fraction(30, RATE)
    make(film_upscaler, source, out, "1", LOSSLESS, start=start, end=end)
    assert shown(out) == [t - start for t in shown(source) if start <= t < end]
    wanted = [still for t, still in zip(shown(source), stills(source, (48, 64)), strict=True) if start <= t < end]
    for found, still in zip(decoded(out, "rgb24"), wanted, strict=True):
        assert np.array_equal(found, still)
    assert {t for t, _ in packets(out, "audio")} <= {t - start for t, _ in packets(source, "audio")}
    made = make(film_upscaler, source, tmp_path / "few.mp4", "1", frames=5)
    assert made.frames == 5
    assert max(t for t, _ in packets(tmp_path / "few.mp4", "audio")) < Fraction(5, RATE)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_part_that_begins_within_a_frame(tmp_path: Path, film_upscaler: Upscaler, suffix: str) -> None:
    """Which is there from the beginning, until the next one; sound stays in step."""
    source, out = film(tmp_path / "in.mp4", 24), tmp_path / f"out{suffix}"
    start = Fraction(21, 2 * RATE)
    assert make(film_upscaler, source, out, start=start).frames == 14
    shift = min(shown(out))  # Matroska has no times before zero, which sound may have
    wanted = [max(Fraction(0), Fraction(i, RATE) - start) for i in range(10, 24)]
    assert [float(t - shift) for t in shown(out)] == pytest.approx([float(t) for t in wanted], abs=2e-3)
    sound = [t - start for t, _ in packets(source, "audio") if t >= start]
    assert float(packets(out, "audio")[0][0] - shift) == pytest.approx(float(sound[0]), abs=2e-3)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_part_behind_the_end_of_the_sound(tmp_path: Path, film_upscaler: Upscaler, suffix: str) -> None:
    """MP4 has no streams without packets."""
    source, out = tmp_path / "in.mkv", tmp_path / f"out{suffix}"
    parts = [film(tmp_path / "sound.mkv", 6), film(tmp_path / "silent.mkv", 24, sounds=0)]
    with av.open(str(parts[0])) as heard, av.open(str(parts[1])) as seen, av.open(str(source), "w") as both:
        streams = (heard.streams.audio[0], seen.streams.video[0])
        for stream, copied in [(stream, both.add_stream_from_template(stream, opaque=True)) for stream in streams]:
            for packet in stream.container.demux(stream):
                if packet.size:
                    packet.stream = copied
                    both.mux(packet)
    make(film_upscaler, source, out, start=Fraction(1, 2))
    assert len(decoded(out)) == 12
    make(film_upscaler, source, out, force=True)
    assert packets(out, "audio")


class Counting(Upscaler):
    """Counts the pictures it enlarges."""

    def __init__(self) -> None:
        super().__init__(random_weights(SMALL), precision="fp32", threads=2)
        self.calls: list[int] = []

    def __call__(self, image: Any, **request: Any) -> Any:
        self.calls.append(1)
        return super().__call__(image, **request)


def test_equal_frames_are_enlarged_once(tmp_path: Path) -> None:
    pictures = [pattern(i) for i in (0, 0, 0, 0, 1, 1, 1, 0)]
    source = film(tmp_path / "in.mkv", pictures, codec="ffv1", format="yuv444p", sounds=0)
    counting = Counting()
    make(counting, source, tmp_path / "out.mkv", choice=LOSSLESS, segment=3)
    assert len(counting.calls) == 3
    made = decoded(tmp_path / "out.mkv", "rgb24")
    assert len({hashlib.sha256(frame.tobytes()).hexdigest() for frame in made}) == 2


def hashes(path: Path) -> list[str]:
    return [hashlib.sha256(frame.tobytes()).hexdigest() for frame in decoded(path)]


def test_resuming_changes_nothing(tmp_path: Path, film_upscaler: Upscaler, monkeypatch: pytest.MonkeyPatch) -> None:
    source = film(tmp_path / "in.mkv", 30)
    whole, out = tmp_path / "whole.mkv", tmp_path / "out.mkv"
    make(film_upscaler, source, whole, segment=8)
    enlarged = frames.enlarged

    def breaking(*args: Any) -> Any:
        for i, item in enumerate(enlarged(*args)):
            if i == 20:
                raise RuntimeError("power cut")
            yield item

    monkeypatch.setattr(frames, "enlarged", breaking)
    with pytest.raises(RuntimeError, match="power cut"):
        make(film_upscaler, source, out, segment=8)
    monkeypatch.undo()
    assert not out.exists()
    assert len(list(tmp_path.glob(".out.mkv.liif_fast/*.packets"))) == 2
    with pytest.raises(VideoError, match="--resume goes on"):
        make(film_upscaler, source, out, segment=8)
    with pytest.raises(VideoError, match=r"other settings \(.*format yuv420p, now yuv"):
        make(film_upscaler, source, out, segment=8, resume=True, choice=replace(FAST, pixel_format="yuv444p"))
    every = copy(film_upscaler)
    every.encoder = copy(film_upscaler.encoder)
    every.encoder.self_ensemble = True
    with pytest.raises(VideoError, match="--self-ensemble False, now True"):
        make(every, source, out, segment=8, resume=True)
    with pytest.raises(VideoError, match="16 frames are finished, more than asked for"):
        make(film_upscaler, source, out, segment=8, resume=True, frames=10)
    made = make(film_upscaler, source, out, segment=8, resume=True)
    assert (made.frames, made.resumed) == (30, 16)
    assert hashes(out) == hashes(whole)
    assert shown(out) == shown(whole)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mkv", "out.mkv", "whole.mkv"]


@pytest.mark.skipif(cpu.unavailable(torch.device("cpu"), INT8.dtype) is not None, reason="no int8 here")
def test_resuming_with_another_calibration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fingerprint of the network is the same, its frames are not."""
    weights = random_weights(SMALL)
    hidden, h = weights.imnet[1:-1], torch.rand(64, 16)
    one, other = (
        Upscaler(replace(weights, quantized={"int8": measure(INT8, hidden, by * h)}), precision="int8") for by in (1, 2)
    )
    source, out = film(tmp_path / "in.mkv", 6), tmp_path / "out.mkv"
    monkeypatch.setattr(films, "_finish", power_cut)
    with pytest.raises(RuntimeError, match="power cut"):
        make(one, source, out, segment=4)
    monkeypatch.undo()
    with pytest.raises(VideoError, match=r"other settings \(calibration"):
        make(other, source, out, segment=4, resume=True)
    assert make(one, source, out, segment=4, resume=True).frames == 6


def power_cut(*_: Any) -> None:
    raise RuntimeError("power cut")
