"""``-`` in the place of a picture: standard input and output, by way of files in a temporary folder."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from .output import ImageError

DASH = "-"


@dataclass(frozen=True)
class Places:
    """Inputs and output as paths; ``folder`` holds those that stand for ``-``, ``piped`` is whether the output does."""

    inputs: list[str]
    output: str | None
    folder: Path | None = None
    piped: bool = False

    def name(self, path: Path) -> str:
        """What to call it."""
        return DASH if self.folder and self.folder in path.parents else str(path)


@contextmanager
def places(inputs: list[str], output: str | None) -> Iterator[Places]:
    """Reads standard input where that is asked for; at the end the one result is written to standard output.

    A picture from standard input goes to standard output unless there is an ``output``. ValueError for - among several
    inputs, and for a terminal.
    """
    if DASH not in inputs and output != DASH:
        yield Places(inputs, output)
        return
    if len(inputs) > 1:
        raise ValueError("- is for one picture, there are several")
    piped = output in (None, DASH)
    if piped and sys.stdout.isatty():
        raise ValueError("standard output is a terminal, not for pictures; -o FILE or a pipe takes them")
    with TemporaryDirectory(prefix="liif_fast-") as name:
        folder = Path(name)
        if inputs == [DASH]:
            with open(folder / "stdin", "wb") as file:
                shutil.copyfileobj(sys.stdin.buffer, file)
            inputs = [str(folder / "stdin")]
        results = folder / "stdout"
        results.mkdir()
        try:
            yield Places(inputs, str(results) if piped else output, folder, piped)
        except ImageError as error:
            raise ImageError(str(error).replace(str(folder / "stdin"), DASH)) from error
        for result in results.iterdir():
            with open(result, "rb") as file:
                shutil.copyfileobj(file, sys.stdout.buffer)
        sys.stdout.buffer.flush()
