"""Frames of one size on a GPU: copied to it and back beside the work, and the work on a frame as one CUDA graph.

The graph holds all from the samples of a picture to those of the enlarged one, so that a frame costs the host a few
launches, whatever the network. Copies in, work and copies out have a CUDA stream each and are a frame apart.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import torch

from . import cuda_streams, pages
from .device_memory import if_it_fits, is_full
from .encoder import CHECK_VARIABLE
from .field import Field
from .image import Planes, Unpacked, unpack


class Plan:
    """All from a picture to its enlargement, in one piece, with nothing left to ask or to copy.

    Args:
        field: of a picture on the device of the encoder; `run` reads its samples anew each time.
        size: (height, width) of the enlargement.

    Attributes:
        image: [H, W, channels], the field's samples.
        out: [*size, channels] of the same dtype and order in memory, filled by `run`.
    """

    def __init__(self, field: Field, size: tuple[int, int]) -> None:
        self.image, self._field = field.color, field
        y, x, self._cell = field.tables(size, (0, 0, field.height, field.width))
        self._y, self._x = y.to(self.image.device), x.to(self.image.device)
        self.out = pages.like(self.image, size, self.image.dtype, self.image.device)

    def run(self) -> None:
        z = self._field.encoder(self.image)
        self._field.decode(z, self._y, self._x, self._cell, self.out)


class GpuLine:
    """A `stream.Line` on a GPU.

    Args:
        device: that of ``make_field``'s encoder, with its number.
        make_field: the field of a picture [H, W, channels] on the device.
        size_of: (height, width) of a picture -> of its enlargement.
        enlarge: the ordinary way, for pictures with alpha, in batches, too large, in several orientations, or on
            another GPU, and for all where other lines have taken every CUDA stream.
        at_once: frames submitted and not yet asked for.
    """

    def __init__(
        self,
        device: torch.device,
        make_field: Callable[[torch.Tensor], Field],
        size_of: Callable[[int, int], tuple[int, int]],
        enlarge: Callable[[Any], Any],
        at_once: int,
    ) -> None:
        self.ahead = at_once
        self._device, self._make_field, self._size_of, self._enlarge = device, make_field, size_of, enlarge
        own = [cuda_streams.own(device) for _ in range(3)]
        self._alone = None not in own
        if not self._alone:
            warnings.warn(
                f"frames are enlarged one at a time, which is slower: all CUDA streams of {device} are taken by other "
                "streams of frames; end some of those first",
                stacklevel=2,
            )
        self._in, self._work, self._out = (stream or torch.cuda.current_stream(device) for stream in own)
        self._before: Any = None
        self._planned_for: Any = None
        self._plan: Plan | None = None
        self._run: Callable[[], None] = lambda: None
        self._last: tuple[torch.Tensor, _Sent] | None = None  # the last frame that came on the device

    def submit(self, frame: Any) -> _Sent | Future[Any]:
        done: Future[Any] = Future()
        try:
            with torch.cuda.device(self._device):
                unpacked = unpack(frame)
                first = unpacked.frames[0]
                if len(unpacked.frames) == 1 and first.alpha is None and self._ready(first.color):
                    return self._send_from_device(unpacked) if first.color.is_cuda else self._send_from_host(unpacked)
                self._last = None
                done.set_result(self._enlarge(frame))
        except Exception as error:  # raised where the frame is due
            done.set_exception(error)
        return done

    def close(self) -> None:
        self._let_go()
        self._in = self._work = self._out = torch.cuda.current_stream(self._device)  # others may have them

    def _let_go(self) -> None:
        """Frees the memory of the last kind of frames, at once: a graph's is that of all work on one."""
        for stream in (self._in, self._work, self._out):
            stream.synchronize()  # nothing is at work on it
        self._planned_for, self._plan, self._run, self._last = None, None, lambda: None, None

    def _ready(self, color: torch.Tensor) -> bool:
        """Whether frames like this one go through in one piece; the second of a kind waits until that is prepared."""
        if not self._alone or (color.is_cuda and color.device != self._device):
            return False
        kind, before = (color.shape, color.dtype, pages.planar(color)), self._before
        self._before = kind
        if kind != self._planned_for:
            if kind != before:  # pictures of many sizes are done sooner than prepared for
                return False
            self._let_go()
            height, width = color.shape[:2]
            size = self._size_of(height, width)
            with if_it_fits():  # or the ordinary way takes smaller tiles
                black = pages.like(color, (height, width), color.dtype, self._device).zero_()
                field = self._make_field(black)
                field.encoder = field.encoder.private()
                whole = field.encoder.takes(field.height, field.width) and not field.encoder.self_ensemble
                if whole and field.height * field.width <= field.max_cells:
                    plan = Plan(field, size)
                    self._run = self._captured(plan)
                    self._plan = plan
            self._planned_for = kind
        return self._plan is not None

    def _captured(self, plan: Plan) -> Callable[[], None]:
        """What runs it, on the stream of the work: as a graph, or, with a warning, as it is."""
        self._work.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._work):
            plan.run()  # compiles and tunes kernels, makes what is kept, and checks what a capture cannot
        if os.environ.get(CHECK_VARIABLE):  # which waits for the device in the middle of a frame
            return plan.run
        try:
            graph, _ = cuda_streams.capture(plan.run, self._work)
        except RuntimeError as error:
            if is_full(error):
                raise
            reason = str(error).partition("\n")[0]
            warnings.warn(f"frames are launched one kernel at a time, not as a CUDA graph: {reason}", stacklevel=2)
            return plan.run
        return graph.replay

    # Memory that a stream still works on must not be given to another: `record_stream` says so of tensors made on one
    # stream and used on the next, and PyTorch's pinned memory knows by itself.

    def _send_from_device(self, unpacked: Unpacked) -> _Sent:
        """The host waits until the frame is copied, so the caller's memory is free again, whoever it belongs to."""
        color = unpacked.frames[0].color
        self._in.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._in):
            sent = color.to(self._device, copy=True)
            equal = self._last is not None and not bool((sent != self._last[0]).any())
        self._in.synchronize()
        if self._last is None or not equal:
            made = self._worked(sent)
            self._out.wait_stream(self._work)
            self._last = sent, _Sent(unpacked, made, self._out.record_event())
        return self._last[1]

    def _send_from_host(self, unpacked: Unpacked) -> _Sent:
        color, self._last = unpacked.frames[0].color, None
        held = pages.pinned(color).copy_(color)
        with torch.cuda.stream(self._in):
            sent = held.to(self._device, non_blocking=True)
        made = self._worked(sent)
        self._out.wait_stream(self._work)
        with torch.cuda.stream(self._out):
            host = pages.pinned(made)
            host.copy_(made, non_blocking=True)
        made.record_stream(self._out)
        return _Sent(unpacked, host, self._out.record_event())

    def _worked(self, sent: torch.Tensor) -> torch.Tensor:
        plan = self._plan
        assert plan is not None
        self._work.wait_stream(self._in)
        with torch.cuda.stream(self._work):
            plan.image.copy_(sent)
            self._run()
            made = plan.out.clone()
        sent.record_stream(self._work)
        return made


@dataclass(frozen=True)
class _Sent:
    """A frame on its way."""

    unpacked: Unpacked
    made: torch.Tensor  # where the caller's frame was: on the host, pinned, or on a GPU
    there: torch.cuda.Event

    def result(self) -> Any:
        if self.made.is_cuda:
            now = torch.cuda.current_stream(self.made.device)
            now.wait_event(self.there)
            self.made.record_stream(now)
        else:
            self.there.synchronize()
        return self.unpacked.pack([Planes(self.made, None)])
