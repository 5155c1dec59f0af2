"""checkpoint: foreign, damaged and hostile files are refused in one line, or are whole after all."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from checkpoints import TINY, official, refused, smallest, state, written
from liif_fast.checkpoint import CheckpointError, load, save


def test_foreign_files(tmp_path: Path) -> None:
    path = tmp_path / "file.pth"
    contents = (
        b"",
        b"x",
        b"hello, this is a text file\n" * 9,
        b"\x89PNG\r\n\x1a\n" + bytes(99),
        b'{"json": 1}',
        bytes(64),
    )
    for content in (*contents, pickle.dumps({"a": 1})):
        path.write_bytes(content)
        refused(path, "not a checkpoint")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("hello.txt", "hello")
    refused(path, "zip archive")
    (tmp_path / "folder.pth").mkdir()
    refused(tmp_path / "folder.pth", "not a regular file")


def test_a_compressed_archive_is_not_inflated(tmp_path: Path) -> None:
    with zipfile.ZipFile(TINY) as source, zipfile.ZipFile(tmp_path / "a.pth", "w", zipfile.ZIP_DEFLATED) as copy:
        for name in source.namelist():
            copy.writestr(name, source.read(name))
    refused(tmp_path / "a.pth", "not written by torch.save")


def test_torchscript(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        for name in ("data.pkl", "constants.pkl"):
            archive.writestr(f"a/{name}", b"\x80\x02}.")
    refused(tmp_path / "a.pt", "zip archive")


@pytest.mark.parametrize(
    "content", [[1, 2], "text", 3, torch.ones(3), {}, {1: 2}, {"weight": torch.ones(3)}, {"model": 1}]
)
def test_torch_files_that_are_no_checkpoint(tmp_path: Path, content: object) -> None:
    refused(written(tmp_path, content))


def test_other_networks(tmp_path: Path) -> None:
    refused(written(tmp_path, {"encoder.SFENet1.weight": torch.ones(64, 3, 3, 3)}), "not a LIIF-EDSR", "SFENet1")
    refused(written(tmp_path, {"encoder.SFENet1.weight\n" + "x" * 999: torch.ones(1)}), "not a LIIF-EDSR")
    refused(written(tmp_path, state() | {"encoder.a\nb" + "x" * 999: "text"}), "not a plain tensor")
    bends: list[tuple[Any, str]] = [
        (lambda model: model.update(name="metasr"), "'metasr'"),
        (lambda model: model.update(args=None), "args"),
        (lambda model: model.update(sd=None), "sd"),
        (lambda model: model["args"].pop("encoder_spec"), "encoder_spec"),
        (lambda model: model["args"].update(imnet_spec=None), "imnet_spec"),
        (lambda model: model["args"].update(feat_unfold="yes"), "feat_unfold"),
        (lambda model: model["args"].update(cell_decode=False), "imnet.layers.0.weight"),
        (lambda model: model["args"]["encoder_spec"].update(name="rdn"), "'rdn' is not supported"),
        (lambda model: model["args"]["encoder_spec"].update(name=[]), "list"),
        (lambda model: model["args"]["encoder_spec"].update(args={}), "no_upsampling"),
        (lambda model: model["args"]["encoder_spec"]["args"].update(res_scale="x"), "res_scale"),
        (lambda model: model["args"]["encoder_spec"]["args"].update(res_scale=float("nan")), "res_scale"),
        (lambda model: model["args"]["encoder_spec"]["args"].update(res_scale=10**400), "res_scale"),
        (lambda model: model["args"]["encoder_spec"]["args"].update(n_feats=10**30), "n_feats"),
        (lambda model: model["args"]["encoder_spec"]["args"].update(n_resblocks=None), "n_resblocks is None"),
        (lambda model: model["args"]["imnet_spec"].update(name="siren"), "'siren'"),
        (lambda model: model["args"]["imnet_spec"]["args"].update(hidden_list=[32, 32]), "imnet.layers.6"),
        (lambda model: model["args"]["imnet_spec"]["args"].update(hidden_list=32), "hidden_list"),
        (lambda model: model["args"]["imnet_spec"]["args"].update(hidden_list=[32] * 10**5), "hidden_list"),
    ]
    for bend, word in bends:
        content = official()
        bend(content["model"])
        refused(written(tmp_path, content), word)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("imnet.layers.2.bias", None, "no tensor imnet.layers.2.bias"),
        ("imnet.layers.2.bias", torch.ones(31), "is (31,), the architecture needs (32,)"),
        ("imnet.layers.2.bias", torch.full((32,), float("nan")), "NaN"),
        ("imnet.layers.2.bias", torch.full((32,), 1e300, dtype=torch.float64), "infinite"),
        ("imnet.layers.2.bias", torch.ones(32, dtype=torch.int64), "int64"),
        ("imnet.layers.2.bias", torch.ones(32).to_sparse(), "not a plain tensor"),
        ("imnet.layers.2.bias", torch.ones(32, device="meta"), "not a plain tensor"),
        ("imnet.layers.2.bias", "text", "not a plain tensor"),
        ("encoder.tail.0.weight", torch.ones(1), "unknown tensor 'encoder.tail.0.weight'"),
        ("imnet.layers.1.weight", torch.ones(1), "unknown tensor 'imnet.layers.1.weight'"),
        ("encoder.body.0.body.1.weight", torch.ones(1).expand(10**9, 10**9), ""),
        ("encoder.head.0.weight", torch.ones(1).expand(16, 3, 300, 300), "larger than the file"),
    ],
)
def test_tensors_that_do_not_fit(tmp_path: Path, key: str, value: object, words: str) -> None:
    content = official()
    content["model"]["sd"][key] = value
    if value is None:
        del content["model"]["sd"][key]
    refused(written(tmp_path, content), words)


def test_shapes_that_no_liif_has(tmp_path: Path) -> None:
    for key, value, words in (
        ("imnet.layers.0.weight", torch.ones(32, 147), "imnet takes 147 inputs"),
        ("imnet.layers.0.weight", torch.ones(20, 148), "hidden width 20"),
        ("encoder.head.0.weight", torch.ones(()), "encoder.head.0.weight"),
        ("encoder.head.0.weight", torch.ones(0, 3, 3, 3), "n_feats is 0"),
        ("imnet.layers.6.weight", torch.ones(4, 32), "imnet.layers.6.weight is (4, 32)"),
    ):
        refused(written(tmp_path, state() | {key: value}), words)


class Evil:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}])
def test_no_code_runs(tmp_path: Path, options: dict[str, Any]) -> None:
    trap = tmp_path / "trap"
    content = official()
    content["model"]["args"]["x"] = Evil(trap)
    path = written(tmp_path, content, "evil.pth", **options)
    refused(path, "refused", "mkdir")
    assert not trap.exists()
    torch.load(path, weights_only=False)  # the trap does work
    assert trap.exists()
    (tmp_path / "raw.pth").write_bytes(pickle.dumps(Evil(tmp_path / "trap2")))
    refused(tmp_path / "raw.pth")
    assert not (tmp_path / "trap2").exists()


def small_files(folder: Path) -> list[Path]:
    weights = smallest()
    save(folder / "s.safetensors", weights)
    content = official()
    content["model"]["sd"] = OrderedDict(weights.tensors)
    content["model"]["args"]["encoder_spec"]["args"] |= {"n_resblocks": 1, "n_feats": 1}
    content["model"]["args"]["imnet_spec"]["args"]["hidden_list"] = [16]
    del content["optimizer"]
    written(folder, content, "z.pth")
    written(folder, content, "l.pth", _use_new_zipfile_serialization=False)
    return [folder / "s.safetensors", folder / "z.pth", folder / "l.pth"]


def test_truncated(tmp_path: Path) -> None:
    for path in small_files(tmp_path):
        load(path)
        data = path.read_bytes()
        cut = tmp_path / f"cut{path.suffix}"
        for length in {*range(0, 24), *range(24, len(data), max(1, len(data) // 60)), len(data) - 1}:
            cut.write_bytes(data[:length])
            refused(cut)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    return [path.read_bytes() for path in small_files(tmp_path_factory.mktemp("samples"))]


@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_damage_loads_or_is_refused(samples: list[bytes], tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from(samples)))
    # Most bytes are tensor values; the structure is at the start of every container, and at a zip's end.
    where = st.integers(0, len(content) - 1) | st.integers(0, 900) | st.integers(-900, -1)
    for offset, value in data.draw(st.lists(st.tuples(where, st.integers(0, 255)), min_size=1, max_size=6)):
        content[offset] = value
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content)))]
    path = tmp_path / "damaged.bin"
    path.write_bytes(content)
    message = ""
    try:
        weights = load(path)  # a Weights that exists is valid
    except CheckpointError as error:
        message = str(error)
    assert message.isprintable() if message else weights.fingerprint
