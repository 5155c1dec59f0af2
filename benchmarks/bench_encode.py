"""Encoder and the convolution that the decoder begins with: ours beside PyTorch's, at widths 16 to 64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from conftest import PAPER, random_weights
from liif_fast.encoder import Encoder
from liif_fast.native_encoder import NativeEncoder
from liif_fast.ops import Decoder
from liif_fast.resample import Resampler
from liif_fast.upscaler import PRECISIONS

SIZES = {"128²": (128, 128), "270p": (270, 480), "1080p": (1080, 1920)}
# (blocks, features, hidden layers, decoder)
NETWORKS = {"16x64": (16, 64, PAPER, "liif"), "4x32": (4, 32, (32,), "resample"), "4x16": (4, 16, (32,), "resample")}


@pytest.mark.parametrize("encoder", [Encoder, NativeEncoder], ids=["PyTorch", "ours"])
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("size", SIZES)
def test_encode(
    report: Callable, precision: str, threads: int, size: str, network: str, encoder: type[Encoder]
) -> None:
    if size == "1080p" and threads == 1:
        pytest.skip("the rate of the 270p picture")
    blocks, features, hidden, decoder = NETWORKS[network]
    device, dtype = torch.device("cpu"), PRECISIONS[precision]
    weights = random_weights(hidden, blocks, features, decoder)
    head = (Decoder if decoder == "liif" else Resampler)(weights, device, dtype).head
    encode = encoder(weights, head, device, dtype)
    height, width = SIZES[size]
    image = torch.rand(height, width, 3)
    report(lambda: encode(image), pixels=height * width, flops=height * width * encode.flops_per_cell)
