"""Fixtures of every test."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clips import SMALL
from common import ROOT, random_weights, supported_isas
from images import pixels
from liif_fast import Upscaler
from liif_fast.backends.cpu import ISA_VARIABLE
from runs import pictures

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


@pytest.fixture(params=supported_isas())
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each instruction set of this build and processor, forced."""
    monkeypatch.setenv(ISA_VARIABLE, request.param)
    return str(request.param)


@pytest.fixture(scope="module")
def film_upscaler() -> Upscaler:
    """One that is soon done with the films of clips.py."""
    return Upscaler(random_weights(SMALL), precision="fp32", threads=2)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three small photographs to train on, not to be written to."""
    return pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def kitten() -> np.ndarray:
    """A detail of the sample photograph, uint8 [80, 112, 3]."""
    return np.array(Image.open(ROOT / "docs" / "kitten.png").convert("RGB"))[20:100, 30:142]
