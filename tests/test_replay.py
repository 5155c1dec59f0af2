"""Training as a CUDA graph, without a GPU: operations are recorded as by a capture, and done again as by a replay.

No Python is in a replay, every tensor has the memory it had, and what a capture forbids is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from common import CPU
from liif_fast import checkpoint
from liif_fast.training import convolution, replay, train
from liif_fast.training.data import Pictures
from liif_fast.training.replay import Replayed
from runs import content, make, pictures

aten = torch.ops.aten
# They wait for the device, or copy from the host's memory.
FORBIDDEN = (aten._local_scalar_dense, aten.nonzero, aten.lift_fresh, aten.masked_select, aten.repeat_interleave.Tensor)
INDEXING = (aten.index, aten.index_put, aten.index_put_)


class Graph:
    """`torch.cuda.CUDAGraph`."""

    made: ClassVar[list[Graph]] = []

    def __init__(self) -> None:
        self.steps: list[tuple[Any, ...]] = []
        self.generators: list[torch.Generator] = []
        self.replays = 0
        self.made.append(self)

    def register_generator_state(self, generator: torch.Generator) -> None:
        self.generators.append(generator)

    @torch.no_grad()
    def replay(self) -> None:
        self.replays += 1
        for operation, args, kwargs, made in self.steps:
            again = operation(*args, **kwargs)
            if not operation._schema.is_mutable:
                for old, new in zip(tree_leaves(made), tree_leaves(again), strict=True):
                    if isinstance(old, torch.Tensor):
                        old.copy_(new)


class Capture(TorchDispatchMode):
    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, packet = kwargs or {}, operation.overloadpacket
        masks = packet in INDEXING and any(t is not None and t.dtype == torch.bool for t in args[1])
        if operation in FORBIDDEN or packet in FORBIDDEN or masks:
            raise RuntimeError(f"{operation} is not permitted when stream is capturing")
        if (generator := kwargs.get("generator")) is not None:
            assert any(torch.equal(generator.get_state(), known.get_state()) for known in self.graph.generators)
        made = operation(*args, **kwargs)
        if not operation.is_view:
            self.graph.steps.append((operation, args, kwargs, made))
        return made


@contextmanager
def capture(graph: Graph, **_: Any) -> Iterator[None]:
    """`torch.cuda.graph`. Nothing is computed yet, so no random number is drawn."""
    before = [generator.get_state() for generator in graph.generators]
    with Capture(graph):
        yield
    for generator, state in zip(graph.generators, before, strict=True):
        generator.set_state(state)


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[Graph]:
    monkeypatch.setattr(Graph, "made", [])
    for name, stand_in in {
        "CUDAGraph": Graph,
        "graph": capture,
        "stream": lambda _: nullcontext(),
        "current_stream": lambda: None,
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


@pytest.mark.parametrize(
    "asks", [lambda t: t.max().item(), lambda t: t[t > 0], lambda t: t + torch.tensor([1.0, 2.0, 3.0])]
)
def test_what_cannot_be_captured_is_done_as_it_is(graphs: list[Graph], asks: Callable[[torch.Tensor], object]) -> None:
    total = torch.zeros(3)

    def work() -> torch.Tensor:
        asks(total)
        return total.add_(1)

    replayed = Replayed(work, torch.Generator())
    for _ in range(3):
        replayed()
    with pytest.warns(UserWarning, match="one kernel at a time, not as a CUDA graph: .* not permitted"):
        replayed()
    assert replayed().tolist() == [5.0] * 3
    assert len(graphs) == 1


@pytest.mark.parametrize("decoder", ["liif", "resample"])
def test_training_is_the_same_as_a_graph(
    decoder: str, tmp_path: Path, graphs: list[Graph], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit, with drawings, edges, luma and channels that begin anew, through a state that is saved."""
    (tmp_path / "pictures").mkdir()
    data = pictures(tmp_path / "pictures")
    monkeypatch.setattr(convolution, "is_ours", lambda *_: False)  # it is no operation of PyTorch
    monkeypatch.setattr(Pictures, "fixed", property(lambda _: True, lambda *_: None), raising=False)
    settings = {"decoder": decoder, "synthetic": 2, "luma": 0.5, "revive_every": 15, "iterations": 45, "warmup": 5}
    states = {}
    for name, possible in (("graph", True), ("plain", False)):
        monkeypatch.setattr(train, "possible", lambda *_, possible=possible: possible)
        run = make(data, tmp_path / name, threads=1, validate_every=50, save_every=20, **settings)
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
