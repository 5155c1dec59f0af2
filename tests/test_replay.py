"""Training as a CUDA graph, without a GPU; that it runs there is held in tests/gpu."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from captured import Graph, capture
from common import CPU
from liif_fast import checkpoint
from liif_fast.training import convolution, replay, train
from liif_fast.training.data import Pictures
from liif_fast.training.replay import Replayed
from runs import content, make


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[Graph]:
    monkeypatch.setattr(Graph, "made", [])
    for name, stand_in in {
        "CUDAGraph": Graph,
        "graph": capture,
        "stream": lambda _: nullcontext(),
        "current_stream": lambda: SimpleNamespace(device_index=0),
        "graph_pool_handle": lambda: (0, 7),
    }.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    return Graph.made


def test_results_are_those_of_the_work(graphs: list[Graph]) -> None:
    given, generator = torch.zeros(3), torch.Generator().manual_seed(0)
    called = []

    def work() -> torch.Tensor:
        called.append(0)
        return given * 2 + torch.rand(3, generator=generator)

    replayed, twin = Replayed(work, generator), torch.Generator().manual_seed(0)
    results = []
    for i in range(6):
        given.fill_(i)
        results.append(replayed())
        assert torch.equal(results[-1], torch.full((3,), 2.0 * i) + torch.rand(3, generator=twin))
    assert len(called) == 4
    assert graphs[0].replays == 3
    assert results[3] is results[4] is results[5]
    assert torch.equal(generator.get_state(), twin.get_state())


class Numbers:
    """A GPU's `torch.Generator`, whose state is an object that several may share."""

    def __init__(self) -> None:
        self.state = object()

    def get_state(self) -> None: ...
    def set_state(self, _: None) -> None: ...

    def clone_state(self) -> Numbers:
        return Numbers()

    def graphsafe_set_state(self, other: Numbers) -> None:
        self.state = other.state


# Since PyTorch 2.8 and before.
@pytest.mark.parametrize("end", ["_cuda_endAllocateToPool", "_cuda_endAllocateCurrentStreamToPool"])
@pytest.mark.parametrize(
    "asks", [lambda t: t.max().item(), lambda t: t[t > 0], lambda t: t + torch.tensor([1.0, 2.0, 3.0])]
)
def test_what_cannot_be_captured_is_done_as_it_is(
    graphs: list[Graph], asks: Callable[[torch.Tensor], object], end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And PyTorch hears that the capture has ended, which it would not find out."""
    total, ended, ours, common = torch.zeros(3), [], Numbers(), Numbers()
    monkeypatch.delattr(torch._C, "_cuda_endAllocateToPool", raising=False)
    monkeypatch.setattr(torch._C, end, lambda *of: ended.append(of), raising=False)
    monkeypatch.setattr(torch.cuda, "default_generators", (common,))

    def work() -> torch.Tensor:
        asks(total)
        return total.add_(1)

    replayed: Replayed[torch.Tensor] = Replayed(work, ours)  # type: ignore[arg-type]
    for _ in range(3):
        replayed()
    states = ours.state, common.state
    assert not ended
    with pytest.warns(UserWarning, match="one kernel at a time, not as a CUDA graph: .* not permitted"):
        replayed()
    assert replayed().tolist() == [5.0] * 3
    assert len(graphs) == 1
    assert ended == [(0, (0, 7))]
    assert ours.state is not states[0]
    assert common.state is not states[1]


@pytest.mark.parametrize("decoder", ["liif", "resample"])
def test_training_is_the_same_as_a_graph(
    decoder: str, photos: Path, tmp_path: Path, graphs: list[Graph], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit, with drawings, edges, JPEG, luma and channels that begin anew, through a state that is saved."""
    monkeypatch.setattr(convolution, "is_ours", lambda *_: False)  # it is no operation of PyTorch
    monkeypatch.setattr(Pictures, "fixed", property(lambda _: True, lambda *_: None), raising=False)
    settings = {"decoder": decoder, "synthetic": 2, "jpeg": 0.5, "luma": 0.5, "revive_every": 15}
    settings |= {"iterations": 45, "warmup": 5}
    states = {}
    for name, possible in (("graph", True), ("plain", False)):
        monkeypatch.setattr(train, "possible", lambda *_, possible=possible: possible)
        run = make(photos, tmp_path / name, threads=1, validate_every=50, save_every=20, **settings)
        train.train(run)
        states[name] = content(tmp_path / name)
        assert len(graphs) == 2
    assert sorted(graph.replays for graph in graphs) == [2, 37]  # one watches, in one of ten
    for name in ("network", "average", "inputs"):
        for key, value in states["plain"][name].items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(states["graph"][name][key], value), (name, key)
    assert torch.equal(*(state["generators"][0] for state in states.values()))
    fingerprints = [checkpoint.load(tmp_path / name / train.WEIGHTS).fingerprint for name in states]
    assert fingerprints[0] == fingerprints[1]


def test_only_one_gpu_replays() -> None:
    assert replay.possible(torch.device("cuda", 0), 1)
    assert not replay.possible(torch.device("cuda", 0), 2)
    assert not replay.possible(CPU, 1)
