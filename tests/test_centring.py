"""Centred updates are those of layers that subtract the mean of what they are given; `Inputs` has that mean."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from common import random_weights
from liif_fast.checkpoint import Architecture
from liif_fast.training.centring import centred
from liif_fast.training.inputs import Inputs
from liif_fast.training.network import Network, from_weights
from liif_fast.training.optimizer import Muon


def network() -> Network:
    return from_weights(random_weights(Architecture(n_resblocks=2, n_feats=16, hidden_list=(16, 16))))


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def optimizer_of(layer: nn.Module, kind: str) -> torch.optim.Optimizer:
    if kind == "muon":
        return Muon(list(layer.parameters()), 1e-2, (0.9, 0.99))
    return torch.optim.Adam(layer.parameters(), 1e-2)


@pytest.mark.parametrize("kind", ["muon", "adam"])
def test_equals_layers_that_subtract_the_mean(kind: str) -> None:
    """The layers of a network beside the same with the mean taken off by hand: equal after every step."""
    trained = network()
    inputs, name = Inputs(trained), "imnet.layers.2"
    layer = inputs.layers[name]
    twin = nn.Linear(16, 16)
    mean = 3 + numbers(16, seed=1)
    twin.load_state_dict(layer.state_dict())
    twin.bias.data += twin.weight.data @ mean
    inputs.means[name] = mean
    ours, theirs = optimizer_of(layer, kind), optimizer_of(twin, kind)
    for step in range(5):
        x, wanted = mean + 0.1 * numbers(64, 16, seed=step), numbers(64, 16, seed=100 + step)
        a, b = layer(x), twin(x - mean)
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
        for answer, optimizer in ((a, ours), (b, theirs)):
            optimizer.zero_grad()
            (answer - wanted).abs().mean().backward()
        with centred(inputs):
            ours.step()
        theirs.step()


def test_convolutions_keep_what_they_make_of_the_mean() -> None:
    """A flat picture of the means comes out as before, but for what the bias' own update did."""
    trained = network()
    inputs, name = Inputs(trained), "encoder.body.0.body.0"
    layer = inputs.layers[name]
    inputs.means[name] = 2 + numbers(16)
    flat = inputs.means[name][None, :, None, None].expand(1, 16, 5, 5)
    moves = {}
    for around in ("centred", "plain"):
        layer.weight.grad, layer.bias.grad = numbers(*layer.weight.shape, seed=2), torch.zeros(16)
        before, kept = layer(flat)[0, :, 2, 2].detach(), layer.weight.detach().clone()
        optimizer = Muon([layer.weight], 1e-2, (0.9, 0.99))
        if around == "centred":
            with centred(inputs):
                optimizer.step()
        else:
            optimizer.step()
        assert not torch.equal(layer.weight, kept)
        moves[around] = float((layer(flat)[0, :, 2, 2].detach() - before).abs().max())
    assert moves["centred"] < 1e-5
    assert moves["plain"] > 1e-2


def test_watches_one_iteration_of_ten() -> None:
    trained = network()
    inputs = Inputs(trained)
    picture = numbers(2, 3, 9, 11)
    for iteration in range(11):
        inputs.begin(iteration)
        trained.encoder(picture * (iteration + 1))
        inputs.end()
    assert inputs.watched == 2
    first = picture.mean((0, 2, 3))
    torch.testing.assert_close(inputs.means["encoder.head.0"], first * (0.9 + 0.1 * 11))
    torch.testing.assert_close(inputs.active["encoder.head.0"], 2 * (picture > 0).float().mean((0, 2, 3)))
    assert "imnet.layers.0" not in inputs.means, "its products are taken apart, no layer is called"
    trained.encoder(picture)
    assert inputs.watched == 2, "what is no iteration is not watched"

    other = Inputs(network())
    other.load_state_dict(inputs.state_dict())
    assert other.watched == 2
    for kept in ("means", "active"):
        for name, value in getattr(inputs, kept).items():
            assert torch.equal(getattr(other, kept)[name], value)
