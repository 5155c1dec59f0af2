"""Buffers as large as pictures: in large pages where the system has them, and used again once nobody holds them.

The system clears new memory page by page as it is touched; for z and the result of a frame of a film in pages of
4 KiB that takes a tenth of the time of a small network.
"""

from __future__ import annotations

import math
import mmap
import weakref
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from functools import cache

import numpy as np
import torch

from . import memory

_LARGE = 2 << 20  # bytes of a large page
_KEPT, _SHARE = 128 << 20, 32  # bytes that nobody holds, and of what was free at first: at most
_PINNED = 256 << 20  # bytes of one picture, which whoever has the result may hold many of: at most

_CPU = torch.device("cpu")
_free: deque[mmap.mmap] = deque()


def empty(*shape: int, dtype: torch.dtype, device: torch.device = _CPU) -> torch.Tensor:
    """As `torch.empty`."""
    size = math.prod(shape) * dtype.itemsize
    if device.type != "cpu" or not _worth_it(size):
        return torch.empty(shape, dtype=dtype, device=device)
    return _tensor(_again(size) or _new(size), shape, dtype)


def planar(picture: torch.Tensor) -> bool:
    """Whether [H, W, C] lies in memory by channels, as PyTorch's pictures do, and not by pixels."""
    return picture.stride(2) > picture.stride(1)


def like(picture: torch.Tensor, size: tuple[int, int], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """[*size, C], in memory by pixels or by channels, as ``picture`` [H, W, C] is."""
    channels = picture.shape[2]
    if planar(picture):
        return empty(channels, *size, dtype=dtype, device=device).permute(1, 2, 0)
    return empty(*size, channels, dtype=dtype, device=device)


def moved(picture: torch.Tensor, device: torch.device) -> torch.Tensor:
    """On a device. From a GPU it comes by way of pages that the system does not move, which saves a copy."""
    by_way = picture.is_cuda and device.type == "cpu" and picture.numel() * picture.itemsize <= _PINNED
    return pinned(picture).copy_(picture) if by_way else picture.to(device)


def pinned(picture: torch.Tensor) -> torch.Tensor:
    """Memory for its copy on the processor that the system does not move, so that a GPU reads and writes it by itself;
    any other where no more may be had, of which some systems have little, and frames of a stream may be many."""
    try:
        return torch.empty_like(picture, device="cpu", pin_memory=True)
    except RuntimeError:
        return torch.empty_like(picture, device="cpu")


def zeros(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    """As `torch.zeros`, for processors."""
    size = math.prod(shape) * dtype.itemsize
    if not _worth_it(size):
        return torch.zeros(shape, dtype=dtype, device="cpu")
    return _tensor(_new(size), shape, dtype)


def _worth_it(size: int) -> bool:
    return size >= _LARGE and hasattr(mmap, "MADV_HUGEPAGE")


def _new(size: int) -> mmap.mmap:
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel built without
        pages.madvise(mmap.MADV_HUGEPAGE)
    return pages


def _again(size: int) -> mmap.mmap | None:
    """One of exactly this size that is free. Others may take and give at the same time."""
    with suppress(IndexError):
        for _ in range(len(_free)):
            pages = _free.popleft()
            if len(pages) == size:
                return pages
            _free.append(pages)
    return None


def _tensor(pages: mmap.mmap, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    # What shares the tensor's memory, in PyTorch and NumPy, holds this array, and nothing else does.
    array = np.frombuffer(pages, np.uint8)
    weakref.finalize(array, _give_back, pages).atexit = False
    return torch.from_numpy(array).view(dtype).view(shape)


@cache
def most_kept() -> int:
    """Bytes."""
    return min(_KEPT, memory.free() // _SHARE)


def _give_back(pages: mmap.mmap) -> None:
    _free.append(pages)
    with suppress(IndexError):
        while sum(map(len, tuple(_free))) > most_kept():
            _free.popleft()  # the one that has been free for longest
