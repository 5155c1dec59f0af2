"""How `liif-fast video` ends: bad input, signals, full disks, a run that is killed; in processes where it matters."""

from __future__ import annotations

import errno
import io
import math
import random
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from common import random_weights
from liif_fast import checkpoint, cli
from liif_fast.checkpoint import Architecture
from liif_fast.video.container import container
from liif_fast.video.errors import MissingLibrary

av = pytest.importorskip("av")

from typer.testing import CliRunner  # noqa: E402

from clips import decoded, film, pattern  # noqa: E402
from test_cli_ends import finish, process  # noqa: E402

MODEL = "small.safetensors"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a small network and in.mkv, 12 frames of 64 x 48, in it."""
    monkeypatch.chdir(tmp_path)
    checkpoint.save(MODEL, random_weights(Architecture(1, 8, (16, 16))))
    film("in.mkv", 12)
    return tmp_path


ENGINE = ("--model", MODEL, "--precision", "fp32", "--preset", "ultrafast")


def run(*args: object, engine: tuple[str, ...] = ENGINE) -> Any:
    return CliRunner().invoke(cli.app, ["video", *map(str, args), *engine], prog_name="liif-fast")


def refused(result: Any, *words: str, code: int = 2) -> None:
    """One line of error that has all words, and no result nor anything half done."""
    assert result.exit_code == code, result.output
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("liif-fast: error: ")
    for word in words:
        assert word in lines[0]
    assert not list(Path().glob("out.*"))
    assert not list(Path().glob(".*"))


def test_a_film(folder: Path) -> None:
    result = run("in.mkv", "out.mkv")
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    line, engine = result.stdout.splitlines()
    assert line.startswith("out.mkv  128 x 96  12 frames  ")
    assert line.endswith(" fps")
    assert engine.startswith("small, cpu, fp32, ")
    again = run("in.mkv", "out.mkv")
    assert (again.exit_code, "--force" in again.stderr) == (2, True)
    assert run("in.mkv", "out.mkv", "--force", "--quiet").stdout == ""
    facts = run("in.mkv", "out.mkv", "--force", "--json").stdout
    assert '"frames": 12' in facts


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("none.mkv", "out.mkv"), ("none.mkv: no such file",)),
        (("in.mkv", "in.mkv"), ("would replace the input",)),
        (("in.mkv", "out.avi"), ("'.avi'", ".mkv")),
        (("in.mkv", "nowhere/out.mkv"), ("no folder",)),
        (("text.mkv", "out.mkv"), ("text.mkv: Invalid data",)),
        (("sound.mkv", "out.mkv"), ("sound.mkv: there is no video",)),
        (("empty.mkv", "out.mkv"), ("empty.mkv:",)),
        ((".", "out.mkv"), ("directory",)),
        (("in.mkv", "out.mkv", "--codec", "nonsense"), ("no encoder 'nonsense'",)),
        (("in.mkv", "out.mkv", "--codec", "aac"), ("aac", "not video")),
        (("in.mkv", "out.mkv", "--codec", "ffv1", "--crf", "3"), ("ffv1 has no --crf",)),
        (("in.mkv", "out.mkv", "--pixel-format", "yuv9"), ("'yuv9'",)),
        (("in.mkv", "out.mkv", "--pixel-format", "rgb24"), ("libx264 does not encode rgb24",)),
        (("in.mkv", "out.mkv", "--codec-option", "crf"), ("NAME=VALUE",)),
        (("in.mkv", "out.mkv", "--codec-option", "tunee=film"), ("libx264 has no option tunee",)),
        (("in.mkv", "out.mkv", "--codec", "ffv1"), ("ffv1 has no option preset",)),
        (("in.mkv", "out.mkv", "--start", "soon"), ("--start", "'soon'")),
        (("in.mkv", "out.mkv", "--start", "9:00"), ("no frame in the part",)),
        (("in.mkv", "out.mkv", "--start", "0.2", "--end", "0.2"), ("the end, 0.2 s, is not behind the start",)),
        (("in.mkv", "out.mkv", "--end", "0"), ("the end, 0 s, is not behind the start",)),
        (("in.mkv", "out.mkv", "--size", "10x10"), ("0.5",)),
        (("in.mkv", "out.mkv", "--size", "101x51"), ("even sizes",)),
        (("in.mkv", "out.webm"), ("audio stream 1 (aac)", "--leave-out")),
        (("in.mkv", "out.webm", "--codec", "libx264"), ("libx264 does not go into",)),
        (("sub.mkv", "out.mp4"), ("subtitle stream", "--leave-out")),
    ],
)
def test_refused(folder: Path, args: tuple[str, ...], words: tuple[str, ...]) -> None:
    Path("text.mkv").write_text("This is no film.\n" * 100)
    if "sound.mkv" in args:
        with av.open("in.mkv") as source, av.open("sound.mkv", "w") as out:
            stream = out.add_stream_from_template(source.streams.audio[0])
            for packet in source.demux(audio=0):
                if packet.size:
                    packet.stream = stream
                    out.mux(packet)
    if "empty.mkv" in args:
        film("empty.mkv", [], sounds=0)
    if "sub.mkv" in args:
        film("sub.mkv", 3, subtitle=True)
    engine = ENGINE[:4] if "out.webm" in args and "--codec" not in args else ENGINE  # a preset of another encoder
    refused(run(*args, engine=engine), *words)


def test_a_preset_that_is_none(folder: Path) -> None:
    refused(run("in.mkv", "out.mkv", "--preset", "warp", engine=ENGINE[:4]), "no preset 'warp'")


def test_frames_with_a_colour_profile(folder: Path) -> None:
    """In a process of its own, which would crash."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    pictures = [Image.fromarray(pattern(i)) for i in range(3)]
    pictures[0].save("in.png", save_all=True, append_images=pictures[1:], duration=100, icc_profile=profile)
    code, out, err = finish(process("video", "in.png", "out.mkv", *ENGINE, cwd=folder))
    assert code == 0, err
    assert "3 frames" in out


@pytest.mark.parametrize("name", ["long.mkv", "long.mp4", "tagged.mkv"])
def test_truncated(folder: Path, name: str) -> None:
    film("long.mp4", 40, options={"crf": "1"}, early_index=True)
    film("tagged.mkv", 40, options={"crf": "1"})
    with av.open("long.mp4") as source, av.open("long.mkv", "w") as out:
        streams = [out.add_stream_from_template(s, opaque=True) for s in source.streams]
        for packet in source.demux():
            if packet.size:
                packet.stream = streams[packet.stream_index]
                out.mux(packet)
    data = Path(name).read_bytes()
    Path(name).write_bytes(data[: len(data) // 2])
    result = run(name, "out.mkv", "--force")
    assert result.exit_code == 1, result.output
    assert len(result.stderr.splitlines()) == 1
    assert f"{name}: " in result.stderr
    assert result.stderr.rstrip().endswith("the rest is done")
    assert 5 < len(decoded("out.mkv")) < 40


@pytest.mark.parametrize("seed", [0, 54, 138])
def test_damaged_in_the_middle(folder: Path, seed: int) -> None:
    film("long.mkv", 40, options={"crf": "1", "g": "5"}, sounds=0)
    data = bytearray(Path("long.mkv").read_bytes())
    middle = len(data) // 2
    # The same each time; of the first ffmpeg hears, of the others it does not.
    data[middle : middle + 3000] = random.Random(seed).randbytes(3000)
    Path("long.mkv").write_bytes(data)
    result = run("long.mkv", "out.mkv")
    assert result.exit_code == 1, result.output
    assert "long.mkv: " in result.stderr
    assert "a hole of about " in result.stderr
    assert len(decoded("out.mkv")) > 15


def test_size_changes_in_the_middle(folder: Path) -> None:
    parts = [film(f"{i}.h264", 6, size=size, sounds=0) for i, size in enumerate(((48, 64), (64, 80)))]
    Path("joined.h264").write_bytes(b"".join(part.read_bytes() for part in parts))
    refused(run("joined.h264", "out.mkv"), "its size changes from 64 x 48 to 80 x 64")


def test_ctrl_c_keeps_what_is_finished(folder: Path) -> None:
    film("long.mkv", 600, sounds=0)
    before = {p.name for p in folder.iterdir()}
    work = ("video", "long.mkv", "out.mkv", "--scale", 4, *ENGINE)
    started = process(*work, cwd=folder)
    finished = folder / ".out.mkv.liif_fast" / "000000.packets"
    wait_for(finished.exists)
    started.send_signal(signal.SIGINT)
    code, out, err = finish(started)
    assert (code, out) == (-signal.SIGINT, "")
    kept, last = err.splitlines()
    assert re.search(r"\d frames kept in .*liif_fast; --resume goes on from there$", kept)
    assert last == "liif-fast: interrupted"
    assert {p.name for p in folder.iterdir()} == {*before, ".out.mkv.liif_fast"}
    assert not list(finished.parent.glob("*.part"))


def wait_for(condition: Any, seconds: float = 40) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)


def test_killed_and_resumed(folder: Path) -> None:
    film("long.mkv", 200, sounds=2)
    work = ("video", "long.mkv", "out.mkv", "--scale", 3, *ENGINE)
    started = process(*work, cwd=folder)
    wait_for((folder / ".out.mkv.liif_fast" / "000000.packets").exists)
    started.kill()
    finish(started)
    assert not Path("out.mkv").exists()
    code, out, err = finish(process(*work, "--resume", cwd=folder))
    assert (code, err) == (0, "")
    assert "200 frames (120 from before)" in out
    assert run("long.mkv", "whole.mkv", "--scale", 3).exit_code == 0
    for one, other in zip(decoded("out.mkv"), decoded("whole.mkv"), strict=True):
        assert (one == other).all()
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize("room", [3000, 25_000])
def test_full_disk(folder: Path, room: int) -> None:
    """While a segment is written, and while the film is put together."""

    def little_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

    code, out, err = finish(process("video", "in.mkv", "out.mkv", *ENGINE, cwd=folder, preexec_fn=little_room))
    assert (code, out) == (2, "")
    assert "no space left" in err
    assert len(err.splitlines()) == 1
    assert not list(folder.glob("out*"))
    assert not list(folder.glob(".*"))  # a segment that is not whole is done again


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_full_disk_at_any_byte(suffix: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Of what muxers write: the file's own error, which PyAV may lose or print."""
    picture = av.VideoFrame.from_ndarray(np.arange(64 * 48 * 3, dtype=np.uint8).reshape(48, 64, 3) * 7)
    written = 0

    def mux(room: float) -> None:
        nonlocal written

        class Disk(io.BytesIO):
            def write(self, data: Any) -> int:
                if self.tell() + len(data) > room:
                    raise OSError(errno.ENOSPC, "full")
                return super().write(data)

        file = Disk()
        with container(file, f"out{suffix}") as out:
            stream = out.add_stream("libx264", rate=24)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for _ in range(40):
                out.mux(stream.encode(picture.reformat(format="yuv420p")))
            out.mux(stream.encode(None))
        written = file.seek(0, 2)

    mux(math.inf)
    for room in np.linspace(0, written - 1, 12):
        with pytest.raises(OSError, match="full") as raised:
            mux(room)
        assert raised.value.errno == errno.ENOSPC
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("encoder", "reason"),
    [("mpeg2video", "MPEG-1/2 does not support 1000/1 fps"), ("h264_nvenc", "Cannot load libcuda")],
)
def test_an_encoder_says_why_it_refuses(folder: Path, encoder: str, reason: str) -> None:
    if encoder not in av.codecs_available or (encoder == "h264_nvenc" and torch.cuda.is_available()):
        pytest.skip(f"there is no {encoder} here, or it works")
    engine = tuple(option for option in ENGINE if option not in ("--preset", "ultrafast"))
    refused(run("in.mkv", "out.mkv", "--codec", encoder, engine=engine), f"encoder {encoder} refuses", reason)


def test_attachments_are_matroskas(folder: Path) -> None:
    """MP4's muxer takes them, and refuses them when it begins."""
    with av.open("fonts.mkv", "w") as out, av.open("in.mkv") as source:
        stream = out.add_stream_from_template(source.streams.video[0], opaque=True)
        out.add_attachment("font.ttf", "font/ttf", b"abc")
        for packet in source.demux(source.streams.video[0]):
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    refused(run("fonts.mkv", "out.mp4"), "attachment stream", "--leave-out")
    refused(run("in.mkv", "out.mkv", "--codec", "utvideo", engine=ENGINE[:4]), "utvideo does not go into this")
    assert run("fonts.mkv", "out.mp4", "--leave-out").exit_code == 0


def test_two_at_once(folder: Path) -> None:
    film("long.mkv", 300, sounds=0)
    work = ("video", "long.mkv", "out.mkv", "--scale", 4, *ENGINE)
    started = process(*work, cwd=folder)
    wait_for((folder / ".out.mkv.liif_fast" / "settings.json").exists)
    started.send_signal(signal.SIGSTOP)
    before = sorted((folder / ".out.mkv.liif_fast").iterdir())
    for way in ((), ("--resume",), ("--force",)):
        refused_by = run("long.mkv", "out.mkv", "--scale", 4, *way)
        assert refused_by.exit_code == 2
        assert "another process is making it" in refused_by.stderr
        assert sorted((folder / ".out.mkv.liif_fast").iterdir()) == before
    started.kill()
    finish(started)
    assert run("in.mkv", "out.mkv", "--force").exit_code == 0, "what a killed run left is in the way"


def test_memory_does_not_grow_with_length(folder: Path) -> None:
    """The peak of ten times as many frames is that of the first few."""
    for count in (30, 300):
        film(f"{count}.mkv", [pattern(i, 120, 160) for i in range(30)] * (count // 30), sounds=0)
    code = """
import resource, sys
from liif_fast.cli import app
for name in ("30", "300"):
    try:
        app(["video", f"{name}.mkv", f"out{name}.mkv", *sys.argv[1:]])
    except SystemExit:
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "darwin" else 1))
"""
    words = [sys.executable, "-c", code, *ENGINE]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    few, many = (int(line) for line in done.stdout.splitlines() if line.isdecimal())
    assert many < few + 10_000  # KiB; 300 results alone would be 70,000


def test_without_pyav(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    refused(run("in.mkv", "out.mkv"), "pip install 'liif_fast[video]'")
    with monkeypatch.context() as patched:
        patched.setattr(sys, "version_info", (3, 10, 13))
        assert "Python 3.11 or later; this is" in str(MissingLibrary())
