"""Sequences of frames: several at work at once, results in order, nothing piling up."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

Enlarge = Callable[[Any], Any]
Dropped = Callable[[int], None]


def stream(
    frames: Iterable[Any], enlarge: Enlarge, workers: int, threads: int, dropped: Dropped | None
) -> Iterator[Any]:
    """``enlarge`` of each frame, in order, computed by ``workers`` at once; at most one more frame waits.

    Each worker uses ``threads`` of PyTorch's. A frame equal to the one before, which is still at work, is not computed
    again. An exception, of ``frames`` too, is raised where the result of its frame was due. ``dropped``: see
    `Upscaler.stream`.
    """
    source = iter(frames) if dropped is None else _Newest(frames, dropped)
    pool = _pool(workers, threads)
    pending: deque[Future[Any]] = deque()
    previous: Any = None
    ended: Exception | None = None
    try:
        while True:
            # One more than are at work, so that no worker waits for the caller; not where least delay is wanted, as
            # the source may take its time.
            while ended is None and len(pending) < workers + (workers > 1 and dropped is None):
                try:
                    # The caller may fill one buffer again and again.
                    frame = _copy(next(source))
                except Exception as error:  # raised when its turn has come
                    ended = error
                    break
                again = bool(pending) and _same(frame, previous)
                pending.append(pending[-1] if again else pool.submit(enlarge, frame))
                previous = frame
            if not pending:
                break
            future = pending.popleft()
            result = future.result()
            # Every result is the caller's own, to draw on.
            yield _copy(result) if pending and pending[0] is future else result
    finally:
        if isinstance(source, _Newest):
            source.close()
        pool.shutdown(wait=True, cancel_futures=True)
    if not isinstance(ended, StopIteration):
        assert ended is not None
        raise ended


def _pool(workers: int, threads: int) -> ThreadPoolExecutor:
    """Workers with so many PyTorch threads each. The count is a thread's own, but new threads take the last one set."""
    before, ready = torch.get_num_threads(), threading.Barrier(workers + 1)

    def begin() -> None:
        torch.get_num_threads()  # the first question makes a thread take the last count set, which must come before
        torch.set_num_threads(threads)
        ready.wait()

    pool = ThreadPoolExecutor(workers, thread_name_prefix="liif_fast-stream")
    for _ in range(workers):
        pool.submit(begin)
    ready.wait()
    torch.set_num_threads(before)
    return pool


class _Newest:
    """The newest frame of a source that does not wait: read on a thread of its own, older ones are dropped."""

    def __init__(self, frames: Iterable[Any], dropped: Dropped) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[tuple[int, Any]] = deque()  # one at most
        self._ended: BaseException | None = None
        self._closed = False
        self._dropped = dropped
        # It may be blocked in the source when nobody wants its frames any more.
        threading.Thread(target=self._read, args=(frames,), name="liif_fast-source", daemon=True).start()

    def _read(self, frames: Iterable[Any]) -> None:
        ended: BaseException = StopIteration()
        try:
            for number, frame in enumerate(frames):
                frame = _copy(frame)
                with self._changed:
                    if self._closed:
                        return
                    if self._waiting:
                        self._dropped(self._waiting.popleft()[0])
                    self._waiting.append((number, frame))
                    self._changed.notify()
        except BaseException as error:
            ended = error
        with self._changed:
            self._ended = ended
            self._changed.notify()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ended)
            if self._waiting:
                return self._waiting.popleft()[1]
            assert self._ended is not None
            raise self._ended

    def close(self) -> None:
        with self._changed:
            self._closed = True


def _copy(frame: Any) -> Any:
    if isinstance(frame, torch.Tensor):
        return frame.clone()
    return frame.copy() if hasattr(frame, "copy") else frame


def _same(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.device == b.device and torch.equal(a, b)
    return bool(a == b)
