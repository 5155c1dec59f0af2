"""Which configuration is fastest on this very card: measured once per kind of network, remembered on disk.

The file is one JSON object, key to configuration. It is written whole or not at all; one that cannot be read, or names
a configuration that is not a candidate any more, is as good as none.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median

import torch
import triton
from triton.runtime.errors import OutOfResources

from .configs import Config

VARIABLE = "LIIF_FAST_CACHE"
# Fewer rows of neighbours say little, and a decoding this short is not worth measuring.
LEAST_ROWS = 1 << 18
RUNS = 5
# Clock cycles, about half a millisecond, for which a card is kept busy.
BUSY = 1_000_000

_chosen: dict[str, Config] = {}
_not_on_disk: set[str] = set()  # when last looked
_lock = threading.Lock()


def cache_file() -> Path:
    """In the folder ``LIIF_FAST_CACHE``, or liif_fast in that of the user's caches; of a user without a home, as some
    containers have, in that for temporary files."""
    if folder := os.environ.get(VARIABLE):
        return Path(folder) / "triton.json"
    home = Path(os.path.expanduser("~"))  # "~" itself where there is none; Path.home would raise
    usual = home / ".cache" if home.is_absolute() else tempfile.gettempdir()
    return Path(os.environ.get("XDG_CACHE_HOME") or usual) / "liif_fast" / "triton.json"


def key(device: str, widths: Sequence[int], dtype: torch.dtype, sides: int) -> str:
    """All that the choice depends on."""
    return f"{device}, triton {triton.__version__}, {'-'.join(map(str, widths))}, {dtype}, {sides} sides"


def choose(name: str, among: Sequence[Config], measure: Callable[[Config], float] | None) -> Config:
    """The remembered configuration of ``name``, or the fastest by ``measure`` (any unit), which is then remembered.

    ``measure`` None: this is no time for it (a short decoding, a graph being captured); then the remembered one or the
    first.
    """
    if len(among) == 1:
        return among[0]
    with _lock:
        if name not in _chosen and (measure is not None or name not in _not_on_disk):
            kept = _read().get(name)
            if kept in among:
                _chosen[name] = kept
            elif measure is None:
                _not_on_disk.add(name)
            else:
                times = {config: measure(config) for config in among}
                best = min(among, key=times.__getitem__)
                if math.isfinite(times[best]):
                    _chosen[name] = best
                    _write(name, best)
        return _chosen.get(name, among[0])


def milliseconds(run: Callable[[], object]) -> float:
    """Of work on the current device, after one run that may compile, queued while it is busy: a short kernel takes less
    time than its launch takes the host. Infinite where a card has too little room, in which versions of Triton differ.
    """
    try:
        run()
    except OutOfResources:
        return math.inf
    times = []
    for _ in range(RUNS):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda._sleep(BUSY)
        start.record()
        run()
        stop.record()
        stop.synchronize()
        times.append(start.elapsed_time(stop))
    return median(times)


def _read() -> dict[str, Config]:
    try:
        found = json.loads(cache_file().read_text())
        return {str(name): Config(*map(int, value)) for name, value in found.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _write(name: str, config: Config) -> None:
    path = cache_file()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    # A cache that cannot be written is measured again next time.
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_text(json.dumps({**_read(), name: config}, indent=1) + "\n")
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
