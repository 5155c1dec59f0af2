"""The bundled networks, each a file with its card, and the names of two of them."""

from __future__ import annotations

from pathlib import Path

BUNDLED = Path(__file__).parent
DEFAULT = "edsr-baseline-resample"
PAPER = "edsr-baseline"  # LIIF itself, what others can be compared with


def for_jpeg(model: str) -> str | None:
    """The bundled network that was made from another, by its name, for compressed pictures."""
    name = f"{model}-jpeg"
    return name if (BUNDLED / f"{name}.safetensors").is_file() else None
