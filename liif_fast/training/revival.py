"""New work for the encoder's channels whose rectifier has fallen silent."""

from __future__ import annotations

import torch

from .convolution import Convolution
from .network import Block, Network


class Revival:
    """Finds channels between a block's two convolutions that are zero for every picture, and begins them anew.

    Such a channel has no gradient and would stay silent; updates that are scaled to one size, Muon's and Adam's, lose
    half of an encoder so. It is given a random kernel without a mean, which answers to edges and never to a flat
    colour, and no weight in what follows, so that the network computes what it did before and learns to use it.

    Attributes:
        fired: bool [blocks, n_feats], the channels that were not zero since the last `revive`.
    """

    def __init__(self, network: Network) -> None:
        self._blocks = {name: _pair(block) for name, block in network.named_modules() if isinstance(block, Block)}
        shape = (len(self._blocks), network.architecture.n_feats)
        self.fired = torch.zeros(shape, dtype=torch.bool, device=next(network.parameters()).device)

    def watch(self) -> None:
        """Called between the backward pass and the next."""
        for fired, (into, _) in zip(self.fired, self._blocks.values(), strict=True):
            assert into.bias is not None
            assert into.bias.grad is not None
            fired |= into.bias.grad != 0

    @torch.no_grad()
    def revive(self, average: dict[str, torch.Tensor], optimizer: torch.optim.Optimizer, seed: int) -> int:
        """Begin the silent channels anew, in the parameters, their moving average and what the optimiser keeps.

        The same for every process that has the same ``seed``. Returns how many there were.
        """
        generator = torch.Generator().manual_seed(seed)
        silent = ~self.fired
        self.fired.zero_()
        for channels, (name, (into, out)) in zip(silent, self._blocks.items(), strict=True):
            shape = into.weight.shape
            kernels = torch.randn(shape, generator=generator) * shape[1:].numel() ** -0.5
            kernels -= kernels.mean((2, 3), keepdim=True)
            assert into.bias is not None
            for parameter, key, at, value in (
                (into.weight, "body.0.weight", channels, kernels.to(channels.device)[channels]),
                (into.bias, "body.0.bias", channels, 0.0),
                (out.weight, "body.2.weight", (slice(None), channels), 0.0),
            ):
                parameter[at] = average[f"{name}.{key}"][at] = value
                for kept in optimizer.state[parameter].values():
                    if isinstance(kept, torch.Tensor) and kept.shape == parameter.shape:
                        kept[at] = 0.0
        return int(silent.sum())


def _pair(block: Block) -> tuple[Convolution, Convolution]:
    into, _, out = block.body
    assert isinstance(into, Convolution)
    assert isinstance(out, Convolution)
    return into, out
