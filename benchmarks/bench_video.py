"""A film of 100 frames, read, enlarged and encoded side by side, against each of the steps alone.

``overhead`` is the time of the whole over that of the slowest step alone. With one thread for the upscaling the other
steps have a core of their own, and this is what the pipeline costs. With all cores the steps share them, so that no
pipeline can be faster than all their work spread over all cores: ``over_bound`` is the time of the whole over the
larger of that and of the slowest step. ``work`` is what all cores did for the whole over what they did for the steps,
which other programs on the machine do not change.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import random_weights
from liif_fast import Upscaler
from liif_fast.batch import Request
from liif_fast.bench import picture

av = pytest.importorskip("av")

from liif_fast.video import film, frames  # noqa: E402
from liif_fast.video.encoding import Choice  # noqa: E402
from liif_fast.video.planes import Converter  # noqa: E402
from liif_fast.video.segments import Work  # noqa: E402
from liif_fast.video.source import Source  # noqa: E402

# (height, width) of the input; the result has twice the side. With "tiny" the encoder has about as much to do.
CLIPS = {"tiny": (180, 320), "realtime-small": (180, 320), "edsr-baseline": (36, 64)}
FRAMES = 100


def network(name: str) -> Any:
    if name == "edsr-baseline":
        return name
    return random_weights((16,), 1, 8, "resample") if name == "tiny" else random_weights((32, 32), 4, 16, "resample")


def clip(path: Path, size: tuple[int, int]) -> None:
    """A picture that moves, so that no two frames are alike."""
    still = picture(*size)
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("libx264", rate=Fraction(25), options={"crf": "16"})
        stream.height, stream.width = size
        for i in range(FRAMES):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.roll(still, 2 * i, axis=1), "rgb24")))
        out.mux(stream.encode(None))


def timed(action: Callable[[], Any]) -> tuple[float, float]:
    """(seconds, seconds of all cores together)"""
    start, cores = time.perf_counter(), time.process_time()
    action()
    return time.perf_counter() - start, time.process_time() - cores


def drain(items: Iterator[Any]) -> None:
    for _ in items:
        pass


@pytest.mark.parametrize("threads", [1, None], ids=["one thread", "all cores"])
@pytest.mark.parametrize("name", CLIPS)
def test_film(benchmark: Any, precision: str, name: str, threads: int | None, tmp_path: Path) -> None:
    source, out = tmp_path / "in.mkv", tmp_path / "out.mkv"
    clip(source, CLIPS[name])
    up = Upscaler(network(name), precision=precision, threads=threads)
    choice = Choice("libx264", preset="veryfast", options={"threads": "1"} if threads == 1 else {})
    job = film.Job(str(source), str(out), Request.parse(scale="2"), choice, force=True)
    with Source(str(source)) as opened:
        encoding = film.encoding_of(job, opened.clip)
        decoded = list(frames.pictures_of(opened))
    size = (encoding.height, encoding.width)
    large = list(frames.enlarged(decoded, up, size))

    def decode() -> None:
        with Source(str(source)) as opened:
            drain(frames.pictures_of(opened))

    def encode() -> None:
        work = Work(str(tmp_path / "steps.mkv"), {}, film.SEGMENT, resume=False, again=True)
        film.encode_segments(iter(large), encoding, work, film.SEGMENT, Converter())
        work.remove()

    def whole() -> None:
        film.make(job, lambda: up, film.FilmMeter(False))

    steps = {"decode": decode, "upscale": lambda: drain(frames.enlarged(decoded, up, size)), "encode": encode}
    alone = {step: min(timed(action) for _ in range(2)) for step, action in steps.items()}
    benchmark.pedantic(whole, rounds=2, iterations=1)
    seconds, slowest = benchmark.stats.stats.min, max(wall for wall, _ in alone.values())
    bound = max(slowest, sum(cores for _, cores in alone.values()) / (os.cpu_count() or 1))
    benchmark.extra_info["frames_per_s"] = FRAMES / seconds
    benchmark.extra_info["seconds_alone"] = {step: wall for step, (wall, _) in alone.items()}
    benchmark.extra_info["overhead"] = seconds / slowest
    benchmark.extra_info["over_bound"] = seconds / bound
    benchmark.extra_info["work"] = timed(whole)[1] / sum(cores for _, cores in alone.values())
