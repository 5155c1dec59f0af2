"""Updates of a layer's weights that leave its mean output where it is: that is the bias' to move."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from .inputs import Inputs
from .optimizer import stacked, unstacked


@contextmanager
def centred(inputs: Inputs) -> Iterator[None]:
    """Around an optimiser's step: it then moves the layers as if each were ``weight (x - mean) + bias``.

    The mean of a channel is much larger than what varies in it. Without this every update shifts what a rectifier
    is given by more than the picture does, up or down, and a channel that is shifted below zero for all pictures has no
    gradient that would bring it back. (LeCun, Bottou, Orr, Müller, "Efficient BackProp", 1998, section 4.3, say why
    inputs should have no mean.) The network's form stays: the bias takes up what the weights would have shifted.
    """
    alike: dict[torch.Size, list[str]] = {}  # at once, as in `optimizer`
    for name in filter(lambda name: inputs.layers[name].weight.requires_grad, inputs.means):
        alike.setdefault(inputs.layers[name].weight.shape, []).append(name)
    groups = [_Alike(inputs, names) for names in alike.values()]
    for group in groups:
        group.take_from_gradients()
    before = [group.of_means() for group in groups]
    yield
    for group, kept in zip(groups, before, strict=True):
        torch._foreach_add_(group.biases, list((kept - group.of_means()).unbind()))


class _Alike:
    """Layers whose weights have one shape."""

    def __init__(self, inputs: Inputs, names: list[str]) -> None:
        layers = [inputs.layers[name] for name in names]
        self.weights = [layer.weight.detach() for layer in layers]
        self.biases = [layer.bias.detach() for layer in layers if layer.bias is not None]
        self.gradients = [layer.weight.grad for layer in layers if layer.weight.grad is not None]
        self.of_biases = [layer.bias.grad for layer in layers if layer.bias is not None and layer.bias.grad is not None]
        assert len(self.biases) == len(self.gradients) == len(self.of_biases) == len(layers)
        # [N, places * in]: a place of a kernel is given the same means as the others.
        self.means = torch.stack([inputs.means[name] for name in names]).repeat(1, self.weights[0][0, 0].numel())

    def take_from_gradients(self) -> None:
        shift = torch.stack(self.of_biases)[:, :, None] * self.means[:, None]
        torch._foreach_sub_(self.gradients, unstacked(shift, self.weights[0].shape))

    def of_means(self) -> torch.Tensor:
        """[N, out]: what the layers make of their mean input, without the bias."""
        return (stacked(self.weights) @ self.means[:, :, None])[:, :, 0]
