"""Picture files out: what is kept, what is refused before the work, and that nothing is ever left behind."""
# ruff: noqa: PT012  (the error is to come out of the writer's own "with")

import errno
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, features

from images import HAS_AVIF, SHAPES, SRGB, one_line, random_array, smooth
from liif_fast.files import read
from liif_fast.metadata import Metadata
from liif_fast.output import FORMATS, SUFFIXES, ImageError, check_output, writer

AVIF = pytest.param(".avif", marks=pytest.mark.skipif(not HAS_AVIF, reason="a Pillow without AVIF"))


def save(path, array, step=5, **options):
    with writer(path, array.shape, array.dtype, **options) as out:
        for y in range(0, len(array), step):
            out.write(array[y : y + step])


LOSSLESS = [
    (format, suffix.upper(), dtype, channels)
    for format in FORMATS
    if format.lossless
    for suffix in format.suffixes
    for dtype in format.dtypes
    for channels in ((1, 2, 3, 4) if format.alpha else (1, 3))
]


@pytest.mark.parametrize(("format", "suffix", "dtype", "channels"), LOSSLESS)
@pytest.mark.parametrize(("h", "w"), SHAPES)
def test_lossless_round_trip(tmp_path, format, suffix, dtype, channels, h, w):
    array = random_array((h, w, channels), dtype)
    save(tmp_path / f"a{suffix}", array, lossless=True)
    pixels, _ = read(tmp_path / f"a{suffix}")
    assert pixels.dtype == dtype
    if format.name == "WEBP" and channels < 3:
        pixels = pixels[..., [0, 3] if channels == 2 else [0]]
    assert np.array_equal(pixels, array)
    assert os.listdir(tmp_path) == [f"a{suffix}"]


@pytest.mark.parametrize("suffix", [".jpg", ".webp", AVIF])
@pytest.mark.parametrize("channels", [1, 3])
def test_lossy(tmp_path, suffix, channels):
    array = smooth(60, 70, channels)
    save(tmp_path / f"a{suffix}", array)
    save(tmp_path / f"b{suffix}", array, quality=20)
    pixels, _ = read(tmp_path / f"a{suffix}")
    assert abs(pixels[..., :channels].astype(int) - array).mean() < 2
    assert (tmp_path / f"b{suffix}").stat().st_size < (tmp_path / f"a{suffix}").stat().st_size
    if suffix == ".jpg":
        assert {tuple(c[1:3]) for c in Image.open(tmp_path / "a.jpg").layer} == {(1, 1)}  # no colour subsampling


@pytest.mark.parametrize("suffix", [s for s in SUFFIXES if s != ".avif" or HAS_AVIF])
def test_metadata_is_kept(tmp_path, suffix):
    exif = Image.Exif()
    exif[0x010F] = "maker"
    save(tmp_path / f"a{suffix}", smooth(6, 5, 3), metadata=Metadata(SRGB, (300, 150), exif.tobytes()))
    _, metadata = read(tmp_path / f"a{suffix}")
    if suffix != ".bmp":
        assert metadata.icc_profile == SRGB
    if suffix not in (".webp", ".avif"):
        assert metadata.dpi == pytest.approx((300, 150), abs=0.1)
    if suffix not in (".bmp", ".tif", ".tiff"):
        kept = Image.Exif()
        kept.load(metadata.exif)
        assert kept[0x010F] == "maker"
    has_gray, has_profile = suffix not in (".webp", ".avif"), suffix != ".bmp"
    for profile, fits in ((SRGB, not has_gray), (SRGB[:16] + b"GRAY" + SRGB[20:], has_gray)):
        save(tmp_path / f"gray{suffix}", smooth(6, 5, 1), metadata=Metadata(profile), force=True)
        kept = profile if fits and has_profile else None
        assert read(tmp_path / f"gray{suffix}")[1].icc_profile == kept


def test_exif_that_a_jpeg_has_no_room_for(tmp_path):
    """The picture is worth more."""
    exif = Image.Exif()
    exif[0x010F] = "maker" * 14000
    array = smooth(6, 5, 3)
    with pytest.warns(UserWarning, match=r"a.jpg: JPEG has no place for EXIF of 70\d\d\d bytes; .png has"):
        save(tmp_path / "a.jpg", array, metadata=Metadata(SRGB, None, exif.tobytes()))
    pixels, metadata = read(tmp_path / "a.jpg")
    assert pixels.shape == array.shape
    assert (metadata.icc_profile, metadata.exif) == (SRGB, None)
    save(tmp_path / "a.png", array, metadata=Metadata(exif=exif.tobytes()))
    assert len(read(tmp_path / "a.png")[1].exif) > 70000


def test_half_precision_is_kept(tmp_path, recwarn):
    rows = smooth(6, 5, 3).astype(np.float16) / 255
    save(tmp_path / "a.tif", rows)
    assert not recwarn.list
    assert np.array_equal(read(tmp_path / "a.tif")[0], rows.astype(np.float32))


@pytest.mark.parametrize(
    ("source", "suffix", "expected"),
    [
        (np.array([[[0], [127], [129], [65535]]], np.uint16), ".bmp", [0, 0, 1, 255]),
        (np.array([[[-1], [0.5], [1.5], [np.nan]]], np.float32), ".png", [0, 32768, 65535, 0]),
    ],
)
def test_deeper_samples_are_rounded_with_a_warning(tmp_path, source, suffix, expected):
    with pytest.warns(UserWarning, match=f"a{suffix}.*rounded"):
        save(tmp_path / f"a{suffix}", source)
    assert read(tmp_path / f"a{suffix}")[0].flatten().tolist() == expected


@pytest.mark.parametrize(
    ("name", "shape", "options", "error", "text"),
    [
        ("a.xyz", (1, 1, 3), {}, ImageError, r"'\.xyz'.*\.png.*\.bmp"),
        ("a", (1, 1, 3), {}, ImageError, r"''"),
        ("a.png", (0, 1, 3), {}, ValueError, r"\(0, 1, 3\)"),
        ("a.png", (1, 1, 5), {}, ValueError, r"\(1, 1, 5\)"),
        ("a.png", (1, 1, 3), {"dtype": np.int32}, TypeError, "int32"),
        ("a.jpg", (1, 1, 4), {}, ImageError, r"no alpha.*\.png.*\.webp"),
        ("a.bmp", (1, 1, 2), {}, ImageError, "no alpha"),
        ("a.jpg", (1, 65501, 3), {}, ImageError, "65501 x 1 is beyond the 65500"),
        ("a.webp", (16384, 1, 3), {}, ImageError, "16383"),
        ("a.bmp", (40_000, 40_000, 3), {}, ImageError, "4 GiB"),
        ("a.jpg", (1, 1, 3), {"lossless": True}, ImageError, "with loss only"),
        ("a.jpg", (1, 1, 3), {"quality": 101}, ImageError, "101"),
        ("a.png", (1, 1, 3), {"quality": 50}, ImageError, "quality 50"),
        ("no/a.png", (1, 1, 3), {}, FileNotFoundError, "no folder"),
        ("folder.png", (1, 1, 3), {}, IsADirectoryError, "directory"),
        ("pipe.png", (1, 1, 3), {"force": True}, ImageError, "not a regular file"),
        ("there.png", (1, 1, 3), {}, FileExistsError, "--force"),
        (f"{'a' * 300}.png", (1, 1, 3), {}, OSError, "too long"),
    ],
)
def test_outputs_refused_before_the_work(tmp_path, name, shape, options, error, text):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "there.png").write_text("x")
    os.mkfifo(tmp_path / "pipe.png")
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(error, match=text) as info:
        check_output(tmp_path / name, shape, **options)
    one_line(info)
    with pytest.raises(error, match=text), writer(tmp_path / name, shape, **options):
        pass
    assert sorted(os.listdir(tmp_path)) == before


def test_a_folder_that_may_not_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(PermissionError, match="no permission to write"):
        check_output(tmp_path / "a.png", (1, 1, 3))


def test_a_pillow_without_avif(tmp_path, monkeypatch):
    monkeypatch.setattr(features, "check", lambda _: False)
    with pytest.raises(ImageError, match="without AVIF"):
        check_output(tmp_path / "a.avif", (1, 1, 3))


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, RuntimeError, MemoryError])
def test_nothing_is_left_behind(tmp_path, suffix, error):
    (tmp_path / f"a{suffix}").write_text("old")
    rows = random_array((500, 900, 3))
    with pytest.raises(error), writer(tmp_path / f"a{suffix}", (5000, 900, 3), force=True) as out:
        for _ in range(5):
            out.write(rows)
        assert len(os.listdir(tmp_path)) == 2
        raise error
    assert os.listdir(tmp_path) == [f"a{suffix}"]
    assert (tmp_path / f"a{suffix}").read_text() == "old"


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_rows_are_counted_and_checked(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    rows = np.zeros((5, 4, 3), np.uint8)
    with pytest.raises(ValueError, match="5 rows for a picture of 6"), writer(path, (6, 4, 3)) as out:
        out.write(rows)
    with pytest.raises(ValueError, match="10 rows for a picture of 6"), writer(path, (6, 4, 3)) as out:
        out.write(rows)
        out.write(rows)
    for wrong in (rows[:, :3], rows[..., :1], rows[0], rows.astype(np.uint16)):
        with pytest.raises(ValueError, match=r"not uint8\[h, 4, 3\]"), writer(path, (6, 4, 3)) as out:
            out.write(wrong)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("links", [True, False])
def test_a_name_taken_meanwhile(tmp_path, links, monkeypatch):
    def no_link(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    if not links:
        monkeypatch.setattr(os, "link", no_link)
    rows = random_array((3, 4, 3))
    save(tmp_path / "a.png", rows)
    with pytest.raises(FileExistsError, match="exists already") as info, writer(tmp_path / "b.png", rows.shape) as out:
        out.write(rows)
        (tmp_path / "b.png").write_text("other")
    one_line(info)
    assert (tmp_path / "b.png").read_text() == "other"
    with writer(tmp_path / "b.png", rows.shape, force=True) as one:
        one.write(rows)
        with writer(tmp_path / "b.png", rows.shape, force=True) as two:  # the last complete one wins
            two.write(255 - rows)
    assert np.array_equal(read(tmp_path / "b.png")[0], rows)
    assert sorted(os.listdir(tmp_path)) == ["a.png", "b.png"]


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o000])
def test_permissions_follow_the_umask(tmp_path, mask):
    old = os.umask(mask)
    try:
        save(tmp_path / "a.png", random_array((3, 4, 3)))
    finally:
        os.umask(old)
    assert (tmp_path / "a.png").stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_link_is_written_through(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "a.png").symlink_to(tmp_path / "folder" / "b.png")
    save(tmp_path / "a.png", random_array((3, 4, 3)))
    assert (tmp_path / "a.png").is_symlink()
    assert os.listdir(tmp_path / "folder") == ["b.png"]


def run(code, *arguments):
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)


FILL = """
import resource, sys, numpy as np
from liif_fast.output import ImageError, writer
rng = np.random.default_rng(0)
if sys.argv[2] == "limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
for suffix in (".png", ".tif", ".bmp"):
    try:
        with writer(sys.argv[1] + suffix, (2000, 600, 3)) as out:
            for _ in range(20): out.write(rng.integers(0, 256, (100, 600, 3), np.uint8))
    except ImageError as error:
        print(error)
"""


def test_a_full_disk(tmp_path):
    done = run(FILL, str(tmp_path / "a"), "limit")
    lines = [
        rf"{re.escape(str(tmp_path / 'a'))}\{suffix}: no space left \(.*\)\n" for suffix in (".png", ".tif", ".bmp")
    ]
    assert re.fullmatch("".join(lines), done.stdout), done
    assert not done.stderr
    assert not os.listdir(tmp_path)


def test_a_really_full_disk(tmp_path):
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(tmp_path)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs to mount a small file system")
    try:
        done = run(FILL, str(tmp_path / "a"), "mount")
        assert done.stdout.count("no space left (No space left on device)") == 3, done
        assert not os.listdir(tmp_path)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_memory_of_a_large_picture(tmp_path):
    """12000 x 12000 (144 MB of pixels) pass through a few bands."""
    code = """
import resource, sys, numpy as np, imagecodecs
from liif_fast.output import writer
unit = 1 << (20 if sys.platform == "darwin" else 10)  # bytes there, KiB elsewhere
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
before = peak()
for suffix in (".png", ".tif"):
    rows = np.zeros((100, 12000, 1), np.uint8)
    rows[:, ::9] = 200
    with writer(sys.argv[1] + suffix, (12000, 12000, 1)) as out:
        for _ in range(120): out.write(rows)
print(peak() - before)
"""
    done = run(code, str(tmp_path / "a"))
    assert float(done.stdout) < 30 + 10 * min(16, os.cpu_count()), done.stderr
