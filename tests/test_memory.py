"""Free memory in containers and jobs."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from common import random_weights
from liif_fast import Upscaler, memory
from liif_fast.architecture import Architecture

MACHINE = 64 << 30
FREE = 40 << 30
STAT = "anon 5000\ninactive_file 300\nactive_file 200\n"
Groups = Callable[[str, dict[str, str]], None]


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Groups]:
    """A machine whose control groups are in files, given by their places under /sys/fs/cgroup."""

    def make(mine: str, files: dict[str, str]) -> None:
        (tmp_path / "mine").write_text(mine)
        for place, text in files.items():
            file = tmp_path / "cgroup" / place
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        memory._groups.cache_clear()

    monkeypatch.setattr(memory, "GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(memory, "MINE", tmp_path / "mine")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: types.SimpleNamespace(available=FREE, total=MACHINE))
    memory._groups.cache_clear()
    yield make
    memory._groups.cache_clear()


def test_without_groups(groups: Groups) -> None:
    assert memory.free() == FREE


@pytest.mark.parametrize(
    ("mine", "folder", "limit", "used"),
    [
        ("0::/\n", "", "memory.max", "memory.current"),
        ("0::/system.slice/web.service\n", "system.slice/web.service/", "memory.max", "memory.current"),
        ("0::/job/step/task\n", "job/", "memory.max", "memory.current"),
        # A container of Docker's sees its own group at the root, and is told the machine's name for it.
        ("9:name=x:/\n4:cpu,memory:/docker/5f\n", "memory/", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ],
)
def test_of_a_group(groups: Groups, mine: str, folder: str, limit: str, used: str) -> None:
    groups(mine, {folder + limit: "2000000\n", folder + used: "1500000\n", folder + "memory.stat": STAT})
    assert memory.free() == 500_500
    groups(mine, {folder + used: "3000000\n"})
    assert memory.free() == 0


@pytest.mark.parametrize("limit", ["max\n", "9223372036854771712\n", f"{MACHINE}\n"])
def test_no_limit(groups: Groups, limit: str) -> None:
    groups("0::/\n", {"memory.max": limit, "memory.current": "1500000\n", "memory.stat": STAT})
    assert memory.free() == FREE


def test_budgets_go_by_it(groups: Groups) -> None:
    up = Upscaler(random_weights(Architecture(1, 16, (16, 16))), device="cpu")
    before = up._budget()
    groups("0::/\n", {"memory.max": f"{1 << 30}", "memory.current": f"{600 << 20}", "memory.stat": STAT})
    assert up._budget() == (424 << 20) // 2 + 250 < before
