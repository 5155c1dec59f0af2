"""How training runs end before they are done: diverged, stopped, killed, refused. Nothing is lost."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from liif_fast import checkpoint
from liif_fast.training.config import SETTINGS, read
from liif_fast.training.sitting import sit
from liif_fast.training.state import STATE
from liif_fast.training.train import WEIGHTS, Diverged, Progress, train
from runs import ENVIRONMENT, QUICK, assert_equal, content, make


def test_not_a_number_stops_it_and_the_last_state_is_good(photos: Path, tmp_path: Path) -> None:
    settings = make(photos, tmp_path / "run", optimizer="adam", clip=0.0, warmup=0, iterations=3)
    train(settings)
    weights = checkpoint.load(tmp_path / "run" / WEIGHTS)
    huge = {key: value * (1e20 if "imnet" in key else 1) for key, value in weights.tensors.items()}
    checkpoint.save(tmp_path / "huge.safetensors", replace(weights, tensors=huge), torch.float32)
    with pytest.raises(Diverged, match=r"at iteration 3 \(loss (nan|inf)\).*no state was saved yet"):
        train(make(photos, tmp_path / "diverged", init=str(tmp_path / "huge.safetensors")))
    assert not (tmp_path / "diverged" / STATE).exists()


@pytest.fixture
def interrupts() -> Iterator[None]:
    """Ctrl-C is KeyboardInterrupt, which it is not in the background of a shell."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_stopped_it_saves_the_iteration_first(photos: Path, tmp_path: Path, interrupts: None) -> None:
    """A signal then ends it as ever."""
    whole, parts = (make(photos, tmp_path / name, iterations=5, log_every=2) for name in ("whole", "parts"))
    whole, parts = (replace(run, save_every=100, validate_every=100) for run in (whole, parts))
    train(whole)

    def stop(progress: Progress) -> None:
        if progress.iteration == 2:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(parts, tell=stop)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert content(tmp_path / "parts")["iteration"] == 3
    assert not (tmp_path / "parts" / WEIGHTS).exists()
    train(parts, resume=True)
    assert_equal(content(tmp_path / "whole"), content(tmp_path / "parts"))


def test_where_there_are_weights_there_is_a_state(photos: Path, tmp_path: Path) -> None:
    """Or a run that is killed then could neither go on nor begin anew."""

    def stop(_: Progress) -> None:
        raise InterruptedError

    settings = replace(make(photos, tmp_path / "run", iterations=5, validate_every=2), save_every=100, log_every=2)
    with pytest.raises(InterruptedError):
        train(settings, tell=stop)
    assert (tmp_path / "run" / WEIGHTS).exists()
    train(settings, resume=True)
    assert content(tmp_path / "run")["iteration"] == 5


def test_stopped_twice_it_ends_at_once(photos: Path, tmp_path: Path, interrupts: None) -> None:
    def stop(_: Progress) -> None:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)

    settings = replace(make(photos, tmp_path / "run", iterations=5), save_every=100, log_every=1)
    with pytest.raises(KeyboardInterrupt):
        train(settings, tell=stop)
    assert not (tmp_path / "run" / STATE).exists()


def test_killed_at_any_moment(photos: Path, tmp_path: Path) -> None:
    """Whatever is there under its own name is whole, and the run goes on."""
    output = tmp_path / "run"
    command = [sys.executable, "-m", "liif_fast", "train", str(output), "--data", str(photos), "--iterations", "100000"]
    settings = {**QUICK, "save_every": 1, "validate_every": 1, "log_every": 1}
    for key, value in settings.items():
        if key not in ("iterations", "threads"):
            command += ["--set", f"{key}={list(value) if isinstance(value, tuple) else value}"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, cwd=tmp_path, env=ENVIRONMENT)
    deadline = time.monotonic() + 90
    while not (output / STATE).exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.7)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (output / STATE).exists()
    done = content(output)["iteration"]
    checkpoint.load(output / WEIGHTS)
    more = subprocess.run(
        [*command[:4], str(output), "--resume", "--iterations", str(done + 2)],
        capture_output=True, text=True, cwd=tmp_path, env=ENVIRONMENT, check=False,
    )  # fmt: skip
    assert more.returncode == 0, more.stderr
    assert content(output)["iteration"] == done + 2
    assert f"{done + 2}/{done + 2}" in more.stderr
    assert "PSNR on held-out pictures x2" in more.stdout


def test_a_run_that_never_began_leaves_no_settings_behind(photos: Path, tmp_path: Path) -> None:
    """Those that a later sitting would go by."""
    output = tmp_path / "run"
    given = [f"{key}={list(v) if isinstance(v, tuple) else v}" for key, v in QUICK.items() if key != "iterations"]
    with pytest.raises(FileNotFoundError):
        sit(output, [tmp_path / "mistyped"], "fast", None, {"iterations": 4, "lr": 1e-2}, given, False)
    sit(output, [photos], "fast", None, {"iterations": 2, "lr": 1e-3}, given, False)
    kept = read("fast", output / SETTINGS, {"output": str(output)})
    assert (kept.lr, kept.iterations, kept.data) == (1e-3, 2, (str(photos),))
    sit(output, None, "fast", None, {"iterations": 3}, [], True)
    assert content(output)["iteration"] == 3
