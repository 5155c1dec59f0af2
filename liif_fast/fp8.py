"""LIIF's hidden layers in float8 (e4m3): what a network needs for that, and how it is made from what the layers read.

What hidden layer i reads is stored as ``q = e4m3(h / scale + ZERO)``, with a scale for each channel. So a rectifier is
a maximum with ZERO, a number of the type: what is off stays exactly off, and the sign, of no use to rectified values,
takes half of the others' rounding error away. Scales fold into the layers around them, exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

FP8 = torch.float8_e4m3fn
LARGEST = 448.0
ZERO = -4.0

Linear = tuple[torch.Tensor, torch.Tensor]  # weight [out, in] and bias [out]

# Scales tried of a channel: from the least that holds its largest value, each so many times the one before.
_RATIO, _TRIED = 2**0.25, 24


@dataclass(frozen=True, eq=False)
class Quantized:
    """A network's hidden layers in float8.

    ``scale`` [C]: of the first layer's outputs, which are divided by it. Of each layer after it, ``weight`` [out, in]
    e4m3 and ``steps`` [2, out] float32: sums ``acc`` of products of quantised inputs become what the next layer
    quantises, from ZERO on, by ``acc * steps[0] + steps[1]``; of the last, its outputs before they are rectified.
    """

    scale: torch.Tensor
    weight: tuple[torch.Tensor, ...]
    steps: tuple[torch.Tensor, ...]


def stored(dtype: torch.dtype) -> torch.dtype:
    """How z, and all activations but those that hidden layers read, are stored where those are of ``dtype``."""
    return torch.float16 if dtype == FP8 else dtype


def quantize(x: torch.Tensor) -> torch.Tensor:
    """To e4m3: nearest, ties to even, what is beyond LARGEST to it, as GPUs convert."""
    return x.clamp(-LARGEST, LARGEST).to(FP8)


def measure(hidden: list[Linear], h: torch.Tensor) -> Quantized:
    """Hidden layers after the first, for rectified outputs ``h`` [N, C] of the first on real pictures.

    A channel's scale makes the mean square of its rounding errors least, of those with which nothing measured is beyond
    LARGEST. Weights are rounded so that errors of a layer's outputs, not of its weights, are small, and biases take
    back the mean of what is left, of all roundings before.
    """
    scale = first = _least_error(h)
    exact, q = h, quantize(h / scale + ZERO).float()
    weights, steps = [], []
    for i, (weight, bias) in enumerate(hidden):
        outputs = exact @ weight.T + bias
        exact = outputs.relu()
        last = i + 1 == len(hidden)
        following = torch.ones(len(bias)) if last else _least_error(exact)
        folded = weight * scale / following[:, None]
        largest = folded.abs().amax(1)
        multiplier = torch.where(largest > 0, largest, 1) / LARGEST
        rounded = _rounded(folded / multiplier[:, None], q)
        acc = q @ rounded.float().T * multiplier
        start = (outputs / following - acc).mean(0) + (0.0 if last else ZERO)
        weights.append(rounded)
        steps.append(torch.stack([multiplier, start]))
        q = quantize((acc + start).clamp(min=ZERO)).float()
        scale = following
    return Quantized(first, tuple(weights), tuple(steps))


def _least_error(h: torch.Tensor) -> torch.Tensor:
    """The scale of each channel of ``h`` [N, C]."""
    largest = h.amax(0)
    # A channel that is off, or nearly, could be of any scale; one far from the others' would only burden its weights.
    least = largest.clamp(min=1e-3 * float(largest.max().clamp(min=1e-6))) / (LARGEST + ZERO)
    best, error = least, torch.full_like(least, torch.inf)
    for i in range(_TRIED):
        scale = least * _RATIO**i
        found = ((quantize(h / scale + ZERO).float() - ZERO) * scale - h).square().mean(0)
        best, error = torch.where(found < error, scale, best), torch.minimum(found, error)
    return best


def _rounded(weight: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """``weight`` [out, in] in e4m3, column by column, each column's error made up for by those not yet rounded.

    That is how GPTQ (arXiv 2210.17323) does it: the least squares answer on inputs ``x`` [N, in], here about their
    mean, as biases are chosen afterwards. Columns of the most varied inputs come first.
    """
    centred = (x - x.mean(0)).double()
    moments = centred.T @ centred / len(x)
    # Inputs that hardly vary, or always together, leave the answer open: it is kept near the weights.
    moments += 0.01 * moments.diagonal().mean().clamp(min=1e-12) * torch.eye(len(moments))
    order = moments.diagonal().argsort(descending=True)
    inverse = torch.linalg.inv(moments[order][:, order])
    factor = torch.linalg.cholesky(inverse, upper=True)
    left, rounded = weight[:, order].double(), torch.empty(weight.shape)
    for column in range(weight.shape[1]):
        rounded[:, column] = quantize(left[:, column].float()).float()
        error = (left[:, column] - rounded[:, column]) / factor[column, column]
        left[:, column:] -= error[:, None] * factor[column, column:]
    return quantize(rounded[:, order.argsort()])
