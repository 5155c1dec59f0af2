"""Sequences of frames: several at work at once, results in order, nothing piling up."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import Any, Protocol

import numpy as np
import torch

from . import dlpack

Dropped = Callable[[int], None]


class Pending(Protocol):
    """A frame at work."""

    def result(self) -> Any:
        """The enlarged frame, once it is there; raises what went wrong with it."""


class Line(Protocol):
    """Where frames are worked on, in the order they come."""

    ahead: int  # frames it should have at once, so that none of its parts waits for the caller

    def submit(self, frame: Any) -> Pending:
        """Begins with a frame. The caller's until then, it is not read later. What came of the frame before, where
        they are equal and the line knows."""

    def close(self) -> None:
        """Ends it; frames that nobody waits for any more are given up."""


def stream(frames: Iterable[Any], make_line: Callable[[], Line], dropped: Dropped | None) -> Generator[Any, None, None]:
    """The frames, enlarged by a line, in order; no more than it wants wait or are at work.

    A frame equal to the one before is not computed again. An exception, of ``frames`` too, is raised where the result
    of its frame was due. ``dropped``: see `Upscaler.stream`.
    """
    pending: deque[Pending] = deque()
    previous: Any = None
    last: Pending | None = None  # of the frame before
    ended: Exception | None = None
    home = os.getpid()
    with ExitStack() as ends:
        line = ends.enter_context(closing(make_line()))
        # The caller may fill one buffer again and again.
        source: Iterator[Any] = (
            map(copied, frames) if dropped is None else ends.enter_context(closing(_Newest(frames, dropped)))
        )
        while True:
            if os.getpid() != home:  # where its threads are not
                raise RuntimeError(f"this stream was begun in process {home}, before a fork: begin one in each process")
            while ended is None and len(pending) < line.ahead:
                try:
                    frame = next(source)
                except StopIteration:
                    ended = StopIteration()  # with no traceback, which holds this frame and all that it holds
                    break
                except Exception as error:  # raised when its turn has come
                    ended = error
                    break
                if last is None or not _same(frame, previous):
                    last = line.submit(frame)
                pending.append(last)
                previous = frame
            if not pending:
                break
            first = pending.popleft()
            result = first.result()
            # Every result is the caller's own, to draw on; that of the newest frame may be wanted once more, and the
            # next frame made from it.
            following = pending[0] if pending else last
            wanted = following is first or getattr(following, "before", None) is first
            yield copied(result) if wanted else result
    if not isinstance(ended, StopIteration):
        assert ended is not None
        raise ended


class Job:
    """A frame at work on a thread; ``before``: the job before it, while that one's result may be read for this."""

    made: Future[Any]

    def __init__(self, frame: Any, before: Job | None) -> None:
        self.frame, self.before = frame, before

    def result(self) -> Any:
        return self.made.result()


class Workers:
    """A `Line` of threads: ``enlarge`` of so many frames at once, each with ``threads`` of PyTorch's.

    ``renew``: of a frame and the job before, the result in less time, or None.
    """

    def __init__(
        self,
        enlarge: Callable[[Any], Any],
        at_once: int,
        threads: int,
        ahead: int,
        renew: Callable[[Any, Job], Any] | None = None,
    ) -> None:
        self.ahead = ahead
        self._enlarge, self._renew = enlarge, renew
        self._last: Job | None = None
        self._pool = ThreadPoolExecutor(at_once, thread_name_prefix="liif_fast-stream")
        # The count is a thread's own, but new threads take the last one set, whoever set it.
        before, ready = torch.get_num_threads(), threading.Barrier(at_once + 1)

        def begin() -> None:
            torch.get_num_threads()  # the first question makes a thread take the last count set, so it must come before
            torch.set_num_threads(threads)
            ready.wait()

        try:
            for _ in range(at_once):
                self._pool.submit(begin)
            ready.wait()
        except BaseException:  # there are no more threads to be had: those that wait must not do so for ever
            ready.abort()
            self._pool.shutdown(cancel_futures=True)
            raise
        finally:
            torch.set_num_threads(before)

    def submit(self, frame: Any) -> Job:
        job = Job(frame, self._last)
        job.made = self._pool.submit(self._work, job)
        if self._renew:
            self._last = job
        return job

    def _work(self, job: Job) -> Any:
        made = None
        if self._renew and job.before:
            try:
                made = self._renew(job.frame, job.before)
            finally:
                job.before = None
        return self._enlarge(job.frame) if made is None else made

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


class _Newest:
    """The newest frame of a source that does not wait: read on a thread of its own, older ones are dropped."""

    def __init__(self, frames: Iterable[Any], dropped: Dropped) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[tuple[int, Any, torch.cuda.Event | None]] = deque()  # one at most
        self._ended: BaseException | None = None
        self._closed = False
        self._dropped = dropped
        # It may be blocked in the source when nobody wants its frames any more.
        self._thread = threading.Thread(target=self._read, args=(frames,), name="liif_fast-source", daemon=True)
        self._thread.start()

    def _read(self, frames: Iterable[Any]) -> None:
        ended: BaseException = StopIteration()
        try:
            for number, frame in enumerate(frames):
                frame = copied(frame)
                there = None
                if isinstance(frame, torch.Tensor) and frame.is_cuda:
                    there = torch.cuda.current_stream(frame.device).record_event()
                with self._changed:
                    if self._closed:
                        return
                    if self._waiting:
                        self._dropped(self._waiting.popleft()[0])
                    self._waiting.append((number, frame, there))
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
            if not self._waiting:
                assert self._ended is not None
                raise self._ended
            _, frame, there = self._waiting.popleft()
        if there is not None:  # copied on the other thread's stream
            now = torch.cuda.current_stream(frame.device)
            now.wait_event(there)
            frame.record_stream(now)
        return frame

    def close(self) -> None:
        with self._changed:
            self._closed = True
        # A thread at work in native code when the interpreter ends takes the process with it. One that is blocked does
        # not, and whoever closes is not to wait for it for ever.
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=1)


def copied(frame: Any) -> Any:
    """A picture that stays as it is, whatever its owner writes to his own."""
    if isinstance(frame, torch.Tensor):
        return frame.clone()
    if hasattr(frame, "copy"):
        return frame.copy()
    return dlpack.Held(dlpack.tensor_of(frame).clone()) if hasattr(frame, "__dlpack__") else frame


def _same(a: Any, b: Any) -> bool:
    try:
        return type(a) is type(b) and _equal(a, b)
    except Exception:  # of what has no such question; what else is wrong with it is said when its turn has come
        return False


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, torch.Tensor):
        if a.is_cuda:
            return False  # its line asks when it has a copy
        return a.dtype == b.dtype and a.device == b.device and torch.equal(a, b)
    if hasattr(a, "getpalette") and a.getpalette(None) != b.getpalette(None):  # Pillow's == looks at its colours alone
        return False
    return not hasattr(a, "__dlpack__") and bool(a == b)
