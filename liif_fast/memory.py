"""Memory of the processor that this process may still take: the machine's, and that of its control groups."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import psutil

GROUPS, MINE = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
# By controller, of which version 2 has one without a name: a group's folder, limit, and what counts towards it.
_FILES = {
    "": ("", "memory.max", "memory.current"),
    "memory": ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
}


def free() -> int:
    """Bytes: what the machine has, or what a container or job (Docker, Kubernetes, Slurm) is allowed, if less."""
    machine = psutil.virtual_memory()
    groups = [_left(group, int(machine.total)) for group in _groups()]
    return max(0, min([int(machine.available), *(left for left in groups if left is not None)]))


def _left(group: tuple[Path, Path, Path], total: int) -> int | None:
    """None where the group has no limit below ``total``."""
    limit_file, used_file, stat_file = group
    try:
        limit = int(limit_file.read_text())
        if limit >= total:
            return None
        stat = dict(line.split() for line in stat_file.read_text().splitlines())
        # Files that were read count towards it, and make room where it is needed.
        files = sum(int(stat[f"{kind}_file"]) for kind in ("active", "inactive"))
        return limit - int(used_file.read_text()) + files
    except (OSError, ValueError, KeyError):  # "max", or not told
        return None


@cache
def _groups() -> list[tuple[Path, Path, Path]]:
    """This process's, and those around it, as far as they are seen from here: limit, use, statistics."""
    try:
        lines = MINE.read_text().splitlines()
    except OSError:  # no Linux
        return []
    found: list[tuple[Path, Path, Path]] = []
    for controllers, path in (line.split(":", 2)[1:] for line in lines):
        for folder, limit, used in (_FILES[name] for name in controllers.split(",") if name in _FILES):
            own = Path(path.lstrip("/"))
            groups = [GROUPS / folder / part for part in (own, *own.parents)]
            found += [(g / limit, g / used, g / "memory.stat") for g in groups if (g / limit).is_file()]
    return found
