"""End to end, numpy in and out, beside the published algorithm and fixed filters."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from PIL import Image

from conftest import random_weights
from liif_fast import Upscaler, published
from liif_fast.bench import picture


@pytest.mark.parametrize("scale", [2, 3.7, 4])
def test_upscale(report: Callable, precision: str, threads: int, scale: float) -> None:
    up = Upscaler(random_weights(), precision=precision)
    report(lambda: up(picture(128, 128), scale=scale), pixels=round(128 * scale) ** 2)


@pytest.mark.parametrize("hidden", [(32, 32), (256,) * 4], ids=str)
def test_upscale_frame(report: Callable, precision: str, hidden: tuple[int, ...]) -> None:
    """480 x 270 -> 1920 x 1080."""
    up, frame = Upscaler(random_weights(hidden), precision=precision), picture(270, 480)
    report(lambda: up(frame, size=(1080, 1920)), pixels=1080 * 1920)


def test_published(report: Callable) -> None:
    weights, image = random_weights(), torch.from_numpy(picture(64, 64)).permute(2, 0, 1).float() / 255
    report(lambda: published.upscale(weights, image, (256, 256)), pixels=256 * 256)


@pytest.mark.parametrize("name", ["BICUBIC", "LANCZOS"])
def test_filter(report: Callable, name: str) -> None:
    image = Image.fromarray(picture(270, 480))
    report(lambda: image.resize((1920, 1080), Image.Resampling[name]), pixels=1080 * 1920)
