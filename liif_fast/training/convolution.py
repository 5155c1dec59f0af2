"""The 3x3 convolution of the networks in training: on processors our own, forwards and backwards, else PyTorch's."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable

from .. import native_convolution
from ..backends import cpu

# With AMX PyTorch takes less time for all products than these for a quarter.
BF16_ISAS = ("avx512bf16", "neonbf16")


class Convolution(nn.Conv2d):
    """3x3, with zeros around the picture."""

    def __init__(self, into: int, out: int) -> None:
        super().__init__(into, out, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert self.bias is not None
        return convolve(x, self.weight, self.bias)


def convolve(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """``F.conv2d`` with zeros around the picture, for kernels of any odd size."""
    if not is_ours(x, weight):
        return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)
    result: torch.Tensor = _Winograd.apply(x.to(_dtype(x)), weight, bias)
    return result


def is_ours(x: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether `convolve` computes this by our own code, at two to three times the speed of a direct one."""
    if x.ndim != 4 or x.device.type != "cpu" or weight.dtype != torch.float32:
        return False
    dtype = _dtype(x)
    if cpu.unavailable(x.device, dtype) is not None or not native_convolution.fits_winograd(*weight.shape[:3]):
        return False
    bf16 = torch.is_autocast_enabled("cpu") and cpu.isa(dtype) in BF16_ISAS and shares_threads()
    return dtype == torch.float32 or bf16


def shares_threads() -> bool:
    """Whether our convolutions run on PyTorch's threads. Those wait for work by spinning: with others beside them an
    iteration took twice as long on two threads of AMD's Zen 5.
    """
    return torch.get_num_threads() == 1 or cpu.on_pytorchs_threads()


def _dtype(x: torch.Tensor) -> torch.dtype:
    """What a convolution of it answers; autocast leaves doubles alone."""
    autocast = torch.is_autocast_enabled("cpu") and x.dtype != torch.float64
    return torch.get_autocast_dtype("cpu") if autocast else x.dtype


class _Winograd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        return _convolve(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        (given,) = gradients
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            back = weight.flip(2, 3).transpose(0, 1)
            of_x = _convolve(given, back, weight.new_zeros(len(back)))
        if ctx.needs_input_grad[1]:
            of_weight = native_convolution.unpack_winograd(
                native_convolution.convolve_gradient(_last(x), _last(given), torch.get_num_threads())
            )
        if ctx.needs_input_grad[2]:
            of_bias = given.sum((0, 2, 3), dtype=torch.float32)
        return of_x, of_weight, of_bias


def _convolve(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    (count, _, height, width), out = x.shape, len(weight)
    result = torch.empty(count, out, height, width, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    packed = native_convolution.pack_winograd(weight, native_convolution.products(x.dtype))
    threads = torch.get_num_threads()
    native_convolution.convolve_pictures(_last(x), packed, bias.contiguous(), threads, result.permute(0, 2, 3, 1))
    return result


def _last(x: torch.Tensor) -> torch.Tensor:
    """Channels last, as it lies in memory: [B, H, W, C]."""
    return x.permute(0, 2, 3, 1).contiguous()
