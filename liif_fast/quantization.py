"""LIIF's hidden layers in 8 bits: what a network needs for that, and how it is made from what the layers read.

What hidden layer i reads is stored in units of a scale for each channel, which folds into the layers around, exactly.
There are two formats:

- float8 (e4m3), for GPUs: ``q = round(h / scale + zero)``. ``zero`` is -4, a number of the type: a rectifier is a
  maximum with it, what is off stays exactly off, and the sign, of no use to rectified values, takes half of the others'
  rounding error away.
- int8, for processors: ``q = round(h / scale / step)``, of 0 to 255, with a ``step`` for each query at each of its
  cells, found as it is decoded, of which the largest of its values is 255. So nothing is ever cut off. Weights are -127
  to 127.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch

Linear = tuple[torch.Tensor, torch.Tensor]  # weight [out, in] and bias [out]

# Scales tried of a channel: from the least that holds its largest value, each so many times the one before.
_RATIO, _TRIED = 2**0.25, 24
# A row of zeros has a step too.
_LEAST = 1e-30


@dataclass(frozen=True)
class Format:
    """How weights (`dtype`, up to `largest_weight`) and what hidden layers read (`zero` to `largest`) are stored."""

    name: str
    dtype: torch.dtype
    largest_weight: float
    largest: float
    zero: float
    by_row: bool  # whether rows have steps of their own

    def quantize(self, x: torch.Tensor) -> torch.Tensor:
        """What a hidden layer reads of ``x`` [N, C], as float32: nearest, ties to even, what is beyond the ends to
        them."""
        if not self.by_row:
            return x.clamp(self.zero, self.largest).to(self.dtype).float()
        x = x.relu()
        most = x.amax(1, keepdim=True).clamp(min=_LEAST)
        return (x * (self.largest / most)).round() * (most / self.largest)

    def quantize_weight(self, weight: torch.Tensor) -> torch.Tensor:
        """Likewise, in the format's own type."""
        clamped = weight.clamp(-self.largest_weight, self.largest_weight)
        return (clamped if self.dtype.is_floating_point else clamped.round()).to(self.dtype)


FP8 = Format("fp8", torch.float8_e4m3fn, 448.0, 448.0, -4.0, by_row=False)
INT8 = Format("int8", torch.int8, 127.0, 255.0, 0.0, by_row=True)
FORMATS = {form.dtype: form for form in (FP8, INT8)}


@dataclass(frozen=True, eq=False)
class Quantized:
    """A network's hidden layers in one format.

    ``scale`` [C]: of the first layer's outputs, which are divided by it. Of each layer after it, ``weight`` [out, in]
    of the format's type and ``steps`` [2, out] float32: sums ``acc`` of products of quantised inputs become what the
    next layer quantises, from ``zero`` on, by ``acc * steps[0] + steps[1]``; of the last, its outputs before they are
    rectified. ``of``: `digest` of the layers that these stand for.
    """

    scale: torch.Tensor
    weight: tuple[torch.Tensor, ...]
    steps: tuple[torch.Tensor, ...]
    of: str

    @property
    def fingerprint(self) -> str:
        """Of all that decides about results."""
        return digest([self.scale, *self.weight, *self.steps])

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "weight": pickled(self.weight)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, weight=tuple(unpickled(state["weight"])))


def digest(tensors: Iterable[torch.Tensor]) -> str:
    """16 hex digits of a SHA-256."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.detach().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]


def pickled(tensors: Iterable[torch.Tensor]) -> list[tuple[torch.Tensor, torch.dtype]]:
    """As bytes where they are float8, which PyTorch writes into pickles and cannot read back."""
    return [(t.view(torch.uint8) if t.dtype == FP8.dtype else t, t.dtype) for t in tensors]


def unpickled(state: list[tuple[torch.Tensor, torch.dtype]]) -> list[torch.Tensor]:
    return [t.view(dtype) for t, dtype in state]


def measure(form: Format, hidden: list[Linear], h: torch.Tensor, extreme: torch.Tensor | None = None) -> Quantized:
    """Hidden layers after the first, for rectified outputs ``h`` [N, C] of the first on real pictures.

    A channel's scale makes the mean square of its rounding errors least, of those with which nothing measured is beyond
    `largest`, be it of ``h`` or of ``extreme`` [M, C], the same for pictures that are harder than real ones; where rows
    have steps, it gives all channels the same largest value. Weights are rounded so that errors of a layer's outputs,
    not of its weights, are small, and biases take back the mean of what is left, of all roundings before. ValueError
    where the layers overflow.
    """
    if extreme is None:
        extreme = h[:0]
    scale_of = _largest if form.by_row else _least_error
    scale = first = scale_of(form, h, extreme)
    exact, q = h, form.quantize(h / scale + form.zero)
    weights, steps = [], []
    for i, (weight, bias) in enumerate(hidden):
        outputs = exact @ weight.T + bias
        if not bool(torch.isfinite(outputs).all()):
            raise ValueError(f"hidden layer {i + 1} of the network gives NaN or infinity: 8 bits are not for it")
        exact, extreme = outputs.relu(), (extreme @ weight.T + bias).relu()
        last = i + 1 == len(hidden)
        following = torch.ones(len(bias)) if last else scale_of(form, exact, extreme)
        folded = weight * scale / following[:, None]
        largest = folded.abs().amax(1)
        multiplier = torch.where(largest > 0, largest, 1) / form.largest_weight
        rounded = _rounded(form, folded / multiplier[:, None], q)
        acc = q @ rounded.float().T * multiplier
        start = (outputs / following - acc).mean(0) + (0.0 if last else form.zero)
        weights.append(rounded)
        steps.append(torch.stack([multiplier, start]))
        q = form.quantize(acc + start)
        scale = following
    return Quantized(first, tuple(weights), tuple(steps), digest(chain(*hidden)))


def _largest(form: Format, h: torch.Tensor, extreme: torch.Tensor) -> torch.Tensor:
    """The least scale of each channel of ``h`` [N, C] and ``extreme`` [M, C] with which none is beyond `largest`."""
    largest = torch.cat([h, extreme]).amax(0)
    # A channel that is off here, or nearly, may be on elsewhere, and its first weights over its scale must be halves.
    return largest.clamp(min=2e-2 * float(largest.max().clamp(min=1e-6))) / (form.largest - form.zero)


def _least_error(form: Format, h: torch.Tensor, extreme: torch.Tensor) -> torch.Tensor:
    """Of larger scales than that, which round otherwise, the best for ``h``."""
    least = _largest(form, h, extreme)
    best, error = least, torch.full_like(least, torch.inf)
    for i in range(_TRIED):
        scale = least * _RATIO**i
        found = ((form.quantize(h / scale + form.zero) - form.zero) * scale - h).square().mean(0)
        # Of one that is off here all are equal, and the largest is the one for what it may be elsewhere.
        best, error = torch.where(found <= error, scale, best), torch.minimum(found, error)
    return best


def _rounded(form: Format, weight: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """``weight`` [out, in] in the format, column by column, each column's error made up for by those not yet rounded.

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
        rounded[:, column] = form.quantize_weight(left[:, column].float()).float()
        error = (left[:, column] - rounded[:, column]) / factor[column, column]
        left[:, column:] -= error[:, None] * factor[column, column:]
    return form.quantize_weight(rounded[:, order.argsort()])
