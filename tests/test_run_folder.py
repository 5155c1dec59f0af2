"""The folder of a training run: what is written there is whole, and what is there is not lost."""

from __future__ import annotations

import re
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from common import random_weights
from liif_fast import checkpoint
from liif_fast.architecture import Architecture
from liif_fast.output import ImageError, write_text
from liif_fast.training import log
from liif_fast.training.state import STATE
from liif_fast.training.train import WEIGHTS, train
from runs import make, pictures


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pictures(tmp_path_factory.mktemp("pictures"))


@contextmanager
def room(size: int) -> Iterator[None]:
    """For files of so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_text(path, "a" * 3000),
        lambda path: write_text(path, "a" * 300_000),
        lambda path: checkpoint.save(path, random_weights(Architecture(1, 16, (16,)))),
        lambda path: log.save_figure(Figure(), path),
    ],
    ids=["line", "text", "weights", "picture"],
)
def test_full_disk(write: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(ImageError, match=rf"^{re.escape(str(path))}: no space left"), room(1000):
        write(path)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "old"


def test_no_room_for_the_state(folder: Path, tmp_path: Path) -> None:
    """The one before stays."""
    settings = make(folder, tmp_path / "run", iterations=3)
    train(settings)
    before = (tmp_path / "run" / STATE).read_bytes()
    assert (tmp_path / "run" / WEIGHTS).stat().st_size < len(before) * 2 // 3
    longer = make(folder, tmp_path / "run", iterations=6, validate_every=100)
    with pytest.raises(ImageError, match=rf"{STATE}: no space left"), room(len(before) * 2 // 3):
        train(longer, resume=True)
    assert (tmp_path / "run" / STATE).read_bytes() == before
