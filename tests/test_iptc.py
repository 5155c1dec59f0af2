"""IPTC records: into every format that holds them, unchanged, and with a line where they stay behind."""

import struct
import warnings

import numpy as np
import pytest
import tifffile
from PIL import Image, IptcImagePlugin

from liif_fast import iptc
from liif_fast.files import read
from liif_fast.metadata import to_raw_profile
from test_metadata import ARTIST, AVIF, PICTURE, chunk, png, save

IPTC = b"\x1c\x02\x78\0\x10" + ARTIST.encode() + b"\x1c\x02\x19\0\x03cat"


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp", ".bmp", AVIF])
def test_iptc(tmp_path, suffix):
    """From a JPEG and on from every format that has a place for it, as Pillow reads it; else a warning."""
    Image.fromarray(PICTURE).save(tmp_path / "a.jpg", extra=iptc.segment(IPTC))
    pixels, first = read(tmp_path / "a.jpg")
    assert first.iptc == IPTC
    path = tmp_path / f"b{suffix}"
    if suffix in (".webp", ".bmp", ".avif"):
        with pytest.warns(UserWarning, match=f"no place for IPTC of {len(IPTC)} bytes; .png has"):
            save(path, pixels, **vars(first))
        return
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save(path, pixels, **vars(first))
        _, found = read(path)
    assert (found.iptc, found.text) == (IPTC, {})
    if suffix != ".png":
        with Image.open(path) as im:
            assert IptcImagePlugin.getiptcinfo(im)[2, 120] == ARTIST.encode()


def test_iptc_of_other_programs(tmp_path):
    """Behind other resources, in PNG among them, as words in TIFF; damaged, it is left out."""
    other = b"8BIM" + struct.pack(">HB3sI", 0x03ED, 3, b"abc", 3) + b"123\0"
    resources = other + iptc.segment(IPTC)[4 + len("Photoshop 3.0\0") :]
    assert iptc.from_resources(resources) == IPTC
    words = np.frombuffer(IPTC.ljust(-len(IPTC) % 4 + len(IPTC), b"\0"), "<u4").tolist()
    tag = (33723, 4, len(words), tuple(words), True)
    tifffile.imwrite(tmp_path / "words.tif", PICTURE, photometric="rgb", byteorder="<", extratags=[tag])
    assert read(tmp_path / "words.tif")[1].iptc.rstrip(b"\0") == IPTC
    for damaged in (b"", other, b"8BIM", resources[:30], b"8BIM\x04\x04\xff", b"nothing"):
        assert iptc.from_resources(damaged) is None
    (tmp_path / "a.png").write_bytes(png(before=chunk(b"tEXt", b"Raw profile type iptc\0\niptc\n 3\n1c02x")))
    assert read(tmp_path / "a.png")[1].text == {"Raw profile type iptc": "\niptc\n 3\n1c02x"}
    (text,) = to_raw_profile("iptc", resources).values()
    (tmp_path / "b.png").write_bytes(png(before=chunk(b"tEXt", b"Raw profile type iptc\0" + text.encode())))
    found = read(tmp_path / "b.png")[1]
    assert (found.iptc, found.text) == (IPTC, {})
    save(tmp_path / "c.jpg", iptc=b"\x1c" * 65506)
    assert read(tmp_path / "c.jpg")[1].iptc == b"\x1c" * 65506
    with pytest.warns(UserWarning, match="no place for IPTC of 65507 bytes"):
        save(tmp_path / "c.jpg", iptc=b"\x1c" * 65507)
