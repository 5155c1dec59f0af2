"""Picture files read into arrays; one clear line for whatever is wrong with one."""

from __future__ import annotations

import importlib
import math
import os
import stat
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from . import modes, png, tiff
from .metadata import Metadata, avif_color, gather, png_color, upright_xmp
from .output import SUFFIXES, ImageError

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

_READABLE = "JPEG, PNG, WebP, TIFF, BMP, AVIF, GIF"
_TIFF_MAGIC = (b"II\x2a\0", b"MM\0\x2a", b"II\x2b\0", b"MM\0\x2b")
_ROWS = 256  # are flattened at once


def read(path: str | os.PathLike[str], max_pixels: int = 100_000_000) -> tuple[np.ndarray, Metadata]:
    """The picture in a file: ``[H, W, C]`` uint8, uint16 or float32 (0..1), C of 1 gray, 2 gray + alpha, 3, 4, upright.

    The format is known by content, not by name. 16-bit PNG and TIFF stay 16-bit, palettes become RGB(A), CMYK becomes
    sRGB, EXIF orientation is applied; of several frames or pages the first is read, with a UserWarning.

    Raises ImageError, with the path in one line, for what is no readable picture, is damaged, or has no pixels or more
    than ``max_pixels`` (refused before decoding); FileNotFoundError, PermissionError, IsADirectoryError as ``open``.
    """
    path = os.fspath(path)
    with open(path, "rb", opener=_open_regular) as file:

        def check_size(height: int, width: int) -> None:
            if height < 1 or width < 1:
                raise ImageError(f"{path}: a picture of {width} x {height} has no pixels")
            if height * width > max_pixels:
                raise ImageError(
                    f"{path}: {width} x {height} is {height * width} pixels, more than the limit of {max_pixels}; "
                    "--max-pixels (max_pixels=) raises it"
                )

        try:
            name = _format(file)
            pixels, metadata, orientation, notes = _decode(file, name, check_size)
        except ImageError:
            raise
        except MemoryError:
            raise ImageError(f"{path}: not enough memory for this picture") from None
        except Exception as error:  # damaged files make the decoders raise about anything
            raise ImageError(f"{path}: {_one_line(error)}") from error
    for note in notes:
        warnings.warn(f"{path}: {note}", stacklevel=2)
    if orientation >= 5 and metadata.dpi:
        metadata.dpi = metadata.dpi[::-1]
    return _upright(pixels, orientation), metadata


def flatten(
    pixels: np.ndarray, path: str | os.PathLike[str], background: tuple[int, int, int] | None = None
) -> np.ndarray:
    """``[H, W, C]`` laid on ``background`` (R, G, B of 0..255), or without an alpha that ``path`` has no place for.

    Without a background only an alpha that is opaque throughout goes, the rest is for `check_output` to refuse. Gray
    on a background that is none becomes RGB.
    """
    if pixels.shape[2] not in (2, 4):
        return pixels
    color, alpha = pixels[..., :-1], pixels[..., -1:]
    top = 1.0 if pixels.dtype.kind == "f" else float(np.iinfo(pixels.dtype).max)
    if background is None:
        format = SUFFIXES.get(os.path.splitext(path)[1].lower())
        needless = format is not None and not format.alpha and bool((alpha >= top).all())
        return np.ascontiguousarray(color) if needless else pixels
    shades = background[:1] if color.shape[2] == 1 and len(set(background)) == 1 else background
    under = np.array(shades, np.float32) * (top / 255)
    flat = np.empty((*pixels.shape[:2], max(len(shades), color.shape[2])), pixels.dtype)
    for y in range(0, len(flat), _ROWS):
        rows = slice(y, y + _ROWS)
        share = alpha[rows] / np.float32(top)
        mixed = color[rows] * share + under * (1 - share)
        flat[rows] = mixed if top == 1 else np.rint(mixed)
    return flat


def parse_color(text: str, option: str) -> tuple[int, int, int]:
    """R, G, B of 0..255 of a colour as CSS writes it; a ValueError names ``option``."""
    from PIL import ImageColor

    try:
        red, green, blue, *alpha = ImageColor.getrgb(text)
        if max(red, green, blue) > 255 or alpha not in ([], [255]):
            raise ValueError
    except ValueError:
        raise ValueError(f"{option} must be an opaque colour such as white or '#20252b', got {text!r}") from None
    return red, green, blue


def _open_regular(path: str, flags: int) -> int:
    """Opens without waiting for the other end of a pipe; refuses what is not a regular file."""
    fd = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    mode = os.fstat(fd).st_mode
    if not stat.S_ISREG(mode):
        os.close(fd)
        raise IsADirectoryError(f"{path}: is a directory") if stat.S_ISDIR(mode) else ImageError(f"{path}: not a file")
    return fd


def _format(file: BinaryIO) -> str:
    head = file.read(32)
    file.seek(0)
    if not head:
        raise ValueError("the file is empty")
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if head.startswith(_TIFF_MAGIC):
        return "TIFF"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp" and (b"avif" in head[8:] or b"avis" in head[8:]):
        return "AVIF"
    if head.startswith(b"BM"):
        return "BMP"
    raise ValueError(f"not a picture of a known format ({_READABLE})")


def _decode(
    file: BinaryIO, name: str, check_size: Callable[[int, int], None]
) -> tuple[np.ndarray, Metadata, int, list[str]]:
    """-> pixels, metadata, EXIF orientation, what is to be said of it."""
    if name == "TIFF":
        return _decode_tiff(file, check_size)
    im = _open_with_pillow(file, name)
    check_size(im.height, im.width)
    im.load()  # some of what a PNG says comes behind its pixels
    metadata, orientation = gather(im)
    metadata.dpi = _sane_dpi(im.info.get("dpi"))
    notes = _left_out(_frames(im), "; liif-fast video takes them all" if name in ("GIF", "WEBP", "PNG", "AVIF") else "")
    if metadata.xmp and b"HasExtendedXMP" in im.info["xmp"]:
        notes.append("the part of its XMP that is in further segments is left out")
    if im.info.get("xmp") and not metadata.xmp:
        notes.append("its gain map, and the XMP that is about it, are left out")
    chunks = png.chunks(file) if name == "PNG" else {}
    if chunks and _beyond_pillow(chunks):
        import imagecodecs

        file.seek(0)
        pixels = imagecodecs.png_decode(file.read())
        pixels = pixels if pixels.ndim == 3 else pixels[..., None]
        metadata.icc_profile = im.info.get("icc_profile")
    else:
        pixels, metadata.icc_profile = modes.to_array(im)
    metadata.color = png_color(chunks)
    if name == "AVIF":
        bits, color = avif_color(file)
        metadata.color = {} if metadata.icc_profile else color
        notes += [f"its {bits} bits are read as 8"] if bits > 8 else []
    return pixels, metadata, orientation, notes


def _decode_tiff(file: BinaryIO, check_size: Callable[[int, int], None]) -> tuple[np.ndarray, Metadata, int, list[str]]:
    page = tiff.read(file, check_size)
    xmp = upright_xmp(page.xmp) if page.xmp else None
    metadata = Metadata(page.icc_profile, _sane_dpi(page.dpi), page.exif, xmp, page.iptc)
    notes = _left_out(page.frames)
    if page.pixels is not None:
        return page.pixels, metadata, page.orientation, notes
    file.seek(0)
    im = _open_with_pillow(file, "TIFF")  # which turns it upright itself, and has its turned size already
    check_size(im.height, im.width)
    on_its_side = page.orientation in (5, 6, 7, 8)
    if (im.height, im.width) != (page.size[::-1] if on_its_side else page.size):
        raise ValueError(f"TIFF pages of this kind ({im.mode}) are read only where the full-size one comes first")
    im.load()
    pixels, metadata.icc_profile = modes.to_array(im)
    if on_its_side and metadata.dpi:
        metadata.dpi = metadata.dpi[::-1]
    return pixels, metadata, 1, notes


def _left_out(frames: int, way: str = "") -> list[str]:
    return [f"{frames - 1} of its {frames} frames are left out, the first is read{way}"] if frames > 1 else []


def _open_with_pillow(file: BinaryIO, name: str) -> ImageFile:
    """Opens by the one right plugin; ``Image.open`` would bring Pillow's size limit, a global of the host program."""
    from PIL import Image

    plugin = {"JPEG": "Jpeg", "PNG": "Png", "GIF": "Gif", "BMP": "Bmp", "WEBP": "WebP", "AVIF": "Avif", "TIFF": "Tiff"}
    importlib.import_module(f"PIL.{plugin[name]}ImagePlugin")
    if name not in Image.OPEN:
        raise ValueError(f"this Pillow was built without {name}")
    return Image.OPEN[name][0](file, "")


def _beyond_pillow(chunks: dict[bytes, bytes]) -> bool:
    """Whether Pillow would lose something of this PNG: 16 bits of colour, or the transparent shade of a gray one."""
    bits, color_type = chunks[b"IHDR"][8:10]
    return bits == 16 or (color_type == 0 and b"tRNS" in chunks)


def _frames(im: ImageFile) -> int:
    if im.format == "MPO":  # a photograph with previews and depth maps behind it
        return 1
    try:
        return int(getattr(im, "n_frames", 1))
    except Exception:  # damaged behind the first frame, which is read already
        return 1


def _sane_dpi(dpi: object) -> tuple[float, float] | None:
    try:
        x, y = (float(d) for d in dpi)  # type: ignore[attr-defined]
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return (x, y) if all(math.isfinite(d) and 0 < d < 1e6 for d in (x, y)) else None


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Applies the EXIF orientation 1..8 (others are taken as 1)."""
    turn: dict[int, Callable[[np.ndarray], np.ndarray]] = {
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
        8: np.rot90,
    }
    return np.ascontiguousarray(turn[orientation](pixels) if orientation in turn else pixels)


def _one_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"cannot be read ({lines[0]})" if lines else f"cannot be read ({type(error).__name__})"
