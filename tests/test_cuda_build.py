"""The CUDA code as it is built: for every device we name, without spills, on its own feet. Needs nvcc, and no GPU."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from common import ROOT
from liif_fast import yuv

NVCC = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
CAPABILITIES = ("80", "86", "89", "90", "120")
# As many threads of a block as fit; more registers a thread would leave the device without enough loads on their way.
REGISTERS = 64

needs_nvcc = pytest.mark.skipif(NVCC is None, reason="there is no nvcc")
spec = find_spec("liif_fast._cuda")
needs_module = pytest.mark.skipif(spec is None, reason="this build has no CUDA code")


def sources_flags() -> list[str]:
    """Those of setup.py that decide about code."""
    text = (ROOT / "setup.py").read_text()
    found = re.search(r"^NVCC_FLAGS = \[(.*)\]$", text, re.MULTILINE)
    assert found
    flags = re.findall(r'"([^"]+)"', found[1])
    return [flag for flag in flags if flag.startswith(("-std", "-O", "--fmad"))]


@needs_nvcc
@pytest.mark.slow
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_no_kernel_spills(capability: str, tmp_path: Path) -> None:
    assert NVCC
    known = subprocess.run([NVCC, "--list-gpu-code"], capture_output=True, text=True, check=True).stdout.split()
    if f"sm_{capability}" not in known:
        pytest.skip(f"this nvcc does not know sm_{capability}")
    source = ROOT / "csrc/cuda/colors.cu"
    command = [NVCC, *sources_flags(), f"-arch=sm_{capability}", "--resource-usage", "-Werror=all-warnings"]
    done = subprocess.run(
        [*command, "-cubin", "-o", tmp_path / "colors.cubin", source], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    kernels = re.findall(r"Compiling entry function '(\w+)'", done.stderr)
    # Both ways, two kinds of samples, five kinds of numbers.
    assert len(set(kernels)) == 20
    stacks = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", done.stderr)
    assert len(stacks) == 20
    assert set(stacks) == {("0", "0", "0")}
    registers = [int(count) for count in re.findall(r"Used (\d+) registers", done.stderr)]
    assert len(registers) == 20
    assert max(registers) <= REGISTERS


@needs_nvcc
def test_products_are_not_fused() -> None:
    """On which it rests that all implementations give the same bits."""
    assert "--fmad=false" in sources_flags()


def build(folder: Path, nvcc: str, asked: str | None) -> subprocess.CompletedProcess[str]:
    """setup.py's own way for the CUDA extension alone, where ``nvcc`` is a script that says and does this."""
    script = folder / "nvcc"
    script.write_text(f"#!/bin/sh\n{nvcc}\n")
    script.chmod(0o755)
    code = """
import setuptools
real = setuptools.setup
setuptools.setup = lambda **k: real(**{**k, "ext_modules": [e for e in k["ext_modules"] if e.name.endswith("_cuda")]})
exec(compile(open("setup.py").read(), "setup.py", "exec"))
"""
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
    environment.pop("LIIF_FAST_CUDA", None)
    environment |= {} if asked is None else {"LIIF_FAST_CUDA": asked}
    command = [sys.executable, "-c", code, "-q", "build_ext", "-b", str(folder / "lib"), "-t", str(folder / "tmp")]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("nvcc", ["echo sm_52", "exit 3", '[ "$1" = --list-gpu-code ] && echo sm_90 || exit 1'])
def test_an_nvcc_that_cannot_is_in_nobody_s_way(nvcc: str, tmp_path: Path) -> None:
    done = build(tmp_path, nvcc, None)
    assert done.returncode == 0, done.stderr
    assert 'building extension "liif_fast._cuda" failed' in done.stderr + done.stdout
    assert build(tmp_path, nvcc, "1").returncode != 0


@needs_module
@pytest.mark.skipif(shutil.which("readelf") is None, reason="there is no readelf")
def test_the_module_needs_neither_cuda_nor_torch() -> None:
    assert spec
    assert spec.origin
    needed = subprocess.run(["readelf", "-d", spec.origin], capture_output=True, text=True, check=True).stdout
    libraries = re.findall(r"\(NEEDED\).*\[(.*)\]", needed)
    assert libraries
    assert not [name for name in libraries if re.search("cuda|torch|c10|nv", name)]
    # CUDA's runtime is inside and hidden, so that no other one in the process can take its place.
    symbols = subprocess.run(["readelf", "--dyn-syms", "-W", spec.origin], capture_output=True, text=True, check=True)
    names = [line.split()[-1] for line in symbols.stdout.splitlines() if re.match(r"\s*\d+:", line)]
    assert "PyInit__cuda" in names
    assert not [name for name in names if name.startswith(("cuda", "__cuda"))]


@needs_module
def test_without_a_device_only_use_is_an_error() -> None:
    code = """
from liif_fast import _cuda
params = _cuda.ColorParams(
    size=(1, 1), y=(0, 1, 1), u=(0, 1, 1), v=(0, 1, 1), sample=_cuda.Type.u8, unused=0, between=(True, False), rgb=0,
    rgb_type=_cuda.Type.u8, rgb_strides=(3, 3, 1), zero=[0.0] * 3, by=[[0.0] * 3] * 3, shift=[0.0] * 3, low=[0.0] * 3,
    high=[1.0] * 3,
)
print("imported")
print(f"CUDA: {_cuda.problem()}")
for way in (_cuda.to_rgb, _cuda.from_rgb):
    try:
        way(params, device=0, stream=0)
    except RuntimeError as error:
        print(error)
"""
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=hidden)
    assert re.fullmatch(r"imported\n(CUDA: .+ \(cudaError\w+\)\n){3}", done.stdout), done.stdout


def test_a_build_without_nvcc_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yuv, "_cuda", None)
    assert "nvcc" in str(yuv.unavailable(torch.device("cuda")))
    old = SimpleNamespace(problem=lambda: "driver version is insufficient (cudaErrorInsufficientDriver)")
    monkeypatch.setattr(yuv, "_cuda", old)
    assert "cannot run: driver version is insufficient" in str(yuv.unavailable(torch.device("cuda")))
    assert yuv.unavailable(torch.device("cpu")) is None


@pytest.mark.parametrize(("asked", "code"), [("0", 0), ("", 0), ("1", 1)])
def test_setup_without_nvcc(asked: str, code: int) -> None:
    """Left out with a word, or an error where it was asked for; `setup.py --name` builds nothing."""
    script = (
        "import shutil, sys; shutil.which = lambda *a, **k: None; sys.argv = ['setup.py', '--name']; "
        "exec(compile(open('setup.py').read(), 'setup.py', 'exec'))"
    )
    environment = {**os.environ, "LIIF_FAST_CUDA": asked}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=ROOT, env=environment
    )
    assert done.returncode == code, done.stderr
    assert ("no nvcc" in done.stderr) == (asked != "0")
