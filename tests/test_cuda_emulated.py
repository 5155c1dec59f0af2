"""The CUDA kernels without a GPU: their source as C++, thread after thread, gives the bits of the processor's code."""

from __future__ import annotations

import os
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from common import ROOT, can_emulate, load_native
from liif_fast import yuv
from test_colors import BITS, FLOATS, SITED, SIZES, WHITE, planes_of, random_samples, rgb_buffer
from test_sanitizers import SANITIZERS, drive, libasan

pytestmark = pytest.mark.skipif(can_emulate() is not None, reason=can_emulate() or "")
# Whole and broken quads of columns, several blocks.
LARGE = [*SIZES, (2, 8), (18, 136), (9, 130)]


def build(folder: Path, flags: list[str]) -> Path:
    """csrc/cuda as a module `_cuda` whose C++ types are its own; returns its file."""
    import pybind11

    includes = [ROOT / "tests/native/cuda", pybind11.get_include(), sysconfig.get_paths()["include"]]
    cuda = ["-D__CUDACC__", "-D__CUDA_ARCH__=900", "-D__host__=", "-D__device__=", "-Dliif=liif_emulated_cuda"]
    module = folder / "_cuda.so"
    command = [
        os.environ.get("CXX", "g++"), "-std=c++17", "-O1", "-fPIC", "-g0", "-shared", "-fvisibility=hidden", "-w",
        *flags, *cuda, *(f"-I{path}" for path in includes),
        str(ROOT / "csrc/cuda/bindings.cpp"), "-x", "c++", str(ROOT / "csrc/cuda/colors.cu"), "-o", str(module),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:4000]
    return module


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_native(build(tmp_path_factory.mktemp("cuda"), []), "_cuda")


@pytest.fixture
def emulated(native: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Makes `yuv` take the kernels for tensors of the processor; the names of what has run."""
    ran: list[str] = []

    def way(name: str) -> Any:
        def run(params: Any, **_: Any) -> None:
            ran.append(name)
            getattr(native, name)(params, device=0, stream=0)

        return run

    names = ("to_rgb", "from_rgb")
    fake = SimpleNamespace(ColorParams=native.ColorParams, Type=native.Type, **{name: way(name) for name in names})
    monkeypatch.setattr(yuv, "_cuda", fake)
    return ran


def on_cuda(monkeypatch: pytest.MonkeyPatch, work: Callable[..., Any], *arguments: Any, **how: Any) -> Any:
    with monkeypatch.context() as patch:
        patch.setattr(yuv, "_cpu", yuv._cuda)
        return work(*arguments, **how)


@pytest.mark.parametrize("siting", SITED)
@pytest.mark.parametrize("format", BITS)
def test_bits_of_the_processor(format: str, siting: str, emulated: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    how: dict[str, Any] = {"siting": siting, "matrix": "bt2020"}
    for size in LARGE:
        padded = planes_of(random_samples(size, format), format)
        for planes in (padded, [plane.contiguous() for plane in padded]):
            for dtype in (*FLOATS, *WHITE):
                wanted = yuv.to_rgb(planes, format, dtype=dtype, **how)
                back = yuv.from_rgb(wanted, format, **how)
                pixels = torch.empty(*size, 3, dtype=dtype).permute(2, 0, 1)
                for view in (torch.empty_like(wanted), pixels, *(rgb_buffer(size, dtype, p)[1] for p in (False, True))):
                    made = on_cuda(monkeypatch, yuv.to_rgb, planes, format, out=view, **how)
                    assert torch.equal(made, wanted)
                    out = [torch.zeros_like(plane) for plane in planes]
                    found = on_cuda(monkeypatch, yuv.from_rgb, view, format, out=out, **how)
                    assert all(torch.equal(a, b) for a, b in zip(found, back, strict=True))
    assert set(emulated) == {"to_rgb", "from_rgb"}


def test_clamps_and_normalises(emulated: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    planes = planes_of(random_samples((6, 10), "nv12"), "nv12")
    odd = torch.tensor([float("nan"), float("inf"), -float("inf"), -1, 2, 0.5, 0, 1]).expand(3, 6, 8).contiguous()
    for dtype in FLOATS:
        how: dict[str, Any] = {"scale": (2, 2, -2), "shift": (-1, -1, 1), "dtype": dtype}
        made = on_cuda(monkeypatch, yuv.to_rgb, planes, "nv12", **how)
        assert torch.equal(made, yuv.to_rgb(planes, "nv12", **how))
        found = on_cuda(monkeypatch, yuv.from_rgb, odd.to(dtype), "p010le")
        assert all(torch.equal(a, b) for a, b in zip(found, yuv.from_rgb(odd.to(dtype), "p010le"), strict=True))
    assert len(emulated) == 6


def test_errors_have_cudas_words(native: Any) -> None:
    numbers: dict[str, Any] = dict.fromkeys(("zero", "shift", "low", "high"), [0.0] * 3)
    params = native.ColorParams(
        size=(1, 1), y=(0, 1, 1), u=(0, 1, 1), v=(0, 1, 1), sample=native.Type.u8, unused=0, between=(True, False),
        rgb=0, rgb_type=native.Type.u8, rgb_strides=(3, 3, 1), by=[[0.0] * 3] * 3, **numbers,
    )  # fmt: skip
    with pytest.raises(RuntimeError, match=r"CUDA: invalid device ordinal \(cudaErrorInvalidDevice\)"):
        native.to_rgb(params, device=1, stream=0)


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not Path(libasan()).is_file():
        pytest.skip("this compiler has no AddressSanitizer")
    return build(tmp_path_factory.mktemp("sanitized"), SANITIZERS)


def test_no_byte_beside_the_buffers_is_used(sanitized: Path) -> None:
    done = drive(sanitized)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "Sanitizer" not in done.stderr
    assert "runtime error" not in done.stderr
    assert done.stdout.split() == ["decoded", "with", "cuda"]


@pytest.mark.parametrize("buffer", ["luma", "cb", "cr", "rgb"])
def test_a_buffer_that_is_too_short_is_reported(sanitized: Path, buffer: str) -> None:
    done = drive(sanitized, buffer)
    assert done.returncode != 0
    assert "ERROR: AddressSanitizer" in done.stderr, done.stderr[-2000:]
