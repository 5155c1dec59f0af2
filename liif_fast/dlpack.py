"""Arrays of other libraries, by the memory they give out (DLPack)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

_PROCESSOR = 1  # kDLCPU


class Held:
    """What gives out the memory of a tensor, as an array of another library does."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor = tensor

    def __dlpack__(self, *args: Any, **kwargs: Any) -> Any:
        return self._tensor.__dlpack__(*args, **kwargs)

    def __dlpack_device__(self) -> Any:
        return self._tensor.__dlpack_device__()


def tensor_of(array: Any) -> torch.Tensor:
    """Its memory, or a copy where strides are negative: at those `torch.from_dlpack` ends the process.

    TypeError, with the other library's reason, where it gives none.
    """
    try:
        if array.__dlpack_device__()[0] == _PROCESSOR and (turned := _turned(array)) is not None:
            return torch.from_numpy(turned.copy())
        on_gpu = getattr(array, "__cuda_array_interface__", None)
        if on_gpu and min(on_gpu.get("strides") or (), default=0) < 0:
            array = array.copy()  # CuPy's; others have no negative strides
        return torch.from_dlpack(array)
    except Exception as error:  # whatever the other library raises
        raise TypeError(f"{type(array).__name__} does not give its memory by DLPack: {error}") from error


def _turned(array: Any) -> np.ndarray | None:
    """As NumPy sees it, where strides are negative and NumPy has the type."""
    try:
        seen = np.from_dlpack(array)
    except (BufferError, RuntimeError):
        return None
    return seen if min(seen.strides, default=0) < 0 else None
