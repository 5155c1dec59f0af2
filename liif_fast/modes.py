"""Pillow's picture modes <-> arrays ``[H, W, C]``: the one place that knows what each mode means."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

_VIA = {"1": "L", "La": "LA", "PA": "RGBA", "RGBa": "RGBA", "RGBX": "RGB", "YCbCr": "RGB", "HSV": "RGB"}
_WITH_ALPHA = {"1": "LA", "L": "LA", "P": "RGBA", "RGB": "RGBA"}


def to_array(im: Image) -> tuple[np.ndarray, bytes | None]:
    """The pixels of a Pillow image of any mode, and the colour profile that still describes them.

    Gives uint8 (most modes), uint16 (``I;16*``, ``I``) or float32 (``F``) ``[H, W, C]``; C is 1 gray, 2 gray + alpha,
    3 RGB, 4 RGBA (alpha not premultiplied). Palette images become RGB or RGBA, CMYK and LAB become sRGB: their own
    profile is used up by that and None comes back. Raises ValueError for an ``I`` image with values outside 0..65535.
    """
    icc: bytes | None = im.info.get("icc_profile") or None
    if im.mode.startswith("I;16"):
        return np.array(im).astype(np.uint16)[..., None], icc
    if im.mode == "I":
        wide = np.array(im)
        if wide.size and not 0 <= int(wide.min()) <= int(wide.max()) <= 65535:
            raise ValueError(f"mode I is read as 16-bit, but its values are {wide.min()}..{wide.max()}, not 0..65535")
        return wide.astype(np.uint16)[..., None], icc
    if im.mode == "F":
        return np.array(im, dtype=np.float32)[..., None], icc
    if im.mode == "CMYK":
        im, icc = cmyk_to_rgb(im, icc), None
    elif im.mode == "LAB":
        im, icc = im.convert("RGB"), None
    elif im.mode in _WITH_ALPHA and im.has_transparency_data:
        im = im.convert(_WITH_ALPHA[im.mode])
    elif im.mode == "P":
        im = im.convert("RGB")
    elif im.mode in _VIA:
        im = im.convert(_VIA[im.mode])
    array = np.array(im)
    return array if array.ndim == 3 else array[..., None], icc


def from_array(array: np.ndarray, info: dict[Any, Any] | None = None) -> Image:
    """A Pillow image of ``[H, W, C]``: uint8 as L, LA, RGB or RGBA; uint16 gray as ``I;16``; float32 gray as ``F``."""
    from PIL import Image

    im = Image.fromarray(np.ascontiguousarray(array[..., 0] if array.shape[2] == 1 else array))
    im.info.update(info or {})
    return im


def cmyk_to_rgb(im: Image, icc: bytes | None) -> Image:
    """CMYK -> sRGB through the picture's own profile where it has a usable one, else by the plain formula."""
    if icc:
        from PIL import ImageCms

        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(icc))
            rgb = ImageCms.profileToProfile(im, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
        except (ImageCms.PyCMSError, OSError):
            pass  # damaged, or of another colour space
        else:
            if rgb is not None:
                return rgb
    return im.convert("RGB")
