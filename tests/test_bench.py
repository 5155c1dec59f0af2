"""`liif-fast bench`: what it measures, of which network, on which backend."""

from __future__ import annotations

import json
import time
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from common import random_weights
from liif_fast import BackendUnavailable, bench, published
from liif_fast.backends import cpu
from liif_fast.checkpoint import Architecture, save

SMALL = bench.Job("8x12", "17x31", (8, 12), (17, 31))
NETWORKS = {
    "liif": random_weights(Architecture(1, 16, (16, 16))),
    "resample": random_weights(Architecture(1, 16, (16,), decoder="resample")),
}


@pytest.fixture(autouse=True)
def _small_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(bench.STAGES, "cpu", SMALL)
    monkeypatch.setitem(bench.WHOLE, "cpu", SMALL)
    monkeypatch.setitem(bench.GEMM, "cpu", (512, 64))


def test_fp32_is_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    """While stages are measured, and as before afterwards."""
    for before in (True, False):
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", before)
        with bench._without_tf32():
            assert not torch.backends.cudnn.allow_tf32
        assert torch.backends.cudnn.allow_tf32 == before


@pytest.mark.parametrize("network", NETWORKS)
def test_rows(network: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "net.safetensors", NETWORKS[network])
    bench.run(str(tmp_path / "net.safetensors"), precision="fp32", threads=2, json_path=tmp_path / "out.json")
    report = json.loads((tmp_path / "out.json").read_text())
    rows = {(row["stage"], row["threads"]): row for row in report["rows"]}
    stages = ["GEMM 512x64x64", "encoder 8x12", "decoder 8x12 → 17x31", "end to end 8x12 → 17x31"]
    assert {(stage, threads) for stage in stages for threads in (1, 2)} <= rows.keys()
    assert (("published, PyTorch", 2) in rows) == (network == "liif") == ("speedup_over_published" in report)
    for row in rows.values():
        assert 0 < row["ms_min"] <= row["ms"] <= row["ms_max"]
    decoder = rows["decoder 8x12 → 17x31", 2]
    assert decoder["megapixels_per_s"] == pytest.approx(17 * 31 / decoder["ms"] / 1e3)
    assert decoder["gflops"] / decoder["share_of_gemm"] == pytest.approx(rows["GEMM 512x64x64", 2]["gflops"])
    printed = capsys.readouterr().out
    assert all(stage in printed for stage in stages)
    assert ("x the published algorithm" in printed) == (network == "liif")


def test_precision_beside_fp32(tmp_path: Path) -> None:
    save(tmp_path / "net.safetensors", NETWORKS["liif"])
    report = bench.measure(str(tmp_path / "net.safetensors"), "cpu", "cpu", "bf16", quick=True)
    whole = [row for row in report["rows"] if row["stage"] == f"end to end {SMALL}"]
    assert {row["precision"] for row in whole} == {"bf16"}
    assert all(40 < row["psnr_to_fp32"] < 100 for row in whole)


def test_a_named_backend_is_the_one_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "net.safetensors", NETWORKS["liif"])
    report = bench.measure(str(tmp_path / "net.safetensors"), "cpu", "reference", "fp32", quick=True)
    assert report["machine"]["backend"] == "reference"
    assert report["machine"]["encoder"] == "native"
    assert report["machine"]["instruction_set"] == cpu.isa(torch.float32)
    with pytest.raises(BackendUnavailable, match="backend 'triton' cannot run on cpu"):
        bench.measure(str(tmp_path / "net.safetensors"), "cpu", "triton", "bf16", quick=True)
    monkeypatch.setattr(bench, "Upscaler", None)  # it says so before there is any work
    for backend, precision, error, text in (
        ("triton", None, BackendUnavailable, "backend 'triton' cannot run on cpu"),
        ("magic", None, ValueError, "got 'magic'"),
        ("auto", "int4", ValueError, "got 'int4'"),
    ):
        with pytest.raises(error, match=text):
            bench.measure(str(tmp_path / "net.safetensors"), "cpu", backend, precision, quick=True)


def test_a_named_engine_is_the_one_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "net.safetensors", NETWORKS["liif"])
    report = bench.measure(str(tmp_path / "net.safetensors"), "cpu", "auto", "fp32", quick=True, engine="torch")
    assert report["machine"]["encoder"] == "torch"
    monkeypatch.setattr(bench, "Upscaler", None)  # it says so before there is any work
    for precision in (None, "fp32"):
        with pytest.raises(BackendUnavailable, match="engine 'tensorrt' cannot run on cpu"):
            bench.measure(str(tmp_path / "net.safetensors"), "cpu", "auto", precision, quick=True, engine="tensorrt")
    with pytest.raises(ValueError, match="got 'magic'"):
        bench.measure(str(tmp_path / "net.safetensors"), "cpu", "auto", "fp32", quick=True, engine="magic")


def test_frames_are_made_before_they_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    roll = np.roll
    monkeypatch.setattr(np, "roll", lambda *args, **how: (time.sleep(0.05), roll(*args, **how))[1])
    seen: list[bytes] = []

    def stream(frames: Any, size: tuple[int, int]) -> Any:
        return (seen.append(frame.tobytes()) for frame in frames)

    up: Any = SimpleNamespace(precision="fp16", stream=stream)
    row = bench._streamed(up, SMALL, 12)
    assert row.ms < 25
    assert (row.runs, len(seen)) == (9, 12)
    assert all(a != b for a, b in pairwise(seen))  # equal ones would not be computed


def test_the_place_of_the_report_is_checked_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "measure", lambda *_: pytest.fail("measured in vain"))
    with pytest.raises(FileNotFoundError, match=r"out.json: there is no folder"):
        bench.run("edsr-baseline", json_path=tmp_path / "new" / "out.json")


def test_a_compiler_that_fails_is_a_note() -> None:
    def fails() -> None:
        raise RuntimeError("no\nkernel")

    notes: list[str] = []
    assert bench._compiled("fp16", fails, torch.device("cpu"), 0, 1, notes) == []
    assert notes == ["published, autocast, torch.compile: left out, RuntimeError: no kernel"]
    (row,) = bench._compiled("fp16", lambda: time.sleep(0.001), torch.device("cpu"), 0, 1, notes)
    assert row.ms > 0
    assert len(notes) == 1


def test_the_published_code_can_be_compiled() -> None:
    """Without a break in its graph, or a compiler would be measured that does little."""
    weights = random_weights(Architecture(1, 8, (16,)))
    image = torch.rand(3, 5, 6)
    plain = published.upscale(weights, image, (11, 13), queries=60)  # the last piece is shorter
    whole = partial(torch.compile, backend="eager", fullgraph=True)
    torch.testing.assert_close(published.upscale(weights, image, (11, 13), queries=60, compiled=whole), plain)
