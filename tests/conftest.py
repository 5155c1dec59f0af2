"""Fixtures of every test."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common import GOLDEN, random_weights
from images import pixels
from liif_fast.backends.cpu import ISA_VARIABLE
from liif_fast.checkpoint import Architecture, Weights

# Read where Triton is first imported: its kernels run in its interpreter, on the processor. `make test-gpu` says 0.
os.environ.setdefault("TRITON_INTERPRET", "1")
if os.environ["TRITON_INTERPRET"] == "1":  # and what takes the best device there is takes the processor
    os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.fixture(autouse=True)
def _no_forced_isa(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the shell has forced must not leak into tests."""
    monkeypatch.delenv(ISA_VARIABLE, raising=False)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a.png (17 x 11) in it."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(pixels()).save("a.png")
    return tmp_path


@pytest.fixture
def also() -> Iterator[Callable[[Path, Path], None]]:
    """Gives a folder another name, ``also(folder, name)``, that no path shows, as on file systems without case."""
    names: list[Path] = []

    def also(folder: Path, name: Path) -> None:
        name.mkdir()
        try:
            subprocess.run(["mount", "--bind", folder, name], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("needs to mount a folder")
        names.append(name)

    yield also
    for name in names:
        subprocess.run(["umount", name], check=True)


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of goldens from the official code."""
    return GOLDEN


@pytest.fixture(scope="session")
def tiny() -> Weights:
    """A small random network, all flags on."""
    return random_weights(Architecture(1, 8, (32, 32)))


@pytest.fixture(scope="session")
def photo() -> np.ndarray:
    """A smooth picture with some noise, uint8 [23, 31, 3]."""
    y, x = np.mgrid[:23, :31]
    waves = np.stack([np.sin(y / 3 + x / 5), np.cos(y / 4 - x / 7), np.sin(x * y / 40)], -1)
    noisy = waves * 100 + 128 + np.random.default_rng(0).normal(0, 8, (23, 31, 3))
    return noisy.clip(0, 255).astype(np.uint8)
