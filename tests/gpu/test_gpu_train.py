"""Training on a device: from the batch to the gradients one graph, which learns what it would learn without."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from common import ROOT
from liif_fast.training import train
from liif_fast.training.replay import Replayed
from runs import content, make

compiled = torch.cuda.is_available() and os.environ["TRITON_INTERPRET"] != "1"
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not compiled, reason="for a CUDA device; `make test-gpu`")]
SETTINGS = {"device": "cuda", "iterations": 60, "validate_every": 60, "save_every": 30, "warmup": 5, "synthetic": 2}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("decoder", ["liif", "resample"])
def test_learns_as_a_graph(
    decoder: str, precision: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replays: list[torch.cuda.CUDAGraph] = []
    replay = torch.cuda.CUDAGraph.replay
    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", lambda graph: (replays.append(graph), replay(graph)))
    losses: dict[str, list[float]] = {}
    found = {}
    for name in ("graph", "plain"):
        losses[name] = []
        run = make(photos, tmp_path / name, decoder=decoder, precision=precision, luma=0.5, revive_every=25, **SETTINGS)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            found[name] = train.train(run, tell=lambda progress, name=name: losses[name].append(progress.loss)).psnr
        assert not [str(warning.message) for warning in said if "CUDA graph" in str(warning.message)]
        assert len(replays) == 54  # all but three of six that are watched, and three of the others
        assert len(set(replays)) == 2
        monkeypatch.setattr(train, "possible", lambda *_: False)
    # The same patches in the same order; sums have no order, and the optimiser makes more of what they differ by.
    assert losses["graph"] == pytest.approx(losses["plain"], rel=0.2)
    assert losses["graph"][:5] == pytest.approx(losses["plain"][:5], rel=0.05)
    assert all(found["graph"][scale] == pytest.approx(found["plain"][scale], abs=0.5) for scale in found["plain"])


def test_goes_on(photos: Path, tmp_path: Path) -> None:
    """Also on a processor, and back."""
    settings = {key: value for key, value in SETTINGS.items() if key not in ("device", "iterations")}
    for device, iterations in (("cuda", 20), ("cuda", 40), ("cpu", 43), ("cuda", 60)):
        run = make(photos, tmp_path / "run", device=device, iterations=iterations, **settings)
        train.train(run, resume=iterations > 20)
        assert content(tmp_path / "run")["iteration"] == iterations


def test_random_numbers_are_new_in_each_replay() -> None:
    generator, twin = (torch.Generator("cuda").manual_seed(0) for _ in range(2))
    with torch.cuda.stream(torch.cuda.Stream()):
        total = torch.zeros(5, device="cuda")
        replayed = Replayed(lambda: total + torch.rand(5, generator=generator, device="cuda"), generator)
        for _ in range(8):
            assert torch.equal(replayed(), torch.rand(5, generator=twin, device="cuda"))
    assert torch.equal(generator.get_state(), twin.get_state())


def test_a_capture_that_fails_harms_nothing() -> None:
    """Random numbers go on, memory that two streams have worked on is used again, and what was captured goes back."""
    code = """
import warnings
import torch
from liif_fast.training.replay import Replayed
generator, twin = (torch.Generator("cuda").manual_seed(0) for _ in range(2))
with torch.cuda.stream(torch.cuda.Stream()), warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    def work():
        large = torch.empty(1 << 28, dtype=torch.uint8, device="cuda")
        return torch.rand(5, generator=generator, device="cuda").tolist()
    replayed = Replayed(work, generator)
    for _ in range(8):
        assert replayed() == torch.rand(5, generator=twin, device="cuda").tolist()
assert sum("not as a CUDA graph" in str(warning.message) for warning in said) == 1
torch.rand(5, device="cuda")
torch.cuda.empty_cache()
assert torch.cuda.memory_reserved() < 1 << 28
side, before = torch.cuda.Stream(), torch.cuda.memory_reserved()
for _ in range(20):
    block = torch.empty(1 << 26, dtype=torch.uint8, device="cuda")
    block.record_stream(side)
    del block
    torch.cuda.synchronize()
print((torch.cuda.memory_reserved() - before) >> 26)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) <= 2
