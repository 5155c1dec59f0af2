"""New work for the encoder's channels whose rectifier has fallen silent."""

from __future__ import annotations

import torch

from .inputs import Inputs
from .network import Block, Network

_SILENT = 0.001  # share of places where a channel is not zero


@torch.no_grad()
def revive(
    network: Network,
    average: dict[str, torch.Tensor],
    optimizer: torch.optim.Optimizer,
    inputs: Inputs,
    seed: int,
) -> int:
    """Begin the silent channels between a block's two convolutions anew, in the parameters, their moving average and
    what the optimiser keeps.

    A channel that is zero for every picture has no gradient and would stay so; one that is zero nearly always hardly
    learns. Updates that are scaled to one size, Muon's and Adam's, lose half of an encoder so. Such a channel is given
    a random kernel without a mean, which answers to edges and never to a flat colour, and no weight in what follows:
    the network loses what the channel did in one of a thousand places, nothing where it was silent for all, and learns
    to use it.

    The same for every process that has the same ``seed``. Returns how many there were.
    """
    if not inputs.watched:
        return 0
    generator, revived = torch.Generator().manual_seed(seed), 0
    for name, block in network.named_modules():
        if not isinstance(block, Block):
            continue
        into, out = (f"{name}.body.{i}" for i in (0, 2))
        silent = inputs.active[out] < _SILENT * inputs.watched
        shape = network.get_parameter(f"{into}.weight").shape
        kernels = torch.randn(shape, generator=generator) * shape[1:].numel() ** -0.5
        kernels -= kernels.mean((2, 3), keepdim=True)
        for key, at, value in (
            (f"{into}.weight", silent, kernels.to(silent.device)[silent]),
            (f"{into}.bias", silent, 0.0),
            (f"{out}.weight", (slice(None), silent), 0.0),
        ):
            parameter = network.get_parameter(key)
            parameter[at] = average[key][at] = value
            for kept in optimizer.state[parameter].values():
                if isinstance(kept, torch.Tensor) and kept.shape == parameter.shape:
                    kept[at] = 0.0
        revived += int(silent.sum())
    inputs.forget()
    return revived
