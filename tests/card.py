"""A CUDA device that is not there, for a process of its own: `pytest -p card`, or ``import card`` before all else.

Its memory is the processor's, in tensors that say they are on ``cuda:0``. As on a device, whatever mixes them with
others, has a kernel read the host's memory, or asks for a result while a graph is captured, is an error; Triton's
kernels are interpreted, and graphs recorded and replayed. Not shown are order, speed, and what CUDA itself refuses.

The environment names `card.cpp`, compiled, in `LIBRARY`, and the module of csrc/cuda, for processors, in `COLORS`.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

LIBRARY, COLORS = "LIIF_FAST_TEST_CARD", "LIIF_FAST_TEST_COLORS"
os.environ["TRITON_INTERPRET"] = "yes"  # to Triton the same as 1, which to tests means that there is no device
os.environ.pop("CUDA_VISIBLE_DEVICES", None)
_torch = importlib.util.find_spec("torch")
assert _torch
assert _torch.origin
for _name in ("libc10.so", "libtorch_cpu.so"):
    ctypes.CDLL(str(Path(_torch.origin).parent / "lib" / _name), ctypes.RTLD_GLOBAL)
ctypes.CDLL(os.environ[LIBRARY])  # before PyTorch looks for it

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map
from triton.runtime.interpreter import InterpretedFunction

import captured
import interpreted
from captured import Stream

aten = torch.ops.aten
HOST, CARD = torch.device("cpu"), torch.device("cuda", 0)
COPIES = (aten.to, aten._to_copy, aten.copy_, aten.copy)
# The host's memory may say which elements.
INDEXING = (aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_)
launches: list[str] = []  # kernels that ran or were captured, by name


class OnCard(torch.Tensor):
    """A tensor on the device around one of the processor."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> OnCard:
        like = {"strides": held.stride(), "storage_offset": held.storage_offset(), "dtype": held.dtype}
        made = torch.Tensor._make_wrapper_subclass(cls, held.size(), device=CARD, layout=held.layout, **like)
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(operation, args, kwargs or {})

    def __repr__(self, *_: Any, **__: Any) -> str:
        return f"on the card: {self.held}"

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    def record_stream(self, stream: Any) -> None:
        assert isinstance(stream, Stream)


def held(value: Any) -> Any:
    return value.held if isinstance(value, OnCard) else value


def on_card(value: Any) -> Any:
    return OnCard(value) if isinstance(value, torch.Tensor) else value


def compute(operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """One operation of PyTorch's, done by the processor; its results are where a device's would be."""
    packet = operation.overloadpacket
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    some = any(isinstance(tensor, OnCard) for tensor in tensors)
    if packet is aten.is_pinned:
        return not some
    named = [value for value in (*args, kwargs.get("device")) if isinstance(value, torch.device)]
    if packet is aten.to and len(tensors) > 1:
        named = [tensors[1].device]
    there = named[0].type == "cuda" if named else some
    if packet in COPIES:
        if captured.thread.graph and there != isinstance(tensors[-1], OnCard):
            raise RuntimeError(f"{operation} between host and device is not permitted when stream is capturing")
    elif some:
        for tensor in tensors:
            if isinstance(tensor, OnCard) or not tensor.dim():
                continue
            if packet not in INDEXING or tensor.is_floating_point():
                raise RuntimeError(f"{operation}: expected all tensors to be on the same device, cuda:0 and cpu found")
            if captured.thread.graph:
                raise RuntimeError(f"{operation} by the host's memory is not permitted when stream is capturing")
    elsewhere = {"device": HOST} if "device" in kwargs else {}
    if kwargs.get("pin_memory"):
        assert not there, "memory of the device cannot be pinned"
        elsewhere["pin_memory"] = False  # type: ignore[assignment]
    plain_args, plain_kwargs = tree_map(held, (args, {**kwargs, **elsewhere}))
    made = operation(*(HOST if isinstance(value, torch.device) else value for value in plain_args), **plain_kwargs)
    if packet is aten.copy_:
        return args[0]
    if not there or packet is aten._local_scalar_dense:
        return made
    wrapped = tree_map(on_card, made)
    return wrapped if named else return_and_correct_aliasing(operation, args, kwargs, wrapped)


def ours(operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[[], Any] | None:
    """An operator of liif_fast's on the device: the Python behind it, which is to see the device too."""
    if operation.namespace != "liif_fast" or not any(isinstance(leaf, OnCard) for leaf in tree_leaves((args, kwargs))):
        return None
    from liif_fast import ops, resample

    work = {"decode": ops._decode, "resample": resample._resample}[operation._opname]
    return lambda: work(*args, **kwargs)


class Machine(TorchDispatchMode):
    """Operations that make tensors on the device, and our own."""

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if work := ours(operation, args, kwargs or {}):
            with self:
                return work()
        return compute(operation, args, kwargs or {})


class Capture(captured.Capture):
    compute = staticmethod(compute)

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if work := ours(operation, args, kwargs or {}):
            with self:
                return work()
        return super().__torch_dispatch__(operation, types, args, kwargs)


def launch(run: Callable[..., None], kernel: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> None:
    """`InterpretedFunction.run`."""
    for leaf in tree_leaves((args, options)):
        if isinstance(leaf, torch.Tensor) and not isinstance(leaf, OnCard):
            raise ValueError(f"Pointer argument of {kernel.__name__} cannot be accessed from Triton (cpu tensor?)")
    args, options = tree_map(held, (args, options))
    launches.append(kernel.__name__)

    def work() -> None:
        with _disable_current_modes():
            run(kernel, *args, grid=grid, warmup=warmup, **options)

    if graph := captured.thread.graph:
        graph.steps.append((work, None))
    else:
        work()


class Here(threading.local):
    """The current stream of a thread."""

    def __init__(self) -> None:
        self.stream = DEFAULT


DEFAULT = Stream()
here = Here()


@contextmanager
def current(stream: Stream) -> Iterator[None]:
    before, here.stream = here.stream, stream
    try:
        yield
    finally:
        here.stream = before


class Generator(torch.Generator):
    """Random numbers of the processor, for the device."""

    def __new__(cls, device: str | torch.device = HOST) -> Generator:
        made = super().__new__(cls, HOST)
        made.on = CARD if torch.device(device).type == "cuda" else HOST  # type: ignore[attr-defined]
        return made

    @property
    def device(self) -> torch.device:
        return self.on  # type: ignore[attr-defined]


def then_moved(make: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Of functions that put numbers of Python's on the device below all that a mode sees."""

    def made(*args: Any, device: Any = None, **how: Any) -> torch.Tensor:
        tensor = make(*args, **how)
        return tensor if device is None else tensor.to(device)

    return made


def plugged_in() -> None:
    """Has PyTorch and Triton find the device from now on, in every thread."""
    properties = SimpleNamespace(name="pretended", major=9, minor=0, multi_processor_count=3, total_memory=16 << 30)
    none = {f"{kind}_bytes": {"all": {"current": 0}} for kind in ("reserved", "allocated")}
    for name, stand_in in {
        "_lazy_init": lambda: None,
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "get_device_capability": lambda *_: (properties.major, properties.minor),
        "get_device_name": lambda *_: properties.name,
        "get_device_properties": lambda *_: properties,
        "mem_get_info": lambda *_: (8 << 30, properties.total_memory),
        "memory_stats_as_nested_dict": lambda *_: none,
        "synchronize": lambda *_: None,
        "empty_cache": lambda: None,
        "set_device": lambda _: None,
        "device": lambda _: nullcontext(),
        "Stream": Stream,
        "Event": Stream,
        "stream": current,
        "current_stream": lambda *_: here.stream,
        "CUDAGraph": captured.Graph,
        "graph": captured.capturing_in(Capture),
        "graph_pool_handle": lambda: (0, 1),
        "is_current_stream_capturing": lambda: captured.thread.graph is not None,
    }.items():
        setattr(torch.cuda, name, stand_in)
    torch.version.cuda = "13.0"
    torch.tensor, torch.as_tensor = then_moved(torch.tensor), then_moved(torch.as_tensor)
    torch.Generator = Generator  # type: ignore[misc]
    torch.autograd.set_multithreading_enabled(False)
    torch.__future__.set_swap_module_params_on_conversion(True)  # parameters become wrappers
    save = torch.save
    torch.save = lambda content, *args, **how: save(tree_map(held, content), *args, **how)

    run = InterpretedFunction.run
    for teach in (interpreted.teach_bfloat16, interpreted.teach_float8):
        teach(SimpleNamespace(setattr=setattr))  # type: ignore[arg-type]
    InterpretedFunction.run = lambda kernel, *args, **how: launch(run, kernel, *args, **how)
    from liif_fast.backends import triton

    triton._launcher_problem = lambda: None
    if COLORS in os.environ:
        from common import load_native
        from liif_fast import yuv

        colors = load_native(Path(os.environ[COLORS]), "_cuda")
        yuv._cuda = SimpleNamespace(
            ColorParams=colors.ColorParams,
            Type=colors.Type,
            to_rgb=colors.to_rgb,
            from_rgb=colors.from_rgb,
            problem=lambda: None,
        )

    Machine().__enter__()
    work = threading.Thread.run

    def run_thread(thread: threading.Thread) -> None:
        with Machine():  # modes are a thread's own
            work(thread)

    threading.Thread.run = run_thread  # type: ignore[method-assign]


plugged_in()
