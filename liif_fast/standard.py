"""``-`` in the place of a picture: standard input and output, by way of files in a temporary folder."""

from __future__ import annotations

import re
import shutil
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from .console import check_stdout
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
        return self.said(str(path))

    def said(self, text: str) -> str:
        """What is said of them, by that name."""
        if not self.folder:
            return text
        return re.sub(re.escape(str(self.folder)) + r"/(stdin|stdout/[^\s:/]+)", DASH, text)

    def deliver(self, result: Path) -> None:
        """Writes it to standard output, where that is the output; OSError where it does not take it."""
        if not self.piped:
            return
        with open(result, "rb") as file:
            try:
                shutil.copyfileobj(file, sys.stdout.buffer)
                sys.stdout.buffer.flush()
            except OSError as error:
                raise OSError(error.errno, error.strerror, "standard output") from None


@contextmanager
def places(inputs: list[str], output: str | None) -> Iterator[Places]:
    """Reads standard input where that is asked for; the one result is for `Places.deliver`.

    A picture from standard input goes to standard output unless there is an ``output``. ValueError for - among several
    inputs, and for a terminal.
    """
    if DASH not in inputs and output != DASH:
        yield Places(inputs, output)
        return
    if len(inputs) > 1:
        raise ValueError("- is for one picture, there are several")
    piped = output in (None, DASH)
    if piped:
        check_stdout()
    with TemporaryDirectory(prefix="liif_fast-") as name:
        folder = Path(name)
        if inputs == [DASH]:
            with open(folder / "stdin", "wb") as file:
                shutil.copyfileobj(sys.stdin.buffer, file)
            inputs = [str(folder / "stdin")]
        results = folder / "stdout"
        results.mkdir()
        at = Places(inputs, str(results) if piped else output, folder, piped)
        with warnings.catch_warnings():
            show = warnings.showwarning
            warnings.showwarning = lambda message, *how: show(at.said(str(message)), *how)
            try:
                yield at
            except (ImageError, FileExistsError) as error:
                raise type(error)(at.said(str(error))) from error
