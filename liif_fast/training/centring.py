"""Updates of a layer's weights that leave its mean output where it is: that is the bias' to move."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from .convolution import Convolution
from .inputs import Inputs


@contextmanager
def centred(inputs: Inputs) -> Iterator[None]:
    """Around an optimiser's step: it then moves the layers as if each were ``weight (x - mean) + bias``.

    The mean of a channel is much larger than what varies in it. Without this every update shifts what a rectifier
    is given by more than the picture does, up or down, and a channel that is shifted below zero for all pictures has no
    gradient that would bring it back. (LeCun, Bottou, Orr, Müller, "Efficient BackProp", 1998, section 4.3, say why
    inputs should have no mean.) The network's form stays: the bias takes up what the weights would have shifted.
    """
    layers = [(layer, inputs.means[name]) for name, layer in inputs.layers.items() if name in inputs.means]
    for layer, mean in layers:
        assert layer.weight.grad is not None
        assert layer.bias is not None
        assert layer.bias.grad is not None
        shift = torch.outer(layer.bias.grad, mean)
        layer.weight.grad -= shift[:, :, None, None] if layer.weight.ndim == 4 else shift
    before = [_of_mean(layer, mean) for layer, mean in layers]
    yield
    for (layer, mean), kept in zip(layers, before, strict=True):
        assert layer.bias is not None
        layer.bias.data += kept - _of_mean(layer, mean)


def _of_mean(layer: Convolution | nn.Linear, mean: torch.Tensor) -> torch.Tensor:
    """What a layer makes of its mean input, without the bias."""
    weight = layer.weight.detach()
    return (weight.sum((2, 3)) if weight.ndim == 4 else weight) @ mean
