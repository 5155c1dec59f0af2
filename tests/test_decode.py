"""ops.decode and its backends: every instruction set against float64, and every refusal."""

from __future__ import annotations

import platform
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from common import (
    BF16,
    CPU,
    FP32,
    FP64,
    Case,
    cases,
    check_case,
    destination,
    problem,
    random_weights,
    spied,
    supported_isas,
    taken,
)
from liif_fast import backends
from liif_fast.backends import BackendUnavailable, cpu, reference, select
from liif_fast.checkpoint import Architecture
from liif_fast.ops import Decoder
from liif_fast.upscaler import find_precision

ISAS = supported_isas()


@pytest.mark.parametrize("case", cases(), ids=str)
def test_within_twice_the_error_of_plain_pytorch(isa: str, case: Case) -> None:
    check_case(case)


@pytest.mark.parametrize("dtype", [FP32, BF16])
def test_forced_instruction_set_runs(isa: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = spied(monkeypatch)
    posed = problem(Case(dtype=dtype))
    posed.decode("cpu", torch.empty(7, 13, 3))
    assert asked == [taken(isa, dtype)]
    assert Decoder(posed.weights, CPU, dtype, "cpu").description == taken(isa, dtype)


@pytest.mark.skipif("avx2" not in ISAS, reason="no AVX2")
def test_instruction_sets_are_different_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only AVX2 fuses its products, so the last bits tell the two apart."""
    results = []
    for name in ("avx2", "scalar"):
        monkeypatch.setenv(cpu.ISA_VARIABLE, name)
        results.append(problem(Case(hidden=(64, 64, 64))).decode("cpu", torch.empty(7, 13, 3)))
    assert not torch.equal(*results)
    torch.testing.assert_close(*results, rtol=0, atol=1e-5)


def test_best_instruction_set_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = spied(monkeypatch)
    problem(Case(dtype=BF16)).decode("auto", torch.empty(7, 13, 3))
    assert asked == ISAS[:1]
    assert list(cpu.isas())[-1] == "scalar"


@pytest.mark.parametrize("dtype", [FP32, BF16])
def test_auto_takes_the_compiled_backend(dtype: torch.dtype) -> None:
    assert select("auto", CPU, dtype) == "cpu"


def test_auto_precision(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Intel's AVX-512-BF16 is slower than float32, AMX and AMD's are not."""
    for intel in (True, False):
        monkeypatch.setattr(cpu._cpu, "is_intel", lambda intel=intel: intel)
        fast = isa == "amx" or (isa == "avx512bf16" and not intel)
        assert find_precision("auto", CPU) == ("bf16" if fast else "fp32")


@pytest.mark.skipif(platform.system() != "Linux", reason="no /proc/cpuinfo")
def test_maker_of_the_processor() -> None:
    assert cpu._cpu.is_intel() == ("GenuineIntel" in Path("/proc/cpuinfo").read_text())


@pytest.mark.parametrize("name", ["avx513", "AVX2", "scalar ", *(n for n, has in cpu.isas().items() if not has)])
def test_instruction_set_that_cannot_run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    posed = problem(Case())
    decoder = Decoder(posed.weights, CPU, FP32, "cpu")
    monkeypatch.setenv(cpu.ISA_VARIABLE, name)
    with pytest.raises(BackendUnavailable, match=f"{cpu.ISA_VARIABLE}={name} cannot run here.*scalar"):
        Decoder(posed.weights, CPU, FP32, "cpu")
    with pytest.raises(ValueError, match="cannot run here"):
        decoder(posed.z, posed.y, posed.x, posed.cell, torch.empty(7, 13, 3))


@pytest.mark.parametrize("name", ["avx513", *(n for n, has in cpu.isas().items() if not has)])
def test_compiled_module_itself_refuses(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Code of an instruction set that the processor lacks must not be reachable at all."""
    monkeypatch.setattr(cpu, "isa", lambda dtype: name)
    with pytest.raises(ValueError, match=name):
        problem(Case()).decode("cpu", torch.empty(7, 13, 3))


def test_backends_and_their_reasons(monkeypatch: pytest.MonkeyPatch) -> None:
    needs = "it needs a CUDA device, not cpu"
    assert backends.reasons_against(CPU, FP32) == {"cpu": None, "triton": needs, "reference": None}
    with pytest.raises(BackendUnavailable, match=r"it takes float32, bfloat16 and, .*int8, not torch.float64"):
        select("cpu", CPU, FP64)
    with pytest.raises(BackendUnavailable, match="on processors, not on cuda"):
        select("cpu", torch.device("cuda"), FP32)
    with pytest.raises(ValueError, match="one of auto, cpu, triton, reference; got 'gpu'"):
        select("gpu", CPU, FP32)
    assert select("auto", CPU, FP64) == "reference"
    monkeypatch.setattr(cpu, "_missing", "the compiled module is missing (x)")
    with pytest.warns(UserWarning, match="plain PyTorch decodes"):
        assert select("auto", CPU, FP32) == "reference"
    with pytest.raises(BackendUnavailable, match="compiled module is missing"):
        select("cpu", CPU, FP32)
    assert cpu.isas() == {}


def test_ties_round_to_even_and_ends_are_reached(isa: str) -> None:
    """Values exactly between two integers, below, at and above the ends."""
    for dtype, values, expected in (
        (torch.uint8, (0.5, 1.5, 2.5), (0, 2, 2)),
        (torch.uint8, (253.5, 254.5, 254.501), (254, 254, 255)),
        (torch.uint8, (-7.0, 255.49, 300.0), (0, 255, 255)),
        (torch.uint16, (0.5, 32768.5, 32769.5), (0, 32768, 32770)),
        (torch.uint16, (-1e9, 65534.5, 1e9), (0, 65534, 65535)),
        (torch.float32, (-1.0, 0.5, 65536.0), (0, 0.5, 65535)),
    ):
        for case in (Case(size=(1, 1)), Case(size=(7, 13), dtype=BF16)):
            posed = problem(case)
            decoder = Decoder(posed.weights, CPU, case.dtype, "cpu")
            decoder.layers[2] = torch.zeros_like(
                decoder.layers[2]
            )  # the last layer says nothing; its bias alone speaks
            decoder.layers[3] = torch.tensor(values)
            out = torch.empty(*case.size, 3, dtype=dtype)
            tables = [[a.index, a.offset, a.weight] for a in (posed.y, posed.x)]
            high = 255.0 if dtype == torch.uint8 else 65535.0
            torch.ops.liif_fast.decode(
                posed.z, *tables, False, decoder.layers, torch.zeros(32), [1.0] * 3, [0.0] * 3, 0.0, high, "cpu", 1, out
            )
            assert (out.numpy() == np.array(expected)).all(), (dtype, values)


def test_unclamped_and_other_white(isa: str) -> None:
    posed = problem(Case(hidden=(64, 64), size=(23, 29), cells=(11, 13)))
    exact = posed.exact()
    assert exact.min() < 0 < 1 < exact.max()
    free = posed.decode("cpu", torch.empty(23, 29, 3), peak=np.inf).numpy()
    np.testing.assert_allclose(free, exact, rtol=0, atol=1e-5)
    ten = posed.decode("cpu", torch.empty(23, 29, 3), peak=10).numpy()
    np.testing.assert_allclose(ten, exact.clip(0, 1) * 10, rtol=0, atol=1e-4)


def test_scale_and_shift_are_per_channel(isa: str) -> None:
    architecture = Architecture(1, 2, (32, 32), mean=(0.1, 0.5, 0.7), std=(1.0, 0.5, 0.25))
    posed = replace(problem(Case(hidden=(32, 32))), weights=random_weights(architecture))
    out = posed.decode("cpu", torch.empty(7, 13, 3), peak=np.inf).numpy()
    np.testing.assert_allclose(out, posed.exact(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [FP32, BF16])
def test_same_bits_whatever_the_threads(isa: str, dtype: torch.dtype) -> None:
    posed = problem(Case(dtype=dtype, hidden=(48, 64), size=(61, 67)))
    one, *others = (posed.decode("cpu", torch.empty(61, 67, 3), threads) for threads in (1, 2, 3, 5, 16, 1))
    assert all(torch.equal(one, other) for other in others)


def test_a_part_has_the_bits_of_the_whole(isa: str) -> None:
    """A pixel's value does not depend on which others are decoded with it."""
    posed = problem(Case(size=(13, 31)))
    whole = posed.decode("cpu", torch.empty(13, 31, 3))
    part = replace(posed, y=posed.y.part(3, 12), x=posed.x.part(5, 24)).decode("cpu", torch.empty(9, 19, 3))
    assert torch.equal(whole[3:12, 5:24], part)


def test_points_equal_the_grid(isa: str) -> None:
    posed = problem(Case(size=(5, 9)))
    whole = posed.decode("cpu", torch.empty(5, 9, 3))
    row, column = torch.meshgrid(torch.arange(5), torch.arange(9), indexing="ij")
    y, x = (
        type(a)(a.index[:, i].contiguous(), a.offset[:, i].contiguous(), a.weight[:, i].contiguous())
        for a, i in ((posed.y, row.flatten()), (posed.x, column.flatten()))
    )
    points = replace(posed, y=y, x=x, paired=True).decode("cpu", torch.empty(45, 3))
    assert torch.equal(whole.view(45, 3), points)


def test_nothing_to_decode(isa: str) -> None:
    posed = problem(Case())
    empty = replace(posed, y=posed.y.part(2, 2))
    assert empty.decode("cpu", torch.empty(0, 13, 3)).shape == (0, 13, 3)
    empty = replace(posed, x=posed.x.part(2, 2))
    assert empty.decode("cpu", torch.empty(7, 0, 3)).shape == (7, 0, 3)
    none = replace(posed, y=posed.y.part(0, 0), x=posed.x.part(0, 0), paired=True)
    assert none.decode("cpu", torch.empty(0, 3)).shape == (0, 3)


def test_from_several_python_threads_at_once(isa: str) -> None:
    several = [Case(size=(31 + i, 37), hidden=(32, 32 + 16 * i), dtype=(FP32, BF16)[i % 2]) for i in range(6)]
    expected = [problem(case).decode("cpu", torch.empty(*case.size, 3), 1) for case in several]
    with ThreadPoolExecutor(6) as pool:
        for _ in range(3):
            got = pool.map(lambda case: problem(case).decode("cpu", torch.empty(*case.size, 3), 2), several)
            assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def test_other_python_threads_run_meanwhile() -> None:
    """The interpreter lock is free while native code works."""
    posed = problem(Case(hidden=(256, 256, 256), size=(1, 1)))
    ticks: list[float] = []
    stop = threading.Event()

    def tick() -> None:
        while not stop.wait(0.001):
            ticks.append(time.perf_counter())

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        pixels, inside, elapsed = 2000, 0, 0.0
        while elapsed < 0.2:  # long enough to be sure on any machine
            pixels *= 2
            y = problem(Case(size=(1, pixels), hidden=(256, 256, 256)))
            out = torch.empty(1, pixels, 3)
            decoder = Decoder(posed.weights, CPU, FP32, "cpu", 1)
            start = time.perf_counter()
            decoder(y.z, y.y, y.x, y.cell, out)
            elapsed = time.perf_counter() - start
            inside = sum(start < t < start + elapsed for t in list(ticks))
    finally:
        stop.set()
        thread.join()
    assert inside > 5, f"{inside} ticks in {elapsed:.2f} s"


def test_halves_beyond_their_range_are_infinite(isa: str) -> None:
    posed = problem(Case())
    found = posed.decode("cpu", torch.empty(7, 13, 3, dtype=torch.float16), peak=1e5)
    wanted = posed.decode("cpu", torch.empty(7, 13, 3), peak=1e5).half()
    assert wanted.isinf().any()
    assert wanted.isfinite().any()
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("dtype", [FP32, BF16])
def test_reference_backend_in_pieces(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    for case in (Case(dtype=dtype, size=(11, 17)), Case(dtype=dtype, paired=True, layout="chw")):
        posed = problem(case)
        _, whole = destination(case)
        posed.decode("reference", torch.from_numpy(whole))
        monkeypatch.setattr(reference, "CHUNK", 10)
        _, pieces = destination(case)
        posed.decode("reference", torch.from_numpy(pieces))
        np.testing.assert_allclose(pieces, whole, rtol=0, atol=1e-6 if dtype == FP32 else 1e-2)
        monkeypatch.undo()


def test_flops_per_pixel() -> None:
    weights = random_weights(Architecture(1, 2, (32, 48, 16)))
    decoder = Decoder(weights, CPU, FP32)
    assert decoder.flops_per_pixel == 2 * 4 * (32 * 48 + 48 * 16)
    alone = Decoder(random_weights(Architecture(1, 2, (32, 48, 16), local_ensemble=False)), CPU, FP32)
    assert alone.flops_per_pixel == decoder.flops_per_pixel // 4
