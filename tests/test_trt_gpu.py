"""Engines on a real CUDA device: the picture, sizes, streams, threads, cache. Skipped where there is none."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from common import BF16, FP32, GOLDEN, random_weights
from liif_fast import Upscaler, engine_cache, trt_engine
from liif_fast.checkpoint import Architecture, Weights, load
from liif_fast.encoder import Encoder, Head
from liif_fast.trt_engine import FLAVOURS, LEAST_PSNR, TensorRTEncoder
from liif_fast.upscaler import DECODERS

CUDA = torch.device("cuda", 0)
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here"),
]
WEIGHTS = {
    "tiny": load(GOLDEN / "tiny.pth"),
    "baseline": load("edsr-baseline"),
    "resample": random_weights(Architecture(2, 16, (16,), decoder="resample")),
    "rectified": random_weights(Architecture(2, 16, (16,), decoder="resample", relu_after_add=True)),
}


@pytest.fixture(params=FLAVOURS)
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    if reason := trt_engine.unavailable(request.param, CUDA, BF16):
        pytest.skip(reason)
    # Building takes minutes with plain TensorRT, so that a folder from outside may be kept between runs.
    monkeypatch.setenv(engine_cache.FOLDER_VARIABLE, os.environ.get("LIIF_FAST_TEST_CACHE", str(tmp_path)))
    return str(request.param)


def head_of(weights: Weights) -> Head:
    return DECODERS[weights.architecture.decoder](weights, CUDA, FP32, "reference").head


def distance(z: torch.Tensor, expected: torch.Tensor) -> float:
    """PSNR in dB, the range of what is expected as the peak."""
    error = (z.double() - expected.double()).square().mean()
    return float(20 * torch.log10(expected.max() - expected.min()) - 10 * torch.log10(error + 1e-30))


@pytest.mark.parametrize("dtype", list(LEAST_PSNR))
@pytest.mark.parametrize("name", WEIGHTS)
def test_features(engine: str, name: str, dtype: torch.dtype) -> None:
    weights = WEIGHTS[name]
    found = TensorRTEncoder(engine, weights, head_of(weights), CUDA, dtype)
    exact = Encoder(weights, head_of(weights), CUDA, FP32)
    # One pixel, odd sides, and portrait beyond the rows of the profile, which goes through in tiles.
    for height, width in [(1, 1), (1, 47), (13, 17), (97, 1), (271, 483), (2311, 67)]:
        image = torch.rand(height, width, 3, device=CUDA)
        z = found(image)
        assert (z.dtype, tuple(z.shape), z.is_contiguous()) == (dtype, (height, width, found.width), True)
        assert distance(z, exact(image)) > LEAST_PSNR[dtype]


def test_streams_and_threads(engine: str) -> None:
    weights = WEIGHTS["tiny"]
    found = TensorRTEncoder(engine, weights, head_of(weights), CUDA, BF16)
    images = [torch.rand(20 + i, 50 - i, 3, device=CUDA) for i in range(16)]
    expected = [found(image).clone() for image in images]
    torch.cuda.synchronize()

    def on_its_own(image: torch.Tensor) -> torch.Tensor:
        stream = torch.cuda.Stream(CUDA)
        with torch.cuda.stream(stream):
            z = found(image)
        stream.synchronize()
        return z

    with ThreadPoolExecutor(4) as pool:
        for z, one in zip(pool.map(on_its_own, images), expected, strict=True):
            assert torch.equal(z, one)


def test_found_again(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    weights, image = WEIGHTS["tiny"], torch.rand(13, 17, 3, device=CUDA)
    first = TensorRTEncoder(engine, weights, head_of(weights), CUDA, BF16)(image)
    monkeypatch.setattr(trt_engine, "build", lambda *_: pytest.fail("built twice"))
    assert torch.equal(TensorRTEncoder(engine, weights, head_of(weights), CUDA, BF16)(image), first)


def test_upscaler(engine: str) -> None:
    picture = np.random.default_rng(0).random((41, 53, 3), np.float32)
    up = Upscaler("edsr-baseline", device="cuda", precision="bf16", engine=engine)
    assert engine in up.description
    plain = Upscaler("edsr-baseline", device="cuda", precision="bf16", engine="torch")
    exact = Upscaler("edsr-baseline", device="cuda", precision="fp32", engine="torch")(picture, scale=3.7)
    ours, theirs = (float(np.square(one(picture, scale=3.7) - exact).mean()) for one in (up, plain))
    assert ours < 4 * theirs
