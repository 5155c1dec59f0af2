"""Encoder and projection: 128² to 1080p."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from conftest import random_weights
from liif_fast.encoder import Encoder
from liif_fast.ops import Decoder
from liif_fast.upscaler import PRECISIONS


@pytest.mark.parametrize(("height", "width"), [(128, 128), (270, 480), (1080, 1920)], ids=["128²", "270p", "1080p"])
def test_encode(report: Callable, precision: str, threads: int, height: int, width: int) -> None:
    if height == 1080 and threads == 1:
        pytest.skip("the rate of the 270p picture")
    device, dtype, weights = torch.device("cpu"), PRECISIONS[precision], random_weights()
    encoder = Encoder(weights, Decoder(weights, device, dtype).head, device, dtype)
    image = torch.rand(height, width, 3)
    report(lambda: encoder(image), pixels=height * width, flops=height * width * encoder.flops_per_cell)
