"""What travels beside the pixels of a picture file: gathered from the file that is read, fitted to the one written."""

from __future__ import annotations

import re
import struct
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, BinaryIO

from . import exif, iptc

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

_COLOR_CHUNKS = {b"cICP": 4, b"mDCV": 24, b"cLLI": 8, b"sRGB": 1, b"gAMA": 4, b"cHRM": 32}  # of PNG; their bytes
_XMP = "XML:com.adobe.xmp"  # PNG's keyword for it
_AVIF_HEAD = 1 << 16  # bytes of one, in which its first properties are
_RAW = "Raw profile type "  # ImageMagick's keywords, for blocks written as hexadecimal text
_GAMMA, _CHROMATICITIES = 45455, (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)  # of sRGB, times 100000
_SEGMENT = 65533  # bytes that one of JPEG holds
_ROOM = {
    "JPEG": {"exif": _SEGMENT, "xmp": _SEGMENT - 29, "iptc": iptc.MOST_IN_JPEG},
    "WEBP": {"iptc": 0},
    "AVIF": {"iptc": 0},
    "BMP": {"exif": 0, "xmp": 0, "iptc": 0},
}


@dataclass
class Metadata:
    """What travels beside the pixels. ``dpi`` is (x, y); ``exif`` and ``xmp`` have no orientation, ``exif`` no sizes;
    ``iptc`` is its records.

    ``text`` goes by PNG's keywords (a JPEG's comment is ``Comment``); ``color`` holds PNG's chunks about it by name.
    """

    icc_profile: bytes | None = None
    dpi: tuple[float, float] | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None
    text: dict[str, str] = field(default_factory=dict)
    color: dict[bytes, bytes] = field(default_factory=dict)


def gather(im: ImageFile) -> tuple[Metadata, int]:
    """Exif, XMP, IPTC and texts of a picture that is loaded, and its orientation. What is damaged is left out."""
    from PIL import Image

    text = _texts(im)
    for kind, prefix in (("exif", b"Exif\0\0"), ("xmp", b"")):
        if im.info.get(kind) is None and (raw := from_raw_profile(text, kind)):
            im.info[kind] = prefix + raw.removeprefix(prefix)
    records = iptc.from_resources(from_raw_profile(text, "iptc"))
    resources = im.info.get("photoshop")
    if isinstance(resources, dict) and isinstance(found := resources.get(iptc.RESOURCE_ID), bytes):
        records = iptc.from_resources(found)
    block, xmp = im.info.get("exif"), im.info.get("xmp")
    try:
        orientation = Image.Image.getexif(im).get(0x0112, 1)  # the plugin's own may decode the whole picture once more
    except Exception:  # damaged blocks make Pillow raise about anything
        orientation, block = 1, None
    not_texts = {_XMP, _RAW + "exif", _RAW + "xmp"} | ({_RAW + "iptc"} if records else set())
    stripped = None
    with suppress(ValueError, struct.error):
        stripped = exif.strip(block) if isinstance(block, bytes) else None
    return Metadata(
        exif=stripped,
        xmp=upright_xmp(xmp) if isinstance(xmp, bytes) else None,
        iptc=records,
        text={key: value for key, value in text.items() if key not in not_texts},
    ), orientation if isinstance(orientation, int) else 1


def _texts(im: ImageFile) -> dict[str, str]:
    if im.format == "PNG":
        return dict(im.text)  # type: ignore[attr-defined]
    comment = im.info.get("comment")
    if not isinstance(comment, bytes):
        return {}
    try:
        line = comment.decode()
    except UnicodeDecodeError:
        line = comment.decode("latin-1")
    line = line.rstrip("\0")
    return {"Comment": line} if line else {}


def from_raw_profile(text: dict[str, str], kind: str) -> bytes:
    """A block that a PNG holds as text; empty where there is none or it is damaged."""
    try:
        return bytes.fromhex("".join(text.get(_RAW + kind, "").split("\n")[3:]))
    except ValueError:
        return b""


def to_raw_profile(kind: str, block: bytes) -> dict[str, str]:
    digits = block.hex()
    lines = [digits[i : i + 72] for i in range(0, len(digits), 72)]
    return {_RAW + kind: "\n".join(["", kind, f"{len(block):8}", *lines, ""])}


def upright_xmp(xmp: bytes) -> bytes | None:
    """XMP whose orientation, if it says one, is 1, without the name of a part in segments of its own, which Pillow does
    not read; None where it is about the further pictures of a JPEG."""
    if b"http://ns.google.com/photos/1.0/container/" in xmp:  # of a gain map, which is not there any more
        return None
    xmp = re.sub(rb"\s*xmpNote:HasExtendedXMP=([\"'])[0-9A-Fa-f]*\1", b"", xmp)
    return re.sub(rb'(tiff:Orientation(?:=["\']|>)\s*)[0-9]', rb"\g<1>1", xmp) or None


def png_color(chunks: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """Those of a PNG's chunks that are about colour, but for the profile."""
    return {name: data for name, data in chunks.items() if _COLOR_CHUNKS.get(name) == len(data)}


def avif_color(file: BinaryIO) -> tuple[int, dict[bytes, bytes]]:
    """The bits of a sample and, as PNG's chunk, a colour space beside sRGB, by the first properties of an AVIF."""
    file.seek(0)
    head, bits, color = file.read(_AVIF_HEAD), 8, {}
    at = head.find(b"av1C") + 6  # two flags
    if at > 6 and len(head) > at and head[at] & 0x40:
        bits = 12 if head[at] & 0x20 else 10
    at = head.find(b"colrnclx") + 8
    if at > 8 and len(head) >= at + 4:
        primaries, transfer = struct.unpack_from(">HH", head, at)
        color[b"cICP"] = bytes((primaries & 255, transfer & 255, 0, 1))
    return bits, {} if is_srgb(color) else color


def is_srgb(color: dict[bytes, bytes]) -> bool:
    """Whether PNG's chunks say what is taken for granted without them."""
    if b"cICP" in color:
        primaries, transfer = color[b"cICP"][:2]
        return primaries in (1, 2) and transfer in (1, 2, 6, 13)  # of BT.709 or not said; its curve passes for sRGB's
    if b"sRGB" in color:
        return True
    gamma = struct.unpack(">I", color.get(b"gAMA", struct.pack(">I", _GAMMA)))[0]
    points = struct.unpack(">8I", color.get(b"cHRM", struct.pack(">8I", *_CHROMATICITIES)))
    apart = (abs(point - own) for point, own in zip(points, _CHROMATICITIES, strict=True))
    return abs(gamma - _GAMMA) <= 500 and max(apart) <= 100


def fit(metadata: Metadata, name: str, gray: bool) -> tuple[Metadata, list[str]]:
    """What the format ``name`` can hold, where the picture is ``gray`` or not, and in words what it cannot."""
    kept, lost, profile = replace(metadata), [], metadata.icc_profile
    if profile and (name == "BMP" or profile[16:20] != (b"GRAY" if gray else b"RGB ")):
        kept.icc_profile = None
        if gray and (of := profile[16:20].decode("latin-1").strip()) != "GRAY":
            lost.append(f"the {of} profile of a gray picture (shades may change)")
        else:
            lost.append(f"the colour profile{' of a gray' * (profile[16:20] == b'GRAY')} (colours may change)")
    if name != "PNG":
        kept.color, kept.text = {}, {}
        if (b"cICP" in metadata.color or not profile) and not is_srgb(metadata.color):
            lost.append("the colour space (colours will change)")
    for kind, most in _ROOM.get(name, {}).items():
        block = getattr(metadata, kind)
        if block and len(block) > most:
            setattr(kept, kind, None)
            lost.append(f"{kind.upper()} of {len(block)} bytes")
    if name == "PNG" and metadata.iptc:
        kept.text = kept.text | to_raw_profile("iptc", metadata.iptc)
    if name == "JPEG" and len(comment := metadata.text.get("Comment", "").encode()) <= _SEGMENT and comment:
        kept.text = {"Comment": metadata.text["Comment"]}
    if words := sorted(metadata.text.keys() - kept.text.keys() - {"Software"}):  # which made the smaller picture
        lost.append(f"text ({', '.join(words)})")
    return kept, lost
