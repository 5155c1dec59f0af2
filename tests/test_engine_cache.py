"""Engines on disk: found again, and never in the place of another one or half written."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from liif_fast import engine_cache
from liif_fast.backends import BackendUnavailable
from liif_fast.engine_cache import FOLDER_VARIABLE, folder, place, read, write

KEY = {"weights": "0123", "version": "1.0"}
ENGINE = bytes(range(256)) * 64 + b"\n{}\n"
GOOD = {"psnr": 80.0, "problem": None}


def test_the_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "own"))
    assert folder() == tmp_path / "own"
    monkeypatch.delenv(FOLDER_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert folder() == tmp_path / "liif_fast"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert folder() == tmp_path / ".cache" / "liif_fast"
    with monkeypatch.context() as homeless:
        homeless.delenv("HOME")
        homeless.setattr("pwd.getpwuid", lambda _: {}["nobody"])
        with pytest.raises(BackendUnavailable, match=FOLDER_VARIABLE):
            folder()
    assert place("ab", "tensorrt-rtx", "../RTX 4090").name == "ab-tensorrt_rtx-.._RTX_4090.engine"


def test_what_is_kept_is_found(tmp_path: Path) -> None:
    path = tmp_path / "new" / "deep" / "a.engine"
    assert read(path, KEY) is None
    write(path, KEY, ENGINE, GOOD)
    assert read(path, KEY) == (ENGINE, GOOD)
    assert [p.name for p in path.parent.iterdir()] == ["a.engine"]
    write(path, {**KEY, "version": "2.0"}, b"another", GOOD)
    assert read(path, KEY) is None  # stale
    assert read(path, {**KEY, "version": "2.0"}) == (b"another", GOOD)


@pytest.mark.parametrize("damage", ["cut", "flipped", "longer", "empty", "header", "foreign", "list", "folder"])
def test_damage_is_no_engine(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.engine"
    write(path, KEY, ENGINE, GOOD)
    data = path.read_bytes()
    half = len(data) // 2
    changed = {
        "cut": data[:half],
        "flipped": data[:half] + bytes([data[half] ^ 1]) + data[half + 1 :],
        "longer": data + b"x",
        "empty": b"",
        "header": data[5:],
        "foreign": b"\x00" * 100_000,
        "list": b"[]\n" + ENGINE,
        "folder": None,
    }[damage]
    path.unlink()
    if changed is None:
        path.mkdir()
    else:
        path.write_bytes(changed)
    assert read(path, KEY) is None


def write_often(path: Path, byte: int) -> None:
    for _ in range(30):
        write(path, KEY, bytes([byte]) * 100_000, GOOD)


# Python ≥ 3.12 warns of forks beside threads; these children only write files, and others would not start together.
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_two_writers_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.engine"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write_often, args=(path, byte)) for byte in (1, 2)]
    for writer in writers:
        writer.start()
    seen = []
    while any(writer.is_alive() for writer in writers):
        if path.exists():
            seen.append(read(path, KEY))
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert seen
    assert None not in seen
    assert all(found is not None and len(set(found[0])) == 1 and len(found[0]) == 100_000 for found in seen)
    assert [p.name for p in tmp_path.iterdir()] == ["a.engine"]


def test_a_disk_that_takes_nothing_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="not kept"):
        engine_cache.write(tmp_path / "file" / "a.engine", KEY, ENGINE, GOOD)
