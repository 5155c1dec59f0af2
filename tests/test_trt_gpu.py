"""Engines on a real CUDA device: the picture, sizes, streams, threads, cache. Skipped where there is none."""

from __future__ import annotations

import math
import os
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from common import BF16, FP32, GOLDEN, head_of, random_weights
from liif_fast import Upscaler, engine_cache, trt_engine
from liif_fast.checkpoint import Architecture, load
from liif_fast.encoder import Encoder
from liif_fast.trt_engine import FLAVOURS, LEAST_PSNR, TensorRTEncoder

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


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Building takes minutes with plain TensorRT: once for all tests, and with a folder from outside for all runs."""
    return os.environ.get("LIIF_FAST_TEST_CACHE") or str(tmp_path_factory.mktemp("engines"))


@pytest.fixture(params=FLAVOURS)
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, folder: str) -> str:
    if reason := trt_engine.unavailable(request.param, CUDA, BF16):
        pytest.skip(reason)
    monkeypatch.setenv(engine_cache.FOLDER_VARIABLE, folder)
    return str(request.param)


def psnr(z: torch.Tensor, expected: torch.Tensor, peak: float | None = None) -> float:
    """In dB; the peak is the range of what is expected unless it is given."""
    peak = spread(expected) if peak is None else peak
    error = float((z.double() - expected.double()).square().mean())
    return 20 * math.log10(peak) - 10 * math.log10(error + 1e-30)


def spread(z: torch.Tensor) -> float:
    return float(z.max()) - float(z.min())


def same(engine: str, z: torch.Tensor, other: torch.Tensor) -> bool:
    """Bit for bit. What TensorRT for RTX compiles for a size may go by the sizes before it, but then it is close."""
    return torch.equal(z, other) or (engine == "tensorrt-rtx" and psnr(z, other) > LEAST_PSNR[z.dtype])


@pytest.mark.parametrize("dtype", list(LEAST_PSNR))
@pytest.mark.parametrize("name", WEIGHTS)
def test_features(engine: str, name: str, dtype: torch.dtype) -> None:
    weights = WEIGHTS[name]
    found = TensorRTEncoder(engine, weights, head_of(weights), CUDA, dtype)
    exact = Encoder(weights, head_of(weights), CUDA, FP32)
    # One pixel, odd sides, and portrait beyond the rows of the profile, which goes through in tiles.
    sizes = [(1, 1), (1, 47), (13, 17), (97, 1), (271, 483), (2311, 67)]
    images = [torch.rand(height, width, 3, device=CUDA) for height, width in sizes]
    wanted = [exact(image) for image in images]
    peak = max(map(spread, wanted))  # a single pixel's own may be next to nothing
    for (height, width), image, expected in zip(sizes, images, wanted, strict=True):
        z = found(image)
        assert (z.dtype, tuple(z.shape), z.is_contiguous()) == (dtype, (height, width, found.width), True)
        assert psnr(z, expected, peak) > LEAST_PSNR[dtype]


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
            assert same(engine, z, one)


def test_found_again(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    weights, image = WEIGHTS["tiny"], torch.rand(13, 17, 3, device=CUDA)
    first = TensorRTEncoder(engine, weights, head_of(weights), CUDA, BF16)(image)
    # What was compiled for the card as it ran, too.
    compiled = f"*-{engine.replace('-', '_')}-*-kernels.engine"
    assert any(engine_cache.folder().glob(compiled)) == (engine == "tensorrt-rtx")
    monkeypatch.setattr(trt_engine, "build", lambda *_: pytest.fail("built twice"))
    again = TensorRTEncoder(engine, weights, head_of(weights), CUDA, BF16)
    assert same(engine, again(image), first)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there are no two CUDA devices")
def test_another_device_than_the_current_one(engine: str) -> None:
    weights, image = WEIGHTS["tiny"], torch.rand(13, 17, 3)
    here, there = (
        TensorRTEncoder(engine, weights, head_of(weights), torch.device("cuda", i), BF16)(image.to(f"cuda:{i}"))
        for i in (0, 1)
    )
    assert there.device.index == 1
    assert psnr(there.to(CUDA), here) > LEAST_PSNR[BF16]  # it may be another card


@pytest.mark.parametrize("name", ["tiny", "resample"])
def test_frames_go_through_a_graph(engine: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = []
    replay = torch.cuda.CUDAGraph.replay
    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", lambda self: graphs.append(self) or replay(self))
    frames = list(np.random.default_rng(0).integers(0, 256, (9, 61, 83, 3), np.uint8))
    up = Upscaler(WEIGHTS[name], device="cuda", precision="bf16", engine=engine)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "frames are ")  # launched one kernel at a time
        found = list(up.stream(frames, scale=2))
    assert len(graphs) == len(frames) - 1  # the first goes the ordinary way
    for one, frame in zip(found, frames, strict=True):
        difference = np.abs(one.astype(int) - up(frame, scale=2))
        assert difference.max() <= (2 if engine == "tensorrt-rtx" else 0)  # see `same`


def test_upscaler(engine: str) -> None:
    picture = np.random.default_rng(0).random((41, 53, 3), np.float32)
    up = Upscaler("edsr-baseline", device="cuda", precision="bf16", engine=engine)
    assert engine in up.description
    plain = Upscaler("edsr-baseline", device="cuda", precision="bf16", engine="torch")
    exact = Upscaler("edsr-baseline", device="cuda", precision="fp32", engine="torch")(picture, scale=3.7)
    ours, theirs = (float(np.square(one(picture, scale=3.7) - exact).mean()) for one in (up, plain))
    assert ours < 4 * theirs
