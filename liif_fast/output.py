"""Picture files written whole or not at all: rows in, and the name appears when the last one is on the disk."""

from __future__ import annotations

import errno
import io
import os
import secrets
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

import numpy as np

from . import iptc
from .metadata import Metadata, fit


class ImageError(ValueError):
    """A picture file that cannot be read or written; one line that names the file and the reason."""


@dataclass(frozen=True)
class Format:
    """What a file format can hold. ``side`` is the longest side in pixels; ``lossless`` whether it can be."""

    name: str
    suffixes: tuple[str, ...]
    dtypes: tuple[str, ...]  # the last one is the deepest
    alpha: bool
    side: int
    lossless: bool
    quality: int | None = None  # the default; None: there is no such choice


FORMATS = (
    Format("PNG", (".png",), ("uint8", "uint16"), True, 2**31 - 1, True),
    Format("TIFF", (".tif", ".tiff"), ("uint8", "uint16", "float32"), True, 2**31 - 1, True),
    Format("JPEG", (".jpg", ".jpeg"), ("uint8",), False, 65500, False, 95),
    Format("WEBP", (".webp",), ("uint8",), True, 16383, True, 95),
    Format("AVIF", (".avif",), ("uint8",), True, 32768, False, 95),
    Format("BMP", (".bmp",), ("uint8",), False, 2**31 - 1, True),
)
SUFFIXES = {suffix: format for format in FORMATS for suffix in format.suffixes}

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class RowWriter(Protocol):
    """What ``writer`` hands out."""

    def write(self, rows: np.ndarray) -> None:
        """The next rows from the top, ``[h, W, C]`` of the dtype promised; ValueError for others or too many."""


def check_output(
    path: str | os.PathLike[str],
    shape: tuple[int, int, int],
    dtype: Any = np.uint8,
    force: bool = False,
    *,
    quality: int | None = None,
    lossless: bool = False,
) -> Format:
    """Everything about an output file that can be refused before the work starts; the format that the name means.

    ``shape`` is (H, W, C), ``dtype`` uint8, uint16, float16 or float32. Raises ImageError for a suffix, size, alpha
    channel or choice that the format has not, FileExistsError without ``force``, FileNotFoundError, PermissionError
    or IsADirectoryError for the place; ValueError and TypeError for a shape or dtype that is no picture.
    """
    path = os.fspath(path)
    height, width, channels = shape
    if height < 1 or width < 1 or channels not in (1, 2, 3, 4):
        raise ValueError(f"shape {tuple(shape)} is no picture (H, W, C) with C of 1 to 4")
    if np.dtype(dtype).name not in ("uint8", "uint16", "float16", "float32"):
        raise TypeError(f"{np.dtype(dtype)} is not uint8, uint16, float16 or float32")
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in SUFFIXES:
        raise ImageError(f"{path}: the suffix {suffix!r} names no output format, which are {', '.join(SUFFIXES)}")
    format = SUFFIXES[suffix]
    _check_format(path, format, (height, width, channels), quality, lossless)
    check_place(path, force)
    return format


def _check_format(path: str, format: Format, shape: tuple[int, int, int], quality: int | None, lossless: bool) -> None:
    height, width, channels = shape
    if channels in (2, 4) and not format.alpha:
        able = ", ".join(s for f in FORMATS if f.alpha for s in f.suffixes)
        raise ImageError(
            f"{path}: {format.name} has no alpha channel; write {able} or lay it on a colour, as --background white"
        )
    if max(height, width) > format.side:
        raise ImageError(f"{path}: {width} x {height} is beyond the {format.side} pixels a side of {format.name}")
    if format.name == "BMP" and height * (width * channels + 3) > 2**32 - 2048:
        raise ImageError(f"{path}: {width} x {height} is beyond the 4 GiB of BMP")
    if lossless and not format.lossless:
        raise ImageError(f"{path}: {format.name} is written with loss only; .png, .tif or .webp can be lossless")
    if quality is not None and (format.quality is None or lossless):
        raise ImageError(f"{path}: quality {quality} means nothing where the file is lossless")
    if quality is not None and not 1 <= quality <= 100:
        raise ImageError(f"{path}: quality {quality} is not in 1..100")
    if format.name == "AVIF":
        from PIL import features

        if "avif" not in features.modules or not features.check("avif"):
            raise ImageError(f"{path}: this Pillow was built without AVIF; Pillow 11.3 and later usually have it")


def check_place(path: str | os.PathLike[str], force: bool) -> None:
    """What can be refused about a file's place before there is anything to write.

    FileExistsError without ``force``, FileNotFoundError, PermissionError, IsADirectoryError; ImageError for what
    is no regular file.
    """
    path = os.fspath(path)
    folder = os.path.dirname(os.path.realpath(path))
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"{path}: there is no folder {folder}")
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        pass
    else:
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(f"{path}: is a directory")
        if not stat.S_ISREG(mode):
            raise ImageError(f"{path}: not a regular file")
        if not force:
            raise _taken(path)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"{path}: no permission to write in {folder}")


def _taken(path: str) -> FileExistsError:
    return FileExistsError(f"{path}: exists already; --force (force=True) replaces it")


@contextmanager
def writer(
    path: str | os.PathLike[str],
    shape: tuple[int, int, int],
    dtype: Any = np.uint8,
    metadata: Metadata | None = None,
    quality: int | None = None,
    lossless: bool = False,
    force: bool = False,
) -> Iterator[RowWriter]:
    """``with writer(...) as out: out.write(rows)``, top to bottom, until all H rows are there.

    The rows go to a hidden file beside ``path``, which takes the name when all is on the disk; whatever happens before
    that leaves nothing behind. Without ``force`` a name taken meanwhile is an error too; with it the last complete
    file wins. PNG and TIFF need memory for a few rows only, the other formats for the whole picture. Samples deeper
    than the format holds are rounded, and metadata it has no place for are left out, each with a UserWarning.

    Raises what ``check_output`` raises, ImageError for a full disk, ValueError for rows of another shape or dtype, too
    many or too few.
    """
    format = check_output(path, shape, dtype, force, quality=quality, lossless=lossless)
    shown = os.fspath(path)
    source, target = np.dtype(dtype), np.dtype(dtype)
    if source.name not in format.dtypes:
        target = np.dtype(format.dtypes[-1])
        if not np.can_cast(source, target):
            warnings.warn(f"{shown}: {format.name} holds {target}; the {source} samples are rounded", stacklevel=3)
    gray = shape[2] < 3 and format.name not in ("WEBP", "AVIF")  # which have no gray
    whole = metadata or Metadata()
    metadata, lost = fit(whole, format.name, gray)
    if lost:
        other = "" if fit(whole, "PNG", shape[2] < 3)[1] else "; .png has"
        warnings.warn(f"{shown}: {format.name} has no place for {', '.join(lost)}{other}", stacklevel=3)
    with whole_file(path, force) as file:
        rows = _Rows(file, shown, format, shape, source, target, metadata, quality or format.quality, lossless)
        try:
            yield rows
            rows.close()
        finally:
            rows.abort()


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """A text file (UTF-8) as `whole_file` writes it; an older one is replaced."""
    with whole_file(path, force=True) as file:
        file.write(text.encode())


@contextmanager
def whole_file(
    path: str | os.PathLike[str], force: bool = False, folder: str | os.PathLike[str] | None = None
) -> Iterator[BinaryIO]:
    """A hidden file beside ``path``, or in ``folder`` there, to write bytes to; at the end it is synced and takes the
    name.

    Whatever happens before that leaves nothing behind. FileExistsError for a name taken meanwhile, without
    ``force``; ImageError for a full disk.
    """
    shown, final = os.fspath(path), os.path.realpath(path)
    temp = os.path.join(folder or os.path.dirname(final), f".liif_fast-{secrets.token_hex(8)}.part")
    try:
        with one_line_errors(shown):
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
            file = os.fdopen(os.open(temp, flags, 0o666), "w+b")  # not mkstemp: the umask decides who may read it
        with one_line_errors(shown), file:  # closed within: what did not fit is tried once more then
            yield file
            file.flush()
            os.fsync(file.fileno())
        with one_line_errors(shown):
            _publish(temp, final, shown, force)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temp)


@contextmanager
def one_line_errors(path: str) -> Iterator[None]:
    """ImageError, with ``path``, where the disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise ImageError(f"{path}: no space left ({error.strerror})") from error
        raise


class _Rows:
    """Checks and converts rows on their way to a format's encoder."""

    def __init__(
        self,
        file: BinaryIO,
        path: str,
        format: Format,
        shape: tuple[int, int, int],
        source: np.dtype,
        target: np.dtype,
        metadata: Metadata,
        quality: int | None,
        lossless: bool,
    ) -> None:
        self._file, self._path, self._source, self._target = file, path, source, target
        self._shape = shape
        self._encoder: Any
        with one_line_errors(path):
            if format.name == "PNG":
                from .png import PngWriter

                fields = {**vars(metadata), "exif": metadata.exif and metadata.exif.removeprefix(b"Exif\0\0")}
                del fields["iptc"]  # among its texts
                self._encoder = PngWriter(file, *shape, 8 * target.itemsize, **fields)
            elif format.name == "TIFF":
                from .exif import for_tiff
                from .tiff import TiffWriter

                kept = {kind: getattr(metadata, kind) for kind in ("icc_profile", "dpi", "xmp", "iptc")}
                texts = for_tiff(metadata.exif) if metadata.exif else None
                self._encoder = TiffWriter(file, *shape, target, texts=texts, **kept)
            else:
                self._encoder = _Collected(file, shape, format.name, metadata, quality, lossless)

    def write(self, rows: np.ndarray) -> None:
        if rows.ndim != 3 or rows.shape[1:] != tuple(self._shape[1:]) or rows.dtype != self._source:
            _, width, channels = self._shape
            raise ValueError(f"rows are {rows.dtype}{list(rows.shape)}, not {self._source}[h, {width}, {channels}]")
        with one_line_errors(self._path):
            self._encoder.write(_rounded(rows, self._target))

    def close(self) -> None:
        with one_line_errors(self._path):
            self._encoder.close()

    def abort(self) -> None:
        self._encoder.abort()


def _rounded(rows: np.ndarray, dtype: np.dtype) -> np.ndarray:
    if rows.dtype == dtype:
        return rows
    if rows.dtype == np.uint16:
        return ((rows.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if dtype == np.float32:
        return rows.astype(dtype)
    top = np.iinfo(dtype).max
    return np.rint(np.clip(np.nan_to_num(rows), 0, 1) * top).astype(dtype)


class _Collected:
    """The formats whose encoders want the whole picture at once."""

    def __init__(
        self,
        file: BinaryIO,
        shape: tuple[int, int, int],
        name: str,
        metadata: Metadata,
        quality: int | None,
        lossless: bool,
    ) -> None:
        self._file, self._name, self._done = file, name, 0
        self._array = np.empty(shape, np.uint8)
        self._options: dict[str, Any] = {}
        if metadata.icc_profile:
            self._options["icc_profile"] = metadata.icc_profile
        if metadata.exif:
            self._options["exif"] = metadata.exif
        if metadata.xmp:
            self._options["xmp"] = metadata.xmp
        if metadata.iptc:
            self._options["extra"] = iptc.segment(metadata.iptc)
        if "Comment" in metadata.text:
            self._options["comment"] = metadata.text["Comment"].encode()
        if metadata.dpi and name in ("JPEG", "BMP"):
            self._options["dpi"] = metadata.dpi
        if name in ("JPEG", "AVIF"):
            self._options |= {"quality": quality, "subsampling": 0 if name == "JPEG" else "4:4:4"}
        if name == "WEBP":
            self._options |= {"lossless": True, "exact": True} if lossless else {"quality": quality}

    def write(self, rows: np.ndarray) -> None:
        if self._done + len(rows) > len(self._array):
            raise ValueError(f"{self._done + len(rows)} rows for a picture of {len(self._array)}")
        self._array[self._done : self._done + len(rows)] = rows
        self._done += len(rows)

    def close(self) -> None:
        from .modes import from_array

        if self._done != len(self._array):
            raise ValueError(f"{self._done} rows for a picture of {len(self._array)}")
        encoded = io.BytesIO()  # Pillow writing to the file itself would lose the errno of a full disk
        from_array(self._array).save(encoded, self._name, **self._options)
        self._file.write(encoded.getbuffer())

    def abort(self) -> None:
        pass


def _publish(temp: str, final: str, shown: str, force: bool) -> None:
    """Gives the finished file its name, atomically; without ``force`` never in the place of another file."""
    if force:
        os.replace(temp, final)
    elif os.name == "nt":
        _unless_taken(shown, lambda: os.rename(temp, final))
    else:
        try:
            _unless_taken(shown, lambda: os.link(temp, final))
        except FileExistsError:
            raise
        except OSError:  # a file system without links: claim the name first
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            _unless_taken(shown, lambda: os.close(os.open(final, flags, 0o666)))
            os.replace(temp, final)
    with suppress(OSError):  # makes the name as lasting as the data, where folders can be synced
        folder = os.open(os.path.dirname(final), os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _unless_taken(shown: str, name: Any) -> None:
    try:
        name()
    except FileExistsError:
        raise _taken(shown) from None
