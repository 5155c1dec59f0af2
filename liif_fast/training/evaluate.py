"""How good a network is: its pictures beside the true ones, as PSNR and SSIM."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

import numpy as np
import torch
from PIL import Image

from ..upscaler import Upscaler
from .metrics import PROTOCOLS, Protocol, psnr, ssim
from .perceptual import Lpips
from .resize import resize
from .testset import Pair

# (LR uint8 [h, w, 3], (H, W)) -> float [H, W, 3], nominally in [0, 1]
Method = Callable[[np.ndarray, tuple[int, int]], np.ndarray]


@dataclass(frozen=True)
class Score:
    """One picture by one method: PSNR in dB of the float prediction (clamped to [0, 1]) and of the one rounded to 8
    bits, SSIM (and LPIPS, where asked for) of the latter, and the time it took."""

    name: str
    scale: float
    psnr: float
    psnr_rounded: float
    ssim: float
    seconds: float
    pixels: int
    lpips: float | None = None


@dataclass(frozen=True)
class Summary:
    """The scores of several pictures at one scale, and their means: of the pictures, not of their pixels.

    A picture made anew without an error, as one of a single colour may be, is not in the means of PSNR, which it would
    make infinite; where all are, they are.
    """

    scores: tuple[Score, ...]

    @cached_property
    def equal(self) -> int:
        """The number of pictures that are the true ones, rounded to 8 bits."""
        return len(self.scores) - len(self._differing)

    @cached_property
    def _differing(self) -> list[Score]:
        return [score for score in self.scores if math.isfinite(score.psnr_rounded)]

    @cached_property
    def psnr(self) -> float:
        return fmean(score.psnr for score in self._differing or self.scores)

    @cached_property
    def psnr_rounded(self) -> float:
        return fmean(score.psnr_rounded for score in self._differing or self.scores)

    @cached_property
    def ssim(self) -> float:
        return fmean(score.ssim for score in self.scores)

    @cached_property
    def lpips(self) -> float | None:
        """Of those that have one."""
        values = [score.lpips for score in self.scores if score.lpips is not None]
        return fmean(values) if values else None

    @cached_property
    def seconds(self) -> float:
        """For all of them."""
        return sum(score.seconds for score in self.scores)

    @cached_property
    def megapixels_per_s(self) -> float:
        return sum(score.pixels for score in self.scores) / 1e6 / self.seconds


def evaluate(
    method: Upscaler | Method, pairs: Iterable[Pair], protocol: Protocol = PROTOCOLS["benchmark"]
) -> dict[float, Summary]:
    """Scale -> scores, of pairs made by `testset.pair` with the same protocol."""
    render = network(method) if isinstance(method, Upscaler) else method
    found: dict[float, list[Score]] = {}
    for pair in pairs:
        found.setdefault(pair.scale, []).append(score(render, pair, protocol)[0])
    return {scale: Summary(tuple(scores)) for scale, scores in found.items()}


def score(method: Method, pair: Pair, protocol: Protocol, lpips: Lpips | None = None) -> tuple[Score, np.ndarray]:
    """One picture's score and the prediction, float [H, W, 3] in [0, 1]."""
    height, width = pair.hr.shape[:2]
    start = time.perf_counter()
    prediction = method(pair.lr, (height, width)).clip(0, 1)
    seconds = time.perf_counter() - start
    truth, rounded = pair.hr / 255, np.floor(prediction * 255 + 0.5).astype(np.float64) / 255
    at = pair.scale, protocol
    values = psnr(prediction, truth, *at), psnr(rounded, truth, *at), ssim(rounded, truth, *at)
    seen = lpips(rounded, truth, *at) if lpips else None
    return Score(pair.name, pair.scale, *values, seconds, height * width, seen), prediction


def bicubic(lr: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """MATLAB's, without rounding."""
    planes = torch.from_numpy(lr).permute(2, 0, 1).float() / 255
    return resize(planes, size).permute(1, 2, 0).numpy()


def lanczos(lr: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pillow's, without rounding."""
    return _lanczos(lr.astype(np.float32) / 255, size)


def network(upscaler: Upscaler) -> Method:
    """A network that renders the size asked for."""
    return lambda lr, size: upscaler(lr.astype(np.float32) / 255, size=size)


def fixed(upscaler: Upscaler, scale: float) -> Method:
    """What people do with a network of one scale: render at that scale, then Lanczos to the size asked for."""
    return lambda lr, size: _lanczos(upscaler(lr.astype(np.float32) / 255, scale=scale), size)


def _lanczos(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    planes = [Image.fromarray(np.ascontiguousarray(image[..., c])) for c in range(image.shape[2])]
    return np.stack([np.asarray(p.resize(size[::-1], Image.Resampling.LANCZOS)) for p in planes], axis=-1)
