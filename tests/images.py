"""Pictures and their files, as several tests want them."""

import struct
import zlib

import numpy as np
from PIL import ImageCms, features

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
HAS_AVIF = features.check("avif")
SHAPES = [(1, 1), (1, 9), (8, 1), (13, 7)]


def pixels(height=11, width=17, channels=3, dtype=np.uint8):
    y, x, c = np.mgrid[:height, :width, :channels]
    wave = 0.5 + 0.3 * np.sin(y / 3 + c) * np.cos(x / 4)
    return np.round(wave * np.iinfo(dtype).max).astype(dtype)


def random_array(shape, dtype=np.uint8, seed=0):
    values = np.random.default_rng(seed).random(shape)
    return values.astype(dtype) if np.dtype(dtype).kind == "f" else (values * (np.iinfo(dtype).max + 1)).astype(dtype)


def smooth(h, w, c):
    y, x, k = np.ogrid[:h, :w, :c]
    return (128 + 100 * np.sin(y / 9 + k) * np.cos(x / 11)).astype(np.uint8)


def chunk(name, data):
    """Of a PNG file."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def one_line(info):
    """The error's text, which is that."""
    text = str(info.value)
    assert text.strip()
    assert "\n" not in text
    return text
