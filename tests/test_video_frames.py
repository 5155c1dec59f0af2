"""Films in Python, and the zoom: frames through windows, decoded frames, the path of a move."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from common import random_weights
from liif_fast import Upscaler, checkpoint, cli, video
from liif_fast.checkpoint import Architecture

av = pytest.importorskip("av")

from clips import decoded, film, pattern, shown  # noqa: E402
from liif_fast.video import motion  # noqa: E402
from liif_fast.video.colors import Colors  # noqa: E402
from liif_fast.video.planes import Converter  # noqa: E402

NETWORK = random_weights(Architecture(1, 8, (16, 16)))


@pytest.fixture(scope="module")
def up() -> Upscaler:
    return Upscaler(NETWORK, precision="fp32", threads=1)


def test_a_file_gives_arrays(tmp_path: Path, up: Upscaler) -> None:
    source = film(tmp_path / "in.mkv", 4, sounds=0)
    frames = list(video.upscale(source, scale=1.5, upscaler=up))
    assert [frame.shape for frame in frames] == [(72, 96, 3)] * 4
    assert frames[0].dtype == np.uint8


def test_boxes(tmp_path: Path, up: Upscaler) -> None:
    source = film(tmp_path / "in.mkv", 4, sounds=0)
    boxes = [None, (0, 0, 24, 32), (1.5, 2.25, 25.5, 34.25), (10, 10, 34, 42)]
    found = list(video.upscale(str(source), size=(48, 64), boxes=boxes, upscaler=up))
    with av.open(str(source)) as opened:
        pictures = [Converter().picture(frame) for frame in opened.decode(video=0)]
    for large, picture, box in zip(found, pictures, boxes, strict=True):
        assert np.array_equal(large, up.encode(picture).render(box=box, size=(48, 64)))


def test_kinds_of_frames(up: Upscaler) -> None:
    pictures = [pattern(i) for i in range(3)]
    for large, picture in zip(video.upscale(pictures, scale=2, upscaler=up), pictures, strict=True):
        assert np.array_equal(large, up(picture, scale=2))
    decoded_frames = []
    for i, picture in enumerate(pictures):
        frame = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format="yuv422p10le", dst_colorspace=1)
        frame.pts, frame.time_base, frame.color_primaries = 10 * i, Fraction(1, 25), 1
        decoded_frames.append(frame)
    for large, frame in zip(video.upscale(decoded_frames, size=(96, 128), upscaler=up), decoded_frames, strict=True):
        assert (large.width, large.height, large.format.name) == (128, 96, "yuv422p10le")
        assert (large.pts, large.time_base) == (frame.pts, frame.time_base)
        assert (large.colorspace, large.color_primaries) == (1, 1)
        colors = Colors.of(frame)
        wanted = Converter().frame(up(Converter().picture(frame), size=(96, 128)), "yuv422p10le", colors)
        assert np.array_equal(large.to_ndarray(), wanted.to_ndarray())


def test_frames_without_a_time(up: Upscaler) -> None:
    frame = av.VideoFrame.from_ndarray(pattern(0), "rgb24")
    (large,) = video.upscale([frame], scale=2, upscaler=up)
    assert (large.pts, large.time_base) == (None, None)
    assert np.array_equal(large.to_ndarray(), up(pattern(0), scale=2))


def test_damage_is_an_error_at_the_end(tmp_path: Path, up: Upscaler) -> None:
    source = film(tmp_path / "in.mkv", 20, options={"crf": "1"}, sounds=0)
    data = source.read_bytes()
    source.write_bytes(data[: len(data) // 2])
    frames = []
    with pytest.raises(video.VideoError, match=r"early|damaged"):
        frames.extend(video.upscale(source, scale=1, upscaler=up))
    with pytest.raises(video.VideoError, match=r"no frame|Invalid"):
        list(video.upscale(__file__, scale=1, upscaler=up))


# The zoom.


def plan(**changes: Any) -> motion.Plan:
    usual = {
        "picture": (300, 400), "start": motion.FULL, "to": (0.4, 0.4, 0.6, 0.6), "seconds": 2.0, "size": (90, 120),
        "rate": Fraction(30), "easing": "linear",
    }  # fmt: skip
    return motion.Plan(**{**usual, **changes})


def test_zoom_speed_is_constant_and_a_point_stands_still() -> None:
    boxes = plan(to=(0.6, 0.5, 0.8, 0.7)).boxes
    assert len(boxes) == 60
    assert boxes[0] == (0, 0, 300, 400)
    assert np.allclose(boxes[-1], (150, 240, 210, 320))
    heights = np.array([bottom - top for top, _, bottom, _ in boxes])
    assert np.allclose(heights[1:] / heights[:-1], (60 / 300) ** (1 / 59))
    # The point at the same fraction of every window.
    where = [(240 / 320) * (right - left) + left for _, left, _, right in boxes]
    assert np.allclose(where, where[0])
    assert all(0 <= t < b <= 300 and 0 <= left < r <= 400 for t, left, b, r in boxes)


def test_zoom_keeps_the_shape_and_stays_inside() -> None:
    for window in [(0, 0, 1, 1), (0.9, 0, 1, 0.2), (0, 0.8, 0.3, 1), (0.2, 0.1, 0.9, 0.15)]:
        top, left, bottom, right = motion.fitted(window, 301, 407, (90, 160))
        assert (right - left) / (bottom - top) == pytest.approx(160 / 90)
        assert 0 <= top < bottom <= 301
        assert 0 <= left < right <= 407
    # A window that fits is only widened.
    assert motion.fitted((0.25, 0.25, 0.75, 0.5), 100, 100, (50, 50)) == (12.5, 25, 62.5, 75)


@pytest.mark.parametrize("easing", list(motion.EASINGS))
def test_easings(easing: str) -> None:
    ease = motion.EASINGS[easing]
    ways = [ease(t / 50) for t in range(51)]
    assert (ways[0], ways[-1]) == (0, 1)
    assert ways == sorted(ways)


@pytest.mark.parametrize(
    "changes",
    [
        {"easing": "odd"}, {"seconds": 0}, {"seconds": float("nan")}, {"to": (0.5, 0, 0.5, 1)}, {"to": (0, 0, 1, 2)},
        {"size": (0, 2)},
    ],
)  # fmt: skip
def test_zoom_refuses(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"easing|seconds|window|1 x 1"):
        plan(**changes)


@pytest.mark.parametrize("mode", ["P", "CMYK", "L"])
def test_zoom_takes_pictures_of_every_mode(tmp_path: Path, up: Upscaler, mode: str) -> None:
    picture = Image.new("RGB", (40, 30), (200, 120, 40)).convert(mode)
    out, found = tmp_path / "out.mkv", []
    for one in (picture, picture.convert("RGB")):
        video.zoom(one, out, to=(0.2, 0.2, 0.6, 0.6), seconds=0.1, size=(54, 96), upscaler=up, force=True)
        with av.open(str(out)) as made:
            found.append(next(made.decode(video=0)).to_ndarray(format="rgb24").mean((0, 1)))
    if mode == "L":  # of gray the three answers' mean
        found = [one.mean() for one in found]
    assert np.abs(found[0] - found[1]).max() < 25, "numbers of a palette are no colours"
    with pytest.raises(ValueError, match="more than 1048576 frames"):
        video.zoom(picture, out, to=(0.2, 0.2, 0.6, 0.6), seconds=1e9, size=(54, 96), upscaler=up, force=True)


def test_zoom_goes_through_one_picture(tmp_path: Path, up: Upscaler) -> None:
    with pytest.raises(ValueError, match="one picture, got a batch of 2"):
        video.zoom(torch.zeros(2, 3, 30, 40), tmp_path / "out.mkv", to=(0.2, 0.2, 0.6, 0.6), upscaler=up)
    assert not list(tmp_path.iterdir())


def test_frames_with_alpha_say_that_it_goes(up: Upscaler) -> None:
    frame = av.VideoFrame.from_ndarray(np.zeros((24, 32, 4), np.uint8), "rgba")
    with pytest.warns(UserWarning, match="the alpha channel of rgba is left out"):
        next(video.upscale([frame], scale=2, upscaler=up))


def test_zoom_renders_from_one_encoding(up: Upscaler) -> None:
    picture = pattern(0, 90, 120)
    field = up.encode(picture)
    path = plan(picture=picture.shape, size=(45, 60), seconds=0.5)
    made = list(motion.frames(path, field))
    assert len(made) == 15
    assert np.array_equal(made[-1], field.render(box=path.boxes[-1], size=(45, 60)))
    # The first window has four times as many pixels as the frame: each is the mean of four.
    fine = field.render(box=path.boxes[0], size=(90, 120)).reshape(45, 2, 60, 2, 3).mean((1, 3))
    assert np.abs(made[0] - fine).max() <= 0.5


def test_zoom_does_not_shimmer(up: Upscaler) -> None:
    """Windows that are moved by less than a pixel give pictures that change evenly, without steps of whole pixels."""
    picture = pattern(0, 60, 80)
    path = plan(
        picture=picture.shape, size=(60, 80), start=(0.1, 0.1, 0.35, 0.35), to=(0.15, 0.1, 0.4, 0.35), seconds=1
    )
    made = [frame.astype(float) for frame in motion.frames(path, up.encode(picture))]
    changes = [np.abs(b - a).mean() for a, b in pairwise(made)]
    assert max(changes) < 1.6 * min(changes)


def test_zoom_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint.save("small.safetensors", NETWORK)
    Image.fromarray(pattern(0, 60, 80)).save("a.png")
    words = ["zoom", "a.png", "out.mp4", "--to", "0.45,0.30,0.55,0.36", "--seconds", "0.5", "--size", "96x54"]
    words += ["--model", "small.safetensors", "--precision", "fp32"]
    result = CliRunner().invoke(cli.app, words)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("out.mp4  96 x 54  15 frames  ")
    assert shown("out.mp4") == [Fraction(i, 30) for i in range(15)]
    assert decoded("out.mp4", "rgb24")[0].shape == (54, 96, 3)
    assert CliRunner().invoke(cli.app, words).exit_code == 2  # it is there already
    video.zoom("a.png", "again.mkv", to=(0.2, 0.2, 0.6, 0.6), seconds=0.2, size=(54, 96), upscaler=Upscaler(NETWORK))
    assert len(shown("again.mkv")) == 6
    for alpha, warned in ((255, False), (254, True)):
        picture = Image.fromarray(pattern(0, 60, 80))
        picture.putalpha(alpha)
        picture.save("alpha.png")
        result = CliRunner().invoke(cli.app, ["zoom", "alpha.png", *words[2:], "--force"])
        assert (result.exit_code, "alpha.png: its alpha channel is left out" in result.stderr) == (0, warned)
    result = CliRunner().invoke(cli.app, [*words[:-4], "--model", "realtime-small", "--self-ensemble", "--force"])
    assert (result.exit_code, ", self-ensemble, " in result.stdout) == (0, True)
    for wrong, word in (("0.5,0.5,0.4,0.6", "window"), ("1,2", "--to")):
        result = CliRunner().invoke(cli.app, [*words[:4], wrong, *words[5:], "--force"])
        assert (result.exit_code, word in result.stderr) == (2, True)
