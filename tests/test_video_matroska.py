"""Holes in Matroska files, which ffmpeg passes over without a word; and honest files that look as if they had some."""

from __future__ import annotations

import io
import random
import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

av = pytest.importorskip("av")

from clips import RATE, TICKS, film  # noqa: E402
from liif_fast.video.matroska import Chain  # noqa: E402
from liif_fast.video.source import Source  # noqa: E402

SEGMENT, CLUSTER, GROUP, BLOCK, SIMPLE = "18538067", "1F43B675", "A0", "A1", "A3"
VOID, CRC, TIME, UNHEARD_OF = "EC", "BF", "E7", "7ABC"


def element(name: str, content: bytes, unsaid: bool = False) -> bytes:
    size = b"\x01" + (b"\xff" * 7 if unsaid else len(content).to_bytes(7, "big"))
    return bytes.fromhex(name) + size + content


def cluster(*parts: bytes, unsaid: bool = False) -> bytes:
    return element(CLUSTER, element(TIME, b"\x00") + b"".join(parts), unsaid)


def block(letter: str, track: int = 1) -> bytes:
    """One whose data can be found by their letter."""
    return element(SIMPLE, bytes([0x80 | track]) + letter.encode() * 40)


HEAD = element("1A45DFA3", bytes(20))
INFO = element("1549A966", bytes(30))


def heard(data: bytes, letters: str, part: bool = False) -> str:
    """Those of ``letters`` before which there is a hole, and "end" for one behind all."""
    chain, found = Chain(io.BytesIO(data), part), ""
    for letter in letters:
        found += "" if chain.whole_to(data.index(letter.encode() * 40) - 1) else letter
    return found + ("" if chain.whole_to_the_end() else "end")


@pytest.mark.parametrize("unsaid", [False, True])
def test_honest_chains(unsaid: bool) -> None:
    group = element(GROUP, element("75A1", bytes(9)) + element(BLOCK, b"\x82" + b"b" * 40) + element("9B", b"\x05"))
    clusters = [
        cluster(block("a"), group, unsaid=unsaid),
        element(VOID, bytes(300)),
        cluster(element(CRC, bytes(4)), block("c"), element(UNHEARD_OF, bytes(7)), block("d", 2), unsaid=unsaid),
        element("1C53BB6B", bytes(60)),
        cluster(block("e"), unsaid=unsaid),
    ]
    data = HEAD + element(SEGMENT, INFO + b"".join(clusters), unsaid)
    assert heard(data, "ace") == ""
    assert heard(data, "bd") == ""
    assert heard(data, "aaaccee") == "", "several frames in one block"
    assert heard(data, "ce", part=True) == ""
    assert heard(data + bytes(500), "ace") == ""
    assert heard(data[:-10], "ac") == "", "cut off"


@pytest.mark.parametrize("unsaid", [False, True])
def test_broken_chains(unsaid: bool) -> None:
    def data(middle: bytes) -> bytes:
        first, second = cluster(block("a"), middle, unsaid=unsaid), cluster(block("z"), block("y"), unsaid=unsaid)
        return HEAD + element(SEGMENT, INFO + first + second, unsaid)

    assert heard(data(block("b")), "abzy") == ""
    zeros, long = bytes(60), bytes.fromhex(SIMPLE) + b"\x10\x00\x00\x60"
    assert heard(data(zeros), "azy") == "z"
    assert heard(data(zeros), "azy", part=True) == "z"
    assert heard(data(zeros), "zy", part=True) == "", "before the part"
    assert heard(data(block("b")), "azy") == "z", "a block of which there is no packet"
    assert heard(data(block("b")), "abz") == ("" if unsaid else "end")
    assert heard(data(element(SIMPLE, b"\x81\0\0\0")), "azy") == "", "nor is of one that is empty"
    assert heard(data(long + zeros), "azy") == "z", "a length that leads past what is there"
    whole = data(block("b"))
    at = whole.index(b"b" * 40)
    assert heard(whole[: at + 5] + b"x" * 11 + whole[at + 5 :], "azy") == "z", "bytes put in"
    assert heard(whole[: at + 5] + whole[at + 25 :], "azy") == "z", "bytes lost"
    end = "" if unsaid else "end"  # what is behind a live recording that stopped may be anything
    assert heard(HEAD + element(SEGMENT, cluster(block("a"), zeros, unsaid=unsaid)), "a") == end


def read(path: Path, start: str | None = None, end: str | None = None) -> tuple[int, str]:
    """The number of frames, and what is said of damage."""
    with Source(str(path), *(None if at is None else Fraction(at) for at in (start, end))) as source:
        return sum(1 for _ in source.frames()), str(source.damage)


def live(data: bytes) -> bytes:
    """A film whose clusters do not say how long they are, as browsers record them."""
    made = bytearray(data)
    for found in re.finditer(bytes.fromhex(CLUSTER), data):
        at, long = found.end(), 9 - data[found.end()].bit_length()
        made[at : at + long] = ((1 << 7 * long + 1) - 1).to_bytes(long, "big")
    return bytes(made)


Wound = Callable[[bytes, int, random.Random], bytes]
WOUNDS: dict[str, Wound] = {
    "noise": lambda data, at, chance: data[:at] + chance.randbytes(2000) + data[at + 2000 :],
    "zeros": lambda data, at, chance: data[:at] + bytes(4096) + data[at + 4096 :],
    "lost": lambda data, at, chance: data[:at] + data[at + 1500 :],
    "put in": lambda data, at, chance: data[:at] + chance.randbytes(700) + data[at:],
}


@pytest.mark.parametrize("wound", WOUNDS)
@pytest.mark.parametrize("way", ["pictures", "sound", "live"])
def test_no_frame_goes_unheard(tmp_path: Path, way: str, wound: str) -> None:
    """Of half of these nothing else tells."""
    place = film(tmp_path / "in.mkv", 100, sounds=int(way == "sound"), options={"crf": "1", "g": "12"})
    data = live(place.read_bytes()) if way == "live" else place.read_bytes()
    place.write_bytes(data)
    assert read(place) == (100, "")
    holes = 0
    for seed in range(12):
        chance = random.Random(seed)
        place.write_bytes(WOUNDS[wound](data, chance.randrange(len(data) // 10, len(data) * 8 // 10), chance))
        frames, damage = read(place)
        assert damage or frames == 100, seed
        holes += "hole" in damage
    assert holes


def test_where_it_is(tmp_path: Path) -> None:
    """Only of the part that is read; its length is that of the gap on the screen."""
    place = film(tmp_path / "in.mkv", 40, options={"crf": "1", "g": "5", "bf": "0"}, sounds=0)
    with av.open(str(place)) as source:
        marks = {packet.pts: packet.pos for packet in source.demux(video=0) if packet.size}
    data = bytearray(place.read_bytes())
    begin, end = marks[417] - 9, data.index(bytes.fromhex(CLUSTER), marks[417])
    data[begin:end] = bytes(end - begin)
    place.write_bytes(data)
    with av.open(str(place)) as source:
        gone = sorted(set(marks) - {packet.pts for packet in source.demux(video=0)})
    last = gone[-1] / 1000
    frames, damage = read(place)
    assert (gone[0], frames) == (417, 40 - len(gone))
    found = re.fullmatch(r"a hole of about (\d+) frames from 0\.41\d s to (\d\.\d+) s", damage)
    assert found, damage
    assert int(found[1]) == len(gone)
    assert float(found[2]) == pytest.approx(last + 1 / RATE, abs=2e-3)
    assert read(place, end="0.417") == (10, "")
    assert read(place, end="0.5") == (10, "a hole of about 2 frames from 0.416 s to 0.500 s")
    assert read(place, start="0.459")[1].startswith(f"a hole of about {len(gone) - 1} frames from 0.459 s to")
    assert read(place, start=str(last + 1.1 / RATE))[1] == ""


@pytest.mark.parametrize("suffix", [".mkv", ".webm", ".mp4", ".mov", ".ts"])
def test_honest_gaps(tmp_path: Path, suffix: str) -> None:
    """A screen recorder's: nothing moves, so there is no frame, and nothing says so but the times."""
    times = [i * TICKS // RATE for i in range(90) if i not in (5, 6, 44) and not 20 <= i < 34]
    codec = "libvpx-vp9" if suffix == ".webm" else "libx264"
    source = film(tmp_path / f"in{suffix}", len(times), codec=codec, times=times, sounds=0)
    assert read(source) == (len(times), "")
    parts: Sequence[Any] = [("1", None), ("0.5", "2.5"), (None, "1.1"), ("0.01", None)]
    assert [read(source, *part)[1] for part in parts] == [""] * len(parts)


@pytest.mark.parametrize("recorded", [False, True])
def test_cut_off(tmp_path: Path, recorded: bool) -> None:
    """A film that ends too early has no hole, nor has one with something behind it."""
    place = film(tmp_path / "in.mkv", 60, options={"g": "12"})
    data = live(place.read_bytes()) if recorded else place.read_bytes()
    for behind in (bytes(5000), random.Random(0).randbytes(5000)):
        place.write_bytes(data + behind)
        assert read(place) == (60, "")
    for share in range(20, 99, 3):
        place.write_bytes(data[: len(data) * share // 100])
        assert "hole" not in read(place)[1], share
