"""What a GPU's stream runs for each frame; that it runs there is held in tests/gpu."""

from __future__ import annotations

import pytest
import torch

from captured import Graph, capture
from common import CPU, FP32, random_weights
from liif_fast import engines, ops, resample
from liif_fast.checkpoint import Architecture
from liif_fast.field import Field
from liif_fast.gpu_stream import Plan
from liif_fast.upscaler import DECODERS

PLAIN = Architecture(1, 16, (16, 16))
FINE = Architecture(1, 16, (16,), decoder="resample")


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float32], ids=str)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("architecture", [PLAIN, FINE], ids=["liif", "resample"])
def test_a_plan_gives_the_fields_bits(architecture: Architecture, channels: int, dtype: torch.dtype) -> None:
    weights = random_weights(architecture)
    decoder = DECODERS[architecture.decoder](weights, CPU, FP32)
    encoder = engines.make("torch", weights, decoder.head, CPU, FP32)
    plan = Plan(Field(torch.zeros(11, 17, channels, dtype=dtype), encoder, decoder, 1 << 24), (29, 41))
    plan.run()
    black = plan.out.clone()
    for seed in range(2):  # what is in the image when it runs counts, not what it was made with
        sample = torch.rand(11, 17, channels, generator=torch.Generator().manual_seed(seed))
        picture = sample if dtype == FP32 else (sample * torch.iinfo(dtype).max).to(dtype)
        plan.image.copy_(picture)
        plan.run()
        ((_, wanted),) = Field(picture, encoder, decoder, 1 << 24).bands((29, 41), dtype=dtype)
        assert plan.out.dtype == dtype
        assert plan.out.numpy().tobytes() == wanted.numpy().tobytes() != black.numpy().tobytes()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float16], ids=str)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("architecture", [PLAIN, FINE], ids=["liif", "resample"])
def test_a_plan_can_be_a_graph(
    architecture: Architecture, channels: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In plain PyTorch: it waits for nothing, copies nothing from the host, and reads the image each time."""
    for module in (ops, resample):  # what is asked in the run before
        monkeypatch.setattr(module, "within", lambda *_: True)
    weights = random_weights(architecture)
    decoder = DECODERS[architecture.decoder](weights, CPU, FP32, "reference")
    encoder = engines.make("torch", weights, decoder.head, CPU, FP32)
    picture = torch.rand(11, 17, channels, generator=torch.Generator().manual_seed(0))
    picture = picture.to(dtype) if dtype.is_floating_point else (picture * torch.iinfo(dtype).max).to(dtype)
    ((_, wanted),) = Field(picture, encoder, decoder, 1 << 24).bands((29, 41), dtype=dtype)
    plan = Plan(Field(torch.zeros_like(picture), encoder, decoder, 1 << 24), (29, 41))
    graph = Graph()
    # Or they would be one operation, in which nothing is seen.
    monkeypatch.setattr(torch.ops.liif_fast, "decode", ops._decode)
    monkeypatch.setattr(torch.ops.liif_fast, "resample", resample._resample)
    with capture(graph):
        plan.run()
    plan.image.copy_(picture)
    graph.replay()
    assert plan.out.numpy().tobytes() == wanted.numpy().tobytes()
