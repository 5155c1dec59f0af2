"""Signals to end, once an iteration is done: what a run has learned until then is saved first."""

from __future__ import annotations

import signal
import threading
from types import FrameType


class Postponed:
    """SIGINT, SIGTERM and SIGHUP, which do what they do when this context manager ends; a second one does it at once.

    True once one has come. Signals are the main thread's: in others it does nothing.
    """

    def __init__(self) -> None:
        self._number: int | None = None
        self._handlers = {}
        if threading.current_thread() is threading.main_thread():
            numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
            found = {number: signal.getsignal(number) for number in numbers}
            self._handlers = {n: handler for n, handler in found.items() if handler not in (None, signal.SIG_IGN)}

    def __bool__(self) -> bool:
        return self._number is not None

    def __enter__(self) -> Postponed:
        for number in self._handlers:
            signal.signal(number, self._note)
        return self

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        self._restore()
        if self._number is not None and not failed:
            signal.raise_signal(self._number)

    def _note(self, number: int, _: FrameType | None) -> None:
        if self:
            self._restore()
            signal.raise_signal(number)
        self._number = number

    def _restore(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
