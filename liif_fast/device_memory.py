"""A CUDA device's memory: whether an error says that it is full, and how what PyTorch holds of it is given back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from . import cuda_streams

# The words of CUDA ("out of memory", through PyTorch's AcceleratorError and Triton), cuBLAS and cuDNN
# ("CUBLAS_STATUS_ALLOC_FAILED"), TensorRT ("OutOfMemory"), and PyTorch where no way of a convolution has room to work.
_FULL = re.compile(
    r"out of memory|OutOfMemory|ALLOC_FAILED|ALLOCATION_FAILED|unable to find an engine to execute", re.IGNORECASE
)


def is_full(error: RuntimeError) -> bool:
    """Whether what was asked for did not fit, whoever says so; less may."""
    return isinstance(error, torch.OutOfMemoryError) or _FULL.search(str(error)) is not None


@contextmanager
def if_it_fits() -> Iterator[None]:
    """A block that ends where it asks for more than there is."""
    try:
        yield
    except RuntimeError as error:
        if not is_full(error):
            raise


def give_back() -> None:
    """What PyTorch holds for later becomes anybody's; while a stream of this package is captured, which that may spoil,
    it waits."""
    with cuda_streams.CAPTURING:
        torch.cuda.empty_cache()
