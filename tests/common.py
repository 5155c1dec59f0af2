"""What several test files share: random networks, the tolerance rule, decoder cases, native builds."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from liif_fast import grid
from liif_fast.backends import cpu, reference
from liif_fast.checkpoint import Architecture, Weights
from liif_fast.encoder import Head
from liif_fast.grid import Axis
from liif_fast.ops import Decoder
from liif_fast.pixels import OUT_RANGE, Pixels
from liif_fast.upscaler import DECODERS

ROOT = Path(__file__).parents[1]
GOLDEN = Path(__file__).parent / "data" / "golden"
GOLDENS = ("tiny", "tiny_noensemble", "tiny_nounfold", "tiny_nocell")
CPU = torch.device("cpu")
FP32, BF16, FP16, FP64 = torch.float32, torch.bfloat16, torch.float16, torch.float64
# Of an output's type in its own units: the largest error of storing.
ROUNDING = {torch.uint8: 0.5, torch.uint16: 0.5, FP16: 2.0**-12, FP32: 0.0}


def head_of(weights: Weights) -> Head:
    return DECODERS[weights.architecture.decoder](weights, CPU, FP32, "reference").head


def random_weights(architecture: Architecture, seed: int = 0, contrast: float = 0.4) -> Weights:
    """A network whose activations keep their size from layer to layer; ``contrast`` is that of its output."""
    generator = torch.Generator().manual_seed(seed)
    last = f"imnet.layers.{2 * len(architecture.hidden_list)}.weight"
    tensors = {}
    for name, shape in architecture.shapes.items():
        fan_in = int(np.prod(shape[1:]))
        gain = 0.1 if len(shape) == 1 else contrast * fan_in**-0.5 if name == last else (2 / fan_in) ** 0.5
        tensors[name] = torch.randn(shape, generator=generator) * gain
    return Weights(architecture, tensors, name=f"random{seed}")


def supported_isas() -> list[str]:
    """Instruction sets of this build that this processor has, best first, but those for int8 alone."""
    return [name for name, supported in cpu.isas().items() if supported and name not in cpu.VNNI_ISAS]


def taken(isa: str, dtype: torch.dtype) -> str:
    """The instruction set whose code runs where ``isa`` is forced: some have products of bf16 alone."""
    return {"amx": "avx512", "avx512bf16": "avx512", "neonbf16": "neon"}.get(isa, isa) if dtype == FP32 else isa


def spied(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the instruction sets that the compiled module was asked for."""
    asked: list[str] = []

    def decode(**arguments: Any) -> None:
        asked.append(arguments["isa"])
        native.decode(**arguments)

    native = cpu._cpu
    monkeypatch.setattr(cpu, "_cpu", SimpleNamespace(**{**vars(native), "decode": decode}))
    return asked


def noise(size: int, cells: int) -> np.ndarray:
    """Outputs whose centre is that of the last cell: the published blend is a quotient of rounding errors there."""
    return np.abs((np.arange(size) + 0.5) * cells / size - 0.5 - (cells - 1)) < 1e-6


@dataclass(frozen=True)
class Case:
    """One decoding: a network, its queries and where the answers go."""

    hidden: tuple[int, ...] = (32, 48)
    dtype: torch.dtype = FP32
    size: tuple[int, int] = (7, 13)
    cells: tuple[int, int] = (5, 7)
    ensemble: bool = True
    cell: bool = True
    out: torch.dtype = FP32
    layout: str = "hwc"
    paired: bool = False
    padded: bool = False  # z is a window of a larger map
    threads: int = 2

    def __str__(self) -> str:
        changed = [(f.name, getattr(self, f.name)) for f in fields(self) if getattr(self, f.name) != f.default]
        return " ".join(f"{k}={str(v).removeprefix('torch.').replace(' ', '')}" for k, v in changed) or "plain"

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.size[0] * self.size[1],) if self.paired else self.size


def cases(dtypes: tuple[torch.dtype, ...] = (FP32, BF16)) -> list[Case]:
    """Every width, depth, flag, size, output and layout, each in every storage type."""
    every = [Case(hidden=(width, width)) for width in range(16, 257, 16)]
    every += [Case(hidden=h) for h in ((48, 256, 16), (256, 16), (16, 240, 112, 32), (80, 48, 176, 16, 208))]
    every += [Case(hidden=(32,) * depth, ensemble=e) for depth in range(1, 6) for e in (True, False)]
    every += [Case(ensemble=e, cell=c, size=(11, 17)) for e in (True, False) for c in (True, False)]
    sizes = [(1, 1), (1, 5), (7, 1), (1, 47), (6, 8), (7, 7), (97, 1), (13, 31), (83, 3)]
    every += [Case(size=size, ensemble=e) for size in sizes for e in (True, False)]
    every += [Case(size=(5, 3), cells=cells) for cells in ((1, 1), (1, 7), (3, 1))]
    every += [Case(out=o, layout=where) for o in OUT_RANGE for where in ("hwc", "chw", "window", "sparse")]
    every += [Case(out=o, layout=where, paired=True) for o in OUT_RANGE for where in ("hwc", "chw", "window", "sparse")]
    every += [Case(paired=True, ensemble=False), Case(paired=True, size=(1, 1)), Case(paired=True, size=(101, 1))]
    every += [Case(padded=True), Case(padded=True, paired=True)]
    every += [Case(threads=threads, size=(29, 37)) for threads in (1, 2, 5)]
    unique = dict.fromkeys(every)
    return [Case(**{**vars(case), "dtype": dtype}) for case in unique for dtype in dtypes]


@cache
def network(hidden: tuple[int, ...], ensemble: bool, cell: bool) -> Weights:
    # Enough contrast that some values leave [0, 1] and are clamped.
    return random_weights(Architecture(1, 2, hidden, ensemble, True, cell), seed=sum(hidden), contrast=2.0)


@dataclass(frozen=True)
class Problem:
    """The inputs of one decoding."""

    weights: Weights
    z: torch.Tensor
    y: Axis
    x: Axis
    cell: tuple[float, float]
    paired: bool

    def decode(self, backend: str, out: torch.Tensor, threads: int | None = None, **options: float) -> torch.Tensor:
        """Into ``out``, on its device."""
        on = out.device
        decoder = Decoder(self.weights, on, self.z.dtype, backend, threads)
        return decoder(moved(self.z, on), self.y.to(on), self.x.to(on), self.cell, out, paired=self.paired, **options)

    def exact(self) -> np.ndarray:
        """The decoder in float64 throughout, from the same stored z; in units of [0, 1], not clamped."""
        decoder = Decoder(self.weights, CPU, FP64, "reference")
        cell = torch.tensor(self.cell)[: decoder.first_cell.shape[1]]
        shape = (self.x.size, 3) if self.paired else (self.y.size, self.x.size, 3)
        out = torch.empty(shape, dtype=FP64)
        a = self.weights.architecture
        pixels = Pixels(out, self.paired, list(a.std), list(a.mean), -np.inf, np.inf)
        reference.decode(self.z.double(), self.y, self.x, decoder.layers, decoder.first_cell @ cell, pixels, 1)
        return out.numpy()


def moved(t: torch.Tensor, device: torch.device) -> torch.Tensor:
    """On a device, a window of a larger tensor as such."""
    if t._base is None:
        return t.to(device)
    return t._base.to(device).as_strided(t.shape, t.stride(), t.storage_offset())


def problem(case: Case, seed: int = 0) -> Problem:
    generator = torch.Generator().manual_seed(seed)
    height, width = case.cells
    shape = (height + 2, width + 3, case.hidden[0]) if case.padded else (height, width, case.hidden[0])
    z = torch.randn(shape, generator=generator).to(case.dtype)
    z = z[1 : 1 + height, 2 : 2 + width] if case.padded else z
    if case.paired:
        at = np.random.default_rng(seed).random((2, *case.shape))
        y, x = (grid.axis(p * n, n, case.ensemble) for p, n in zip(at, case.cells, strict=True))
    else:
        y, x = (
            grid.axis(grid.centres(0, n, size), n, case.ensemble) for n, size in zip(case.cells, case.size, strict=True)
        )
    cell = tuple(grid.cell(0, n, size, None) for n, size in zip(case.cells, case.size, strict=True))
    return Problem(network(case.hidden, case.ensemble, case.cell), z, y, x, (cell[0], cell[1]), case.paired)


def destination(case: Case, fill: int = 77) -> tuple[np.ndarray, np.ndarray]:
    """A buffer full of ``fill`` and the view of it that a decoder is to write."""
    kind = {torch.uint8: np.uint8, torch.uint16: np.uint16, FP16: np.float16, FP32: np.float32}[case.out]
    if case.layout == "chw":
        whole = np.full((3, *case.shape), fill, kind)
        return whole, np.moveaxis(whole, 0, -1)
    if case.layout == "window":
        whole = np.full((*(n + 5 for n in case.shape), 5), fill, kind)
        return whole, whole[(*(slice(2, 2 + n) for n in case.shape), slice(1, 4))]
    if case.layout == "sparse":
        whole = np.full((*(3 * n for n in case.shape), 6), fill, kind)
        return whole, whole[(*(slice(1, None, 3) for _ in case.shape), slice(None, None, 2))]
    whole = np.full((*case.shape, 3), fill, kind)
    return whole, whole


@cache
def plain_error(hidden: tuple[int, ...], dtype: torch.dtype, ensemble: bool, cell: bool) -> float:
    """Largest error of plain PyTorch in ``dtype`` over a fair number of pixels: one pixel may be right by luck."""
    posed = problem(Case(hidden=hidden, dtype=dtype, size=(23, 29), ensemble=ensemble, cell=cell), seed=1)
    out = posed.decode("reference", torch.empty(23, 29, 3), peak=np.inf)
    return float(np.abs(out.numpy() - posed.exact()).max())


def view_on(device: torch.device, whole: np.ndarray, view: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """``whole`` on a device, shared with the array if that is the processor, and the same ``view`` of it."""
    there = torch.from_numpy(whole).to(device)
    start = view.__array_interface__["data"][0] - whole.__array_interface__["data"][0]
    strides = [stride // whole.itemsize for stride in view.strides]
    return there, there.as_strided(view.shape, strides, start // whole.itemsize)


def check_case(case: Case, backend: str = "cpu", device: torch.device = CPU) -> None:
    """A backend's decoder against float64: at most twice plain PyTorch's error, and no byte beside its own."""
    posed = problem(case)
    exact = posed.exact()
    plain = posed.decode("reference", torch.empty(exact.shape), peak=np.inf).numpy()
    allowed = 2 * max(
        plain_error(case.hidden, case.dtype, case.ensemble, case.cell), float(np.abs(plain - exact).max())
    )
    assert 0 < allowed < (1e-5 if case.dtype == FP32 else 0.1), f"the measure itself is of no use: {allowed}"
    whole, view = destination(case)
    there, target = view_on(device, whole, view)
    posed.decode(backend, target, case.threads)
    whole[...] = there.cpu().numpy()
    white = OUT_RANGE[case.out]
    rounding = ROUNDING[case.out]
    error = float(np.abs(view.astype(np.float64) - exact.clip(0, 1) * white).max())
    assert error <= rounding + white * (allowed + 2**-23)  # and one step of float32
    view[...] = 77
    assert (whole == 77).all(), "wrote outside its output"


X86 = ("AVX2", "AVXVNNI", "AVX512", "AVX512VNNI", "AVX512BF16", "AMX")


def can_emulate() -> str | None:
    """Why the native sources cannot be compiled and run here with AVX2 and all else emulated, None if they can."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return f"the sources are for x86-64, not {platform.machine()}"
    if not cpu.isas().get("avx2"):
        return "no AVX2"
    return None if shutil.which(os.environ.get("CXX", "g++")) else "no C++ compiler"


def build_emulated(folder: Path, flags: list[str]) -> Path:
    """csrc/cpu with AVX-512 and NEON translated by SIMDe, AMX and products of bf16 by plain C++, as a module `_cpu`.

    Its C++ types are its own. Returns its file.
    """
    import pybind11
    import simde_py

    compiler = os.environ.get("CXX", "g++")
    includes = [pybind11.get_include(), sysconfig.get_paths()["include"], simde_py.get_include(), ROOT / "tests/native"]
    common = [
        "-std=c++17",
        "-fPIC",
        "-g0",
        "-fvisibility=hidden",
        "-w",
        "-Wno-psabi",
        *(f"-I{path}" for path in includes),
    ]
    # A namespace of its own: pybind11 knows types by name across all modules of a process.
    common += ["-Dliif=liif_emulated", "-DLIIF_EMULATED", *flags]
    common += [f"-DLIIF_HAVE_{isa}" for isa in (*X86, "NEON", "NEONBF16")]

    def run(*arguments: object) -> None:
        done = subprocess.run([compiler, *map(str, arguments)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[:4000]

    def compiled(source: Path) -> Path:
        target = folder / f"{source.stem}.o"
        vectors = ["-mavx2", "-mfma"] if re.search("_(avx|amx)", source.stem) else []
        run(*common, *vectors, "-c", source, "-o", target)
        return target

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        # The longest first.
        sources = sorted((ROOT / "csrc/cpu").glob("*.cpp"), key=lambda path: path.stem != "bindings")
        objects = list(pool.map(compiled, sources))
    module = folder / "_cpu.so"
    run("-shared", "-pthread", *flags, *objects, "-o", module)
    return module


def load_native(path: Path, name: str = "_cpu") -> ModuleType:
    """A compiled module, without a place in sys.modules."""
    from importlib.machinery import ExtensionFileLoader
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location(name, path, loader=ExtensionFileLoader(name, str(path)))
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
