"""What the commands say and how they end: lines, errors and exit codes, progress, signals."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import Any, TextIO

import typer
from typer.core import TyperCommand, TyperGroup

DEBUG_VARIABLE = "LIIF_FAST_DEBUG"
NAME = "liif-fast"
SOME_FAILED, REFUSED = 1, 2

_SHOW_AFTER = 1.0  # seconds of work that nobody needs a bar for


class Stopped(BaseException):
    """A signal that ends the program; not an Exception, so that nothing on the way takes it for a failure."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class _Examples:
    """Shows the epilog as it is: some versions of Typer fill its lines up."""

    epilog: str | None

    def format_help(self, ctx: Any, formatter: Any) -> None:
        epilog, self.epilog = self.epilog, None
        super().format_help(ctx, formatter)  # type: ignore[misc]
        self.epilog = epilog
        if epilog:
            typer.echo(f" Examples\n{epilog}")


_closed: set[str] = set()


def check_stdout() -> None:
    """ValueError where results cannot go to standard output."""
    if "stdout" in _closed:
        raise ValueError("standard output is closed; a file or a pipe takes the result")
    if sys.stdout.isatty():
        raise ValueError("standard output is a terminal, not for pictures; a file or a pipe takes them")


class Command(_Examples, TyperCommand):
    """Typer's command."""


class Commands(_Examples, TyperGroup):
    """Typer's group, but whatever goes wrong is one line on stderr and an exit code."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
            if getattr(sys, name) is None:  # closed; a file opened later would get its place, and what is said
                _closed.add(name)
                setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115  # for as long as the program runs
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):  # file names need not be text
                stream.reconfigure(errors="backslashreplace")
        with _signals(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.filterwarnings("always", category=UserWarning, module="liif_fast")
            warnings.showwarning = _show_warning
            try:
                result = super().main(*args, **{**kwargs, "standalone_mode": False})
                code = result if isinstance(result, int) else 0
            except Stopped as stop:
                say_error("interrupted", "")
                code = 128 + stop.number
                signal.signal(stop.number, signal.SIG_DFL)
                signal.raise_signal(stop.number)  # an exit code would not end the loop of a shell around this
            except Exception as error:
                code = fail(error)
        sys.exit(code)

    def invoke(self, ctx: Any) -> Any:
        # Inside Typer's own handling, which would end a Ctrl-C or a closed pipe in its way.
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except KeyboardInterrupt:
            raise Stopped(signal.SIGINT) from None
        except OSError as error:
            raise typer.Exit(fail(error)) from None


def fail(error: Exception) -> int:
    """Reports what ends the program; the exit code."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        # Nobody reads any more, or the disk is full; without this Python complains once more when it closes the stream.
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    say_error(explain(error))
    if os.environ.get(DEBUG_VARIABLE, "0") not in ("", "0"):
        traceback.print_exception(error)
    return REFUSED


class NotEnoughMemory(RuntimeError):
    """In the place of what memory ran out for, with what to do about it."""


@contextmanager
def advised(advice: str) -> Iterator[None]:
    """`NotEnoughMemory` where memory runs out within and nothing better has been said."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if _is_ours(error) or not _out_of_memory(error):
            raise
        raise NotEnoughMemory(f"not enough memory; {advice}") from error


def _out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in ("out of memory", "allocate memory"))


def _is_ours(error: BaseException) -> bool:
    return type(error).__module__.startswith("liif_fast")


def explain(error: BaseException) -> str:
    """What to tell people about an error, as one line."""
    if hasattr(error, "format_message"):  # Typer's own, about arguments
        context = getattr(error, "ctx", None)
        command = context.command_path if context else NAME
        return f"{error.format_message().rstrip('.')} (see {command} --help)"
    text = str(error)
    if _is_ours(error):
        return text or type(error).__name__
    if _out_of_memory(error):
        return "not enough memory"
    if isinstance(error, BrokenPipeError):
        return "nothing reads the output any more (broken pipe)"
    if isinstance(error, OSError) and error.errno is not None:
        where = f"{error.filename}: " if error.filename is not None else ""
        return f"{where}{error.strerror or text}"
    if isinstance(error, (ValueError, TypeError, OSError)):
        return text or type(error).__name__
    return (
        f"unexpected {type(error).__name__}: {text.strip().partition(os.linesep)[0]} ({DEBUG_VARIABLE}=1 shows where)"
    )


def say(text: str, stream: TextIO | None = None) -> None:
    """One line, whatever characters the file names in it have."""
    print(printable(text), file=stream or sys.stdout, flush=True)


def say_error(text: str, kind: str = "error: ") -> None:
    with suppress(OSError, ValueError):  # nobody to tell
        say(f"{NAME}: {kind}{text}", sys.stderr)


def speed(megapixels: float) -> str:
    """Megapixels a second in three digits."""
    return f"{megapixels:.3g} MP/s" if megapixels < 100 else f"{megapixels:.0f} MP/s"


def printable(text: str) -> str:
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    say_error(str(message), "warning: ")


@contextmanager
def _signals() -> Iterator[None]:
    """The first signal to end unwinds the stack, so that no unfinished file stays; later ones do not disturb that."""
    numbers = [number for name in ("SIGINT", "SIGTERM", "SIGHUP") if (number := getattr(signal, name, None))]

    def stop(number: int, frame: FrameType | None) -> None:
        for other in before:
            signal.signal(other, signal.SIG_IGN)
        raise Stopped(number)

    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in numbers:
            if (handler := signal.getsignal(number)) != signal.SIG_IGN:  # as under nohup
                before[number] = handler
                signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Meter:
    """Progress on the terminal, once the work takes longer than a moment; a context manager.

    ``shown`` is whether there is anyone to look. ``count`` is the number of pictures.
    """

    def __init__(self, count: int, shown: bool = True) -> None:
        self._shown = shown and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._count, self._done, self._start, self._begun = count, 0, time.monotonic(), time.monotonic()
        self._lock = threading.Lock()
        self._running = False
        if self._shown:
            self._make()

    def _make(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
        from rich.table import Column

        # Narrower than a terminal: the ^C that it shows must not wrap, or the bar could not be wiped out.
        name = Column(no_wrap=True, overflow="ellipsis", max_width=24)
        self._bar = Progress(
            TextColumn("{task.description}", markup=False, table_column=name),
            BarColumn(20),
            TaskProgressColumn(),
            TextColumn("{task.fields[note]}", markup=False, table_column=Column(no_wrap=True)),
            console=Console(stderr=True),
            transient=True,
            redirect_stdout=False,  # results on stdout must stay there
            redirect_stderr=False,
        )
        self._all = self._bar.add_task("", total=1, note="") if self._count > 1 else None
        self._one = self._bar.add_task("", total=1, note="")

    def picture(self, name: str) -> None:
        """A new picture begins."""
        self._begun = time.monotonic()
        if self._shown:
            self._bar.reset(self._one, description=printable(name), total=None, completed=0, note="encoding")
            self._update_all(0)

    def finish_picture(self) -> None:
        self._done += 1
        if self._shown:
            self._update_all(0)

    def __call__(self, done: int, total: int) -> None:
        """``done`` of ``total`` pixels of this picture."""
        if not self._shown:
            return
        seconds = time.monotonic() - self._begun
        note = self._speed(done, seconds) if seconds > 0 else ""
        left = _left(seconds, done / total) if done < total else "writing"
        self._bar.update(self._one, completed=done, total=total, note=f"{note}, {left}")
        self._update_all(done / total)

    def _speed(self, done: int, seconds: float) -> str:
        return speed(done / 1e6 / seconds)

    def _update_all(self, fraction: float) -> None:
        if self._all is not None:
            share = (self._done + fraction) / self._count
            note = _left(time.monotonic() - self._start, share)
            now = min(self._count, self._done + 1)
            self._bar.update(self._all, completed=share, description=f"picture {now} of {self._count}", note=note)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Lines printed here stay above the bar."""
        with self._lock:
            running = self._running
            if running:
                self._bar.stop()
            try:
                yield
            finally:
                if running:
                    self._make()  # the old one would start by wiping out what was printed
                    self._update_all(0)
                    self._bar.start()

    def __enter__(self) -> Meter:
        self._start = time.monotonic()
        if self._shown:
            self._timer = threading.Timer(_SHOW_AFTER, self._appear)
            self._timer.daemon = True
            self._timer.start()
        return self

    def _appear(self) -> None:
        with self._lock:
            if self._shown:
                self._running = True
                self._bar.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._shown:
            self._timer.cancel()
            with self._lock:
                self._shown = False
                if self._running:
                    self._bar.stop()


def _left(seconds: float, fraction: float) -> str:
    if fraction <= 0:
        return ""
    left = round(seconds * (1 - fraction) / fraction)
    clock = f"{left // 3600}:{left // 60 % 60:02}:{left % 60:02}" if left >= 3600 else f"{left // 60}:{left % 60:02}"
    return f"{clock} left"
