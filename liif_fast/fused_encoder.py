"""The encoder in PyTorch on a GPU, with all that follows a convolution in one pass, by Triton.

PyTorch makes a pass each of bias, rectifier and sum, and they take as long as the convolutions between them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from .backends import triton
from .checkpoint import Weights
from .encoder import Encoder, Head, convolutions, edsr


def unavailable(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why it cannot encode there; None if it can."""
    return triton.unavailable(device, dtype)


@dataclass
class _Sum:
    """A convolution's outputs, and what is still to be done to them, which is done when they are wanted."""

    made: torch.Tensor  # [1, C, H, W], channels last
    bias: torch.Tensor
    other: torch.Tensor | None = None  # [1, C, H, W] or the normalised image [1, 3, H, W]
    repeat: int = 1  # neighbouring channels that one of other is added to
    rectified: bool = False
    done: bool = False

    def rectify(self) -> _Sum:
        self.rectified = True
        return self

    def add(self, other: _Sum) -> _Sum:
        self.other = other.tensor
        return self

    @property
    def tensor(self) -> torch.Tensor:
        if not self.done:
            _finish(self)
            self.done, self.other = True, None  # or all features of all blocks would live to the end
        return self.made


class FusedEncoder(Encoder):
    """`Encoder` in float16 or bfloat16, where `unavailable` says nothing; biases and sums are float32."""

    def __init__(
        self, weights: Weights, head: Head, device: torch.device, dtype: torch.dtype, threads: int | None = None
    ) -> None:
        super().__init__(weights, head, device, dtype, threads)
        self._biases = {
            name: bias.to(device, torch.float32).contiguous() for name, (_, bias) in convolutions(weights, head).items()
        }

    def run(self, x: torch.Tensor) -> torch.Tensor:
        image = x.contiguous().permute(2, 0, 1)[None]
        features = edsr(_Sum(image, image, done=True), self.architecture, self._sum, _Sum.rectify, _Sum.add)
        z = self._sum("project", features)
        if self.skip:
            z.other, z.repeat = image, self.skip
        return z.tensor[0].permute(1, 2, 0)

    def _sum(self, name: str, x: _Sum) -> _Sum:
        weight, _ = self.convolutions[name]
        made = F.conv2d(x.tensor, weight, padding=weight.shape[-1] // 2)
        return _Sum(made.contiguous(memory_format=torch.channels_last), self._biases[name])


def _finish(sum: _Sum) -> None:
    from .kernels.finish import VALUES, WARPS
    from .kernels.finish import finish as kernel

    made, other = sum.made, sum.other
    with triton.on(made.device):
        kernel[(-(-made.numel() // VALUES),)](
            made, sum.bias, made if other is None else other, made.numel() // made.shape[1],
            CHANNELS=made.shape[1], OTHER=0 if other is None else other.shape[1], REPEAT=sum.repeat,
            RECTIFY=sum.rectified, VALUES=VALUES, num_warps=WARPS,
        )  # fmt: skip
