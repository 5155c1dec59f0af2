"""Test pictures: a folder of them, and each as a pair of itself (HR) and its reduction (LR)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from .. import files
from ..batch import INPUT_SUFFIXES, check_folder
from ..console import explain
from . import film
from .jpeg import saved
from .metrics import SSIM_WINDOW, Protocol
from .resize import resize


@dataclass(frozen=True)
class Pair:
    """What a network is given, ``lr`` uint8 [h, w, 3], and what it should answer, ``hr`` uint8 [H, W, 3]."""

    name: str
    scale: float
    lr: np.ndarray
    hr: np.ndarray


@dataclass(frozen=True)
class Compression:
    """What pictures go through once they are reduced: a JPEG file of a quality, or a film by libx264 of a CRF."""

    codec: Literal["JPEG", "H.264"]
    level: int

    def __str__(self) -> str:
        return f"{self.codec} of {'quality' if self.codec == 'JPEG' else 'CRF'} {self.level}"

    def unavailable(self) -> str | None:
        return film.unavailable() if self.codec == "H.264" else None

    def through(self, picture: np.ndarray) -> np.ndarray:
        """uint8 [H, W, 3]."""
        return (saved if self.codec == "JPEG" else film.filmed)(picture, self.level)


@dataclass(frozen=True)
class Skipped:
    """A picture left out, ``scale`` where only there, and why, in one line."""

    path: Path
    scale: float | None
    reason: str

    def __str__(self) -> str:
        named = self.reason if str(self.path) in self.reason else f"{self.path}: {self.reason}"
        return named if self.scale is None else f"{named}, skipped at x{self.scale:g}"


def find(folder: Path) -> list[Path]:
    """The picture files in a folder (not deeper), by name; hidden ones are left out.

    Raises FileNotFoundError or NotADirectoryError where there are none.
    """
    check_folder(folder)
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in INPUT_SUFFIXES and not p.name.startswith("."))
    if not paths:
        raise FileNotFoundError(f"{folder}: no picture in this folder")
    return paths


def read(path: Path) -> np.ndarray:
    """uint8 [H, W, 3], upright; gray is repeated, alpha left out, deeper samples rounded. Errors as `files.read`."""
    pixels, _ = files.read(path)
    color = pixels[..., :1] if pixels.shape[2] < 3 else pixels[..., :3]
    if color.dtype != np.uint8:
        top = 1.0 if color.dtype.kind == "f" else float(np.iinfo(color.dtype).max)
        color = to_bytes(color / top)
    return np.array(np.broadcast_to(color, (*color.shape[:2], 3)))


def pair(
    name: str, picture: np.ndarray, scale: float, protocol: Protocol, compression: Compression | None = None
) -> Pair:
    """A picture, uint8 [H, W, 3], and its reduction by MATLAB's bicubic, rounded to 8 bits and then compressed.

    Sizes are those of LIIF's code: LR is floor(H / scale), HR the upper left round(LR * scale), which for a whole
    scale is the crop to its multiple. ValueError for a picture too small for the protocol's border and SSIM.
    """
    height, width = picture.shape[:2]
    small = [math.floor(side / scale + 1e-9) for side in (height, width)]
    large = [round(side * scale) for side in small]
    least = 2 * protocol.shave(scale) + SSIM_WINDOW
    if min(large) < least:
        used = f"{width} x {height} pixels, of which {large[1]} x {large[0]} are used"
        raise ValueError(f"{used}, {least} x {least} are needed")
    hr = np.ascontiguousarray(picture[: large[0], : large[1]])
    planes = torch.from_numpy(hr).permute(2, 0, 1).double()
    lr = to_bytes(resize(planes, (small[0], small[1])).permute(1, 2, 0).numpy() / 255)
    return Pair(name, scale, compression.through(lr) if compression else lr, hr)


def pairs_of(
    path: Path, scales: Sequence[float], protocol: Protocol, compression: Compression | None = None
) -> tuple[list[Pair], list[Skipped]]:
    """A file's picture at each scale, and what was left out."""
    try:
        picture = read(path)
    except (ValueError, OSError) as error:
        return [], [Skipped(path, None, explain(error))]

    def at(scale: float) -> Pair | Skipped:
        try:
            return pair(path.name, picture, scale, protocol, compression)
        except ValueError as error:
            return Skipped(path, scale, str(error))

    found = [at(scale) for scale in scales]
    return [p for p in found if isinstance(p, Pair)], [s for s in found if isinstance(s, Skipped)]


def to_bytes(image: np.ndarray) -> np.ndarray:
    """Floats in [0, 1] (clamped to it) -> uint8, halves upwards as MATLAB does."""
    return np.floor(image.clip(0, 1) * 255 + 0.5).astype(np.uint8)
