"""The decoder alone: scales, widths, depths, output types. Its rate does not depend on the picture's size, so that is
small."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from conftest import PAPER, in_8_bits, native, random_weights
from liif_fast import grid
from liif_fast.backends import cpu
from liif_fast.ops import Decoder
from liif_fast.quantization import INT8
from liif_fast.upscaler import PRECISIONS

CPU = torch.device("cpu")
ABLE = [name for name in PRECISIONS if native(name)] + ["int8"] * (cpu.unavailable(CPU, INT8.dtype) is None)


@pytest.fixture(params=ABLE)
def precision(request: pytest.FixtureRequest) -> str:
    """Of the decoder alone, so in int8 too."""
    return str(request.param)


def job(
    hidden: tuple[int, ...], precision: str, scale: float, side: int, dtype: torch.dtype
) -> tuple[Callable, int, float]:
    """A decode of ``side`` x ``side`` output pixels, that number of pixels, and its floating point operations."""
    cells = max(1, round(side / scale))
    weights = random_weights(hidden, blocks=1)
    if precision == "int8":
        weights = in_8_bits(weights, INT8)
    decoder = Decoder(weights, CPU, PRECISIONS[precision])
    z = torch.randn(cells, cells, hidden[0]).to(decoder.dtype)
    axis = grid.axis(grid.centres(0, cells, side), cells)
    out = torch.empty(side, side, 3, dtype=dtype)
    cell = (2 / scale, 2 / scale)
    return lambda: decoder(z, axis, axis, cell, out), side * side, side * side * decoder.flops_per_pixel


@pytest.mark.parametrize("scale", [2, 3.7, 4, 8])
def test_decode_scales(report: Callable, precision: str, threads: int, scale: float) -> None:
    work, pixels, flops = job(PAPER, precision, scale, 256, torch.uint8)
    report(work, pixels=pixels, flops=flops)


@pytest.mark.parametrize("hidden", [(16, 16), (32, 32), (64, 64), (128, 128, 128), (256, 256)], ids=str)
def test_decode_widths(report: Callable, precision: str, threads: int, hidden: tuple[int, ...]) -> None:
    work, pixels, flops = job(hidden, precision, 4, 1024 if hidden[0] <= 64 else 384, torch.uint8)
    report(work, pixels=pixels, flops=flops)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float32], ids=str)
def test_decode_outputs(report: Callable, precision: str, dtype: torch.dtype) -> None:
    work, pixels, flops = job((32, 32), precision, 4, 1024, dtype)
    report(work, pixels=pixels, flops=flops)
