"""A LIIF decoder behind another encoder: fitted without training, then trained with the encoder as it is or slower."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from common import ROOT, random_weights
from liif_fast import checkpoint
from liif_fast.architecture import Architecture
from liif_fast.training import state
from liif_fast.training.attach import attach
from liif_fast.training.data import Pictures
from liif_fast.training.network import Liif, Network, Resample, from_weights
from liif_fast.training.train import train
from runs import make

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def sample() -> np.ndarray:
    return np.array(Image.open(ROOT / "docs" / "kitten.png").convert("RGB"))


@pytest.fixture(scope="module")
def pictures(sample: np.ndarray) -> Pictures:
    return Pictures([sample[:, :200], sample[:, 180:]], CPU)


@pytest.fixture
def image(sample: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(sample[100:130, 100:140]).permute(2, 0, 1)[None].float() / 127.5 - 1


def liif(*hidden: int, **shape: object) -> Liif:
    network = from_weights(
        random_weights(Architecture(**{"n_resblocks": 2, "n_feats": 32, **shape}, hidden_list=hidden))
    )  # type: ignore[arg-type]
    assert isinstance(network, Liif)
    return network


def answers(network: Network, image: torch.Tensor) -> torch.Tensor:
    places = torch.linspace(0.3, 29.6, 500, dtype=torch.float64)
    with torch.no_grad():
        return network(image, places, places.flip(0), torch.tensor([[0.5, 0.5]]))


@pytest.mark.parametrize("unfold", [True, False])
def test_the_same_features_in_another_order(pictures: Pictures, image: torch.Tensor, unfold: bool) -> None:
    """The decoder finds them again, and nothing else changes."""
    network, other = liif(32, 16, feat_unfold=unfold), liif(16, feat_unfold=unfold)
    order = torch.randperm(32, generator=torch.Generator().manual_seed(3))
    moved = {}
    for key, tensor in network.encoder.state_dict().items():
        first, block, second = key.startswith("head"), ".body.0." in key, ".body.2." in key  # else the last
        if not block:
            tensor = tensor[order]
        if key.endswith("weight") and not first and not second:
            tensor = tensor[:, order]
        moved[key] = tensor
    other.encoder.load_state_dict(moved)
    before = answers(network, image)
    attach(network, other, pictures, 0)
    assert torch.equal(network.encoder.head[0].weight, moved["head.0.weight"])
    torch.testing.assert_close(answers(network, image), before, rtol=0, atol=2e-3 * float(before.std()))


def unexplained(encoder: torch.nn.Module, image: torch.Tensor) -> float:
    """The share of the image's variance that no combination of the features tells."""
    with torch.no_grad():
        x = encoder(image).permute(0, 2, 3, 1).flatten(0, 2).double()
    x = torch.cat([x, torch.ones_like(x[:, :1])], 1)
    y = image.permute(0, 2, 3, 1).flatten(0, 2).double()
    left = y - x @ torch.linalg.lstsq(x, y).solution
    return float(left.square().mean() / (y - y.mean(0)).square().mean())


@pytest.mark.parametrize("model", ["realtime", "realtime-small"])
def test_what_a_resampler_s_encoder_leaves_out(pictures: Pictures, image: torch.Tensor, model: str) -> None:
    """The image is among the features afterwards, as far as they are enough for it, at no cost for the fine picture."""
    other = from_weights(checkpoint.load(model))
    assert isinstance(other, Resample)
    a = other.architecture
    network = liif(32, n_resblocks=a.n_resblocks, n_feats=a.n_feats, relu_after_add=True)
    with torch.no_grad():
        fine = other.upsample(other.encoder(image))
    before = unexplained(other.encoder, image)
    attach(network, other, pictures, 0)
    after = unexplained(network.encoder, image)
    assert before > 0.02
    assert after < (1e-6 if a.n_feats >= 27 else before / 4)
    with torch.no_grad():
        kept = other.upsample(network.encoder(image))
    assert float((kept - fine).square().mean() / fine.square().mean()) < (0.1 if a.n_feats >= 27 else 0.25)


def test_runs(photos: Path, tmp_path: Path) -> None:
    one, other = (
        train(make(photos, tmp_path / name, iterations=1, seed=seed)).weights for seed, name in enumerate(("a", "b"))
    )
    begun = {"init": str(one), "encoder": str(other)}
    found = {}
    for pace in (0.0, 0.1, 1.0):
        settings = make(photos, tmp_path / f"{pace}", encoder_pace=pace, **begun)
        found[pace] = checkpoint.load(train(settings).weights).tensors
    wanted = checkpoint.load(other).tensors
    moved = {
        pace: sum(float((tensors[key] - wanted[key]).square().sum()) for key in wanted if key.startswith("encoder."))
        for pace, tensors in found.items()
    }
    assert moved[0.0] == 0 < 20 * moved[0.1] < moved[1.0]
    first = "imnet.layers.0.weight"
    assert not torch.equal(found[0.0][first], checkpoint.load(one).tensors[first])

    class Stop(Exception):
        pass

    def stop(progress: object) -> None:
        if progress.iteration == 9:  # type: ignore[attr-defined]
            raise Stop

    parts = make(photos, tmp_path / "parts", encoder_pace=0.0, **begun)
    with pytest.raises(Stop):
        train(parts, tell=stop)
    again = checkpoint.load(train(parts, resume=True).weights).tensors
    assert all(torch.equal(again[key], found[0.0][key]) for key in again), "resumed, it is attached no second time"


def test_refused(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="and init 'realtime-small', whose decoder is not LIIF's"):
        state.begin(make(photos, tmp_path / "x", init="realtime-small", encoder="realtime"))
    with pytest.raises(ValueError, match=r"the encoder of realtime has .* \[4, 32, True, "):
        train(make(photos, tmp_path / "x", init="edsr-baseline-2", encoder="realtime"))
