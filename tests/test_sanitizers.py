"""The native code under AddressSanitizer and UndefinedBehaviorSanitizer: no byte beside its buffers is used."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from common import build_emulated, can_emulate

pytestmark = pytest.mark.skipif(can_emulate() is not None, reason=can_emulate() or "")
DRIVER = Path(__file__).parent / "native/sanitized_driver.py"
SANITIZERS = ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"]
BUFFERS = (
    "z", "index", "offset", "share", "weight", "multiplier", "bias", "first", "by_y", "by_x", "last", "last_bias",
    "out", "fine", "line", "taps", "resampled", "image", "skip", "kernel", "winograd", "winograd_skip", "shift",
    "convolved", "samples", "normalised", "pictures", "gradient", "luma", "cb", "cr", "rgb",
)  # fmt: skip


def libasan() -> str:
    compiler = os.environ.get("CXX", "g++")
    done = subprocess.run([compiler, "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not Path(libasan()).is_file():
        pytest.skip("this compiler has no AddressSanitizer")
    return build_emulated(tmp_path_factory.mktemp("sanitized"), SANITIZERS)


def drive(module: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "LD_PRELOAD": libasan(),
        "ASAN_OPTIONS": "detect_leaks=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "PYTHONMALLOC": "malloc",
    }
    command = [sys.executable, str(DRIVER), str(module), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)


def test_nothing_is_reported(module: Path) -> None:
    done = drive(module)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "Sanitizer" not in done.stderr
    assert "runtime error" not in done.stderr
    names = [line.split()[-1] for line in done.stdout.splitlines()]
    assert names == ["amx", "avx512bf16", "avx512vnni", "avx512", "avxvnni", "avx2", "neonbf16", "neon", "scalar"]


@pytest.mark.parametrize("buffer", BUFFERS)
def test_a_buffer_that_is_too_short_is_reported(module: Path, buffer: str) -> None:
    """The test above can fail: one element less of any buffer is seen."""
    done = drive(module, buffer)
    assert done.returncode != 0
    assert "ERROR: AddressSanitizer" in done.stderr, done.stderr[-2000:]
