"""The float8 decoder, interpreted, against the emulation of its rounding in PyTorch; tests/gpu/ runs it on a device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest
import torch

from common import CPU, FP16, FP32, ROUNDING, Case, destination, problem, random_weights
from eight_bits import CASES, decoded, measured
from interpreted import Spy, interpret
from liif_fast import BackendUnavailable, Upscaler
from liif_fast.backends import select
from liif_fast.backends import triton as backend
from liif_fast.checkpoint import Architecture
from liif_fast.kernels.configs import FP8_TABLE, Config, candidates, padded
from liif_fast.ops import Decoder
from liif_fast.pixels import OUT_RANGE
from liif_fast.quantization import FP8, _rounded

pytest.importorskip("triton")
kernels = import_module("liif_fast.kernels.decode_fp8")


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Spy:
    return interpret(monkeypatch, kernels, "decode_fp8")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_is_its_emulation(kernel: Spy, case: Case) -> None:
    whole, view = destination(case)
    expected = decoded(case, FP8, "reference", torch.empty(view.shape)).double().numpy()
    decoded(case, FP8, "triton", torch.from_numpy(view))
    assert kernel.launches, "another backend answered"
    white, step = OUT_RANGE[case.out], ROUNDING[case.out]
    error = np.abs(view.astype(np.float64) / white - expected)
    # Only where sums in another order fall to either side of a rounding do they differ, by a step of e4m3 of one input.
    assert error.max() <= 0.03 + step / white
    assert np.median(error) <= 1e-3 + step / white
    view[...] = 77
    assert (whole == 77).all(), "wrote outside its output"


@pytest.mark.parametrize("config", [Config(32, 32, 4, 32, 1), Config(64, 32, 4, 64, 1), Config(64, 32, 4, 64)], ids=str)
def test_every_cut_is_the_same(kernel: Spy, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Resident weights, and programs that work on several blocks."""
    case = Case(hidden=(64, 64, 128), size=(7, 13))
    expected = decoded(case, FP8, "reference", torch.empty(7, 13, 3))
    monkeypatch.setattr("liif_fast.kernels.configs.candidates", lambda *_: [config])
    found = decoded(case, FP8, "triton", torch.empty(7, 13, 3))
    assert kernel.launches[-1]["RESIDENT"] == config.resident
    assert (found - expected).abs().median() < 1e-3
    assert (found - expected).abs().max() < 0.03


def test_rounding_is_what_it_costs() -> None:
    """The emulation rounds: near the exact answer, and not there."""
    case = Case(hidden=(64, 64, 64), size=(13, 31))
    found = decoded(case, FP8, "reference", torch.empty(13, 31, 3))
    exact = problem(replace(case, dtype=FP32)).decode("reference", torch.empty(13, 31, 3))
    error = float((found - exact).square().mean().sqrt())
    assert 1e-4 < error < 0.05


def test_layout() -> None:
    """Inputs of each 16 in the order in which the kernel has its activations."""
    weights = measured(random_weights(Architecture(1, 2, (48, 32))))
    layers = Decoder(weights, CPU, FP8.dtype, "reference").layers
    packed = backend.pack(layers, FP8.dtype)
    assert [tuple(t.shape) for t in packed] == [(16, 64), (32, 16), (3,), (32, 64), (2, 32)]
    assert packed[3].dtype == FP8.dtype
    order = [8 * high + 2 * four + low for four in range(4) for high in range(2) for low in range(2)]
    columns = torch.tensor([16 * group + i for group in range(3) for i in order])
    assert torch.equal(packed[3].float()[:, :48], layers[4].float()[:, columns])
    assert not packed[3].float()[:, 48:].any()


def test_quantize() -> None:
    values = torch.tensor([-5e3, -4.0, 0.0, 1.0625, 1.1875, 17.0, 440.0, 448.0, 500.0, 1e9])
    assert FP8.quantize(values).tolist() == [-4, -4, 0, 1, 1.25, 16, 448, 448, 448, 448]
    assert FP8.quantize_weight(values).float().tolist() == [-448, -4, 0, 1, 1.25, 16, 448, 448, 448, 448]


def test_rounds_for_the_outputs() -> None:
    """Inputs that vary together: the nearest weights are not those with the nearest outputs."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(500, 4, generator=generator) @ torch.randn(4, 64, generator=generator)
    weight = torch.randn(32, 64, generator=generator) * 100
    found = _rounded(FP8, weight, x).float()
    near = FP8.quantize_weight(weight).float()
    assert (x @ (found - weight).T).square().mean() < 0.5 * (x @ (near - weight).T).square().mean()


@pytest.mark.parametrize("bad", ["z", "unpacked", "missing", "halves"])
def test_layers_of_another_network_are_refused(kernel: Spy, bad: str) -> None:
    posed = problem(Case(dtype=FP16, hidden=(32, 48, 32)))
    decoder = Decoder(measured(posed.weights), CPU, FP8.dtype, "triton")
    z = posed.z
    if bad == "z":
        z, decoder.dtype = z.bfloat16(), torch.bfloat16
    elif bad == "unpacked":
        decoder.layers = Decoder(measured(posed.weights), CPU, FP8.dtype, "reference").layers
    elif bad == "missing":
        decoder.layers = decoder.layers[:-1]
    else:
        decoder.layers = [*decoder.layers[:3], decoder.layers[3].half(), *decoder.layers[4:]]
    with pytest.raises(ValueError, match="not those packed for"):
        decoder(z, posed.y, posed.x, posed.cell, torch.empty(7, 13, 3))
    assert not kernel.launches


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = random_weights(Architecture(1, 2, (32, 32)))
    for network, backend_name, error, text in (
        (
            measured(weights),
            "auto",
            BackendUnavailable,
            "fp8 is for CUDA devices, not cpu: .* by backend='reference'",
        ),
        (measured(weights), "cpu", BackendUnavailable, "hidden layers, int8, not torch.float8_e4m3fn"),
        (weights, "reference", ValueError, "`liif-fast calibrate MODEL OUTPUT --data FOLDER`"),
        (random_weights(Architecture(1, 2, (32,))), "reference", ValueError, "no hidden layers to run in fp8"),
        (random_weights(Architecture(1, 16, (16,), decoder="resample")), "reference", ValueError, "without hidden"),
    ):
        with pytest.raises(error, match=text) as caught:
            Upscaler(network, device="cpu", precision="fp8", backend=backend_name)
        assert "\n" not in str(caught.value)
    card = torch.device("cuda")
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("CC", "cc")
    monkeypatch.setattr(backend, "_launcher_problem", lambda: None)
    reasons: Callable[[], str | None] = lambda: backend.unavailable(card, FP8.dtype)  # noqa: E731
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 6))
    assert reasons() == "compute capability 8.6 is too low for float8, 8.9 is needed"
    assert backend.unavailable(card, FP16) is None
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 9))
    assert reasons() is None
    assert select("auto", card, FP8.dtype) == "triton"


def test_configurations_fit() -> None:
    for capability in (89, 90, 103, 120):
        for widths in ((32, 32), (64, 32, 96), (256,) * 4, (256,) * 9, (96, 256, 32)):
            found = candidates(capability, [padded(w) for w in widths], float8=True)
            assert found
            for config in found:
                assert all(width % config.wide == 0 for width in widths[1:])
                assert not config.resident or (capability < 100 and sum(w * w for w in widths[1:]) < 227 << 10)
    assert candidates(90, (256,) * 4, float8=True)[0].resident
    assert not any(config.resident for (least, _), row in FP8_TABLE.items() for config in row if least != 90)
