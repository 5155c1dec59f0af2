"""What is refused, and how much memory is taken: tiles, bands, budgets."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from common import ROOT, random_weights
from liif_fast import BackendUnavailable, CheckpointError, Upscaler, pages
from liif_fast.backends.cpu import ISA_VARIABLE
from liif_fast.checkpoint import Architecture, Weights
from liif_fast.tiling import least_cells

SHALLOW = random_weights(Architecture(1, 16, (16, 16)), seed=5)
PICTURE = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)


@pytest.fixture(scope="module")
def up() -> Upscaler:
    return Upscaler(SHALLOW, precision="fp32")


@pytest.mark.parametrize("budget", [1, 250_000, 600_000])
@pytest.mark.parametrize("keep", [False, True])
def test_tiled_equals_untiled(up: Upscaler, budget: int, keep: bool) -> None:
    side = 90
    picture = np.random.default_rng(1).random((side, side + 13, 3)).astype(np.float32)
    bytes_ = (picture * 255).astype(np.uint8)
    small = Upscaler(SHALLOW, precision="fp32", max_memory=budget)
    size = (int(2.3 * side), 3 * side)

    def render(by: Upscaler, image: np.ndarray) -> np.ndarray:
        return by.encode(image).render(size=size) if keep else by(image, size=size)

    calls = []
    encode = small.encoder.z
    small.encoder.z = lambda x: calls.append(x) or encode(x)  # type: ignore[method-assign]
    tiled, whole = render(small, picture), render(up, picture)
    assert len(calls) > 1, "it was not tiled"
    assert sum(x.shape[0] * x.shape[1] for x in calls) < 10 * picture.size / 3, "tiles are mostly halo"
    assert np.abs(tiled - whole).max() <= 1e-5
    difference = np.abs(render(small, bytes_).astype(int) - render(up, bytes_))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-4


def test_bands_are_of_one_picture(up: Upscaler) -> None:
    with pytest.raises(ValueError, match="got a batch of 2"):
        next(up.bands(torch.zeros(2, 3, 5, 5), (10, 10)))


def test_bands_are_the_picture(up: Upscaler) -> None:
    picture = np.random.default_rng(1).integers(0, 256, (60, 40, 4), np.uint8)
    small = Upscaler(SHALLOW, precision="fp32", max_memory=800_000)
    bands = list(small.bands(picture, (150, 130)))
    assert len(bands) > 1
    assert all(band.shape[1:] == (130, 4) for band in bands)
    assert np.array_equal(np.concatenate(bands), up(picture, size=(150, 130)))
    window = np.concatenate(list(small.bands(picture, (70, 90), box=(3.5, 2, 40, 33))))
    assert np.array_equal(window, up.encode(picture).render(size=(70, 90), box=(3.5, 2, 40, 33)))


FULL = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nSee the manual"),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("Triton Error [CUDA]: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("engine 'tensorrt' failed: [defaultAllocator.cpp::allocate] Error Code 1: OutOfMemory"),
    RuntimeError("GET was unable to find an engine to execute this computation"),
]


def test_no_more_is_encoded_at_once_than_a_convolution_may_have() -> None:
    picture = np.random.default_rng(1).integers(0, 256, (150, 140, 3), np.uint8)
    up = Upscaler(SHALLOW, precision="fp32", engine="torch")
    wanted, encode, asked = up(picture, scale=2), up.encoder.z, []
    up.encoder.most_cells = least_cells(up.encoder.halo) + 500
    up.encoder.z = lambda x: asked.append(x.shape[0] * x.shape[1]) or encode(x)  # type: ignore[method-assign, func-returns-value]
    assert np.abs(up(picture, scale=2).astype(int) - wanted).max() <= 1
    assert len(asked) > 1
    assert max(asked) <= up.encoder.most_cells
    assert np.abs(up.encode(picture).render(scale=2).astype(int) - wanted).max() <= 1


@pytest.mark.parametrize("full", FULL, ids=repr)
@pytest.mark.parametrize(("channels", "keep"), [(3, True), (4, False)])
def test_a_device_that_is_fuller_than_it_said(
    monkeypatch: pytest.MonkeyPatch, channels: int, keep: bool, full: RuntimeError
) -> None:
    """The encoder runs out of memory above a size, in the middle of a picture: the rest comes in smaller tiles."""
    picture = np.random.default_rng(1).integers(0, 256, (90, 70, channels), np.uint8)
    up = Upscaler(SHALLOW, precision="fp32", engine="torch", max_memory=4_000_000)
    wanted = up(picture, size=(150, 130))
    encode, asked, most = up.encoder.z, [], 1 << 30

    def z(x: torch.Tensor) -> torch.Tensor:
        asked.append(x.shape[0] * x.shape[1])
        if asked[-1] > most:
            raise full
        return encode(x)

    monkeypatch.setattr(up.encoder, "z", z)
    field = up.encode(picture) if keep else None
    up(picture, size=(150, 130))
    most = max(asked) - 1
    seen: list[tuple[int, int]] = []
    found = up(picture, size=(150, 130), progress=lambda *done: seen.append(done))
    assert max(asked) > most >= asked[-1]
    assert np.abs(found.astype(int) - wanted).max() <= 1
    assert seen[-1] == (150 * 130, 150 * 130)
    if field:
        assert np.abs(field.render(size=(150, 130)).astype(int) - wanted).max() <= 1
    most = 30
    with pytest.raises(torch.OutOfMemoryError) as caught:
        up(picture, size=(150, 130))
    assert str(caught.value) == f"cpu is full, in small tiles too: {str(full).splitlines()[0]}"


def test_other_errors_of_a_device_are_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    up, asked = Upscaler(SHALLOW, precision="fp32", engine="torch"), []

    def z(x: torch.Tensor) -> torch.Tensor:
        asked.append(x)
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(up.encoder, "z", z)
    for use in (up.encode, lambda picture: up(picture, scale=2)):
        asked.clear()
        with pytest.raises(RuntimeError, match="illegal memory access"):
            use(np.zeros((9, 7, 3), np.uint8))
        assert len(asked) == 1


def test_features_that_the_device_does_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are encoded when they are rendered, in tiles that fit."""
    picture = np.random.default_rng(1).integers(0, 256, (90, 70, 3), np.uint8)
    up = Upscaler(SHALLOW, precision="fp32", max_memory=100_000_000)
    encode = up.encoder.z
    wanted = up.encode(picture).render(size=(150, 130))

    def z(x: torch.Tensor) -> torch.Tensor:
        if x.shape[0] * x.shape[1] >= 90 * 70:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encode(x)

    monkeypatch.setattr(up.encoder, "z", z)
    found = up.encode(picture).render(size=(150, 130))
    assert np.abs(found.astype(int) - wanted).max() <= 1


def test_what_pytorch_holds_for_later_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a second run would have less than the first."""
    held = {"reserved_bytes": {"all": {"current": 9 << 30}}, "allocated_bytes": {"all": {"current": 2 << 30}}}
    for name, value in (("mem_get_info", (5 << 30, 24 << 30)), ("memory_stats_as_nested_dict", held)):
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    up = Upscaler(SHALLOW, precision="fp32")
    up.device = torch.device("cuda", 0)
    assert up.free_memory == 12 << 30


def test_a_result_that_memory_cannot_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before there is any work, unless it is small."""
    monkeypatch.setattr("liif_fast.memory.free", lambda: 1 << 24)
    up = Upscaler(SHALLOW, precision="fp32", max_memory=1 << 28)
    with pytest.raises(ValueError, match=r"a result of 3000 x 2000 pixels needs 0.0 GB, but 0.0 GB of memory are free"):
        up(np.zeros((20, 30, 3), np.uint8), size=(2000, 3000))
    monkeypatch.setattr("liif_fast.memory.free", lambda: 0)
    assert up(np.zeros((2, 3, 3), np.uint8), size=(20, 30)).shape == (20, 30, 3)


def test_memory_is_bounded() -> None:
    """A large result takes its own size, the budget and what is kept for the next, beside what the libraries take."""
    code = """
import resource, sys, numpy as np, torch
sys.path.insert(0, {tests!r})
from common import random_weights
from liif_fast import Upscaler
from liif_fast.checkpoint import Architecture, Weights
up = Upscaler(random_weights(Architecture(1, 64, (64, 32))), precision="fp32", max_memory=100 << 20)
up(np.zeros((64, 64, 3), np.uint8), scale=2)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
before, rows = peak(), 0
for band in up.bands(np.zeros((1500, 1500, 3), np.uint8), (1500, 1500)):
    rows += len(band)
assert rows == 1500
print(peak() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", code.format(tests=str(ROOT / "tests"))],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # The budget, pages that wait to be used again, and 28 MiB. Features of the whole picture alone would be 549 MiB.
    assert int(done.stdout) < (100 << 20) + pages.most_kept() + (28 << 20)


@pytest.mark.parametrize(
    ("picture", "error", "text"),
    [
        (np.zeros((0, 5, 3), np.uint8), ValueError, r"\(0, 5, 3\)"),
        (np.zeros((5, 0), np.uint8), ValueError, r"\(5, 0\)"),
        (np.full((4, 4, 3), np.nan, np.float32), ValueError, "NaN"),
        (np.full((4, 4, 3), np.inf, np.float32), ValueError, "infinit"),
        (np.full((4, 4, 3), 7.0, np.float32), ValueError, "7"),
        (np.zeros((4, 4, 5), np.uint8), ValueError, r"\(4, 4, 5\)"),
        (np.zeros((2, 4, 4, 3), np.uint8), ValueError, "one by one"),
        (np.zeros((3, 4, 9), np.uint8), ValueError, "transpose"),
        (np.zeros(4, np.uint8), ValueError, r"\(4,\)"),
        (np.zeros((4, 4, 3), np.int32), TypeError, "int32"),
        (np.zeros((4, 4, 3), bool), TypeError, "bool"),
        (np.zeros((4, 4, 3), np.complex64), TypeError, "complex64"),
        (torch.zeros(5, 4, 3, dtype=torch.uint8), ValueError, "permute"),
        (torch.zeros(3, 4, 4, dtype=torch.int64), TypeError, "int64"),
        (torch.zeros(0, 3, 4, 4), ValueError, "0"),
        ("photo.jpg", TypeError, "read the file first"),
        (Path("photo.jpg"), TypeError, "read the file first"),
        (None, TypeError, "NoneType"),
        ([[1, 2]], TypeError, "list"),
    ],
    ids=str,
)
def test_pictures_refused(up: Upscaler, picture: object, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text) as caught:
        up(picture, scale=2)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("request_", "error", "text"),
    [
        ({}, ValueError, "exactly one of scale, size, longest; got none"),
        ({"scale": 2, "longest": 9}, ValueError, "got scale, longest"),
        ({"scale": 0.4}, ValueError, "below 0.5.*antialiased"),
        ({"scale": -1}, ValueError, "-1"),
        ({"scale": float("nan")}, ValueError, "nan"),
        ({"scale": float("inf")}, ValueError, "inf"),
        ({"scale": "2"}, TypeError, "'2'"),
        ({"scale": (1, 2, 3)}, ValueError, r"\(1, 2, 3\)"),
        ({"scale": True}, TypeError, "True"),
        ({"size": (0, 5)}, ValueError, "at least 1"),
        ({"size": (-4, 5)}, ValueError, "-4"),
        ({"size": (4.5, 5)}, TypeError, r"4\.5"),
        ({"size": 5}, ValueError, "5"),
        ({"size": (1 << 25, 1 << 25)}, ValueError, "too large"),
        ({"size": (1 << 23, 1 << 23)}, (ValueError, MemoryError), "memory|large"),
        ({"longest": 0}, ValueError, "at least 1"),
    ],
    ids=str,
)
def test_sizes_refused(up: Upscaler, request_: dict, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        up(PICTURE, **request_)


@pytest.mark.parametrize(
    "box", [(0, 0, 6, 7), (-1, 0, 5, 7), (2, 2, 2, 5), (3, 0, 1, 7), (0, 0, 5), (0, 0, 5, float("nan"))]
)
def test_windows_refused(up: Upscaler, box: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="box"):
        up.encode(PICTURE).render(size=(8, 8), box=box)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"device": "tpu"}, ValueError, "'tpu'"),
        ({"device": "cuda:99"}, (BackendUnavailable, ValueError), "cuda:99"),
        ({"precision": "fp7"}, ValueError, "'fp7'"),
        ({"backend": "magic"}, ValueError, "'magic'"),
        ({"threads": 0}, ValueError, "0"),
        ({"threads": 1.5}, ValueError, "1.5"),
        ({"threads": 10**12}, ValueError, "threads must be a whole number from 1 to 1024, or None, got 1000000000000"),
        ({"max_memory": 0}, ValueError, "0"),
        ({"max_memory": -5}, ValueError, "-5"),
        ({"max_memory": 2e9}, ValueError, "max_memory must be a whole number.*got 2000000000.0"),
        ({"device": "meta"}, BackendUnavailable, "no device meta: only auto, cpu"),
        ({"device": None}, ValueError, "device must be auto, cpu, cuda or cuda:N, got None"),
        ({"device": "mps"}, BackendUnavailable, "no device mps"),
        ({"cell_clamp": 0.5}, ValueError, "0.5"),
        ({"cell_clamp": float("nan")}, ValueError, "cell_clamp must be a scale of at least 1, or None, got nan"),
        ({"cell_clamp": "x"}, ValueError, "cell_clamp must be a scale of at least 1, or None, got 'x'"),
        ({"cell_clamp": True}, ValueError, "cell_clamp .*got True"),
        ({"self_ensemble": "no"}, TypeError, "self_ensemble must be True or False, got 'no'"),
        ({"model": 5}, TypeError, "model must be a name, a path or Weights, got 5"),
        ({"model": None}, TypeError, "model must be .*, got None"),
        ({"model": "no-such-model"}, FileNotFoundError, "no-such-model.*known models: edsr-baseline"),
        ({"model": str(ROOT / "README.md")}, CheckpointError, "README.md"),
    ],
    ids=str,
)
def test_options_refused(options: dict, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text) as caught:
        Upscaler(**{"model": SHALLOW, **options})
    assert "\n" not in str(caught.value)


def test_an_explicit_backend_never_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    from liif_fast.backends import cpu

    monkeypatch.setattr(cpu, "_missing", "the compiled module is missing (as here)")
    with pytest.raises(BackendUnavailable, match=r"backend 'cpu' cannot run on cpu.*compiled module is missing"):
        Upscaler(SHALLOW, precision="fp32", backend="cpu")
    with pytest.warns(UserWarning, match="plain PyTorch decodes, which is slow: the compiled module is missing"):
        assert "reference" in Upscaler(SHALLOW, precision="fp32").description


def test_an_instruction_set_that_was_named_is_never_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ISA_VARIABLE, "nonsense")
    with pytest.raises(BackendUnavailable, match=f"{ISA_VARIABLE}=nonsense cannot run here"):
        Upscaler(SHALLOW)


def test_overflow_is_found_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = {name: tensor.clone() for name, tensor in SHALLOW.tensors.items()}
    tensors["encoder.head.0.weight"][:] = 3e4
    large = Upscaler(Weights(SHALLOW.architecture, tensors), device="cpu", precision="fp16", engine="torch")
    white = np.full((9, 9, 3), 255, np.uint8)
    large(white, scale=1)
    monkeypatch.setenv("LIIF_FAST_CHECK", "1")
    with pytest.raises(
        FloatingPointError, match=r"of 1296 features are NaN or infinite in torch.float16 by engine 'to"
    ):
        large(white, scale=1)
    assert Upscaler(SHALLOW, precision="fp32")(white, scale=1).shape == white.shape


@pytest.mark.parametrize(
    ("built", "error", "reason"),
    [
        (None, None, "it was built without CUDA"),
        ("12.8", None, "none is visible"),
        (
            "12.8",
            "The NVIDIA driver on your system is too old (found version 11040). Please update",
            "too old (found ver",
        ),
    ],
)
def test_why_there_is_no_gpu(
    monkeypatch: pytest.MonkeyPatch, built: str | None, error: str | None, reason: str
) -> None:
    def init() -> None:
        if error:
            raise RuntimeError(error)

    monkeypatch.setattr(torch.version, "cuda", built)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "init", init)
    with pytest.raises(BackendUnavailable, match=r"no device cuda: PyTorch .* finds no CUDA device \(") as caught:
        Upscaler(SHALLOW, device="cuda")
    assert reason in str(caught.value)
    assert "Please" not in str(caught.value)
