"""Iterations of training: the published formulation, ours with the same queries, and the fast recipe; fp32, and the
fast recipe in bf16 too where the processor multiplies it. `-k gpu`: the published one and whole recipes on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import PAPER, random_weights
from liif_fast import published
from liif_fast.backends import cpu
from liif_fast.training.config import RECIPES, Config, read
from liif_fast.training.data import Pictures
from liif_fast.training.network import from_weights
from liif_fast.training.optimizer import Muon
from liif_fast.training.replay import own_stream
from liif_fast.training.train import _Run, _without_denormals

PATCHES, PATCH = 4, 48
PAPER_QUERIES, FAST_QUERIES = RECIPES["paper"]["queries"], Config(output="", data=("",)).queries


def pictures() -> Pictures:
    return Pictures([np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)], torch.device("cpu"))


def published_step(patches: int = PATCHES, device: str = "cpu") -> Callable[[], None]:
    """As the authors' trainer: unfolded features, nearest neighbours by grid_sample, the whole MLP, Adam."""
    weights = random_weights(PAPER)
    network = from_weights(weights).to(device)
    parameters = dict(network.named_parameters())
    optimizer = torch.optim.Adam(network.parameters(), 1e-4)
    image = torch.rand(patches, 3, PATCH, PATCH, device=device)
    coord, target = (torch.rand(patches, PAPER_QUERIES, n, device=device) * 2 - 1 for n in (2, 3))
    cell = torch.full_like(coord, 2 / (2.5 * PATCH))

    def step() -> None:
        feat = published.encode(parameters, weights.architecture, image)
        loss = (published.query(weights.architecture, parameters, feat, coord, cell) - target).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def projected_step(queries: int, muon: bool, bf16: bool = False) -> Callable[[], None]:
    """As `liif_fast.training.train`, its batches included."""
    network = from_weights(random_weights(PAPER)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    parameters = list(network.parameters())
    optimizer: torch.optim.Optimizer = (
        Muon(parameters, 1e-4, (0.9, 0.99)) if muon else torch.optim.Adam(parameters, 1e-4)
    )
    data, generator = pictures(), torch.Generator().manual_seed(0)

    def step() -> None:
        batch = data.batch(PATCHES, PATCH, queries, (1.0, 4.0), generator)
        image = (2 * batch.lr - 1).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext():
            colors = network(image, batch.y, batch.x, batch.cell)
        loss = (colors.float() - (2 * batch.target - 1)).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


# The published one first: the others set glibc's allocator for the whole process, as training does.
@pytest.mark.parametrize("formulation", ["published", "projected", "fast recipe", "fast recipe, bf16"])
def test_train_iteration(benchmark: Any, formulation: str) -> None:
    if formulation != "published":
        from liif_fast.training.train import keep_freed_memory

        if formulation.endswith("bf16") and cpu.isa() not in cpu.BF16_ISAS:
            pytest.skip("bf16: not native here")

        keep_freed_memory()
    steps = {
        "published": published_step,
        "projected": lambda: projected_step(PAPER_QUERIES, False),
        "fast recipe": lambda: projected_step(FAST_QUERIES, True),
        "fast recipe, bf16": lambda: projected_step(FAST_QUERIES, True, True),
    }
    with _without_denormals() if formulation != "published" else nullcontext():
        benchmark.pedantic(steps[formulation](), rounds=5, iterations=1, warmup_rounds=1)
    benchmark.extra_info["patches_per_s"] = PATCHES / benchmark.stats.stats.median


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("formulation", ["published", "paper recipe", "fast recipe", "fast recipe, resample"])
def test_iterations_on_a_gpu(benchmark: Any, formulation: str, tmp_path: Path) -> None:
    """A hundred, with the paper's batch; of the published one without the making of batches."""
    device, patches, count = torch.device("cuda", 0), 16, 100
    with own_stream(device):
        if formulation == "published":
            step: Callable[[], object] = published_step(patches, "cuda")
        else:
            recipe, _, decoder = formulation.replace(" recipe", "").partition(", ")
            config = read(recipe, None, {"output": str(tmp_path), "synthetic": 40, "batch": patches})
            run = _Run(replace(config, decoder=decoder or "liif"), device, 0, 1, lambda _: None, lambda _: None)
            run.prepare(False)

            def step() -> None:
                run.step()
                run.state.iteration += 1

        def steps() -> None:
            for _ in range(count):
                step()
            torch.cuda.synchronize()

        benchmark.pedantic(steps, rounds=5, iterations=1, warmup_rounds=1)
    benchmark.extra_info["device"] = torch.cuda.get_device_name()
    benchmark.extra_info["iterations_per_s"] = count / benchmark.stats.stats.median
