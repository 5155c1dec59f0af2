"""Work on the threads of PyTorch's OpenMP: that it is done there, in the caller's mode, and not in forked processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from common import ROOT
from liif_fast.backends import cpu

pytestmark = pytest.mark.skipif(not cpu.isas() or not cpu._cpu.openmp(), reason="this process has no OpenMP")

START = """
import os, sys
import numpy as np, torch
from liif_fast import Upscaler, native_convolution as native
def threads(): return len(os.listdir("/proc/self/task"))
torch.set_num_threads(1)
"""


def run(code: str) -> None:
    """In an interpreter of its own, which is not waited for if it hangs."""
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, start_new_session=True) as process:
        try:
            assert process.wait(60) == 0
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def test_pictures_are_enlarged_on_its_threads() -> None:
    """They stay, where others would end with the call."""
    run(
        START
        + """
picture = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
wanted, before = Upscaler("realtime-small", threads=1)(picture, scale=2), threads()
up = Upscaler("realtime-small", threads=5)
for _ in range(3):
    assert np.array_equal(up(picture, scale=2), wanted)
    assert threads() == before + 4
"""
    )


def test_all_are_asked_whatever_there_is_to_do() -> None:
    """It would end the others, to begin them anew for the next call."""
    run(
        START
        + """
pictures, weight, bias = torch.rand(4, 64, 64, 16), torch.rand(16, 16, 3, 3), torch.zeros(16)
weight, wanted, before = native.pack_winograd(weight, torch.float32), torch.empty_like(pictures), threads()
native.convolve_pictures(pictures, weight, bias, 1, wanted)
assert threads() == before
native.convolve_pictures(pictures, weight, bias, 7, torch.empty_like(pictures))
ids = set(os.listdir("/proc/self/task"))
for count in (4, 1, 4):
    result = torch.empty_like(pictures[:count])
    native.convolve_pictures(pictures[:count], weight, bias, 7, result)
    assert torch.equal(result, wanted[:count])
    native.convolve_gradient(pictures[:count], result, 7)
    assert set(os.listdir("/proc/self/task")) == ids and len(ids) == before + 6
"""
    )


def test_denormals_are_what_the_caller_has_them_be() -> None:
    """Although its threads began with others."""
    run(
        START
        + """
torch.set_num_threads(2)
pictures, weight, bias = torch.full((4, 256, 256, 16), 1e-38), torch.full((16, 16, 3, 3), 1e-3), torch.zeros(16)
weight = native.pack_winograd(weight, torch.float32)
def result(threads):
    out = torch.empty_like(pictures)
    native.convolve_pictures(pictures, weight, bias, threads, out)
    return out
kept = result(2)
assert kept.count_nonzero()
assert torch.equal(kept, result(1))
torch.set_flush_denormal(True)
assert not result(2).view(torch.int32).count_nonzero()
torch.set_flush_denormal(False)
assert torch.equal(kept, result(2))
"""
    )


def test_training_has_no_denormals_on_any_thread() -> None:
    run(
        START
        + """
from liif_fast.training.train import _without_denormals
torch.set_num_threads(2)
small = torch.full((4_000_000,), 1e-39)
left = lambda: (small / 2).view(torch.int32).count_nonzero()
assert left() == len(small)
with _without_denormals():
    assert not left()
assert left() == len(small)
"""
    )


@pytest.mark.parametrize("known", [True, False], ids=["known before", "first seen there"])
def test_forked_processes_have_their_own(known: bool) -> None:
    """It would wait for ever for threads that are not there."""
    code = """
def check():
    from liif_fast import Upscaler
    from liif_fast.backends import cpu
    result = Upscaler("realtime-small", threads=3)(np.zeros((300, 400, 3), np.uint8), scale=2)
    return cpu._cpu.openmp(), result
known = check() if KNOWN else None
torch.set_num_threads(3)
torch.rand(1000, 1000).sum()
if child := os.fork():
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert check()[0]
    assert not known or known[0]
else:
    torch.set_num_threads(1)  # as its own operations would wait too
    shared, result = check()
    os._exit(shared or threads() != 1 or bool(known and (result != known[1]).any()))
"""
    start = START.replace("from liif_fast import Upscaler, native_convolution as native\n", "")
    run(start + code.replace("KNOWN", str(known)))
