"""What is written for a CUDA device, on one that is pretended: no tensor is on the wrong side, no graph asks for one.

That it works on a real one is for `make test-gpu`, part of which runs here as it is.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import test_cuda_emulated
from common import ROOT

TESTS = ROOT / "tests"
pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or torch.version.cuda is not None, reason="for Linux, where PyTorch has no CUDA of its own"
)
# Kernels are interpreted, which takes long, but for fp32, where there are none.
WHICH = {
    "normalise": "test",
    "pictures": "test",
    "stream": "fp32 and not outlive",
    "train": "graph and resample or goes_on or random",
    "triton": "whole_way_with or part_has or within_twice and (out or layout) or float8_is and 16",
    "video": "test",
}


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Of a process that has the device."""
    library, home = tmp_path_factory.mktemp("card") / "card.so", Path(torch.__file__).parent
    command = [os.environ.get("CXX", "g++"), "-std=c++20", "-shared", "-fPIC", f"-I{home}/include"]
    command += [str(TESTS / "native/card.cpp"), "-o", str(library), f"-L{home}/lib", "-lc10", "-ltorch_cpu"]
    subprocess.run(command, check=True)
    colors = test_cuda_emulated.build(library.parent, [])
    names = {"LIIF_FAST_TEST_CARD": str(library), "LIIF_FAST_TEST_COLORS": str(colors), "PYTHONPATH": str(TESTS)}
    return {**os.environ, **names}


@pytest.mark.parametrize(("file", "which"), WHICH.items(), ids=list(WHICH))
def test_the_tests_for_a_device(file: str, which: str, environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "pytest", "-p", "card", "-m", "gpu", f"tests/gpu/test_gpu_{file}.py", "-k", which]
    command += ["-o", "faulthandler_timeout=300"]  # a test that does not end says where it is
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=1200)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed
    assert int(passed[1]) >= 4
    assert "skipped" not in done.stdout


def test_the_device_is_one(environment: dict[str, str]) -> None:
    """It refuses what devices do, so that the tests above can fail, and runs the kernels."""
    code = """
import card, pytest, torch
there = torch.arange(6.0, device="cuda")
assert there.is_cuda and str(there.device) == "cuda:0"
assert torch.equal((2 * there)[1:3].cpu(), torch.tensor([2.0, 4]))
with pytest.raises(RuntimeError, match="same device"):
    there + torch.ones(6)
with pytest.raises((TypeError, RuntimeError)):
    there.numpy()
graph, one = torch.cuda.CUDAGraph(), torch.tensor([1])
for wrong in (lambda: there.sum().item(), there.cpu, lambda: there[there > 2], lambda: there[one]):
    with pytest.raises(RuntimeError, match="stream is capturing"), torch.cuda.graph(graph):
        wrong()

from common import random_weights
from liif_fast import Upscaler
from liif_fast.checkpoint import Architecture
for decoder in ("liif", "resample"):
    card.launches.clear()
    Upscaler(random_weights(Architecture(1, 16, (16,), decoder=decoder)), device="cuda")(torch.rand(3, 5, 7), scale=2)
    assert set(card.launches) == {"normalise", "finish", decoder.replace("liif", "decode")}, card.launches
"""
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
