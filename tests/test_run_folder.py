"""The folder of a training run: what is written there is whole, and what is there is not lost."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import resource
import struct
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure

from common import random_weights
from liif_fast import checkpoint
from liif_fast.architecture import Architecture, CheckpointError
from liif_fast.output import ImageError, write_text
from liif_fast.training import log
from liif_fast.training.config import SETTINGS, read
from liif_fast.training.folder import WEIGHTS, held
from liif_fast.training.shorten import shorten
from liif_fast.training.sitting import Teller, sit
from liif_fast.training.state import STATE
from liif_fast.training.train import Diverged, Progress, train
from runs import content, make, pictures


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


def test_no_room_for_the_state(photos: Path, tmp_path: Path) -> None:
    """The one before stays."""
    settings = make(photos, tmp_path / "run", iterations=3)
    train(settings)
    before = (tmp_path / "run" / STATE).read_bytes()
    assert (tmp_path / "run" / WEIGHTS).stat().st_size < len(before) * 2 // 3
    longer = make(photos, tmp_path / "run", iterations=6, validate_every=100)
    with pytest.raises(ImageError, match=rf"{STATE}: no space left"), room(len(before) * 2 // 3):
        train(longer, resume=True)
    assert (tmp_path / "run" / STATE).read_bytes() == before


def test_resumed_by_the_settings_of_the_last_sitting(photos: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(make(photos, run, iterations=2))

    def resume(settings: list[str], **flags: object) -> None:
        sit(run, None, "fast", None, flags, settings, True)

    resume([], iterations=4, lr=1e-3)
    resume([])
    assert content(run)["iteration"] == 4
    kept = read("fast", run / SETTINGS, {"output": str(run)})
    assert (kept.iterations, kept.lr, kept.queries) == (4, 1e-3, 64)
    with pytest.raises(ValueError, match=r"iterations is 3, .*state\.pt has done 4 already"):
        resume([], iterations=3)
    with pytest.raises(CheckpointError, match="state of another network"):
        resume(["n_feats=32"])
    assert read("fast", run / SETTINGS, {"output": str(run)}) == kept, "refused, and kept nevertheless"


def test_networks_are_not_overwritten(photos: Path, tmp_path: Path) -> None:
    checkpoint.save(tmp_path / WEIGHTS, random_weights(Architecture(1, 16, (16,))))
    before = (tmp_path / WEIGHTS).read_bytes()
    settings = make(photos, tmp_path, iterations=1)
    with pytest.raises(FileExistsError, match=rf"{WEIGHTS}: a network is here already"):
        train(settings)
    with pytest.raises(FileExistsError, match=rf"{WEIGHTS}: begun with another network"):
        shorten("realtime-small", settings, 0.1, lambda _: None, lambda _: None)
    assert [path.name for path in tmp_path.iterdir()] == [WEIGHTS]
    assert (tmp_path / WEIGHTS).read_bytes() == before


def test_easier_leaves_nothing_where_it_is_refused(photos: Path, tmp_path: Path) -> None:
    settings = make(tmp_path / "mistyped", tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="mistyped"):
        shorten("realtime-small", settings, 0.1, lambda _: None, lambda _: None)
    assert not (tmp_path / "out").exists()


def test_easier_keeps_the_bits_of_what_it_cannot_shorten(photos: Path, tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "first.safetensors", random_weights(Architecture(1, 16, (16,))), torch.float32)
    shorten(str(tmp_path / "first.safetensors"), make(photos, tmp_path / "out"), 0.1, lambda _: None, lambda _: None)
    first, kept = (checkpoint.load(tmp_path / name) for name in ("first.safetensors", f"out/{WEIGHTS}"))
    assert first.fingerprint == kept.fingerprint


def test_easier_goes_on_where_no_state_was_kept(photos: Path, tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "first.safetensors", random_weights(Architecture(1, 16, (16, 16))), torch.float32)
    (tmp_path / "out" / "layers-1").mkdir(parents=True)
    (tmp_path / "out" / "layers-1" / WEIGHTS).write_bytes(b"of a sitting that was broken off")
    settings = make(photos, tmp_path / "out", iterations=1)
    shorten(str(tmp_path / "first.safetensors"), settings, 100.0, lambda _: None, lambda _: None)
    assert len(checkpoint.load(tmp_path / "out" / WEIGHTS).architecture.hidden_list) == 1


def test_one_process_at_a_time(photos: Path, tmp_path: Path) -> None:
    settings = make(photos, tmp_path / "run", iterations=1)
    with held(tmp_path / "run"), pytest.raises(BlockingIOError, match="run: another process is at work in it"):
        train(settings)
    assert not (tmp_path / "run").exists()
    train(settings)
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="file: is a file"):
        train(make(photos, tmp_path / "file", iterations=1))


def test_curves_are_no_training_pictures(tmp_path: Path) -> None:
    data = pictures(tmp_path)
    for output in (data, data / "runs" / "first"):
        with pytest.raises(ValueError, match=r"is inside .*, which is searched for pictures: name a folder elsewhere"):
            train(make(data, output, iterations=1))
    assert not (data / "runs" / "first").exists()


def test_curves_are_no_training_pictures_by_another_name(tmp_path: Path, also: Callable[[Path, Path], None]) -> None:
    """As by Photos where the folder is photos, on most Macs."""
    (tmp_path / "photos").mkdir()
    data = pictures(tmp_path / "photos")
    also(data, tmp_path / "Photos")
    with pytest.raises(ValueError, match=r"/Photos/first is inside .*/photos, which is searched for pictures"):
        train(make(data, tmp_path / "Photos" / "first", iterations=1))
    assert not (data / "first").exists()


def test_pictures_that_come_or_go(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    data, warnings = pictures(tmp_path / "data"), []
    train(make(data, tmp_path / "run", iterations=1))
    train(make(data, tmp_path / "run", iterations=2), resume=True, warn=warnings.append)
    assert not warnings
    (data / "0.png").rename(data / "9.png")  # which is held out now, or is not any more
    train(make(data, tmp_path / "run", iterations=3), resume=True, warn=warnings.append)
    assert len(warnings) == 1
    assert warnings[0].startswith("the pictures are not those the run was saved with")


def test_diverged_after_a_resumption(photos: Path, tmp_path: Path) -> None:
    settings = make(photos, tmp_path / "run", iterations=3)
    train(settings)
    state = torch.load(tmp_path / "run" / STATE, weights_only=True)
    for name, tensor in state["network"].items():
        tensor *= 1e20 if "imnet" in name else 1
    torch.save(state, tmp_path / "run" / STATE)
    with pytest.raises(Diverged, match=r"at iteration 6 .*; the state of iteration 3 is good"):
        train(make(photos, tmp_path / "run", iterations=9), resume=True)


def test_no_state_of_a_step_that_went_too_far(photos: Path, tmp_path: Path) -> None:
    """Its loss was finite, its gradients were not."""
    first = checkpoint.load(train(make(photos, tmp_path / "first", iterations=1)).weights)
    steep = {key: value * (1e10 if "imnet" in key else 1) for key, value in first.tensors.items()}
    checkpoint.save(tmp_path / "steep.safetensors", replace(first, tensors=steep), torch.float32)
    every = {"save_every": 1, "validate_every": 100, "clip": 0.0, "warmup": 0}
    with pytest.raises(Diverged, match="diverged") as info:
        train(make(photos, tmp_path / "run", init=str(tmp_path / "steep.safetensors"), **every))
    saved = content(tmp_path / "run")
    assert all(tensor.isfinite().all() for tensor in saved["network"].values())
    assert f"the state of iteration {saved['iteration']} is good" in str(info.value)


@pytest.mark.parametrize(
    "damaged",
    [
        b"iteration;loss\n3;0.5\n",
        b"iteration,loss\nthree,0.5\n",
        b"iteration,loss\n3,0.5,0.6\n",
        b"iteration,loss\n3,\n",
        b"iteration,loss,psnr_x2\n3,0.5,good\n",
        b"\xff\xfe",
    ],
)
def test_damaged_log(tmp_path: Path, damaged: bytes) -> None:
    """Said before the work; nothing is lost with it."""
    (tmp_path / log.LOG).write_bytes(damaged)
    with pytest.raises(ValueError, match=rf"{log.LOG}: no longer a run's log \(.*\): move it away$"):
        log.Log(tmp_path, 3)
    assert (tmp_path / log.LOG).read_bytes() == damaged


def test_the_log_grows_by_lines(tmp_path: Path) -> None:
    """One is not written to its end when the disk is full or the machine stops."""
    path = tmp_path / log.LOG
    first = log.Log(tmp_path, 0)
    first.add(3, 0.5, 1e-3, 10.0, {})
    first.add(6, 0.4, 1e-3, 10.0, {2.0: 30.5})
    file = path.stat().st_ino
    first.add(9, 0.3, 1e-3, 10.0, {})
    assert path.stat().st_ino == file
    whole = path.read_text()
    path.write_text(whole + "12,0.2")
    after = log.Log(tmp_path, 1200)
    after.add(1203, 0.1, 1e-3, 10.0, {})
    assert path.read_text() == whole + "1203,0.100000,1.000e-03,10,\n"


def test_a_column_of_ones_own_stays_in_the_log(tmp_path: Path) -> None:
    (tmp_path / log.LOG).write_text("iteration,loss,note\n3,0.5,slow\n6,0.4,lost\n")
    after = log.Log(tmp_path, 3)
    after.add(6, 0.3, 1e-3, 10.0, {})
    after.draw()
    assert (tmp_path / log.LOG).read_text().splitlines() == [
        "iteration,loss,lr,iterations_per_s,note",
        "3,0.5,,,slow",
        "6,0.300000,1.000e-03,10,",
    ]


def test_progress_fits_into_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rewritten in one line, and what comes after it begins a new one."""
    reader, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 20, 60, 0, 0))
    psnr = {2.0: 34.21, 3.0: 31.02, 4.0: 29.13}
    with open(terminal, "w", closefd=False) as stderr, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stderr)
        with Teller(True) as tell:
            for iteration in (10, 20):
                tell(Progress(iteration, 20_000, 0.0123, 12.3, 1624.0, psnr))
        print("interrupted", file=stderr)
    os.close(terminal)
    written = b""
    with suppress(OSError):  # nobody has the other end any more; what was written may come in parts
        while part := os.read(reader, 10_000):
            written += part
    os.close(reader)
    lines = written.decode()
    first, second = (f"{n}/20000  loss 0.0123  12.3 it/s  27 min left  x2 34.21  x3 31.02"[:57] for n in (10, 20))
    assert lines == f"\r\x1b[K{first}\r\x1b[K{second}\r\ninterrupted\r\n"


def test_a_run_goes_on_elsewhere(photos: Path, tmp_path: Path) -> None:
    """On a GPU the state of random numbers has another form: those that follow are others, also than at the start."""
    seen: dict[str, torch.Tensor] = {}
    train(make(photos, tmp_path / "run", iterations=3))
    saved = content(tmp_path / "run")
    for name, numbers in (("there", saved["generators"][0]), ("here", torch.zeros(16, dtype=torch.uint8))):
        torch.save({**saved, "generators": [numbers]}, tmp_path / "run" / STATE)
        train(make(photos, tmp_path / "run", iterations=6), resume=True)
        assert content(tmp_path / "run")["iteration"] == 6
        seen[name] = content(tmp_path / "run")["network"]["encoder.head.0.weight"]
    assert not torch.equal(seen["here"], seen["there"])
