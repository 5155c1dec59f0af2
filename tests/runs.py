"""Small training runs."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from PIL import Image

from common import ROOT
from liif_fast.training.config import Config
from liif_fast.training.state import STATE

SMALL = {"n_resblocks": 1, "n_feats": 16, "hidden_list": (16, 16), "batch": 4, "patch": 12, "queries": 64}
# Bit for bit is a promise for processors.
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
QUICK = {
    **SMALL,
    "device": "cpu",
    "held_out": 1,
    "iterations": 12,
    "validate_every": 6,
    "save_every": 3,
    "log_every": 3,
    "threads": 2,
}


def pictures(folder: Path) -> Path:
    """Three with edges and texture in a folder."""
    photo = Image.open(ROOT / "docs" / "kitten.png").convert("RGB")
    for i in range(3):
        photo.crop((60 * i, 40, 60 * i + 100, 150)).save(folder / f"{i}.png")
    return folder


def make(folder: Path, output: Path, **settings: object) -> Config:
    return Config(output=str(output), data=(str(folder),), **{**QUICK, **settings})  # type: ignore[arg-type]


def content(path: Path) -> dict:
    content: dict = torch.load(path / STATE, weights_only=True)
    return content


def assert_equal(a: object, b: object, where: str = "") -> None:
    assert type(a) is type(b), where
    if isinstance(a, dict):
        assert list(a) == list(b), where
        for key in a:
            assert_equal(a[key], b[key], f"{where}.{key}")  # type: ignore[index]
    elif isinstance(a, list | tuple):
        for i, (x, y) in enumerate(zip(a, b, strict=True)):  # type: ignore[arg-type]
            assert_equal(x, y, f"{where}.{i}")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where  # type: ignore[arg-type]
    else:
        assert a == b, where
