"""Frames of 4:2:0, whose colours our own code converts, on the processor here."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common import random_weights
from liif_fast import Upscaler, video, yuv
from liif_fast.checkpoint import Architecture

av = pytest.importorskip("av")

from clips import film, pattern, shown  # noqa: E402
from liif_fast.batch import Request  # noqa: E402
from liif_fast.video import colors  # noqa: E402
from liif_fast.video.colors import Colors, Swscale  # noqa: E402
from liif_fast.video.encoding import Choice  # noqa: E402
from liif_fast.video.film import FilmMeter, Job, make  # noqa: E402
from liif_fast.video.planes import Converter, to_array  # noqa: E402

NETWORK = random_weights(Architecture(1, 8, (16, 16)))
CPU = torch.device("cpu")
HOW = {"colorspace": 1, "color_range": 1}


@pytest.fixture(scope="module")
def up() -> Upscaler:
    return Upscaler(NETWORK, device="cpu", precision="fp32", threads=1)


def planes_of(frame: Any) -> list[np.ndarray]:
    """Copies of a frame's planes."""
    format = frame.format.name.replace("yuvj", "yuv")
    kind = np.uint8 if yuv.FORMATS[format].bits == 8 else np.uint16
    found = []
    for plane, shape in zip(frame.planes, yuv.shapes(format, frame.height, frame.width), strict=True):
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: shape[0]]
        found.append(rows.copy().view(kind)[:, : int(np.prod(shape[1:]))].reshape(shape))
    return found


def frame_of(format: str, size: tuple[int, int], range: int = colors.LIMITED) -> Any:
    known = Colors(colors.BT709, range)
    return Swscale().frame(pattern(1, *size), format, known)


@pytest.mark.parametrize("range", [colors.LIMITED, colors.FULL])
@pytest.mark.parametrize("size", [(48, 64), (46, 122)], ids=str)
@pytest.mark.parametrize("format", yuv.FORMATS)
def test_pictures_and_frames_are_swscales(format: str, size: tuple[int, int], range: int) -> None:
    """To within rounding and what two bicubic filters differ by, with chroma where swscale takes it to be.

    Of even sizes: of odd ones it stretches chroma over all pixels, which test_colors.py knows better.
    """
    frame, ours, theirs = frame_of(format, size, range), Converter(CPU, "center"), Swscale()
    picture, wanted = to_array(ours.picture(frame)), theirs.picture(frame)
    assert picture.shape == wanted.shape
    assert picture.dtype == wanted.dtype
    white = np.iinfo(wanted.dtype).max / 255
    difference = np.abs(picture.astype(float) - wanted) / white
    assert difference[4:-4, 4:-4].max() <= 3
    assert difference.mean() < 0.6
    made = ours.frame(ours.picture(frame), format, Colors.of(frame))
    other = theirs.frame(wanted, format, Colors.of(frame))
    assert (made.width, made.height, made.format.name) == (size[1], size[0], format)
    assert (made.colorspace, made.color_range) == (other.colorspace, other.color_range)
    step = 2 ** (yuv.FORMATS[format].bits - 8 + yuv.FORMATS[format].unused)
    for a, b in zip(planes_of(made), planes_of(other), strict=True):
        difference = np.abs(a.astype(float) - b) / step
        assert difference[2:-2, 2:-2].max() <= 3
        assert difference.mean() < 0.8


def test_what_is_not_420_is_swscales() -> None:
    ours = Converter(CPU)
    frame = frame_of("yuv444p", (16, 24))
    picture = ours.picture(frame)
    assert np.array_equal(picture, Swscale().picture(frame))
    wanted = yuv.from_rgb(torch.from_numpy(picture).permute(2, 0, 1), "yuv420p")
    made = planes_of(ours.frame(picture, "yuv420p", Colors(1, 1)))
    assert all(np.array_equal(a, b.numpy()) for a, b in zip(made, wanted, strict=True))
    gray = picture[..., :1].copy()
    assert np.array_equal(planes_of(ours.frame(gray, "yuv420p", Colors(1, 1)))[0], planes_of(
        Swscale().frame(gray, "yuv420p", Colors(1, 1)))[0])  # fmt: skip
    # From 4:2:0 to something else.
    there = ours.picture(frame_of("yuv420p", (16, 24)))
    made = ours.frame(there, "yuv444p", Colors(1, 1))
    assert np.array_equal(made.to_ndarray(), Swscale().frame(to_array(there), "yuv444p", Colors(1, 1)).to_ndarray())


def test_full_range_by_the_name_of_the_format() -> None:
    frame = frame_of("yuvj420p", (16, 24), colors.FULL)
    assert frame.format.name == "yuvj420p"
    planes = [torch.from_numpy(plane) for plane in planes_of(frame)]
    matrix = "bt601" if Colors.of(frame).matrix == colors.MATRICES["bt601"] else "bt709"
    wanted = yuv.to_rgb(planes, "yuv420p", matrix=matrix, full_range=True, dtype=torch.uint8)
    assert np.array_equal(Converter(CPU).picture(frame), wanted.permute(1, 2, 0).numpy())


def test_without_code_for_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yuv, "_cuda", None)
    there = Converter(torch.device("cuda", 0))
    assert there.device == CPU
    frame = frame_of("nv12", (16, 24))
    assert np.array_equal(there.picture(frame), Converter().picture(frame))


@pytest.mark.gpu
@pytest.mark.skipif(
    yuv.unavailable(torch.device("cuda", 0)) is not None, reason="no code for CUDA devices, or none here"
)
@pytest.mark.parametrize("format", ["nv12", "yuv420p10le"])
def test_pictures_on_a_gpu_lie_as_tensors_do(format: str) -> None:
    frame = frame_of(format, (16, 24))
    there, here = Converter(torch.device("cuda", 0)), Converter()
    picture = there.picture(frame)
    assert picture.shape == (3, 16, 24)
    assert picture.is_contiguous()
    assert np.array_equal(to_array(picture), here.picture(frame))
    colors_of = Colors.of(frame)
    made, wanted = there.frame(picture, format, colors_of), here.frame(here.picture(frame), format, colors_of)
    for plane, other in zip(planes_of(made), planes_of(wanted), strict=True):
        assert np.array_equal(plane, other)


@pytest.mark.parametrize(("source", "target"), [("yuv420p", "yuv420p"), ("yuv420p10le", "yuv420p10le")])
def test_a_film(tmp_path: Path, up: Upscaler, source: str, target: str) -> None:
    """Bit for bit what the three steps make of every frame."""
    path = film(tmp_path / "in.mkv", 5, codec="ffv1", format=source, colors=HOW, sounds=1)
    job = Job(
        str(path), str(tmp_path / "out.mkv"), Request.parse(size="96x72"), Choice(codec="ffv1", pixel_format=target),
        segment=3,
    )  # fmt: skip
    assert make(job, lambda: up, FilmMeter(False)).frames == 5
    deep = yuv.FORMATS[source].bits > 8
    with av.open(str(path)) as before, av.open(job.output) as after:
        for frame, large in zip(before.decode(video=0), after.decode(video=0), strict=True):
            planes = [torch.from_numpy(plane) for plane in planes_of(frame)]
            picture = yuv.to_rgb(planes, source, dtype=torch.uint16 if deep else torch.uint8)
            wanted = yuv.from_rgb(up(picture, size=(72, 96)), target)
            assert all(np.array_equal(a, b.numpy()) for a, b in zip(planes_of(large), wanted, strict=True))
    assert shown(job.output) == shown(path)


def test_frames_in_python(tmp_path: Path, up: Upscaler) -> None:
    path = film(tmp_path / "in.mkv", 3, codec="ffv1", colors=HOW, sounds=0)
    with av.open(str(path)) as opened:
        frames = list(opened.decode(video=0))
    pictures = [Converter(CPU).picture(frame) for frame in frames]
    found = list(video.upscale(path, size=(72, 96), upscaler=up))
    assert all(isinstance(array, np.ndarray) for array in found)
    for array, picture in zip(found, pictures, strict=True):
        assert np.array_equal(array, to_array(up(picture, size=(72, 96))))
    boxes = [(0, 0, 24, 32)] * 3
    windows = video.upscale(path, size=(72, 96), boxes=boxes, upscaler=up)
    for array, picture in zip(windows, pictures, strict=True):
        assert np.array_equal(array, to_array(up.encode(picture).render(box=boxes[0], size=(72, 96))))
    for large, frame, array in zip(video.upscale(frames, size=(72, 96), upscaler=up), frames, found, strict=True):
        assert (large.format.name, large.pts, large.time_base) == ("yuv420p", frame.pts, Fraction(1, 1000))
        wanted = yuv.from_rgb(torch.from_numpy(array).permute(2, 0, 1), "yuv420p")
        assert all(np.array_equal(a, b.numpy()) for a, b in zip(planes_of(large), wanted, strict=True))
