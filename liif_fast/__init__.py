"""Enlarge any image to any size with one small network: fast, faithful LIIF-EDSR.

import liif_fast
up = liif_fast.Upscaler()
large = up(picture, scale=4)         # PIL, numpy or torch; the same kind comes back
field = up.encode(picture)           # the continuous image: any window at any size
detail = field.render(size=(1080, 1920), box=(10.5, 20, 100, 180))
"""

from .backends import BackendUnavailable
from .checkpoint import CheckpointError
from .upscaler import ImageField, Upscaler

__version__ = "0.1.0"
__all__ = ["BackendUnavailable", "CheckpointError", "ImageField", "Upscaler", "__version__"]
