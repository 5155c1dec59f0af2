"""Animated pictures: what `liif-fast video` keeps of them, as pictures and as films, and what it refuses."""

from __future__ import annotations

import resource
import sys
import warnings
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from clips import SMALL, pattern
from common import random_weights
from liif_fast import Upscaler, checkpoint
from liif_fast.batch import Request
from liif_fast.video import animation
from liif_fast.video.animation_source import Animation
from liif_fast.video.encoding import Choice
from liif_fast.video.film import FilmMeter, Job, Made
from liif_fast.video.palette import Nearest
from test_cli_ends import finish, process
from test_video import Counting
from test_video_ends import MODEL, refused, run

SUFFIXES = (".gif", ".webp", ".png")  # what keeps every bit of `pictures`
DURATIONS = (100, 40, 70, 200)  # milliseconds
ENGINE = ("--model", MODEL, "--precision", "fp32")


@pytest.fixture(scope="module")
def trained() -> Upscaler:
    """One whose colours are those of the picture."""
    return Upscaler("realtime-small", precision="fp32", threads=2)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a small network and in.gif in it."""
    monkeypatch.chdir(tmp_path)
    checkpoint.save(MODEL, random_weights(SMALL))
    animated("in.gif")
    return tmp_path


def pictures(alpha: bool = True) -> list[Image.Image]:
    """Few colours; a square that moves before a ground, which is nothing with ``alpha``."""
    made = []
    for i in range(len(DURATIONS)):
        array = np.full((30, 40, 4), (200, 60, 90, 0 if alpha else 255), np.uint8)
        array[5:20, 4 + 6 * i : 18 + 6 * i] = (0, 0, 0, 255) if i % 2 else (20, 250, 10, 255)
        made.append(Image.fromarray(array if alpha else np.ascontiguousarray(array[..., :3])))
    return made


def animated(path: str | Path, alpha: bool = True, loop: int | None = 0, frames: list[Any] | None = None) -> Path:
    """A file that Pillow made, of `pictures` or ``frames``."""
    path = Path(path)
    frames = frames or pictures(alpha)
    options: dict[str, Any] = {".gif": {"disposal": 2}, ".webp": {"lossless": True}}.get(path.suffix, {})
    durations = [DURATIONS[i % 4] for i in range(len(frames))]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=durations, loop=loop, **options)
    return path


def canvases(path: Path) -> list[np.ndarray]:
    """What is seen, RGBA with nothing where nothing is."""
    with Image.open(path) as im:
        found = []
        for i in range(im.n_frames):
            im.seek(i)
            found.append(np.array(im.convert("RGBA")))
    for frame in found:
        frame[frame[..., 3] == 0] = 0
    return found


def make(up: Upscaler, source: Path, output: Path, size: str = "97x70", **job: Any) -> Made:
    return animation.make(Job(str(source), str(output), Request.parse(size=size), **job), lambda: up, FilmMeter(False))


@pytest.mark.parametrize("alpha", [True, False])
@pytest.mark.parametrize("target", [".webp", ".png", ".apng"])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_frames_are_those_of_still_pictures(
    tmp_path: Path, film_upscaler: Upscaler, suffix: str, target: str, alpha: bool
) -> None:
    source, out = animated(tmp_path / f"in{suffix}", alpha), tmp_path / f"out{target}"
    made = make(film_upscaler, source, out)
    assert (made.width, made.height, made.frames) == (97, 70, 4)
    found = Animation.of(str(out))
    assert (found.durations, found.plays, found.alpha) == (DURATIONS, 0, alpha)
    with Image.open(source) as im:
        for i, canvas in enumerate(canvases(out)):
            im.seek(i)
            still = np.array(film_upscaler(im.convert("RGBA"), size=(70, 97)))
            still[still[..., 3] == 0] = 0
            assert np.array_equal(canvas, still)
            assert alpha == (len(np.unique(still[..., 3])) > 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([source.name, out.name])


@pytest.mark.parametrize("alpha", [True, False])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_gif(tmp_path: Path, trained: Upscaler, suffix: str, alpha: bool) -> None:
    """Colours near those of the frames, and visible where they are more than half so."""
    source, out = animated(tmp_path / f"in{suffix}", alpha), tmp_path / "out.gif"
    assert make(trained, source, out).codec == "gif"
    found = Animation.of(str(out))
    assert (found.durations, found.plays, found.alpha) == (DURATIONS, 0, alpha)
    make(trained, source, tmp_path / "exact.png")
    for canvas, exact in zip(canvases(out), canvases(tmp_path / "exact.png"), strict=True):
        visible = exact[..., 3] >= 128
        assert np.array_equal(canvas[..., 3] == 255, visible)
        assert np.abs(canvas.astype(int) - exact)[visible].mean() < 4


@pytest.mark.parametrize("alpha", [True, False])
def test_avif(tmp_path: Path, trained: Upscaler, alpha: bool) -> None:
    """Read and written with little loss, less with more quality; shown for ever, which is said where it was not."""
    source = animated(tmp_path / "in.avif", alpha)
    make(trained, source, tmp_path / "exact.png")
    exact = np.stack(canvases(tmp_path / "exact.png")).astype(int)
    errors = []
    for quality in ({"quality": "30"}, {}, {"quality": "100"}):
        made = make(trained, source, tmp_path / "out.avif", force=True, choice=Choice(options=quality))
        assert (made.codec, made.frames, made.pixel_format) == ("avif", 4, "rgba" if alpha else "rgb24")
        found = Animation.of(str(tmp_path / "out.avif"))
        assert (found.durations, found.plays, found.alpha) == (DURATIONS, 0, alpha)
        shown = np.stack(canvases(tmp_path / "out.avif")).astype(int)
        errors.append(np.abs(shown - exact)[exact[..., 3] == 255].mean())
    assert errors[0] > errors[1] > errors[2]
    assert errors[1] < 2
    source.write_bytes(imagecodecs.avif_encode(np.zeros((3, 8, 8, 3), np.uint16), bitspersample=10))
    with pytest.warns(UserWarning, match=r"in\.avif: its 10 bits are read as 8"):
        Animation.of(str(source))
    with pytest.warns(UserWarning, match=r"out\.avif: is shown for ever, .*in\.gif once; \.webp keeps that"):
        make(trained, animated(tmp_path / "in.gif", loop=None), tmp_path / "out.avif", force=True)


def test_what_stands_still_in_a_gif_stays(tmp_path: Path, trained: Upscaler) -> None:
    """Of a picture of many colours, of which a corner changes, the rest is the same in every frame."""
    frames = [pattern(0, 60, 80) for _ in range(4)]
    for i, frame in enumerate(frames):
        frame[:8, :8] = 60 * i
    source = animated(tmp_path / "in.png", frames=[Image.fromarray(frame) for frame in frames])
    make(trained, source, tmp_path / "out.gif", size="160x120")
    first, *others = canvases(tmp_path / "out.gif")
    for other in others:
        assert np.array_equal(first[40:, 40:], other[40:, 40:])
        assert not np.array_equal(first, other)


@pytest.mark.parametrize(("alpha", "said"), [(120, True), (255, False)])
def test_a_gif_has_nothing_half_transparent(tmp_path: Path, trained: Upscaler, alpha: int, said: bool) -> None:
    frames = [pattern(i, 24, 32) for i in range(3)]
    seen = np.zeros((24, 32), np.uint8)
    seen[4:20, 4:28] = alpha
    images = [Image.fromarray(np.dstack([frame, seen])) for frame in frames]
    images[0].save(tmp_path / "in.webp", save_all=True, append_images=images[1:], lossless=True, duration=100)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        make(trained, tmp_path / "in.webp", tmp_path / "out.gif")
    texts = [str(warning.message) for warning in found if "half transparent" in str(warning.message)]
    assert len(texts) == said
    assert all(text.endswith(".webp and .png keep it") for text in texts)


def test_the_nearest_colour() -> None:
    random = np.random.default_rng(0)
    colors, pixels = random.integers(0, 256, (200, 3), np.uint8), random.integers(0, 256, (30, 40, 3), np.uint8)
    away = np.square(pixels[:, :, None].astype(int) - colors).sum(axis=-1)
    nearest = Nearest(colors)
    for part in (pixels[:9], pixels):  # some are known by then
        found = nearest(part)
        assert found.dtype == np.uint8
        chosen = np.take_along_axis(away[: len(part)], found[..., None].astype(int), axis=-1)
        assert np.array_equal(chosen[..., 0], away[: len(part)].min(axis=-1))


@pytest.mark.parametrize("target", SUFFIXES)
@pytest.mark.parametrize("plays", [0, 1, 3])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_repetitions(tmp_path: Path, film_upscaler: Upscaler, suffix: str, plays: int, target: str) -> None:
    """A GIF has the number of those after the first time, the others of all."""
    loop = {0: 0, 1: None, 3: 2}[plays] if suffix == ".gif" else plays
    source = animated(tmp_path / f"in{suffix}", loop=loop)
    make(film_upscaler, source, tmp_path / f"out{target}", size="40x30")
    with Image.open(tmp_path / f"out{target}") as im:
        assert im.info.get("loop") == ({0: 0, 1: None, 3: 2}[plays] if target == ".gif" else plays)


def test_durations_that_a_gif_has_not(tmp_path: Path, film_upscaler: Upscaler) -> None:
    frames = [Image.fromarray(pattern(i, 12, 16)) for i in range(30)]
    for duration, shown in ((1000 / 30, {30, 40}), (1000 / 60, {20}), (0, {0})):
        frames[0].save(tmp_path / "in.png", save_all=True, append_images=frames[1:], duration=duration)
        make(film_upscaler, tmp_path / "in.png", tmp_path / "out.gif", size="16x12", force=True)
        found = Animation.of(str(tmp_path / "out.gif")).durations
        assert set(found) == shown
        if duration > 20:
            assert sum(found) == pytest.approx(30 * duration, abs=5)


def test_a_long_frame_in_a_gif(tmp_path: Path, film_upscaler: Upscaler) -> None:
    """What does not fit is not given to the next frame."""
    frames = pictures()
    frames[0].save(tmp_path / "in.webp", save_all=True, append_images=frames[1:3], duration=[1_000_000, 104, 104])
    make(film_upscaler, tmp_path / "in.webp", tmp_path / "out.gif")
    assert Animation.of(str(tmp_path / "out.gif")).durations == (655_350, 100, 110)


def test_a_gif_has_no_profile(tmp_path: Path, film_upscaler: Upscaler) -> None:
    frames = pictures()
    frames[0].save(tmp_path / "in.webp", save_all=True, append_images=frames[1:], duration=100, icc_profile=bytes(200))
    with pytest.warns(UserWarning, match=r"out\.gif: GIF has no place for the colour profile"):
        make(film_upscaler, tmp_path / "in.webp", tmp_path / "out.gif")


def test_a_long_frame_in_a_png(tmp_path: Path, film_upscaler: Upscaler) -> None:
    frames = pictures()
    frames[0].save(tmp_path / "in.webp", save_all=True, append_images=frames[1:2], duration=[70_001, 100])
    make(film_upscaler, tmp_path / "in.webp", tmp_path / "out.png")
    assert Animation.of(str(tmp_path / "out.png")).durations == (70_000, 100)


def test_equal_frames_are_enlarged_once(tmp_path: Path) -> None:
    first, second, *_ = pictures()
    source = animated(tmp_path / "in.gif", frames=[first, second, second])
    data = source.read_bytes()
    assert len(Animation.of(str(source)).durations) == 2, "Pillow merges them"
    frames = data.split(b"!\xf9\x04")
    source.write_bytes(b"!\xf9\x04".join([*frames[:-1], frames[-1].removesuffix(b";"), frames[-1]]))
    assert len(Animation.of(str(source)).durations) == 3
    counting = Counting()
    make(counting, source, tmp_path / "out.webp")
    assert len(counting.calls) == 2


def test_a_picture_for_those_who_know_no_animations(tmp_path: Path, film_upscaler: Upscaler) -> None:
    """The first of a PNG, which is no frame."""
    frames = pictures()
    source = tmp_path / "in.png"
    frames[0].save(source, save_all=True, append_images=frames[1:], default_image=True, duration=50)
    make(film_upscaler, source, tmp_path / "out.webp")
    assert len(canvases(tmp_path / "out.webp")) == 3
    assert Animation.of(str(tmp_path / "out.webp")).durations == (50, 50, 50)


def test_colour_profile(tmp_path: Path, film_upscaler: Upscaler) -> None:
    frames = pictures()
    frames[0].save(tmp_path / "in.png", save_all=True, append_images=frames[1:], icc_profile=b"a profile")
    for name in ("out.png", "out.webp"):
        make(film_upscaler, tmp_path / "in.png", tmp_path / name)
        with Image.open(tmp_path / name) as im:
            assert im.info["icc_profile"] == b"a profile"


@pytest.mark.parametrize(("name", "most"), [("WEBP", 3), ("GIF", 3), ("AVIF", 3)])
def test_frames_do_not_pile_up(tmp_path: Path, name: str, most: int) -> None:
    """Of those that are handed to the encoder few are alive at a time."""
    source = Animation.of(str(animated(tmp_path / "in.png", frames=pictures() * 5)))
    alive: list[weakref.ref[Image.Image]] = []
    counts = []

    def handed() -> Iterator[Image.Image]:
        for frame in source.frames():
            image = Image.fromarray(frame)
            alive.append(weakref.ref(image))
            counts.append(sum(there() is not None for there in alive))
            yield image

    animation.encoded(name, handed(), source)
    assert len(counts) == 20
    assert max(counts) <= most


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("part", [0.3, 0.8])
def test_damaged(folder: Path, suffix: str, part: float) -> None:
    frames = [Image.fromarray(pattern(i)) for i in range(5)]
    cut = animated(f"cut{suffix}", frames=frames)
    data = cut.read_bytes()
    cut.write_bytes(data[: int(len(data) * part)])
    refused(run(cut, "out.webp", engine=ENGINE), f"cut{suffix}: cannot be read (")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("none.gif", "out.webp"), ("none.gif: No such file",)),
        ((".", "out.webp"), ("directory",)),
        (("in.gif", "in.gif"), ("would replace the input",)),
        (("in.gif", "there.gif"), ("there.gif: exists already", "--force")),
        (("in.gif", "nowhere/out.gif"), ("no folder",)),
        (("still.gif", "out.webp"), ("still.gif: is a still picture", "liif-fast upscale")),
        (("still.webp", "out.webp"), ("still.webp: is a still picture", "liif-fast upscale")),
        (("still.png", "out.gif"), ("still.png: is a still picture", "liif-fast upscale")),
        (("text.gif", "out.gif"), ("text.gif: is no GIF, WebP, PNG or AVIF",)),
        (("in.gif", "out.webp", "--longest", 20_000), ("out.webp: 20000 x 15000", "16383", "WEBP")),
        (("in.gif", "out.png", "--longest", 2_000_000), ("4 frames of 2000000 x 1500000", "GiB of memory", ".webp")),
        (("in.gif", "out.webp", "--resume"), ("out.webp: --resume is for films",)),
        (("in.gif", "out.webp", "--frames", 3), ("--frames is for films",)),
        (("in.gif", "out.webp", "--codec", "libwebp"), ("--codec is for films",)),
        (("in.gif", "out.webp", "--crf", 0), ("--crf is for films",)),
        (("in.gif", "out.webp", "--pixel-format", "rgb24"), ("--pixel-format is for films",)),
        (("in.gif", "out.webp", "--preview", "strip.png"), ("--preview is for films",)),
        (("in.gif", "out.webp", "--codec-option", "tune=film"), ("WEBP has no option tune",)),
        (("in.gif", "out.gif", "--codec-option", "quality=90"), ("GIF has no option quality",)),
        (("in.gif", "out.avif", "--codec-option", "quality=101"), ("quality 101 is not in 1..100",)),
        (("still.avif", "out.gif"), ("still.avif: is a still picture", "liif-fast upscale")),
        (("in.gif", "out.webp", "--codec-option", "quality=0"), ("quality 0 is not in 1..100",)),
        (
            ("in.gif", "out.webp", *("--codec-option", "quality=90"), *("--codec-option", "method=6")),
            ("no option method",),
        ),
        (("long.png", "out.gif"), ("out.gif: a GIF shows no picture for more than 655 s", ".webp")),
    ],
)
def test_refused(folder: Path, args: tuple[Any, ...], words: tuple[str, ...]) -> None:
    Path("text.gif").write_text("This is no picture.\n" * 100)
    for suffix in (*SUFFIXES, ".avif"):
        pictures()[0].save(f"still{suffix}")
    animated("there.gif")
    same = [picture.copy() for picture in pictures()[:1] * 3]
    for i, picture in enumerate(same):  # but for what nobody sees, or Pillow would make them one
        picture.putpixel((0, 29), (i, i, i, 0))
    same[0].save("long.png", save_all=True, append_images=[*same[1:], pictures()[1]], duration=[400_000] * 3 + [100])
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    refused(run(*args, engine=ENGINE), *words)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_the_command(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It needs no PyAV."""
    monkeypatch.setitem(sys.modules, "av", None)
    result = run("in.gif", "out.webp", "--scale", 3, engine=ENGINE)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("out.webp  120 x 90  4 frames  ")
    facts = run("in.gif", "out.webp", "--force", "--json", "--codec-option", "quality=50", engine=ENGINE).stdout
    assert '"frames": 4' in facts
    assert '"codec": "webp", "pixel_format": "rgba"' in facts
    assert run("in.gif", "small.webp", engine=ENGINE).exit_code == 0
    assert canvases(Path("small.webp"))[0].shape == canvases(Path("out.webp"))[0].shape
    assert not np.array_equal(canvases(Path("small.webp"))[0], canvases(Path("out.webp"))[0])


def test_full_disk(folder: Path) -> None:
    def little_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    code, out, err = finish(process("video", "in.gif", "out.webp", *ENGINE, cwd=folder, preexec_fn=little_room))
    assert (code, out) == (2, "")
    assert "out.webp: no space left" in err
    assert sorted(path.name for path in folder.iterdir()) == ["in.gif", MODEL]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_as_a_film(folder: Path, suffix: str) -> None:
    """Every frame at its time; WebP, which ffmpeg does not read, as Pillow composes it."""
    av = pytest.importorskip("av")
    source = animated(f"film{suffix}", alpha=False)
    lossless = ("--codec", "libx264rgb", "--crf", "0", "--pixel-format", "rgb24", "--scale", "1")
    result = run(source, "out.mkv", *lossless)
    assert result.exit_code == 0, result.output
    up = Upscaler(MODEL, precision="fp32", threads=1)
    with av.open("out.mkv") as made:
        frames = list(made.decode(video=0))
    assert [round(1000 * frame.time) for frame in frames] == [0, 100, 140, 210]
    for frame, canvas in zip(frames, canvases(source), strict=True):
        assert np.array_equal(frame.to_ndarray(format="rgb24"), up(canvas[..., :3].copy(), scale=1))
    assert run(source, "part.mkv", *lossless, "--start", "0.12", "--frames", "2").exit_code == 0
    with av.open("part.mkv") as made:
        assert len(list(made.decode(video=0))) == 2


def test_avif_as_a_film(folder: Path) -> None:
    """Not its first picture alone, which stands there once more for those who know no animations."""
    av = pytest.importorskip("av")
    source = animated("film.avif", alpha=False)
    result = run(source, "out.mkv", "--scale", "2", "--crf", "0", engine=("--model", "realtime-small"))
    assert result.exit_code == 0, result.output
    with av.open("out.mkv") as made:
        frames = list(made.decode(video=0))
    assert [round(1000 * frame.time) for frame in frames] == [0, 100, 140, 210]
    for frame, canvas in zip(frames, canvases(source), strict=True):
        seen = frame.to_ndarray(format="rgb24")[::2, ::2]
        assert np.abs(seen.astype(int) - canvas[..., :3])[7:18, 24:34].mean() < 12


@pytest.mark.parametrize(("part", "seconds"), [((), 1.05), (("--end", "0.4"), 0.4)], ids=["whole", "part"])
def test_a_film_ends_when_its_last_frame_has_been_held(folder: Path, part: tuple[str, ...], seconds: float) -> None:
    av = pytest.importorskip("av")
    first, *others = pictures(alpha=False)
    first.save("held.gif", save_all=True, append_images=others, duration=[50, 50, 50, 900], loop=0)
    result = run("held.gif", "out.mp4", "--scale", "2", "--model", MODEL, "--device", "cpu", *part)
    assert (result.exit_code, "early" in result.stderr) == (0, False), result.output
    with av.open("out.mp4") as made:
        assert made.duration / 1e6 == pytest.approx(seconds, abs=0.02)
