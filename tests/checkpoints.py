"""Checkpoints to be bent, and what refusing one means."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from common import GOLDEN
from liif_fast.checkpoint import Architecture, CheckpointError, Weights, load

TINY = GOLDEN / "tiny.pth"


def official(name: str = "tiny") -> dict[str, Any]:
    """A fresh copy of an official checkpoint's content, to be bent."""
    content: dict[str, Any] = torch.load(GOLDEN / f"{name}.pth", weights_only=True)
    return content


def state() -> dict[str, torch.Tensor]:
    return {key: value for key, value in official()["model"]["sd"].items() if "_mean" not in key}


def smallest(**changes: Any) -> Weights:
    architecture = replace(Architecture(1, 1, (16,)), **changes)
    generator = torch.Generator().manual_seed(0)
    return Weights(architecture, {k: torch.randn(s, generator=generator) for k, s in architecture.shapes.items()})


def refused(path: Path, *words: str) -> CheckpointError:
    """Loading raises one CheckpointError line with the file's name and these words."""
    with pytest.raises(CheckpointError) as info:
        load(path)
    message = str(info.value)
    assert message.isprintable(), message
    for word in (path.name, *words):
        assert word in message, message
    assert len(message) < 400, message
    return info.value


def written(folder: Path, content: object, name: str = "file.pth", **options: Any) -> Path:
    torch.save(content, folder / name, **options)
    return folder / name


def same(a: Weights, b: Weights) -> bool:
    return a.architecture == b.architecture and a.fingerprint == b.fingerprint
