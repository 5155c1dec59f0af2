"""What `liif-fast train` and `liif-fast easier` do: settings together, progress on the terminal, settings kept."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..console import Stopped, advised, say, say_error
from ..words import counted
from . import config as configs
from . import shorten as shortening
from .config import Config
from .folder import WEIGHTS, check, held
from .state import STATE
from .train import Progress, train


def sit(
    output: Path,
    data: Sequence[Path] | None,
    recipe: str,
    file: Path | None,
    flags: Mapping[str, Any],
    settings: Sequence[str],
    resume: bool,
) -> None:
    """One sitting of a run. Resumed, it goes by the settings of the last one, and what is given now over them."""
    kept = output / configs.SETTINGS
    if resume:
        check(output, resume)  # or settings would be missed that its own have
    if resume and file is None and kept.is_file():
        file = kept
    config = _config(output, data, recipe, file, flags, settings)
    first = int(os.environ.get("RANK", "0")) == 0
    try:
        with Teller(first) as tell, advised(_less_memory(config)):
            result = train(config, resume, tell, lambda line: say_error(line, "warning: "))
    except Stopped:
        if first and (output / STATE).exists():
            say_error(f"{output}: saved; --resume goes on from there", "")
        raise
    if first:
        values = ", ".join(f"x{scale:g} {value:.2f}" for scale, value in result.psnr.items())
        say(
            f"{result.weights}: {counted(config.iterations, 'iteration')}"
            + (f", PSNR on held-out pictures {values}" * bool(values))
        )


def shorten(
    model: str,
    output: Path,
    data: Sequence[Path] | None,
    file: Path | None,
    flags: Mapping[str, Any],
    settings: Sequence[str],
    max_loss: float,
) -> None:
    """`shortening.shorten`, with its steps as a table."""
    config = _config(output, data, "fast", file, flags, settings)
    with held(output), Teller(True) as tell, advised(_less_memory(config)):
        steps = shortening.shorten(model, config, max_loss, tell, say)
    unit = steps[0].unit
    say(f"{unit}s  PSNR      loss")
    for step in steps:
        refused = "" if step.kept else f"  more than {max_loss:g}: not kept"
        say(f"{step.length:{len(unit) + 1}}  {step.psnr:.3f}  {step.loss:+.3f}{refused}")
    say(f"{output / WEIGHTS}: {counted(next(s.length for s in reversed(steps) if s.kept), unit)}")


def _less_memory(config: Config) -> str:
    return f"smaller values than --set batch={config.batch} --set patch={config.patch} need less, and less --data"


class Teller:
    """A line of progress: rewritten in place on a terminal, else now and then a new one. A context manager, at whose
    end the line has ended too."""

    _EVERY = 60.0  # seconds between lines in a file

    def __init__(self, shown: bool) -> None:
        self.shown, self.last, self._unfinished = shown, -self._EVERY, False

    def __call__(self, p: Progress) -> None:
        now = time.monotonic()
        done = p.iteration == p.iterations
        terminal = sys.stderr.isatty()
        if not self.shown or not (terminal or done or now - self.last >= self._EVERY):
            return
        self.last = now
        psnr = "  ".join(f"x{scale:g} {value:.2f}" for scale, value in p.psnr.items())
        line = (
            f"{p.iteration}/{p.iterations}  loss {p.loss:.4f}  {p.iterations_per_s:.3g} it/s  {_left(p.seconds_left)}"
        )
        line += f"  {psnr}" if psnr else ""
        if terminal:
            columns = os.get_terminal_size(sys.stderr.fileno()).columns or 80
            line = f"\r\x1b[K{line[: columns - 3]}"  # the ^C that a terminal shows must not wrap
        self._unfinished = terminal and not done
        print(line, end="" if self._unfinished else "\n", file=sys.stderr, flush=True)

    def __enter__(self) -> Teller:
        return self

    def __exit__(self, *_: object) -> None:
        if self._unfinished:
            print(file=sys.stderr, flush=True)


def _config(
    output: Path,
    data: Sequence[Path] | None,
    recipe: str,
    file: Path | None,
    flags: Mapping[str, Any],
    settings: Sequence[str],
) -> Config:
    given: dict[str, Any] = {"output": str(output), "data": tuple(map(str, data)) if data else None}
    values = {**flags, **given}
    named = {key: value for key, value in values.items() if value not in (None, "auto")}
    chosen = dict(map(_setting, settings))
    if "output" in chosen:
        raise ValueError("output is no setting: the folder of the run is named by itself")
    return configs.read(recipe, file, {**chosen, **named})


def _setting(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--set takes KEY=VALUE, got {text!r}")
    try:
        return key.strip(), json.loads(value)
    except json.JSONDecodeError:
        return key.strip(), value.strip()


def _left(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min left" if minutes >= 60 else f"{minutes} min left"
