"""Fewer layers by entropy, after EASIER (Quétu, Liao, Tartaglione, arXiv 2404.18949), for LIIF's decoder.

A rectifier whose neurons are nearly always on or nearly always off does little; its entropy says so. Without it the two
linear layers around it are one, exactly, so every rectifier removed makes the decoder a layer shorter.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from ..checkpoint import Weights
from .data import Pictures
from .log import save_figure
from .network import from_weights

BATCH, PATCH, QUERIES, SCALES = 8, 48, 1024, (1.0, 4.0)


@dataclass(frozen=True)
class Rectifier:
    """One ReLU. ``name``: "decoder 1" and so on, "encoder 1", or "encoder 1 sum" (after the addition).

    ``entropy``: mean over its neurons, 0 to 1 bit.
    ``fixed``: share of neurons with less than 0.05 bit. ``active``: share of positive inputs.
    """

    name: str
    entropy: float
    fixed: float
    active: float

    @property
    def decoder_layer(self) -> int | None:
        """Index of the hidden layer it follows; None in the encoder."""
        part, _, number = self.name.partition(" ")
        return int(number) - 1 if part == "decoder" else None


def measure(weights: Weights, pictures: Pictures, patches: int = 64) -> list[Rectifier]:
    """Every rectifier of a network, encoder first, over random patches at the scales it was trained for.

    Entropy is that of the sign of a neuron's input (the paper's eq. 3): a convolution's channel counts as one neuron,
    its places and pictures as its inputs.
    """
    network = from_weights(weights).to(pictures.pixels.device).eval()
    layers: dict[str, nn.Module] = {
        name: layer for name, layer in network.named_modules() if isinstance(layer, nn.ReLU)
    }
    positive = {name: torch.zeros(0) for name in layers}
    count = dict.fromkeys(layers, 0)
    mean, std = (
        torch.tensor(v, device=pictures.pixels.device)[:, None, None]
        for v in (weights.architecture.mean, weights.architecture.std)
    )
    generator = torch.Generator(pictures.pixels.device).manual_seed(0)
    with _inputs(layers, positive, count), torch.inference_mode():
        for _ in range(math.ceil(patches / BATCH)):
            drawn = pictures.batch(BATCH, PATCH, QUERIES, SCALES, generator)
            network((drawn.lr - mean) / std, drawn.y, drawn.x, drawn.cell)
    found = []
    for name in layers:
        share = positive[name] / count[name]
        entropy = binary_entropy(share)
        path = name.split(".")  # encoder.body.3.body.1, encoder.body.3.after and imnet.layers.1
        shown = f"encoder {int(path[2]) + 1}" if path[0] == "encoder" else f"decoder {(int(path[2]) + 1) // 2}"
        shown += " sum" if path[-1] == "after" else ""
        fixed = (entropy < 0.05).double().mean().item()
        found.append(Rectifier(shown, entropy.mean().item(), fixed, share.mean().item()))
    return found


def binary_entropy(share: torch.Tensor) -> torch.Tensor:
    """Bits, of probabilities in [0, 1]."""
    share = share.double()
    return -(torch.special.xlogy(share, share) + torch.special.xlogy(1 - share, 1 - share)) / math.log(2)


def fold(weights: Weights, layer: int) -> Weights:
    """The network without the rectifier after hidden layer ``layer`` (from 0) of its decoder, one layer shorter.

    The two linear layers around it become one, exactly: ``W2 (W1 x + b1) + b2 = (W2 W1) x + (W2 b1 + b2)``. ValueError
    where there is no such layer, or where it is the only one.
    """
    a = weights.architecture
    hidden = a.hidden_list
    if a.decoder != "liif":
        raise ValueError(f"a {a.decoder} decoder has no layers to fold: only LIIF's has")
    if not 0 <= layer < len(hidden) or len(hidden) == 1:
        raise ValueError(f"no hidden layer {layer} to fold away: the decoder has {len(hidden)}, and must keep one")
    pairs = [(weight.double(), bias.double()) for weight, bias in weights.imnet]
    (w1, b1), (w2, b2) = pairs[layer : layer + 2]
    pairs[layer : layer + 2] = [(w2 @ w1, w2 @ b1 + b2)]
    tensors = {key: value for key, value in weights.tensors.items() if not key.startswith("imnet.")}
    for i, (weight, bias) in enumerate(pairs):
        name = f"imnet.layers.{2 * i}"
        tensors |= {f"{name}.weight": weight.float().contiguous(), f"{name}.bias": bias.float().contiguous()}
    shorter = replace(a, hidden_list=(*hidden[:layer], *hidden[layer + 1 :]))
    return Weights(shorter, tensors, weights.name, dict(weights.metadata))


def drop_block(weights: Weights, block: int) -> Weights:
    """The network without a residual block (from 0) of its encoder: its skip remains. ValueError as for `fold`."""
    a = weights.architecture
    if not 0 <= block < a.n_resblocks or a.n_resblocks == 1:
        raise ValueError(f"no residual block {block} to drop: the encoder has {a.n_resblocks}, and must keep one")
    tensors = {}
    for key, value in weights.tensors.items():
        part = key.split(".")
        if part[:2] == ["encoder", "body"]:
            number = int(part[2])
            if number == block:
                continue
            part[2] = str(number - (number > block))
        tensors[".".join(part)] = value
    return Weights(replace(a, n_resblocks=a.n_resblocks - 1), tensors, weights.name, dict(weights.metadata))


def next_layer(rectifiers: Sequence[Rectifier]) -> int:
    """The decoder's hidden layer whose rectifier has the least entropy."""
    decoder = [r for r in rectifiers if r.decoder_layer is not None]
    layer = min(decoder, key=lambda r: r.entropy).decoder_layer
    assert layer is not None
    return layer


def draw(rectifiers: Sequence[Rectifier], path: Path) -> None:
    """The entropies as bars, a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.subplots()
    colors = ["tab:orange" if r.decoder_layer is not None else "tab:blue" for r in rectifiers]
    axes.bar([r.name for r in rectifiers], [r.entropy for r in rectifiers], color=colors)
    axes.tick_params(axis="x", rotation=90)
    axes.set(ylabel="entropy of the rectifier (bit)", ylim=(0, 1))
    save_figure(figure, path)


@contextmanager
def _inputs(layers: dict[str, nn.Module], positive: dict[str, torch.Tensor], count: dict[str, int]) -> Iterator[None]:
    """Counts the positive inputs of each layer's neurons: the second axis of feature maps, else the last."""

    def watch(name: str) -> torch.utils.hooks.RemovableHandle:
        def hook(_: nn.Module, inputs: tuple[torch.Tensor]) -> None:
            on = (inputs[0] > 0).movedim(1 if name.startswith("encoder") else -1, -1).flatten(0, -2)
            total = on.sum(0).double().cpu()
            positive[name] = total if count[name] == 0 else positive[name] + total
            count[name] += len(on)

        return layers[name].register_forward_pre_hook(hook)

    handles = [watch(name) for name in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
