"""LPIPS, of the package that its authors publish: how different two pictures look to a network."""

from __future__ import annotations

import warnings

import numpy as np
import torch

from .metrics import Protocol, inside

_LEAST = 31  # below this AlexNet's last pooling has nothing left


class Lpips:
    """Learned perceptual image patch similarity (Zhang et al., CVPR 2018), version 0.1 on AlexNet; 0 is equal.

    Its first use downloads AlexNet's weights (233 MB), by torchvision. Raises ValueError where the package `lpips`
    is missing or the weights cannot be had.
    """

    def __init__(self) -> None:
        try:
            import lpips
        except (ImportError, RuntimeError) as error:  # RuntimeError: torchvision of another torch
            version = torch.__version__
            raise ValueError(
                f"no LPIPS ({error}): pip install 'liif_fast[lpips]', with the torchvision of torch {version}"
            ) from None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it calls torchvision by names of old
                self.network = lpips.LPIPS(net="alex", verbose=False)
        except (OSError, RuntimeError) as error:  # no network, a broken file
            raise ValueError(f"LPIPS needs the weights of AlexNet, which torchvision could not load: {error}") from None

    def __call__(self, prediction: np.ndarray, truth: np.ndarray, scale: float, protocol: Protocol) -> float | None:
        """Of RGB, whatever the protocol takes its PSNR of, and of what it leaves of the borders; None where that is
        less than AlexNet takes.

        ``prediction`` and ``truth``: [H, W, 3] in [0, 1].
        """
        a, b = (torch.from_numpy(inside(image, scale, protocol)) for image in (prediction, truth))
        if min(a.shape[:2]) < _LEAST:
            return None
        with torch.inference_mode():
            planes = [image.permute(2, 0, 1)[None].float() for image in (a, b)]
            return float(self.network(*planes, normalize=True))
