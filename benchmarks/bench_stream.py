"""Live video, numpy in and out: frames a second, and how long each frame took; and of frames that differ in little."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from conftest import random_weights
from liif_fast import Upscaler
from liif_fast.bench import picture

# blocks, features: those of `realtime` and `realtime-small`.
NETWORKS = {"realtime": (4, 32), "realtime-small": (4, 16)}
FRAMES = 24


@pytest.mark.parametrize("at_once", [None, 1], ids=["most frames", "least delay"])
@pytest.mark.parametrize("network", NETWORKS)
def test_stream(benchmark: Any, precision: str, network: str, at_once: int | None) -> None:
    """480 x 270 -> 1920 x 1080. ``delay_ms``: from the moment a frame is read to that of its result, counted by its
    upper bound."""
    blocks, features = NETWORKS[network]
    up = Upscaler(random_weights((32, 32), blocks, features, "resample"), precision=precision)
    frame = picture(270, 480)
    frames = [np.roll(frame, i, axis=1) for i in range(FRAMES)]  # no two alike
    delays: list[float] = []

    def run() -> None:
        read: list[float] = []

        def source() -> Iterator[np.ndarray]:
            for one in frames:
                read.append(time.perf_counter())
                yield one

        for i, _ in enumerate(up.stream(source(), size=(1080, 1920), at_once=at_once)):
            delays.append(1e3 * (time.perf_counter() - read[i]))

    benchmark.pedantic(run, rounds=3, iterations=1, warmup_rounds=1)
    counts, edges = np.histogram(delays[FRAMES:], bins="auto")
    benchmark.extra_info["frames_per_s"] = FRAMES / benchmark.stats.stats.median
    benchmark.extra_info["delay_ms_median"], benchmark.extra_info["delay_ms_99"] = np.percentile(
        delays[FRAMES:], (50, 99)
    ).tolist()
    benchmark.extra_info["delay_ms"] = {f"{edge:.1f}": int(n) for edge, n in zip(edges[1:], counts, strict=True)}


@pytest.mark.parametrize("size", [(270, 480), (720, 1280)], ids=["270p", "720p"])
@pytest.mark.parametrize("moving", ["all", "figure"])
def test_little_changes(benchmark: Any, precision: str, moving: str, size: tuple[int, int]) -> None:
    """To 1920 x 1080: a figure of a tenth of the width and the height moves, or all does."""
    up = Upscaler(random_weights((32, 32), *NETWORKS["realtime"], "resample"), precision=precision)
    still = picture(*size)
    high, wide = (side // 10 for side in size)
    figure = np.random.default_rng(0).integers(0, 256, (high, wide, 3), np.uint8)
    frames = []
    for i in range(FRAMES):
        frames.append(np.roll(still, i, axis=1) if moving == "all" else still.copy())
        frames[-1][4 * high : 5 * high, wide + 3 * i : 2 * wide + 3 * i] = figure

    def run() -> None:
        for _ in up.stream(frames, size=(1080, 1920)):
            pass

    benchmark.pedantic(run, rounds=3, iterations=1, warmup_rounds=1)
    benchmark.extra_info["frames_per_s"] = FRAMES / benchmark.stats.stats.median
