"""Training with products of bf16 and of float32, which of them `auto` takes, and on which device a process does."""

from __future__ import annotations

import types
from itertools import product
from pathlib import Path

import pytest
import torch

from common import CPU
from liif_fast.backends import BackendUnavailable, cpu
from liif_fast.checkpoint import load
from liif_fast.encoder import torch_threads
from liif_fast.training.train import faster_in_bf16, train
from runs import make


def test_bf16(photos: Path, tmp_path: Path) -> None:
    plain, mixed = (
        train(make(photos, tmp_path / p, precision=p, iterations=6, warmup=2)).psnr for p in ("fp32", "bf16")
    )
    assert plain != mixed
    assert all(abs(plain[s] - mixed[s]) < 1 for s in plain)


def test_a_pytorch_without_onednn_trains_in_fp32(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As that of Macs."""
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    monkeypatch.setattr(torch.ops, "mkldnn", types.SimpleNamespace())
    monkeypatch.setattr(cpu, "prefers_bf16", lambda: True)
    made = train(make(photos, tmp_path / "run", precision="auto", iterations=1))
    assert load(made.weights).metadata["recipe"].endswith(", fp32")


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="no oneDNN")
def test_precision_is_the_faster_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops, "mkldnn", types.SimpleNamespace(_is_mkldnn_bf16_supported=lambda: True))
    monkeypatch.setattr(cpu, "isa", lambda: "avx512bf16")
    for prefers in (True, False):
        monkeypatch.setattr(cpu, "prefers_bf16", lambda prefers=prefers: prefers)
        for openmp, threads, decoder in product((True, False), (1, 3), ("liif", "resample")):
            monkeypatch.setattr(cpu, "on_pytorchs_threads", lambda openmp=openmp: openmp)
            with torch_threads(threads):
                slow = (openmp, threads, decoder) == (False, 3, "resample")
                assert faster_in_bf16(CPU, decoder) == (prefers and not slow)
    monkeypatch.undo()
    monkeypatch.setattr(cpu, "_missing", "no compiled module")
    with torch_threads(3):
        assert not faster_in_bf16(CPU, "resample")


def test_each_process_has_a_gpu_of_its_own(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one of its number on this machine, chosen before the processes meet."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)

    def meet(backend: str) -> None:
        raise InterruptedError(backend)

    monkeypatch.setattr(torch.distributed, "init_process_group", meet)
    monkeypatch.setenv("WORLD_SIZE", "3")
    for rank, found in (("1", InterruptedError), ("2", BackendUnavailable)):
        monkeypatch.setenv("RANK", "0")
        monkeypatch.setenv("LOCAL_RANK", rank)
        with pytest.raises(found, match=r"nccl|no device cuda:2: PyTorch .* finds 2 CUDA devices"):
            train(make(photos, tmp_path / "run", device="cuda:0"))
    assert chosen == [torch.device("cuda", 1)]
