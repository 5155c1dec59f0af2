"""What a GPU's line does with frames, in which order, without a GPU: streams and graphs are stand-ins that run at once.

That it runs there, and beside the copies, is held in tests/gpu.
"""

from __future__ import annotations

import gc
import types
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch

from captured import Stream
from common import CPU, random_weights
from liif_fast import Upscaler, cuda_streams, gpu_stream
from liif_fast.checkpoint import Architecture
from liif_fast.gpu_stream import GpuLine
from liif_fast.image import unpack
from liif_fast.stream import stream

WEIGHTS = random_weights(Architecture(1, 16, (16,), decoder="resample"))
FRAMES = list(np.random.default_rng(0).integers(0, 256, (6, 11, 17, 3), np.uint8))
ALPHA = np.random.default_rng(1).integers(0, 256, (11, 17, 4), np.uint8)


def _pageable(make: Callable[..., torch.Tensor], *args: Any, pin_memory: bool = False, **how: Any) -> torch.Tensor:
    return make(*args, **how)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """Counts plans, frames that went through a graph, and frames that went the ordinary way."""
    log = types.SimpleNamespace(plans=0, graphs=0, ordinary=0)
    here = nullcontext()
    for name, stand_in in {
        "Stream": Stream,
        "stream": lambda _: here,
        "current_stream": lambda *_: Stream(),
        "device": lambda _: here,
        "CUDAGraph": types.SimpleNamespace,
        "graph": lambda *_, **__: here,
    }.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda *_: None)
    for name in ("empty", "empty_like"):
        monkeypatch.setattr(torch, name, partial(_pageable, getattr(torch, name)))

    def captured(self: GpuLine, plan: gpu_stream.Plan) -> Callable[[], None]:
        log.plans += 1

        def replay() -> None:
            log.graphs += 1
            plan.run()

        return replay

    monkeypatch.setattr(GpuLine, "_captured", captured)
    return log


def line(up: Upscaler, log: types.SimpleNamespace) -> GpuLine:
    def enlarge(frame: Any) -> Any:
        log.ordinary += 1
        return up(frame, scale=2)

    def make_field(plane: torch.Tensor) -> Any:
        return up._field(plane, 1 << 30)

    return GpuLine(CPU, make_field, lambda height, width: (2 * height, 2 * width), enlarge, 3)


@pytest.mark.parametrize(
    ("frames", "plans", "graphs"),
    [
        (FRAMES, 1, 5),  # the first goes the ordinary way
        (FRAMES[:1], 0, 0),
        ([FRAMES[0], ALPHA, FRAMES[1], FRAMES[2]], 1, 2),  # an alpha between two does not count
        ([FRAMES[0], FRAMES[1][:9], FRAMES[2], FRAMES[3][:9]], 0, 0),  # of many sizes
        ([*FRAMES[:3], FRAMES[3][:9], *FRAMES[4:]], 1, 4),  # one that is odd costs no preparation
        ([*FRAMES[:2], *(frame[:9] for frame in FRAMES[2:4]), *FRAMES[4:]], 3, 3),
    ],
)
def test_frames_are_those_of_calls(
    machine: types.SimpleNamespace, frames: list[np.ndarray], plans: int, graphs: int
) -> None:
    up = Upscaler(WEIGHTS, precision="fp32")
    found = list(stream(frames, lambda: line(up, machine), None))
    for one, frame in zip(found, frames, strict=True):
        assert np.array_equal(one, up(frame, scale=2))
    assert (machine.plans, machine.graphs, machine.ordinary) == (plans, graphs, len(frames) - graphs)


@pytest.mark.parametrize("how", [{"max_memory": 1}, {"self_ensemble": True}], ids=str)
def test_what_does_not_go_through_in_one_piece(machine: types.SimpleNamespace, how: dict[str, Any]) -> None:
    up = Upscaler(WEIGHTS, precision="fp32", **how)
    up.encoder.takes = lambda *_: "max_memory" not in how  # type: ignore[method-assign]
    for one, frame in zip(stream(FRAMES, lambda: line(up, machine), None), FRAMES, strict=True):
        assert np.array_equal(one, up(frame, scale=2))
    assert (machine.plans, machine.graphs) == (0, 0)


@pytest.mark.parametrize("send", ["_send_from_host", "_send_from_device"])
def test_planes_stay_planes(machine: types.SimpleNamespace, send: str) -> None:
    up = Upscaler(WEIGHTS, precision="fp32")
    one = line(up, machine)
    pixels = [torch.from_numpy(frame) for frame in FRAMES[:2]]
    planes = [frame.permute(2, 0, 1).contiguous() for frame in pixels]
    for pictures in (planes, [frame.permute(2, 0, 1) for frame in pixels]):
        colors = [unpack(picture).frames[0].color for picture in pictures]
        assert [one._ready(color) for color in colors] == [False, True]
        sent = getattr(one, send)(unpack(pictures[1]))
        assert sent.made.permute(2, 0, 1).is_contiguous() == (pictures is planes)
        assert sent.made.is_contiguous() != (pictures is planes)
        assert torch.equal(sent.result(), up(pictures[1], scale=2))
    assert machine.plans == 2


def test_equal_frames_on_the_device_are_computed_once(machine: types.SimpleNamespace) -> None:
    up = Upscaler(WEIGHTS, precision="fp32")
    one = line(up, machine)
    pictures = [torch.from_numpy(FRAMES[i]).permute(2, 0, 1) for i in (0, 0, 1, 1, 1, 0)]
    assert not one._ready(unpack(pictures[0]).frames[0].color)
    assert one._ready(unpack(pictures[0]).frames[0].color)
    sent = [one._send_from_device(unpack(picture)) for picture in pictures]
    assert machine.graphs == 3
    assert sent[0] is sent[1]
    assert sent[2] is sent[3] is sent[4]
    for found, picture in zip(sent, pictures, strict=True):
        assert torch.equal(found.result(), up(picture, scale=2))
    one.submit(FRAMES[2])  # from the host; what was before on the device is no longer the frame before
    assert one._send_from_device(unpack(pictures[5])) is not sent[5]


def test_no_cuda_stream_has_two_lines(machine: types.SimpleNamespace) -> None:
    """One queues while another captures; PyTorch hands out the same streams again."""
    up = Upscaler(WEIGHTS, precision="fp32")
    first = line(up, machine)
    for _ in range(30):  # lines come and go beside it
        other = line(up, machine)
        assert len({s.cuda_stream for one in (first, other) for s in (one._in, one._work, one._out)}) == 6
    others = [other, *(line(up, machine) for _ in range(8))]
    with pytest.warns(UserWarning, match=r"all CUDA streams of cpu are taken"):
        found = list(stream(FRAMES, lambda: line(up, machine), None))
    for one, frame in zip(found, FRAMES, strict=True):
        assert np.array_equal(one, up(frame, scale=2))
    assert (machine.graphs, machine.ordinary) == (0, len(FRAMES))
    others[3].close()
    for again in (1, 2):
        assert len(list(stream(FRAMES, lambda: line(up, machine), None))) == len(FRAMES)
        assert machine.graphs == again * (len(FRAMES) - 1)


@pytest.mark.parametrize("taken", [2, 5, None])
def test_what_a_stream_took_is_free_when_it_ends(machine: types.SimpleNamespace, taken: int | None) -> None:
    """Not when the garbage collector comes, which knows nothing of a GPU's memory."""
    up = Upscaler(WEIGHTS, precision="fp32")
    lines: list[weakref.ref[GpuLine]] = []

    def make() -> GpuLine:
        made = line(up, machine)
        lines.append(weakref.ref(made))
        return made

    gc.collect()
    held = len(cuda_streams._held)  # by what works on one of its own for good
    gc.disable()
    try:
        frames: Any = stream(FRAMES, make, None)
        assert len(list(islice(frames, taken))) == (taken or len(FRAMES))
        frames.close()
        assert lines[0]() is None
        assert len(cuda_streams._held) == held
    finally:
        gc.enable()
