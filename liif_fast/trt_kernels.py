"""What TensorRT for RTX compiles as it runs: shared by all contexts of an engine, and kept on disk.

It compiles for seconds when a process begins, and again for a size that none of its kernels is good for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from . import engine_cache

# Far more than the sizes of one network's pictures want.
MOST_BYTES = 1 << 28


class Kernels:
    """Compiled kernels of the engine of ``key``, in an `IRuntimeCache` and the file ``path``.

    The former takes nothing that was compiled for another card, driver or version.
    """

    def __init__(self, path: Path, key: dict[str, str]) -> None:
        self._path, self._key = path, key
        self._cache: Any = None
        self._bytes = 0  # in the file, and of use

    def give(self, config: Any) -> None:
        """To a context that will be made with ``config``, an `IRuntimeConfig`."""
        if self._cache is None:
            self._cache = config.create_runtime_cache()
            kept = engine_cache.read(self._path, self._key)
            if kept and self._cache.deserialize(kept[0]):
                self._bytes = len(kept[0])
        config.set_runtime_cache(self._cache)

    def keep(self) -> None:
        """In the file, where there are more than it has."""
        found = bytes(self._cache.serialize())
        if self._bytes < len(found) <= MOST_BYTES:
            self._bytes = len(found)
            engine_cache.write(self._path, self._key, found, {})
