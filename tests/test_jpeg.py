"""JPEG between a picture and the network: as libjpeg does it, in training and in what is measured."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from typer.testing import CliRunner

from common import GOLDEN
from liif_fast import Upscaler, checkpoint, cli
from liif_fast.training import testset
from liif_fast.training.evaluate import evaluate
from liif_fast.training.jpeg import at_random, compressed, saved
from liif_fast.training.metrics import PROTOCOLS
from liif_fast.training.train import WEIGHTS, load_data, train
from runs import make

TINY = str(GOLDEN / "tiny.pth")


def planes(picture: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255


def through(picture: np.ndarray, quality: float, halved: bool, top: int = 0, left: int = 0) -> np.ndarray:
    """`compressed` of one picture, int [H, W, 3]."""
    origin = torch.tensor([[top], [left]])
    found = 255 * compressed(planes(picture), torch.tensor([quality]), origin, torch.tensor([halved]))
    assert float((found - found.round()).abs().max()) < 1e-3
    return found.round().int()[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("halved", [True, False], ids=["4:2:0", "4:4:4"])
@pytest.mark.parametrize("quality", [3, 30, 49, 50, 75, 95, 100])
def test_is_what_pillow_makes(kitten: np.ndarray, quality: int, halved: bool) -> None:
    """But for libjpeg's whole numbers, which now and then round a coefficient the other way."""
    if halved:
        expected = saved(kitten, quality)
    else:
        file = io.BytesIO()
        Image.fromarray(kitten).save(file, "JPEG", quality=quality, subsampling="4:4:4")
        expected = np.array(Image.open(file))
    difference = np.abs(through(kitten, quality, halved) - expected.astype(int))
    lost = np.abs(kitten - expected.astype(int)).mean()
    assert lost > 0.3
    assert difference.mean() < max(0.1 * lost, 0.8)
    assert (difference > 4).mean() < 0.03


@pytest.mark.parametrize("halved", [True, False], ids=["4:2:0", "4:4:4"])
def test_a_patch_is_cut_from_a_compressed_picture(kitten: np.ndarray, halved: bool) -> None:
    """Blocks begin where they do in the picture: those that lie whole in the patch are the same."""
    top, left, side = 21, 43, 50
    whole = through(kitten, 40, halved)
    patch = through(kitten[top : top + side, left : left + side], 40, halved, top % 16, left % 16)
    # The first whole unit of 16 begins at 32 and 48, the last ends at 64 and 80; halved colour looks one pixel beyond.
    rows, columns = slice(33, 63), slice(49, 79)
    inside = patch[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    assert np.array_equal(inside, whole[rows, columns])
    elsewhere = through(kitten[top : top + side, left : left + side], 40, halved)
    assert not np.array_equal(elsewhere, patch)


def test_at_random() -> None:
    images = planes(np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)).repeat(64, 1, 1, 1)

    def drawn(share: float, low: float, high: float) -> torch.Tensor:
        return at_random(images, share, (low, high), torch.Generator().manual_seed(5))

    assert torch.equal(drawn(0, 5, 90), images)
    assert torch.equal(drawn(0.5, 5, 90), drawn(0.5, 5, 90))
    changed = (drawn(0.5, 5, 90) != images).flatten(1).any(1)
    assert 16 < int(changed.sum()) < 48
    lost = (drawn(1, 5, 90) - images).square().flatten(1).mean(1)
    assert bool((lost > 0).all())
    assert len(lost.unique()) == 64, "each has a quality and a place of its own"
    assert float((drawn(1, 5, 5) - images).square().mean()) > 1.5 * float((drawn(1, 90, 90) - images).square().mean())


def test_the_host_is_asked_for_nothing_twice() -> None:
    """A CUDA graph is made of what a later call does."""

    class Copies(TorchDispatchMode):
        def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            given = [t for t in tree_leaves((args, kwargs or {})) if isinstance(t, torch.Tensor)]
            self.found += [str(operation) for t in given if t.device != on]
            return operation(*args, **(kwargs or {}))

        found: ClassVar[list[str]] = []

    on = torch.device("meta")
    images, quality = torch.empty(2, 3, 24, 24, device=on), torch.empty(2, device=on)
    origin, halved = torch.empty(2, 2, dtype=torch.int64, device=on), torch.empty(2, dtype=torch.bool, device=on)
    for expected in (True, False):
        Copies.found.clear()
        with Copies():
            compressed(images, quality, origin, halved)
        assert bool(Copies.found) == expected, Copies.found


def test_training_with_it(photos: Path, tmp_path: Path) -> None:
    runs = {name: make(photos, tmp_path / name, jpeg=share) for name, share in (("clean", 0.0), ("jpeg", 1.0))}
    for settings in runs.values():
        train(settings)
    clean, jpeg = (checkpoint.load(tmp_path / name / WEIGHTS) for name in runs)
    assert clean.fingerprint != jpeg.fingerprint
    assert "jpeg 1.0, jpeg_min 30, jpeg_max 95" in jpeg.metadata["recipe"]
    again = make(photos, tmp_path / "again", jpeg=1.0)
    train(again)
    assert checkpoint.load(tmp_path / "again" / WEIGHTS).fingerprint == jpeg.fingerprint
    # What is held out is measured as it is learned: compressed.
    pairs = [load_data(settings, torch.device("cpu"))[1] for settings in runs.values()]
    for one, other in zip(*pairs, strict=True):
        assert np.array_equal(one.hr, other.hr)
        assert np.array_equal(saved(one.lr, 62), other.lr)
        assert not np.array_equal(one.lr, other.lr)


def test_eval_with_it(kitten: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "truth").mkdir()
    Image.fromarray(kitten).save(tmp_path / "truth" / "cat.png")
    report = tmp_path / "report.json"
    line = [TINY, "--data", str(tmp_path / "truth"), "--scales", "2", "--precision", "fp32", "--json", str(report)]
    found = {}
    for quality in (None, 40):
        done = CliRunner().invoke(cli.app, ["eval", *line, *(["--jpeg", str(quality)] if quality else [])])
        assert done.exit_code == 0, done.stderr
        assert ("from JPEG of quality 40" in done.stdout) == (quality == 40)
        content = json.loads(report.read_text())
        assert content["compression"] == (quality and {"codec": "JPEG", "level": quality})
        found[quality] = {r["method"]: r["psnr"] for r in content["sets"][0]["results"]}
    assert found[40]["bicubic"] < found[None]["bicubic"] - 0.3
    pair = testset.pair("cat", kitten, 2, PROTOCOLS["benchmark"], testset.Compression("JPEG", 40))
    expected = evaluate(Upscaler(TINY, precision="fp32"), [pair])[2].psnr
    assert found[40]["tiny"] == pytest.approx(expected, abs=1e-6)
    assert CliRunner().invoke(cli.app, ["eval", *line, "--jpeg", "101"]).exit_code == 2
