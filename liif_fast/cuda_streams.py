"""CUDA streams that nobody else here works on, and the capture of what is queued on one.

PyTorch has 32 for a device and hands them out in turn, whoever has them already; what another thread queues on a stream
while it is captured becomes part of that graph.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar
from weakref import WeakSet

import torch

T = TypeVar("T")

POOL = 32
CAPTURING = threading.Lock()  # of one thread at a time
_held: WeakSet[torch.cuda.Stream] = WeakSet()
_lock = threading.Lock()


def own(device: torch.device) -> torch.cuda.Stream | None:
    """A stream that is given to no other caller while this one holds it; None where there is none left."""
    with _lock:
        for _ in range(POOL):
            stream = torch.cuda.Stream(device)
            if stream not in _held:  # those of one handle are equal
                _held.add(stream)
                return stream
    return None


def capture(
    work: Callable[[], T], stream: torch.cuda.Stream, generators: Sequence[torch.Generator] = ()
) -> tuple[torch.cuda.CUDAGraph, T]:
    """What ``work``, which ran there before, queues on ``stream`` of the current device, as a graph, and what it
    returned: nothing is done yet.

    ``generators``: of its random numbers. RuntimeError with CUDA's words, or PyTorch's, where it cannot be captured.
    """
    graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
    for generator in generators:
        graph.register_generator_state(generator)
    try:
        # Other threads may meanwhile do what would spoil a capture of theirs, but not capture: that begins with a wait
        # for the device. A capture that fails leaves its stream the current one, which the outer one undoes.
        captured = torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local")
        with CAPTURING, torch.cuda.stream(stream), captured:
            made = work()
    except RuntimeError:
        # PyTorch goes on as if it were capturing: it keeps all memory that two streams have worked on until that ends,
        # and in older versions draws no random numbers, unless a generator gets another state, of the same values.
        index = stream.device_index
        names = ("_cuda_endAllocateToPool", "_cuda_endAllocateCurrentStreamToPool")  # since PyTorch 2.8, and before
        end = next(getattr(torch._C, name) for name in names if hasattr(torch._C, name))
        with suppress(RuntimeError):
            end(index, pool)  # raises where the graph has its pool, which it gives back
            torch._C._cuda_releasePool(index, pool)
        for generator in (*generators, *torch.cuda.default_generators[index : index + 1]):
            with suppress(RuntimeError):
                generator.graphsafe_set_state(generator.clone_state())
        raise
    return graph, made
