"""How an engine runs, on a pretended GPU: contexts, streams, memory, tiles, and what was compiled on the way."""

from __future__ import annotations

import re
import types
from pathlib import Path
from typing import Any

import pytest
import torch

import pretended
from common import BF16, CPU, head_of
from liif_fast import trt_engine
from liif_fast.checkpoint import load
from liif_fast.encoder import Encoder
from liif_fast.trt_engine import TensorRTEncoder
from pretended import HEAD, RTX, WEIGHTS, Context, encoder, kept, needs_rtx, pretend


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> types.SimpleNamespace:
    return pretend(monkeypatch, tmp_path)


@needs_rtx
def test_never_on_the_default_stream(machine: types.SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """There TensorRT waits for the whole device, which spoils what other threads capture."""
    waits: list[tuple[int, int]] = []
    ran: list[int] = []

    class Stream:
        def __init__(self, at: int) -> None:
            self.cuda_stream = at

        def wait_stream(self, other: Any) -> None:
            waits.append((self.cuda_stream, other.cuda_stream))

    one, other = encoder(), encoder()
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream(0))
    handles = iter([21, 22])
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream(next(handles)))
    trt_engine._side.cache_clear()
    execute = Context.execute_async_v3
    monkeypatch.setattr(Context, "execute_async_v3", lambda self, at: ran.append(at) or execute(self, at))
    image = torch.rand(13, 17, 3)
    for each in (one, other):  # one stream serves all, of which there are few
        assert torch.equal(each(image), Encoder(WEIGHTS, HEAD, CPU, BF16)(image))
    assert ran == [21, 21]
    assert waits == [(21, 0), (0, 21)] * 2


@needs_rtx
@pytest.mark.parametrize("name", ["edsr-baseline", "realtime", "realtime-small"])
def test_memory_is_counted(machine: types.SimpleNamespace, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """By the plan, as far as it can be read: its buffers for the largest picture, beside z and the image."""
    weights = load(name)
    head = head_of(weights)
    monkeypatch.setattr(pretended, "WEIGHTS", weights)
    monkeypatch.setattr(pretended, "HEAD", head)
    one = TensorRTEncoder(RTX, weights, head, CPU, BF16)
    found = re.findall(rb"name=devmem\S+ size=(\d+)", kept(machine).read_bytes())
    if not found:
        pytest.skip("this version's plans cannot be read")
    rows, columns = one.largest
    taken = sum(map(int, found)) / (rows * columns) + 2 * one.width + 2 * 3
    assert 0.6 * one.bytes_per_cell < taken < one.bytes_per_cell


@needs_rtx
def test_larger_than_the_engine_takes(machine: types.SimpleNamespace) -> None:
    one = encoder()
    one.largest = (2 * one.halo + 10, 2 * one.halo + 14)
    for size, least in (((41, 37), 9), ((61, 2 * one.halo + 13), 3)):
        del machine.runs[:]
        image = torch.rand(*size, 3)
        assert not one.takes(*size)
        # Tiles are exact, but for what PyTorch rounds otherwise in pictures of another size.
        torch.testing.assert_close(one(image), Encoder(WEIGHTS, HEAD, CPU, BF16)(image), rtol=2**-7, atol=2**-7)
        assert len(machine.runs) > least
        assert all(one.takes(*piece) for piece in machine.runs)


@needs_rtx
def test_a_context_for_each_stream_and_errors_by_name(machine: types.SimpleNamespace) -> None:
    one, image = encoder(), torch.rand(5, 7, 3)
    for machine.stream in (7, 8, 8, 7):
        one(image)
    assert len(machine.strategies) == 2
    own = one.private()
    assert torch.equal(own(image), one(image))
    # Not the one of that stream, which may run in other shapes; its kernels are for its own.
    assert [how for _, how in machine.strategies] == ["NONE", "NONE", "EAGER"]
    assert len(machine.caches) == 3
    assert len(set(map(id, machine.caches))) == 1
    machine.stream = 13
    with pytest.raises(RuntimeError, match="'tensorrt-rtx' failed"):
        one(image)


@needs_rtx
def test_what_was_compiled_is_there_for_the_next_process(machine: types.SimpleNamespace) -> None:
    encoder()(torch.rand(5, 7, 3))  # beside the check's picture
    name = f"{trt_engine.network_of(WEIGHTS, HEAD)}-tensorrt_rtx-bfloat16-SM89_RTX_4090-kernels.engine"
    file = machine.folder / name
    written = file.stat()
    assert file.read_bytes().partition(b"\n")[2] == bytes([5, 61])
    second = encoder()
    second(torch.rand(5, 9, 3))
    assert machine.caches[-1].heights == {5, 61}
    assert file.stat() == written  # nothing new
    second(torch.rand(8, 9, 3))
    assert file.read_bytes().partition(b"\n")[2] == bytes([5, 8, 61])
    machine.fits = False  # after another driver was installed
    encoder()(torch.rand(3, 9, 3))
    assert file.read_bytes().partition(b"\n")[2] == bytes([3])


@needs_rtx
def test_a_graph_finds_all_as_it_was_in_the_run_before(machine: types.SimpleNamespace) -> None:
    """What TensorRT prepares anew, for a size or for other memory, may not be captured."""
    own = encoder().private()
    for rows, told in ((5, ["shape", "memory"]), (5, []), (8, ["shape", "memory"]), (8, []), (5, ["shape", "memory"])):
        image = torch.rand(rows, 7, 3)
        others = torch.empty(1 << 16)  # memory is not in its place by chance
        assert torch.equal(own(image), Encoder(WEIGHTS, HEAD, CPU, BF16)(image))
        del others
        assert machine.contexts[-1].told == told
        machine.contexts[-1].told = []


@needs_rtx
def test_a_shape_that_is_not_taken_is_not_remembered(
    machine: types.SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, image = encoder(), torch.rand(5, 7, 3)
    with monkeypatch.context() as patch:
        patch.setattr(Context, "set_input_shape", lambda *_: False)
        for _ in range(2):
            with pytest.raises(RuntimeError, match="'tensorrt-rtx' failed"):
                one(image)
    assert torch.equal(one(image), Encoder(WEIGHTS, HEAD, CPU, BF16)(image))
