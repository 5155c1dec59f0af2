"""What happens around an engine without a GPU: choice and reasons, building, cache, check, and the calls of a run.

TensorRT for RTX builds the engines; in the place of its runtime stands one that computes with PyTorch what it is given
by address, so that shapes, addresses and tiles are those a GPU would see.
"""

from __future__ import annotations

import ctypes
import pickle
import re
import subprocess
import sys
import types
import warnings
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common import BF16, CPU, FP32, GOLDEN, random_weights
from liif_fast import BackendUnavailable, Upscaler, engine_cache, engines, trt_engine, trt_network
from liif_fast.checkpoint import Architecture, load
from liif_fast.encoder import Encoder
from liif_fast.ops import Decoder
from liif_fast.trt_engine import FLAVOURS, LEAST_PSNR, TensorRTEncoder, check
from liif_fast.trt_network import IMAGE, Z
from liif_fast.upscaler import DECODERS

WEIGHTS = load(GOLDEN / "tiny.pth")
HEAD = Decoder(WEIGHTS, CPU, FP32, "reference").head
CUDA = torch.device("cuda")
RTX = "tensorrt-rtx"
needs_rtx = pytest.mark.skipif(FLAVOURS[RTX].missing is not None, reason=str(FLAVOURS[RTX].missing))


def memory(address: int, *shape: int) -> torch.Tensor:
    """bfloat16 at an address, as a tensor."""
    buffer = (ctypes.c_int16 * int(np.prod(shape))).from_address(address)
    return torch.frombuffer(buffer, dtype=torch.int16).view(BF16).view(*shape)


class Compiled:
    """An `IRuntimeCache`: heights of pictures for which there are kernels."""

    def __init__(self, fits: bool) -> None:
        self.heights, self.fits = set[int](), fits

    def serialize(self) -> bytearray:
        return bytearray(sorted(self.heights))

    def deserialize(self, kept: bytes) -> bool:
        self.heights = set(kept) if self.fits else set()
        return self.fits


class Context:
    """An execution context; see the top of the file."""

    def __init__(self, log: list[Any], spoil: Any, compiled: Compiled) -> None:
        self.log, self.spoil, self.addresses, self.compiled = log, spoil, dict[str, int](), compiled
        self.encoder = Encoder(WEIGHTS, HEAD, CPU, BF16)
        self.told: list[str] = []

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert name == IMAGE
        self.told += ["shape"]
        self.shape = shape
        return True

    def update_device_memory_size_for_shapes(self) -> int:
        return 1000 * self.shape[1]

    def set_device_memory(self, address: int, size: int) -> None:
        assert size == 1000 * self.shape[1]
        self.told += ["memory"]
        ctypes.memset(address, 1, size)

    def set_tensor_address(self, name: str, address: int) -> bool:
        assert address % 64 == 0
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        one, height, width, colors = self.shape
        assert (one, colors) == (1, 3)
        self.log.append((height, width))
        self.compiled.heights.add(height)
        z = self.encoder.run(memory(self.addresses[IMAGE], height, width, 3))
        memory(self.addresses[Z], height, width, self.encoder.width).copy_(self.spoil(z))
        return stream != 13


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> types.SimpleNamespace:
    """A pretended GPU of architecture SM89 whose memory is the processor's; counts engines built and pieces run."""
    log = types.SimpleNamespace(
        built=0, runs=[], contexts=[], stream=7, spoil=lambda z: z, fits=True, load=lambda plan: plan[:4] == b"vtrt"
    )
    strategies, caches = [], list[Any]()

    class Engine:
        def create_runtime_config(self) -> types.SimpleNamespace:
            config = types.SimpleNamespace()
            config.set_execution_context_allocation_strategy = lambda strategy: setattr(config, "strategy", strategy)
            config.create_runtime_cache = lambda: Compiled(log.fits)
            config.set_runtime_cache = caches.append
            return config

        def create_execution_context(self, config: Any) -> Context:
            strategies.append((config.strategy.name, config.dynamic_shapes_kernel_specialization_strategy.name))
            log.contexts.append(Context(log.runs, lambda z: log.spoil(z), caches[-1]))
            return log.contexts[-1]

    def build(*args: Any) -> bytes:
        log.built += 1
        return original(*args)

    original = trt_engine.build
    monkeypatch.setenv(engine_cache.FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.setattr(trt_engine, "build", build)
    monkeypatch.setattr(trt_engine, "_capability", lambda device: "SM89")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "RTX 4090")
    monkeypatch.setattr(TensorRTEncoder, "_load", lambda self, plan: Engine() if log.load(plan) else None)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: types.SimpleNamespace(cuda_stream=log.stream))
    log.strategies, log.caches, log.folder = strategies, caches, tmp_path
    return log


def encoder() -> TensorRTEncoder:
    return TensorRTEncoder(RTX, WEIGHTS, HEAD, CPU, BF16)


def kept(machine: types.SimpleNamespace) -> Path:
    (path,) = (path for path in machine.folder.iterdir() if not path.match("*-kernels.engine"))
    return path


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
    assert set(machine.strategies) == {("USER_MANAGED", "EAGER")}


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
def test_never_on_the_default_stream(machine: types.SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """There TensorRT waits for the whole device, which spoils what other threads capture."""
    waits: list[tuple[int, int]] = []
    ran: list[int] = []

    class Stream:
        def __init__(self, at: int) -> None:
            self.cuda_stream = at

        def wait_stream(self, other: Any) -> None:
            waits.append((self.cuda_stream, other.cuda_stream))

    one, other = encoder(), encoder()
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream(0))
    handles = iter([21, 22])
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream(next(handles)))
    trt_engine._side.cache_clear()
    execute = Context.execute_async_v3
    monkeypatch.setattr(Context, "execute_async_v3", lambda self, at: ran.append(at) or execute(self, at))
    image = torch.rand(13, 17, 3)
    for each in (one, other):  # one stream serves all, of which there are few
        assert torch.equal(each(image), Encoder(WEIGHTS, HEAD, CPU, BF16)(image))
    assert ran == [21, 21]
    assert waits == [(21, 0), (0, 21)] * 2


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
@pytest.mark.parametrize("name", ["edsr-baseline", "realtime", "realtime-small"])
def test_memory_is_counted(machine: types.SimpleNamespace, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """By the plan, as far as it can be read: its buffers for the largest picture, beside z and the image."""
    weights = load(name)
    head = DECODERS[weights.architecture.decoder](weights, CPU, FP32, "reference").head
    monkeypatch.setitem(globals(), "WEIGHTS", weights)
    monkeypatch.setitem(globals(), "HEAD", head)
    one = TensorRTEncoder(RTX, weights, head, CPU, BF16)
    found = re.findall(rb"name=devmem\S+ size=(\d+)", kept(machine).read_bytes())
    if not found:
        pytest.skip("this version's plans cannot be read")
    rows, columns = one.largest
    taken = sum(map(int, found)) / (rows * columns) + 2 * one.width + 2 * 3
    assert 0.6 * one.bytes_per_cell < taken < one.bytes_per_cell


@needs_rtx
def test_larger_than_the_engine_takes(machine: types.SimpleNamespace) -> None:
    one = encoder()
    one.largest = (2 * one.halo + 10, 2 * one.halo + 14)
    for size, least in (((41, 37), 9), ((61, 2 * one.halo + 13), 3)):
        del machine.runs[:]
        image = torch.rand(*size, 3)
        assert not one.takes(*size)
        # Tiles are exact, but for what PyTorch rounds otherwise in pictures of another size.
        torch.testing.assert_close(one(image), Encoder(WEIGHTS, HEAD, CPU, BF16)(image), rtol=2**-7, atol=2**-7)
        assert len(machine.runs) > least
        assert all(one.takes(*piece) for piece in machine.runs)


@needs_rtx
def test_a_context_for_each_stream_and_errors_by_name(machine: types.SimpleNamespace) -> None:
    one, image = encoder(), torch.rand(5, 7, 3)
    for machine.stream in (7, 8, 8, 7):
        one(image)
    assert len(machine.strategies) == 2
    own = one.private()
    assert torch.equal(own(image), one(image))
    assert len(machine.strategies) == 3  # not the one of that stream, which may run in other shapes
    assert len(machine.caches) == 3
    assert len(set(map(id, machine.caches))) == 1
    machine.stream = 13
    with pytest.raises(RuntimeError, match="'tensorrt-rtx' failed"):
        one(image)


@needs_rtx
def test_what_was_compiled_is_there_for_the_next_process(machine: types.SimpleNamespace) -> None:
    encoder()(torch.rand(5, 7, 3))  # beside the check's picture
    name = f"{trt_engine.network_of(WEIGHTS, HEAD)}-tensorrt_rtx-bfloat16-SM89_RTX_4090-kernels.engine"
    file = machine.folder / name
    written = file.stat()
    assert file.read_bytes().partition(b"\n")[2] == bytes([5, 61])
    second = encoder()
    second(torch.rand(5, 9, 3))
    assert machine.caches[-1].heights == {5, 61}
    assert file.stat() == written  # nothing new
    second(torch.rand(8, 9, 3))
    assert file.read_bytes().partition(b"\n")[2] == bytes([5, 8, 61])
    machine.fits = False  # after another driver was installed
    encoder()(torch.rand(3, 9, 3))
    assert file.read_bytes().partition(b"\n")[2] == bytes([3])


@needs_rtx
def test_a_graph_finds_all_as_it_was_in_the_run_before(machine: types.SimpleNamespace) -> None:
    """What TensorRT prepares anew, for a size or for other memory, may not be captured."""
    own = encoder().private()
    for rows, told in ((5, ["shape", "memory"]), (5, []), (8, ["shape", "memory"]), (8, []), (5, ["shape", "memory"])):
        image = torch.rand(rows, 7, 3)
        others = torch.empty(1 << 16)  # memory is not in its place by chance
        assert torch.equal(own(image), Encoder(WEIGHTS, HEAD, CPU, BF16)(image))
        del others
        assert machine.contexts[-1].told == told
        machine.contexts[-1].told = []


@needs_rtx
def test_a_shape_that_is_not_taken_is_not_remembered(
    machine: types.SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, image = encoder(), torch.rand(5, 7, 3)
    with monkeypatch.context() as patch:
        patch.setattr(Context, "set_input_shape", lambda *_: False)
        for _ in range(2):
            with pytest.raises(RuntimeError, match="'tensorrt-rtx' failed"):
                one(image)
    assert torch.equal(one(image), Encoder(WEIGHTS, HEAD, CPU, BF16)(image))


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
    assert trt_engine.capabilities()[:2] == ["SM75", "SM80"]
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
    scaled = replace(HEAD, weight=HEAD.weight / 3, bias=HEAD.bias / 3)
    assert trt_engine.network_of(WEIGHTS, HEAD) == trt_engine.network_of(WEIGHTS, HEAD)
    assert trt_engine.network_of(WEIGHTS, scaled) != trt_engine.network_of(WEIGHTS, HEAD)
