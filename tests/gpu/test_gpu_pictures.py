"""Every way to a picture on a device, in fp16: near that on a processor in fp32."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
import torch

from common import random_weights
from liif_fast import Upscaler
from liif_fast.checkpoint import Architecture, Weights

compiled = torch.cuda.is_available() and os.environ["TRITON_INTERPRET"] != "1"
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not compiled, reason="for a CUDA device; `make test-gpu`")]

RGBA = np.random.default_rng(0).random((7, 9, 4), np.float32)
SEVERAL = torch.rand(2, 4, 7, 9, generator=torch.Generator().manual_seed(0))
POINTS = torch.rand(9, 2, generator=torch.Generator().manual_seed(1)) * 7


@pytest.fixture(params=["liif", "resample"])
def weights(request: pytest.FixtureRequest) -> Weights:
    return random_weights(Architecture(1, 16, (16,), decoder=request.param))


def check(found: Any, wanted: Any) -> None:
    found, wanted = (torch.as_tensor(picture) for picture in (found, wanted))
    assert found.shape == wanted.shape
    assert found.dtype == wanted.dtype
    assert (found.cpu() - wanted).abs().max() < 5e-3


def test_pictures(weights: Weights) -> None:
    there, here = Upscaler(weights, device="cuda"), Upscaler(weights, device="cpu", precision="fp32")
    assert ", fp16, triton (Triton " in there.description
    check(there(RGBA, scale=2.3), here(RGBA, scale=2.3))
    check(there(SEVERAL.cuda(), scale=(2, 1.5)), here(SEVERAL, scale=(2, 1.5)))
    check(there(SEVERAL[:, :1].cuda(), scale=2), here(SEVERAL[:, :1], scale=2))
    check(np.concatenate(list(there.bands(RGBA, (15, 16)))), here(RGBA, size=(15, 16)))
    for found, frame in zip(there.stream(iter(SEVERAL[:, :3].cuda()), scale=2), SEVERAL[:, :3], strict=True):
        assert found.is_cuda
        check(found, here(frame, scale=2))


def test_tiles(weights: Weights) -> None:
    picture = SEVERAL[0, :3].repeat(1, 1, 7)
    there = Upscaler(weights, device="cuda", max_memory=1)
    check(there(picture.cuda(), scale=2), Upscaler(weights, device="cpu", precision="fp32")(picture, scale=2))


def test_fields(weights: Weights) -> None:
    there, here = Upscaler(weights, device="cuda"), Upscaler(weights, device="cpu", precision="fp32")
    fields, exact = [there.encode(SEVERAL[0].cuda()), there.encode(SEVERAL[0])], here.encode(SEVERAL[0])
    for field in fields:
        window: dict[str, Any] = {"size": (5, 6), "box": (1.5, 2, 6, 8)}
        check(field.render(**window), exact.render(**window))
        for points in (POINTS, POINTS.cuda()):
            check(field.sample(points), exact.sample(POINTS))


def test_orientations() -> None:
    """In fp32, as each of eight adds its rounding."""
    weights = random_weights(Architecture(1, 16, (16,), decoder="resample"))
    found, wanted = (
        Upscaler(weights, device=device, precision="fp32", self_ensemble=True)(RGBA, scale=2)
        for device in ("cuda", "cpu")
    )
    check(found, wanted)
