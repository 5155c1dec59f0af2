"""PyTorch's encoder with one pass after each convolution, on a device, against the plain one."""

from __future__ import annotations

import os

import pytest
import torch

from common import BF16, FP16, FP32, random_weights
from liif_fast import Upscaler
from liif_fast.checkpoint import Architecture, load
from liif_fast.encoder import Encoder
from liif_fast.fused_encoder import FusedEncoder
from test_fused_encoder import NETWORKS, head_of

CARD = torch.device("cuda", 0)
compiled = torch.cuda.is_available() and os.environ["TRITON_INTERPRET"] != "1"
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not compiled, reason="for a CUDA device; `make test-gpu`")]


@pytest.mark.parametrize("name", [*NETWORKS, "edsr-baseline", "edsr-baseline-resample"])
@pytest.mark.parametrize("dtype", [FP16, BF16], ids=str)
def test_within_the_error_of_the_plain_one(name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    weights = NETWORKS[name] if name in NETWORKS else load(name)
    head = head_of(weights)
    exact, plain = (Encoder(weights, head, CARD, kind) for kind in (FP32, dtype))
    fused = FusedEncoder(weights, head, CARD, dtype)
    for height, width in [(1, 1), (1, 47), (31, 1), (13, 17), (271, 483)]:
        image = torch.rand(height, width, 3, device=CARD)
        wanted, near, found = (one(image).double() for one in (exact, plain, fused))
        assert fused(image).stride() == (width * fused.width, fused.width, 1)
        error, allowed = ((z - wanted).square().mean().sqrt() for z in (found, near))
        assert error <= (1.2 if height > 13 else 2) * allowed


def test_auto_takes_it() -> None:
    up = Upscaler(random_weights(Architecture(1, 16, (16,), decoder="resample")), device="cuda", engine="torch")
    assert type(up.encoder) is FusedEncoder
