"""An engine's execution context on one stream, told only what has changed since its last run."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch

from .trt_kernels import Kernels
from .trt_network import IMAGE, Z


class Context:
    """An `IExecutionContext` whose scratch memory is PyTorch's. It may not work on two streams at once.

    A CUDA graph may be captured of a run in the shape of the run before: TensorRT has nothing left to prepare then, and
    is told two addresses only.

    Args:
        kept: for pictures of one size: the scratch memory stays from run to run, as a graph holds its address; else it
            is the caller's to drop.

    RuntimeError where TensorRT makes none.
    """

    def __init__(self, trt: ModuleType, engine: Any, kernels: Kernels, kept: bool) -> None:
        rtx = hasattr(trt, "DynamicShapesKernelSpecializationStrategy")
        self._kernels, self._kept = kernels if rtx else None, kept
        self._config = _config(trt, engine, self._kernels, kept)  # lives as long as what was made with it
        self._context = engine.create_execution_context(self._config)
        if self._context is None:
            raise RuntimeError("no execution context")
        self._shape: torch.Size | None = None
        self._ran = False  # in that shape
        self._size, self._address = 0, 0
        self._scratch: torch.Tensor | None = None

    def prepare(self, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor | None:
        """For x [H, W, 3] -> z [H, W, C], both contiguous: scratch memory from the current stream, which must be held
        until that stream comes after the run. None where TensorRT does not take the shape."""
        if x.shape != self._shape:
            self._shape, self._scratch, self._address = None, None, 0
            if not self._context.set_input_shape(IMAGE, (1, *x.shape)):
                return None
            # For this size, not for the largest.
            self._size = max(1, self._context.update_device_memory_size_for_shapes())
            self._shape, self._ran = x.shape, False
        scratch = self._scratch
        if scratch is None:
            scratch = torch.empty(self._size, dtype=torch.uint8, device=x.device)
            self._scratch = scratch if self._kept else None
        if scratch.data_ptr() != self._address:
            self._address = scratch.data_ptr()
            self._context.set_device_memory(self._address, self._size)
        self._context.set_tensor_address(IMAGE, x.data_ptr())
        self._context.set_tensor_address(Z, z.data_ptr())
        return scratch

    def run(self, stream: int) -> bool:
        """Queues what was prepared on a stream's handle; False where TensorRT refuses."""
        done = bool(self._context.execute_async_v3(stream))
        if done and not self._ran and self._kernels:
            self._kernels.keep()
        self._ran = done
        return done


def _config(trt: ModuleType, engine: Any, kernels: Kernels | None, one_size: bool) -> Any:
    """What a context is made with.

    TensorRT for RTX compiles kernels for a size while all wait, where the size will come again; else it takes those for
    any size, as there would be seconds of compiling for every picture. It could also compile beside the work, but then
    later frames of a film would differ in their last bits.
    """
    strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
    if kernels is None:
        return strategy
    config = engine.create_runtime_config()
    config.set_execution_context_allocation_strategy(strategy)
    strategies = trt.DynamicShapesKernelSpecializationStrategy
    config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER if one_size else strategies.NONE
    kernels.give(config)
    return config
