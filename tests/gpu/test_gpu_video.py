"""Films on a CUDA device: colours converted there, frames as a processor makes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common import random_weights
from liif_fast import Upscaler, yuv
from liif_fast.checkpoint import Architecture

pytest.importorskip("av")

from clips import decoded, film
from liif_fast.video.encoding import Choice
from test_video import make

CARD = torch.device("cuda")
ready = torch.cuda.is_available() and yuv.unavailable(CARD) is None
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not ready, reason="for a CUDA device, built with nvcc")]


@pytest.mark.parametrize("decoder", ["liif", "resample"])
@pytest.mark.parametrize("format", ["yuv420p", "yuv420p10le"])
def test_films(format: str, decoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    converted: list[bool] = []
    for name in ("to_rgb", "from_rgb"):
        real = getattr(yuv, name)

        def spied(first: Any, *args: Any, real: Any = real, **how: Any) -> Any:
            converted.append((first if isinstance(first, torch.Tensor) else first[0]).is_cuda)
            return real(first, *args, **how)

        monkeypatch.setattr(yuv, name, spied)
    source = film(tmp_path / "in.mkv", 5, size=(24, 32), codec="ffv1", format=format, sounds=0)
    weights, choice = random_weights(Architecture(1, 16, (16,), decoder=decoder)), Choice("ffv1")
    made = {}
    for device in ("cpu", "cuda"):
        converted.clear()
        make(Upscaler(weights, device=device, precision="fp32"), source, tmp_path / f"{device}.mkv", "48x36", choice)
        assert converted == [device == "cuda"] * 10
        made[device] = np.stack(decoded(tmp_path / f"{device}.mkv")).astype(int)
    # One level of R'G'B' may be another one of Y'CbCr.
    assert np.abs(made["cuda"] - made["cpu"]).max() <= 1
