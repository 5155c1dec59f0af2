"""The streaming PNG writer against two readers: Pillow and libpng."""

import io
import threading
import zlib

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from liif_fast import bands
from liif_fast.deflate import adler32_combine
from liif_fast.png import PngWriter


def encode(array, step=None, **options):
    file = io.BytesIO()
    with PngWriter(file, *array.shape, 8 * array.dtype.itemsize, **options) as out:
        for y in range(0, len(array), step or len(array)):
            out.write(array[y : y + (step or len(array))])
    return file.getvalue()


def smooth(h, w, c, dtype=np.uint8):
    y, x, k = np.ogrid[:h, :w, :c]
    wave = 0.5 + 0.4 * np.sin(y / 17 + k) * np.cos(x / 23 - k)
    noise = np.random.default_rng(0).normal(0, 0.005, (h, w, c))
    return (np.clip(wave + noise, 0, 1) * np.iinfo(dtype).max).astype(dtype)


@settings(deadline=None, max_examples=80)
@given(
    st.integers(1, 30), st.integers(1, 30), st.integers(1, 4), st.sampled_from([np.uint8, np.uint16]),
    st.integers(1, 31), st.sampled_from(["noise", "flat", "smooth", "steps"]), st.integers(0, 9),
)  # fmt: skip
def test_round_trip(h, w, c, dtype, step, kind, level):
    top = np.iinfo(dtype).max
    array = {
        "noise": lambda: np.random.default_rng(h).integers(0, top + 1, (h, w, c), dtype),
        "flat": lambda: np.full((h, w, c), top // 3, dtype),
        "smooth": lambda: smooth(h, w, c, dtype),
        "steps": lambda: (np.indices((h, w, c)).sum(0) // 5 % 2 * top).astype(dtype),
    }[kind]()
    data = encode(array, step, level=level)
    assert np.array_equal(imagecodecs.png_decode(data).reshape(array.shape), array)
    im = Image.open(io.BytesIO(data))
    im.load()
    assert im.size == (w, h)
    if dtype == np.uint8:
        assert np.array_equal(np.array(im).reshape(array.shape), array)


@pytest.mark.parametrize("shape", [(1, 300_000, 3), (300_000, 1, 3), (2500, 401, 3)])
@pytest.mark.parametrize("threads", [1, 3])
def test_many_bands(shape, threads, monkeypatch):
    monkeypatch.setattr(bands, "_BAND_BYTES", 1 << 17)
    array = smooth(*shape)
    data = encode(array, 1000, threads=threads)
    assert np.array_equal(imagecodecs.png_decode(data), array)
    assert data == encode(array, 77 if shape[0] > 1 else 1)  # whatever the threads and the portions


def test_size_is_that_of_pillow():
    drawing = np.zeros((400, 600, 3), np.uint8)
    drawing[::7, ::5] = 255
    for array in (smooth(700, 500, 3), smooth(700, 500, 1), drawing):
        reference = io.BytesIO()
        Image.fromarray(array.squeeze()).save(reference, "PNG")
        assert len(encode(array)) < 1.05 * len(reference.getvalue()) + 500


def test_metadata():
    data = encode(smooth(3, 4, 3), icc_profile=b"p" * 5000, dpi=(300, 72.009), exif=b"II*\0\x08\0\0\0\0\0\0\0\0\0")
    im = Image.open(io.BytesIO(data))
    assert im.info["icc_profile"] == b"p" * 5000
    assert im.info["dpi"] == pytest.approx((300, 72.009), abs=0.02)
    assert "exif" in im.info


@pytest.mark.parametrize("size", [(0, 1, 1), (1, 0, 3), (1, 1, 5), (2**31, 1, 1)])
def test_sizes_refused(size):
    with pytest.raises(ValueError, match=str(size[0])):
        PngWriter(io.BytesIO(), *size)


def test_rows_are_counted_and_checked():
    with pytest.raises(ValueError, match="4 rows for a picture of 5"), PngWriter(io.BytesIO(), 5, 4, 3) as out:
        out.write(np.zeros((4, 4, 3), np.uint8))
    with PngWriter(io.BytesIO(), 5, 4, 3) as out:
        out.write(np.zeros((5, 4, 3), np.uint8))
        with pytest.raises(ValueError, match="6 rows"):
            out.write(np.zeros((1, 4, 3), np.uint8))
    with pytest.raises(ValueError, match="uint16"), PngWriter(io.BytesIO(), 5, 4, 3) as out:
        out.write(np.zeros((5, 4, 3), np.uint16))
    with pytest.raises(ValueError, match="bit_depth 4"):
        PngWriter(io.BytesIO(), 5, 4, 3, 4)


def test_rows_are_copied():
    rows, file = np.zeros((1, 4, 1), np.uint8), io.BytesIO()
    with PngWriter(file, 3, 4, 1) as out:
        for y in range(3):
            rows[:] = y
            out.write(rows)
    assert imagecodecs.png_decode(file.getvalue())[:, 0].tolist() == [0, 1, 2]


def test_errors_of_the_file_come_through_and_end_the_threads():
    class Full(io.BytesIO):
        def write(self, data):
            if len(data) > 1000:
                raise OSError(28, "No space left on device")
            return super().write(data)

    noise = np.random.default_rng(0).integers(0, 256, (2000, 1000, 3), np.uint8)
    with pytest.raises(OSError, match="No space"), PngWriter(Full(), *noise.shape) as out:
        out.write(noise)
    assert not [t for t in threading.enumerate() if t.name.startswith("liif_fast-rows")]


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_adler32_combine(x, y):
    assert adler32_combine(zlib.adler32(x), zlib.adler32(y), len(y)) == zlib.adler32(x + y)
