"""Upscaler: image in, image out."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Generator, Iterable
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from . import engines, grid, memory
from .backends import BackendUnavailable, cpu, stored, triton
from .changes import Changes
from .checkpoint import Weights, load
from .field import Box, Field, Progress, least_memory
from .frame import Frame
from .gpu_stream import GpuLine
from .image import Unpacked, join, unpack
from .ops import Decoder
from .quantization import FORMATS
from .resample import Resampler
from .stream import Dropped, Workers, copied, stream
from .weights import DEFAULT
from .words import counted

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16} | {
    form.name: form.dtype for form in FORMATS.values()
}
DECODERS: dict[str, type[Decoder] | type[Resampler]] = {"liif": Decoder, "resample": Resampler}
# Enough for tiles whose halos cost little, and little enough not to be noticed.
DEFAULT_MEMORY = 3 << 29
# On a GPU whole frames of 1920 x 1080 should go through the largest encoder in one piece.
DEFAULT_GPU_MEMORY = 1 << 32
GPU_FRAMES = 3
# Bytes of a result for which it takes longer to ask what memory is free than it saves.
_UNCHECKED = 1 << 24
_MOST_THREADS = 1024
# Hidden layers of 16 and 32 take longer in int8: to round their inputs is more work than their products.
_WIDE = 48


class Upscaler:
    """Enlarges pictures to any size with one small network.

    Args:
        model: a name (see ``liif-fast info``), a checkpoint file, or loaded `Weights`.
        device: "auto" (CUDA if there is one), "cpu", "cuda", "cuda:1", or a torch.device.
        precision: "fp32", "bf16", "fp16", "int8", "fp8", or "auto": the fastest that loses no more than 0.015 dB to
            fp32, as the mean over Set5 at x2, x3 and x4. That is int8 for a LIIF decoder that has been measured for it,
            with hidden layers of 48 and more, on processors with VNNI or no more than AVX2, but not with AMX; else bf16
            with AMX or AMD's AVX-512-BF16; on CUDA devices fp16 where the Triton kernels run; and fp32 elsewhere. On
            CUDA devices PyTorch's convolutions in fp32 are in TF32 unless `torch.backends.cudnn.allow_tf32` is off.
            "int8", on processors: LIIF's hidden layers in int8, all else in fp32. "fp8", on CUDA devices of compute
            capability 8.9 and up: the same in float8 (e4m3), all else in fp16; "auto" never takes it, as no GPU has run
            it yet. Both are for models that `liif-fast calibrate` has measured, and the backend "reference" emulates
            them anywhere, slowly.
        threads: of the processor, 1 to 1024; None takes PyTorch's number, and with that (on Linux) its threads.
        backend: "auto", or the name of one in ``liif-fast info``; a named one never falls back to another.
        engine: of the encoder: "auto", "tensorrt", "tensorrt-rtx", "native" (processors) or "torch", likewise. The
            first two build an engine for this GPU once, which is kept on disk and checked against PyTorch.
        max_memory: bytes that features and buffers may take beside the input and the result; larger pictures are worked
            on in tiles, with the same result. The least tile worth encoding is taken in any case: 64 MB with the
            default model in fp32. None: 1.5 GiB (4 GiB on a GPU) or half of what is free, whichever is less; in a
            container of what is free there.
        self_ensemble: work on each picture in its eight orientations and take the mean (EDSR's geometric
            self-ensemble): better, for eight times the encoder's work. For models whose decoder resamples.
        cell_clamp: scale beyond which the decoder's cell input, which was trained up to x4, stays as it is there; None
            is the paper.

    Raises:
        CheckpointError, FileNotFoundError: the model. BackendUnavailable: the device, precision, backend or engine,
            with the reason.
        ValueError, TypeError: any other argument, with its value.

    May be used from several threads at once, and in processes forked from this one, where PyTorch has one thread.
    """

    def __init__(
        self,
        model: str | Path | Weights = DEFAULT,
        *,
        device: str | torch.device = "auto",
        precision: str = "auto",
        threads: int | None = None,
        backend: str = "auto",
        engine: str = "auto",
        max_memory: int | None = None,
        cell_clamp: float | None = 4.0,
        self_ensemble: bool = False,
    ) -> None:
        threads, max_memory = _whole("threads", threads, _MOST_THREADS), _whole("max_memory", max_memory)
        if cell_clamp is not None and not (grid.is_number(cell_clamp) and 1 <= cell_clamp < math.inf):
            raise ValueError(f"cell_clamp must be a scale of at least 1, or None, got {cell_clamp!r}")
        if not isinstance(self_ensemble, (bool, np.bool_)):
            raise TypeError(f"self_ensemble must be True or False, got {self_ensemble!r}")
        if not isinstance(model, (str, os.PathLike, Weights)):
            raise TypeError(f"model must be a name, a path or Weights, got {model!r}")
        self.weights = model if isinstance(model, Weights) else load(model)
        if self_ensemble and self.weights.architecture.decoder != "resample":
            name = self.weights.name
            raise ValueError(f"self_ensemble is for models whose decoder resamples, as {DEFAULT}, not for {name}")
        self.device = find_device(device)
        self.precision = find_precision(precision, self.device, has_int8(self.weights, backend))
        self.threads, self.max_memory, self.cell_clamp = threads, max_memory, cell_clamp
        dtype = PRECISIONS[self.precision]
        make = DECODERS[self.weights.architecture.decoder]
        self.decoder = make(self.weights, self.device, dtype, backend, threads)
        self.encoder = engines.make(engine, self.weights, self.decoder.head, self.device, stored(dtype), threads)
        if self_ensemble:
            self.encoder.ensemble_itself()

    def __call__(
        self,
        image: Any,
        *,
        scale: float | tuple[float, float] | None = None,
        size: tuple[int, int] | None = None,
        longest: int | None = None,
        progress: Progress | None = None,
    ) -> Any:
        """The picture at another size, as the same kind of object with the same dtype, channels and range.

        Args:
            image: PIL image, as it is stored (the EXIF block comes along, its orientation still to be applied); numpy
                [H, W] or [H, W, C], uint8, uint16 or float in [0, 1]; torch [C, H, W] or [B, C, H, W], likewise. C is
                1 (gray), 2 (gray, alpha), 3 (RGB) or 4 (RGBA, alpha not premultiplied). Other arrays with
                ``__dlpack__`` (CuPy, JAX) as numpy's, for which the result is a torch tensor [H, W, C].
            scale: a factor, or (vertical, horizontal) factors, of at least 0.5.
            size: (height, width) in pixels.
            longest: length of the longer side in pixels, aspect kept. Give exactly one of these three.
            progress: called with (pixels done, pixels in all) about once a second.

        Raises:
            TypeError: a kind of object or a dtype that is not supported. ValueError: a shape, value or size that is
                not.
        """
        unpacked = unpack(image)
        height, width = unpacked.frames[0].color.shape[:2]
        target = grid.output_size(height, width, scale, size, longest)
        _check_memory(unpacked, target)
        budget = self._budget()
        fields = [Frame(frame, self._field, budget) for frame in unpacked.frames]
        return unpacked.pack(
            [frame.render(target, None, _nth(progress, i, len(fields))) for i, frame in enumerate(fields)]
        )

    def stream(
        self,
        frames: Iterable[Any],
        *,
        scale: float | tuple[float, float] | None = None,
        size: tuple[int, int] | None = None,
        longest: int | None = None,
        at_once: int | None = None,
        dropped: Dropped | None = None,
    ) -> Generator[Any, None, None]:
        """The frames of a video at another size: what calling with each gives, in order, sooner; bit for bit, but for
        the last bits of `engine="tensorrt-rtx"`, which makes other kernels for a stream.

        Args:
            frames: pictures as for calling, read as they are needed and copied, so that one buffer may serve them all.
                A frame equal to the one before is not computed again and, on processors, of one that differs in
                little only that.
            scale, size, longest: as for calling.
            at_once: frames at work at the same time. None gives the most frames a second: on processors one a thread,
                each on one thread, or fewer where ``max_memory`` is not enough for as many; on GPUs three, of which one
                is copied in, one worked on and one copied out. 1: one frame on all threads, and its result before the
                next is read, which gives the least delay. Memory grows with it, up to a ``max_memory`` that was given,
                else up to half of what is free.
            dropped: for a live source, which does not wait: it is read on a thread of its own, the newest frame that
                waits replaces an older one, and this is called, on that thread, with the number of each frame replaced
                (the first is 0). None: the source waits, and no frame is lost.

        An error, be it of a frame or of ``frames`` itself, is raised where its result was due. `close` ends it early.
        """
        threads = self.threads or torch.get_num_threads()
        on_gpu = self.device.type == "cuda"
        at_once = _whole("at_once", at_once)
        if at_once is None:
            at_once = 1 if dropped is not None else GPU_FRAMES if on_gpu else self._frames_at_once(threads)
        request: dict[str, Any] = {"scale": scale, "size": size, "longest": longest}
        if on_gpu:
            # Only frames in one piece are captured, which of 2160p want more than the default.
            field = partial(self._field, max_memory=self._most_memory)
            size_of = partial(grid.output_size, **request)
            line = partial(GpuLine, self.device, field, size_of, partial(self, **request), at_once)
            return stream(frames, line, dropped)
        share = max(1, threads // at_once)
        worker = copy(self)
        worker.encoder, worker.decoder = copy(self.encoder), copy(self.decoder)
        worker.threads = worker.encoder.threads = worker.decoder.threads = share
        worker.max_memory = max(1, self._budget(at_once) // at_once)
        # One more than are at work, so that no worker waits for the caller; not where least delay is wanted, as the
        # source may take its time.
        ahead = at_once + (at_once > 1 and dropped is None)
        renew = None
        if worker.encoder.engine == "native" and worker.decoder.backend == "cpu" and not worker.encoder.self_ensemble:
            # Whose tiles have the bits of the whole.
            field = partial(worker._field, max_memory=worker.max_memory)
            renew = Changes(field, partial(grid.output_size, **request))
        whole = partial(worker, **request)
        return stream(frames, partial(Workers, whole, at_once, share, ahead, renew), dropped)

    def encode(self, image: Any) -> ImageField:
        """The picture as a continuous field, encoded once, to render windows of and sample points from."""
        return ImageField(image, self)

    def bands(
        self,
        image: Any,
        size: tuple[int, int],
        progress: Progress | None = None,
        box: Box | None = None,
    ) -> Generator[np.ndarray, None, None]:
        """As calling with ``size``, but from top to bottom in bands [rows, width, C], for results larger than memory.

        ``image``: one picture of any kind; ValueError for a batch of several. ``box``: the window of it, as for
        `ImageField.render`. Yields arrays of its dtype (float32 for float64 and bfloat16), with its channels (always
        three axes).
        """
        unpacked = unpack(image)
        if len(unpacked.frames) != 1:
            raise ValueError(f"bands are of one picture, got a batch of {len(unpacked.frames)}")
        height, width = unpacked.frames[0].color.shape[:2]
        top, left, bottom, right = grid.check_box(box, height, width)
        target = grid.output_size(bottom - top, right - left, size=size)
        for _, band in Frame(unpacked.frames[0], self._field, self._budget()).bands(target, box, progress):
            yield join(band).contiguous().cpu().numpy()

    def __repr__(self) -> str:
        return f"<Upscaler: {self.description}>"

    @property
    def description(self) -> str:
        """One line on what runs: model, device, precision, backend, and the engine or instruction set and threads."""
        what = (
            f"{self.weights.name}, {self.device}, {self.precision}, {self.decoder.backend} ({self.decoder.description})"
        )
        if self.encoder.self_ensemble:
            what += ", self-ensemble"
        if self.device.type == "cpu":
            return f"{what}, {counted(self.threads or torch.get_num_threads(), 'thread')}"
        return f"{what}, encoder by {self.encoder.engine}"

    def _field(self, plane: torch.Tensor, max_memory: int, keep: bool = False) -> Field:
        return Field(plane.to(self.device), self.encoder, self.decoder, max_memory, self.cell_clamp, keep)

    @property
    def _most_memory(self) -> int:
        """Bytes for what is held for long."""
        return self.max_memory or self.free_memory // 2

    def _budget(self, pictures: int = 1) -> int:
        """Bytes for so many at work at once."""
        if self.max_memory:
            return self.max_memory
        enough = DEFAULT_GPU_MEMORY if self.device.type == "cuda" else DEFAULT_MEMORY
        return min(enough * pictures, self.free_memory // 2)

    def _frames_at_once(self, threads: int) -> int:
        """As many as have the memory for tiles worth encoding."""
        return max(1, min(threads, self._budget(threads) // least_memory(self.encoder)))

    @property
    def free_memory(self) -> int:
        """Bytes, on the device; on a GPU with those that PyTorch holds for later."""
        if self.device.type == "cuda":
            free = int(torch.cuda.mem_get_info(self.device)[0])
            # `memory_reserved` and `memory_allocated` would each sort all there is to tell, for every picture.
            stats = torch.cuda.memory_stats_as_nested_dict(self.device)
            reserved, allocated = (int(stats[f"{kind}_bytes"]["all"]["current"]) for kind in ("reserved", "allocated"))
            return free + reserved - allocated
        return memory.free()


class ImageField:
    """A picture as its network sees it: continuous. Made by `Upscaler.encode`."""

    def __init__(self, image: Any, upscaler: Upscaler) -> None:
        self._unpacked = unpack(copied(image))  # rendering looks at it again
        self._tensor = isinstance(image, torch.Tensor)
        self._batched = self._tensor and image.ndim == 4
        frames = self._unpacked.frames
        # Features are what this object is for, so they may take more than the buffers of a single run.
        budget = upscaler._most_memory
        self._frames = [Frame(frame, partial(upscaler._field, keep=True), budget // len(frames)) for frame in frames]
        self.height, self.width = frames[0].color.shape[:2]

    def render(
        self,
        *,
        scale: float | tuple[float, float] | None = None,
        size: tuple[int, int] | None = None,
        longest: int | None = None,
        box: Box | None = None,
        progress: Progress | None = None,
    ) -> Any:
        """A window at any size, as the same kind of object that was encoded.

        Args:
            scale, size, longest: as for `Upscaler`, of the window.
            box: (top, left, bottom, right) in pixels of the input, fractions allowed; None is the whole picture.
        """
        top, left, bottom, right = grid.check_box(box, self.height, self.width)
        target = grid.output_size(bottom - top, right - left, scale, size, longest)
        _check_memory(self._unpacked, target)
        count = len(self._frames)
        return self._unpacked.pack(
            [f.render(target, box, _nth(progress, i, count)) for i, f in enumerate(self._frames)]
        )

    def sample(self, points: Any, scale: float | None = None) -> Any:
        """Colours at points [..., 2] = (y, x) in pixels of the input (the first pixel's centre is (0.5, 0.5)).

        Returns float32 [..., C] in [0, 1], or [B, ..., C] of a batch; a tensor if a tensor was encoded, else a numpy
        array. ``scale`` is that of the picture the points are thought to belong to (default 4). ValueError for points
        outside.
        """
        # A copy: PyTorch takes no array of negative strides, of the other byte order or that is read-only.
        at = points if isinstance(points, torch.Tensor) else torch.from_numpy(np.array(points, np.float64))
        if at.shape[-1:] != (2,):
            raise ValueError(f"points must be [..., 2] of (y, x), got {tuple(at.shape)}")
        colors = [f.sample(at.reshape(-1, 2), scale) for f in self._frames]
        colors = [color.view(*at.shape[:-1], color.shape[1]) for color in colors]
        result = torch.stack(colors) if self._batched else colors[0]
        return result if self._tensor else result.cpu().numpy()


def _nth(progress: Progress | None, i: int, count: int) -> Progress | None:
    """Progress of the i-th of several pictures of one size as progress of all."""
    return progress and (lambda done, total: progress(i * total + done, count * total))


def _whole(name: str, value: Any, most: float = math.inf) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not 1 <= value <= most:
        limits = "of at least 1" if most == math.inf else f"from 1 to {most}"
        raise ValueError(f"{name} must be a whole number {limits}, or None, got {value!r}")
    return int(value)


def find_device(device: str | torch.device) -> torch.device:
    """ValueError for a name that is none; BackendUnavailable for a device that is not there."""
    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "auto":
        device = "cuda" if cards else "cpu"
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device must be auto, cpu, cuda or cuda:N, got {device!r}") from error
    if found.type not in ("cpu", "cuda"):
        raise BackendUnavailable(f"no device {found}: only auto, cpu, cuda and cuda:N are supported")
    if found.type == "cuda" and (found.index or 0) >= cards:
        there = counted(cards, "CUDA device") if cards else f"no CUDA device ({_why_none()})"
        raise BackendUnavailable(f"no device {found}: PyTorch {torch.__version__} finds {there} here")
    if found.type == "cuda" and found.index is None:
        return torch.device("cuda", torch.cuda.current_device())  # as tensors there call it
    return found if found.type == "cuda" else torch.device("cpu")


def _why_none() -> str:
    """Why PyTorch has no CUDA device: its own build, no driver, one too old, none visible."""
    if torch.version.cuda is None:
        return "it was built without CUDA"
    try:
        torch.cuda.init()
    except RuntimeError as error:
        return str(error).partition(". ")[0].partition("\n")[0]
    return "none is visible"


def has_int8(weights: Weights, backend: str) -> bool:
    """Whether the network has layers in it that are wide enough to be faster than in bf16, and the backend is one for
    it, not one that emulates it."""
    wide = min(weights.architecture.hidden_list, default=0) >= _WIDE
    return "int8" in weights.quantized and wide and backend in ("auto", "cpu")


def find_precision(precision: str, device: torch.device, int8: bool = False) -> str:
    """``int8``: see `has_int8`."""
    if precision == "auto":
        if (reason := triton.unavailable(device, torch.float16)) is None:
            # As fast as bf16 there with three more bits; activations stay far below its largest value, 65504.
            return "fp16"
        if device.type == "cuda":
            warnings.warn(f"plain PyTorch decodes, in fp32, which is slow: {reason}", stacklevel=2)
        if device.type != "cpu" or cpu.unavailable(device, torch.float32) is not None:
            return "fp32"
        return "int8" if int8 and cpu.prefers_int8() else "bf16" if cpu.prefers_bf16() else "fp32"
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of auto, {', '.join(PRECISIONS)}; got {precision!r}")
    return precision


def _check_memory(unpacked: Unpacked, size: tuple[int, int]) -> None:
    """Refuse a result that memory cannot hold before any work is done."""
    frame = unpacked.frames[0]
    channels = frame.color.shape[2] + (frame.alpha is not None)
    need = math.prod(size) * channels * frame.color.dtype.itemsize * len(unpacked.frames)
    if need < _UNCHECKED or frame.color.device.type != "cpu":
        return
    if need > (free := memory.free()):
        raise ValueError(
            f"a result of {size[1]} x {size[0]} pixels needs {need / 1e9:.1f} GB, but {free / 1e9:.1f} GB of memory "
            "are free; upscale to a PNG or TIFF file on the command line, which is written by rows, or take "
            "Upscaler.bands"
        )
