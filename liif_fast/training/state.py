"""Everything a run needs to go on as if it had never stopped: networks, optimiser, random numbers, counters."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..checkpoint import Architecture, CheckpointError, Weights, load
from ..output import whole_file
from .config import SHAPE, Config
from .inputs import Inputs
from .network import Liif, Network, from_weights, make, to_weights
from .optimizer import Muon

STATE = "state.pt"


@dataclass
class State:
    network: Network
    average: dict[str, torch.Tensor]  # moving average of the parameters; the parameters themselves where there is none
    optimizer: torch.optim.Optimizer
    generator: torch.Generator
    inputs: Inputs
    iteration: int = 0
    pictures: list[int] | None = None  # `Pictures.digest` of what was learned from; None: not known

    @classmethod
    def new(cls, network: Network, config: Config, device: torch.device, rank: int = 0) -> State:
        network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        parameters, betas = network.groups(config.encoder_pace), (0.9, 0.99)
        optimizer: torch.optim.Optimizer
        if config.optimizer == "muon":
            optimizer = Muon(parameters, config.lr, betas)
        else:
            optimizer = torch.optim.Adam(parameters, config.lr, (0.9, 0.999), foreach=True)
        generator = torch.Generator(device).manual_seed(config.seed * 1_000_003 + rank)
        average = {key: value.detach().clone() for key, value in network.state_dict().items()}
        return cls(network, average, optimizer, generator, Inputs(network))

    @torch.no_grad()
    def follow(self, ema: float) -> None:
        """Let the average follow the parameters; early on it follows faster, to forget the start."""
        rate = 1 - min(ema, (1 + self.iteration) / (10 + self.iteration)) if ema else 1.0
        torch._foreach_lerp_(list(self.average.values()), list(self.network.parameters()), rate)

    @torch.no_grad()
    def finite(self) -> bool:
        """Whether every parameter is a number still."""
        return bool(torch.stack(torch._foreach_norm(list(self.network.state_dict().values()))).isfinite().all())

    def weights(self, name: str, **metadata: str) -> Weights:
        """The averaged network. Raises CheckpointError where it is not finite."""
        return to_weights(self.network.architecture, self.average, name, **metadata)

    def save(self, path: Path, generators: Sequence[torch.Tensor]) -> None:
        """Whole or not at all. ``generators``: the states of every process' random numbers."""
        content = {
            "architecture": repr(self.network.architecture),
            "network": self.network.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "generators": list(generators),
            "inputs": self.inputs.state_dict(),
            "iteration": self.iteration,
            "pictures": self.pictures,
        }
        whole = io.BytesIO()  # torch writing to the file itself would hide that the disk is full
        torch.save(content, whole)
        with whole_file(path, force=True) as file:
            file.write(whole.getbuffer())

    def restore(self, path: Path, rank: int) -> None:
        """Go on from ``path``, bit for bit if there are as many processes as there were, on the same kind of device.

        Raises CheckpointError where it is damaged or of another network or optimiser.
        """
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except OSError:
            raise
        except Exception as error:  # damage can make torch raise anything at all
            raise CheckpointError(f"{path}: damaged; begin anew in another folder") from error
        ours = repr(self.network.architecture)
        if not isinstance(content, dict) or content.get("architecture") != ours:
            theirs = content.get("architecture") if isinstance(content, dict) else None
            raise CheckpointError(f"{path}: the state of another network ({theirs}), this run's is {ours}")
        try:
            self.network.load_state_dict(content["network"])
            self.optimizer.load_state_dict(content["optimizer"])
            numbers = content["generators"][rank : rank + 1]
            if numbers and numbers[0].shape == self.generator.get_state().shape:
                self.generator.set_state(numbers[0])
            else:  # one process more than before, or a device that draws in another way: numbers of its own
                self.generator.manual_seed(self.generator.initial_seed() + int(content["iteration"]) + 1)
            for key, value in self.average.items():
                value.copy_(content["average"][key])
            self.inputs.load_state_dict(content["inputs"])
            self.iteration = int(content["iteration"])
            self.pictures = content.get("pictures")
        except (KeyError, ValueError, RuntimeError, TypeError) as error:
            raise CheckpointError(f"{path}: does not fit this run (another optimiser?): {error}") from error


def begin(config: Config) -> Network:
    """The network a run starts from: ``config.init``, or a new one of the configured shape.

    Raises CheckpointError and FileNotFoundError for the models named, ValueError for an encoder of another shape.
    """
    if config.init:
        network = from_weights(load(config.init))
        if config.encoder and not isinstance(network, Liif):
            raise ValueError(f"encoder is {config.encoder!r}, and init {config.init!r}, whose decoder is not LIIF's")
        return network
    torch.manual_seed(config.seed)
    network = make(Architecture(**{key: getattr(config, key) for key in SHAPE}))
    if config.encoder:
        network.encoder = behind(config, network).encoder
    return network


def behind(config: Config, network: Network) -> Network:
    """The one whose encoder ``network`` is to have. Raises as `begin`."""
    other = from_weights(load(config.encoder))
    names = ("n_resblocks", "n_feats", "relu_after_add", "mean", "std")
    theirs, ours = ([getattr(n.architecture, key) for key in names] for n in (other, network))
    if theirs != ours:
        raise ValueError(f"the encoder of {config.encoder} has ({', '.join(names)}) = {theirs}, this run's {ours}")
    return other
