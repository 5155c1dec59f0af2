"""IPTC records (who took a picture, where, its caption), as JPEG, PNG and TIFF hold them."""

from __future__ import annotations

import struct

MOST_IN_JPEG = 65533 - 27  # bytes in one segment, with what `segment` puts around them

_BEGIN = b"\x1c"  # of every record
_RESOURCE = b"8BIM"  # Photoshop's, in which JPEG holds them
RESOURCE_ID = 0x0404


def from_resources(data: bytes) -> bytes | None:
    """The records of a block that is theirs alone or one of Photoshop's resources; None where it has none."""
    if data.startswith(_BEGIN):
        return data
    at = data.find(_RESOURCE)
    while data[at : at + 4] == _RESOURCE and at + 7 <= len(data):
        start = at + 6 + (data[at + 6] // 2 + 1) * 2  # behind the name, which with its length is even
        if start + 4 > len(data):
            break
        size = struct.unpack_from(">I", data, start)[0]
        if data[at + 4 : at + 6] == struct.pack(">H", RESOURCE_ID):
            return data[start + 4 : start + 4 + size] or None
        at = start + 4 + size + size % 2
    return None


def segment(records: bytes) -> bytes:
    """JPEG's APP13."""
    resource = _RESOURCE + struct.pack(">HHI", RESOURCE_ID, 0, len(records)) + records + bytes(len(records) % 2)
    content = b"Photoshop 3.0\0" + resource
    return b"\xff\xed" + struct.pack(">H", 2 + len(content)) + content
