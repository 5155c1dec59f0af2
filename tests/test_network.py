"""The trainable network against the published formulation, values and gradients; the optimiser."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from common import CPU, FP32, FP64, GOLDEN, GOLDENS, noise, random_weights
from liif_fast import Upscaler, checkpoint, published
from liif_fast.checkpoint import Architecture
from liif_fast.encoder import Encoder
from liif_fast.ops import Decoder
from liif_fast.training.network import Resample, from_weights, make, to_weights
from liif_fast.training.optimizer import Muon, orthogonal

LR, SIZE = (5, 7), (11, 17)


@pytest.mark.parametrize("name", GOLDENS)
def test_values_and_gradients_are_the_published_ones(name: str) -> None:
    weights = checkpoint.load(GOLDEN / f"{name}.pth")
    network = from_weights(weights).double()
    image = torch.rand(1, 3, *LR, dtype=FP64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]].reshape(2, -1)
    # Where the published blend is a quotient of rounding errors there is nothing to compare.
    fine = ~(noise(SIZE[0], LR[0])[rows] | noise(SIZE[1], LR[1])[columns])
    rows, columns = rows[fine], columns[fine]
    places = [(p + 0.5) * cells / size for p, cells, size in zip((rows, columns), LR, SIZE, strict=True)]
    cell = torch.tensor([[2 * n / size for n, size in zip(LR, SIZE, strict=True)]], dtype=FP64)
    ours = network(image, *map(torch.from_numpy, places), cell)

    parameters = dict(network.named_parameters())
    feat = published.encode(parameters, weights.architecture, image)
    coord = torch.stack([torch.from_numpy(2 * p / n - 1) for p, n in zip(places, LR, strict=True)], -1)[None]
    extent = torch.tensor([2 / size for size in SIZE], dtype=FP64).expand(1, coord.shape[1], 2)
    theirs = published.query(weights.architecture, parameters, feat, coord, extent)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)  # the published areas have 1e-9 added

    pull = torch.randn(ours.shape, dtype=FP64, generator=torch.Generator().manual_seed(1))
    found, wanted = (torch.autograd.grad((out * pull).sum(), list(parameters.values())) for out in (ours, theirs))
    for key, a, b in zip(parameters, found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6 * float(b.abs().max()), msg=key)


@pytest.mark.parametrize("relu_after_add", [False, True])
def test_encoders_are_the_published_one(relu_after_add: bool) -> None:
    """In training and in use; with ResNet's ReLU after each block, as much as without."""
    weights = random_weights(Architecture(3, 16, (16,), relu_after_add=relu_after_add))
    opposite = replace(weights.architecture, relu_after_add=not relu_after_add)
    image = torch.rand(1, 3, 9, 7, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        wanted, other = (published.encode(weights.tensors, a, image) for a in (weights.architecture, opposite))
        used = Encoder(weights, Decoder(weights, CPU, FP32).head, CPU, FP32).encode(image)
        for found in (from_weights(weights).encoder(image), used):
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-4)
    assert (other - wanted).abs().max() > 0.01


def test_resampling_network_is_the_product() -> None:
    """In training as in use, also for taps that have learned something."""
    torch.manual_seed(0)
    network = make(Architecture(1, 16, (16,), decoder="resample"))
    assert isinstance(network, Resample)
    torch.nn.init.normal_(network.taps.layers[-1].weight, std=0.1)
    picture = torch.rand(9, 7, 3)
    y, x = (np.random.default_rng(0).random((2, 50)) * [[9], [7]]).astype(np.float64)
    for scale in (1.5, 4.0, 7.0):
        side = 2 / min(scale, 4.0)
        cell = torch.full((1, 2), side)
        image = (2 * picture - 1).permute(2, 0, 1)[None]
        with torch.no_grad():
            ours = (network(image, torch.from_numpy(y), torch.from_numpy(x), cell)[0] + 1) / 2
        weights = to_weights(network.architecture, dict(network.state_dict()), "noise")
        field = Upscaler(weights, precision="fp32").encode(picture.numpy())
        crossings = np.stack(np.meshgrid(y, x, indexing="ij"), -1)
        wanted = field.sample(crossings.reshape(-1, 2), scale=scale).reshape(50, 50, 3)
        torch.testing.assert_close(ours.clamp(0, 1), torch.as_tensor(wanted), atol=3e-6, rtol=0)


def test_weights_come_back() -> None:
    weights = random_weights(Architecture(1, 8, (32, 32)))
    back = to_weights(weights.architecture, dict(from_weights(weights).state_dict()), "again", note="kept")
    assert back.fingerprint == weights.fingerprint
    assert (back.name, back.metadata) == ("again", {"note": "kept"})


@pytest.mark.parametrize("shape", [(64, 576), (256, 256), (300, 20)])
def test_orthogonal(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonal(matrix)) / (0.2 * max(shape) ** 0.5)
    assert values.quantile(0.05) > 0.4  # the least of a square matrix's come up slowly
    assert values.max() < 1.3
    rms = orthogonal(matrix).square().mean().sqrt()
    assert 0.1 < rms < 0.25


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_layers_of_one_shape_move_as_each_alone(memory_format: torch.memory_format) -> None:
    """Those that are stepped together, whatever their shape and however they lie in memory."""
    weights = random_weights(Architecture(n_resblocks=2, n_feats=16, hidden_list=(32, 32, 32)))
    one, other = (from_weights(weights).to(memory_format=memory_format) for _ in range(2))  # type: ignore[call-overload]
    together = Muon(one.groups(), 1e-2, (0.9, 0.99))
    alone = [Muon([parameter], 1e-2, (0.9, 0.99)) for parameter in other.parameters()]
    for step in range(3):
        for i, pair in enumerate(zip(one.parameters(), other.parameters(), strict=True)):
            random = torch.Generator().manual_seed(100 * step + i)
            for parameter in pair:
                parameter.grad = torch.randn(parameter.shape, generator=random.clone_state())
        together.step()
        for optimizer in alone:
            optimizer.step()
    for name, parameter in one.named_parameters():
        assert not torch.equal(parameter, weights.tensors[name])
        torch.testing.assert_close(parameter, other.get_parameter(name), rtol=1e-5, atol=1e-6)


def test_muon_minimises() -> None:
    torch.manual_seed(0)
    target = torch.randn(20, 30)
    weight, bias = torch.nn.Parameter(torch.zeros(20, 30)), torch.nn.Parameter(torch.zeros(20))
    optimizer = Muon([weight, bias], lr=0.3, betas=(0.9, 0.99))
    for i in range(200):
        optimizer.param_groups[0]["lr"] = 0.3 * (1 - i / 200)
        loss = (weight - target).square().mean() + (bias - 1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 1e-2
