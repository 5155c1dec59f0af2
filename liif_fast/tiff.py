"""TIFF: a reader that keeps 16 bits and floats (by tifffile), and a writer for pictures larger than memory."""

from __future__ import annotations

import logging
import math
import struct
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from . import exif, iptc
from .bands import BandWriter

_MINISWHITE, _MINISBLACK, _RGB, _PALETTE = 0, 1, 2, 3
_REDUCED, _MASK = 1, 4  # bits of NewSubfileType
_INCHES = {2: 1.0, 3: 1 / 2.54}  # of a resolution unit: inch, centimetre
_COLOR_SAMPLES = {_MINISWHITE: 1, _MINISBLACK: 1, _RGB: 3, _PALETTE: 1}
_CLASSIC_LIMIT = 3_900_000_000  # bytes; 32-bit offsets end at 4.29e9, and deflate can add a little to noise
_DESCRIPTION, _XMP, _IPTC = 270, 700, 33723  # tags
_LEVEL = 6  # of deflate
_MOST_PAGES = 10_000  # that are counted
_SILENT = logging.NullHandler()


class Page(NamedTuple):
    """One TIFF picture as it lies in the file."""

    pixels: np.ndarray | None  # [H, W, C] uint8 | uint16 | float32, alpha not premultiplied; None: left to Pillow
    size: tuple[int, int]  # (height, width)
    icc_profile: bytes | None
    dpi: tuple[float, float] | None  # (x, y)
    orientation: int  # of EXIF, not applied
    frames: int
    exif: bytes | None  # a block made of its texts and its directories of EXIF and GPS
    xmp: bytes | None
    iptc: bytes | None  # records


def read(file: BinaryIO, check_size: Any) -> Page:
    """The first full-size page. ``check_size(height, width)`` may refuse it before anything is decoded.

    Bilevel, gray, palette and RGB, with or without alpha, of 1..16 bits, uint32 (kept as 16 bits) and floats in 0..1,
    in strips or tiles, chunky or planar. CMYK, LAB and YCbCr pages of 8 bits are left to Pillow. Raises ValueError
    for the rest, and whatever tifffile raises for damaged files.
    """
    import tifffile

    logging.getLogger("tifffile").addHandler(_SILENT)  # what is wrong with a file is said by the exception
    with tifffile.TiffFile(file) as tif:
        pages: dict[int, Any] = {}  # by offset: directories of damaged files can form a ring
        for page in tif.pages:
            if page.offset in pages or len(pages) == _MOST_PAGES:
                break
            pages[page.offset] = page.aspage()
        if not pages:
            raise ValueError("a TIFF without a picture")
        full = [page for page in pages.values() if not int(page.subfiletype) & (_REDUCED | _MASK)]
        page = (full or list(pages.values()))[0]
        check_size(page.imagelength, page.imagewidth)
        _check_layout(page, file)
        icc, xmp = page.iccprofile, page.tags.valueof(_XMP)
        records = page.tags.valueof(_IPTC)  # bytes, whatever type it has
        return Page(
            _pixels(page),
            (page.imagelength, page.imagewidth),
            bytes(icc) if icc else None,
            _dpi(page),
            int(page.tags.valueof(274, 1)),
            max(1, len(full)),
            _exif(page, file),
            xmp if isinstance(xmp, bytes) else None,
            iptc.from_resources(records) if isinstance(records, bytes) else None,
        )


def _exif(page: Any, file: BinaryIO) -> bytes | None:
    # tifffile, ImageJ and OME describe the shape of the array there, which is to change.
    without = (_DESCRIPTION,) if page.is_shaped or page.is_imagej or page.is_ome else ()
    try:
        return exif.from_tiff(file, page.offset, page.parent.byteorder, page.parent.is_bigtiff, without)
    except (ValueError, struct.error, OSError):
        return None


def _check_layout(page: Any, file: BinaryIO) -> None:
    """Refuses what would make the decoder allocate without end or pass over missing data."""
    if page.samplesperpixel > 16 or page.imagedepth != 1 or page.axes not in ("YX", "YXS", "SYX"):
        raise ValueError(f"{page.samplesperpixel} samples a pixel of shape {page.shape} ({page.axes}) is no picture")
    if page.tilelength * page.tilewidth > max(2**24, 4 * page.imagelength * page.imagewidth):
        raise ValueError(f"tiles of {page.tilelength} x {page.tilewidth}")
    size = file.seek(0, 2)
    counts, offsets = page.databytecounts, page.dataoffsets
    across = math.ceil(page.imagewidth / page.tilewidth) if page.tilewidth else 1
    rows = page.tilelength or max(1, min(page.rowsperstrip, page.imagelength))
    planes = page.samplesperpixel if page.axes == "SYX" else 1
    expected = math.ceil(page.imagelength / rows) * across * planes
    if len(offsets) != len(counts) or not (len(offsets) >= expected or len(offsets) == 1):
        raise ValueError(f"{len(offsets)} strips or tiles of {expected}")
    if any(count <= 0 or offset + count > size for offset, count in zip(offsets, counts, strict=True)):
        raise ValueError("image file is truncated")


def _pixels(page: Any) -> np.ndarray | None:
    kind, bits = int(page.photometric), page.bitspersample
    if kind not in _COLOR_SAMPLES:
        if bits == 8:
            return None
        raise ValueError(f"photometric interpretation {getattr(page.photometric, 'name', kind)} of {bits} bits")
    array = page.asarray()
    array = array[..., None] if page.axes == "YX" else np.moveaxis(array, 0, -1) if page.axes == "SYX" else array
    if kind == _PALETTE:
        return _apply_palette(array, page.colormap)
    array = _to_depth(array, bits)
    if kind == _MINISWHITE:
        array[..., 0] = (1 if array.dtype.kind == "f" else np.iinfo(array.dtype).max) - array[..., 0]
    color = _COLOR_SAMPLES[kind]
    if array.shape[2] < color:
        raise ValueError(f"{array.shape[2]} samples a pixel are too few for colour")
    extra = [int(e) for e in page.extrasamples] or [2] * (array.shape[2] > color)  # unnamed: taken as alpha
    if array.shape[2] == color or extra[0] not in (1, 2):
        return array[..., :color]
    array = array[..., : color + 1]
    return _divide_by_alpha(array) if extra[0] == 1 else array


def _apply_palette(index: np.ndarray, colormap: np.ndarray | None) -> np.ndarray:
    if colormap is None:
        raise ValueError("a palette picture without its palette")
    colors = colormap if colormap.max(initial=0) < 256 else colormap >> 8  # some writers stored bytes
    return colors.astype(np.uint8).T[index[..., 0]]


def _to_depth(array: np.ndarray, bits: int) -> np.ndarray:
    """Any sample format -> uint8, uint16 or float32 over its full range."""
    if array.dtype.kind == "f":
        low, high = (float(array.min()), float(array.max())) if array.size else (0.0, 0.0)
        if not (low >= -0.5 and high <= 1.5):
            raise ValueError(f"float samples from {low:g} to {high:g}, which should be in 0..1")
        return array.astype(np.float32)
    if array.dtype.kind not in "ub":
        raise ValueError(f"samples of type {array.dtype}")
    if array.dtype == np.uint32:
        return (array >> (bits - 16)).astype(np.uint16)
    if bits > 16:
        raise ValueError(f"{bits}-bit integer samples")
    depth = 8 if bits <= 8 else 16
    if bits == depth:
        return array.astype(f"u{depth // 8}")
    top, full = 2**bits - 1, 2**depth - 1
    return ((array.astype(np.uint32) * full + top // 2) // top).astype(f"u{depth // 8}")


def _divide_by_alpha(array: np.ndarray) -> np.ndarray:
    """Premultiplied colour, as "associated alpha" stores it, -> plain colour."""
    top = 1.0 if array.dtype.kind == "f" else float(np.iinfo(array.dtype).max)
    color, alpha = array[..., :-1].astype(np.float32), array[..., -1:].astype(np.float32)
    color = np.clip(np.divide(color * top, alpha, out=np.zeros_like(color), where=alpha > 0), 0, top)
    if top > 1:
        color += 0.5
    return np.concatenate((color.astype(array.dtype), array[..., -1:]), axis=-1)


def _dpi(page: Any) -> tuple[float, float] | None:
    unit = _INCHES.get(int(page.tags.valueof(296, 2)))
    pair = page.tags.valueof(282), page.tags.valueof(283)
    if unit is None or not all(isinstance(r, tuple) and len(r) == 2 and r[1] for r in pair):
        return None
    x, y = (r[0] / r[1] / unit for r in pair)
    return x, y


class TiffWriter(BandWriter[bytes]):
    """Writes one TIFF to ``file`` (seekable, empty): deflate with predictor, in strips; BigTIFF when it might need it.

    ``dtype`` is uint8, uint16 or float32; C is 1 gray, 2 gray + alpha, 3 RGB, 4 RGBA (alpha not premultiplied); ``dpi``
    is (x, y), ``texts`` what `exif.for_tiff` gives. ``write(rows)`` takes ``[h, width, channels]``, ``close()``
    completes the file. ValueError for too many or too few rows.
    """

    def __init__(
        self,
        file: BinaryIO,
        height: int,
        width: int,
        channels: int,
        dtype: np.dtype,
        *,
        icc_profile: bytes | None = None,
        dpi: tuple[float, float] | None = None,
        texts: exif.Directory | None = None,
        xmp: bytes | None = None,
        iptc: bytes | None = None,
        big: bool | None = None,
    ) -> None:
        if dtype not in (np.uint8, np.uint16, np.float32):
            raise ValueError(f"{dtype} is not uint8, uint16 or float32")
        super().__init__(file, height, width, channels, dtype)
        self._big = height * width * channels * dtype.itemsize > _CLASSIC_LIMIT if big is None else big
        self._icc, self._dpi = icc_profile, dpi
        self._texts, self._xmp, self._iptc = texts or {}, xmp, iptc
        self._offsets: list[int] = []
        self._counts: list[int] = []
        # The place of the directory, which comes last, is filled in at the end.
        file.write(b"II\x2b\0\x08\0\0\0" + bytes(8) if self._big else b"II\x2a\0" + bytes(4))

    def _encode(self, band: np.ndarray, above: np.ndarray, last: bool) -> bytes:
        import imagecodecs

        return bytes(imagecodecs.deflate_encode(_predict(band), _LEVEL))

    def _store(self, encoded: bytes) -> None:
        self._offsets.append(self._file.tell())
        self._counts.append(len(encoded))
        self._file.write(encoded + bytes(len(encoded) % 2))  # offsets are even

    def _finish(self) -> None:
        height, width, channels = self._shape
        color = 3 if channels > 2 else 1
        float_samples = self._dtype.kind == "f"
        word = "Q" if self._big else "I"
        tags: dict[int, tuple[str, list[int] | bytes]] = {
            256: ("I", [width]),
            257: ("I", [height]),
            258: ("H", [8 * self._dtype.itemsize] * channels),
            259: ("H", [8]),  # deflate
            262: ("H", [_RGB if color == 3 else _MINISBLACK]),
            273: (word, self._offsets),
            277: ("H", [channels]),
            278: ("I", [self._band_rows]),
            279: (word, self._counts),
            284: ("H", [1]),  # chunky
            317: ("H", [3 if float_samples else 2]),
            339: ("H", [3 if float_samples else 1] * channels),
        }
        if self._dpi:
            for tag, value in zip((282, 283), self._dpi, strict=True):
                tags[tag] = ("R", [min(2**32 - 1, round(value * 10_000)), 10_000])
            tags[296] = ("H", [2])  # inch
        if channels > color:
            tags[338] = ("H", [2])  # alpha, not premultiplied
        if self._xmp:
            tags[_XMP] = ("B", self._xmp)
        if self._iptc:
            tags[_IPTC] = ("B", self._iptc)
        if self._icc:
            tags[34675] = ("B", self._icc)
        code = {"B": 7, "H": 3, "I": 4, "Q": 16, "R": 5}
        directory = dict(self._texts)
        for tag, (kind, values) in tags.items():
            number = len(values) // 2 if kind == "R" else len(values)
            data = bytes(values) if kind == "B" else struct.pack(f"<{len(values)}{kind.replace('R', 'I')}", *values)
            directory[tag] = exif.Value(code[kind], number, data)
        place = exif.write_directory(self._file, directory, self._big)
        self._file.seek(8 if self._big else 4)
        self._file.write(struct.pack("<" + word, place))
        self._file.seek(0, 2)


def _predict(band: np.ndarray) -> bytes:
    """Differences along the rows, as TIFF's predictors 2 (integers) and 3 (floats, bytes by significance) define."""
    height, width, channels = band.shape
    if band.dtype.kind == "f":
        planes = band.astype(">f4").view(np.uint8).reshape(height, width * channels, 4).transpose(0, 2, 1)
        rows = np.ascontiguousarray(planes).reshape(height, -1, channels)
    else:
        rows = band.astype(band.dtype.newbyteorder("<"))
    out = rows.copy()
    np.subtract(rows[:, 1:], rows[:, :-1], out=out[:, 1:])
    return out.tobytes()
