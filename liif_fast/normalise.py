"""A picture's samples -> what an encoder takes, in one pass where Triton's kernels run: PyTorch takes seven."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .backends import triton
from .image import WHITE


def can(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether `normalised` does that."""
    return triton.unavailable(device, dtype) is None


def normalised(image: torch.Tensor, mean: Sequence[float], std: Sequence[float], dtype: torch.dtype) -> torch.Tensor:
    """[H, W, 1 or 3] uint8, uint16, float16 or float32, any strides -> [H, W, 3] of float16 or bfloat16.

    Every step is rounded as in PyTorch on a processor: the sample over white, less the mean, over the deviation.
    """
    from .kernels.normalise import VALUES, WARPS
    from .kernels.normalise import normalise as kernel

    rows, columns, channels = image.shape
    out = torch.empty(rows, columns, 3, dtype=dtype, device=image.device)
    strides = (*image.stride()[:2], image.stride(2) if channels == 3 else 0)
    with triton.on(image.device):
        kernel[(-(-out.numel() // VALUES),)](
            image, *strides, float(WHITE.get(image.dtype, 1)), *mean, *std, out, out.numel(), columns,
            VALUES=VALUES, num_warps=WARPS,
        )  # fmt: skip
    return out
