"""Hidden layers in 8 bits: what they read on real pictures, and what rounding makes of it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from .. import engines, grid
from ..checkpoint import Weights
from ..console import explain
from ..ops import Decoder
from ..quantization import FP8, INT8, measure
from ..upscaler import Upscaler
from .data import picture_files
from .metrics import PROTOCOLS
from .testset import Skipped, pair, read

# A detail of each picture, so wide, reduced by each of these in turn, and so many places of it.
DETAIL, SCALES, PLACES = 256, (2.0, 3.0, 4.0, 1.5), 128
PICTURES, COMPARED, LEAST = 100, 4, 64
# Pictures that are harder than any photograph: sides in pixels of their squares and of themselves, and places.
SQUARES, EXTREME, EXTREME_PLACES = (1, 2, 3, 5, 8), 96, 1024


def calibrate(weights: Weights, folders: Sequence[Path], pictures: int = PICTURES) -> Weights:
    """The same network with `Weights.quantized`, measured on at most ``pictures`` spread over those in ``folders``.

    What channels may hold in int8 is taken from noise, checks and stripes of full contrast too, whose values are
    several times as large as any photograph's, each channel's in its own way; float8's range is wide enough.

    The same folders give the same; others take the place of files that cannot be read, with a UserWarning, or are too
    small. ValueError for a network without hidden layers that could run in 8 bits, and where there are no pictures;
    FileNotFoundError and NotADirectoryError for what is no folder.
    """
    if weights.architecture.decoder != "liif" or len(weights.architecture.hidden_list) < 2:
        raise ValueError(f"{weights.name} has no hidden layers to run in 8 bits")
    with torch.inference_mode():
        outputs = list(_first_outputs(weights, _reduced(_spread(folders, pictures)), PLACES))
        if not outputs:
            raise ValueError(f"no picture of {LEAST} x {LEAST} pixels or more in {', '.join(map(str, folders))}")
        h = torch.cat(outputs)
        extreme = torch.cat(list(_first_outputs(weights, _extremes(), EXTREME_PLACES)))
        hidden = weights.imnet[1:-1]
        found = {"fp8": measure(FP8, hidden, h), "int8": measure(INT8, hidden, h, extreme)}
    return replace(weights, quantized=found)


def losses(weights: Weights, folders: Sequence[Path], pictures: int = COMPARED) -> dict[str, float]:
    """PSNR in dB of each of `Weights.quantized` to float32, on details of ``pictures`` spread over those in
    ``folders``, that with the least. ValueError where one gives NaN or infinity."""
    exact, *others = (
        Upscaler(weights, device="cpu", precision=name, backend="reference") for name in ("fp32", *weights.quantized)
    )
    found = dict.fromkeys(weights.quantized, math.inf)
    for lr, size in _reduced(_spread(folders, pictures)):
        image = lr.astype(np.float32) / 255
        truth = exact(image, size=size)
        for name, up in zip(found, others, strict=True):
            error = float(np.mean((up(image, size=size) - truth) ** 2))
            if not math.isfinite(error):
                raise ValueError(f"{weights.name} gives NaN or infinity in {name}: measure it on more pictures")
            found[name] = min(found[name], -10 * math.log10(error) if error else math.inf)
    return found


def _spread(folders: Sequence[Path], count: int) -> Iterator[np.ndarray]:
    """At most ``count`` pictures that can be used, one in memory at a time."""
    paths = [path for folder in folders for path in picture_files(folder)]
    first = np.linspace(0, max(0, len(paths) - 1), count).round().astype(int).tolist()
    order = dict.fromkeys([*first, *range(len(paths))]) if paths else []
    return islice((picture for i in order if (picture := _large(paths[i])) is not None), count)


def _large(path: Path) -> np.ndarray | None:
    """None where it is too small or no picture."""
    try:
        picture = read(path)
    except (ValueError, OSError) as error:
        warnings.warn(f"{Skipped(path, None, explain(error))}, skipped", stacklevel=2)
        return None
    return picture if min(picture.shape[:2]) >= LEAST else None


def _reduced(pictures: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, tuple[int, int]]]:
    """A random detail of each, reduced, and its size before."""
    random = np.random.default_rng(0)
    for i, picture in enumerate(pictures):
        top, left = (int(random.integers(0, max(1, side - DETAIL + 1))) for side in picture.shape[:2])
        detail = picture[top : top + DETAIL, left : left + DETAIL]
        found = pair("", detail, SCALES[i % len(SCALES)], PROTOCOLS["benchmark"])
        yield found.lr, found.hr.shape[:2]


def _extremes() -> Iterator[tuple[np.ndarray, tuple[int, int]]]:
    """Noise, checks and stripes, of black and white and of colours, with the size that they are enlarged to."""
    random = np.random.default_rng(0)
    for i, side in enumerate(SQUARES):
        count = -(-EXTREME // side)
        y, x = np.indices((count, count))
        shares = [
            random.integers(0, 2, (count, count, 3)),
            random.integers(0, 2, (count, count, 1)),
            random.random((count, count, 3)),
            ((x + y) % 2)[..., None],
            (x % 2)[..., None],
        ]
        for j, share in enumerate(shares):
            levels = (255 * np.broadcast_to(share, (count, count, 3))).round().astype(np.uint8)
            picture = levels.repeat(side, 0).repeat(side, 1)[:EXTREME, :EXTREME]
            size = round(EXTREME * SCALES[(i + j) % len(SCALES)])
            yield np.ascontiguousarray(picture), (size, size)


def _first_outputs(
    weights: Weights, pictures: Iterable[tuple[np.ndarray, tuple[int, int]]], places: int
) -> Iterator[torch.Tensor]:
    """Rectified outputs [N, width] of the first hidden layer at random places of pictures [h, w, 3] enlarged to a
    size."""
    cpu = torch.device("cpu")
    decoder = Decoder(weights, cpu, torch.float32, "reference")
    encoder = engines.make("auto", weights, decoder.head, cpu, torch.float32)
    first_y, first_x = decoder.layers[:2]
    random = np.random.default_rng(0)
    for picture, size in pictures:
        z = encoder(torch.from_numpy(picture))
        sides = list(zip(picture.shape[:2], size, strict=True))
        y, x = (
            decoder.tables((random.integers(0, large, places) + 0.5) * cells / large, cells, 0.0)
            for cells, large in sides
        )
        cell = torch.tensor([grid.cell(0, cells, large, None) for cells, large in sides])
        term = decoder.first_cell @ cell[: decoder.first_cell.shape[1]]
        for sy in range(len(y.index)):
            for sx in range(len(x.index)):
                offsets = first_y * y.offset[sy][:, None] + first_x * x.offset[sx][:, None]
                yield F.relu(z[y.index[sy].long(), x.index[sx].long()] + term + offsets)
