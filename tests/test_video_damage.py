"""Films that are whole but not plain, and films that are not whole: what is kept of them, and what is said."""

from __future__ import annotations

import errno
import fcntl
import shutil
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from liif_fast import Upscaler

av = pytest.importorskip("av")

from clips import TICKS, film, pattern, shown  # noqa: E402
from liif_fast.video import VideoError, frames  # noqa: E402
from liif_fast.video import film as films  # noqa: E402
from liif_fast.video.colors import Colors  # noqa: E402
from test_video import make, packets  # noqa: E402


def with_sound(path: Path, codec: str, seconds: float = 1) -> Path:
    """A film whose sound, of two channels, is of ``codec``."""
    with av.open(str(path), "w") as out:
        video, sound = out.add_stream("mpeg4", rate=24), out.add_stream(codec, rate=48_000)
        video.width, video.height, video.pix_fmt, sound.layout = 64, 48, "yuv420p", "stereo"
        for i in range(int(24 * seconds)):
            frame = av.VideoFrame.from_ndarray(pattern(i), "rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = i, Fraction(1, 24)
            out.mux(video.encode(frame))
        wave = np.sin(np.arange(int(48_000 * seconds)) / 20).astype(np.float32) / 4
        whole = av.AudioFrame.from_ndarray(np.stack([wave, wave]), "fltp", "stereo")
        whole.sample_rate, whole.pts, whole.time_base = 48_000, 0, Fraction(1, 48_000)
        ready = av.AudioResampler(sound.format, "stereo", 48_000, sound.codec_context.frame_size or 1024)
        for part in (*ready.resample(whole), *ready.resample(None)):
            out.mux(sound.encode(part))
        for stream in (video, sound):
            out.mux(stream.encode(None))
    return path


def heard(path: Path) -> np.ndarray:
    with av.open(str(path)) as source:
        return np.concatenate([frame.to_ndarray() for frame in source.decode(audio=0)], axis=1)


@pytest.mark.parametrize("suffix", [".avi", ".mkv"])
@pytest.mark.parametrize("codec", ["pcm_s16le", "pcm_s24le", "alac"])
def test_sound_of_which_mp4_asks_more(tmp_path: Path, film_upscaler: Upscaler, codec: str, suffix: str) -> None:
    """Which channels they are, and how long the last packet is."""
    if (codec, suffix) == ("alac", ".avi"):
        pytest.skip("AVI has none")
    source = with_sound(tmp_path / f"in{suffix}", codec)
    made = make(film_upscaler, source, tmp_path / "out.mp4")
    assert made.damage == ""
    assert np.array_equal(heard(tmp_path / "out.mp4"), heard(source))


def test_what_a_container_refuses_late(tmp_path: Path, film_upscaler: Upscaler) -> None:
    source = with_sound(tmp_path / "in.mkv", "libopus")
    with pytest.raises(VideoError, match=r"audio stream 1 \(opus\) cannot be copied into .*out.mov; .*--leave-out"):
        make(film_upscaler, source, tmp_path / "out.mov")
    with pytest.warns(UserWarning, match=r"opus\) cannot be copied into .*out.mov; it is left out"):
        assert make(film_upscaler, source, tmp_path / "out.mov", leave_out=True).frames == 24


def test_a_damaged_packet_of_sound(tmp_path: Path, film_upscaler: Upscaler) -> None:
    """As bad reception leaves them: all others are copied."""
    source = film(tmp_path / "in.ts", 48)
    data = bytearray(source.read_bytes())
    whole = len(packets(source, "audio"))
    middle = data.index(b"\xff\xf1", len(data) // 2)
    data[middle + 1], data[middle + 6] = 0xF0, data[middle + 6] | 3  # as if it held four, and a checksum
    source.write_bytes(data)
    for suffix in (".mkv", ".mp4"):
        made = make(film_upscaler, source, tmp_path / f"out{suffix}")
        assert made.damage == "1 packet beside the pictures that cannot be copied"
        assert len(packets(tmp_path / f"out{suffix}", "audio")) == whole - 1


def cut_by_an_edit_list(path: Path) -> Path:
    """48 frames with sound, of which the second half is shown."""
    film(path, 48, options={"crf": "10", "g": "18", "keyint_min": "18", "sc_threshold": "0", "bf": "2"})
    data, at = bytearray(path.read_bytes()), -1
    units = [struct.unpack_from(">I", data, i + 16)[0] for i in range(len(data)) if data[i : i + 4] == b"mdhd"]
    for unit in units:
        at = data.index(b"elst", at + 1)
        first = struct.unpack_from(">i", data, at + 16)[0]
        struct.pack_into(">Ii", data, at + 12, 1000, first + unit)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_an_edit_list(tmp_path: Path, film_upscaler: Upscaler, suffix: str) -> None:
    """What a telephone has cut off is no damage, and is not heard."""
    source, out = cut_by_an_edit_list(tmp_path / "in.mp4"), tmp_path / f"out{suffix}"
    assert len(shown(source)) == 24
    assert min(time for time, _ in packets(source, "audio")) < Fraction(-9, 10)
    made = make(film_upscaler, source, out)
    assert (made.frames, made.damage) == (24, "")
    sounds, pictures = [time for time, _ in packets(out, "audio")], shown(out)
    assert pictures[0] - sounds[0] <= Fraction(1, 10)
    assert float(sounds[-1] - pictures[-1]) == pytest.approx(
        float(packets(source, "audio")[-1][0] - shown(source)[-1]), abs=2e-3
    )


def matrix(path: Path) -> bytes:
    with av.open(str(path)) as source:
        return bytes(next(source.decode(video=0)).side_data["DISPLAYMATRIX"])


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_mirrored(tmp_path: Path, film_upscaler: Upscaler, degrees: int, suffix: str) -> None:
    source = tmp_path / "in.mp4"
    with av.open(str(source), "w") as out:
        video = out.add_stream("libx264", rate=24)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.set_display_rotation(degrees, hflip=True)
        frame = av.VideoFrame.from_ndarray(pattern(0), "rgb24").reformat(format="yuv420p")
        out.mux(video.encode(frame))
        out.mux(video.encode(None))
    make(film_upscaler, source, tmp_path / f"out{suffix}")
    assert matrix(tmp_path / f"out{suffix}") == matrix(source)


def test_a_clock_that_began_again(tmp_path: Path, film_upscaler: Upscaler) -> None:
    """33 bits of a broadcast's clock end after 26.5 hours: what is read begins far below zero."""
    times = [95_400 * TICKS + i * TICKS // 24 for i in range(24)]
    source = film(tmp_path / "in.ts", 24, times=times, sounds=0)
    assert shown(source)[0] < -40
    assert make(film_upscaler, source, tmp_path / "out.mp4").damage == ""
    assert [round(float(t), 3) for t in shown(tmp_path / "out.mp4")] == [round(i / 24, 3) for i in range(24)]


def test_a_recording_behind_another(tmp_path: Path, film_upscaler: Upscaler) -> None:
    one = film(tmp_path / "one.ts", 48)
    source, out = tmp_path / "in.ts", tmp_path / "out.mp4"
    source.write_bytes(one.read_bytes() * 2)
    with pytest.raises(VideoError, match=r"in\.ts: its clock jumps back by [12]\.\d+ s at [12]\.\d+ s; end there"):
        make(film_upscaler, source, out)
    end = shown(one)[-1] + Fraction(1, 24)
    assert make(film_upscaler, source, out, end=end, force=True).frames == 48
    assert len(packets(out, "audio")) == sum(time < end for time, _ in packets(one, "audio"))


def test_floats_are_refused() -> None:
    with pytest.raises(VideoError, match=r"gbrpf32le, is of floats"):
        Colors.of(av.VideoFrame(64, 48, "gbrpf32le"))


def test_tags_about_the_old_streams(tmp_path: Path, film_upscaler: Upscaler) -> None:
    """As mkvmerge writes them."""
    source = film(tmp_path / "plain.mkv", 6)
    tags = {"BPS-eng": "1000", "NUMBER_OF_FRAMES": "6", "_STATISTICS_TAGS": "BPS", "title": "Waves"}
    with av.open(str(source)) as before, av.open(str(tmp_path / "in.mkv"), "w") as after:
        streams = {s.index: after.add_stream_from_template(s, opaque=True) for s in before.streams}
        for stream in streams.values():
            stream.metadata.update(tags)
        for packet in before.demux():
            if packet.size:
                packet.stream = streams[packet.stream_index]
                after.mux(packet)
    make(film_upscaler, tmp_path / "in.mkv", tmp_path / "out.mkv")
    with av.open(str(tmp_path / "in.mkv")) as before, av.open(str(tmp_path / "out.mkv")) as after:
        assert tags.items() <= before.streams[0].metadata.items()
        for stream in after.streams:
            assert stream.metadata["title"] == "Waves"
            assert not {name for name in stream.metadata if name.startswith(("BPS", "NUMBER", "_STAT"))}


def test_another_film_under_the_name(tmp_path: Path, film_upscaler: Upscaler, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sound would be of one, the pictures of the other."""
    source, other = film(tmp_path / "in.mkv", 12), film(tmp_path / "other.mkv", 24)
    enlarged = frames.enlarged

    def replacing(*args: Any) -> Any:
        yield from enlarged(*args)
        other.replace(source)

    monkeypatch.setattr(frames, "enlarged", replacing)
    with pytest.raises(VideoError, match=r"in\.mkv: was \d+ bytes when this began and is \d+ now"):
        make(film_upscaler, source, tmp_path / "out.mkv")
    assert not (tmp_path / "out.mkv").exists()


def test_what_a_kill_leaves_goes(tmp_path: Path, film_upscaler: Upscaler, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also that at the end of the work: nothing is left beside the folder, and the next run clears it."""
    source, out, folder = film(tmp_path / "in.mkv", 12), tmp_path / "out.mkv", tmp_path / ".out.mkv.liif_fast"
    parts: list[list[str]] = []

    def killed(*_: Any) -> None:
        parts.append([path.parent.name for path in tmp_path.rglob("*.part")])
        raise RuntimeError("power cut")

    monkeypatch.setattr(films, "verify", killed)
    for again in (False, True):
        with pytest.raises(RuntimeError, match="power cut"):
            make(film_upscaler, source, out, resume=again)
        (folder / ".liif_fast-0.part").write_bytes(b"half a film")
    assert parts == [[folder.name]] * 2
    monkeypatch.undo()
    assert make(film_upscaler, source, out, resume=True).frames == 12
    assert {path.name for path in tmp_path.iterdir()} == {"in.mkv", "out.mkv"}


def test_what_a_mac_keeps_beside_its_files(
    tmp_path: Path, film_upscaler: Upscaler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On disks of other systems a file has another beside it, ._ before the same name, which goes when it goes."""
    unlink = Path.unlink

    def both(path: Path, missing_ok: bool = False) -> None:
        unlink(path, missing_ok)
        unlink(path.with_name(f"._{path.name}"), missing_ok=True)

    source, out, folder = film(tmp_path / "in.mkv", 12), tmp_path / "out.mkv", tmp_path / ".out.mkv.liif_fast"
    with monkeypatch.context() as patched:
        patched.setattr(films, "verify", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            make(film_upscaler, source, out, segment=8)
    (folder / ".liif_fast-0.part").write_bytes(b"half a film")
    for path in list(folder.iterdir()):
        path.with_name(f"._{path.name}").write_bytes(b"no segment")
    monkeypatch.setattr(Path, "unlink", both)
    made = make(film_upscaler, source, out, segment=8, resume=True)
    assert (made.frames, made.resumed) == (12, 8)
    assert {path.name for path in tmp_path.iterdir()} == {"in.mkv", "out.mkv"}


def test_file_systems_without_locks(tmp_path: Path, film_upscaler: Upscaler, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out = film(tmp_path / "in.mkv", 3), tmp_path / "out.mkv"

    def none(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    assert make(film_upscaler, source, out).frames == 3


def test_a_folder_that_goes_before_it_is_locked(
    tmp_path: Path, film_upscaler: Upscaler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run that had it ends between our opening its lock and our taking it."""
    source, out = film(tmp_path / "in.mkv", 3), tmp_path / "out.mkv"
    monkeypatch.setattr(fcntl, "flock", lambda *_: shutil.rmtree(tmp_path / ".out.mkv.liif_fast"))
    with pytest.raises(VideoError, match="another process is making it"):
        make(film_upscaler, source, out)
