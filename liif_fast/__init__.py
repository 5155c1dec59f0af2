"""Enlarge any image to any size with one small network: LIIF-EDSR, or a faster one that resamples.

import liif_fast
up = liif_fast.Upscaler()
large = up(picture, scale=4)         # PIL, numpy or torch; the same kind comes back
field = up.encode(picture)           # the continuous image: any window at any size
detail = field.render(size=(1080, 1920), box=(10.5, 20, 100, 180))
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .backends import BackendUnavailable
    from .checkpoint import CheckpointError
    from .upscaler import ImageField, Upscaler

__version__ = "0.1.0"
__all__ = ["BackendUnavailable", "CheckpointError", "ImageField", "Upscaler", "__version__"]

_FROM = {
    "BackendUnavailable": "backends",
    "CheckpointError": "checkpoint",
    "ImageField": "upscaler",
    "Upscaler": "upscaler",
}


if not TYPE_CHECKING:  # or type checkers would take every name for one of the package's

    def __getattr__(name: str) -> Any:
        # Torch takes seconds to import; the command line answers --help and most mistakes without it.
        if name not in _FROM:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        value = globals()[name] = getattr(import_module(f".{_FROM[name]}", __name__), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
