"""The code for AVX-512, AMX and ARM on machines without them: intrinsics translated by SIMDe, tiles as arrays."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch

import test_convolve
import test_decode
import test_decode_int8
import test_resample
from common import BF16, CPU, FP32, Case, build_emulated, can_emulate, cases, check_case, load_native, problem, spied
from eight_bits import CASES, decoded
from liif_fast.backends import cpu
from liif_fast.ops import Decoder
from liif_fast.pixels import OUT_RANGE
from liif_fast.quantization import INT8
from liif_fast.resample import Resampler
from liif_fast.training import convolution

pytestmark = pytest.mark.skipif(can_emulate() is not None, reason=can_emulate() or "")
EMULATED = ["amx", "avx512bf16", "avx512", "neonbf16", "neon"]
PAIRED = {"avx512bf16": "avx512", "neonbf16": "neon"}  # products of pairs of bf16, and what has none


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    return load_native(build_emulated(tmp_path_factory.mktemp("emulated"), ["-O2"]))


@pytest.fixture(params=EMULATED)
def isa(request: pytest.FixtureRequest, native: ModuleType, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(cpu, "_cpu", native)
    monkeypatch.setenv(cpu.ISA_VARIABLE, request.param)
    return str(request.param)


def test_build_has_every_instruction_set(native: ModuleType) -> None:
    names = ["amx", "avx512bf16", "avx512vnni", "avx512", "avxvnni", "avx2", "neonbf16", "neon", "scalar"]
    assert native.isas() == [(name, True) for name in names]
    assert set(EMULATED) < set(names)


@pytest.mark.parametrize("case", cases(), ids=str)
def test_within_twice_the_error_of_plain_pytorch(isa: str, case: Case) -> None:
    check_case(case)


# The same demands as on the instruction sets of this machine.
test_forced_instruction_set_runs = test_decode.test_forced_instruction_set_runs
test_ties_round_to_even_and_ends_are_reached = test_decode.test_ties_round_to_even_and_ends_are_reached
test_unclamped_and_other_white = test_decode.test_unclamped_and_other_white
test_scale_and_shift_are_per_channel = test_decode.test_scale_and_shift_are_per_channel
test_same_bits_whatever_the_threads = test_decode.test_same_bits_whatever_the_threads
test_a_part_has_the_bits_of_the_whole = test_decode.test_a_part_has_the_bits_of_the_whole
test_points_equal_the_grid = test_decode.test_points_equal_the_grid
test_nothing_to_decode = test_decode.test_nothing_to_decode
test_a_pixel_is_the_same_bits_in_any_window = test_resample.test_a_pixel_is_the_same_bits_in_any_window
test_what_is_no_number_is_black_in_bytes = test_resample.test_what_is_no_number_is_black_in_bytes
test_bytes_stay_within_what_is_asked = test_resample.test_bytes_stay_within_what_is_asked
test_nothing_to_resample = test_resample.test_nothing_to_resample
test_points = test_resample.test_points
test_convolves = test_convolve.test_against_float64


@pytest.mark.parametrize("z", [FP32, BF16], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("name", cpu.VNNI_ISAS)
def test_int8(name: str, case: Case, z: torch.dtype, native: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "_cpu", native)
    monkeypatch.setenv(cpu.ISA_VARIABLE, name)
    asked = spied(monkeypatch)
    test_decode_int8.check_is_the_emulation(case, z)
    assert asked == [name]


@pytest.mark.parametrize("times", [0.0, 1e-20, 1e3, 1e12])
@pytest.mark.parametrize("name", cpu.VNNI_ISAS)
def test_int8_of_any_size(name: str, times: float, native: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "_cpu", native)
    monkeypatch.setenv(cpu.ISA_VARIABLE, name)
    test_decode_int8.check_any_size(times)


@pytest.mark.parametrize("name", EMULATED)
def test_code_without_int8_cannot_be_reached(name: str, native: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "_cpu", native)
    monkeypatch.setattr(cpu, "isa", lambda dtype=BF16: name)
    with pytest.raises(ValueError, match=f"{name} does not multiply int8"):
        decoded(Case(), INT8, "cpu", torch.empty(7, 13, 3), FP32)


@pytest.mark.parametrize("out", OUT_RANGE, ids=str)
@pytest.mark.parametrize("dtype", [FP32, BF16], ids=str)
def test_resamples(isa: str, dtype: torch.dtype, out: torch.dtype) -> None:
    test_resample.check_decoder(Resampler(test_resample.WEIGHTS, CPU, dtype, "cpu", threads=2), out)


@pytest.mark.parametrize("batch", test_convolve.BATCHES, ids=str)
def test_pictures_and_gradients(isa: str, batch: tuple[int, int, int, int, int]) -> None:
    test_convolve.check_pictures(batch, 2, FP32)
    if cpu.isa(BF16) in convolution.BF16_ISAS:
        test_convolve.check_pictures(batch, 1, BF16)


@pytest.mark.parametrize("names", PAIRED.items(), ids=str)
def test_bf16_products_are_code_of_their_own(
    names: tuple[str, str], native: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They sum in another order than widened ones; in fp32 the two are one."""
    monkeypatch.setattr(cpu, "_cpu", native)
    for dtype, same in ((FP32, True), (BF16, False)):
        results = []
        for name in names:
            monkeypatch.setenv(cpu.ISA_VARIABLE, name)
            results.append(problem(Case(hidden=(64, 64, 64), dtype=dtype)).decode("cpu", torch.empty(7, 13, 3)))
        assert torch.equal(*results) == same
        torch.testing.assert_close(*results, rtol=0, atol=0.05)


def test_best_is_chosen_by_dtype(native: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "_cpu", native)
    weights = problem(Case()).weights
    assert [Decoder(weights, CPU, dtype).description for dtype in (BF16, FP32)] == ["amx", "avx512"]
