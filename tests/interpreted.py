"""Triton's kernels on the processor: run by its interpreter, counted, and with bfloat16 and float8 taught to it."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from liif_fast.backends import triton as backend


class Spy:
    """A kernel that notes the compile-time arguments of each launch."""

    def __init__(self, kernel: Any) -> None:
        self.kernel, self.launches = kernel, []

    def __getitem__(self, programs: tuple[int, ...]) -> Callable[..., None]:
        def run(*arguments: Any, **options: Any) -> None:
            self.launches.append(options)
            self.kernel[programs](*arguments, **options)

        return run


def interpret(monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str) -> Spy:
    """Let the triton backend work on the processor; returns the spy in the place of the kernel ``module.name``."""
    if os.environ["TRITON_INTERPRET"] != "1":
        pytest.skip("kernels are compiled, not interpreted")
    monkeypatch.setattr(backend, "unavailable", lambda device, dtype: None)
    teach_bfloat16(monkeypatch)
    teach_float8(monkeypatch)
    spy = Spy(getattr(module, name))
    monkeypatch.setattr(module, name, spy)
    return spy


def teach_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter holds a bfloat16 as its bits in a uint16, multiplies and compares those, and truncates to it."""
    import torch
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    def widened(handle: Any) -> Any:
        if handle.dtype.scalar != tl.bfloat16:
            return handle
        return TensorHandle((handle.data.astype(np.uint32) << 16).view(np.float32), tl.float32)

    def narrowed(data: np.ndarray) -> Any:
        nearest = torch.from_numpy(np.ascontiguousarray(data)).to(torch.bfloat16)
        return TensorHandle(nearest.view(torch.uint16).numpy(), tl.bfloat16)

    dot, larger, cast = InterpreterBuilder.create_dot, InterpreterBuilder.create_maxnumf, InterpreterBuilder.cast_impl

    def create_dot(self: Any, a: Any, b: Any, d: Any, *rest: Any) -> Any:
        # In float32 what a BLAS makes of a row may depend on where the row lies.
        found = dot(self, widened(a), widened(b), TensorHandle(d.data.astype(np.float64), tl.float64), *rest)
        return TensorHandle(found.data.astype(d.data.dtype), d.dtype.scalar)

    def create_maxnumf(self: Any, a: Any, b: Any) -> Any:
        found = larger(self, widened(a), widened(b))
        return narrowed(found.data) if a.dtype.scalar == tl.bfloat16 else found

    def cast_impl(self: Any, value: Any, to: Any) -> Any:
        narrows = (value.dtype.scalar, to.scalar) == (tl.float32, tl.bfloat16)
        return narrowed(value.data) if narrows else cast(self, value, to)

    monkeypatch.setattr(InterpreterBuilder, "create_dot", create_dot)
    monkeypatch.setattr(InterpreterBuilder, "create_maxnumf", create_maxnumf)
    monkeypatch.setattr(InterpreterBuilder, "cast_impl", cast_impl)


def teach_float8(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter truncates to e4m3, and lets what is too large become NaN; GPUs round to nearest and saturate."""
    import torch
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    convert = InterpreterBuilder.create_fp_to_fp

    def create_fp_to_fp(self: Any, value: Any, to: Any, rounding: Any) -> Any:
        if to.scalar != tl.float8e4nv:
            return convert(self, value, to, rounding)
        nearest = torch.from_numpy(value.data.astype(np.float32)).clamp(-448, 448).to(torch.float8_e4m3fn)
        return TensorHandle(nearest.view(torch.uint8).numpy(), tl.float8e4nv)

    monkeypatch.setattr(InterpreterBuilder, "create_fp_to_fp", create_fp_to_fp)
