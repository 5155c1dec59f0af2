"""What travels beside the pixels: into every format that holds it, unchanged, and with a line where it stays behind."""

import io
import struct
import warnings
import zlib

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, features

from images import chunk
from liif_fast import exif, metadata
from liif_fast.files import flatten, parse_color, read
from liif_fast.metadata import Metadata
from liif_fast.output import writer
from liif_fast.png import PngWriter
from liif_fast.tiff import TiffWriter

HAS_AVIF = features.check("avif")
AVIF = pytest.param(".avif", marks=pytest.mark.skipif(not HAS_AVIF, reason="a Pillow without AVIF"))
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
ARTIST = "José Müller ©"
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6" dc:title="T\xc3\xafger"/></x:xmpmeta>'
UPRIGHT = XMP.replace(b'"6"', b'"1"')
PICTURE = np.full((6, 4, 3), 90, np.uint8)


def block(order, orientation=6, thumbnail=b"", notes=b"\x01\x02notes\x03"):
    """EXIF as cameras write it: text of UTF-8, sizes, notes, a place on the globe, a thumbnail at the end."""

    def directory(at, entries, following=0):
        fields, data = b"", b""
        end = at + 2 + 12 * len(entries) + 4
        for tag, kind, count, value in entries:
            if len(value) > 4:
                data, value = data + value, struct.pack(order + "I", end + len(data))
            fields += struct.pack(order + "HHI", tag, kind, count) + value.ljust(4, b"\0")
        return struct.pack(order + "H", len(entries)) + fields + struct.pack(order + "I", following) + data

    def short(value):
        return struct.pack(order + "H", value)

    def long(value):
        return struct.pack(order + "I", value)

    artist = ARTIST.encode() + b"\0"
    inner = [(0x829A, 5, 1, struct.pack(order + "2I", 1, 250)), (0x927C, 7, len(notes), notes),
             (0xA002, 4, 1, long(4)), (0xA003, 4, 1, long(6))]  # fmt: skip
    inside = directory(200, inner)
    globe = directory(400, [(1, 2, 2, b"N\0"), (2, 5, 3, struct.pack(order + "6I", 48, 1, 8, 1, 31, 2))])
    first = [(0x0100, 4, 1, long(4)), (0x0112, 3, 1, short(orientation)), (0x013B, 2, len(artist), artist),
             (0x8769, 4, 1, long(200)), (0x8825, 4, 1, long(400))]  # fmt: skip
    second = directory(500, [(0x0201, 4, 1, long(600)), (0x0202, 4, 1, long(len(thumbnail)))])
    data = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8)
    data += directory(8, first, 500 if thumbnail else 0)
    data = data.ljust(200, b"\0") + inside
    data = data.ljust(400, b"\0") + globe
    data = data.ljust(500, b"\0") + second
    return b"Exif\0\0" + data.ljust(600, b"\0") + thumbnail


def facts(data):
    """What Pillow reads from a block: texts as they are, the inner directories."""
    found = Image.Exif()
    found.load(data)
    return dict(found), dict(found.get_ifd(0x8769)), dict(found.get_ifd(0x8825)), dict(found.get_ifd(1))


def kept(data, notes=b"\x01\x02notes\x03"):
    first, inner, globe, thumbnail = facts(data)
    assert first.pop(0x013B).encode("latin-1").decode() == ARTIST
    assert first.keys() == {0x8769, 0x8825}
    assert inner == {0x829A: 1 / 250, 0x927C: notes}
    assert globe == {1: "N", 2: (48, 8, 15.5)}
    assert not thumbnail


def save(path, pixels=PICTURE, **fields):
    with writer(path, pixels.shape, pixels.dtype, Metadata(**fields), force=True) as out:
        out.write(pixels)


def png(pixels=PICTURE, before=b"", after=b""):
    file = io.BytesIO()
    with PngWriter(file, *pixels.shape, 8 * pixels.dtype.itemsize) as out:
        out.write(pixels)
    data = file.getvalue()
    start, end = data.index(b"IDAT") - 4, data.index(b"IEND") - 4
    return data[:start] + before + data[start:end] + after + data[end:]


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_block_keeps_every_byte_that_is_still_true(order):
    given = block(order, thumbnail=b"jpeg" * 90)
    found = exif.strip(given)
    kept(found)
    assert b"jpeg" not in found
    assert found.index(b"notes") == given.index(b"notes")
    behind = exif.strip(given + b"behind")
    assert b"jpeg" not in behind
    assert behind.endswith(b"behind")
    nothing = struct.pack(order + "HHHIHHI", 1, 0x0112, 3, 1, 6, 0, 0)
    assert exif.strip(given[:10] + struct.pack(order + "I", 8) + nothing) is None


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", AVIF])
@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_and_xmp_through_every_format(tmp_path, suffix, order):
    Image.fromarray(PICTURE).save(tmp_path / "a.jpg", exif=block(order, thumbnail=b"jpeg" * 90), xmp=XMP)
    pixels, read_first = read(tmp_path / "a.jpg")
    assert pixels.shape == (4, 6, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save(tmp_path / f"b{suffix}", pixels, **vars(read_first))
        pixels, found = read(tmp_path / f"b{suffix}")
    assert pixels.shape == (4, 6, 3)
    kept(found.exif)
    assert found.xmp == UPRIGHT
    with Image.open(tmp_path / f"b{suffix}") as im:
        assert im.getexif().get(0x0112, 1) == 1


def test_extended_xmp_is_heard_of(tmp_path):
    named = XMP.replace(b"dc:title", b'xmpNote:HasExtendedXMP="5F3A" dc:title')
    Image.fromarray(PICTURE).save(tmp_path / "a.jpg", xmp=named)
    with pytest.warns(UserWarning, match="the part of its XMP that is in further segments is left out"):
        assert read(tmp_path / "a.jpg")[1].xmp == UPRIGHT


def test_orientation_of_a_damaged_block(tmp_path):
    damaged = bytearray(block("<"))
    damaged[14] = 250  # entries in the directory
    del damaged[150:]
    Image.fromarray(PICTURE).save(tmp_path / "a.jpg", exif=bytes(damaged))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pixels, found = read(tmp_path / "a.jpg")
    assert pixels.shape == (4, 6, 3)
    assert found.exif is None


@pytest.mark.parametrize("at", [200, 400])
def test_a_directory_out_of_reach_takes_nothing_else_along(tmp_path, at):
    damaged = block("<").replace(struct.pack("<HHII", 0x8769 if at == 200 else 0x8825, 4, 1, at),
                                 struct.pack("<HHII", 0x8769 if at == 200 else 0x8825, 4, 1, 2**31))  # fmt: skip
    save(tmp_path / "a.tif", exif=exif.strip(damaged))
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        assert tif.pages[0].tags.valueof(0x013B) == ARTIST
        assert (0x8769 in tif.pages[0].tags, 0x8825 in tif.pages[0].tags) == (at == 400, at == 200)


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_damaged_blocks(data):
    """They are refused by an error that readers expect, or what is left of them can be written and read."""
    damaged = bytearray(block(data.draw(st.sampled_from("<>")), thumbnail=b"jpeg"))
    places = st.integers(6, 130) | st.integers(200, 260) | st.integers(400, 540)
    for at, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=6)):
        damaged[at] = value
    length = data.draw(st.just(len(damaged)) | st.integers(0, len(damaged)))
    try:
        found = exif.strip(bytes(damaged[:length]))
    except (ValueError, struct.error):
        return
    assert found is None or len(found) <= len(damaged) + 4
    for_tiff = exif.for_tiff(found) if found else {}
    file = io.BytesIO()
    with TiffWriter(file, *PICTURE.shape, PICTURE.dtype, texts=for_tiff) as out:
        out.write(PICTURE)
    with tifffile.TiffFile(io.BytesIO(file.getvalue())) as tif:
        assert np.array_equal(tif.pages[0].asarray(), PICTURE)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_what_a_png_says_behind_its_pixels(tmp_path, dtype):
    after = chunk(b"eXIf", block(">")[6:]) + chunk(b"iTXt", b"XML:com.adobe.xmp" + bytes(5) + XMP)
    after += chunk(b"tEXt", b"parameters\0a cat")
    (tmp_path / "a.png").write_bytes(png(PICTURE.astype(dtype), after=after))
    pixels, found = read(tmp_path / "a.png")
    assert pixels.shape == (4, 6, 3)
    kept(found.exif)
    assert (found.xmp, found.text) == (UPRIGHT, {"parameters": "a cat"})


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_blocks_that_imagemagick_writes_as_text(tmp_path, dtype):
    before = b""
    for kind, data in (("exif", block("<")), ("xmp", XMP)):
        lines = f"\n{kind}\n{len(data):8}\n" + data.hex() + "\n"
        before += chunk(b"zTXt", f"Raw profile type {kind}".encode() + b"\0\0" + zlib.compress(lines.encode()))
    (tmp_path / "a.png").write_bytes(png(PICTURE.astype(dtype), before))
    pixels, found = read(tmp_path / "a.png")
    assert pixels.shape == (4, 6, 3)
    kept(found.exif)
    assert (found.xmp, found.text) == (UPRIGHT, {})


def test_texts(tmp_path):
    texts = {"parameters": "a cat, 8k\nSteps: 20", "Title": "猫", "Comment": "hello", "Software": "diffusion"}
    save(tmp_path / "a.png", text=texts)
    assert read(tmp_path / "a.png")[1].text == texts
    with Image.open(tmp_path / "a.png") as im:
        assert im.text == texts
    with pytest.warns(UserWarning, match=r"a\.jpg: JPEG has no place for text \(Title, parameters\); \.png has$"):
        save(tmp_path / "a.jpg", text=texts)
    assert read(tmp_path / "a.jpg")[1].text == {"Comment": "hello"}
    with pytest.warns(UserWarning, match=r"text \(Comment\)"):
        save(tmp_path / "b.jpg", text={"Comment": "long" * 20_000})
    assert not read(tmp_path / "b.jpg")[1].text
    for comment, expected in ((b"caf\xe9\0", "café"), ("café".encode(), "café"), (b"\0", None)):
        Image.fromarray(PICTURE).save(tmp_path / "c.jpg", comment=comment)
        assert read(tmp_path / "c.jpg")[1].text.get("Comment") == expected
    Image.fromarray(PICTURE).save(tmp_path / "a.gif", comment=b"hello")
    assert read(tmp_path / "a.gif")[1].text == {"Comment": "hello"}


def test_xmp_that_a_picture_cannot_take_along(tmp_path):
    with pytest.warns(UserWarning, match="JPEG has no place for XMP of 70000 bytes"):
        save(tmp_path / "a.jpg", xmp=b"x" * 70_000)
    assert read(tmp_path / "a.jpg")[1].xmp is None
    for element in (b"tiff:Orientation='8'", b"<tiff:Orientation>\n8</tiff:Orientation>"):
        assert metadata.upright_xmp(element) == element.replace(b"8", b"1")
    assert metadata.upright_xmp(b'xmlns:Container="http://ns.google.com/photos/1.0/container/"') is None


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
def test_texts_of_a_tiff(tmp_path, order, big):
    tags = [(0x010E, 2, 0, b"K\xc3\xa4tzchen"), (0x8298, 2, 0, "mine"), (700, 7, len(XMP), XMP), (0x0112, 3, 1, 6)]
    with tifffile.TiffWriter(tmp_path / "a.tif", byteorder=order, bigtiff=big) as tif:
        tif.write(PICTURE, photometric="rgb", extratags=tags, software="", metadata=None)
    pixels, found = read(tmp_path / "a.tif")
    save(tmp_path / "b.tif", pixels, **vars(found))
    for _, found in (read(tmp_path / "a.tif"), read(tmp_path / "b.tif")):
        texts = facts(found.exif)[0]
        assert (texts[0x010E].encode("latin-1").decode(), texts[0x8298]) == ("Kätzchen", "mine")
        assert found.xmp == UPRIGHT
        assert 0x0112 not in texts
    Image.fromarray(PICTURE).convert("CMYK").save(tmp_path / "c.tif", tiffinfo={0x8298: "mine", 0x0112: 6})
    assert facts(read(tmp_path / "c.tif")[1].exif)[0] == {0x8298: "mine"}  # which Pillow reads


def test_the_shape_that_tifffile_describes_is_no_description(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", PICTURE, photometric="rgb", metadata={"axes": "YXS"}, software="")
    assert read(tmp_path / "a.tif")[1].exif is None


@pytest.mark.parametrize("big", [False, True])
def test_exif_in_a_large_tiff(big):
    file = io.BytesIO()
    texts = exif.for_tiff(exif.strip(block(">")))
    with TiffWriter(file, *PICTURE.shape, PICTURE.dtype, texts=texts, xmp=XMP, big=big) as out:
        out.write(PICTURE)
    with tifffile.TiffFile(io.BytesIO(file.getvalue())) as tif:
        page = tif.pages[0]
        assert np.array_equal(page.asarray(), PICTURE)
        assert page.tags.valueof(0x013B) == ARTIST
        assert page.tags.valueof(0x8769) == {"ExposureTime": (1, 250), "MakerNote": b"\x01\x02notes\x03"}
        assert page.tags.valueof(0x8825)["GPSLatitude"] == (48, 1, 8, 1, 31, 2)
        assert page.tags.valueof(700) == XMP


LINEAR = {b"gAMA": struct.pack(">I", 100_000)}
WIDE = {b"cICP": bytes((12, 13, 0, 1)), b"mDCV": bytes(24), b"cLLI": bytes(8)}
PRIMARIES = {b"cHRM": struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)}
PLAIN = (
    {}, {b"sRGB": b"\0", b"gAMA": struct.pack(">I", 45455)}, {b"gAMA": struct.pack(">I", 45454)},
    {b"cICP": bytes((1, 13, 0, 1))},
    {b"cHRM": struct.pack(">8I", 31269, 32899, 63999, 33001, 30000, 60000, 15000, 5999)},
)  # fmt: skip


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("color", [LINEAR, WIDE, PRIMARIES, *PLAIN])
def test_colours_of_a_png(tmp_path, color, dtype, recwarn):
    before = b"".join(chunk(name, data) for name, data in color.items())
    (tmp_path / "a.png").write_bytes(png(PICTURE.astype(dtype), before))
    pixels, found = read(tmp_path / "a.png")
    save(tmp_path / "b.png", pixels, **vars(found))
    assert read(tmp_path / "b.png")[1].color == found.color == color
    assert before in (tmp_path / "b.png").read_bytes()
    save(tmp_path / "b.tif", pixels, **vars(found))
    said = [str(warning.message) for warning in recwarn]
    assert len(said) == (color not in PLAIN)
    assert not said or "b.tif: TIFF has no place for the colour space" in said[0]


def test_a_profile_comes_before_other_words_on_colour(tmp_path, recwarn):
    save(tmp_path / "a.png", icc_profile=SRGB, color={b"sRGB": b"\0", **LINEAR})
    save(tmp_path / "a.jpg", icc_profile=SRGB, color=LINEAR)
    found = read(tmp_path / "a.png")[1]
    assert (found.icc_profile, found.color) == (SRGB, LINEAR)
    assert read(tmp_path / "a.jpg")[1].icc_profile == SRGB
    assert not recwarn.list


def test_damaged_colours_are_left_out(tmp_path):
    (tmp_path / "a.png").write_bytes(png(before=chunk(b"cICP", b"\x0c")))
    assert read(tmp_path / "a.png")[1].color == {}


@pytest.mark.skipif(not HAS_AVIF, reason="a Pillow without AVIF")
@pytest.mark.parametrize(("bits", "primaries", "expected"), [(8, 1, {}), (10, 9, {b"cICP": bytes((9, 16, 0, 1))})])
def test_colours_of_an_avif(tmp_path, bits, primaries, expected):
    dtype, transfer = ("uint8", 13) if bits == 8 else ("uint16", 16)
    options = {"bitspersample": bits, "primaries": primaries, "transfer": transfer, "matrix": 1}
    (tmp_path / "a.avif").write_bytes(imagecodecs.avif_encode(np.zeros((8, 8, 3), dtype), **options))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = read(tmp_path / "a.avif")[1]
    assert found.color == expected
    assert [str(one.message).split(": ")[1] for one in said] == (["its 10 bits are read as 8"] if bits > 8 else [])


def test_profiles_that_a_format_has_no_place_for(tmp_path):
    gray = SRGB[:16] + b"GRAY" + SRGB[20:]
    with pytest.warns(UserWarning, match=r"a\.webp: WEBP has no place for the colour profile"):
        save(tmp_path / "a.webp", PICTURE[..., :1], icc_profile=gray)
    with pytest.warns(UserWarning, match=r"a\.bmp: BMP has no place for the colour profile.*, EXIF of \d+ bytes, XMP"):
        save(tmp_path / "a.bmp", icc_profile=SRGB, exif=block("<"), xmp=XMP)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [2, 4])
def test_flatten(dtype, channels):
    top = 1 if dtype == np.float32 else np.iinfo(dtype).max
    pixels = np.full((300, 3, channels), top / 5, dtype)
    pixels[..., -1] = top
    opaque = pixels[..., :-1]
    assert flatten(pixels, "a.png") is pixels
    assert flatten(opaque, "a.jpg") is opaque
    assert np.array_equal(flatten(pixels, "a.JPG"), opaque)
    pixels[299, 2, -1] = 0
    assert flatten(pixels, "a.jpg") is pixels
    white = flatten(pixels, "a.png", (255, 255, 255))
    assert white.dtype == dtype
    assert white.shape == opaque.shape
    assert (white[299, 2] == top).all()
    assert np.array_equal(white[:299], opaque[:299])
    pixels[0, 0, -1] = top / 2 if dtype == np.float32 else top // 2
    red = flatten(pixels, "a.png", (255, 0, 0))
    assert red.shape == (300, 3, 3)
    assert red[0, 0] / top == pytest.approx([0.6, 0.1, 0.1], abs=0.004)


def test_colours_as_typed():
    assert parse_color("white", "--background") == (255, 255, 255)
    assert parse_color("#20252bff", "--background") == (32, 37, 43)
    with pytest.raises(
        ValueError, match="--background must be an opaque colour such as white or '#20252b', got 'wihte'"
    ):
        parse_color("wihte", "--background")


def entry(tag, kind, number, value):
    return struct.pack("<HHI", tag, kind, number) + value.ljust(4, b"\0")


def test_a_directory_without_a_pointer_to_the_next():
    """What lies where the pointer would be is a value."""
    inner, when = 8 + 2 + 12 * 2 + 4, b"2024:01:02 03:04:05\0"
    value = inner + 2 + 12 * 2
    block = b"II*\0" + struct.pack("<I", 8)
    block += (
        struct.pack("<H", 2) + entry(0x0112, 3, 1, b"\6\0") + entry(0x8769, 4, 1, struct.pack("<I", inner)) + bytes(4)
    )
    block += struct.pack("<H", 2) + entry(0x9003, 2, 20, struct.pack("<I", value)) + entry(0xA002, 4, 1, b"\x40") + when
    stripped = exif.strip(block)
    assert stripped is not None
    found = Image.Exif()
    found.load(stripped)
    assert found.get_ifd(0x8769) == {0x9003: "2024:01:02 03:04:05"}
    assert 0x0112 not in found


@pytest.mark.parametrize("orientation", [True, False])
def test_a_tag_twice(orientation):
    """The thumbnail's directory is cut off at the right place."""
    entries = [entry(0x010E, 2, 2, b"a"), entry(0x010E, 2, 2, b"b"), entry(0x0131, 2, 3, b"me")]
    entries += [entry(0x0112, 3, 1, b"\6\0")] if orientation else []
    following = 8 + 2 + 12 * len(entries) + 4
    block = b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(entries) + struct.pack("<I", following)
    block += struct.pack("<H", 1) + entry(0x0103, 3, 1, b"\6\0") + bytes(4)
    stripped = (exif.strip(block) or b"").removeprefix(b"Exif\0\0")
    kept = b"".join(entries[:3])
    assert stripped[:46] == b"II*\0" + struct.pack("<IH", 8, 3) + kept
    assert stripped[46:50] == bytes(4)


@pytest.mark.parametrize("text", ["rgb(300,0,0)", "#ff000000", "#ff000080", "no colour"])
def test_backgrounds_refused(text):
    with pytest.raises(ValueError, match="--background must be an opaque colour"):
        parse_color(text, "--background")


def test_a_profile_of_another_kind_in_png(tmp_path):
    with pytest.warns(UserWarning, match=r"a\.png: PNG has no place for the colour profile of a gray \(.*\)$"):
        save(tmp_path / "a.png", icc_profile=SRGB[:16] + b"GRAY" + SRGB[20:])


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_profile_of_colours_in_a_gray(tmp_path, suffix):
    Image.fromarray(PICTURE[..., 0]).save(tmp_path / f"a{suffix}", icc_profile=SRGB)
    pixels, found = read(tmp_path / f"a{suffix}")
    assert pixels.shape[2] == 1
    with pytest.warns(UserWarning, match=r"no place for the RGB profile of a gray picture \(shades may change\)$"):
        save(tmp_path / f"b{suffix}", pixels, **vars(found))
    assert read(tmp_path / f"b{suffix}")[1].icc_profile is None


def test_a_gain_map_is_left_out_with_a_word(tmp_path):
    about = b'<x xmlns:Container="http://ns.google.com/photos/1.0/container/"/>'
    Image.fromarray(PICTURE).save(tmp_path / "a.jpg", xmp=about)
    with pytest.warns(UserWarning, match=r"a\.jpg: its gain map, and the XMP that is about it, are left out"):
        assert read(tmp_path / "a.jpg")[1].xmp is None
