"""Films between a picture and the network: patches through libx264, in training and in what is measured."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from common import GOLDEN
from liif_fast import Upscaler, checkpoint, cli
from liif_fast.bench import psnr
from liif_fast.training import film, testset
from liif_fast.training.evaluate import evaluate
from liif_fast.training.film import FASTEST, FRAMES, at_random, coded, filmed
from liif_fast.training.metrics import PROTOCOLS
from liif_fast.training.train import WEIGHTS, train
from runs import make

pytest.importorskip("av")
TINY = str(GOLDEN / "tiny.pth")
NOWHERE = torch.zeros(5, 2, dtype=torch.int64)


@pytest.fixture(scope="module")
def patches(kitten: np.ndarray) -> torch.Tensor:
    """Float [5, 3, 33, 40]."""
    corners = [(0, 0), (20, 31), (47, 72), (13, 64), (40, 5)]
    cut = [torch.from_numpy(kitten[y : y + 33, x : x + 40].copy()) for y, x in corners]
    return torch.stack(cut).permute(0, 3, 1, 2).float() / 255


@pytest.mark.parametrize("frame", range(FRAMES))
def test_a_patch_comes_back_where_it_was(patches: torch.Tensor, frame: int) -> None:
    """From any frame, whatever it moved by and wherever its macroblocks began: gray at CRF 0 loses next to nothing."""
    gray = patches.mean(1, keepdim=True).expand(-1, 3, -1, -1).mul(255).round() / 255
    origin = torch.tensor([[0, 0], [15, 15], [3, 8], [7, 1], [12, 5]])
    velocity = torch.tensor([[0, 0], [3, -3], [-1, 2], [0, 1], [-3, -3]])
    found = coded(gray, 0, frame, origin, velocity)
    assert found.shape == gray.shape
    assert found.dtype == torch.float32
    assert float((found - gray).abs().max()) <= 2 / 255


def test_it_loses_more_the_higher_the_factor(patches: torch.Tensor) -> None:
    lost = [psnr(coded(patches, crf, 1, NOWHERE, NOWHERE + 1).numpy(), patches.numpy()) for crf in (10, 20, 30, 40)]
    assert lost == sorted(lost, reverse=True)
    assert lost[0] > 34
    assert lost[-1] < 30


def test_neighbours_in_a_frame_do_not_mix() -> None:
    """Black beside white: a patch of one colour stays that, but for how coarse its steps are."""
    images = torch.zeros(5, 3, 33, 40)
    images[::2] = 1
    found = coded(images, 51, 2, NOWHERE + 9, NOWHERE + torch.tensor([3, -3]))
    assert float((found - images).abs().max()) <= 4 / 255
    assert float((found.amax((2, 3)) - found.amin((2, 3))).max()) <= 1 / 255


def test_at_random(patches: torch.Tensor) -> None:
    def drawn(seed: int, low: int, high: int) -> torch.Tensor:
        return at_random(patches, (low, high), torch.Generator().manual_seed(seed))

    def lost(factor: int) -> float:
        return psnr(drawn(1, factor, factor).numpy(), patches.numpy())

    assert torch.equal(drawn(1, 18, 33), drawn(1, 18, 33))
    assert not torch.equal(drawn(1, 18, 33), drawn(2, 18, 33))
    assert lost(40) < lost(10) - 3


def test_what_is_drawn(patches: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple] = []
    monkeypatch.setattr(film, "coded", lambda images, *how: seen.append(how) or images)
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):
        at_random(patches, (18, 33), generator)
    crfs, frames, origins, velocities = zip(*seen, strict=True)
    assert set(crfs) == set(range(18, 34))
    assert set(frames) == set(range(FRAMES))
    assert set(torch.cat(origins).flatten().tolist()) == set(range(16))
    assert set(torch.cat(velocities).flatten().tolist()) == set(range(-FASTEST, FASTEST + 1))
    resting = float((torch.cat(velocities) == 0).all(1).float().mean())
    assert 0.3 < resting < 0.42


def test_training_with_it(photos: Path, tmp_path: Path) -> None:
    shares = {"clean": 0.0, "film": 1.0, "again": 1.0}
    for name, share in shares.items():
        train(make(photos, tmp_path / name, film=share, device="cpu"))
    clean, once, again = (checkpoint.load(tmp_path / name / WEIGHTS) for name in shares)
    assert clean.fingerprint != once.fingerprint
    assert once.fingerprint == again.fingerprint
    assert "film 1.0, crf_min 18, crf_max 33" in once.metadata["recipe"]


def test_eval_with_it(kitten: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "truth").mkdir()
    Image.fromarray(kitten).save(tmp_path / "truth" / "cat.png")
    report = tmp_path / "report.json"
    line = [TINY, "--data", str(tmp_path / "truth"), "--scales", "2", "--precision", "fp32", "--json", str(report)]
    done = CliRunner().invoke(cli.app, ["eval", *line, "--crf", "28"])
    assert done.exit_code == 0, done.stderr
    assert "from H.264 of CRF 28" in done.stdout
    content = json.loads(report.read_text())
    assert content["compression"] == {"codec": "H.264", "level": 28}
    found = {r["method"]: r["psnr"] for r in content["sets"][0]["results"]}
    pair = testset.pair("cat", kitten, 2, PROTOCOLS["benchmark"], testset.Compression("H.264", 28))
    clean = testset.pair("cat", kitten, 2, PROTOCOLS["benchmark"])
    assert np.array_equal(pair.lr, filmed(clean.lr, 28))
    assert found["tiny"] == pytest.approx(evaluate(Upscaler(TINY, precision="fp32"), [pair])[2].psnr, abs=1e-6)
    both = CliRunner().invoke(cli.app, ["eval", *line, "--crf", "28", "--jpeg", "75"])
    assert both.exit_code == 2
    assert "--jpeg 75 and --crf 28: one of them" in both.stderr


def test_without_what_it_needs(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert film.unavailable() is None
    with pytest.raises(ValueError, match="a codec needs a processor, device is meta: train with --device cpu"):
        film.check(torch.device("meta"))
    monkeypatch.setitem(sys.modules, "av.codec", None)
    with pytest.raises(ValueError, match=r"films \(film\) cannot be made: PyAV is not installed: pip install"):
        train(make(photos, tmp_path / "run", film=0.5, device="cpu"))
    assert not (tmp_path / "run").exists()
    done = CliRunner().invoke(cli.app, ["eval", TINY, "--data", str(photos), "--crf", "28"])
    assert done.exit_code == 2
    assert "no H.264 of CRF 28: PyAV is not installed" in done.stderr
