"""Work on a GPU that is alike every time, as a CUDA graph: the host launches it whole, not kernel by kernel."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

import torch

from .. import cuda_streams

T = TypeVar("T")

_WARM_UP = 3


class Replayed(Generic[T]):
    """``work``, whose results lie in the same memory from the fourth time on: use them before it runs again.

    Args:
        work: on the current stream, not the default one, with the same shapes and memory of others every time; from the
            fourth time on only what it has the device do is done, so it may not ask the device for anything.
        generator: of its random numbers.
    """

    def __init__(self, work: Callable[[], T], generator: torch.Generator) -> None:
        self._work, self._generator, self._times = work, generator, 0
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> T:
        self._times += 1
        if self._times == _WARM_UP + 1:  # before, kernels were compiled and tuned, and what is kept was made
            self._capture()
        if self._graph is None:
            return self._work()
        self._graph.replay()
        return self._made

    def _capture(self) -> None:
        try:
            self._graph, self._made = cuda_streams.capture(self._work, torch.cuda.current_stream(), [self._generator])
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            warnings.warn(f"iterations are launched one kernel at a time, not as a CUDA graph: {reason}", stacklevel=2)


def possible(device: torch.device, processes: int) -> bool:
    """Whether a network's gradients can be `Replayed`; of several processes the hosts have them exchanged meanwhile."""
    return device.type == "cuda" and processes == 1


@contextmanager
def own_stream(device: torch.device) -> Iterator[None]:
    """A GPU's current stream inside is one that can be captured."""
    if device.type != "cuda":
        yield
        return
    stream = cuda_streams.own(device) or torch.cuda.Stream(device)
    before = torch.cuda.current_stream(device)
    stream.wait_stream(before)
    with torch.cuda.stream(stream):
        yield
    before.wait_stream(stream)
