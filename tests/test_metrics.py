"""PSNR and SSIM against their definitions, written out."""

from __future__ import annotations

import math

import numpy as np
import pytest

from liif_fast.training.metrics import PROTOCOLS, find_protocol, psnr, ssim

BENCHMARK, DIV2K = PROTOCOLS["benchmark"], PROTOCOLS["div2k"]


def pair(height: int = 40, width: int = 36) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    truth = random.integers(0, 256, (height, width, 3)) / 255
    return (truth + random.normal(0, 0.05, truth.shape)).clip(0, 1), truth


@pytest.mark.parametrize(("protocol", "scale", "border"), [(BENCHMARK, 2, 2), (BENCHMARK, 3.7, 4), (DIV2K, 4, 10)])
def test_psnr(protocol, scale: float, border: int) -> None:
    prediction, truth = pair()
    total, count = 0.0, 0
    for y in range(border, 40 - border):
        for x in range(border, 36 - border):
            difference = prediction[y, x] - truth[y, x]
            if protocol is BENCHMARK:
                difference = [(65.738 * difference[0] + 129.057 * difference[1] + 25.064 * difference[2]) / 256]
            total += sum(d * d for d in difference)
            count += len(difference)
    assert psnr(prediction, truth, scale, protocol) == pytest.approx(-10 * math.log10(total / count), abs=1e-9)


def test_border_does_not_count() -> None:
    prediction, truth = pair()
    spoiled = prediction.copy()
    spoiled[:4], spoiled[:, -4:] = 0, 1
    assert psnr(spoiled, truth, 4, BENCHMARK) == psnr(prediction, truth, 4, BENCHMARK)
    assert ssim(spoiled, truth, 4, BENCHMARK) == ssim(prediction, truth, 4, BENCHMARK)
    assert psnr(spoiled, truth, 3, BENCHMARK) < psnr(prediction, truth, 3, BENCHMARK)


def test_equal_pictures() -> None:
    _, truth = pair()
    assert psnr(truth, truth, 2, DIV2K) == math.inf
    assert ssim(truth, truth, 2, DIV2K) == pytest.approx(1)


def ssim_written_out(a: np.ndarray, b: np.ndarray) -> float:
    """Wang et al. 2004, eq. 13 with their constants, at every place where the window fits; planes in 0..255."""
    at = np.arange(11) - 5
    window = np.exp(-(at[:, None] ** 2 + at**2) / (2 * 1.5**2))
    window /= window.sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = []
    for y in range(a.shape[0] - 10):
        for x in range(a.shape[1] - 10):
            p, q = a[y : y + 11, x : x + 11], b[y : y + 11, x : x + 11]
            mp, mq = (window * p).sum(), (window * q).sum()
            vp, vq = (window * p * p).sum() - mp**2, (window * q * q).sum() - mq**2
            both = (window * p * q).sum() - mp * mq
            values.append((2 * mp * mq + c1) * (2 * both + c2) / ((mp**2 + mq**2 + c1) * (vp + vq + c2)))
    return float(np.mean(values))


def test_ssim() -> None:
    prediction, truth = pair(60, 27)  # more than one band of rows
    inner = slice(2, -2)
    luma = [
        16 + 255 * (image[inner, inner] @ np.array([65.738, 129.057, 25.064])) / 256 for image in (prediction, truth)
    ]
    assert ssim(prediction, truth, 2, BENCHMARK) == pytest.approx(ssim_written_out(*luma), abs=1e-6)
    inner = slice(8, -8)
    planes = [ssim_written_out(255 * prediction[inner, inner, c], 255 * truth[inner, inner, c]) for c in range(3)]
    assert ssim(prediction, truth, 2, DIV2K) == pytest.approx(np.mean(planes), abs=1e-6)


def test_too_small() -> None:
    prediction, truth = pair(8, 8)
    with pytest.raises(ValueError, match="border"):
        psnr(prediction, truth, 4, BENCHMARK)


def test_unknown_protocol() -> None:
    assert find_protocol("div2k") is DIV2K
    with pytest.raises(ValueError, match="'set5'"):
        find_protocol("set5")
