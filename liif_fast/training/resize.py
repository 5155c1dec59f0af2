"""Reducing pictures: bicubic as MATLAB's ``imresize`` does it (antialiased, mirrored at the edges), the field's way to
make LR; and, for drawings, the area average and the nearest pixel, which leave edges as hard as a screen's."""

from __future__ import annotations

import torch

from ..grid import cubic

# Where a line and its mirror images begin, in lines, and which way they go. The kernel is cut at 2 input (when
# reducing: output) pixels, so even where one sample is all that is left of a line, it looks no further than 1.5 lines
# beyond either end; of lines of two samples and more no further than one.
_IMAGES = ((-2, 1), (-2, -1), (0, 1), (0, -1), (2, 1), (2, -1))
_NEAR = ((0, 1), (0, -1), (2, -1))


def matrices(sources: torch.Tensor, target: int, width: int, least: int = 1) -> torch.Tensor:
    """Resizing as a product, for a batch of lines of different lengths.

    ``sources`` [B]: lengths, at least ``least`` and at most ``width``. Returns float32 [B, target, width]; row i holds
    the shares of the input samples in output sample i, zero from ``sources`` on.
    """
    n = sources.to(torch.float64)[:, None, None]
    scale = target / n
    sharp = scale.clamp(max=1)  # reducing widens the kernel
    centre = (torch.arange(target, device=sources.device, dtype=torch.float64)[None, :, None] + 0.5) / scale - 0.5
    at = torch.arange(width, device=sources.device, dtype=torch.float64)[None, None, :]
    share = torch.zeros(len(sources), target, width, device=sources.device, dtype=torch.float64)
    for begin, way in _NEAR if min(least, target) > 1 else _IMAGES:
        share += cubic((centre - (begin * n + (at if way > 0 else -1 - at))) * sharp)
    share = torch.where(at < n, share, 0)
    return (share / share.sum(-1, keepdim=True)).float()


def area_matrices(sources: torch.Tensor, target: int, width: int) -> torch.Tensor:
    """As `matrices`: each output sample is the average of the input under it. ``target`` is at most each source."""
    step = (sources.to(torch.float64) / target)[:, None, None]
    start = torch.arange(target, device=sources.device, dtype=torch.float64)[None, :, None] * step
    at = torch.arange(width, device=sources.device, dtype=torch.float64)[None, None, :]
    under = torch.minimum(start + step, at + 1) - torch.maximum(start, at)
    return (under.clamp(min=0) / step).float()


def nearest_matrices(sources: torch.Tensor, target: int, width: int) -> torch.Tensor:
    """As `matrices`: each output sample is the input sample under its centre."""
    odd = 2 * torch.arange(target, device=sources.device)[None, :, None] + 1
    centre = odd * sources[:, None, None] // (2 * target)
    return (torch.arange(width, device=sources.device)[None, None, :] == centre).float()


def resize(image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Float image [..., H, W] at ``size`` (height, width), not clamped; same dtype."""
    for dim, target in ((-2, size[0]), (-1, size[1])):
        source = image.shape[dim]
        matrix = matrices(torch.tensor([source], device=image.device), target, source, source)[0].to(image.dtype)
        image = (image.transpose(dim, -1) @ matrix.T).transpose(dim, -1)
    return image
