"""The remembered choice among configurations: kept, shared, and worth nothing when damaged."""

from __future__ import annotations

import json
import math
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")
from triton.runtime.errors import OutOfResources

from liif_fast.kernels import tuning
from liif_fast.kernels.configs import Config

SLOW, FAST = Config(128, 32, 8, 32), Config(64, 32, 4, 32, stages=2)
TIMES = {SLOW: 2.0, FAST: 1.0}
AMONG = [SLOW, FAST]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(tuning.VARIABLE, str(tmp_path / "new"))
    monkeypatch.setattr(tuning, "_chosen", {})
    monkeypatch.setattr(tuning, "_not_on_disk", set())
    return tmp_path / "new" / "triton.json"


def never(config: Config) -> float:
    raise AssertionError("measured again")


def test_measured_once_and_remembered(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tuning.choose("a", AMONG, None) == SLOW
    assert not cache.exists()
    assert tuning.choose("a", AMONG, TIMES.__getitem__) == FAST
    assert tuning.choose("a", AMONG, never) == FAST
    monkeypatch.setattr(tuning, "_chosen", {})  # another process
    assert tuning.choose("a", AMONG, never) == FAST
    assert tuning.choose("b", AMONG, TIMES.__getitem__) == FAST
    assert set(json.loads(cache.read_text())) == {"a", "b"}
    assert [path.name for path in cache.parent.iterdir()] == ["triton.json"]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"a": 3}', '{"a": [1]}', '{"a": ["x", "y", "z"]}', '{"a": [16, 16, 1]}', "\0\xff"]
)
def test_damaged_or_stale(cache: Path, text: str) -> None:
    cache.parent.mkdir()
    cache.write_bytes(text.encode("latin-1"))
    assert tuning.choose("a", AMONG, None) == SLOW
    assert tuning.choose("a", AMONG, TIMES.__getitem__) == FAST
    assert json.loads(cache.read_text())["a"] == list(FAST)


def test_the_disk_is_asked_once_until_there_is_something_to_measure(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads, kept = [], {"b": FAST}
    monkeypatch.setattr(tuning, "_read", lambda: reads.append(1) or kept)
    assert [tuning.choose("a", AMONG, None) for _ in range(3)] == [SLOW] * 3
    assert len(reads) == 1
    kept["a"] = FAST  # another process has measured meanwhile
    assert tuning.choose("a", AMONG, never) == FAST
    assert len(reads) == 2


def test_what_nothing_ran_is_not_remembered(cache: Path) -> None:
    assert tuning.choose("a", AMONG, lambda _: math.inf) == SLOW
    assert not cache.exists()
    assert tuning.choose("a", AMONG, TIMES.__getitem__) == FAST


def test_nowhere_to_write(cache: Path) -> None:
    cache.parent.write_text("a file where the folder should be")
    assert tuning.choose("a", AMONG, TIMES.__getitem__) == FAST
    assert tuning.choose("a", AMONG, never) == FAST


def test_several_threads_measure_once(cache: Path) -> None:
    asked = []

    def measure(config: Config) -> float:
        asked.append(config)
        return TIMES[config]

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: tuning.choose("a", AMONG, measure), range(50))) == {FAST}
    assert asked == AMONG


def test_a_launch_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """The card is busy when the clock is queued, so the host's time before a kernel begins is not in it."""
    queued: list[str] = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            queued.append("clock")

        def synchronize(self) -> None: ...

        def elapsed_time(self, other: Event) -> float:
            return 3.0

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "_sleep", lambda cycles: queued.append("busy"))
    assert tuning.milliseconds(lambda: queued.append("kernel")) == 3
    assert queued == ["kernel", *["busy", "clock", "kernel", "clock"] * tuning.RUNS]


def test_too_large_for_the_card() -> None:
    def run(config: Config) -> None:
        raise OutOfResources(233472, 232448, "shared memory")

    assert tuning.milliseconds(lambda: run(SLOW)) == math.inf


def test_key_says_all() -> None:
    widths = ((32, 32), (32, 64))
    keys = {
        tuning.key(card, w, t, s)
        for card in ("A", "B")
        for w in widths
        for t in (torch.float16, torch.bfloat16)
        for s in (1, 2)
    }
    assert len(keys) == 16


def test_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(tuning.VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", os.sep + "x")
    assert tuning.cache_file() == Path("/x/liif_fast/triton.json")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert tuning.cache_file() == Path.home() / ".cache/liif_fast/triton.json"
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", lambda _: {}["nobody"])
    assert tuning.cache_file() == Path(tempfile.gettempdir()) / "liif_fast/triton.json"
