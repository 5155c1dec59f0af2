"""What is handed on: the source distribution, and with it what the wheel is made of."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from common import ROOT

# Git's and the servers' own.
LEFT_OUT = {".gitignore", ".ci/run"}


@pytest.mark.skipif(not (ROOT / ".git").exists() or not shutil.which("git"), reason="not a checkout")
def test_source_distribution_is_whole(tmp_path: Path) -> None:
    """All that is tracked is in it: a package that pyproject.toml does not name would be missing, in the wheel too."""
    command = [sys.executable, "setup.py", "-q", "egg_info", "--egg-base", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    listed = set((tmp_path / "liif_fast.egg-info/SOURCES.txt").read_text().splitlines())
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    # kernels/ is listed where it lies, and the link to it in liif_fast/ is not.
    wanted = set(tracked.stdout.splitlines()) - LEFT_OUT - {"liif_fast/kernels"}
    assert len(wanted) > 100
    assert sorted(wanted - listed) == []
