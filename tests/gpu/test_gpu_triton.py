"""The Triton kernels, compiled and on a device: `make test-gpu`."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from common import BF16, CPU, FP16, Case, cases, check_case, problem, random_weights
from eight_bits import CASES as FP8_CASES
from eight_bits import decoded
from liif_fast import Upscaler
from liif_fast.architecture import FACTOR
from liif_fast.backends import select
from liif_fast.checkpoint import Architecture
from liif_fast.pixels import OUT_RANGE
from liif_fast.quantization import FP8
from liif_fast.resample import Resampler
from test_resample import LONG, SMALL, WEIGHTS, table

CARD = torch.device("cuda", 0)
# Every few cases compile for seconds, so one type for most: what differs is only its rounding.
CASES = [case for case in cases((FP16,)) if case.threads == 2]
CASES += [replace(case, dtype=BF16) for case in CASES[::6]]
compiled = torch.cuda.is_available() and os.environ["TRITON_INTERPRET"] != "1"
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not compiled, reason="for a CUDA device; `make test-gpu`")]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIIF_FAST_CACHE", str(tmp_path))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_within_twice_the_error_of_plain_pytorch(case: Case) -> None:
    check_case(case, "triton", CARD)


@pytest.mark.parametrize("dtype", [FP16, BF16], ids=str)
@pytest.mark.parametrize("hidden", [(256,) * 4, (256, 256), (128,) * 3], ids=str)
def test_large(hidden: tuple[int, ...], dtype: torch.dtype) -> None:
    """Enough rows to be tuned: every candidate runs, the fastest stays."""
    check_case(Case(hidden=hidden, dtype=dtype, cells=(67, 71), size=(269, 283)), "triton", CARD)


def test_auto_takes_it() -> None:
    for dtype in (FP16, BF16):
        assert select("auto", CARD, dtype) == "triton"
    up = Upscaler("edsr-baseline", device="cuda")
    assert ", fp16, triton (Triton " in up.description
    picture = np.random.default_rng(0).random((37, 41, 3)).astype(np.float32)
    exact = Upscaler("edsr-baseline", device="cpu", precision="fp32")(picture, scale=3.7)
    assert -10 * np.log10(np.mean((up(picture, scale=3.7) - exact) ** 2)) > 60


@pytest.mark.parametrize("dtype", [FP16, BF16], ids=str)
def test_a_part_has_the_bits_of_the_whole(dtype: torch.dtype) -> None:
    posed = problem(Case(hidden=(256, 256), size=(13, 31), dtype=dtype))
    whole = posed.decode("triton", torch.empty(13, 31, 3, device=CARD))
    part = replace(posed, y=posed.y.part(3, 12), x=posed.x.part(5, 24))
    assert torch.equal(whole[3:12, 5:24], part.decode("triton", torch.empty(9, 19, 3, device=CARD)))


float8 = pytest.mark.skipif(compiled and torch.cuda.get_device_capability() < (8, 9), reason="no float8 here")


@float8
@pytest.mark.parametrize("case", FP8_CASES, ids=str)
def test_float8_is_its_emulation(case: Case) -> None:
    expected = decoded(case, FP8, "reference", torch.empty(*case.shape, 3))
    found = decoded(case, FP8, "triton", torch.empty(*case.shape, 3, device=CARD)).cpu()
    # Sums in another order, and in fewer bits on Hopper and Ada, move a value across a rounding now and then: the more
    # layers and queries there are, the further one of them. With 13 bits the largest here would be 0.045.
    assert (found - expected).abs().max() <= 0.1
    assert (found - expected).square().mean().sqrt() <= 5e-3


@float8
@pytest.mark.parametrize("hidden", [(256,) * 4, (256, 256), (128,) * 3], ids=str)
def test_float8_large(hidden: tuple[int, ...]) -> None:
    """Enough rows to be tuned, and more blocks than there are multiprocessors."""
    test_float8_is_its_emulation(Case(hidden=hidden, cells=(67, 71), size=(269, 283)))


@float8
def test_float8_whole_way() -> None:
    up = Upscaler("edsr-baseline", device="cuda", precision="fp8")
    assert ", fp8, triton (Triton " in up.description
    assert up.decoder.layers[3].dtype == torch.float8_e4m3fn
    assert up.encoder.dtype == FP16
    picture = np.random.default_rng(0).random((37, 41, 3)).astype(np.float32)
    exact = Upscaler("edsr-baseline", device="cpu", precision="fp32")(picture, scale=3.7)
    assert -10 * np.log10(np.mean((up(picture, scale=3.7) - exact) ** 2)) > 45


@pytest.mark.parametrize("out_dtype", OUT_RANGE, ids=str)
@pytest.mark.parametrize("dtype", [FP16, BF16], ids=str)
def test_resamples(dtype: torch.dtype, out_dtype: torch.dtype) -> None:
    ours, plain = Resampler(WEIGHTS, CARD, dtype, "triton"), Resampler(WEIGHTS, CPU, dtype, "reference")
    for cells, size in (*SMALL, *LONG):
        z = (torch.randn(*cells, 3 * FACTOR**2) * 0.6).to(dtype)
        y, x = (table(n, c) for n, c in zip(size, cells, strict=True))
        wanted = plain(z, y, x, (0.5, 0.5), torch.empty(*size, 3).to(out_dtype))
        found = ours(z.to(CARD), y.to(CARD), x.to(CARD), (0.5, 0.5), torch.empty_like(wanted, device=CARD))
        white = OUT_RANGE[out_dtype]
        # A value between two that the type has may fall to either side.
        step = {FP16: 2**-11, torch.float32: 0}.get(out_dtype, 1)
        assert (found.cpu().double() - wanted.double()).abs().max() <= step + white * 3e-6


def test_whole_way_with_the_resampler() -> None:
    weights = random_weights(Architecture(1, 16, (16,), decoder="resample"), seed=2)
    picture = np.random.default_rng(0).integers(0, 256, (33, 47, 3), np.uint8)
    found = Upscaler(weights, device="cuda")(picture, size=(101, 203))
    exact = Upscaler(weights, device="cpu", precision="fp32")(picture, size=(101, 203))
    assert np.abs(found.astype(int) - exact).max() <= 3
