"""Streams on a device: the bits of calls, as one graph, with the copies beside it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from common import random_weights
from liif_fast import Upscaler, gpu_stream
from liif_fast.checkpoint import Architecture

compiled = torch.cuda.is_available() and os.environ["TRITON_INTERPRET"] != "1"
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not compiled, reason="for a CUDA device; `make test-gpu`")]

NETWORKS = {
    "liif": random_weights(Architecture(1, 16, (64, 64))),
    "resample": random_weights(Architecture(1, 16, (16,), decoder="resample")),
}
FRAMES = list(np.random.default_rng(0).integers(0, 256, (9, 61, 83, 3), np.uint8))


@pytest.fixture(params=[(name, precision) for name in NETWORKS for precision in ("auto", "fp32")], ids=str)
def up(request: pytest.FixtureRequest) -> Upscaler:
    """In fp32 plain PyTorch decodes, which has a graph too. TensorRT for RTX has other kernels for streams than for
    calls, whose last bits may differ; what is tested here does not depend on who encodes."""
    name, precision = request.param
    return Upscaler(NETWORKS[name], device="cuda", precision=precision, engine="torch")


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Frames that a graph made."""
    replayed: list[str] = []
    captured = gpu_stream.GpuLine._captured

    def counted(self: gpu_stream.GpuLine, plan: gpu_stream.Plan) -> object:
        run = captured(self, plan)
        name = getattr(run, "__qualname__", "")
        return lambda: (replayed.append(name), run())

    monkeypatch.setattr(gpu_stream.GpuLine, "_captured", counted)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "frames are ")  # ours, which say why something else was done
        yield replayed


def test_results_of_calls_come_through_pinned_memory() -> None:
    up = Upscaler(NETWORKS["resample"], device="cuda", engine="torch")
    for picture in (FRAMES[0], torch.from_numpy(FRAMES[0]).permute(2, 0, 1).contiguous()):
        found = up(picture, size=(122, 166))
        tensor = found if isinstance(found, torch.Tensor) else torch.from_numpy(found)
        assert tensor.is_pinned()


@pytest.mark.parametrize("kind", ["numpy", "gray", "pillow", "torch", "cuda", "half", "uint16"])
@pytest.mark.parametrize("at_once", [None, 1])
def test_frames_are_those_of_calls(up: Upscaler, graphs: list[str], kind: str, at_once: int | None) -> None:
    make = {
        "numpy": lambda frame: frame,
        "gray": lambda frame: frame[..., 0],
        "pillow": Image.fromarray,
        "torch": lambda frame: torch.from_numpy(frame).permute(2, 0, 1),
        "cuda": lambda frame: torch.from_numpy(frame).permute(2, 0, 1).cuda(),
        "half": lambda frame: torch.from_numpy(frame).permute(2, 0, 1).cuda().half() / 255,
        "uint16": lambda frame: frame.astype(np.uint16) * 257,
    }[kind]
    frames = [make(frame) for frame in FRAMES]
    streamed = list(up.stream(iter(frames), scale=2.3, at_once=at_once))
    assert len(graphs) == len(frames) - 1  # the first goes the ordinary way, as pictures of many sizes all do
    assert all("replay" in name for name in graphs)
    for found, frame in zip(streamed, frames, strict=True):
        wanted = up(frame, scale=2.3)
        assert type(found) is type(wanted)
        if isinstance(wanted, torch.Tensor):
            assert found.device == wanted.device
            assert found.dtype == wanted.dtype
            found, wanted = found.cpu(), wanted.cpu()
        assert np.array_equal(np.asarray(found), np.asarray(wanted))


def test_results_outlive_later_frames(up: Upscaler) -> None:
    """Memory that was a result's is not another's while somebody holds it."""
    views = np.random.default_rng(1).integers(0, 256, (60, 31, 47, 3), np.uint8)
    held = list(up.stream(views, scale=4))
    for found, view in zip(held, views, strict=True):
        assert np.array_equal(found, up(view, scale=4))


def test_one_buffer_on_the_device_may_serve_all_frames(up: Upscaler) -> None:
    buffer = torch.empty(3, 61, 83, dtype=torch.uint8, device="cuda")

    def source() -> Iterator[torch.Tensor]:
        for frame in FRAMES:
            buffer.copy_(torch.from_numpy(frame).permute(2, 0, 1))
            yield buffer

    for found, frame in zip(up.stream(source(), scale=2), FRAMES, strict=True):
        assert np.array_equal(found.permute(1, 2, 0).cpu().numpy(), up(frame, scale=2))


def test_sizes_may_change_and_alpha_goes_the_ordinary_way(up: Upscaler, graphs: list[str]) -> None:
    alpha = np.dstack([FRAMES[0], FRAMES[1][..., 0]])
    frames = [FRAMES[0], FRAMES[1][:40], alpha, FRAMES[2], FRAMES[3], FRAMES[4][:, :50], FRAMES[5][:, :50]]
    for found, frame in zip(up.stream(frames, scale=2), frames, strict=True):
        assert np.array_equal(found, up(frame, scale=2))
    assert len(graphs) == 2


@pytest.mark.parametrize("at_once", [None, 1])
def test_equal_frames_on_the_device_are_computed_once(up: Upscaler, graphs: list[str], at_once: int | None) -> None:
    order = [0, 0, 0, 1, 1, 0, 2, 2]
    frames = [torch.from_numpy(FRAMES[i]).permute(2, 0, 1).cuda() for i in order]
    streamed = list(up.stream(frames, scale=2, at_once=at_once))
    for found, frame in zip(streamed, frames, strict=True):
        assert torch.equal(found, up(frame, scale=2))
    assert len({found.data_ptr() for found in streamed}) == len(frames)  # each the caller's own
    assert len(graphs) == 4  # of 0, after the ordinary way, then 1, 0 and 2


def test_frames_of_other_streams_and_threads(up: Upscaler) -> None:
    """A decoder's own stream makes them, and its thread is read ahead of the caller."""
    side, heavy = torch.cuda.Stream(), torch.rand(2048, 2048, device="cuda")

    def source() -> Iterator[torch.Tensor]:
        for frame in FRAMES:
            with torch.cuda.stream(side):
                picture = torch.from_numpy(frame).permute(2, 0, 1).cuda(non_blocking=True)
                for _ in range(20):
                    heavy.mul_(1.0001)
                shown = picture.clone()
            now = torch.cuda.current_stream()
            now.wait_stream(side)
            shown.record_stream(now)  # or the side may have its memory again before it is read
            yield shown

    dropped: list[int] = []
    found = list(up.stream(source(), scale=2, dropped=dropped.append))
    kept = [frame for i, frame in enumerate(FRAMES) if i not in dropped]
    assert len(found) == len(kept)
    for one, frame in zip(found, kept, strict=True):
        assert np.array_equal(one.permute(1, 2, 0).cpu().numpy(), up(frame, scale=2))


def test_errors_come_in_their_place(up: Upscaler) -> None:
    frames = up.stream([FRAMES[0], "no picture", FRAMES[1]], scale=2)
    assert np.array_equal(next(frames), up(FRAMES[0], scale=2))
    with pytest.raises(TypeError, match="str is not a Pillow image"):
        next(frames)


def test_several_threads_stream_at_once(up: Upscaler) -> None:
    wanted = [up(frame, scale=3) for frame in FRAMES]
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: list(up.stream(FRAMES, scale=3)), range(4)):
            assert all(np.array_equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_too_large_for_one_piece(graphs: list[str]) -> None:
    small = Upscaler(NETWORKS["liif"], device="cuda", engine="torch", max_memory=1_000_000)
    for found, frame in zip(small.stream(FRAMES[:3], scale=2), FRAMES, strict=False):
        assert np.array_equal(found, small(frame, scale=2))
    assert not graphs
