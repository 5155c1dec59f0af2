"""`liif-fast eval`: pairs, scores, tables, strips, JSON, and what is left out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from common import GOLDEN, ROOT
from liif_fast import Upscaler
from liif_fast.training import testset
from liif_fast.training.evaluate import bicubic, evaluate, fixed, lanczos
from liif_fast.training.metrics import PROTOCOLS
from liif_fast.training.resize import resize

BENCHMARK = PROTOCOLS["benchmark"]
TINY = str(GOLDEN / "tiny.pth")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("truth")
    photo = Image.open(ROOT / "docs" / "kitten.png").convert("RGB")
    photo.crop((60, 40, 131, 107)).save(folder / "face.png")
    photo.crop((10, 10, 75, 75)).convert("L").save(folder / "gray.png")
    return folder


def test_pairs(folder: Path) -> None:
    pairs, skipped = testset.load(folder, [2, 3.7], BENCHMARK)
    assert not skipped
    assert [(p.name, p.scale) for p in pairs] == [
        (name, scale) for name in ("face.png", "gray.png") for scale in (2, 3.7)
    ]
    face = pairs[0]
    assert face.hr.shape == (66, 70, 3)
    assert face.lr.shape == (33, 35, 3)
    planes = torch.from_numpy(face.hr).permute(2, 0, 1).double()
    expected = resize(planes, (33, 35)).clamp(0, 255).permute(1, 2, 0).numpy()
    assert np.abs(face.lr - expected).max() <= 0.5 + 1e-5
    assert pairs[1].lr.shape == (18, 19, 3)
    assert pairs[1].hr.shape == (67, 70, 3)
    assert (pairs[2].hr[..., 0] == pairs[2].hr[..., 2]).all()


def test_scores(folder: Path) -> None:
    pairs, _ = testset.load(folder, [2], BENCHMARK)
    perfect = evaluate(lambda lr, size: next(p.hr for p in pairs if p.lr is lr) / 255, pairs)[2]
    assert perfect.psnr == perfect.psnr_rounded == float("inf")
    found = {name: evaluate(method, pairs)[2] for name, method in (("bicubic", bicubic), ("lanczos", lanczos))}
    for summary in found.values():
        assert 20 < summary.psnr < 50
        assert abs(summary.psnr - summary.psnr_rounded) < 0.3
        assert 0.5 < summary.ssim < 1
        assert summary.psnr == pytest.approx(np.mean([s.psnr for s in summary.scores]))
    assert found["bicubic"].psnr != found["lanczos"].psnr


def test_network_and_fixed_scale(folder: Path) -> None:
    pairs, _ = testset.load(folder, [4], BENCHMARK)
    up = Upscaler(TINY, precision="fp32")
    direct = evaluate(up, pairs)[4]
    # At its own scale the fixed-scale network needs no second resize.
    again = evaluate(fixed(up, 4), [p for p in pairs if p.hr.shape[0] == 4 * p.lr.shape[0]])[4]
    assert again.psnr == pytest.approx(direct.psnr, abs=1e-4)


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "liif_fast", "eval", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


def test_command(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for path in folder.iterdir():
        (tmp_path / "pictures" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "pictures" / "broken.png").write_bytes(b"\x89PNG nothing")
    Image.new("RGB", (9, 9)).save(tmp_path / "pictures" / "small.png")
    report = tmp_path / "report.json"
    done = run(
        TINY, "--data", tmp_path / "pictures", "--scales", "2,3", "--fixed", TINY, "--strips", tmp_path / "strips",
        "--json", report, "--precision", "fp32",
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "2 of 4 pictures were skipped" in done.stderr
    assert "small.png: 9 x 9 pixels" in done.stderr
    for row in ("bicubic", "Lanczos", "tiny ", "tiny x4, Lanczos", "x2, 2 pictures", "x3, 2 pictures"):
        assert row in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 130
    content = json.loads(report.read_text())
    (only,) = content["sets"]
    assert {(r["scale"], r["method"]) for r in only["results"]} == {
        (scale, method) for scale in (2, 3) for method in ("bicubic", "Lanczos", "tiny", "tiny x4, Lanczos")
    }
    assert content["models"][TINY]["fingerprint"]
    assert len(only["results"][0]["pictures"]) == 2
    strips = sorted(path.name for path in (tmp_path / "strips").iterdir())
    assert strips == [f"pictures_{name}_x{scale}.png" for name in ("face", "gray") for scale in (2, 3)]
    with Image.open(tmp_path / "strips" / strips[0]) as strip:
        assert strip.size[0] > 5 * 60


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--data", "nowhere"], "nowhere: no such folder"),
        (["--data", ".", "--scales", "1"], "numbers above 1"),
        (["--data", ".", "--scales", "two"], "'two'"),
        (["--data", ".", "--protocol", "best"], "'best'"),
        ([], "--data"),
    ],
)
def test_refused(arguments: list[str], text: str) -> None:
    done = run(TINY, *arguments)
    assert done.returncode == 2
    assert text in done.stderr
    assert done.stderr.count("\n") == 1


def test_nothing_usable(tmp_path: Path) -> None:
    Image.new("RGB", (5, 5)).save(tmp_path / "tiny.png")
    done = run(TINY, "--data", tmp_path)
    assert done.returncode == 2
    assert "no picture could be used" in done.stderr
