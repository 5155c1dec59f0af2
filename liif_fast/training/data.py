"""Training pictures as uint8 in device memory, and batches of patches cut, augmented and reduced there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..batch import INPUT_SUFFIXES, check_folder
from ..console import explain
from .edges import Edges
from .resize import area_matrices, matrices, nearest_matrices
from .testset import Skipped, read


@dataclass(frozen=True)
class Batch:
    """``lr`` float32 [B, 3, patch, patch] in [0, 1], 8-bit values. ``y``, ``x`` float64 [B * Q]: places of the
    queries in pixels of their patch, or of the rows and columns of a grid of them. ``cell`` [B, 2]. ``target`` float32
    [B, Q, 3], or [B, Q, Q, 3] of a grid, in [0, 1]. ``share``: of each query in the loss, [B, 1] or [B, Q, Q]; a
    batch's sum to one."""

    lr: torch.Tensor
    y: torch.Tensor
    x: torch.Tensor
    cell: torch.Tensor
    target: torch.Tensor
    share: torch.Tensor


class Pictures:
    """Pictures one after another in one uint8 tensor on ``device``.

    Args:
        arrays: uint8 [H, W, 3] each, of any sizes.
        drawings: how many of them, at the end, are drawings: of their patches a quarter is reduced by area average and
            a quarter by nearest pixel, since programs draw edges as hard as that.
        places: random places in a picture, of which a patch takes the one with the strongest edges.

    Attributes:
        fixed: whether all batches have one shape, as a CUDA graph asks, and nothing is asked of the device meanwhile.
    """

    def __init__(self, arrays: Sequence[np.ndarray], device: torch.device, drawings: int = 0, places: int = 1) -> None:
        self.photographs, self.places, self.fixed = len(arrays) - drawings, places, device.type != "cpu"
        sides = [min(array.shape[:2]) for array in arrays]
        self._least, self._largest = min(sides), max(sides)
        self.edges = Edges(arrays, device) if places > 1 else None
        self.pixels = torch.from_numpy(np.concatenate([a.reshape(-1, 3) for a in arrays])).to(device)
        self.height, self.width = (
            torch.tensor([a.shape[axis] for a in arrays], dtype=torch.int64, device=device) for axis in (0, 1)
        )
        areas = self.height * self.width
        self.start = areas.cumsum(0) - areas

    def __len__(self) -> int:
        return len(self.start)

    def digest(self) -> list[int]:
        """What tells them from others: their number and the sum of their samples."""
        return [len(self), int(self.pixels.sum(dtype=torch.int64))]

    def batch(
        self,
        count: int,
        patch: int,
        queries: int | None,
        scales: tuple[float, float],
        generator: torch.Generator,
    ) -> Batch:
        """Random patches, each at a scale of its own, with random flips and transpositions.

        As the paper has it (section 4.1): the scale is uniform in ``scales``, the HR crop is ``round(patch * scale)``
        pixels wide (or what the picture has), the LR patch is that crop reduced by antialiased bicubic (drawings: see
        the class) and rounded to 8 bits, and ``queries`` HR pixels are drawn from the crop. None takes all of them, as
        a grid as wide as the widest crop (of any batch, where it is `fixed`), in which what is past a crop's own end
        has no share; then all patches have one scale.
        """
        device = self.pixels.device

        def uniform(*shape: int) -> torch.Tensor:
            return torch.rand(*shape, generator=generator, device=device, dtype=torch.float64)

        which = (uniform(count) * len(self)).long()
        low, high = scales
        smallest = torch.minimum(self.height, self.width)[which]
        scale = low + (high - low) * uniform(1 if queries is None else count)
        side = torch.minimum((scale * patch).round().long(), smallest)
        top, left = (
            (uniform(self.places, count) * (extent[which] - side + 1)).long() for extent in (self.height, self.width)
        )
        best = torch.zeros(1, count, dtype=torch.int64, device=device)
        if self.edges:
            best = self.edges.strength(which.expand_as(top), top, left, side.expand_as(top)).argmax(0, keepdim=True)
        top, left = (corners.gather(0, best).T for corners in (top, left))  # [count, 1]
        flip = uniform(3, count, 1) < 0.5

        widest = min(self._largest, math.floor(high * patch + 0.5)) if self.fixed else int(side.max())
        line = torch.arange(widest, device=device).expand(count, -1)
        # Past a crop's own end the last line repeats; it has no share in the LR patch.
        line = torch.minimum(line, side[:, None] - 1)
        width = self.width[which][:, None]
        rows = (top + torch.where(flip[0], side[:, None] - 1 - line, line)) * width
        columns = left + torch.where(flip[1], side[:, None] - 1 - line, line)
        first, second = torch.where(flip[2], columns, rows), torch.where(flip[2], rows, columns)

        at = self.start[which][:, None, None] + first[:, :, None] + second[:, None, :]
        hr = self.pixels[at].permute(0, 3, 1, 2).float()
        reduce = matrices(side, patch, widest, min(patch, self._least))
        drawn, way = (which >= self.photographs)[:, None, None], uniform(count, 1, 1)
        if self.photographs < len(self):
            reduce = torch.where(drawn & (way < 0.5), area_matrices(side, patch, widest), reduce)
            reduce = torch.where(drawn & (way < 0.25), nearest_matrices(side, patch, widest), reduce)
        reduce = reduce[:, None]
        lr = (reduce @ hr @ reduce.mT).round().clamp(0, 255) / 255

        ratio = patch / side.double()
        cell = (2 * ratio).float()[:, None].expand(-1, 2)
        if queries is None:
            place = ((line + 0.5) * ratio[:, None]).flatten()
            inside = torch.arange(widest, device=device) < side[:, None]
            share = (inside[:, :, None] & inside[:, None, :]) / (count * side.square())[:, None, None]
            return Batch(lr, place, place, cell, hr.permute(0, 2, 3, 1) / 255, share.float())
        pick = (uniform(2, count, queries) * side[:, None]).long()
        chosen = torch.take_along_dim(first, pick[0], 1) + torch.take_along_dim(second, pick[1], 1)
        target = self.pixels[self.start[which][:, None] + chosen].float() / 255
        y, x = (((p + 0.5) * ratio[:, None]).flatten() for p in pick)
        share = torch.full((count, 1), 1 / (count * queries), device=device)
        return Batch(lr, y, x, cell, target, share)


def load(folders: Sequence[Path], least: int) -> tuple[list[np.ndarray], list[Skipped]]:
    """All pictures in ``folders`` and below as uint8 [H, W, 3]; the unreadable and those with a side under ``least``
    are skipped.

    Raises FileNotFoundError for a missing folder, ValueError where nothing is left.
    """
    arrays: list[np.ndarray] = []
    skipped: list[Skipped] = []
    small = 0
    for path in (path for folder in folders for path in picture_files(folder)):
        try:
            picture = read(path)
        except (ValueError, OSError) as error:
            skipped.append(Skipped(path, None, explain(error)))
            continue
        height, width = picture.shape[:2]
        if min(height, width) < least:
            small += 1
            skipped.append(Skipped(path, None, f"{width} x {height} pixels, {least} x {least} are needed"))
        else:
            arrays.append(picture)
    if not arrays:
        kinds = ((small, f"with a side of less than {least} pixels"), (len(skipped) - small, "that cannot be read"))
        counts = ", ".join(f"{count} {kind}" for count, kind in kinds if count)
        reason = f" ({counts}; first: {skipped[0]})" if skipped else ""
        raise ValueError(f"no usable training picture in {', '.join(map(str, folders))}{reason}")
    return arrays, skipped


def halved(picture: np.ndarray) -> np.ndarray:
    """A picture, uint8 [H, W, 3], at half its size: denser in detail than what a camera gives pixel by pixel."""
    height, width = picture.shape[:2]
    return np.asarray(Image.fromarray(picture).resize((width // 2, height // 2), Image.Resampling.BICUBIC))


def picture_files(folder: Path) -> list[Path]:
    """In a folder and below, by name; hidden ones, and those in hidden folders, are left out. FileNotFoundError and
    NotADirectoryError where there is no such folder."""
    check_folder(folder)
    found = (path for path in folder.rglob("*") if path.suffix.lower() in INPUT_SUFFIXES and path.is_file())
    return sorted(p for p in found if not any(part.startswith(".") for part in p.relative_to(folder).parts))
