"""PSNR and SSIM as the papers of the field measure them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LUMA = (0.299, 0.587, 0.114)  # of red, green and blue (BT.601)
# The same, 16 to 235, of RGB in 0 to 255: MATLAB's rgb2ycbcr, in the constants of EDSR's and LIIF's code.
_LUMA = np.array([65.738, 129.057, 25.064]) / 256
_LUMA_BLACK = 16.0

SSIM_WINDOW, _SSIM_SIGMA = 11, 1.5
_SSIM_BAND = 32  # rows of windows at a time: what they need stays in the processor's cache
_SSIM_C1, _SSIM_C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


@dataclass(frozen=True)
class Protocol:
    """What a PSNR in a table is of. ``luma``: of Y, else of RGB. ``margin``: pixels shaved off beside the scale."""

    name: str
    luma: bool
    margin: int

    def shave(self, scale: float) -> int:
        """Pixels left out at each border; a fractional scale counts as the next whole one."""
        return math.ceil(scale) + self.margin

    @property
    def description(self) -> str:
        beside = f" + {self.margin}" if self.margin else ""
        return f"{'Y' if self.luma else 'RGB'}, border of scale{beside} pixels left out"


# The two of `calc_psnr` in https://github.com/yinboc/liif (utils.py).
PROTOCOLS = {p.name: p for p in (Protocol("benchmark", True, 0), Protocol("div2k", False, 6))}


def find_protocol(name: str) -> Protocol:
    if name not in PROTOCOLS:
        raise ValueError(f"protocol must be one of {', '.join(PROTOCOLS)}, got {name!r}")
    return PROTOCOLS[name]


def psnr(prediction: NDArray, truth: NDArray, scale: float, protocol: Protocol) -> float:
    """Of one picture, in dB; inf where the two are equal.

    ``prediction`` and ``truth``: [H, W, 3] in [0, 1], not clamped here. Luma is taken of the difference, so that
    the peak stays 1. ValueError where the border leaves nothing.
    """
    difference = inside(prediction, scale, protocol) - inside(truth, scale, protocol)
    if protocol.luma:
        difference = difference @ _LUMA
    mse = float(np.mean(difference**2))
    return -10 * math.log10(mse) if mse else math.inf


def ssim(prediction: NDArray, truth: NDArray, scale: float, protocol: Protocol) -> float:
    """Mean structural similarity (Wang et al., IEEE TIP 2004; their ssim_index.m) of Y, or the mean of R, G and B.

    Gaussian window of 11 x 11 with sigma 1.5, only where it fits whole; peak 255.

    ``prediction`` and ``truth``: [H, W, 3] in [0, 1]. ValueError where the border leaves less than a window.
    """
    a, b = (_planes(inside(image, scale, protocol), protocol) for image in (prediction, truth))
    if min(a.shape[1:]) < SSIM_WINDOW:
        raise ValueError(f"SSIM needs {SSIM_WINDOW} x {SSIM_WINDOW} pixels, there are {a.shape[2]} x {a.shape[1]}")
    rows = a.shape[1] - SSIM_WINDOW + 1
    bands = (slice(top, min(top + _SSIM_BAND, rows) + SSIM_WINDOW - 1) for top in range(0, rows, _SSIM_BAND))
    total = sum(_similarity(a[:, band], b[:, band]).sum() for band in bands)
    return float(total) / (len(a) * rows * (a.shape[2] - SSIM_WINDOW + 1))


def _similarity(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """[C, H, W] in 0 to 255, twice -> SSIM of each window, [C, H - 10, W - 10]."""
    mean_a, mean_b, aa, bb, ab = (_blur(x) for x in (a, b, a * a, b * b, a * b))
    squares, product = mean_a**2 + mean_b**2, mean_a * mean_b
    luminance = (2 * product + _SSIM_C1) / (squares + _SSIM_C1)
    structure = (2 * (ab - product) + _SSIM_C2) / (aa + bb - squares + _SSIM_C2)
    return luminance * structure


def inside(image: NDArray, scale: float, protocol: Protocol) -> NDArray[np.float64]:
    """What the protocol's border leaves of [H, W, C]. ValueError where that is nothing."""
    shave = protocol.shave(scale)
    if min(image.shape[:2]) <= 2 * shave:
        raise ValueError(f"{image.shape[1]} x {image.shape[0]} pixels less a border of {shave} leave none")
    return image[shave:-shave, shave:-shave].astype(np.float64)


def _planes(image: NDArray[np.float64], protocol: Protocol) -> NDArray[np.float64]:
    """[C, H, W] in 0 to 255."""
    scaled = 255 * image
    return (scaled @ _LUMA + _LUMA_BLACK)[None] if protocol.luma else scaled.transpose(2, 0, 1)


def _blur(planes: NDArray[np.float64]) -> NDArray[np.float64]:
    """[C, H, W] -> [C, H - 10, W - 10]."""
    at = np.arange(SSIM_WINDOW) - SSIM_WINDOW // 2
    taps = np.exp(-(at**2) / (2 * _SSIM_SIGMA**2))
    taps /= taps.sum()
    rows, columns = (n - SSIM_WINDOW + 1 for n in planes.shape[1:])
    down = sum(tap * planes[:, i : i + rows] for i, tap in enumerate(taps))
    return sum(tap * down[:, :, i : i + columns] for i, tap in enumerate(taps))
