"""checkpoint: every kind of file it reads, every kind it refuses, names, and the atomic save."""

from __future__ import annotations

import json
import os
import re
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file

from checkpoints import TINY, official, refused, same, smallest, state, written
from common import GOLDEN
from liif_fast import checkpoint
from liif_fast.checkpoint import Architecture, CheckpointError, available, load, resolve, save
from liif_fast.weights import DEFAULT

# ---- architecture ----


def test_architecture_derives_its_sizes() -> None:
    paper = Architecture(16, 64, (256, 256, 256, 256))
    assert (paper.imnet_in, paper.halo) == (580, 35)
    assert replace(paper, feat_unfold=False).imnet_in == 68
    assert replace(paper, feat_unfold=False).halo == 34
    assert replace(paper, cell_decode=False).imnet_in == 578
    assert paper.summary() == (
        "LIIF-EDSR: 16 blocks of 64 features, hidden 256-256-256-256, local_ensemble, feat_unfold, cell_decode; "
        "1.57 M parameters, halo 35"
    )
    assert next(iter(paper.shapes.items())) == ("encoder.head.0.weight", (64, 3, 3, 3))
    assert paper.shapes["encoder.body.16.bias"] == (64,)
    assert paper.shapes["imnet.layers.8.weight"] == (3, 256)


@pytest.mark.parametrize(
    "change",
    [
        {"n_resblocks": 0},
        {"n_resblocks": 10**9},
        {"n_resblocks": True},
        {"n_feats": 0},
        {"n_feats": 10**30},
        {"n_feats": 64.0},
        {"hidden_list": ()},
        {"hidden_list": [256]},
        {"hidden_list": (256,) * 65},
        {"hidden_list": (8,)},
        {"hidden_list": (40,)},
        {"hidden_list": (272,)},
        {"hidden_list": ("256",)},
        {"feat_unfold": 1},
        {"mean": (0.5, 0.5)},
        {"mean": (0.5, 0.5, float("nan"))},
        {"std": (0.5, 0.5, 0.0)},
    ],
)
def test_architecture_refuses(change: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError):
        replace(Architecture(1, 1, (16,)), **change)


def test_weights_refuse_what_is_not_the_network() -> None:
    good = smallest()
    key = "imnet.layers.0.bias"
    for bad in (good.tensors[key].double(), good.tensors[key][:3], torch.ones(32)[::2], good.tensors[key] / 0):
        with pytest.raises(CheckpointError, match=key):
            replace(good, tensors={**good.tensors, key: bad})


def test_fingerprint_follows_the_network_only() -> None:
    a = smallest()
    assert same(a, replace(a, name="other", metadata={"description": "x"}))
    assert len(a.fingerprint) == 16
    b = replace(a, tensors={**a.tensors, "encoder.head.0.bias": a.tensors["encoder.head.0.bias"] + 1})
    c = replace(a, architecture=replace(a.architecture, local_ensemble=False))
    assert len({a.fingerprint, b.fingerprint, c.fingerprint}) == 3


# ---- official files ----


@pytest.mark.parametrize(
    ("name", "hidden", "blocks", "off"),
    [
        ("tiny", (32, 32, 32), 2, None),
        ("tiny_noensemble", (32, 32), 2, "local_ensemble"),
        ("tiny_nounfold", (32, 32), 1, "feat_unfold"),
        ("tiny_nocell", (32, 32), 1, "cell_decode"),
    ],
)
def test_official(name: str, hidden: tuple[int, ...], blocks: int, off: str | None) -> None:
    weights = load(GOLDEN / f"{name}.pth")
    expected = Architecture(blocks, 16, hidden)
    assert weights.architecture == (replace(expected, **{off: False}) if off else expected)  # type: ignore[arg-type]
    assert weights.name == name
    assert weights.metadata == {}
    source = official(name)["model"]["sd"]
    assert list(weights.tensors) == [key for key in source if "_mean" not in key]
    assert all(torch.equal(tensor, source[key]) for key, tensor in weights.tensors.items())


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}])
@pytest.mark.parametrize("suffix", ["pth", "safetensors", "weights"])
def test_content_decides_not_the_suffix(tmp_path: Path, options: dict[str, Any], suffix: str) -> None:
    path = written(tmp_path, official(), f"a.{suffix}", **options)
    assert same(load(path), load(TINY))


def test_safetensors_under_another_suffix(tmp_path: Path) -> None:
    save(tmp_path / "a.pth", smallest(), torch.float32)
    assert same(load(tmp_path / "a.pth"), smallest())


@pytest.mark.parametrize(("encoder", "blocks", "feats"), [("edsr-baseline", 16, 64), ("edsr", 32, 256)])
def test_defaults_of_the_reference(tmp_path: Path, encoder: str, blocks: int, feats: int) -> None:
    content = official()
    content["model"]["args"]["encoder_spec"] = {"name": encoder, "args": {"no_upsampling": True, "n_resblocks": 2}}
    refused(
        written(tmp_path, content), f"encoder.head.0.weight is (16, 3, 3, 3), the architecture needs ({feats}, 3, 3, 3)"
    )
    content["model"]["args"]["encoder_spec"] = {"name": encoder, "args": {"no_upsampling": True, "n_feats": 16}}
    keys = [f"body.{j}.{part}" for j in (0, 2) for part in ("weight", "bias")]
    sd = content["model"]["sd"]
    for i in range(2, blocks):
        sd |= {f"encoder.body.{i}.{key}": sd[f"encoder.body.0.{key}"].clone() for key in keys}
    last = f"encoder.body.{blocks - 1}.body.2.bias"
    del sd[last]
    refused(written(tmp_path, content), f"no tensor {last}")


@pytest.mark.parametrize(("encoder", "given", "scale"), [("edsr", None, 0.1), ("edsr-baseline", 0.3, 0.3)])
def test_res_scale_is_folded(tmp_path: Path, encoder: str, given: float | None, scale: float) -> None:
    content = official()
    spec: dict[str, Any] = {"no_upsampling": True, "n_resblocks": 2, "n_feats": 16}
    content["model"]["args"]["encoder_spec"] = {"name": encoder, "args": spec | ({"res_scale": given} if given else {})}
    ours, sd = load(written(tmp_path, content)).tensors, content["model"]["sd"]

    def block(t: dict[str, torch.Tensor], x: torch.Tensor, scale: float) -> torch.Tensor:
        name = "encoder.body.1.body"
        inner = F.conv2d(x, t[f"{name}.0.weight"].double(), t[f"{name}.0.bias"].double(), padding=1).relu()
        return x + scale * F.conv2d(inner, t[f"{name}.2.weight"].double(), t[f"{name}.2.bias"].double(), padding=1)

    x = torch.randn(1, 16, 7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(block(ours, x, 1.0), block(sd, x, scale), rtol=0, atol=1e-6)
    exact = (sd["encoder.body.0.body.2.weight"].double() * scale).float()
    assert torch.equal(ours["encoder.body.0.body.2.weight"], exact)
    assert torch.equal(ours["encoder.body.0.body.0.weight"], sd["encoder.body.0.body.0.weight"])


@pytest.mark.parametrize("name", ["tiny", "tiny_nounfold", "tiny_nocell"])
@pytest.mark.parametrize("wrap", [lambda sd: sd, lambda sd: {"state_dict": sd, "epoch": 3}, lambda sd: {"model": sd}])
def test_raw_state_dict(tmp_path: Path, name: str, wrap: Any) -> None:
    assert same(load(written(tmp_path, wrap(official(name)["model"]["sd"]))), load(GOLDEN / f"{name}.pth"))


def test_raw_state_dict_as_safetensors(tmp_path: Path) -> None:
    save_file(state(), tmp_path / "a.safetensors", {"format": "pt", "note": "kept"})
    weights = load(tmp_path / "a.safetensors")
    assert same(weights, load(TINY))
    assert weights.metadata == {"note": "kept"}


def test_large_edsr_needs_its_args(tmp_path: Path) -> None:
    shapes = Architecture(32, 256, (16,)).shapes
    bare = {key: torch.zeros(1).expand(shape) for key, shape in shapes.items()}
    refused(written(tmp_path, bare), "res_scale")


def test_parameters_halves_and_strides_are_read(tmp_path: Path) -> None:
    changed: dict[str, Any] = {
        key: torch.nn.Parameter(value) if value.dim() == 1 else value.transpose(0, 1).contiguous().transpose(0, 1)
        for key, value in state().items()
    }
    assert same(load(written(tmp_path, changed)), load(TINY))
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        weights = load(written(tmp_path, {key: value.to(dtype) for key, value in state().items()}))
        assert torch.equal(weights.tensors["imnet.layers.2.weight"], state()["imnet.layers.2.weight"].to(dtype).float())


# ---- mmagic ----


def mmagic(prefix: str = "generator.") -> dict[str, Any]:
    renamed = {}
    for key, value in state().items():
        key = key.replace("encoder.head.0.", "conv_first.").replace("encoder.body.2.", "conv_after_body.")
        key = re.sub(r"encoder\.body\.(\d)\.body\.0", r"body.\1.conv1", key)
        renamed[prefix + re.sub(r"encoder\.body\.(\d)\.body\.2", r"body.\1.conv2", key)] = value
    assert f"{prefix}body.0.conv1.weight" in renamed
    assert f"{prefix}conv_after_body.bias" in renamed
    return renamed


@pytest.mark.parametrize("prefix", ["generator.", "", "generator_ema."])
@pytest.mark.parametrize("wrapped", [True, False])
def test_mmagic(tmp_path: Path, prefix: str, wrapped: bool) -> None:
    content = mmagic(prefix) | {"step_counter": torch.tensor(7), "data_preprocessor.mean": torch.ones(3, 1, 1)}
    if prefix == "generator.":
        content |= {key.replace("generator.", "generator_ema."): value + 1 for key, value in mmagic().items()}
    weights = load(written(tmp_path, {"state_dict": content, "meta": {"iter": 5}} if wrapped else content))
    norm = {"mean": (0.4488, 0.4371, 0.4040), "std": (1.0, 1.0, 1.0)}
    assert weights.architecture == replace(load(TINY).architecture, **norm)  # type: ignore[arg-type]
    assert all(torch.equal(tensor, state()[key]) for key, tensor in weights.tensors.items())


def test_mmagic_damaged(tmp_path: Path) -> None:
    refused(written(tmp_path, mmagic() | {"generator.body.0.conv3.weight": torch.ones(1)}), "unknown", "conv3")
    content = mmagic()
    del content["generator.conv_after_body.bias"]
    refused(written(tmp_path, content), "no tensor", "encoder.body.2.bias")


# ---- our files ----


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_round_trip(tmp_path: Path, dtype: torch.dtype) -> None:
    norm = {"mean": (0.4488, 0.1, 1 / 3), "std": (1.0, 0.25, 0.5)}
    weights = replace(smallest(local_ensemble=False, hidden_list=(16, 48), **norm), metadata={"licence": "x", "a": "1"})
    save(tmp_path / "m.safetensors", weights, dtype)
    again = load(tmp_path / "m.safetensors")
    assert again.architecture == weights.architecture
    assert again.name == "m"
    assert again.metadata == {"licence": "x", "a": "1"}
    assert all(torch.equal(again.tensors[key], value.to(dtype).float()) for key, value in weights.tensors.items())
    save(tmp_path / "n.safetensors", again, dtype)
    assert same(load(tmp_path / "n.safetensors"), again)
    assert load(tmp_path / "n.safetensors").metadata == again.metadata


def test_loaded_tensors_do_not_alias_the_file(tmp_path: Path) -> None:
    for name in ("a.safetensors", "a.pth"):
        path = tmp_path / name
        if name.endswith("pth"):
            written(tmp_path, state(), name)
        else:
            save(path, smallest(), torch.float32)
        weights = load(path)
        before = {key: value.clone() for key, value in weights.tensors.items()}
        size = path.stat().st_size
        with path.open("r+b") as file:  # a mapped file would show this
            file.write(b"\xff" * size)
        assert all(torch.equal(value, before[key]) for key, value in weights.tensors.items())


def our_file(path: Path, **changes: str | None) -> Path:
    metadata = {**checkpoint._to_metadata(smallest().architecture), **changes}
    save_file(smallest().tensors, path, {key: value for key, value in metadata.items() if value is not None})
    return path


def test_a_file_that_older_versions_would_misread_says_so(tmp_path: Path) -> None:
    """They know version 1 alone, and would leave out a ReLU in silence."""
    versions = {}
    for flag in (False, True):
        weights = smallest()
        weights = replace(weights, architecture=replace(weights.architecture, relu_after_add=flag))
        save(tmp_path / "m.safetensors", weights, force=True)
        assert load(tmp_path / "m.safetensors").architecture == weights.architecture
        with safe_open(tmp_path / "m.safetensors", framework="pt") as file:
            versions[flag] = file.metadata()["version"]
    assert versions == {False: "1", True: "2"}


def test_metadata_defaults(tmp_path: Path) -> None:
    flags = ("local_ensemble", "feat_unfold", "cell_decode", "relu_after_add")
    absent = dict.fromkeys(("format", "version", "mean", "std", *flags))
    assert same(load(our_file(tmp_path / "m.safetensors", **absent)), smallest())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"version": "3"}, ["format version '3'", "update"]),
        ({"n_resblocks": "1000000000000"}, ["n_resblocks"]),
        ({"n_resblocks": "9" * 900}, ["n_resblocks"]),
        ({"n_resblocks": "9" * 100_000}, ["n_resblocks"]),
        ({"n_resblocks": "[" * 100_000}, ["n_resblocks"]),
        ({"n_resblocks": "2"}, ["no tensor", "encoder.body.1.body.0.weight"]),
        ({"n_feats": "4000"}, ["encoder.head.0.weight is (1, 3, 3, 3)", "needs (4000, 3, 3, 3)"]),
        ({"n_feats": "-1"}, ["n_feats is -1"]),
        ({"n_feats": "1,2"}, ["n_feats"]),
        ({"n_feats": None}, ["n_feats"]),
        ({"hidden_list": None}, ["hidden_list"]),
        ({"hidden_list": ""}, ["hidden_list"]),
        ({"hidden_list": ",".join(["256"] * 5000)}, ["hidden_list"]),
        ({"hidden_list": "512"}, ["hidden width 512", "16 to 256"]),
        ({"hidden_list": "24"}, ["hidden width 24", "multiples of 16"]),
        ({"local_ensemble": "True\nfalse"}, ["local_ensemble"]),
        ({"feat_unfold": "false"}, ["imnet.layers.0.weight is (16, 13)", "needs (16, 5)"]),
        ({"relu_after_add": "1"}, ["relu_after_add is 1"]),
        ({"mean": "0.5,0.5"}, ["mean"]),
        ({"mean": "NaN,0,0"}, ["mean"]),
        ({"std": "0,0,0"}, ["std"]),
    ],
)
def test_metadata_that_lies(tmp_path: Path, changes: dict[str, str | None], words: list[str]) -> None:
    refused(our_file(tmp_path / "m.safetensors", **changes), *words)


def test_forged_safetensors_header(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    for header in (
        {"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}},
        {"a": {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 0]}},
        {},
        {"__metadata__": {"n_resblocks": "1"}},
    ):
        data = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(data)) + data)
        refused(path)
    path.write_bytes(struct.pack("<Q", 2**60) + b"{" + bytes(100))
    refused(path, "damaged or truncated")


# ---- names ----


def test_bundled_default() -> None:
    weights = load()
    assert weights.name == DEFAULT
    assert weights.architecture == Architecture(16, 64, (32, 32), decoder="resample")
    assert {"description", "licence", "training", "data"} <= weights.metadata.keys()
    assert same(weights, load("edsr-baseline-resample"))
    assert same(weights, load(available()["edsr-baseline-resample"]))
    assert load("edsr-baseline").architecture == Architecture(16, 64, (256, 256, 256, 256))


def test_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = tmp_path / "one", tmp_path / "two"
    for folder in (first, second):
        folder.mkdir()
    save(second / "mine.safetensors", smallest())
    written(second, official(), "other.v1.pth")
    written(second, official(), "third.pt")
    save(first / "edsr-baseline.safetensors", smallest())
    bundled = available()["edsr-baseline"]
    monkeypatch.setenv("LIIF_FAST_MODELS", os.pathsep.join(["", str(first), str(tmp_path / "absent"), str(second)]))
    assert available()["edsr-baseline"] == bundled, "a folder cannot replace a bundled model"
    assert {"mine", "other.v1", "third"} <= available().keys()
    assert load("mine").name == "mine"
    assert load("other.v1").name == "other.v1"
    assert resolve("third") == second / "third.pt"
    save(first / "mine.safetensors", smallest())
    assert resolve("mine") == first / "mine.safetensors", "the first folder counts"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "third").mkdir()
    assert resolve("third") == second / "third.pt", "a folder of that name is no model"
    (tmp_path / "mine").write_bytes(TINY.read_bytes())
    assert resolve("mine") == Path("mine"), "an existing file is a path"


@pytest.mark.parametrize("name", ["nope", "nope.pth", "a/b", "", "edsr-baseline.safetensors", "a\0b", "new\nline"])
def test_missing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="known models: edsr-baseline") as info:
        load(name)
    assert str(info.value).isprintable()


# ---- save ----


def test_save_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(b"old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, fail)
            with pytest.raises(OSError, match="disk full"):
                save(path, smallest(), force=True)
        assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]
        assert path.read_bytes() == b"old"
    with pytest.raises(FileNotFoundError):
        save(tmp_path / "absent" / "m.safetensors", smallest())
    with pytest.raises(FileExistsError, match="force=True"):
        save(path, smallest())
    assert path.read_bytes() == b"old"
    save(path, smallest(), force=True)
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]
    assert load(path)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask()


def umask() -> int:
    current = os.umask(0o022)
    os.umask(current)
    return current


def test_save_refuses(tmp_path: Path) -> None:
    path, weights = tmp_path / "m.safetensors", smallest()
    with pytest.raises(ValueError, match="float64"):
        save(path, weights, torch.float64)
    with pytest.raises(ValueError, match="reserved"):
        save(path, replace(weights, metadata={"n_feats": "3"}))
    with pytest.raises(TypeError, match="str"):
        save(path, replace(weights, metadata={"a": 1}))  # type: ignore[dict-item]
    big = replace(weights, tensors={**weights.tensors, "imnet.layers.0.bias": torch.full((16,), 1e5)})
    with pytest.raises(CheckpointError, match=r"imnet\.layers\.0\.bias does not fit .*float16"):
        save(path, big, torch.float16)
    assert list(tmp_path.iterdir()) == []
    save(path, big, torch.bfloat16)
