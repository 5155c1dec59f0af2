"""Pictures written as bands of rows: filled on the caller's thread, encoded on all cores, stored in order.

Memory stays within a few bands a core, however tall the picture is.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import BinaryIO, Generic, TypeVar

import numpy as np

T = TypeVar("T")

_BAND_BYTES = 1 << 20


class _Ordered(Generic[T]):
    """Runs jobs on threads and hands their results to ``sink``, on the caller's thread, in the order of ``put``."""

    def __init__(self, sink: Callable[[T], None], threads: int) -> None:
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="liif_fast-rows")
        self._pending: deque[Future[T]] = deque()
        self._sink = sink

    def put(self, job: Callable[[], T]) -> None:
        self._pending.append(self._pool.submit(job))
        while len(self._pending) > 2 * self._threads or (self._pending and self._pending[0].done()):
            self._sink(self._pending.popleft().result())

    def finish(self) -> None:
        while self._pending:
            self._sink(self._pending.popleft().result())

    def stop(self) -> None:
        self._pending.clear()
        self._pool.shutdown(wait=True, cancel_futures=True)


class BandWriter(Generic[T]):
    """What the streaming writers share. A format adds ``_encode`` (on a thread), ``_store`` and ``_finish`` (in order).

    A context manager: leaving it closes the picture, leaving it by an exception abandons the rest.
    """

    def __init__(
        self, file: BinaryIO, height: int, width: int, channels: int, dtype: np.dtype, threads: int | None = None
    ) -> None:
        if height < 1 or width < 1 or not 1 <= channels <= 4:
            raise ValueError(f"no picture of {height} x {width} x {channels} (height, width, channels 1..4)")
        self._file = file
        self._shape = (height, width, channels)
        self._dtype = dtype
        self._done = 0  # rows
        self._band_rows = min(height, max(1, _BAND_BYTES // (width * channels * dtype.itemsize)))
        self._band = self._new_band()
        self._above = np.zeros((1, width, channels), dtype)
        self._bands: _Ordered[T] = _Ordered(self._store, threads or min(16, os.cpu_count() or 1))

    def _new_band(self) -> np.ndarray:
        return np.empty((min(self._band_rows, self._shape[0] - self._done), *self._shape[1:]), self._dtype)

    def write(self, rows: np.ndarray) -> None:
        """The next rows, ``[h, W, C]`` of the picture's dtype; they are copied. ValueError for others or too many."""
        height, width, channels = self._shape
        if rows.ndim != 3 or rows.shape[1:] != (width, channels) or rows.dtype != self._dtype:
            raise ValueError(f"rows are {rows.dtype}{list(rows.shape)}, not {self._dtype}[h, {width}, {channels}]")
        if self._done + len(rows) > height:
            raise ValueError(f"{self._done + len(rows)} rows for a picture of {height}")
        while len(rows):
            start = self._done % self._band_rows
            part = rows[: len(self._band) - start]
            self._band[start : start + len(part)] = part
            self._done += len(part)
            rows = rows[len(part) :]
            if start + len(part) == len(self._band):
                band, above = self._band, self._above
                self._above, self._band = band[-1:], self._new_band()
                self._bands.put(partial(self._encode, band, above, self._done == height))

    def close(self) -> None:
        """Completes the picture; ValueError where rows are missing."""
        try:
            if self._done != self._shape[0]:
                raise ValueError(f"{self._done} rows for a picture of {self._shape[0]}")
            self._bands.finish()
            self._finish()
        finally:
            self.abort()

    def abort(self) -> None:
        """Stops the threads and leaves the file as it is."""
        self._bands.stop()

    def _encode(self, band: np.ndarray, above: np.ndarray, last: bool) -> T:
        raise NotImplementedError

    def _store(self, encoded: T) -> None:
        raise NotImplementedError

    def _finish(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> BandWriter[T]:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()
