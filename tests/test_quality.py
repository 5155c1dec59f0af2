"""What the bundled networks are worth, and that low precision costs nothing: PSNR on the sample photograph."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFilter

from common import ROOT
from liif_fast import Upscaler
from liif_fast.bench import psnr
from liif_fast.checkpoint import load
from liif_fast.training.resize import resize
from liif_fast.weights import DEFAULT


@pytest.fixture(scope="module")
def detail() -> np.ndarray:
    """A detail of the sample, float32 [144, 144, 3] in [0, 1]."""
    picture = Image.open(ROOT / "docs" / "kitten.png").convert("RGB").crop((60, 40, 204, 184))
    return np.asarray(picture, np.float32) / 255


def reduced(picture: np.ndarray, scale: int) -> np.ndarray:
    small = resize(torch.from_numpy(picture).permute(2, 0, 1), tuple(side // scale for side in picture.shape[:2]))
    return (small.permute(1, 2, 0).clamp(0, 1).numpy() * 255).round().astype(np.float32) / 255


CARDS = ROOT / "liif_fast" / "weights"
MODELS = sorted(path.stem for path in CARDS.glob("*.safetensors"))


@pytest.mark.parametrize("model", MODELS)
def test_a_model_has_the_card_of_its_weights(model: str) -> None:
    card = (CARDS / f"{model}.md").read_text()
    assert f"network `{load(model).fingerprint}`" in card, "`make weights` measures it anew"
    assert f"weights/{model}.md)" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("scale", "gain"), [(2, 0.4), (3, 0.3), (4, 0.25)])
def test_better_than_bicubic(detail: np.ndarray, model: str, scale: int, gain: float) -> None:
    small = reduced(detail, scale)
    ours = Upscaler(model, precision="fp32")(small, scale=scale)
    bicubic = resize(torch.from_numpy(small).permute(2, 0, 1), detail.shape[:2]).permute(1, 2, 0).clamp(0, 1).numpy()
    assert psnr(ours, detail) > psnr(bicubic, detail) + gain


@pytest.mark.parametrize("model", MODELS)
def test_no_rings_beside_hard_edges(model: str) -> None:
    """Line art that was never antialiased: from the second pixel beside it on, paper stays paper."""
    paper = 235
    art = Image.new("L", (64, 40), paper)
    draw = ImageDraw.Draw(art)
    draw.line((3, 3, 30, 22), 0)
    draw.line((3, 30, 60, 34), 60)
    draw.ellipse((34, 4, 58, 26), 80, 0)
    draw.rectangle((6, 12, 14, 24), 110)
    enlarged = Upscaler(model, precision="fp32")(np.array(art), scale=4).astype(int)
    drawn = art.point(lambda level: 255 * (level != paper))
    beside = np.array(drawn.filter(ImageFilter.MaxFilter(3))).repeat(4, 0).repeat(4, 1) > 0
    rings = np.abs(enlarged - paper)[~beside]
    assert rings.max() <= 30
    assert np.sqrt(np.mean(rings**2)) <= 3


@pytest.mark.parametrize("model", ["edsr-baseline", DEFAULT])
def test_bf16_costs_nothing(detail: np.ndarray, isa: str, model: str) -> None:
    side = 96 if isa != "scalar" else 48  # the scalar code takes its time
    truth = detail[:side, :side]
    small = reduced(truth, 3)
    exact = Upscaler(model, precision="fp32")(small, scale=3)
    stored = Upscaler(model, precision="bf16")(small, scale=3)
    assert psnr(stored, exact) > 50
    assert psnr(stored, truth) > psnr(exact, truth) - 0.01


@pytest.mark.parametrize("precision", ["fp8", "int8"])
@pytest.mark.parametrize("model", [name for name in MODELS if load(name).quantized])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_8_bits_cost_next_to_nothing(detail: np.ndarray, model: str, scale: int, precision: str) -> None:
    """As PyTorch emulates them."""
    truth = detail[24:120, 24:120]
    small = reduced(truth, scale)
    exact = Upscaler(model, device="cpu", precision="fp32")(small, scale=scale)
    stored = Upscaler(model, device="cpu", precision=precision, backend="reference")(small, scale=scale)
    assert 50 < psnr(stored, exact) < 85, "exact: 8 bits did not run"
    assert psnr(stored, truth) > psnr(exact, truth) - {"fp8": 0.03, "int8": 0.01}[precision]


@pytest.mark.parametrize("model", ["edsr-baseline", "edsr-baseline-2"])
def test_a_liif_is_measured_for_8_bits(model: str) -> None:
    assert list(load(model).quantized) == ["fp8", "int8"]
