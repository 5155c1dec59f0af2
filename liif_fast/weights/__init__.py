"""The bundled networks, each a file with its card, and the names of two of them."""

from pathlib import Path

BUNDLED = Path(__file__).parent
DEFAULT = "edsr-baseline-resample"
PAPER = "edsr-baseline"  # LIIF itself, what others can be compared with
