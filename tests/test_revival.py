"""Silent channels of the encoder: found, begun anew without a change of the network's answer, and learning again."""

from __future__ import annotations

import pytest
import torch

from common import random_weights
from liif_fast.checkpoint import Architecture
from liif_fast.training.inputs import Inputs
from liif_fast.training.network import Network, from_weights
from liif_fast.training.optimizer import Muon
from liif_fast.training.revival import revive

SILENT = {0: [1, 5], 1: [15]}


def parts(optimizer: str = "muon") -> tuple[Network, dict[str, torch.Tensor], torch.optim.Optimizer]:
    """A network of two blocks with channels that are zero for any picture, its average, an optimiser."""
    weights = random_weights(Architecture(n_resblocks=2, n_feats=16, hidden_list=(16,)))
    network = from_weights(weights)
    for block, channels in SILENT.items():
        network.get_parameter(f"encoder.body.{block}.body.0.bias").data[channels] = -1e3
    average = {key: value.detach().clone() for key, value in network.state_dict().items()}
    betas = (0.9, 0.99)
    kind = Muon(network.groups(), 1e-3, betas) if optimizer == "muon" else torch.optim.Adam(network.parameters(), 1e-3)
    return network, average, kind


def picture(seed: int = 0) -> torch.Tensor:
    return torch.rand(2, 3, 9, 11, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def iterate(network: Network, optimizer: torch.optim.Optimizer, inputs: Inputs, seed: int) -> None:
    optimizer.zero_grad()
    inputs.begin(0)
    (network.encoder(picture(seed)) - 1).abs().mean().backward()
    inputs.end()
    optimizer.step()


def silent(inputs: Inputs) -> dict[int, list[int]]:
    shares = {i: inputs.active[f"encoder.body.{i}.body.2"] / inputs.watched for i in SILENT}
    return {i: (share == 0).nonzero().flatten().tolist() for i, share in shares.items()}


@pytest.mark.parametrize("kind", ["muon", "adam"])
def test_silent_channels_learn_again(kind: str) -> None:
    network, average, optimizer = parts(kind)
    inputs = Inputs(network)
    for seed in range(3):
        iterate(network, optimizer, inputs, seed)
    assert silent(inputs) == SILENT

    before, kept = network.encoder(picture()), {k: v.clone() for k, v in network.state_dict().items()}
    assert revive(network, average, optimizer, inputs, seed=7) == 3
    assert inputs.watched == 0
    assert revive(network, average, optimizer, inputs, seed=8) == 0, "without having watched"
    torch.testing.assert_close(network.encoder(picture()), before, rtol=0, atol=1e-6)
    into, out = (network.get_parameter(f"encoder.body.0.body.{i}.weight") for i in (0, 2))
    for i in SILENT[0]:
        assert into[i].abs().max() > 0.01
        assert into[i].mean((1, 2)).abs().max() < 1e-6, "answers to a flat colour"
        assert not out[:, i].any()
        assert torch.equal(average["encoder.body.0.body.0.weight"][i], into[i])
        assert not average["encoder.body.0.body.0.bias"][i]
    others = [i for i in range(16) if i not in SILENT[0]]
    assert torch.equal(into[others], kept["encoder.body.0.body.0.weight"][others])
    assert torch.equal(out[:, others], kept["encoder.body.0.body.2.weight"][:, others])

    for seed in range(3):
        iterate(network, optimizer, inputs, seed)
    assert silent(inputs) == {0: [], 1: []}
    assert out[:, SILENT[0]].abs().amin(1).max() > 0, "what follows does not use them"


def test_optimizer_forgets_what_it_kept_of_them() -> None:
    network, average, optimizer = parts()
    inputs = Inputs(network)
    iterate(network, optimizer, inputs, 0)
    into, out = (network.get_parameter(f"encoder.body.0.body.{i}.weight") for i in (0, 2))
    for parameter in (into, out):
        optimizer.state[parameter]["momentum"].fill_(1.0)
    revive(network, average, optimizer, inputs, seed=0)
    for kept in (optimizer.state[into]["momentum"], optimizer.state[out]["momentum"].transpose(0, 1)):
        assert [i for i in range(16) if not kept[i].any()] == SILENT[0]
        assert (kept.flatten(1).amin(1) == 1).sum() == 14


def test_the_same_for_every_process() -> None:
    made = []
    for seed in (3, 3, 4):
        network, average, optimizer = parts()
        inputs = Inputs(network)
        iterate(network, optimizer, inputs, 0)
        revive(network, average, optimizer, inputs, seed)
        made.append(network.get_parameter("encoder.body.0.body.0.weight").detach().clone())
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])


def test_what_is_zero_nearly_always_counts_as_silent() -> None:
    network, average, optimizer = parts()
    inputs = Inputs(network)
    iterate(network, optimizer, inputs, 0)
    layer = "encoder.body.1.body.2"
    inputs.active[layer][[3, 4]] = torch.tensor([0.0009, 0.0011])
    kept = network.get_parameter("encoder.body.1.body.0.weight").clone()
    assert revive(network, average, optimizer, inputs, seed=0) == 4
    changed = (network.get_parameter("encoder.body.1.body.0.weight") != kept).flatten(1).any(1)
    assert changed.nonzero().flatten().tolist() == [3, *SILENT[1]]
