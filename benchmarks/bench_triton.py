"""The Triton decoders on a CUDA device: milliseconds, TFLOP/s and share of a large bf16 matrix product's rate.

Skipped without a device; `make bench-gpu`.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import pytest
import torch

from conftest import PAPER, in_8_bits, random_weights
from liif_fast import grid
from liif_fast.kernels.tuning import BUSY
from liif_fast.ops import Decoder
from liif_fast.quantization import FP8
from liif_fast.resample import Resampler
from liif_fast.upscaler import PRECISIONS

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
CARD = torch.device("cuda", 0)
LARGE = 8192  # side of the matrix product that is the yardstick
RUNS = 20


def milliseconds(work: Callable[[], object]) -> list[float]:
    """Sorted times on the device, after warming up, as a CUDA graph that is queued while it is busy: what the host
    checks, waits for and launches is no part."""
    for _ in range(3):
        work()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    times = []
    for _ in range(RUNS):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda._sleep(BUSY)
        start.record()
        graph.replay()
        stop.record()
        stop.synchronize()
        times.append(start.elapsed_time(stop))
    return sorted(times)


@pytest.fixture(scope="module")
def yardstick() -> float:
    """TFLOP/s of PyTorch's [8192, 8192] x [8192, 8192] in bf16."""
    a, b = (torch.randn(LARGE, LARGE, device=CARD, dtype=torch.bfloat16) for _ in range(2))
    return 2 * LARGE**3 / statistics.median(milliseconds(lambda: a @ b)) / 1e9


@pytest.mark.parametrize("precision", ["fp16", "bf16", "fp8"])
@pytest.mark.parametrize("hidden", [PAPER, (256, 256), (128, 128), (64, 64)], ids=str)
@pytest.mark.parametrize("height", [270, 1080])
def test_decode(benchmark: Any, yardstick: float, height: int, hidden: tuple[int, ...], precision: str) -> None:
    """To 3840 x 2160."""
    weights = random_weights(hidden, blocks=1)
    if precision == "fp8":
        if torch.cuda.get_device_capability() < (8, 9):
            pytest.skip("no float8 here")
        weights = in_8_bits(weights, FP8)
    decoder = Decoder(weights, CARD, PRECISIONS[precision], "triton")
    z = torch.randn(height, height * 16 // 9, hidden[0], device=CARD).to(decoder.dtype)
    cell = 2 * height / 2160
    y, x = (grid.axis(grid.centres(0, n, s), n).to(CARD) for n, s in zip(z.shape[:2], (2160, 3840), strict=True))
    record(benchmark, lambda out: decoder(z, y, x, (cell, cell), out), decoder.flops_per_pixel, yardstick)


@pytest.mark.parametrize("height", [270, 540, 1080])
def test_resample(benchmark: Any, yardstick: float, height: int) -> None:
    """To 3840 x 2160."""
    weights = random_weights((16,), blocks=1, features=16, decoder="resample")
    decoder = Resampler(weights, CARD, torch.float16, "triton")
    z = torch.rand(height, height * 16 // 9, 48, device=CARD).half()
    cell = 2 * height / 2160
    y, x = (
        decoder.tables(grid.centres(0, n, s), n, cell).to(CARD) for n, s in zip(z.shape[:2], (2160, 3840), strict=True)
    )
    record(benchmark, lambda out: decoder(z, y, x, (cell, cell), out), decoder.flops_per_pixel, yardstick)


def record(benchmark: Any, decode: Callable[[torch.Tensor], object], flops: float, yardstick: float) -> None:
    out = torch.empty(2160, 3840, 3, dtype=torch.uint8, device=CARD)
    times = milliseconds(lambda: decode(out))
    rate = flops * 2160 * 3840 / statistics.median(times) / 1e9
    benchmark.extra_info |= {
        "device": torch.cuda.get_device_name(),
        "milliseconds": statistics.median(times),
        "milliseconds_min_max": [times[0], times[-1]],
        "tflops": rate,
        "gemm_tflops": yardstick,
        "share_of_gemm": rate / yardstick,
    }

    # The table's own clock, which includes the launch.
    def awaited() -> None:
        decode(out)
        torch.cuda.synchronize()

    benchmark.pedantic(awaited, rounds=RUNS, warmup_rounds=3)
