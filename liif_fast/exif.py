"""EXIF blocks, which are small TIFFs: what of one stays true of another size, and the way into a TIFF and out of it."""

from __future__ import annotations

import io
import struct
from contextlib import suppress
from typing import BinaryIO, NamedTuple

import numpy as np

_PREFIX = b"Exif\0\0"
_ORIENTATION = 0x0112
_UNTRUE = (_ORIENTATION, 0x0100, 0x0101)  # with width and height, which some cameras write there
_UNTRUE_INSIDE = (0xA002, 0xA003)  # width and height again
_EXIF, _GPS, _INTEROP = 0x8769, 0x8825, 0xA005  # tags that hold the place of another directory
_THUMBNAIL = (0x0201, 0x0202)  # its place and length
# What a TIFF says of its picture beside how it is stored: description, maker, model, program, time, artist, copyright,
# Windows' title, comment, author, keywords and subject.
_TEXTS = (0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298, 0x9C9B, 0x9C9C, 0x9C9D, 0x9C9E, 0x9C9F)
_SIZE = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8, 129: 1}
_WORD = {**_SIZE, 5: 4, 10: 4}  # rationals are two words
_MOST = 1 << 24  # bytes of one value


class Value(NamedTuple):
    type: int
    number: int
    data: bytes  # little-endian


Directory = dict[int, "Value | Directory"]


def strip(block: bytes) -> bytes | None:
    """The block without orientation, sizes and thumbnail, beginning with ``Exif``; None where nothing is left.

    All else keeps its bytes and, as the notes of camera makers need it, its place. struct.error or ValueError for a
    damaged block.
    """
    while block.startswith(_PREFIX):
        block = block[len(_PREFIX) :]
    data, order = bytearray(block), _order(block)
    first = struct.unpack_from(order + "I", data, 4)[0]
    places, end, following = _remove(data, order, first, _UNTRUE)
    with suppress(struct.error):  # a directory out of reach
        _remove(data, order, places.get(_EXIF, len(data)), _UNTRUE_INSIDE)
    if following:
        struct.pack_into(order + "I", data, end, 0)
        with suppress(struct.error):
            _blank_thumbnail(data, order, following)
    return _PREFIX + bytes(data) if places else None


def _order(block: bytes) -> str:
    if block[:4] not in (b"II\x2a\0", b"MM\0\x2a"):
        raise ValueError(f"an EXIF block that begins with {block[:4]!r}")
    return "<" if block[:1] == b"I" else ">"


def _remove(data: bytearray, order: str, at: int, tags: tuple[int, ...]) -> tuple[dict[int, int], int, int]:
    """Takes tags out of the directory at ``at``: what the others hold as a 32-bit value, where it ends now, and the
    place of the next directory, whose pointer, where anything was taken out, is zero now."""
    count = struct.unpack_from(order + "H", data, at)[0]
    entries = [struct.unpack_from(order + "HHI4s", data, at + 2 + 12 * i) for i in range(count)]
    end = at + 2 + 12 * count
    following = struct.unpack(order + "I", bytes(data[end : end + 4]).ljust(4, b"\0"))[0]
    kept = [entry for entry in entries if entry[0] not in tags]
    if len(kept) < count:  # what is behind stays as it is: some directories end before their pointer
        shorter = struct.pack(order + "H", len(kept)) + b"".join(struct.pack(order + "HHI4s", *entry) for entry in kept)
        data[at:end] = shorter.ljust(end - at, b"\0")
    places = {entry[0]: struct.unpack(order + "I", entry[3])[0] for entry in kept}
    return places, at + 2 + 12 * len(kept), following


def _blank_thumbnail(data: bytearray, order: str, at: int) -> None:
    found, _, _ = _remove(data, order, at, ())
    start, length = (found.get(tag, 0) for tag in _THUMBNAIL)
    if 0 < start < len(data):
        data[start : start + length] = bytes(length) if start + length < len(data) else b""


def for_tiff(block: bytes) -> Directory:
    """What a TIFF can take over of a block: texts, and the directories of EXIF and GPS.

    struct.error or ValueError for a damaged block.
    """
    block = block.removeprefix(_PREFIX)
    order = _order(block)
    return _directory(io.BytesIO(block), struct.unpack_from(order + "I", block, 4)[0], order)


def from_tiff(file: BinaryIO, at: int, order: str, big: bool, without: tuple[int, ...] = ()) -> bytes | None:
    """A block of what the TIFF directory at ``at`` says of its picture; None where it says nothing."""
    found = _directory(file, at, order, big)
    found = {tag: value for tag, value in found.items() if tag not in without}
    if not found:
        return None
    block = io.BytesIO(b"II\x2a\0" + bytes(4))
    block.seek(0, 2)
    place = write_directory(block, found)
    block.seek(4)
    block.write(struct.pack("<I", place))
    return strip(block.getvalue())


def _directory(file: BinaryIO, at: int, order: str, big: bool = False) -> Directory:
    """The texts of the directory at ``at`` and, whole, its directories of EXIF and GPS. Damaged values are left out."""
    found: Directory = {}
    for tag, value in _values(file, at, order, big, (*_TEXTS, _EXIF, _GPS)).items():
        if tag in _TEXTS:
            found[tag] = value
            continue
        inner: Directory = dict(_values(file, int.from_bytes(value.data, "little"), order, big))
        interop = inner.pop(_INTEROP, None)
        if isinstance(interop, Value):
            inner[_INTEROP] = dict(_values(file, int.from_bytes(interop.data, "little"), order, big))
        if inner:
            found[tag] = inner
    return found


def _values(file: BinaryIO, at: int, order: str, big: bool, tags: tuple[int, ...] | None = None) -> dict[int, Value]:
    count_form, entry_form, place_form = ("=Q", "=HHQ8s", "Q") if big else ("=H", "=HHI4s", "I")
    head = _read(file, at, struct.calcsize(count_form))
    size = struct.calcsize(entry_form)
    entries = _read(file, at + len(head), int.from_bytes(head, "little" if order == "<" else "big") * size)
    found = {}
    for tag, kind, number, data in struct.iter_unpack(order + entry_form[1:], entries):
        size = _SIZE.get(kind, 0) * number
        if not 0 < size <= _MOST or (tags is not None and tag not in tags):
            continue
        if size > len(data):
            data = _read(file, struct.unpack(order + place_form, data)[0], size)
        if data:
            words = np.frombuffer(data[:size], f"{order}u{_WORD[kind]}")
            found[tag] = Value(kind, number, words.astype(f"<u{_WORD[kind]}").tobytes())
    return found


def _read(file: BinaryIO, at: int, size: int) -> bytes:
    """Nothing where the file ends before."""
    if at + size > file.seek(0, 2):
        return b""
    file.seek(at)
    return file.read(size)


def write_directory(file: BinaryIO, directory: Directory, big: bool = False) -> int:
    """Writes a little-endian directory with all that it holds to the end of ``file``, from an even place; its place."""
    word, count_form = ("Q", "<Q") if big else ("I", "<H")
    inline = struct.calcsize(word)
    entries = []
    for tag, value in sorted(directory.items()):
        if isinstance(value, dict):
            place = write_directory(file, value, big)
            value = Value(16 if big else 4, 1, struct.pack("<" + word, place))
        data = value.data
        if len(data) > inline:
            place = file.tell()
            file.write(data + bytes(len(data) % 2))
            data = struct.pack("<" + word, place)
        entries.append(struct.pack(f"<HH{word}", tag, value.type, value.number) + data.ljust(inline, b"\0"))
    place = file.tell()
    file.write(struct.pack(count_form, len(entries)) + b"".join(entries) + bytes(inline))
    return place
