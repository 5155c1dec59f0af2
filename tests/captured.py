"""CUDA's streams and graphs without a GPU: operations are recorded as by a capture, and done again as by a replay.

No Python is in a replay, every tensor has the memory it had, and what a capture forbids is an error.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from itertools import count
from typing import Any, ClassVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from liif_fast.cuda_streams import POOL

aten = torch.ops.aten
# They wait for the device, or copy from the host's memory.
FORBIDDEN = (aten._local_scalar_dense, aten.nonzero, aten.lift_fresh, aten.masked_select, aten.repeat_interleave.Tensor)
INDEXING = (aten.index, aten.index_put, aten.index_put_)


class Graph:
    """`torch.cuda.CUDAGraph`."""

    made: ClassVar[list[Graph]] = []

    def __init__(self) -> None:
        # What is done again, and what it made the first time, unless it worked in place.
        self.steps: list[tuple[Callable[[], Any], Any]] = []
        self.generators: list[torch.Generator] = []
        self.replays = 0
        self.made.append(self)

    def register_generator_state(self, generator: torch.Generator) -> None:
        self.generators.append(generator)

    @torch.inference_mode()
    def replay(self) -> None:
        self.replays += 1
        for again, made in self.steps:
            for old, new in zip(tree_leaves(made), tree_leaves(again()), strict=made is not None):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():  # a view has its memory
                    old.copy_(new)


class Stream:
    """A CUDA stream whose work is done as soon as it is queued, one of those that PyTorch hands out in turn."""

    made = count()
    device, device_index = torch.device("cuda", 0), 0

    def __init__(self, *_: Any) -> None:
        self.cuda_stream = next(self.made) % POOL

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and other.cuda_stream == self.cuda_stream

    def __hash__(self) -> int:
        return self.cuda_stream

    def wait_stream(self, other: Stream) -> None:
        assert isinstance(other, Stream)

    def wait_event(self, event: Stream) -> None:
        assert isinstance(event, Stream)

    def synchronize(self) -> None: ...

    def record_event(self) -> Stream:  # done already
        return self


class _Thread(threading.local):
    graph: Graph | None = None  # which it captures


thread = _Thread()


class Capture(TorchDispatchMode):
    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph

    @staticmethod
    def compute(operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return operation(*args, **kwargs)

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, packet = kwargs or {}, operation.overloadpacket
        masks = packet in INDEXING and any(t is not None and t.dtype == torch.bool for t in args[1])
        if operation in FORBIDDEN or packet in FORBIDDEN or masks:
            raise RuntimeError(f"{operation} is not permitted when stream is capturing")
        if (generator := kwargs.get("generator")) is not None:
            assert any(torch.equal(generator.get_state(), known.get_state()) for known in self.graph.generators)
        made = self.compute(operation, args, kwargs)
        in_place = operation._schema.is_mutable
        self.graph.steps.append((partial(self.compute, operation, args, kwargs), None if in_place else made))
        return made


def capturing_in(mode: type[Capture]) -> Callable[..., AbstractContextManager[None]]:
    """`torch.cuda.graph`. Nothing is computed yet, so no random number is drawn."""

    @contextmanager
    def capture(graph: Graph, **_: Any) -> Iterator[None]:
        before = [generator.get_state() for generator in graph.generators]
        thread.graph = graph
        try:
            with mode(graph):
                yield
        finally:
            thread.graph = None
        for generator, state in zip(graph.generators, before, strict=True):
            generator.set_state(state)

    return capture


capture = capturing_in(Capture)
