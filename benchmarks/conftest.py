"""Networks, pictures and thread counts shared by the benchmarks. Weights do not change the time, so most are random."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from liif_fast.backends import cpu
from liif_fast.checkpoint import Architecture, Weights
from liif_fast.encoder import torch_threads
from liif_fast.quantization import Format, measure
from liif_fast.upscaler import PRECISIONS

PAPER = (256, 256, 256, 256)


def random_weights(
    hidden: tuple[int, ...] = PAPER, blocks: int = 16, features: int = 64, decoder: str = "liif"
) -> Weights:
    """A network of that shape whose activations stay of order one."""
    architecture = Architecture(blocks, features, hidden, decoder=decoder)
    generator = torch.Generator().manual_seed(0)
    tensors = {
        name: torch.randn(shape, generator=generator) / max(1, torch.Size(shape[1:]).numel()) ** 0.5
        for name, shape in architecture.shapes.items()
    }
    return Weights(architecture, tensors, name="random")


def in_8_bits(weights: Weights, form: Format) -> Weights:
    """Measured on noise: the values do not change the time."""
    h = torch.randn(1000, weights.architecture.hidden_list[0]).relu()
    return replace(weights, quantized={form.name: measure(form, weights.imnet[1:-1], h)})


def native(precision: str) -> bool:
    """Whether the processor multiplies that type itself; emulated, a benchmark would measure nothing of use."""
    return precision == "fp32" or (precision == "bf16" and cpu.isa() in cpu.BF16_ISAS)


@pytest.fixture(params=[name for name in PRECISIONS if native(name)])
def precision(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=sorted({1, torch.get_num_threads()}), ids=lambda n: f"{n}threads")
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    with torch_threads(request.param):
        yield request.param


@pytest.fixture
def report(benchmark: Any) -> Callable[..., None]:
    """Run with few, long rounds, and record work per second beside the time."""

    def run(work: Callable[[], object], *, pixels: int, flops: float = 0.0) -> None:
        benchmark.pedantic(work, rounds=3, iterations=1, warmup_rounds=1)
        seconds = benchmark.stats.stats.median
        benchmark.extra_info["megapixels_per_s"] = pixels / seconds / 1e6
        if flops:
            benchmark.extra_info["gflops"] = flops / seconds / 1e9

    return run
