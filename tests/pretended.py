"""A pretended GPU for engines: TensorRT for RTX builds them, and in the place of its runtime stands one that computes
with PyTorch what it is given by address, so that shapes, addresses and tiles are those a GPU would see.
"""

from __future__ import annotations

import ctypes
import types
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common import BF16, CPU, FP32, GOLDEN
from liif_fast import engine_cache, trt_engine
from liif_fast.checkpoint import load
from liif_fast.encoder import Encoder
from liif_fast.ops import Decoder
from liif_fast.trt_engine import FLAVOURS, TensorRTEncoder
from liif_fast.trt_network import IMAGE, Z

WEIGHTS = load(GOLDEN / "tiny.pth")
HEAD = Decoder(WEIGHTS, CPU, FP32, "reference").head
RTX = "tensorrt-rtx"
needs_rtx = pytest.mark.skipif(FLAVOURS[RTX].missing is not None, reason=str(FLAVOURS[RTX].missing))


def memory(address: int, *shape: int) -> torch.Tensor:
    """bfloat16 at an address, as a tensor."""
    buffer = (ctypes.c_int16 * int(np.prod(shape))).from_address(address)
    return torch.frombuffer(buffer, dtype=torch.int16).view(BF16).view(*shape)


class Compiled:
    """An `IRuntimeCache`: heights of pictures for which there are kernels."""

    def __init__(self, fits: bool) -> None:
        self.heights, self.fits = set[int](), fits

    def serialize(self) -> bytearray:
        return bytearray(sorted(self.heights))

    def deserialize(self, kept: bytes) -> bool:
        self.heights = set(kept) if self.fits else set()
        return self.fits


class Context:
    """An execution context; see the top of the file."""

    def __init__(self, log: list[Any], spoil: Any, compiled: Compiled) -> None:
        self.log, self.spoil, self.addresses, self.compiled = log, spoil, dict[str, int](), compiled
        self.encoder = Encoder(WEIGHTS, HEAD, CPU, BF16)
        self.told: list[str] = []

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert name == IMAGE
        self.told += ["shape"]
        self.shape = shape
        return True

    def update_device_memory_size_for_shapes(self) -> int:
        return 1000 * self.shape[1]

    def set_device_memory(self, address: int, size: int) -> None:
        assert size == 1000 * self.shape[1]
        self.told += ["memory"]
        ctypes.memset(address, 1, size)

    def set_tensor_address(self, name: str, address: int) -> bool:
        assert address % 64 == 0
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        one, height, width, colors = self.shape
        assert (one, colors) == (1, 3)
        self.log.append((height, width))
        self.compiled.heights.add(height)
        z = self.encoder.run(memory(self.addresses[IMAGE], height, width, 3))
        memory(self.addresses[Z], height, width, self.encoder.width).copy_(self.spoil(z))
        return stream != 13


def pretend(monkeypatch: pytest.MonkeyPatch, folder: Path) -> types.SimpleNamespace:
    """A GPU of architecture SM89 whose memory is the processor's, and ``folder`` its cache; counts engines built and
    pieces run."""
    log = types.SimpleNamespace(
        built=0, runs=[], contexts=[], stream=7, spoil=lambda z: z, fits=True, load=lambda plan: plan[:4] == b"vtrt"
    )
    strategies, caches = [], list[Any]()

    class Engine:
        def create_runtime_config(self) -> types.SimpleNamespace:
            config = types.SimpleNamespace()
            config.set_execution_context_allocation_strategy = lambda strategy: setattr(config, "strategy", strategy)
            config.create_runtime_cache = lambda: Compiled(log.fits)
            config.set_runtime_cache = caches.append
            return config

        def create_execution_context(self, config: Any) -> Context:
            strategies.append((config.strategy.name, config.dynamic_shapes_kernel_specialization_strategy.name))
            log.contexts.append(Context(log.runs, lambda z: log.spoil(z), caches[-1]))
            return log.contexts[-1]

    def build(*args: Any) -> bytes:
        log.built += 1
        return original(*args)

    original = trt_engine.build
    monkeypatch.setenv(engine_cache.FOLDER_VARIABLE, str(folder))
    monkeypatch.setattr(trt_engine, "build", build)
    monkeypatch.setattr(trt_engine, "_capability", lambda device: "SM89")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "RTX 4090")
    monkeypatch.setattr(TensorRTEncoder, "_load", lambda self, plan: Engine() if log.load(plan) else None)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: types.SimpleNamespace(cuda_stream=log.stream))
    log.strategies, log.caches, log.folder = strategies, caches, folder
    return log


def encoder() -> TensorRTEncoder:
    return TensorRTEncoder(RTX, WEIGHTS, HEAD, CPU, BF16)


def kept(machine: types.SimpleNamespace) -> Path:
    (path,) = (path for path in machine.folder.iterdir() if not path.match("*-kernels.engine"))
    return path
