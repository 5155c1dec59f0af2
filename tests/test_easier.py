"""Folding rectifiers away, dropping blocks, entropies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from common import FP64, random_weights
from images import pixels
from liif_fast import Upscaler
from liif_fast.checkpoint import Architecture
from liif_fast.training import easier
from liif_fast.training.data import Pictures
from liif_fast.training.network import from_weights

WEIGHTS = random_weights(Architecture(3, 16, (32, 48, 16)))


def noisy_pictures(count: int = 3, side: int = 100) -> Pictures:
    random = np.random.default_rng(0)
    return Pictures([random.integers(0, 256, (side, side, 3), np.uint8) for _ in range(count)], torch.device("cpu"))


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_fold_is_exact(layer: int) -> None:
    """The folded network answers as the whole one does with its rectifier replaced by the identity."""
    network = from_weights(WEIGHTS).double()
    network.imnet.layers[2 * layer + 1] = nn.Identity()
    folded = from_weights(easier.fold(WEIGHTS, layer)).double()
    assert len(folded.architecture.hidden_list) == 2
    places = np.random.default_rng(0).random((2, 200)) * 9
    y, x = map(torch.from_numpy, places)
    image, cell = torch.rand(1, 3, 9, 9, dtype=FP64), torch.tensor([[0.5, 0.7]], dtype=FP64)
    with torch.no_grad():
        a, b = (n(image, y, x, cell) for n in (network, folded))
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)  # the folded weights are rounded to float32
    with torch.no_grad():
        whole = from_weights(WEIGHTS).double()(image, y, x, cell)
    assert (whole - b).abs().max() > 1e-3  # the rectifier did something


def test_folded_runs() -> None:
    folded = easier.fold(easier.fold(WEIGHTS, 1), 0)
    assert folded.architecture.hidden_list == (16,)
    assert Upscaler(folded)(pixels(23, 31), scale=2).shape == (46, 62, 3)
    with pytest.raises(ValueError, match="must keep one"):
        easier.fold(folded, 0)
    with pytest.raises(ValueError, match="no hidden layer 3"):
        easier.fold(WEIGHTS, 3)


@pytest.mark.parametrize("block", [0, 1, 2])
def test_dropped_block_is_its_skip(block: int) -> None:
    network = from_weights(WEIGHTS)
    network.encoder.body[block] = nn.Identity()
    dropped = from_weights(easier.drop_block(WEIGHTS, block))
    image = torch.rand(1, 3, 9, 9)
    with torch.no_grad():
        torch.testing.assert_close(network.encoder(image), dropped.encoder(image))
    with pytest.raises(ValueError, match="no residual block 3"):
        easier.drop_block(WEIGHTS, 3)


def test_binary_entropy() -> None:
    found = easier.binary_entropy(torch.tensor([0.0, 0.5, 1.0, 0.11]))
    torch.testing.assert_close(found, torch.tensor([0.0, 1.0, 0.0, 0.49992], dtype=FP64), rtol=0, atol=1e-4)


def test_settled_rectifier_is_found_and_goes_first(tmp_path: Path) -> None:
    """A bias that keeps a layer's neurons on makes its rectifier idle: entropy zero, and folding changes nothing."""
    tensors = {key: value.clone() for key, value in WEIGHTS.tensors.items()}
    tensors["imnet.layers.2.bias"] += 1e4
    tensors["encoder.body.1.body.0.bias"] -= 1e4
    weights = type(WEIGHTS)(WEIGHTS.architecture, tensors)
    pictures = noisy_pictures()
    found = easier.measure(weights, pictures, patches=4)
    assert [r.name for r in found] == ["encoder 1", "encoder 2", "encoder 3", "decoder 1", "decoder 2", "decoder 3"]
    by_name = {r.name: r for r in found}
    assert (by_name["decoder 2"].entropy, by_name["decoder 2"].active) == (0, 1)
    assert (by_name["encoder 2"].entropy, by_name["encoder 2"].active) == (0, 0)
    assert by_name["decoder 1"].entropy > 0.3
    assert easier.next_layer(found) == 1
    assert easier.measure(weights, pictures, patches=4) == found
    rectified = random_weights(Architecture(2, 16, (16,), decoder="resample", relu_after_add=True))
    names = [r.name for r in easier.measure(rectified, pictures, patches=4)]
    assert names == ["encoder 1", "encoder 1 sum", "encoder 2", "encoder 2 sum"]
    easier.draw(found, tmp_path / "entropy.png")
    assert (tmp_path / "entropy.png").read_bytes().startswith(b"\x89PNG")
