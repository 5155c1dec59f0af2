"""A picture's samples as an encoder takes them, by Triton: interpreted against PyTorch, and compiled."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import import_module

import numpy as np
import pytest
import torch

from common import BF16, CPU, FP16, FP32, random_weights
from interpreted import Spy, interpret
from liif_fast import normalise
from liif_fast.checkpoint import Architecture
from liif_fast.encoder import Encoder
from liif_fast.image import WHITE
from liif_fast.resample import Resampler

pytest.importorskip("triton")

MEAN, STD = (0.4, 0.5, 0.6), (1.0, 0.5, 0.3)
WEIGHTS = random_weights(Architecture(1, 16, (16,), decoder="resample", mean=MEAN, std=STD))
HEAD = Resampler(WEIGHTS, CPU, FP32, "reference").head


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Spy:
    return interpret(monkeypatch, import_module("liif_fast.kernels.normalise"), "normalise")


def samples(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    generator = np.random.default_rng(0)
    if dtype in WHITE:
        return torch.from_numpy(generator.integers(0, int(WHITE[dtype]) + 1, shape)).to(dtype)
    return torch.from_numpy(generator.random(shape)).to(dtype)


@pytest.mark.parametrize("dtype", [FP16, BF16], ids=str)
@pytest.mark.parametrize("of", [torch.uint8, torch.uint16, FP16, FP32], ids=str)
@pytest.mark.parametrize("where", ["whole", "crop", "planes", "gray", "one", "turned"])
def test_has_the_bits_of_pytorch(kernel: Spy, where: str, of: torch.dtype, dtype: torch.dtype) -> None:
    image = {
        "whole": lambda: samples((19, 29, 3), of),
        "crop": lambda: samples((41, 53, 3), of)[3:31, 5:22],
        "planes": lambda: samples((3, 19, 29), of).permute(1, 2, 0),
        "gray": lambda: samples((19, 29, 1), of),
        "one": lambda: samples((1, 1, 3), of),
        "turned": lambda: samples((19, 29, 3), of).transpose(0, 1),
    }[where]()
    found = normalise.normalised(image, MEAN, STD, dtype)
    assert len(kernel.launches) == 1
    plain = Encoder(WEIGHTS, HEAD, CPU, dtype)
    plain._at_once = None
    wanted = plain._normalise(image).expand(-1, -1, 3)
    assert (found.dtype, found.shape, found.is_contiguous()) == (dtype, wanted.shape, True)
    # To bfloat16 the interpreter truncates.
    torch.testing.assert_close(found, wanted, rtol=2**-7 if dtype == BF16 else 0, atol=0)


def test_an_encoder_takes_it_where_it_runs(kernel: Spy) -> None:
    image = samples((9, 11, 3), torch.uint8)
    found = Encoder(WEIGHTS, HEAD, CPU, FP16)(image)
    assert len(kernel.launches) == 1
    exact = Encoder(WEIGHTS, HEAD, CPU, FP32)
    exact._at_once = None  # the kernel has no float32 to make
    torch.testing.assert_close(found.float(), exact(image), rtol=0.02, atol=0.02)


def test_no_card_no_kernel() -> None:
    assert not normalise.can(CPU, FP16)


COMPILE = """
import json
import triton
from compiled import usage
from liif_fast.kernels.normalise import VALUES, WARPS, normalise
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

found = {}
for capability in (80, 86, 89, 90, 100, 120):
    for kind in ("u8", "u16", "fp16", "fp32"):
        types = {name: "i64" if name.endswith("stride") or name in ("values", "columns") else "fp32"
                 for name in normalise.arg_names}
        types |= {"image": f"*{kind}", "out": "*bf16", "VALUES": "constexpr"}
        aligned = {(normalise.arg_names.index("out"),): [["tt.divisibility", 16]]}
        source = ASTSource(normalise, types, {"VALUES": VALUES}, aligned)
        made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": WARPS})
        exact = made.asm["ptx"].count("div.rn.f32")
        found[f"{capability} {kind}"] = [usage(made.asm["cubin"])["stack"], exact]
print(json.dumps(found))
"""


def test_compiles(tmp_path: object) -> None:
    """For cards that are not there: nothing spilled, divisions as exact as they were interpreted."""
    path = os.pathsep.join([os.path.dirname(__file__), *sys.path])
    env = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", COMPILE], capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout)
    assert len(found) == 24
    assert all(stack == 0 and exact >= 2 for stack, exact in found.values()), found
