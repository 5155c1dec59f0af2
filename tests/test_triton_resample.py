"""The Triton resampler, interpreted, against float64."""

from __future__ import annotations

from importlib import import_module

import numpy as np
import pytest
import torch

from common import BF16, CPU, FP16, FP32
from interpreted import Spy, interpret
from liif_fast import grid
from liif_fast.pixels import OUT_RANGE
from liif_fast.resample import Resampler, shares
from test_resample import MLP, SCALES, SMALL, WEIGHTS, check_decoder

pytest.importorskip("triton")


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Spy:
    return interpret(monkeypatch, import_module("liif_fast.kernels.resample"), "resample")


@pytest.mark.parametrize("dtype", [FP16, BF16], ids=str)
@pytest.mark.parametrize("out_dtype", OUT_RANGE, ids=str)
def test_decodes(kernel: Spy, dtype: torch.dtype, out_dtype: torch.dtype) -> None:
    check_decoder(Resampler(WEIGHTS, CPU, dtype, "triton"), out_dtype, SMALL)
    assert len(kernel.launches) == 3 * len(SMALL), "another backend answered"


@pytest.mark.parametrize("scale", SCALES)
def test_scales(kernel: Spy, scale: float) -> None:
    check_decoder(
        Resampler(WEIGHTS, CPU, FP16, "triton"), FP32, [((2, 3), (max(1, round(2 * scale)), round(3 * scale)))]
    )


def test_points(kernel: Spy) -> None:
    z = torch.randn(5, 6, 48).half()
    places = np.random.default_rng(0).random((2, 99))
    y, x = (grid.taps(p * n, n, lambda d: shares(d, 0.5, MLP)) for p, n in zip(places, (5, 6), strict=True))
    found, wanted = torch.empty(99, 3), torch.empty(99, 3)
    Resampler(WEIGHTS, CPU, FP16, "triton")(z, y, x, (0.5, 0.5), found, paired=True)
    Resampler(WEIGHTS, CPU, FP16, "reference")(z, y, x, (0.5, 0.5), wanted, paired=True)
    torch.testing.assert_close(found, wanted, atol=3e-6, rtol=0)
    assert len(kernel.launches) == 1
