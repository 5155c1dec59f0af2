"""The Triton decoder, interpreted, against float64; tests/gpu/ holds the same on a device."""

from __future__ import annotations

import subprocess
import sys
import warnings
from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest
import torch

from common import BF16, CPU, FP16, FP32, Case, cases, check_case, problem, random_weights
from interpreted import Spy, interpret
from liif_fast.backends import BackendUnavailable, select
from liif_fast.backends import triton as backend
from liif_fast.checkpoint import Architecture
from liif_fast.kernels.configs import Config
from liif_fast.ops import Decoder
from liif_fast.pixels import Pixels
from liif_fast.upscaler import find_precision

pytest.importorskip("triton")
kernels = import_module("liif_fast.kernels.decode")

# The interpreter takes a second where a card takes a microsecond, so not all widths.
SMALL = [case for case in cases((FP16,)) if np.prod(case.size) < 1000 and sum(case.hidden) % 80 in (0, 16, 64)]
# What differs is only the type's rounding.
BRAIN = [replace(case, dtype=BF16) for case in SMALL[::6]]


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Spy:
    return interpret(monkeypatch, kernels, "decode")


@pytest.mark.parametrize("case", [*SMALL, *BRAIN], ids=str)
def test_within_twice_the_error_of_plain_pytorch(kernel: Spy, case: Case) -> None:
    check_case(case, "triton")
    assert kernel.launches, "another backend answered"


@pytest.mark.parametrize("scale", [1, 2, 3, 3.7, 17])
@pytest.mark.parametrize("cells", [(1, 1), (2, 1)])
def test_scales(kernel: Spy, scale: float, cells: tuple[int, int]) -> None:
    size = (round(cells[0] * scale), round(cells[1] * scale))
    check_case(Case(dtype=FP16, hidden=(32, 32), cells=cells, size=size), "triton")


def test_paper(kernel: Spy) -> None:
    check_case(Case(dtype=FP16, hidden=(256,) * 4, size=(3, 5)), "triton")
    assert kernel.launches[-1]["WIDTHS"] == (256,) * 4


@pytest.mark.parametrize("depth", range(1, 7))
def test_pairs_of_layers(kernel: Spy, depth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two chunks of each layer, and either or both of a pair at the end."""
    monkeypatch.setattr("liif_fast.kernels.configs.candidates", lambda *_: [Config(32, 32, 4, 32, stages=2)])
    check_case(Case(dtype=FP16, hidden=(64,) * depth, size=(3, 5)), "triton")
    assert kernel.launches[-1]["WIDE"] == 32


def test_ties_round_to_even_and_ends_are_reached(kernel: Spy) -> None:
    """Values exactly between two integers, below, at and above the ends."""
    posed = problem(Case(size=(3, 5), dtype=FP16))
    for dtype, values, expected in (
        (torch.uint8, (0.5, 1.5, 254.5), (0, 2, 254)),
        (torch.uint8, (-7.0, 255.49, 300.0), (0, 255, 255)),
        (torch.uint16, (0.5, 32769.5, 65534.5), (0, 32770, 65534)),
        (torch.uint16, (-1e9, 65535.4, 1e9), (0, 65535, 65535)),
        (FP32, (-1.0, 0.5, 65536.0), (0, 0.5, 65535)),
    ):
        decoder = Decoder(posed.weights, CPU, FP16, "triton")
        decoder.layers[1] = torch.zeros_like(decoder.layers[1])  # the last layer says nothing; its bias alone speaks
        decoder.layers[2] = torch.tensor(values)
        out = torch.empty(3, 5, 3, dtype=dtype)
        tables = [[a.index, a.offset, a.weight] for a in (posed.y, posed.x)]
        white = 255.0 if dtype == torch.uint8 else 65535.0
        ends = ([1.0] * 3, [0.0] * 3, 0.0, white)
        torch.ops.liif_fast.decode(posed.z, *tables, False, decoder.layers, torch.zeros(32), *ends, "triton", 1, out)
        assert (out.numpy() == np.array(expected)).all(), (dtype, values)


def test_stores_half_floats(kernel: Spy) -> None:
    """The kernel's own face; the operator has no such output yet."""
    posed = problem(Case(size=(3, 5), dtype=FP16))
    decoder = Decoder(posed.weights, CPU, FP16, "triton")
    cell = decoder.first_cell @ torch.tensor(posed.cell)
    found, wanted = torch.empty(3, 5, 3, dtype=FP16), torch.empty(3, 5, 3)
    for out in (found, wanted):
        pixels = Pixels(out, False, [1.0] * 3, [0.0] * 3, 0, 1)
        backend.decode(posed.z, posed.y, posed.x, decoder.layers, cell, pixels, 1)
    assert torch.equal(found, wanted.half())


def test_scale_and_shift_are_per_channel(kernel: Spy) -> None:
    architecture = Architecture(1, 2, (32, 32), mean=(0.1, 0.5, 0.7), std=(1.0, 0.5, 0.25))
    posed = replace(problem(Case(hidden=(32, 32), size=(3, 7), dtype=FP16)), weights=random_weights(architecture))
    out = posed.decode("triton", torch.empty(3, 7, 3), peak=np.inf).numpy()
    np.testing.assert_allclose(out, posed.exact(), rtol=0, atol=5e-3)


def test_a_part_is_that_of_the_whole(kernel: Spy) -> None:
    posed = problem(Case(size=(7, 11), dtype=FP16))
    whole = posed.decode("triton", torch.empty(7, 11, 3))
    part = replace(posed, y=posed.y.part(3, 6), x=posed.x.part(5, 10)).decode("triton", torch.empty(3, 5, 3))
    # NumPy's product of half floats depends on a row's place; a card's does not, see tests/gpu.
    torch.testing.assert_close(whole[3:6, 5:10], part, atol=2e-3, rtol=0)


def test_nothing_to_decode(kernel: Spy) -> None:
    posed = problem(Case(dtype=FP16))
    assert replace(posed, y=posed.y.part(2, 2)).decode("triton", torch.empty(0, 13, 3)).shape == (0, 13, 3)
    assert not kernel.launches


@pytest.mark.parametrize("bad", ["unpacked", "other type", "missing", "narrow"])
def test_layers_of_another_network_are_refused(kernel: Spy, bad: str) -> None:
    posed = problem(Case(dtype=FP16))
    decoder = Decoder(posed.weights, CPU, FP16, "triton")
    packed = decoder.layers
    decoder.layers = {
        "unpacked": Decoder(posed.weights, CPU, FP16, "reference").layers,
        "other type": Decoder(posed.weights, CPU, BF16, "triton").layers,
        "missing": packed[:-1],
        "narrow": [*packed[:-1], packed[-1][:16].contiguous()],
    }[bad]
    with pytest.raises(ValueError, match="not those packed for"):
        decoder(posed.z, posed.y, posed.x, posed.cell, torch.empty(7, 13, 3))
    assert not kernel.launches


def test_reasons(monkeypatch: pytest.MonkeyPatch) -> None:
    card = torch.device("cuda")
    assert backend.unavailable(CPU, FP16) == "it needs a CUDA device, not cpu"
    assert "float16 or bfloat16, not torch.float32" in (backend.unavailable(card, FP32) or "")
    with pytest.raises(BackendUnavailable, match=r"backend 'triton' cannot run on cpu.*it needs a CUDA device"):
        select("triton", CPU, FP16)
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "finds no CUDA device" in (backend.unavailable(card, FP16) or "")
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert backend.unavailable(card, FP16) == "compute capability 7.5 is too low, 8.0 is needed"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (12, 0))
    if not torch.cuda.device_count():  # Triton asks the driver, which is not there
        assert "triton cannot compile its launchers" in str(backend.unavailable(card, BF16))
    monkeypatch.setattr(backend, "_launcher_problem", lambda: None)
    assert backend.unavailable(card, BF16) is None
    assert select("auto", card, BF16) == "triton"
    assert find_precision("auto", card) == "fp16"
    with monkeypatch.context() as bare:
        bare.setenv("PATH", "")
        bare.delenv("CC", raising=False)
        assert "needs a C compiler" in (backend.unavailable(card, FP16) or "")
        with pytest.warns(UserWarning, match="decodes, in fp32, which is slow: triton needs a C compiler"):
            assert find_precision("auto", card) == "fp32"
        with pytest.warns(UserWarning, match="decodes, which is slow: triton needs a C compiler"):
            assert select("auto", card, FP16) == "reference"
    monkeypatch.setattr("triton.__version__", "3.3.1")
    assert "triton 3.3.1 is too old, 3.5 is needed" in (backend.unavailable(card, FP16) or "")
    monkeypatch.setitem(sys.modules, "triton", None)
    assert "triton cannot be imported" in (backend.unavailable(card, FP16) or "")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert select("auto", card, FP32) == "reference"  # as was asked for


def test_triton_is_imported_for_cards_only() -> None:
    code = (
        "import sys, torch; before = 'triton' in sys.modules; import liif_fast.upscaler as u;"
        "u.find_precision('auto', torch.device('cpu')); assert before == ('triton' in sys.modules);"
        "assert not any(name.startswith('liif_fast.kernels') for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_works_without_triton() -> None:
    code = (
        "import sys; sys.modules['triton'] = None; import torch; from liif_fast.backends import reasons_against;"
        "assert reasons_against(torch.device('cpu'), torch.float32)['cpu'] is None"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
