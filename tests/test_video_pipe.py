"""`liif-fast pipe`: Y4M and raw frames through standard input and output, in a process where the pipe matters."""

from __future__ import annotations

import io
import os
import subprocess
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from common import random_weights
from liif_fast import Upscaler, checkpoint
from liif_fast.batch import Request
from liif_fast.checkpoint import Architecture, Weights

av = pytest.importorskip("av")

from clips import pattern  # noqa: E402
from liif_fast.video import VideoError  # noqa: E402
from liif_fast.video import pipe as pipes  # noqa: E402
from liif_fast.video.colors import Colors  # noqa: E402
from liif_fast.video.planes import Converter  # noqa: E402
from liif_fast.video.raw import Layout, Reader, Writer  # noqa: E402
from test_cli_ends import process  # noqa: E402

HEADER = b"YUV4MPEG2 W64 H48 F25:1 Ip A1:1 C420jpeg XYSCSS=420JPEG\n"


@pytest.fixture(scope="module")
def network() -> Weights:
    return random_weights(Architecture(1, 8, (16, 16)))


class Pipe(io.RawIOBase):
    """Bytes that come a few at a time, as from a pipe."""

    def __init__(self, data: bytes = b"") -> None:
        self.data, self.at = bytearray(data), 0

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        size = min(len(buffer), 1000, len(self.data) - self.at)
        buffer[:size] = self.data[self.at : self.at + size]
        self.at += size
        return size

    def write(self, data: memoryview) -> int:  # type: ignore[override]
        size = min(len(data), 1000)
        self.data += data[:size]
        return size


def y4m(count: int, header: bytes = HEADER, size: int = 64 * 48 * 3 // 2) -> bytes:
    """Frames of noise."""
    numbers = np.random.default_rng(0)
    return header + b"".join(b"FRAME\n" + numbers.integers(16, 236, size, np.uint8).tobytes() for _ in range(count))


def through(network: Weights, data: bytes, layout: Layout | None = None, **request: object) -> tuple[bytes, int, int]:
    result = Pipe()
    latency = bool(request.pop("latency", False))
    up = Upscaler(network, precision="fp32", threads=1)
    asked = Request.parse(**request)  # type: ignore[arg-type]
    done, cut = pipes.run(Pipe(data), result, layout, asked, "auto", latency, lambda: up)
    return bytes(result.data), done, cut


@pytest.mark.parametrize("latency", [False, True])
def test_frames_are_those_of_still_pictures(network: Weights, latency: bool) -> None:
    made, done, cut = through(network, y4m(4), size="96x80", latency=latency)
    assert (done, cut) == (4, 0)
    reader = Reader(Pipe(made), None)
    assert (reader.layout.width, reader.layout.height, reader.layout.format) == (96, 80, "yuv420p")
    assert made.startswith(b"YUV4MPEG2 W96 H80 F25:1 Ip A10:9 C420jpeg XYSCSS=420JPEG\n")
    up = Upscaler(network, device="cpu", precision="fp32", threads=1)
    there, back = (Converter(up.device, "center") for _ in range(2))
    for found, frame in zip(reader.frames(), Reader(Pipe(y4m(4)), None).frames(), strict=True):
        colors = Colors.of(frame)
        wanted = back.frame(up(there.picture(frame, colors), size=(80, 96)), "yuv420p", colors)
        assert np.array_equal(found.to_ndarray(), wanted.to_ndarray())


@pytest.mark.parametrize(
    ("word", "siting"),
    [("C420jpeg", "center"), ("C420", "center"), ("C420mpeg2", "left"), ("C420paldv", "topleft"), ("C420p10", "left")],
)
def test_where_chroma_lies(word: str, siting: str) -> None:
    assert Reader(Pipe(y4m(0, f"YUV4MPEG2 W4 H2 {word}\n".encode())), None).layout.siting == siting
    assert Layout(4, 2, "yuv420p").siting == "left"


@pytest.mark.parametrize(
    "format",
    ["rgb24", "bgr24", "rgb48le", "gray", "gray10le", "yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le",
     "yuv444p12le", "nv12", "p010le", "gbrp"],
)  # fmt: skip
def test_raw_formats(network: Weights, format: str) -> None:
    """Odd line lengths, so that padded lines show; read and written they are the same bytes."""
    layout = Layout(34, 22, format)
    size = sum(rows * length for rows, length in layout.planes)
    frame = av.VideoFrame.from_ndarray(pattern(3, 22, 34), "rgb24").reformat(format=format)
    written = Pipe()
    Writer(written, layout).write(frame)
    assert len(written.data) == size
    (again,) = Reader(Pipe(bytes(written.data)), layout).frames()
    twice = Pipe()
    Writer(twice, layout).write(again)
    assert twice.data == written.data
    made, done, cut = through(network, bytes(written.data) * 2, layout, scale="2")
    assert (done, cut, len(made)) == (2, 0, 2 * 4 * size)


def test_one_side_keeps_pixels_square() -> None:
    layout = Layout(64, 48, "yuv420p", header=("F25:1", "A16:15"))
    assert layout.sized((76, 100), stretched=False).header == ("F25:1", "A16:15")
    wide = layout.sized((48, 128), stretched=True).header
    assert wide is not None
    assert wide[1] == f"A{Fraction(8, 15).numerator}:15"


def test_cut_input(network: Weights) -> None:
    data = y4m(4)
    made, done, cut = through(network, data[:-100], scale="1")
    assert (done, cut) == (3, 64 * 48 * 3 // 2 - 100 + 5)
    assert len(list(Reader(Pipe(made), None).frames())) == 3


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "nothing came"),
        (b"RIFF and so on, no Y4M", "no Y4M"),
        (b"YUV4MPEG2 W64 F25:1\n", "no size"),
        (b"YUV4MPEG2 W64 H48 C999\n", "'999'"),
        (b"YUV4MPEG2 W64 H48 It\n", "interlaced"),
        (b"YUV4MPEG2 " + b"x" * 3000, "without an end"),
        (HEADER + b"NOFRAME", "damaged"),
    ],
)
def test_refused(network: Weights, data: bytes, word: str) -> None:
    with pytest.raises(VideoError, match=word):
        through(network, data, scale="2")


def test_a_program_between_two(tmp_path: Path, network: Weights) -> None:
    """A frame comes out before the next goes in; nobody reading, and an end within a frame, are told."""
    checkpoint.save(tmp_path / "small.safetensors", network)
    engine = ("--model", "small.safetensors", "--precision", "fp32", "--quiet")
    words = ("pipe", "--scale", 2, "--latency", *engine)
    pipes = {"stdin": subprocess.PIPE, "text": False, "cwd": tmp_path}
    started = process(*words, **pipes)
    assert started.stdin is not None
    assert started.stdout is not None
    data = y4m(2)
    frame = (len(data) - len(HEADER)) // 2
    started.stdin.write(data[: len(HEADER) + frame])
    started.stdin.flush()
    header = started.stdout.readline()
    assert header.startswith(b"YUV4MPEG2 W128 H96 ")
    large = 6 + 128 * 96 * 3 // 2
    assert len(started.stdout.read(large)) == large  # the first frame, with the second still to come
    started.stdin.write(data[len(HEADER) + frame : -10])
    rest, err = started.communicate(timeout=60)
    assert (started.returncode, rest) == (1, b"")
    assert err == b"liif-fast: error: the input ended 4603 bytes into frame 2; 1 frame done\n"

    reader, writer = os.pipe()
    os.close(reader)
    nobody = process("pipe", "--scale", 2, *engine, stdin=subprocess.PIPE, stdout=writer, text=False, cwd=tmp_path)
    os.close(writer)
    begun = time.monotonic()
    _, err = nobody.communicate(y4m(3), timeout=60)
    assert nobody.returncode == 2
    assert err == b"liif-fast: error: nothing reads the output any more (broken pipe)\n"
    assert time.monotonic() - begun < 40


def test_a_better_mean_between_two_programs() -> None:
    words = ("pipe", "--scale", 2, "--model", "realtime-small", "--self-ensemble")
    started = process(*words, stdin=subprocess.PIPE, text=False)
    out, err = started.communicate(y4m(1), timeout=60)
    assert (started.returncode, len(out) > 128 * 96) == (0, True), err
    assert b", self-ensemble, " in err
