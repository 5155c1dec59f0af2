"""Launches kernels up to the launch itself, for a card that is not there, as its own process; prints JSON.

{"decode": distinct compilations, "resample": likewise} of calls that differ in sizes, strides, windows and points.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from importlib import import_module
from typing import Any

os.environ["TRITON_INTERPRET"] = "0"

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from common import CPU, FP16, Case, destination, problem
from liif_fast.backends import triton as backend
from liif_fast.resample import Resampler
from test_resample import WEIGHTS, table

CASES = [
    Case(dtype=FP16, out=torch.uint8),
    Case(dtype=FP16, out=torch.uint8, size=(16, 32), cells=(16, 8)),
    Case(dtype=FP16, out=torch.uint8, size=(1, 1), cells=(1, 1)),
    Case(dtype=FP16, out=torch.uint8, layout="chw", padded=True),
    Case(dtype=FP16, out=torch.uint8, layout="sparse", paired=True),
]


class Driver:
    """As much of one as compiling asks for."""

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int = 0) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 80, 32)


class Unlaunched:
    """A kernel that binds its arguments and compiles, and stops there."""

    def __init__(self, kernel: Any) -> None:
        self.kernel, self.compiled = kernel, set[str]()

    def __getitem__(self, programs: tuple[int, ...]) -> Callable[..., None]:
        def run(*arguments: Any, **options: Any) -> None:
            self.compiled.add(self.kernel.warmup(*arguments, grid=programs, **options).hash)

        return run


def main() -> None:
    driver.set_active(Driver())
    backend.unavailable = lambda device, dtype: None  # type: ignore[assignment]
    kernels = {}
    for name in ("decode", "resample"):
        module = import_module(f"liif_fast.kernels.{name}")
        kernels[name] = Unlaunched(getattr(module, name))
        setattr(module, name, kernels[name])
    for case in CASES:
        problem(case).decode("triton", torch.from_numpy(destination(case)[1]))
    decoder = Resampler(WEIGHTS, CPU, FP16, "triton")
    for cells, size in (((1, 1), (3, 5)), ((5, 7), (16, 32)), ((16, 16), (1, 1))):
        y, x = (table(n, c) for n, c in zip(size, cells, strict=True))
        decoder(torch.randn(*cells, 48).half(), y, x, (0.5, 0.5), torch.empty(*size, 3))
    print(json.dumps({name: len(kernel.compiled) for name, kernel in kernels.items()}))


if __name__ == "__main__":
    main()
