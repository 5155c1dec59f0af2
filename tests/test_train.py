"""Training runs: they learn, stop, go on bit for bit, and lose nothing."""

from __future__ import annotations

import csv
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from common import random_weights
from liif_fast import Upscaler, checkpoint
from liif_fast.checkpoint import Architecture, CheckpointError
from liif_fast.training import config as configs
from liif_fast.training import state
from liif_fast.training.config import Config
from liif_fast.training.shorten import shorten
from liif_fast.training.sitting import sit
from liif_fast.training.state import STATE
from liif_fast.training.train import WEIGHTS, load_data, train
from runs import ENVIRONMENT, SMALL, assert_equal, content, make


@pytest.mark.parametrize("optimizer", ["muon", "adam"])
def test_resumed_equals_uninterrupted(photos: Path, tmp_path: Path, optimizer: str) -> None:
    whole, parts = (make(photos, tmp_path / name, optimizer=optimizer, revive_every=5) for name in ("whole", "parts"))
    train(whole)

    class Stop(Exception):
        pass

    def stop(progress: object) -> None:
        if progress.iteration == 9:  # type: ignore[attr-defined]
            raise Stop  # before the ninth is saved: back to the sixth

    with pytest.raises(Stop):
        train(parts, tell=stop)
    assert content(tmp_path / "parts")["iteration"] == 6
    train(parts, resume=True)
    assert_equal(content(tmp_path / "whole"), content(tmp_path / "parts"))
    a, b = (checkpoint.load(tmp_path / name / WEIGHTS) for name in ("whole", "parts"))
    assert a.fingerprint == b.fingerprint
    logs = [list(csv.DictReader((tmp_path / name / "log.csv").open())) for name in ("whole", "parts")]
    for rows in logs:
        assert [row["iteration"] for row in rows] == ["3", "6", "9", "12"]
    assert [row["loss"] for row in logs[0]] == [row["loss"] for row in logs[1]]


def test_drawings_alone_are_more_than_are_held_out() -> None:
    assert Config(output="run", synthetic=9).held_out == 8
    with pytest.raises(ValueError, match="synthetic is 3, must be more than held_out, 8"):
        Config(output="run", synthetic=3)


def test_denormals_are_flushed(photos: Path, tmp_path: Path) -> None:
    halves = []
    train(make(photos, tmp_path / "run"), tell=lambda _: halves.append(float(torch.full((1,), 1e-38) / 2)))
    assert halves
    assert not any(halves)
    assert float(torch.full((1,), 1e-38) / 2) > 0, "the setting outlives the run"


def test_what_is_learned_from(photos: Path, tmp_path: Path) -> None:
    """Photographs, their halves where a patch fits in, drawings at the end; of what is held out, nothing."""

    def sizes(**settings: object) -> tuple[list[int], int]:
        pictures, pairs = load_data(make(photos, tmp_path, **settings), torch.device("cpu"))
        assert len(pairs) == 3  # scales
        return pictures.width.tolist(), pictures.photographs

    assert sizes(halves=False) == ([100, 100], 2)  # of three
    assert sizes() == ([100, 100, 50, 50], 4)
    assert sizes(patch=51) == ([100, 100], 2)
    assert sizes(synthetic=4) == ([100] * 3 + [50] * 3 + [384] * 3, 6)  # a drawing is held out


def test_what_is_held_out_can_be_measured(tmp_path: Path) -> None:
    """At each scale, however small the patches are."""
    for i, side in enumerate((20, 19, 20)):
        Image.new("RGB", (side, 30)).save(tmp_path / f"{i}.png")
    settings, warnings = make(tmp_path, tmp_path.parent / "run", patch=8), []
    pictures, pairs = load_data(settings, torch.device("cpu"), warnings.append)
    assert (len(pictures), [p.scale for p in pairs]) == (2, [2, 3, 4])  # with its half
    assert "1.png: 19 x 30 pixels, 20 x 20 are needed" in warnings[0]
    pictures, pairs = load_data(replace(settings, held_out=0), torch.device("cpu"))
    assert (len(pictures), pairs) == (6, [])


def test_loss_of_luma(tmp_path: Path) -> None:
    """Hues of one luma: nothing to learn for a loss that is of luma alone."""
    red = np.random.default_rng(0).integers(50, 200, (64, 64, 1))
    green = (110 - 0.299 * red) / 0.587
    Image.fromarray(np.concatenate([red, green, 0 * red], 2).round().astype(np.uint8)).save(tmp_path / "hues.png")

    def loss(share: float) -> float:
        settings = make(
            tmp_path, tmp_path.parent / f"luma {share}", luma=share, iterations=1, held_out=0, decoder="resample"
        )
        seen = []
        train(settings, tell=lambda progress: seen.append(progress.loss))
        return seen[-1]

    colors, half, luma = (loss(share) for share in (0.0, 0.5, 1.0))
    assert luma < 0.1 * colors, (luma, colors)
    assert half == pytest.approx((colors + luma) / 2, rel=1e-5)


def test_learns(photos: Path, tmp_path: Path) -> None:
    settings = make(photos, tmp_path / "run", iterations=120, validate_every=20, warmup=10, lr=1e-2, save_every=1000)
    seen = []
    result = train(settings, tell=lambda progress: seen.append(progress))
    first = next(p.psnr for p in seen if p.psnr)
    assert min(result.psnr[s] - first[s] for s in (2.0, 3.0, 4.0)) > 3
    assert seen[-1].loss < 0.6 * seen[0].loss
    assert (seen[-1].iteration, seen[-1].seconds_left) == (120, 0)
    picture = Upscaler(str(result.weights))(np.full((5, 5, 3), 128, np.uint8), scale=2)
    assert picture.shape == (10, 10, 3)
    assert (tmp_path / "run" / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_init_keeps_the_network(photos: Path, tmp_path: Path) -> None:
    first = random_weights(Architecture(2, 16, (32,), True, False, False), seed=3)
    checkpoint.save(tmp_path / "first.safetensors", first, torch.float32)
    result = train(make(photos, tmp_path / "run", init=str(tmp_path / "first.safetensors"), lr=1e-9, iterations=1))
    after = checkpoint.load(result.weights)
    assert after.architecture == first.architecture
    for key, value in after.tensors.items():
        torch.testing.assert_close(value, first.tensors[key], rtol=0, atol=1e-6)


def test_resampling_decoder_learns(photos: Path, tmp_path: Path) -> None:
    """Better than how it starts, which is the cubic."""
    settings = {"decoder": "resample", "warmup": 10, "lr": 2e-3, "validate_every": 1000}
    start = train(make(photos, tmp_path / "start", **{**settings, "iterations": 1, "lr": 1e-9})).psnr
    psnr = train(make(photos, tmp_path / "run", **settings, iterations=150)).psnr
    weights = checkpoint.load(tmp_path / "run" / WEIGHTS)
    assert weights.architecture.decoder == "resample"
    assert weights.tensors["taps.layers.2.weight"].abs().max() > 0
    assert min(psnr[scale] - start[scale] for scale in psnr) > 0.3, f"{start} {psnr}"
    assert min(psnr.values()) > 20


def test_what_is_there_is_not_overwritten(photos: Path, tmp_path: Path) -> None:
    settings = make(photos, tmp_path / "run", iterations=3)
    with pytest.raises(FileNotFoundError, match="no run to resume"):
        train(settings, resume=True)
    with pytest.raises(FileNotFoundError, match="run: no run to resume here"):
        sit(tmp_path / "run", None, "fast", None, {}, [], resume=True)
    train(settings)
    before = content(tmp_path / "run")
    with pytest.raises(FileExistsError, match="resume it or name another folder"):
        train(settings)
    with pytest.raises(CheckpointError, match="state of another network"):
        train(replace(settings, n_feats=32), resume=True)
    with pytest.raises(CheckpointError, match="another optimiser"):
        train(replace(settings, optimizer="adam"), resume=True)
    assert_equal(before, content(tmp_path / "run"))
    state = tmp_path / "run" / STATE
    state.write_bytes(state.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="damaged"):
        train(settings, resume=True)


def test_without_matplotlib_it_says_so_before_the_work(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(RuntimeError, match=r"curves need matplotlib \(.*pip install 'liif_fast\[train\]'"):
        train(make(photos, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_two_processes(photos: Path, tmp_path: Path) -> None:
    """Under torchrun the gradients are averaged, and one process writes."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "liif_fast",
    ]
    command += ["train", "run", "--data", str(photos), "--iterations", "4", "--threads", "1"]
    for key, value in {**SMALL, "held_out": 1, "save_every": 2, "log_every": 2}.items():
        command += ["--set", f"{key}={list(value) if isinstance(value, tuple) else value}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=ENVIRONMENT, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    state = content(tmp_path / "run")
    assert state["iteration"] == 4
    assert len(state["generators"]) == 2
    assert not torch.equal(*state["generators"])
    assert len(list(csv.DictReader((tmp_path / "run" / "log.csv").open()))) == 2


def test_shorter_decoder(photos: Path, tmp_path: Path) -> None:
    first = random_weights(Architecture(1, 16, (16, 16, 16)))
    checkpoint.save(tmp_path / "first.safetensors", first, torch.float32)
    lines: list[str] = []
    settings = make(photos, tmp_path / "out", iterations=6)
    steps = shorten(str(tmp_path / "first.safetensors"), settings, 100.0, lambda _: None, lines.append)
    assert [(s.length, s.unit) for s in steps] == [(n, "hidden layer") for n in (3, 2, 1)]
    assert all(s.kept for s in steps)
    assert len(checkpoint.load(tmp_path / "out" / "model.safetensors").architecture.hidden_list) == 1
    assert (tmp_path / "out" / "entropy-2.png").exists()
    assert sum("decoder 1" in line for line in lines) == 3
    # Folded and not trained on, a trained network is worse: the bound leaves it as it was.
    trained = train(make(photos, tmp_path / "trained", iterations=80, warmup=10, lr=1e-2)).weights
    strict = make(photos, tmp_path / "strict", iterations=1, lr=1e-9)
    steps = shorten(str(trained), strict, 0.01, lambda _: None, lines.append)
    assert not steps[-1].kept
    assert len(checkpoint.load(tmp_path / "strict" / "model.safetensors").architecture.hidden_list) == 2


def test_a_folder_is_for_one_network_and_its_settings(photos: Path, tmp_path: Path) -> None:
    """Gone on with, another's steps would pass for its own."""
    for seed in (0, 1):
        checkpoint.save(tmp_path / f"{seed}.safetensors", random_weights(Architecture(1, 16, (16, 16)), seed=seed))
    settings = make(photos, tmp_path / "out", iterations=2)

    def shortened(seed: int, settings: Config) -> str:
        shorten(str(tmp_path / f"{seed}.safetensors"), settings, 100.0, lambda _: None, lambda _: None)
        return checkpoint.load(tmp_path / "out" / "model.safetensors").fingerprint

    made = shortened(0, settings)
    assert shortened(0, replace(settings, threads=1)) == made
    for seed, other in ((1, settings), (0, replace(settings, lr=1e-4))):
        with pytest.raises(FileExistsError, match=r"state.pt: begun with another network or other settings"):
            shortened(seed, other)
    assert checkpoint.load(tmp_path / "out" / "model.safetensors").fingerprint == made
    train(make(photos, tmp_path / "run"))
    with pytest.raises(FileExistsError, match=r"run.state.pt: begun with another"):
        shortened(0, replace(settings, output=str(tmp_path / "run")))


def test_shorter_encoder(photos: Path, tmp_path: Path) -> None:
    """Before a resampler the block that is missed least goes: one that adds nothing, wherever it stands."""
    trained = checkpoint.load("realtime-small")
    tensors = {}
    for key, value in trained.tensors.items():
        part = key.split(".")
        if part[:2] == ["encoder", "body"]:
            part[2] = str(int(part[2]) + (int(part[2]) >= 1))
        tensors[".".join(part)] = value
    for name in ("body.0.weight", "body.0.bias", "body.2.weight", "body.2.bias"):
        tensors[f"encoder.body.1.{name}"] = torch.zeros_like(trained.tensors[f"encoder.body.0.{name}"])
    blocks = trained.architecture.n_resblocks
    longer = replace(trained, architecture=replace(trained.architecture, n_resblocks=blocks + 1), tensors=tensors)
    checkpoint.save(tmp_path / "longer.safetensors", longer, torch.float32)
    lines: list[str] = []
    settings = make(photos, tmp_path / "out", iterations=1, lr=1e-9, warmup=0)
    steps = shorten(str(tmp_path / "longer.safetensors"), settings, 0.01, lambda _: None, lines.append)
    assert [(s.length, s.unit, s.kept) for s in steps] == [(blocks + 1 - i, "residual block", i < 2) for i in range(3)]
    assert any("block 2 of the encoder dropped" in line for line in lines)
    left = checkpoint.load(tmp_path / "out" / "model.safetensors")
    for key, value in trained.tensors.items():
        torch.testing.assert_close(left.tensors[key], value)


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ({"lr": 0.0}, "lr is 0.0"),
        ({"batch": 0}, "batch is 0"),
        ({"batch": "many"}, "batch is 'many', must be int"),
        ({"optimizer": "sgd"}, "optimizer is 'sgd', must be muon or adam"),
        ({"scale_min": 0.5}, "scale_min is 0.5"),
        ({"scale_min": 5.0}, "scale_max is 4.0, must be scale_min to 16"),
        ({"scale_max": 17.0}, "scale_max is 17.0"),
        ({"encoder_pace": 1.1}, "encoder_pace is 1.1, must be 0 to 1"),
        ({"jpeg": 1.5}, "jpeg is 1.5, must be 0 to 1"),
        ({"jpeg_min": 0}, "jpeg_min is 0"),
        ({"jpeg_max": 20}, "jpeg_max is 20, must be jpeg_min to 100"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"data": (), "synthetic": 0}, "nothing to train on"),
        ({"hidden_list": (16, "16")}, "hidden_list is"),
    ],
)
def test_settings_are_checked(setting: dict, problem: str) -> None:
    with pytest.raises((ValueError, TypeError), match=problem):
        Config(**{"output": "x", "data": ("y",), **setting})


def test_settings_from_file_and_flags(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('output = "there"\ndata = ["a", "b"]\nlr = 1\nbatch = 8\nhidden_list = [32]\n')
    with pytest.raises(ValueError, match=r"lr is 1\.0"):
        configs.read("fast", file, {})
    found = configs.read("paper", file, {"lr": 1e-3, "batch": None})
    assert (found.output, found.data, found.lr, found.batch) == ("there", ("a", "b"), 1e-3, 8)
    assert (found.hidden_list, found.schedule, found.queries) == ((32,), "halving", 2304)
    file.write_text("colour = 3")
    with pytest.raises(ValueError, match="unknown setting 'colour'; known are batch"):
        configs.read("fast", file, {})
    file.write_text("= 3")
    with pytest.raises(ValueError, match="not a TOML file"):
        configs.read("fast", file, {})
    with pytest.raises(ValueError, match="no recipe named 'slow'"):
        configs.read("slow", None, {})
    resampling = configs.read("fast", None, {"output": "x", "data": ["y"], "decoder": "resample"})
    assert resampling.hidden_list == (32, 32)


def test_a_network_that_is_begun_from_keeps_its_shape(photos: Path, tmp_path: Path) -> None:
    """The settings of a run say so, whatever else they were given; on the command line it is refused."""
    first = train(make(photos, tmp_path / "first", iterations=1)).weights
    other = make(photos, tmp_path / "second", init=str(first), iterations=1, n_feats=32, hidden_list=(48,))
    assert checkpoint.load(train(other).weights).architecture == checkpoint.load(first).architecture
    kept = configs.read("fast", tmp_path / "second" / configs.SETTINGS, {"output": "there"})
    assert (kept.n_feats, kept.hidden_list) == (16, (16, 16))
    with pytest.raises(ValueError, match=r"n_feats is that of .*, which the run begins from: leave it out, or init"):
        configs.read("fast", None, {"output": "x", "data": ["y"], "init": str(first), "n_feats": 32})
    with pytest.raises(ValueError, match="output is no setting"):
        sit(tmp_path / "third", [photos], "fast", None, {}, ["output=there"], False)


def test_learning_rate() -> None:
    run = Config(output="x", data=("y",), iterations=1000, warmup=10, lr=0.01)
    rates = [run.lr_at(i) for i in range(1000)]
    assert rates[0] == pytest.approx(0.001)
    assert max(rates) == pytest.approx(0.01, rel=1e-3)
    assert rates[-1] < 1e-6 < rates[500] == pytest.approx(0.005)
    halving = configs.read("paper", None, {"output": "x", "data": ("y",)})
    assert [halving.lr_at(i) for i in (0, 199_999, 200_000, 999_999)] == pytest.approx([1e-4, 1e-4, 5e-5, 6.25e-6])


def test_another_decoder_behind_an_encoder(photos: Path, tmp_path: Path) -> None:
    """The encoder is taken over; one of another shape is refused."""
    first = train(make(photos, tmp_path / "liif", iterations=1)).weights
    begun = state.begin(make(photos, tmp_path / "none", encoder=str(first), decoder="resample", seed=5))
    assert begun.architecture.decoder == "resample"
    wanted = checkpoint.load(first).tensors
    for key, tensor in begun.encoder.state_dict(prefix="encoder.").items():
        assert torch.equal(tensor, wanted[key]), key
    with pytest.raises(ValueError, match=r"= \[1, 16, False, .*\], this run's \[2, 16, False, "):
        state.begin(make(photos, tmp_path / "none", encoder=str(first), n_resblocks=2))
    learned = train(make(photos, tmp_path / "resample", encoder=str(first), decoder="resample"))
    assert checkpoint.load(learned.weights).architecture.decoder == "resample"
