"""Steps of a pipeline side by side, each on a thread of its own, with few results waiting between them."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from types import TracebackType
from typing import Any

_WAITING = 3  # results of a step that may wait: enough to even out, little memory
_PATIENCE = 0.5  # seconds for a step to notice that nobody wants more


class Step(Iterator[Any]):
    """The items of an iterator, computed ahead on a thread. An exception is raised where its item was due."""

    def __init__(self, name: str, items: Iterator[Any], before: Step | None) -> None:
        self.name = name
        self.seconds = 0.0  # of work, without waiting for the step before
        self.waited = 0.0  # seconds that whoever takes the items has waited for them
        self._items, self._before = items, before
        self._ready: deque[Any] = deque()
        self._changed = threading.Condition()
        self._ended: BaseException | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=f"liif_fast-{name}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        ended: BaseException = StopIteration()
        try:
            while not self._closed:
                start, waited = time.perf_counter(), self._upstream()
                item = next(self._items)
                self.seconds += time.perf_counter() - start - (self._upstream() - waited)
                with self._changed:
                    self._changed.wait_for(lambda: len(self._ready) < _WAITING or self._closed)
                    self._ready.append(item)
                    self._changed.notify_all()
        except BaseException as error:
            ended = error
        finally:
            if hasattr(self._items, "close"):
                self._items.close()
            with self._changed:
                self._ended = ended
                self._changed.notify_all()

    def _upstream(self) -> float:
        return self._before.waited if self._before else 0.0

    def __next__(self) -> Any:
        start = time.perf_counter()
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._ended or self._closed)
            self.waited += time.perf_counter() - start
            if self._ready and not self._closed:
                item = self._ready.popleft()
                self._changed.notify_all()
                return item
            raise self._ended or StopIteration

    def stop(self) -> None:
        with self._changed:
            self._closed = True
            self._ready.clear()
            self._changed.notify_all()

    def join(self) -> None:
        # Not for ever: it may be reading from a pipe on which nothing comes.
        self._thread.join(_PATIENCE)


class Pipeline:
    """A chain of steps; a context manager, at whose end all of them stop. The last step is the caller's own."""

    def __init__(self, last: str) -> None:
        self._steps: list[Step] = []
        self._last, self._begun = last, time.perf_counter()

    def step(self, name: str, items: Iterator[Any]) -> Step:
        """``items``, which may take from the step added before, computed ahead."""
        self._steps.append(Step(name, items, self._steps[-1] if self._steps else None))
        return self._steps[-1]

    def seconds(self) -> dict[str, float]:
        """How long each step has worked, by name."""
        spent = {step.name: step.seconds for step in self._steps}
        waited = self._steps[-1].waited if self._steps else 0.0
        return {**spent, self._last: time.perf_counter() - self._begun - waited}

    def slowest(self) -> str:
        spent = self.seconds()
        return max(spent, key=spent.__getitem__)

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for step in self._steps:
            step.stop()
        for step in self._steps:
            step.join()
