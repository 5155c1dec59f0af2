"""LIIF's hidden layers in int8 on processors: every instruction set against the emulation in PyTorch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from common import BF16, CPU, FP32, ROUNDING, Case, destination, problem, random_weights, spied
from eight_bits import CASES, decoded, measured
from liif_fast import BackendUnavailable, Upscaler
from liif_fast.backends import cpu
from liif_fast.checkpoint import Architecture
from liif_fast.ops import Decoder
from liif_fast.pixels import OUT_RANGE
from liif_fast.quantization import INT8
from liif_fast.upscaler import find_precision

ISAS = [name for name in cpu.INT8_ISAS if cpu.isas().get(name)]


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(cpu.ISA_VARIABLE, request.param)
    return str(request.param)


def check_is_the_emulation(case: Case, z: torch.dtype) -> None:
    """Whole sums are exact, so only a first layer's value at the edge of a rounding can fall to the other side."""
    whole, view = destination(case)
    expected = decoded(case, INT8, "reference", torch.empty(view.shape), z).double().numpy()
    decoded(case, INT8, "cpu", torch.from_numpy(view), z)
    white, step = OUT_RANGE[case.out], ROUNDING[case.out]
    error = np.abs(view.astype(np.float64) / white - expected)
    assert error.max() <= 0.02 + step / white
    assert np.median(error) <= 1e-6 + step / white
    view[...] = 77
    assert (whole == 77).all(), "wrote outside its output"


@pytest.mark.parametrize("z", [FP32, BF16], ids=str)
@pytest.mark.parametrize("case", [*CASES, *(Case(threads=n, size=(29, 37)) for n in (1, 5))], ids=str)
def test_is_the_emulation(isa: str, case: Case, z: torch.dtype) -> None:
    check_is_the_emulation(case, z)


def check_any_size(times: float) -> None:
    """Activations of ``times`` what was measured are rounded as finely as others, by their own largest."""
    posed = problem(Case(hidden=(64, 64, 32)))
    decoder, emulation = (Decoder(measured(posed.weights), CPU, INT8.dtype, name) for name in ("cpu", "reference"))
    decoder.dtype = emulation.dtype = FP32
    found, expected = (
        each(posed.z * times, posed.y, posed.x, posed.cell, torch.empty(7, 13, 3), peak=float("inf"))
        for each in (decoder, emulation)
    )
    assert torch.isfinite(found).all()
    error = (found - expected).abs() / max(1.0, times)
    assert error.median() < 1e-6
    assert error.max() < 0.05


@pytest.mark.parametrize("times", [0.0, 1e-20, 1e3, 1e12])
def test_activations_of_any_size(isa: str, times: float) -> None:
    check_any_size(times)


def test_forced_instruction_set_runs(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = spied(monkeypatch)
    decoded(Case(), INT8, "cpu", torch.empty(7, 13, 3), FP32)
    assert asked == [isa]
    assert Decoder(measured(problem(Case()).weights), CPU, INT8.dtype, "cpu").description == isa


def test_a_part_has_the_bits_of_the_whole(isa: str) -> None:
    posed = problem(Case(hidden=(64, 64), size=(13, 31)))
    decoder = Decoder(measured(posed.weights), CPU, INT8.dtype, "cpu")
    decoder.dtype = FP32
    whole = decoder(posed.z, posed.y, posed.x, posed.cell, torch.empty(13, 31, 3))
    part = decoder(posed.z, posed.y.part(3, 12), posed.x.part(5, 24), posed.cell, torch.empty(9, 19, 3))
    assert torch.equal(whole[3:12, 5:24], part)


@pytest.mark.skipif(len(ISAS) < 3, reason="one instruction set for int8")
def test_instruction_sets_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the same whole sums, not only nearly."""
    results = []
    for name in ISAS[:-1]:
        monkeypatch.setenv(cpu.ISA_VARIABLE, name)
        results.append(decoded(Case(hidden=(64, 64, 64)), INT8, "cpu", torch.empty(7, 13, 3), FP32))
    for other in results[1:]:
        assert (other - results[0]).abs().median() < 1e-7


@pytest.mark.skipif("avx2" not in ISAS, reason="no AVX2")
def test_layers_packed_for_another_instruction_set_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """AVX2 has its weights in 16 bits."""
    posed = problem(Case())
    for before, after in (("avx2", "scalar"), ("scalar", "avx2")):
        monkeypatch.setenv(cpu.ISA_VARIABLE, before)
        decoder = Decoder(measured(posed.weights), CPU, INT8.dtype, "cpu")
        decoder.dtype = FP32
        monkeypatch.setenv(cpu.ISA_VARIABLE, after)
        with pytest.raises(
            ValueError, match=rf"packed as torch\.int\d+, {after} takes torch\.int\d+: make the decoder anew"
        ):
            decoder(posed.z, posed.y, posed.x, posed.cell, torch.empty(7, 13, 3))


def test_auto_takes_it_where_it_is_the_fastest(monkeypatch: pytest.MonkeyPatch) -> None:
    every = ("amx", "avx512bf16", "avx512vnni", "avx512", "avxvnni", "avx2", "scalar")
    for names, expected in (
        (every, "bf16"),
        (every[1:], "int8"),
        (("avx512vnni", "avx512", "avx2", "scalar"), "int8"),
        (("avxvnni", "avx2", "scalar"), "int8"),
        (("avx2", "scalar"), "int8"),
        (("avx512", "avx2", "scalar"), "fp32"),
        (("neon", "scalar"), "fp32"),
        (("scalar",), "fp32"),
    ):
        monkeypatch.setattr(cpu, "isas", lambda names=names: dict.fromkeys(names, True))
        monkeypatch.setattr(cpu._cpu, "is_intel", lambda: False)
        assert find_precision("auto", CPU, int8=True) == expected
        assert find_precision("auto", CPU) == ("bf16" if "avx512bf16" in names else "fp32")


@pytest.mark.skipif(not cpu.prefers_int8(), reason="another precision is faster here")
def test_upscaler_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """By itself, for a model that was measured."""
    asked = spied(monkeypatch)
    up = Upscaler("edsr-baseline-2", device="cpu")
    assert f"int8, cpu ({cpu.isa(INT8.dtype)})" in up.description
    assert up.decoder.dtype == up.encoder.dtype == FP32, "bf16 there would lose more than int8 does"
    up(np.zeros((8, 8, 3), np.uint8), scale=2)
    assert asked == [cpu.isa(INT8.dtype)]
    assert Upscaler("edsr-baseline-2", device="cpu", backend="reference").precision != "int8"
    narrow = measured(random_weights(Architecture(1, 8, (64, 32))))
    assert Upscaler(narrow, device="cpu").precision != "int8"
    bare = replace(up.weights, quantized={})
    assert Upscaler(bare, device="cpu").precision != "int8"


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = random_weights(Architecture(1, 2, (32, 32)))
    with pytest.raises(ValueError, match="random0 was not measured for int8: `liif-fast calibrate MODEL"):
        Upscaler(weights, device="cpu", precision="int8")
    with pytest.raises(ValueError, match="realtime resamples, without hidden layers to run in int8"):
        Upscaler("realtime", device="cpu", precision="int8")
    monkeypatch.setattr(cpu, "isas", lambda: {"neon": True, "scalar": True})
    with pytest.raises(
        BackendUnavailable, match=f"int8 wants AVX2, .*none of which runs here .{cpu.ISA_VARIABLE}=scalar"
    ):
        Upscaler(measured(weights), device="cpu", precision="int8")
