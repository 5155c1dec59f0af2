"""What JPEG leaves of pictures: of one, and of whole batches on their device, as libjpeg does it (ITU-T T.81)."""

from __future__ import annotations

import io
import math
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

_SIDE = 8  # of a block
_UNIT = 2 * _SIDE  # what a block of halved colour covers

# JFIF's: rows are Y, Cb and Cr of red, green and blue.
_YCC = torch.tensor([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])


def saved(picture: np.ndarray, quality: int) -> np.ndarray:
    """A picture, uint8 [H, W, 3], as it comes back from a JPEG file by Pillow, its colour halved (4:2:0)."""
    with Image.open(_file(Image.fromarray(picture), quality)) as image:
        return np.array(image)


def compressed(images: torch.Tensor, quality: torch.Tensor, origin: torch.Tensor, halved: torch.Tensor) -> torch.Tensor:
    """Patches cut from JPEG pictures.

    Args:
        images: float32 [B, 3, H, W] in [0, 1], 8-bit values. Beyond a patch its border is repeated.
        quality: float32 [B], 1 to 100, as libjpeg counts.
        origin: int64 [2, B], 0 to 15: rows and columns between the corner of a block and that of the patch. A network
            that sees the border of a patch must not find out that blocks begin there.
        halved: bool [B], whether the colour has half the resolution both ways (4:2:0).

    Returns as ``images``.
    """
    sides = images.shape[2:]
    for dim, (side, first) in enumerate(zip(sides, origin, strict=True), 2):
        whole = math.ceil((side + _UNIT - 1) / _UNIT) * _UNIT
        images = _lines(images, (torch.arange(whole, device=images.device) - first[:, None]).clamp(0, side - 1), dim)
    to_ycc, to_rgb, tables, dct = _constants(images.device)
    steps = _steps(quality, tables)[:, :, None, None]
    ycc = torch.einsum("ij,bjyx->biyx", to_ycc, 255 * images).round()
    luma = _quantized(ycc[:, :1] - 128, steps[:, :1], dct)
    color = _quantized(ycc[:, 1:], steps[:, 1:], dct)
    half = _quantized(F.avg_pool2d(ycc[:, 1:], 2).round(), steps[:, 1:], dct)
    half = F.interpolate(half, scale_factor=2.0, mode="bilinear", align_corners=False).round()
    ycc = torch.cat([luma + 128, torch.where(halved[:, None, None, None], half, color)], 1)
    images = torch.einsum("ij,bjyx->biyx", to_rgb, ycc).round().clamp(0, 255) / 255
    for dim, (side, first) in enumerate(zip(sides, origin, strict=True), 2):
        images = _lines(images, torch.arange(side, device=images.device) + first[:, None], dim)
    return images


def at_random(
    images: torch.Tensor, share: float, qualities: tuple[float, float], generator: torch.Generator
) -> torch.Tensor:
    """As `compressed`, but only a ``share`` of them, each in a quality of its own, three of four with halved colour."""
    count = len(images)
    used, quality, halved, rows, columns = torch.rand(5, count, generator=generator, device=images.device)
    low, high = qualities
    origin = (torch.stack([rows, columns]) * _UNIT).long()
    found = compressed(images, (low + (high - low) * quality).round(), origin, halved < 0.75)
    return torch.where((used < share)[:, None, None, None], found, images)


def _lines(images: torch.Tensor, at: torch.Tensor, dim: int) -> torch.Tensor:
    """Of each of [B, C, H, W] the rows (dim 2) or columns (dim 3) named in its row of ``at``."""
    return images.take_along_dim(at[:, None, :, None] if dim == 2 else at[:, None, None, :], dim)


def _quantized(planes: torch.Tensor, steps: torch.Tensor, dct: torch.Tensor) -> torch.Tensor:
    """[B, C, H, W], around zero, by blocks; ``steps`` [B, C or 1, 1, 1, 8, 8] of their frequencies."""
    blocks = planes.unflatten(3, (-1, _SIDE)).unflatten(2, (-1, _SIDE)).transpose(3, 4)  # [B, C, rows, columns, 8, 8]
    blocks = dct.mT @ ((dct @ blocks @ dct.mT / steps).round() * steps) @ dct
    return blocks.transpose(3, 4).flatten(4).flatten(2, 3).round().clamp(-128, 127)


def _steps(quality: torch.Tensor, tables: torch.Tensor) -> torch.Tensor:
    """[B] -> [B, 2, 8, 8], of luma and colour: the standard's tables (Annex K), scaled as libjpeg does."""
    percent = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality).floor()
    return ((percent[:, None, None, None] * tables + 50) / 100).floor().clamp(1, 255)


@cache
def _constants(device: torch.device) -> tuple[torch.Tensor, ...]:
    """To YCC, to RGB, the tables and the DCT: on the device once, since a CUDA graph must not ask the host for them."""
    return tuple(t.to(device) for t in (_YCC, torch.linalg.inv(_YCC), _tables(), _dct()))


def _tables() -> torch.Tensor:
    """[2, 8, 8]; libjpeg's quality 50 has them as they are."""
    with Image.open(_file(Image.new("RGB", (1, 1)), 50)) as image:
        tables = [image.quantization[i] for i in range(2)]
    return torch.tensor(tables, dtype=torch.float32).view(2, _SIDE, _SIDE)


def _dct() -> torch.Tensor:
    """The orthonormal DCT-II: row k is frequency k."""
    k, x = torch.arange(_SIDE)[:, None], torch.arange(_SIDE)
    wave = torch.cos((2 * x + 1) * k * math.pi / (2 * _SIDE)) * math.sqrt(2 / _SIDE)
    wave[0] /= math.sqrt(2)
    return wave


def _file(image: Image.Image, quality: int) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality, subsampling="4:2:0")
    return file
