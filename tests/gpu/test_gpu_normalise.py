"""Samples as an encoder takes them, on a device: the bits of PyTorch on a processor."""

from __future__ import annotations

import os

import pytest
import torch

from common import BF16, CPU, FP16, FP32
from liif_fast import normalise
from liif_fast.encoder import Encoder
from test_normalise import HEAD, MEAN, STD, WEIGHTS, samples

compiled = torch.cuda.is_available() and os.environ["TRITON_INTERPRET"] != "1"
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not compiled, reason="for a CUDA device; `make test-gpu`")]


@pytest.mark.parametrize("dtype", [FP16, BF16], ids=str)
@pytest.mark.parametrize("of", [torch.uint8, torch.uint16, FP16, FP32], ids=str)
def test_has_the_bits_of_the_processor(of: torch.dtype, dtype: torch.dtype) -> None:
    plain = Encoder(WEIGHTS, HEAD, CPU, dtype)
    for shape in ((271, 483, 3), (41, 53, 3), (7, 9, 1)):
        image = samples(shape, of)
        for view in (image, image[3:31, 2:22], image.transpose(0, 1)):
            on_card = image.cuda().as_strided(view.shape, view.stride(), view.storage_offset())
            found = normalise.normalised(on_card, MEAN, STD, dtype)
            assert torch.equal(found.cpu(), plain._normalise(view).expand(-1, -1, 3))


def test_an_encoder_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    inner = normalise.normalised
    monkeypatch.setattr(normalise, "normalised", lambda *a, **k: made.append(a) or inner(*a, **k))
    Encoder(WEIGHTS, HEAD, torch.device("cuda", 0), FP16)(samples((9, 11, 3), torch.uint8).cuda())
    assert len(made) == 1
