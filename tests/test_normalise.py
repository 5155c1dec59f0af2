"""A picture's samples as an encoder takes them, by Triton: interpreted against PyTorch, and compiled."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

from common import BF16, CPU, FP16, FP32, random_weights
from interpreted import Spy, interpret
from liif_fast import normalise
from liif_fast.checkpoint import Architecture
from liif_fast.encoder import Encoder
from liif_fast.image import WHITE
from liif_fast.resample import Resampler

pytest.importorskip("triton")

MEAN, STD = (0.4, 0.5, 0.6), (1.0, 0.5, 0.3)
WEIGHTS = random_weights(Architecture(1, 16, (16,), decoder="resample", mean=MEAN, std=STD))
HEAD = Resampler(WEIGHTS, CPU, FP32, "reference").head


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Spy:
    return interpret(monkeypatch, import_module("liif_fast.kernels.normalise"), "normalise")


def samples(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    generator = np.random.default_rng(0)
    if dtype in WHITE:
        return torch.from_numpy(generator.integers(0, int(WHITE[dtype]) + 1, shape)).to(dtype)
    return torch.from_numpy(generator.random(shape)).to(dtype)


@pytest.mark.parametrize("dtype", [FP16, BF16], ids=str)
@pytest.mark.parametrize("of", [torch.uint8, torch.uint16, FP16, FP32], ids=str)
@pytest.mark.parametrize("where", ["whole", "crop", "planes", "gray", "one", "turned"])
def test_has_the_bits_of_pytorch(kernel: Spy, where: str, of: torch.dtype, dtype: torch.dtype) -> None:
    image = {
        "whole": lambda: samples((19, 29, 3), of),
        "crop": lambda: samples((41, 53, 3), of)[3:31, 5:22],
        "planes": lambda: samples((3, 19, 29), of).permute(1, 2, 0),
        "gray": lambda: samples((19, 29, 1), of),
        "one": lambda: samples((1, 1, 3), of),
        "turned": lambda: samples((19, 29, 3), of).transpose(0, 1),
    }[where]()
    found = normalise.normalised(image, MEAN, STD, dtype)
    assert len(kernel.launches) == 1
    plain = Encoder(WEIGHTS, HEAD, CPU, dtype)
    plain._at_once = None
    wanted = plain._normalise(image).expand(-1, -1, 3)
    assert (found.dtype, found.shape, found.is_contiguous()) == (dtype, wanted.shape, True)
    assert torch.equal(found, wanted)


def test_an_encoder_takes_it_where_it_runs(kernel: Spy) -> None:
    image = samples((9, 11, 3), torch.uint8)
    found = Encoder(WEIGHTS, HEAD, CPU, FP16)(image)
    assert len(kernel.launches) == 1
    exact = Encoder(WEIGHTS, HEAD, CPU, FP32)
    exact._at_once = None  # the kernel has no float32 to make
    torch.testing.assert_close(found.float(), exact(image), rtol=0.02, atol=0.02)


def test_no_card_no_kernel() -> None:
    assert not normalise.can(CPU, FP16)


def test_compiles(tmp_path: Path) -> None:
    """For cards that are not there: no spills, divisions as exact as interpreted; and what follows convolutions."""
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("passes.py")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TRITON_CACHE_DIR": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout)
    assert len(found) == 12
    for name, made in found.items():
        assert made["stack"] == 0, name
        assert made["exact"] >= 2 if name.startswith("normalise") else made["wide"] >= 2, (name, made)
