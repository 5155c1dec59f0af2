"""Built engines on disk: whole or not at all, and never read where anything about them does not fit.

A file is one line of JSON (``key``: what it was built from and for; ``check``: how it compared; ``sha256``) and the
bytes of the engine, or of what it has compiled as it ran. Its name is what that is of and for; versions are in the key,
so that an engine of another one is replaced and none piles up.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
from pathlib import Path
from typing import Any

from .backends import BackendUnavailable
from .output import ImageError, whole_file

FOLDER_VARIABLE = "LIIF_FAST_CACHE"
# Far above any header; only keeps a foreign file from being searched for a line's end.
_HEADER_BYTES = 1 << 16


def folder() -> Path:
    """``LIIF_FAST_CACHE``, or liif_fast in the user's cache folder (``XDG_CACHE_HOME``, ~/.cache).

    BackendUnavailable where the user has no home, as in some containers: a folder that anyone can write to is no place
    for code.
    """
    if own := os.environ.get(FOLDER_VARIABLE):
        return Path(own)
    if not (shared := os.environ.get("XDG_CACHE_HOME")):
        home = os.path.expanduser("~")
        if not os.path.isabs(home):
            raise BackendUnavailable(f"there is no home folder to keep engines in; {FOLDER_VARIABLE} can name another")
        shared = os.path.join(home, ".cache")
    return Path(shared) / "liif_fast"


def place(*names: str) -> Path:
    """The file of an engine that ``names`` tell from all others."""
    return folder() / ("-".join(re.sub(r"[^A-Za-z0-9.]+", "_", name) for name in names) + ".engine")


def read(path: Path, key: dict[str, str]) -> tuple[bytes, dict[str, Any]] | None:
    """The engine and the outcome of its check; None where there is none, or a stale, foreign or damaged one."""
    try:
        with path.open("rb") as file:
            header = json.loads(file.readline(_HEADER_BYTES))
            engine = file.read()
        fits = header["key"] == key and header["sha256"] == hashlib.sha256(engine).hexdigest()
        return (engine, dict(header["check"])) if fits else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def write(path: Path, key: dict[str, str], engine: bytes, check: dict[str, Any]) -> None:
    """Keeps an engine; the last of several writers wins. A warning where the disk does not take it."""
    header = {"key": key, "check": check, "sha256": hashlib.sha256(engine).hexdigest()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with whole_file(path, force=True) as file:
            file.write(json.dumps(header).encode() + b"\n" + engine)
    except (OSError, ImageError) as error:
        warnings.warn(f"what TensorRT has made is not kept and will be made again: {error}", stacklevel=2)
