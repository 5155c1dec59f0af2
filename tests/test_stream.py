"""Streams: the frames of calls one by one, in order, bounded, errors in their place, live sources."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from common import random_weights
from liif_fast import Upscaler, grid
from liif_fast import upscaler as upscaler_module
from liif_fast.checkpoint import Architecture
from liif_fast.encoder import BaseEncoder
from liif_fast.field import least_memory
from liif_fast.stream import Workers

SMALL = Architecture(1, 16, (16, 16))
FINE = Architecture(1, 16, (16,), decoder="resample")
FRAMES = list(np.random.default_rng(0).integers(0, 256, (9, 11, 17, 3), np.uint8))


def upscaler(architecture: Architecture = SMALL, threads: int | None = None) -> Upscaler:
    return Upscaler(random_weights(architecture), precision="fp32", threads=threads)


class Counting(Upscaler):
    """Counts the pictures it enlarges, slowly if asked to."""

    def __init__(self, pause: float = 0.0) -> None:
        super().__init__(random_weights(SMALL), precision="fp32", threads=2)
        self.calls: list[float] = []
        self.pause = pause

    def __call__(self, image: object, **request: object) -> object:
        self.calls.append(time.monotonic())
        time.sleep(self.pause)
        return super().__call__(image, **request)  # type: ignore[arg-type]


@pytest.mark.parametrize("at_once", [None, 1, 3])
@pytest.mark.parametrize("architecture", [SMALL, FINE])
def test_frames_are_those_of_calls(architecture: Architecture, at_once: int | None) -> None:
    up = upscaler(architecture)
    before = torch.get_num_threads()
    for request in ({"scale": 2.3}, {"size": (40, 31)}, {"longest": 50}):
        streamed = list(up.stream(FRAMES, at_once=at_once, **request))  # type: ignore[arg-type]
        assert len(streamed) == len(FRAMES)
        for found, frame in zip(streamed, FRAMES, strict=True):
            assert np.array_equal(found, up(frame, **request))  # type: ignore[arg-type]
    assert torch.get_num_threads() == before


def test_many_threads_have_memory_for_whole_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many frames at once as there is memory for tiles worth encoding; without a limit, each in one piece."""
    up = upscaler(FINE, threads=2)
    whole = next(up.stream(FRAMES, scale=2))
    calls: list[tuple[int, ...]] = []
    encode = BaseEncoder.__call__
    monkeypatch.setattr(BaseEncoder, "__call__", lambda self, x: calls.append(tuple(x.shape)) or encode(self, x))
    assert np.array_equal(next(up.stream(FRAMES[:1], scale=2, at_once=64)), whole)
    assert calls == [FRAMES[0].shape]


@pytest.mark.parametrize(("share", "threads", "frames"), [(None, 4, 4), (3, 64, 3), (0, 64, 1), (1000, 8, 8)])
def test_frames_at_once(share: int | None, threads: int, frames: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One a thread, but no more than ``max_memory`` has room for tiles worth encoding."""
    weights = random_weights(FINE)
    least = least_memory(Upscaler(weights, precision="fp32").encoder)
    memory = None if share is None else share * least + 1
    seen: list[int] = []

    def made(enlarge: object, at_once: int, *rest: object) -> Workers:
        seen.append(at_once)
        return Workers(enlarge, at_once, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(upscaler_module, "Workers", made)
    up = Upscaler(weights, precision="fp32", threads=threads, max_memory=memory)
    assert np.array_equal(next(up.stream(FRAMES, scale=2)), up(FRAMES[0], scale=2))
    assert seen == [frames]


@pytest.mark.parametrize("started", [0, 2])
def test_no_more_threads_to_be_had(started: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error comes through, and the threads that were started do not wait for ever."""
    submit, count = ThreadPoolExecutor.submit, itertools.count()

    def limited(self: ThreadPoolExecutor, *given: object) -> object:
        if next(count) >= started:
            raise RuntimeError("can't start new thread")
        return submit(self, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(ThreadPoolExecutor, "submit", limited)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        next(upscaler(threads=4).stream(FRAMES, scale=2))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("liif_fast-stream")]


def test_a_live_source_is_not_read_where_nothing_can_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(self: ThreadPoolExecutor, *given: object) -> object:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(ThreadPoolExecutor, "submit", none)
    read = itertools.count()
    camera = (FRAMES[next(read) % 2] for _ in range(1000))
    with pytest.raises(RuntimeError, match="can't start new thread"):
        next(upscaler(threads=4).stream(camera, scale=2, dropped=print))
    assert next(read) == 0
    assert not [thread for thread in threading.enumerate() if thread.name == "liif_fast-source"]


@pytest.mark.parametrize("kind", ["pillow", "torch", "float"])
def test_kinds_of_frames(kind: str) -> None:
    make = {
        "pillow": Image.fromarray,
        "torch": lambda frame: torch.from_numpy(frame).permute(2, 0, 1),
        "float": lambda frame: frame.astype(np.float32) / 255,
    }[kind]
    up = upscaler(threads=2)
    frames = [make(frame) for frame in FRAMES]
    for found, frame in zip(up.stream(frames, scale=2), frames, strict=True):
        wanted = up(frame, scale=2)
        assert type(found) is type(wanted)
        assert np.array_equal(np.asarray(found), np.asarray(wanted))


def test_palettes_with_other_alpha_are_other_pictures() -> None:
    """To Pillow they are equal."""
    up = upscaler(FINE)
    given = []
    for alpha in (255, 9):
        frame = Image.fromarray(np.zeros((7, 9), np.uint8), "L").convert("P")
        frame.putpalette([200, 100, 50, alpha] * 256, "RGBA")
        given.append(frame)
    assert given[0] == given[1]
    for found, frame in zip(up.stream(given, scale=2), given, strict=True):
        assert np.array_equal(np.asarray(found), np.asarray(up(frame, scale=2)))


def test_what_cannot_be_compared_is_refused_in_its_place() -> None:
    """Not while the frames before it are at work."""
    stream = upscaler(FINE, threads=2).stream([FRAMES[0], [FRAMES[0]], [FRAMES[0]]], scale=2)
    assert np.array_equal(next(stream), upscaler(FINE)(FRAMES[0], scale=2))
    with pytest.raises(TypeError, match="list"):
        next(stream)


def test_foreign_frames_are_not_compared() -> None:
    class Foreign:
        """Of another library: its ``==`` is for each sample, as arrays' is."""

        def __init__(self, frame: np.ndarray) -> None:
            self.frame = frame

        def __eq__(self, other: object) -> object:  # type: ignore[override]
            return [True, False]

        def __dlpack__(self, **options: object) -> object:
            return torch.from_numpy(self.frame).__dlpack__(**options)  # type: ignore[arg-type]

        def __dlpack_device__(self) -> object:
            return torch.from_numpy(self.frame).__dlpack_device__()

    def camera() -> Iterator[Foreign]:
        buffer = np.empty_like(FRAMES[0])  # one for all
        for frame in FRAMES:
            buffer[:] = frame
            yield Foreign(buffer)

    up = upscaler(threads=2)
    for found, frame in zip(up.stream(camera(), scale=2), FRAMES, strict=True):
        assert np.array_equal(found.numpy(), up(frame, scale=2))


def test_several_frames_are_at_work() -> None:
    together = threading.Barrier(2, timeout=20)

    class Meeting(Upscaler):
        def __call__(self, image: object, **request: object) -> object:
            together.wait()  # breaks unless two are here at once
            assert torch.get_num_threads() == self.threads == self.encoder.threads == 1
            return super().__call__(image, **request)  # type: ignore[arg-type]

    up = Meeting(random_weights(SMALL), precision="fp32", threads=2)
    assert len(list(up.stream(FRAMES[:8], scale=2))) == 8


def test_tables_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    up, made = upscaler(FINE), []
    monkeypatch.setattr(grid, "taps", lambda *a, taps=grid.taps: made.append(a) or taps(*a))
    assert len(list(up.stream(FRAMES, size=(30, 41)))) == len(FRAMES)
    assert len(made) <= 4  # rows and columns, by two workers at the same time


def test_little_is_read_ahead() -> None:
    read = 0

    def source() -> Iterator[np.ndarray]:
        nonlocal read
        for read in itertools.count(1):
            yield FRAMES[read % len(FRAMES)]

    frames = upscaler().stream(source(), scale=2, at_once=2)
    for done in range(1, 20):
        next(frames)
        assert read <= done + 3
    frames.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("liif_fast-stream")]


def test_least_delay_waits_for_no_frame_to_come() -> None:
    read = 0

    def source() -> Iterator[np.ndarray]:
        nonlocal read
        for read in range(1, 10):
            yield FRAMES[read % len(FRAMES)]

    for done, _ in enumerate(upscaler().stream(source(), scale=2, at_once=1), 1):
        assert read == done


@pytest.mark.parametrize("at_once", [None, 1])
def test_equal_frames_are_computed_once_and_are_the_callers_own(at_once: int | None) -> None:
    up = Counting()
    frames = [FRAMES[i] for i in (0, 0, 0, 1, 1, 0, 2)]
    wanted = [upscaler()(frame, scale=2) for frame in frames]
    for found, right in zip(up.stream(frames, scale=2, at_once=at_once), wanted, strict=True):
        assert np.array_equal(found, right)
        found[:] = 0
    assert len(up.calls) == 4


def test_one_buffer_may_serve_all_frames() -> None:
    buffer = np.empty_like(FRAMES[0])

    def source() -> Iterator[np.ndarray]:
        for frame in FRAMES:
            buffer[:] = frame
            yield buffer

    up = upscaler()
    for found, frame in zip(up.stream(source(), scale=2), FRAMES, strict=True):
        assert np.array_equal(found, up(frame, scale=2))


def test_errors_come_in_their_place() -> None:
    up = upscaler()
    broken = [*FRAMES[:2], "no picture", FRAMES[3]]
    frames = up.stream(broken, scale=2)
    assert np.array_equal(next(frames), up(FRAMES[0], scale=2))
    assert np.array_equal(next(frames), up(FRAMES[1], scale=2))
    with pytest.raises(TypeError, match="str is not a Pillow image"):
        next(frames)

    def source() -> Iterator[np.ndarray]:
        yield from FRAMES[:3]
        raise OSError("camera unplugged")

    found = []
    with pytest.raises(OSError, match="camera unplugged"):
        found.extend(up.stream(source(), scale=2))
    assert len(found) == 3


def test_requests_are_checked() -> None:
    up = upscaler()
    for wrong in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match="at_once must be a whole number"):
            up.stream(FRAMES, scale=2, at_once=wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="exactly one of scale, size, longest"):
        next(up.stream(FRAMES))


def test_a_live_source_is_never_late() -> None:
    """Frames come five times as fast as they are enlarged: the newest are, each other one is named, none is queued."""
    up, dropped, came = Counting(pause=0.1), [], {}

    def camera() -> Iterator[np.ndarray]:
        for number in range(40):
            came[number] = time.monotonic()
            yield views[number]
            time.sleep(0.02)

    views = np.random.default_rng(1).integers(0, 256, (40, 3, 4, 3), np.uint8)
    number_of = {upscaler()(view, scale=1).tobytes(): number for number, view in enumerate(views)}
    frames = up.stream(camera(), scale=1, dropped=dropped.append)
    shown = [(number_of[frame.tobytes()], time.monotonic()) for frame in frames]
    numbers = [number for number, _ in shown]
    assert sorted(numbers + dropped) == list(range(40))
    assert numbers == sorted(numbers)
    assert numbers[-1] == 39
    assert 4 <= len(numbers) <= 20
    # One frame's time of waiting and one of work, with time to spare for a busy machine.
    assert np.median([at - came[number] for number, at in shown]) < 0.4


def test_a_live_source_may_be_left_early() -> None:
    """The thread that reads it does not outlive the stream, or the interpreter could not end while it is at work."""
    going = threading.Event()

    def camera() -> Iterator[torch.Tensor]:
        while True:
            yield torch.nn.functional.avg_pool2d(torch.rand(3, 60, 80), 2)
            going.set()

    frames = upscaler().stream(camera(), scale=1, dropped=lambda number: None)
    next(frames)
    frames.close()
    assert going.is_set()
    assert "liif_fast-source" not in [thread.name for thread in threading.enumerate()]


def test_a_live_source_that_is_blocked_is_left_too() -> None:
    unplugged = threading.Event()

    def camera() -> Iterator[np.ndarray]:
        yield FRAMES[0]
        unplugged.wait(60)

    frames = upscaler().stream(camera(), scale=2, dropped=lambda number: None)
    next(frames)
    begun = time.monotonic()
    frames.close()
    assert time.monotonic() - begun < 10
    unplugged.set()


def test_a_live_source_that_is_slower_loses_nothing() -> None:
    dropped: list[int] = []

    def camera() -> Iterator[np.ndarray]:
        for frame in FRAMES[:4]:
            time.sleep(0.3)
            yield frame
        raise OSError("camera unplugged")

    found = []
    with pytest.raises(OSError, match="camera unplugged"):
        found.extend(upscaler().stream(camera(), scale=2, dropped=dropped.append))
    assert len(found) == 4
    assert dropped == []


def test_its_workspaces_end_with_it() -> None:
    up = upscaler(threads=2)
    assert len(list(up.stream(FRAMES, scale=2))) == len(FRAMES)
    assert not up.encoder._free  # type: ignore[attr-defined]
    up(FRAMES[0], scale=2)
    assert up.encoder._free  # type: ignore[attr-defined]


def test_workspaces_of_many_threads_go_with_the_next_size() -> None:
    up, together = upscaler(threads=1), threading.Barrier(4, timeout=20)
    layers = up.encoder.layers  # type: ignore[attr-defined]
    up.encoder.layers = lambda *pictures: (together.wait(), layers(*pictures))[1]  # type: ignore[attr-defined]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda frame: up(frame, scale=2), FRAMES[:4]))
    assert len(up.encoder._free) == 4  # type: ignore[attr-defined]
    together = threading.Barrier(1)
    up(FRAMES[0][:5], scale=2)
    assert len(up.encoder._free) == 1  # type: ignore[attr-defined]
