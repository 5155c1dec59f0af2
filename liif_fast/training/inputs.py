"""What flows into the layers of a network while it trains: the mean of each channel, and how often one is not zero."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from .convolution import Convolution
from .network import Network

_EVERY = 10  # iterations
_RATE = 0.1  # at which the means follow


class Inputs:
    """Watches every convolution and linear layer that the network calls, in one of ten iterations.

    Attributes:
        means: name of a layer -> float32 [channels], a moving average over pictures and places.
        active: name of a layer -> float32 [channels], the sum over the iterations `watched` of the share of pictures
            and places where the channel was above zero.
        watched: iterations since the last `forget`.
        now: of the iteration at hand, name of a layer -> float32 [2, channels], the mean and the share above zero; None
            where it is not watched.
    """

    def __init__(self, network: Network) -> None:
        self.layers: dict[str, Convolution | nn.Linear] = {}
        self.means: dict[str, torch.Tensor] = {}
        self.active: dict[str, torch.Tensor] = {}
        self.watched = 0
        self.now: dict[str, torch.Tensor] | None = None
        for name, layer in network.named_modules():
            if isinstance(layer, Convolution | nn.Linear):
                self.layers[name] = layer
                layer.register_forward_pre_hook(partial(self._look, name))

    def begin(self, iteration: int) -> None:
        """Called before the forward pass."""
        self.now = {} if iteration % _EVERY == 0 else None

    @torch.no_grad()
    def end(self, processes: int = 1) -> None:
        """Called after the forward pass; the same for all ``processes`` from then on."""
        if self.now is None:
            return
        for name, seen in self.now.items():
            if processes > 1:
                dist.all_reduce(seen)
                seen /= processes
            mean, active = seen
            self.means[name] = torch.lerp(self.means.get(name, mean), mean, _RATE)
            self.active[name] = self.active.get(name, 0) + active
        self.watched += 1
        self.now = None

    def forget(self) -> None:
        """Count what is active anew."""
        self.active, self.watched = {}, 0

    def state_dict(self) -> dict[str, Any]:
        return {"means": self.means, "active": self.active, "watched": self.watched}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for kept in ("means", "active"):
            device = {name: layer.weight.device for name, layer in self.layers.items()}
            setattr(self, kept, {name: value.to(device[name]) for name, value in state[kept].items()})
        self.watched = int(state["watched"])

    @torch.no_grad()
    def _look(self, name: str, _: nn.Module, given: tuple[torch.Tensor]) -> None:
        if self.now is None:
            return
        (x,) = given
        over = (0, 2, 3) if x.ndim == 4 else tuple(range(x.ndim - 1))
        self.now[name] = torch.stack([x.mean(over, dtype=torch.float32), (x > 0).mean(over, dtype=torch.float32)])
