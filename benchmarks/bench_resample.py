"""The resampling decoder alone, beside a copy of as many bytes and Pillow's and OpenCV's Lanczos to the same size."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import random_weights
from liif_fast import grid, pages
from liif_fast.resample import Resampler
from liif_fast.upscaler import PRECISIONS

CPU = torch.device("cpu")
HEIGHT, WIDTH = 270, 480


@pytest.mark.parametrize("scale", [2, 3.7, 4, 8])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32], ids=str)
def test_resample(report: Callable, precision: str, threads: int, scale: float, dtype: torch.dtype) -> None:
    weights = random_weights((16,), blocks=1, features=16, decoder="resample")
    decoder = Resampler(weights, CPU, PRECISIONS[precision])
    rows, columns = round(scale * HEIGHT), round(scale * WIDTH)
    cell = 2 / scale
    y, x = (decoder.tables(grid.centres(0, n, size), n, cell) for n, size in ((HEIGHT, rows), (WIDTH, columns)))
    z = pages.empty(HEIGHT, WIDTH, 48, dtype=PRECISIONS[precision]).copy_(torch.rand(HEIGHT, WIDTH, 48))
    out = pages.empty(rows, columns, 3, dtype=dtype)
    report(lambda: decoder(z, y, x, (cell, cell), out), pixels=rows * columns)


def test_copy(report: Callable) -> None:
    """Of as many bytes as the resampler reads and writes at x4, by one thread."""
    source = np.ones(HEIGHT * WIDTH * 48 + HEIGHT * WIDTH * 12, np.float32)
    target = np.empty_like(source)
    report(lambda: np.copyto(target, source), pixels=16 * HEIGHT * WIDTH)


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_pillow_lanczos(report: Callable, scale: int) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8))
    size = (scale * WIDTH, scale * HEIGHT)
    report(lambda: picture.resize(size, Image.Resampling.LANCZOS), pixels=size[0] * size[1])


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_opencv_lanczos(report: Callable, threads: int, scale: int) -> None:
    """Over 8 x 8 pixels, as ours. OpenCV is no dependency: where it is installed."""
    cv2 = pytest.importorskip("cv2")
    cv2.setNumThreads(threads)
    picture = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    size = (scale * WIDTH, scale * HEIGHT)
    report(lambda: cv2.resize(picture, size, interpolation=cv2.INTER_LANCZOS4), pixels=size[0] * size[1])
