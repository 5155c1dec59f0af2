"""The encoder in TensorRT and TensorRT for RTX: built once for each GPU, kept on disk, checked before it is used."""

from __future__ import annotations

import hashlib
import math
import threading
import warnings
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from . import __version__, cuda_streams, engine_cache, tiling, trt_network
from .backends import BackendUnavailable
from .checkpoint import Weights
from .device_memory import give_back
from .encoder import BaseEncoder, Encoder, Head, in_tiles
from .trt_context import Context
from .trt_kernels import Kernels
from .trt_network import CHANNELS, build, largest

# dB of z to PyTorch's in fp32 that an engine must reach; PyTorch itself is at 74 to 88 in fp16 and at 54 to 69 in bf16.
LEAST_PSNR = {torch.float16: 60.0, torch.bfloat16: 50.0}


@dataclass(frozen=True)
class Flavour:
    """One of the two TensorRTs: its Python module, package and extra of ours."""

    module: str
    package: str
    extra: str

    @property
    def missing(self) -> str | None:
        """Why it cannot be imported."""
        try:
            import_module(self.module)
        except Exception as error:  # a library that is not found can be anything
            reason = str(error).partition("\n")[0]
            return f"{self.package} is missing ({reason}); pip install 'liif_fast[{self.extra}]'"
        return None

    @property
    def trt(self) -> ModuleType:
        """The module; BackendUnavailable where it is missing."""
        if self.missing:
            raise BackendUnavailable(self.missing)
        return import_module(self.module)


FLAVOURS = {
    "tensorrt": Flavour("tensorrt", "tensorrt", "tensorrt"),
    "tensorrt-rtx": Flavour("tensorrt_rtx", "tensorrt-rtx-cu12", "tensorrt-rtx"),
}


def unavailable(engine: str, device: torch.device, dtype: torch.dtype) -> str | None:
    """Why ``engine``, a name of `FLAVOURS`, cannot encode there; None if it can be tried."""
    flavour = FLAVOURS[engine]
    if device.type != "cuda":
        return f"it encodes on CUDA devices, not on {device.type}"
    if dtype not in LEAST_PSNR:
        return f"it encodes in float16 and bfloat16, not in {dtype}"
    if flavour.missing:
        return flavour.missing
    capability = _capability(device)
    if engine == "tensorrt-rtx" and capability not in known_capabilities():
        return f"it has no {capability}, which this GPU is, but {', '.join(known_capabilities())}"
    return None


def known_capabilities() -> list[str]:
    """Architectures that TensorRT for RTX builds for, as "SM89"; BackendUnavailable where it is missing."""
    members = FLAVOURS["tensorrt-rtx"].trt.ComputeCapability.__members__
    return sorted((name for name in members if name.startswith("SM")), key=lambda name: int(name[2:]))


def serialized(
    engine: str, weights: Weights, head: Head, dtype: torch.dtype, capabilities: tuple[str, ...] = ()
) -> bytes:
    """An engine as `trt_network.build` makes it; BackendUnavailable with TensorRT's own words where it does not."""
    trt, width = FLAVOURS[engine].trt, len(head.weight)
    if width % CHANNELS:
        raise BackendUnavailable(f"engine {engine!r} takes a z of multiples of {CHANNELS} channels, not of {width}")
    logger = _listener(engine)
    logger.said.clear()
    try:
        return build(trt, logger, weights, head, dtype, capabilities)
    except (RuntimeError, TypeError) as error:  # the latter: a builder that could not be made at all
        raise BackendUnavailable(f"engine {engine!r} could not be built: {_said(logger, error)}") from error


class TensorRTEncoder(BaseEncoder):
    """`BaseEncoder` by one of `FLAVOURS`; BackendUnavailable where the engine cannot be built, loaded or trusted.

    May be used from several threads and streams at once; work goes to PyTorch's current stream.
    """

    def __init__(self, engine: str, weights: Weights, head: Head, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__(weights, head, device, dtype)
        self.engine, self._of = engine, (engine, weights, head, device, dtype)
        if head.skip:  # the image, spread over z's channels, lies beside it
            self.bytes_per_cell += self.width * dtype.itemsize
        self.largest = largest(weights, head)
        around = tiling.around(self.halo)
        if min(self.largest) <= around:
            raise BackendUnavailable(
                f"engine {engine!r} takes at most {self.largest[1]} x {self.largest[0]} pixels of this network at "
                f"once, no more than the {around} around a tile"
            )
        self._trt, self._logger = FLAVOURS[engine].trt, _listener(engine)
        self._logger.said.clear()
        self._lock, self._contexts, self._private = threading.Lock(), dict[int, Context](), False
        path, compiled, key = self._named(weights, head)
        self._kernels = Kernels(compiled, key)
        with torch.cuda.device(device):
            self._engine = self._ready(weights, head, path, key)

    def takes(self, height: int, width: int) -> bool:
        return height <= self.largest[0] and width <= self.largest[1]

    def private(self) -> TensorRTEncoder:
        """TensorRT asks that a context which a CUDA graph was captured of works for nothing else."""
        own = object.__new__(TensorRTEncoder)
        own.__dict__ |= {**self.__dict__, "_contexts": {}, "_private": True}
        return own

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as what it is made of: engines belong to a process."""
        return _again, (*self._of, self.self_ensemble)

    def z(self, image: torch.Tensor) -> torch.Tensor:
        if self.takes(*image.shape[:2]):
            return self._run(self._normalise(image))
        z = torch.empty(*image.shape[:2], self.width, dtype=self.dtype, device=self.device)
        rows, columns = (side - tiling.around(self.halo) for side in self.largest)
        in_tiles(self.z, image, self.halo, (rows, columns), z)
        return z

    def _named(self, weights: Weights, head: Head) -> tuple[Path, Path, dict[str, str]]:
        """The files of its engine and of what that compiles as it runs, and what both must be of."""
        # What plain TensorRT has timed on one card may be slow on another of its architecture.
        rtx, card = self.engine == "tensorrt-rtx", _card(self.device)
        made_for = _capability(self.device) if rtx else card
        precision = str(self.dtype).removeprefix("torch.")
        network = network_of(weights, head)
        key = {
            "network": network,
            "engine": self.engine,
            "precision": precision,
            "card": made_for,
            "recipe": _recipe(),
            "version": self._trt.__version__,
            "liif_fast": __version__,
        }
        names = network, self.engine, precision
        return engine_cache.place(*names, made_for), engine_cache.place(*names, card, "kernels"), key

    def _ready(self, weights: Weights, head: Head, path: Path, key: dict[str, str]) -> Any:
        """The engine of the cache, or a new one, checked and kept."""
        if kept := engine_cache.read(path, key):
            plan, outcome = kept
            trust(self.engine, outcome, path)
            if loaded := self._load(plan):
                return loaded
        rtx = self.engine == "tensorrt-rtx"
        if not rtx:  # it tries every kernel there is
            warnings.warn(
                f"engine {self.engine!r} is built for this GPU and network, once; that may take minutes", stacklevel=2
            )
        give_back()  # TensorRT takes memory beside PyTorch, which holds what it has had
        capabilities = (_capability(self.device),) if rtx else ()
        plan = serialized(self.engine, weights, head, self.dtype, capabilities)
        self._engine = self._load(plan)
        if not self._engine:
            raise BackendUnavailable(f"engine {self.engine!r} was built but not loaded: {_said(self._logger)}")
        try:
            outcome = check(self, Encoder(weights, head, self.device, torch.float32), LEAST_PSNR[self.dtype])
        except RuntimeError as error:
            raise BackendUnavailable(f"engine {self.engine!r} was built but does not run: {error}") from error
        engine_cache.write(path, key, plan, outcome)
        trust(self.engine, outcome, path)
        return self._engine

    def _load(self, plan: bytes) -> Any:
        try:
            self._runtime = self._trt.Runtime(self._logger)  # must outlive what it makes
        except TypeError as error:  # of a constructor that got nothing
            raise BackendUnavailable(f"engine {self.engine!r} cannot start: {_said(self._logger, error)}") from error
        return self._runtime.deserialize_cuda_engine(plan)

    def _run(self, x: torch.Tensor) -> torch.Tensor:
        x = x.contiguous()
        z = torch.empty(*x.shape[:2], self.width, dtype=self.dtype, device=self.device)
        current = stream = torch.cuda.current_stream(self.device)
        with self._lock, torch.cuda.device(self.device):
            if current.cuda_stream == 0:
                stream = _side(self.device)
            self._logger.said.clear()
            context = self._contexts.get(stream.cuda_stream)
            if context is None:
                context = self._contexts[stream.cuda_stream] = self._context()
            scratch = context.prepare(x, z)
            if stream is not current:  # after all that had the memory given out above
                stream.wait_stream(current)
            done = scratch is not None and context.run(stream.cuda_stream)
            if stream is not current:  # before any of it is given out again, whatever came of the run
                current.wait_stream(stream)
        if not done:
            raise RuntimeError(f"engine {self.engine!r} failed: {_said(self._logger)}")
        return z

    def _context(self) -> Context:
        try:
            return Context(self._trt, self._engine, self._kernels, self._private)
        except RuntimeError as error:
            raise RuntimeError(f"engine {self.engine!r} does not start: {_said(self._logger, error)}") from error


def _again(
    engine: str, weights: Weights, head: Head, device: torch.device, dtype: torch.dtype, self_ensemble: bool
) -> TensorRTEncoder:
    encoder = TensorRTEncoder(engine, weights, head, device, dtype)
    if self_ensemble:
        encoder.ensemble_itself()
    return encoder


def network_of(weights: Weights, head: Head) -> str:
    """Sixteen digits that tell an engine's network from others; a head is not the same for every precision."""
    digest = hashlib.sha256(weights.fingerprint.encode())
    for tensor in (head.weight, head.bias):
        digest.update(tensor.float().contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


Encode = Callable[[torch.Tensor], torch.Tensor]


def check(encode: Encode, reference: BaseEncoder, least: float) -> dict[str, Any]:
    """How ``encode`` compares to the reference on a picture of waves and noise.

    Returns ``psnr``, dB of z where its whole range is the peak, and ``problem``: None, or why it must not be used.
    """
    generator = torch.Generator().manual_seed(0)
    color = torch.arange(3, dtype=torch.float32, device="cpu")
    y, x = (torch.arange(n, dtype=torch.float32, device="cpu") / period for n, period in ((61, 7), (83, 9)))
    waves = 0.5 + 0.3 * torch.sin(y[:, None, None] + color) * torch.cos(x[None, :, None])
    noise = torch.randn(61, 83, 3, dtype=torch.float32, device="cpu", generator=generator)
    picture = (waves + 0.1 * noise).clamp(0, 1).to(reference.device)
    expected, z = reference(picture).double(), encode(picture).double()
    if not bool(torch.isfinite(z).all()):
        return {"psnr": None, "problem": "its features hold NaN or infinite values"}
    error = float((z - expected).square().mean())
    peak = float(expected.max() - expected.min())
    psnr = 20 * math.log10(max(peak, 1e-15)) - 10 * math.log10(max(error, 1e-30))
    problem = None
    if float(z.max()) == float(z.min()):
        problem = "its features are the same everywhere, a black frame"
    elif psnr < least:
        problem = f"its features are at {psnr:.1f} dB to PyTorch's, below {least:g}"
    return {"psnr": round(psnr, 2), "problem": problem}


def trust(engine: str, outcome: dict[str, Any], path: Path) -> None:
    """BackendUnavailable for an engine that failed its check, now or when it was made."""
    if outcome.get("problem"):
        raise BackendUnavailable(
            f"engine {engine!r} was built but is wrong: {outcome['problem']}; without {path} it is built again"
        )


@cache
def _listener(engine: str) -> Any:
    """Hears TensorRT's errors. One for a process: TensorRT takes no second."""
    trt = FLAVOURS[engine].trt

    class Listener(trt.ILogger):  # type: ignore[name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.said: deque[str] = deque(maxlen=8)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.said.append(message)

    return Listener()


@cache
def _side(device: torch.device) -> torch.cuda.Stream:
    """Where work for the default stream goes, on which TensorRT would wait for all that the device does."""
    return cuda_streams.own(device) or torch.cuda.Stream(device)


def _said(logger: Any, error: Exception | None = None) -> str:
    """The first thing that went wrong, as one line."""
    said = next(iter(logger.said), "") or str(error or "no reason given")
    return " ".join(said.split())


def _capability(device: torch.device) -> str:
    major, minor = torch.cuda.get_device_capability(device)
    return f"SM{major}{minor}"


@cache
def _recipe() -> str:
    """Sixteen digits of the file that builds engines, so that none of them outlives a change there."""
    return hashlib.sha256(Path(trt_network.__file__).read_bytes()).hexdigest()[:16]


def _card(device: torch.device) -> str:
    return f"{_capability(device)}-{torch.cuda.get_device_name(device)}"
