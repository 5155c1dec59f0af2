"""Convolutions at work at once: the order of their tasks, what threads hand over, and the bits of one after another."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from common import BF16, FP32, ROOT, supported_isas
from liif_fast import native_convolution
from liif_fast.backends import cpu
from liif_fast.native_convolution import step

COMPILER = os.environ.get("CXX", "g++")
PROGRAM = ROOT / "tests/native/chain.cpp"


@pytest.mark.skipif(not shutil.which(COMPILER), reason="no C++ compiler")
@pytest.mark.parametrize("by", ["its own", "its own, watched", "OpenMP"])
def test_what_a_task_reads_was_written(by: str, tmp_path: Path) -> None:
    """Of chains large and small, of direct convolutions and those by tiles."""
    watched, program = by.endswith("watched"), tmp_path / "chain"
    command = [COMPILER, "-std=c++17", "-O1", f"-I{ROOT / 'csrc'}", str(PROGRAM), "-pthread", "-o", str(program)]
    command += ["-fsanitize=thread"] if watched else ["-Wl,--no-as-needed", "-fopenmp"] if by == "OpenMP" else []
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if built.returncode and ("tsan" in built.stderr or "omp" in built.stderr):
        pytest.skip("this compiler has no ThreadSanitizer, or not GNU's OpenMP")
    assert built.returncode == 0, built.stderr
    done = subprocess.run([str(program)], capture_output=True, text=True, check=False, timeout=300)
    if watched and "unexpected memory mapping" in done.stderr:
        pytest.skip("this ThreadSanitizer does not run on this kernel")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert done.stdout.startswith(f"threads of {by.removesuffix(', watched')}\n")
    lines = [line for line in done.stdout.splitlines() if line.startswith("270 x 480")]
    early = [
        int(re.search(r"(\d+) early, 0 wrong$", line)[1])
        for line in lines
        if "1 convolutions" not in line and "windows" not in line
    ]
    # Those behind begin long before the first has ended.
    assert len(early) == 36
    assert min(early) > 200


def random(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    return (torch.randn(shape) / 4).to(dtype)


@pytest.mark.parametrize("dtype", [FP32, BF16], ids=str)
@pytest.mark.parametrize("isa", supported_isas())
def test_same_bits_as_one_after_another(isa: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cpu.ISA_VARIABLE, isa)
    torch.manual_seed(0)
    for height, width, channels in ((1, 1, 16), (5, 7, 32), (64, 130, 16), (97, 13, 64), (61, 201, 32), (9, 1201, 32)):
        weights = [random(channels, channels, 3, 3, dtype=FP32) for _ in range(9)]
        by = [native_convolution.pack(w, torch.randn(channels), dtype) for w in weights]
        by[0] = native_convolution.pack(random(channels, 4, 3, 3, dtype=FP32), torch.randn(channels), dtype)
        by[5] = native_convolution.pack(random(channels, channels, 1, 1, dtype=FP32), torch.randn(channels), dtype)
        image = random(height + 2, width + 2, 4, dtype=dtype)
        results = []
        for threads in (0, 1, 3, 8):
            a, b = (torch.zeros(height + 2, width + 2, channels, dtype=dtype) for _ in range(2))
            inside = [p[1:-1, 1:-1] for p in (a, b)]
            steps = [step(image, by[0], inside[0])]
            for i in range(1, 9):
                out = inside[i % 2]
                steps.append(step((b, a)[i % 2], by[i], out, relu=i % 3 == 0, add=out if i % 2 == 0 else None))
            for some in [steps] if threads else [[one] for one in steps]:
                native_convolution.convolve(some, threads or 1)
            results.append(a)
        assert results[0].isfinite().all()
        assert all(torch.equal(results[0], other) for other in results[1:])


def test_of_one_picture() -> None:
    by = native_convolution.pack(torch.zeros(16, 16, 3, 3), torch.zeros(16), FP32)
    steps = [step(torch.zeros(n + 2, 6, 16), by, torch.zeros(n, 4, 16)) for n in (3, 4)]
    with pytest.raises(ValueError, match="a chain of convolutions is of one picture"):
        native_convolution.convolve(steps, 1)
