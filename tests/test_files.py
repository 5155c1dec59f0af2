"""Picture files in: what is kept, what is refused and in which words."""

import io
import os
import struct
import warnings
import zlib

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from images import HAS_AVIF, SHAPES, SRGB, chunk, one_line, random_array, smooth
from liif_fast.files import read
from liif_fast.output import ImageError

AVIF = pytest.param("avif", marks=pytest.mark.skipif(not HAS_AVIF, reason="a Pillow without AVIF"))


WRITTEN_BY_PILLOW = {
    "PNG": "1 L LA P RGB RGBA", "TIFF": "1 L LA P RGB RGBA CMYK", "GIF": "1 L P RGB RGBA", "BMP": "1 L P RGB RGBA",
    "WEBP": "L LA P RGB RGBA", "JPEG": "1 L RGB CMYK",
}  # fmt: skip


@pytest.mark.parametrize(("suffix", "mode"), [(f, m) for f, modes in WRITTEN_BY_PILLOW.items() for m in modes.split()])
@pytest.mark.parametrize(("h", "w"), SHAPES)
def test_read_what_pillow_writes(tmp_path, mode, suffix, h, w):
    im = Image.fromarray(smooth(h, w, 3)).convert(mode if mode not in ("LA", "RGBA") else mode[:-1])
    if mode in ("LA", "RGBA"):
        im.putalpha(Image.fromarray(smooth(h, w, 1)[..., 0]))
    path = tmp_path / f"misnamed.{suffix}.txt"
    im.save(path, suffix, lossless=True, exact=True)
    pixels, _ = read(path)
    assert pixels.dtype == np.uint8
    assert pixels.shape[:2] == (h, w)
    assert pixels.flags.c_contiguous
    if suffix != "JPEG":
        written = Image.open(path)
        expected = np.array(written.convert("RGBA" if pixels.shape[2] in (2, 4) else "RGB"))
        channels = {1: [0, 0, 0], 2: [0, 0, 0, 1], 3: [0, 1, 2], 4: [0, 1, 2, 3]}[pixels.shape[2]]
        assert np.array_equal(pixels[..., channels], expected)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize(("h", "w"), SHAPES)
def test_read_16_bit_png(tmp_path, channels, h, w):
    array = random_array((h, w, channels), np.uint16)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(array if channels > 1 else array[..., 0]))
    pixels, _ = read(tmp_path / "a.png")
    assert pixels.dtype == np.uint16
    assert np.array_equal(pixels, array)


def png(width, height, bits, color_type, rows, extra=b""):
    header = struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, 0)
    body = extra and chunk(b"tRNS", extra)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("bits", "row", "expected"),
    [
        (1, b"\0\x40", [[0, 255], [255, 0]]),
        (2, b"\0\x10", [[0, 255], [85, 0]]),
        (4, b"\0\x01", [[0, 255], [17, 0]]),
        (8, b"\0\0\x01", [[0, 255], [1, 0]]),
        (16, b"\0\0\0\0\x01", [[0, 65535], [1, 0]]),
    ],
)
def test_transparent_gray_of_any_depth(tmp_path, bits, row, expected):
    (tmp_path / "a.png").write_bytes(png(2, 1, bits, 0, row, struct.pack(">H", 1)))
    assert read(tmp_path / "a.png")[0].tolist() == [expected]


@pytest.mark.parametrize("bits", [8, 16])
def test_transparent_colour(tmp_path, bits):
    row = b"\0" + struct.pack(f">6{'B' if bits == 8 else 'H'}", 1, 2, 3, 1, 2, 4)
    (tmp_path / "a.png").write_bytes(png(2, 1, bits, 2, row, struct.pack(">3H", 1, 2, 3)))
    assert read(tmp_path / "a.png")[0].tolist() == [[[1, 2, 3, 0], [1, 2, 4, 2**bits - 1]]]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64", "float16"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize(
    "options",
    [
        {}, {"compression": "lzw", "predictor": True}, {"compression": "zlib"}, {"tile": (16, 16)},
        {"tile": (16, 32), "compression": "zlib", "predictor": True}, {"planarconfig": "separate"},
        {"planarconfig": "separate", "tile": (16, 16), "compression": "lzw"}, {"rowsperstrip": 3}, {"bigtiff": True},
        {"byteorder": ">"},
    ],
)  # fmt: skip
def test_read_tiff(tmp_path, dtype, channels, options):
    array = random_array((23, 41, channels), dtype)
    color, extra = ("rgb", [2]) if channels > 2 else ("minisblack", [2])
    data = array if channels > 1 else array[..., 0]
    if options.get("planarconfig") and channels > 1:
        data = np.moveaxis(data, -1, 0)
    elif channels > 1:
        options = {**options, "planarconfig": "contig"}
    else:
        options = {k: v for k, v in options.items() if k != "planarconfig"}
    byteorder, big = options.pop("byteorder", "<"), options.pop("bigtiff", False)
    with tifffile.TiffWriter(tmp_path / "a.tif", byteorder=byteorder, bigtiff=big) as tif:
        tif.write(data, photometric=color, extrasamples=extra if channels in (2, 4) else None, **options)
    pixels, _ = read(tmp_path / "a.tif")
    assert pixels.dtype == ("float32" if dtype.startswith("float") else dtype)
    assert np.array_equal(pixels, array.astype(pixels.dtype))


def test_read_odd_tiffs(tmp_path):
    path = tmp_path / "a.tif"
    gray = random_array((5, 6))
    tifffile.imwrite(path, gray, photometric="miniswhite")
    assert np.array_equal(read(path)[0][..., 0], 255 - gray)
    tifffile.imwrite(path, gray // 16, photometric="palette", colormap=random_array((3, 256), np.uint16))
    assert np.array_equal(read(path)[0], random_array((3, 256), np.uint16).T[gray // 16] >> 8)
    tifffile.imwrite(path, gray > 99, photometric="minisblack")
    assert np.array_equal(read(path)[0][..., 0], (gray > 99) * 255)
    tifffile.imwrite(path, np.array([[[50, 0, 100, 100], [9, 9, 9, 0]]], np.uint8), extrasamples=[1], photometric="rgb")
    assert read(path)[0].tolist() == [[[128, 0, 255, 100], [0, 0, 0, 0]]]
    tifffile.imwrite(path, random_array((5, 6, 4)), extrasamples=[0], photometric="rgb")
    assert read(path)[0].shape == (5, 6, 3)  # some fourth channel is not an alpha channel
    tifffile.imwrite(path, random_array((5, 6), np.uint32), photometric="minisblack")
    assert np.array_equal(read(path)[0][..., 0], random_array((5, 6), np.uint32) >> 16)
    for bad, text in ((np.nan, "nan"), (255.0, "255")):
        tifffile.imwrite(path, np.full((5, 6), bad, np.float32), photometric="minisblack")
        with pytest.raises(ImageError, match=text) as info:
            read(path)
        one_line(info)
    tifffile.imwrite(path, np.zeros((5, 6), np.int16), photometric="minisblack")
    with pytest.raises(ImageError, match="int16"):
        read(path)
    tifffile.imwrite(path, np.zeros((5, 6, 4), np.uint16), photometric="separated")
    with pytest.raises(ImageError, match="SEPARATED of 16 bits"):
        read(path)


def test_tiff_directories_in_a_ring(tmp_path):
    array = random_array((5, 6, 3))
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="rgb")
    data = bytearray((tmp_path / "a.tif").read_bytes())
    first = int.from_bytes(data[4:8], "little")
    after = first + 2 + 12 * int.from_bytes(data[first : first + 2], "little")
    data[after : after + 4] = data[4:8]
    (tmp_path / "a.tif").write_bytes(data)
    assert np.array_equal(read(tmp_path / "a.tif")[0], array)


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_cmyk_becomes_srgb_and_loses_its_profile(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    Image.new("CMYK", (4, 3), (0, 255, 255, 0)).save(path, icc_profile=SRGB, dpi=(100, 100))
    pixels, metadata = read(path)
    assert metadata.icc_profile is None
    assert metadata.dpi == (100, 100)
    assert abs(pixels.astype(int) - [255, 0, 0]).max() < 4


def oriented(array, orientation):
    im = Image.fromarray(array)
    im.getexif()[0x0112] = orientation
    return im


def test_orientation(tmp_path):
    array = smooth(24, 40, 3)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        exif[0x010F] = "maker"
        path = tmp_path / "a.webp"
        Image.fromarray(array).save(path, lossless=True, exif=exif)
        expected = np.array(ImageOps.exif_transpose(Image.open(path)))
        pixels, metadata = read(path)
        assert np.array_equal(pixels, expected)
        kept = Image.Exif()
        kept.load(metadata.exif)
        assert dict(kept) == {0x010F: "maker"}
        tifffile.imwrite(tmp_path / "a.tif", array, photometric="rgb", extratags=[(274, 3, 1, orientation)],
                         resolution=(300, 150), resolutionunit=2)  # fmt: skip
        pixels, metadata = read(tmp_path / "a.tif")
        assert np.array_equal(pixels, expected)
        assert metadata.dpi == ((300, 150) if orientation < 5 else (150, 300))
        for mode in ("CMYK", "YCbCr"):  # which Pillow reads, and turns
            picture = Image.fromarray(array).convert(mode)
            for compression in ("raw", "tiff_lzw"):
                picture.save(tmp_path / "a.tif", compression=compression, dpi=(300, 150), tiffinfo={274: orientation})
                pixels, metadata = read(tmp_path / "a.tif")
                turned = np.array(picture.convert("RGB"))
                turned = np.array(ImageOps.exif_transpose(oriented(turned, orientation)))
                assert abs(pixels.astype(int) - turned).max() <= 1
                assert metadata.dpi == ((300, 150) if orientation < 5 else (150, 300))


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif", AVIF])
def test_first_of_several_frames(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    frames = [Image.new("RGB", (16, 16), color) for color in ("red", "blue", "lime")]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    with pytest.warns(UserWarning, match="2 of its 3 frames are left out") as caught:
        pixels, _ = read(path)
    assert ("liif-fast video" in str(caught[0].message)) == (suffix != "tif")
    assert abs(pixels.astype(int)[..., :3] - [255, 0, 0]).max() < 12


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp", "bmp", "gif"])
def test_too_many_pixels(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.new("RGB", (50, 40)).save(path)
    assert read(path, max_pixels=2000)[0].shape == (40, 50, 3)
    with pytest.raises(ImageError, match=r"50 x 40 is 2000 pixels.*1999.*--max-pixels") as info:
        read(path, max_pixels=1999)
    one_line(info)


def test_bombs_are_refused_before_decoding_and_large_pictures_need_no_global_switch(tmp_path):
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(png(60_000, 60_000, 8, 2, b"\0"))
    limit = Image.MAX_IMAGE_PIXELS
    with pytest.raises(ImageError, match=r"60000 x 60000 is 3600000000 pixels"):
        read(bomb)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Image.new("L", (20_000, 9_500)).save(tmp_path / "large.png", compress_level=1)  # beyond Pillow's own error
        assert read(tmp_path / "large.png", max_pixels=2**28)[0].shape == (9_500, 20_000, 1)
    assert limit == Image.MAX_IMAGE_PIXELS


def test_no_pixels(tmp_path):
    (tmp_path / "a.png").write_bytes(png(0, 5, 8, 0, b""))
    (tmp_path / "a.gif").write_bytes(b"GIF89a\0\0\0\0\0\0\0;")
    for name in ("a.png", "a.gif"):
        with pytest.raises(ImageError) as info:
            read(tmp_path / name)
        assert name in one_line(info)


def test_no_picture(tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "closed.png").write_text("hello")
    (tmp_path / "closed.png").chmod(0)
    os.mkfifo(tmp_path / "pipe.png")
    expected = {
        "empty.png": (ImageError, "is empty"), "text.png": (ImageError, "known format.*PNG"),
        "missing.png": (FileNotFoundError, "No such file"), ".": (IsADirectoryError, "directory"),
        "pipe.png": (ImageError, "not a file"), "text.png/a.png": (NotADirectoryError, "[Dd]irectory"),
    }  # fmt: skip
    if os.geteuid():
        expected["closed.png"] = (PermissionError, "Permission denied")
    for name, (error, text) in expected.items():
        with pytest.raises(error, match=text) as info:
            read(tmp_path / name)
        assert str(tmp_path) in one_line(info)


def samples():
    for suffix in ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", *(["AVIF"] if HAS_AVIF else [])):
        file = io.BytesIO()
        Image.fromarray(smooth(40, 30, 3)).save(file, suffix, **({"icc_profile": SRGB} if suffix != "BMP" else {}))
        yield suffix, file.getvalue()
    yield "PNG16", imagecodecs.png_encode(random_array((40, 30, 3), np.uint16))
    for name, options in (
        ("TIFF-tiles", {"tile": (16, 16), "compression": "lzw"}),
        ("TIFF16", {"compression": "zlib"}),
    ):
        file = io.BytesIO()
        tifffile.imwrite(file, random_array((40, 30, 3), np.uint16), photometric="rgb", **options)
        yield name, file.getvalue()


SAMPLES = dict(samples())


def array_or_one_line(path, data):
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            pixels, _ = read(path, max_pixels=100_000)
        except (ImageError, OSError) as error:
            text = str(error)
        else:
            assert pixels.ndim == 3
            assert pixels.dtype in (np.uint8, np.uint16, np.float32)
            return pixels
    assert str(path) in text
    assert "\n" not in text
    return None


@pytest.mark.parametrize("name", SAMPLES)
def test_truncated(tmp_path, name):
    data = SAMPLES[name]
    for part in (0.999, 0.9, 0.5, 0.1):
        pixels = array_or_one_line(tmp_path / "a", data[: int(len(data) * part)])
        assert pixels is None or part > 0.99 or name in ("AVIF", "GIF")


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("name", SAMPLES)
@given(data=st.data())
def test_damaged(tmp_path, name, data):
    damaged = bytearray(SAMPLES[name])
    head = st.integers(0, min(600, len(damaged) - 1))
    place = head | st.integers(0, len(damaged) - 1) | st.integers(len(damaged) * 3 // 4, len(damaged) - 1)
    for at, value in data.draw(st.lists(st.tuples(place, st.integers(0, 255)), min_size=1, max_size=5)):
        damaged[at] = value
    array_or_one_line(tmp_path / "a", bytes(damaged))
