"""PyTorch's encoder on a GPU with one pass after each convolution: interpreted, against the plain one."""

from __future__ import annotations

import weakref
from dataclasses import replace
from importlib import import_module
from typing import Any

import pytest
import torch

from common import BF16, CPU, FP16, FP32, GOLDEN, head_of, random_weights
from interpreted import Spy, interpret
from liif_fast import engines, fused_encoder
from liif_fast.checkpoint import Architecture, load
from liif_fast.encoder import Encoder
from liif_fast.fused_encoder import FusedEncoder

pytest.importorskip("triton")

RESAMPLE = Architecture(2, 16, (16,), decoder="resample", mean=(0.4, 0.5, 0.6), std=(1.0, 0.5, 0.25))
NETWORKS = {
    "tiny": load(GOLDEN / "tiny.pth"),
    "tiny_nounfold": load(GOLDEN / "tiny_nounfold.pth"),
    "resample": random_weights(RESAMPLE),
    "rectified": random_weights(replace(RESAMPLE, relu_after_add=True)),
}


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Spy:
    return interpret(monkeypatch, import_module("liif_fast.kernels.finish"), "finish")


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("dtype", [FP16, BF16], ids=str)
def test_computes_what_the_plain_one_does(kernel: Spy, name: str, dtype: torch.dtype) -> None:
    weights = NETWORKS[name]
    head = head_of(weights)
    plain, fused = Encoder(weights, head, CPU, dtype), FusedEncoder(weights, head, CPU, dtype)
    exact = Encoder(weights, head, CPU, FP32)
    exact._at_once = None  # the kernel has no float32 to make
    generator = torch.Generator().manual_seed(0)
    for height, width in [(1, 1), (1, 47), (31, 1), (13, 17), (41, 53)]:
        image = torch.rand(height, width, 3, generator=generator)
        wanted, near, found = (one(image).double() for one in (exact, plain, fused))
        assert fused(image).stride() == (width * fused.width, fused.width, 1)
        error, allowed = ((z - wanted).square().mean().sqrt() for z in (found, near))
        assert error <= 1.5 * allowed
    passes = 2 * weights.architecture.n_resblocks + 3
    assert len(kernel.launches) == 2 * 5 * passes
    rectified = sum(options["RECTIFY"] for options in kernel.launches)
    assert rectified == 2 * 5 * weights.architecture.n_resblocks * (2 if name == "rectified" else 1)


def test_what_is_not_finite_stays_so(kernel: Spy) -> None:
    weights = NETWORKS["tiny"]
    fused = FusedEncoder(weights, head_of(weights), CPU, FP16)
    fused._biases["encoder.body.0.body.0"][3] = float("nan")  # just before a rectifier
    assert not fused(torch.rand(5, 7, 3)).isfinite().all()


def test_features_are_let_go(kernel: Spy, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = random_weights(Architecture(9, 16, (16,)))
    fused = FusedEncoder(weights, head_of(weights), CPU, FP16)
    finish, made, alive = fused_encoder._finish, list[Any](), list[int]()

    def counting(sum: fused_encoder._Sum) -> None:
        finish(sum)
        made.append(weakref.ref(sum.made))
        alive.append([one() is not None for one in made].count(True))

    monkeypatch.setattr(fused_encoder, "_finish", counting)
    fused(torch.rand(19, 23, 3))
    assert len(alive) == 21
    # Of the head, before a block, within it and after; between blocks what was before is gone.
    assert (max(alive), alive.count(4)) == (4, 8)


def test_who_takes_it(kernel: Spy, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = NETWORKS["resample"]
    made = engines.make("torch", weights, head_of(weights), CPU, FP16)
    assert (type(made), made.engine) == (FusedEncoder, "torch")
    monkeypatch.undo()
    assert type(engines.make("torch", weights, head_of(weights), CPU, FP16)) is Encoder
