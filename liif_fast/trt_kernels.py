"""What TensorRT for RTX compiles as it runs, shared by all contexts of an engine."""

from __future__ import annotations

from typing import Any


class Kernels:
    """Compiled kernels of one engine, in an `IRuntimeCache`: those of one stream are there for the others."""

    def __init__(self) -> None:
        self._cache: Any = None

    def give(self, config: Any) -> None:
        """To a context that will be made with ``config``, an `IRuntimeConfig`."""
        if self._cache is None:
            self._cache = config.create_runtime_cache()
        config.set_runtime_cache(self._cache)
