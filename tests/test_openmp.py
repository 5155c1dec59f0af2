"""Work on the threads of PyTorch's OpenMP: that it is done there, in the caller's mode, and not in forked processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
import torch

from common import ROOT
from liif_fast.backends import cpu

shared = sys.platform == "linux" and torch.backends.openmp.is_available() and cpu.isas()
pytestmark = pytest.mark.skipif(not shared, reason="not Linux, or PyTorch or this package without native threads")

START = """
import os, sys, time
import numpy as np, torch
from liif_fast import Upscaler, native_convolution as native, yuv
from liif_fast.backends import cpu
def threads(): return set(os.listdir("/proc/self/task"))
picture = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
assert cpu.on_pytorchs_threads()
"""


def run(code: str) -> None:
    """In an interpreter of its own, which is not waited for if it hangs."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_"))}
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True) as process:
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
torch.set_num_threads(1)
up = Upscaler("realtime-small")
wanted, before = up(picture, scale=2), threads()
torch.set_num_threads(5)
assert np.array_equal(up(picture, scale=2), wanted)
kept = threads()
assert len(kept) == len(before) + 4
for _ in range(3):
    assert np.array_equal(up(picture, scale=2), wanted)
    assert threads() == kept
"""
    )


def test_all_are_asked_whatever_there_is_to_do() -> None:
    """It would end the others, to begin them anew for the next call; nor are they asked by who wants more or fewer."""
    run(
        START
        + """
torch.set_num_threads(7)
pictures, weight, bias = torch.rand(4, 64, 64, 16), torch.rand(16, 16, 3, 3), torch.zeros(16)
weight, wanted = native.pack_winograd(weight, torch.float32), torch.empty_like(pictures)
native.convolve_pictures(pictures, weight, bias, 1, wanted)
native.convolve_pictures(pictures, weight, bias, 7, torch.empty_like(pictures))
kept = threads()
assert len(kept) >= 7
for count, asked in ((4, 7), (1, 7), (4, 7), (4, 3), (4, 9), (4, 7)):
    result = torch.empty_like(pictures[:count])
    native.convolve_pictures(pictures[:count], weight, bias, asked, result)
    assert torch.equal(result, wanted[:count])
    native.convolve_gradient(pictures[:count], result, asked)
    assert kept <= threads()
end = time.monotonic() + 10
while threads() != kept:  # one that has ended is seen for a moment
    assert time.monotonic() < end
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
assert (pictures / 2).view(torch.int32).count_nonzero() == pictures.numel()  # PyTorch's, in a mode of their own again
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


FORK = """
def check():
    from liif_fast import Upscaler
    from liif_fast.backends import cpu
    result = Upscaler("realtime-small", threads=3)(picture, scale=2)
    return cpu.on_pytorchs_threads(), result
torch.set_num_threads(3)
known = check() if KNOWN else None
torch.rand(1000, 1000).sum()
if child := os.fork():
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    shared, result = check()
    assert shared
    assert not known or known[0] and np.array_equal(known[1], result)
else:
    if not KNOWN:
        torch.set_num_threads(1)  # as its own operations would wait, too
    before = threads()
    shared, result = check()
    end = time.monotonic() + 10
    while threads() != before and time.monotonic() < end: pass
    os._exit(shared or threads() != before or bool(known and not np.array_equal(known[1], result)))
"""


@pytest.mark.parametrize("known", [True, False], ids=["known before", "first seen there"])
def test_forked_processes_have_their_own(known: bool) -> None:
    """It would wait for ever for threads that are not there."""
    lines = START.splitlines(keepends=True)
    start = "".join(line for line in lines if known or not ("liif_fast" in line or "cpu" in line))
    run(start + FORK.replace("KNOWN", str(known)))


def test_pytorch_works_in_forks_of_what_has_converted_colours_only() -> None:
    run(
        START
        + """
torch.set_num_threads(3)
yuv.to_rgb(yuv.from_rgb(torch.zeros(3, 720, 1280), "yuv420p"), "yuv420p")
if child := os.fork():
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
else:
    torch.rand(1000, 1000).sum()
    os._exit(0)
"""
    )
