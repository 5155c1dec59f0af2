"""Measuring a network for 8 bits, and how files keep it."""

from __future__ import annotations

import re
import shutil
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from common import random_weights
from liif_fast import Upscaler, quantization
from liif_fast.checkpoint import Architecture, CheckpointError, Weights, load, save
from liif_fast.cli import app
from liif_fast.quantization import FP8, Quantized, measure
from liif_fast.training.calibrate import calibrate

WEIGHTS = random_weights(Architecture(1, 8, (32, 48, 32)), contrast=1.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    y, x = np.mgrid[:96, :130]
    for i in range(4):
        waves = np.stack([np.sin(y / (3 + i)), np.cos(x / 7), np.sin(x * y / 400)], -1) * 90 + 128
        Image.fromarray(waves.astype(np.uint8)).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def measured(folder: Path) -> Weights:
    return calibrate(WEIGHTS, [folder])


def parts(weights: Weights) -> list[torch.Tensor]:
    assert list(weights.quantized) == ["fp8", "int8"]
    return [t for found in weights.quantized.values() for t in (found.scale, *found.weight, *found.steps)]


@pytest.mark.parametrize("precision", ["fp8", "int8"])
def test_is_close_to_the_network(measured: Weights, folder: Path, precision: str) -> None:
    picture = np.asarray(Image.open(folder / "0.png"), np.float32)[:48, :48] / 255
    found = Upscaler(measured, device="cpu", precision=precision, backend="reference")(picture, scale=2)
    exact = Upscaler(measured, device="cpu", precision="fp32")(picture, scale=2)
    assert 40 < -10 * np.log10(np.mean((found - exact) ** 2)) < 70


def test_the_same_pictures_give_the_same(measured: Weights, folder: Path) -> None:
    again = calibrate(WEIGHTS, [folder])
    assert all(torch.equal(a.float(), b.float()) for a, b in zip(parts(measured), parts(again), strict=True))
    assert measured.fingerprint == WEIGHTS.fingerprint


def test_an_unreadable_picture_is_skipped(measured: Weights, folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        shutil.copy(path, tmp_path)
    (tmp_path / "1a.png").write_bytes(b"\x89PNG nothing")
    with pytest.warns(UserWarning, match=r"1a\.png: .*, skipped"):
        found = calibrate(WEIGHTS, [tmp_path])
    assert all(torch.equal(a.float(), b.float()) for a, b in zip(parts(measured), parts(found), strict=True))


def test_files_keep_it(measured: Weights, tmp_path: Path) -> None:
    save(tmp_path / "a.safetensors", measured, torch.float32)
    back = load(tmp_path / "a.safetensors")
    for a, b in zip(parts(measured), parts(back), strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a.float(), b.float())
    assert back.fingerprint == WEIGHTS.fingerprint
    save(tmp_path / "b.safetensors", WEIGHTS, torch.float32)
    assert not load(tmp_path / "b.safetensors").quantized


def test_a_file_that_changes_later(measured: Weights, tmp_path: Path) -> None:
    """What was read from it is not what is there now."""
    path = tmp_path / "a.safetensors"
    save(path, measured, torch.float32)
    back = load(path)
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
    for a, b in zip(parts(measured), parts(back), strict=True):
        assert torch.equal(a.float(), b.float())
    path.write_bytes(b"")
    assert all(bool(t.float().isfinite().all()) for t in parts(back))


def test_of_other_layers(measured: Weights, tmp_path: Path) -> None:
    """Layers in 8 bits stand for those they were measured of, and for no others."""
    key = "imnet.layers.2.bias"
    with pytest.raises(CheckpointError, match="its fp8 layers were measured of others than it has"):
        replace(measured, tensors={**measured.tensors, key: measured.tensors[key] + 1})
    with pytest.raises(CheckpointError, match="its fp8 layers were measured of others than it has"):
        save(tmp_path / "rounded.safetensors", measured, torch.bfloat16)
    assert not (tmp_path / "rounded.safetensors").exists()
    encoder = "encoder.head.0.bias"
    replace(measured, tensors={**measured.tensors, encoder: measured.tensors[encoder] + 1})  # not what they stand for


def test_layers_are_numbered_from_nought(measured: Weights, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save(path, measured, torch.float32)
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"int8.1.steps"', b'"int8.7.steps"'))
    with pytest.raises(CheckpointError, match=r"a\.safetensors: int8\.1\.steps is not torch\.float32"):
        load(path)


def test_command(folder: Path, tmp_path: Path) -> None:
    before, after = tmp_path / "before.safetensors", tmp_path / "after.safetensors"
    save(before, WEIGHTS)
    words = ["calibrate", str(before), str(after), "--data", str(folder), "--pictures", "2"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert re.search(r"at least \d\d\.\d dB in fp8, \d\d\.\d dB in int8, beside fp32", done.stdout)
    a, b = load(before), load(after)
    assert all(torch.equal(a.tensors[key], b.tensors[key]) for key in a.tensors)
    assert list(b.quantized) == ["fp8", "int8"]
    assert after.stat().st_size < before.stat().st_size + 16000, "weights are stored as they were, in halves"
    assert CliRunner().invoke(app, words).exit_code != 0, "replaced without --force"


def test_channels_that_were_off() -> None:
    """Where they are on elsewhere, z, which their scale divides, must still be within halves."""
    h = torch.rand(500, 32, generator=torch.Generator().manual_seed(0)) * (torch.arange(32) > 3)
    scale = measure(FP8, WEIGHTS.imnet[1:-1], h).scale
    assert float(scale[:4].min()) > 0.015 * float(scale[4:].max())


def test_what_overflows_is_not_written(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Features beyond halves, as from a scale far too small."""
    save(before := tmp_path / "before.safetensors", WEIGHTS)
    real = quantization._largest
    monkeypatch.setattr(quantization, "_largest", lambda *how: real(*how) * 1e-8)
    done = CliRunner().invoke(app, ["calibrate", str(before), str(tmp_path / "a.safetensors"), "--data", str(folder)])
    assert done.exit_code == 2
    assert "gives NaN or infinity in fp8: measure it on more pictures" in done.stderr
    assert not (tmp_path / "a.safetensors").exists()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda q: replace(q, scale=q.scale[:5]), r"8.scale is not torch.float32 of \(32,\)"),
        (lambda q: replace(q, scale=-q.scale), "8.scale must be at least 1e-12"),
        (lambda q: replace(q, scale=q.scale * 1e-30), "8.scale must be at least 1e-12"),
        (lambda q: replace(q, steps=tuple(s * 1e30 for s in q.steps)), "8.0.steps holds .*, beyond 1e.12: damaged"),
        (lambda q: replace(q, weight=q.weight[:1]), "1 (fp8|int8) weights and 2 steps of 2 layers"),
        (
            lambda q: replace(q, weight=tuple(w.half() for w in q.weight)),
            "8.0.weight is not torch.(float8_e4m3fn|int8) ",
        ),
        (lambda q: replace(q, scale=q.scale.to_sparse()), "8.scale is not torch.float32"),
        (lambda q: replace(q, scale=q.scale.to("meta")), "8.scale is not torch.float32"),
        (lambda q: replace(q, steps=tuple(s * torch.nan for s in q.steps)), "8.0.steps holds NaN"),
    ],
    ids=["short", "negative", "vanishing", "huge", "missing", "wide", "sparse", "meta", "nan"],
)
@pytest.mark.parametrize("name", ["fp8", "int8"])
def test_damage(measured: Weights, change: Callable[[Quantized], Quantized], text: str, name: str) -> None:
    with pytest.raises(CheckpointError, match=text):
        replace(measured, quantized={name: change(measured.quantized[name])})


def test_others_take_the_place_of_what_cannot_be_used(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "0.png", tmp_path / "4.png")
    (tmp_path / "1.png").write_bytes(b"\x89PNG nothing")
    for name in ("2", "3"):
        Image.new("RGB", (63, 70)).save(tmp_path / f"{name}.png")
    with pytest.warns(UserWarning, match=r"1\.png: .*, skipped"):
        found = calibrate(WEIGHTS, [tmp_path], pictures=1)
    (tmp_path / "alone").mkdir()
    shutil.copy(folder / "0.png", tmp_path / "alone")
    alone = calibrate(WEIGHTS, [tmp_path / "alone"])
    assert all(torch.equal(a.float(), b.float()) for a, b in zip(parts(found), parts(alone), strict=True))


def test_unknown_format(measured: Weights) -> None:
    with pytest.raises(CheckpointError, match="layers in 'int4', which is none of fp8, int8"):
        replace(measured, quantized={"int4": measured.quantized["int8"]})


def test_int8_holds_what_is_harder_than_photographs(measured: Weights) -> None:
    """Noise of full contrast, in which some channels are far larger than in pictures: 45 dB with scales from those
    alone, 47 with those of harder ones too."""
    noise = np.random.default_rng(5).integers(0, 2, (32, 32, 3)).astype(np.float32)
    found = Upscaler(measured, device="cpu", precision="int8", backend="reference")(noise, scale=2)
    exact = Upscaler(measured, device="cpu", precision="fp32")(noise, scale=2)
    assert -10 * np.log10(np.mean((found - exact) ** 2)) > 46


def test_one_picture_in_memory_at_a_time(tmp_path: Path) -> None:
    for i in range(6):
        Image.new("RGB", (1500, 1000), (i, 40 * i, 0)).save(tmp_path / f"{i}.png")
    tracemalloc.start()
    calibrate(WEIGHTS, [tmp_path])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * 1500 * 1000 * 3, "of six, and their copies"


def test_refusals(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no hidden layers to run in 8 bits"):
        calibrate(random_weights(Architecture(1, 8, (32,))), [folder])
    with pytest.raises(ValueError, match="no picture of 64 x 64 pixels or more in"):
        calibrate(WEIGHTS, [tmp_path])
    Image.new("RGB", (63, 70)).save(tmp_path / "small.png")
    with pytest.raises(ValueError, match="of 64 x 64 pixels or more"):
        calibrate(WEIGHTS, [tmp_path])
    with pytest.raises(FileNotFoundError, match="no such folder"):
        calibrate(WEIGHTS, [tmp_path / "none"])
    with pytest.raises(NotADirectoryError, match="not a folder"):
        calibrate(WEIGHTS, [tmp_path / "small.png"])
    tensors = {key: t * 1e38 if key.startswith("imnet.layers.2.") else t for key, t in WEIGHTS.tensors.items()}
    with pytest.raises(ValueError, match="hidden layer 1 of the network gives NaN or infinity"):
        calibrate(replace(WEIGHTS, tensors=tensors), [folder])
    with pytest.raises(CheckpointError, match="no hidden layers that could be"):
        Weights(*vars_of_shallow(), quantized={"fp8": Quantized(torch.ones(32), (), (), "")})


def vars_of_shallow() -> tuple[Architecture, dict[str, torch.Tensor]]:
    shallow = random_weights(Architecture(1, 8, (32,)))
    return shallow.architecture, shallow.tensors
