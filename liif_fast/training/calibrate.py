"""Scales for float8: what a network's hidden layers read on real pictures, and what rounding makes of it."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from .. import engines, fp8, grid
from ..checkpoint import Weights
from ..console import explain
from ..ops import Decoder
from .data import picture_files
from .metrics import PROTOCOLS
from .testset import Skipped, pair, read

# A detail of each picture, so wide, reduced by each of these in turn, and so many places of it.
DETAIL, SCALES, PLACES = 256, (2.0, 3.0, 4.0, 1.5), 128
PICTURES, LEAST = 100, 64


def calibrate(weights: Weights, folders: Sequence[Path], pictures: int = PICTURES) -> Weights:
    """The same network with `Weights.fp8`, measured on at most ``pictures`` spread over those in ``folders``.

    The same folders give the same; a file that cannot be read is skipped, with a UserWarning. ValueError for a network
    without hidden layers that could run in float8, and where there are no pictures; FileNotFoundError for a missing
    folder.
    """
    if weights.architecture.decoder != "liif" or len(weights.architecture.hidden_list) < 2:
        raise ValueError(f"{weights.name} has no hidden layers to run in fp8")
    paths = [path for folder in folders for path in picture_files(folder)]
    if not paths:
        raise ValueError(f"no picture in {', '.join(map(str, folders))}")
    spread = np.unique(np.linspace(0, len(paths) - 1, pictures).round().astype(int))
    chosen = (picture for i in spread if (picture := _large(paths[i])) is not None)  # one in memory at a time
    with torch.inference_mode():
        outputs = list(_first_outputs(weights, chosen, np.random.default_rng(0)))
        if not outputs:
            raise ValueError(f"no picture in {', '.join(map(str, folders))} has {LEAST} x {LEAST} pixels")
        h = torch.cat(outputs)
        found = fp8.measure(weights.imnet[1:-1], h)
    return replace(weights, fp8=found)


def _large(path: Path) -> np.ndarray | None:
    """None where it is too small or no picture."""
    try:
        picture = read(path)
    except (ValueError, OSError) as error:
        warnings.warn(f"{Skipped(path, None, explain(error))}, skipped", stacklevel=2)
        return None
    return picture if min(picture.shape[:2]) >= LEAST else None


def _first_outputs(
    weights: Weights, pictures: Iterable[np.ndarray], random: np.random.Generator
) -> Iterator[torch.Tensor]:
    """Rectified outputs [N, width] of the first hidden layer at random places of each picture's detail."""
    cpu = torch.device("cpu")
    decoder = Decoder(weights, cpu, torch.float32, "reference")
    encoder = engines.make("auto", weights, decoder.head, cpu, torch.float32)
    first_y, first_x = decoder.layers[:2]
    for i, picture in enumerate(pictures):
        top, left = (int(random.integers(0, max(1, side - DETAIL + 1))) for side in picture.shape[:2])
        detail = picture[top : top + DETAIL, left : left + DETAIL]
        reduced = pair("", detail, SCALES[i % len(SCALES)], PROTOCOLS["benchmark"])
        z = encoder(torch.from_numpy(reduced.lr))
        sizes = list(zip(reduced.lr.shape[:2], reduced.hr.shape[:2], strict=True))
        y, x = (
            decoder.tables((random.integers(0, size, PLACES) + 0.5) * cells / size, cells, 0.0) for cells, size in sizes
        )
        cell = torch.tensor([grid.cell(0, cells, size, None) for cells, size in sizes])
        term = decoder.first_cell @ cell[: decoder.first_cell.shape[1]]
        for sy in range(len(y.index)):
            for sx in range(len(x.index)):
                offsets = first_y * y.offset[sy][:, None] + first_x * x.offset[sx][:, None]
                yield F.relu(z[y.index[sy].long(), x.index[sx].long()] + term + offsets)
