"""What happens around an engine on a pretended GPU: choice and reasons, building, cache, check."""

from __future__ import annotations

import pickle
import subprocess
import sys
import types
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from common import BF16, CPU, FP32, random_weights
from liif_fast import BackendUnavailable, Upscaler, engines, trt_engine, trt_network
from liif_fast.checkpoint import Architecture, load
from liif_fast.encoder import Encoder
from liif_fast.trt_engine import FLAVOURS, LEAST_PSNR, TensorRTEncoder, check
from pretended import HEAD, RTX, WEIGHTS, encoder, kept, needs_rtx, pretend

CUDA = torch.device("cuda")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> types.SimpleNamespace:
    return pretend(monkeypatch, tmp_path)


@needs_rtx
def test_built_once_checked_and_found_again(machine: types.SimpleNamespace) -> None:
    first = encoder()
    assert (machine.built, machine.runs) == (1, [(61, 83)])  # the check
    assert kept(machine).name == f"{trt_engine.network_of(WEIGHTS, HEAD)}-tensorrt_rtx-bfloat16-SM89.engine"
    header = kept(machine).read_bytes().partition(b"\n")[0].decode()
    assert f'"version": "{FLAVOURS[RTX].trt.__version__}"' in header
    assert '"problem": null' in header
    second = encoder()
    assert (machine.built, machine.runs) == (1, [(61, 83)])  # checked once only
    image = torch.rand(13, 17, 3)
    expected = Encoder(WEIGHTS, HEAD, CPU, BF16)(image)
    for one in (first, second):
        assert torch.equal(one(image), expected)
        assert torch.equal(one(image[::2, 1:]), Encoder(WEIGHTS, HEAD, CPU, BF16)(image[::2, 1:]))
    assert set(machine.strategies) == {("USER_MANAGED", "NONE")}


@needs_rtx
def test_who_waits_for_minutes_is_told(machine: types.SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder()
    # In its place, as it is not here.
    monkeypatch.setitem(FLAVOURS, "tensorrt", FLAVOURS[RTX])
    monkeypatch.setattr(trt_engine, "build", lambda *_: b"vtrt")
    with pytest.warns(UserWarning, match="'tensorrt' is built for this GPU and network, once; that may take minutes"):
        TensorRTEncoder("tensorrt", WEIGHTS, HEAD, CPU, BF16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TensorRTEncoder("tensorrt", WEIGHTS, HEAD, CPU, BF16)
    assert (machine.folder / f"{trt_engine.network_of(WEIGHTS, HEAD)}-tensorrt-bfloat16-SM89_RTX_4090.engine").exists()


@needs_rtx
def test_pickled(machine: types.SimpleNamespace) -> None:
    """For another process, which takes the engine from the cache."""
    one = encoder()
    again = pickle.loads(pickle.dumps(one))
    picture = torch.rand(9, 14, 3)
    assert torch.equal(again(picture), one(picture))
    assert (again.engine, again.self_ensemble, machine.built) == (RTX, False, 1)


@needs_rtx
@pytest.mark.parametrize("damage", ["stale", "recipe", "corrupt", "not loaded"])
def test_rebuilt_when_of_no_use(machine: types.SimpleNamespace, damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder()
    if damage == "stale":
        monkeypatch.setattr(trt_engine, "__version__", "0.0.1")
    elif damage == "recipe":
        changed = machine.folder.parent / "trt_network.py"
        changed.write_text("# built in another way\n")
        monkeypatch.setattr(trt_network, "__file__", str(changed))
        monkeypatch.setattr(trt_engine, "_recipe", trt_engine._recipe.__wrapped__)
    elif damage == "corrupt":
        kept(machine).write_bytes(kept(machine).read_bytes()[:-1])
    else:
        answers = iter([False, True])
        machine.load = lambda plan: next(answers)
    encoder()
    assert machine.built == 2
    machine.load = lambda plan: True
    encoder()
    assert machine.built == 2
    kept(machine)  # and only one


@needs_rtx
def test_a_wrong_engine_is_refused_when_made_and_ever_after(machine: types.SimpleNamespace) -> None:
    machine.spoil = lambda z: z * float("nan")
    for _ in range(2):
        with pytest.raises(BackendUnavailable, match="is wrong: its features hold NaN"):
            encoder()
    assert machine.built == 1
    with pytest.warns(UserWarning, match="runs without it"):
        found = auto(machine)
    assert found.engine in ("native", "torch")


def auto(machine: types.SimpleNamespace) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trt_engine, "unavailable", lambda name, *_: None if name == RTX else "not here")
        return engines.make("auto", WEIGHTS, HEAD, CPU, BF16)


@needs_rtx
def test_auto_takes_the_first_that_can(machine: types.SimpleNamespace) -> None:
    assert auto(machine).engine == RTX


@needs_rtx
def test_an_engine_that_does_not_run_is_no_engine(machine: types.SimpleNamespace) -> None:
    machine.stream = 13
    with pytest.raises(BackendUnavailable, match="was built but does not run"):
        encoder()
    assert list(machine.folder.iterdir()) == []


@needs_rtx
def test_halo_must_fit(machine: types.SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trt_engine, "largest", lambda *_: (6, 3840))
    with pytest.raises(BackendUnavailable, match=r"no more than the \d+ around a tile"):
        encoder()


@needs_rtx
def test_what_cannot_be_built_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    assert trt_engine.known_capabilities()[:2] == ["SM75", "SM80"]
    monkeypatch.setattr(trt_engine, "_capability", lambda device: "SM90")
    assert "it has no SM90" in str(trt_engine.unavailable(RTX, CUDA, BF16))
    monkeypatch.setattr(trt_engine, "_capability", lambda device: "SM120")
    assert trt_engine.unavailable(RTX, CUDA, BF16) is None
    with pytest.raises(BackendUnavailable, match="'tensorrt-rtx' could not be built: "):
        trt_engine.serialized(RTX, WEIGHTS, type(HEAD)(HEAD.weight[:, :3], HEAD.bias), BF16, ("SM89",))


@needs_rtx
def test_features_that_fit_no_format_are_refused() -> None:
    odd = type(HEAD)(HEAD.weight[:30], HEAD.bias[:30])
    with pytest.raises(BackendUnavailable, match="'tensorrt-rtx' takes a z of multiples of 8 channels, not of 30"):
        trt_engine.serialized(RTX, WEIGHTS, odd, BF16, ("SM89",))


def test_reasons_against() -> None:
    assert "CUDA devices, not on cpu" in str(trt_engine.unavailable("tensorrt", CPU, BF16))
    assert "not in torch.float32" in str(trt_engine.unavailable(RTX, CUDA, FP32))
    assert list(engines.reasons_against(CPU, FP32)) == list(engines.ENGINES)
    assert engines.reasons_against(CPU, FP32)["native"] is None
    with pytest.raises(BackendUnavailable, match="'tensorrt' cannot run on cpu"):
        Upscaler(WEIGHTS, device="cpu", engine="tensorrt")
    with pytest.raises(
        ValueError, match="engine must be one of auto, tensorrt, tensorrt-rtx, native, torch; got 'onnx'"
    ):
        Upscaler(WEIGHTS, device="cpu", engine="onnx")
    assert Upscaler(WEIGHTS, device="cpu", engine="torch").encoder.engine == "torch"
    assert Upscaler(load(), device="cpu", precision="fp32").encoder.engine == "native"
    with pytest.raises(BackendUnavailable, match="it takes multiples of 16 features"):
        Upscaler(random_weights(Architecture(1, 8, (16,))), device="cpu", engine="native")


def test_nothing_is_imported_before_it_is_needed() -> None:
    code = "import sys; from liif_fast import Upscaler, cli; Upscaler(device='cpu', precision='fp32')"
    heavy = "any(name.partition('.')[0] in ('tensorrt', 'tensorrt_rtx', 'onnx', 'onnxruntime') for name in sys.modules)"
    subprocess.run([sys.executable, "-c", f"{code}; assert not {heavy}"], check=True)


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FLAVOURS, "tensorrt", trt_engine.Flavour("no_such_module", "tensorrt", "tensorrt"))
    reason = str(trt_engine.unavailable("tensorrt", CUDA, BF16))
    assert "tensorrt is missing" in reason
    assert reason.endswith("pip install 'liif_fast[tensorrt]'")
    with pytest.raises(BackendUnavailable, match="is missing"):
        trt_engine.serialized("tensorrt", WEIGHTS, HEAD, BF16)


@pytest.mark.parametrize("dtype", list(LEAST_PSNR))
def test_the_check_passes_what_pytorch_does(dtype: torch.dtype) -> None:
    outcome = check(Encoder(WEIGHTS, HEAD, CPU, dtype), Encoder(WEIGHTS, HEAD, CPU, FP32), LEAST_PSNR[dtype])
    assert outcome["problem"] is None
    assert outcome["psnr"] > LEAST_PSNR[dtype] + 10


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (lambda z: z.index_fill(0, torch.tensor([3]), float("inf")), "infinite"),
        (torch.zeros_like, "black frame"),
        (lambda z: z + 0.03 * z.std() * torch.randn_like(z), "dB"),
        (lambda z: z.roll(1, 0), "dB"),
        (lambda z: z.flip(2), "dB"),
    ],
)
def test_the_check_finds(spoil: Any, word: str) -> None:
    reference = Encoder(WEIGHTS, HEAD, CPU, FP32)
    assert word in check(lambda picture: spoil(reference(picture)), reference, 60)["problem"]


def test_a_network_with_another_head_is_another() -> None:
    """As that of float8 is, whose scales are in the projection."""
    same, scaled = (replace(HEAD, weight=HEAD.weight / by, bias=HEAD.bias / by) for by in (1, 3))
    assert trt_engine.network_of(WEIGHTS, same) == trt_engine.network_of(WEIGHTS, HEAD)
    assert trt_engine.network_of(WEIGHTS, scaled) != trt_engine.network_of(WEIGHTS, HEAD)
