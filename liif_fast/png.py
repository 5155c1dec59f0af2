"""A PNG writer for pictures larger than memory: rows in, top to bottom."""

from __future__ import annotations

import struct
import zlib
from typing import BinaryIO, NamedTuple

import numpy as np

from .bands import BandWriter
from .deflate import adler32_combine, deflate, strategy

_COLOR_TYPE = {1: 0, 2: 4, 3: 2, 4: 6}
_NONE, _SUB, _UP, _PAETH = 0, 1, 2, 4
_FILTER_BYTES = 1 << 18  # rows are filtered in blocks that stay in the cache


def chunks(file: BinaryIO) -> dict[bytes, bytes]:
    """The chunks of a PNG before those of its pixels, by name."""
    file.seek(8)
    found: dict[bytes, bytes] = {}
    while len(header := file.read(8)) == 8 and header[4:] != b"IDAT":
        found[header[4:]] = file.read(int.from_bytes(header[:4], "big"))
        file.seek(4, 1)
    return found


class _Band(NamedTuple):
    deflated: bytes
    adler: int
    length: int


class PngWriter(BandWriter[_Band]):
    """Writes one PNG to ``file`` (only appended to, never sought): gray, gray + alpha, RGB or RGBA.

    ``bit_depth`` 8 takes uint8 rows, 16 uint16; ``dpi`` is (x, y); ``exif`` a TIFF-like block without the JPEG
    prefix, ``xmp`` a packet, ``text`` by keyword, ``color`` chunks by name; ``level`` 0..9 is zlib's. ``write(rows)``
    takes ``[h, width, channels]``, ``close()`` completes the file. ValueError for a size or depth PNG has not, and for
    too many or too few rows.
    """

    def __init__(
        self,
        file: BinaryIO,
        height: int,
        width: int,
        channels: int,
        bit_depth: int = 8,
        *,
        icc_profile: bytes | None = None,
        dpi: tuple[float, float] | None = None,
        exif: bytes | None = None,
        xmp: bytes | None = None,
        text: dict[str, str] | None = None,
        color: dict[bytes, bytes] | None = None,
        level: int = 6,
        threads: int | None = None,
    ) -> None:
        if bit_depth not in (8, 16):
            raise ValueError(f"bit_depth {bit_depth}, not 8 or 16")
        if max(height, width) > 2**31 - 1:
            raise ValueError(f"{height} x {width} is beyond PNG's 2147483647 a side")
        super().__init__(file, height, width, channels, np.dtype(f"u{bit_depth // 8}"), threads)
        self._level = level
        self._adler = 1
        file.write(b"\x89PNG\r\n\x1a\n")
        self._chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bit_depth, _COLOR_TYPE[channels], 0, 0, 0))
        for name, data in (color or {}).items():
            if not (icc_profile and name == b"sRGB"):  # one of the two
                self._chunk(name, data)
        if icc_profile:
            self._chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(icc_profile))
        if dpi:
            x, y = (min(2**31 - 1, round(d / 0.0254)) for d in dpi)
            self._chunk(b"pHYs", struct.pack(">IIB", x, y, 1))
        if exif:
            self._chunk(b"eXIf", exif)
        if xmp:
            self._chunk(b"iTXt", b"XML:com.adobe.xmp" + bytes(5) + xmp)
        for name, data in _text_chunks(text or {}):
            self._chunk(name, data)
        self._idat = bytearray(b"\x78\x9c")  # the header of the zlib stream that all IDAT chunks together are

    def _chunk(self, name: bytes, data: bytes | bytearray) -> None:
        self._file.write(struct.pack(">I", len(data)) + name)
        self._file.write(data)
        self._file.write(struct.pack(">I", zlib.crc32(data, zlib.crc32(name))))

    def _encode(self, band: np.ndarray, above: np.ndarray, last: bool) -> _Band:
        rows, step = _as_bytes(np.concatenate((above, band)))
        filtered = np.empty((len(band), 1 + rows.shape[1]), np.uint8)
        block = max(1, _FILTER_BYTES // rows.shape[1])
        for start in range(0, len(band), block):
            _filter(rows[start : start + block + 1], step, filtered[start : start + block])
        data = filtered.data.cast("B")
        deflated = deflate(data, self._level, strategy(data, self._level), -15, last)
        return _Band(deflated, zlib.adler32(data), len(data))

    def _store(self, encoded: _Band) -> None:
        self._idat += encoded.deflated
        self._adler = adler32_combine(self._adler, encoded.adler, encoded.length)
        if len(self._idat) >= 1 << 20:
            self._chunk(b"IDAT", self._idat)
            self._idat.clear()

    def _finish(self) -> None:
        self._chunk(b"IDAT", self._idat + struct.pack(">I", self._adler))
        self._chunk(b"IEND", b"")


def _text_chunks(text: dict[str, str]) -> list[tuple[bytes, bytes]]:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    for key, value in text.items():
        info.add_text(key, value)
    return [(name, data) for name, data, *_ in info.chunks]


def _as_bytes(rows: np.ndarray) -> tuple[np.ndarray, int]:
    """``[h, W, C]`` -> big-endian bytes ``[h, W * C * itemsize]`` and the bytes of one pixel."""
    big = np.ascontiguousarray(rows, rows.dtype.newbyteorder(">"))
    return big.view(np.uint8).reshape(len(rows), -1), rows.shape[2] * rows.dtype.itemsize


def _filter(rows: np.ndarray, step: int, out: np.ndarray) -> None:
    """Filters ``rows[1:]`` into ``out``, each row by the filter with the smallest sum of absolute differences.

    ``rows`` is uint8 ``[h + 1, n]`` (the first only predicts), ``step`` the bytes of a pixel, ``out`` ``[h, 1 + n]``.
    """
    x, up = rows[1:], rows[:-1]
    tried = np.empty((4, *x.shape), np.uint8)
    none, sub, upped, paeth = tried
    none[:] = x
    sub[:, :step] = x[:, :step]
    np.subtract(x[:, step:], x[:, :-step], out=sub[:, step:])
    np.subtract(x, up, out=upped)
    paeth[:, :step] = upped[:, :step]
    np.subtract(x[:, step:], _paeth(x[:, :-step], up[:, step:], up[:, :-step]), out=paeth[:, step:])
    cost = np.minimum(tried, np.negative(tried)).sum(axis=2, dtype=np.uint32)
    best = cost.argmin(axis=0)
    out[:, 0] = np.array([_NONE, _SUB, _UP, _PAETH], np.uint8)[best]
    out[:, 1:] = tried[best, np.arange(len(x))]


def _paeth(left: np.ndarray, up: np.ndarray, corner: np.ndarray) -> np.ndarray:
    """Whichever of the three is nearest to left + up - corner (ties in this order)."""
    p = np.subtract(up, corner, dtype=np.int16)
    q = np.subtract(left, corner, dtype=np.int16)
    to_corner = np.abs(p + q)
    to_left, to_up = np.abs(p, out=p), np.abs(q, out=q)
    best = np.where(to_up <= to_corner, up, corner)
    np.copyto(best, left, where=(to_left <= to_up) & (to_left <= to_corner))
    return best
