"""CUDA streams that nobody else here works on.

PyTorch has 32 for a device and hands them out in turn, whoever has them already; what another thread queues on a stream
while it is captured becomes part of that graph.
"""

from __future__ import annotations

import threading
from weakref import WeakSet

import torch

POOL = 32
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
