"""Training: a `Config` to a folder with weights, state, log and curves."""

from __future__ import annotations

import ctypes
import gc
import math
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from ..backends import cpu
from ..checkpoint import save as save_weights
from ..encoder import torch_threads
from ..output import write_text
from ..upscaler import Upscaler, find_device
from . import data, film, jpeg, synthetic
from .attach import attach
from .centring import centred
from .config import SETTINGS, SHAPE, Config, to_toml
from .convolution import shares_threads
from .evaluate import evaluate
from .folder import WEIGHTS, check, check_data, held
from .log import Log, check_library
from .metrics import LUMA, PROTOCOLS
from .network import Liif
from .replay import Replayed, own_stream, possible
from .revival import revive
from .state import STATE, State, begin, behind
from .stopping import Postponed
from .testset import Compression, Pair, pair

VALIDATION_SCALES = (2.0, 3.0, 4.0)
_VALIDATION_SIDE, _VALIDATION_LEAST = 192, 20  # of a picture; at x4 smaller ones leave nothing to measure
_SYNTHETIC_SIZE = (384, 384)
# In the weights' metadata.
_RECORDED = ["batch", "patch", "places", "queries", "scale_min", "scale_max", "optimizer", "lr", "schedule", "ema"]
_RECORDED += ["encoder_pace", "jpeg", "jpeg_min", "jpeg_max", "film", "crf_min", "crf_max", "luma", "centred"]
_RECORDED += ["revive_every", "iterations"]


class Diverged(RuntimeError):
    """The loss or the network is no longer finite; the last saved state is good."""


def _silent(_: object) -> None:
    pass


@dataclass(frozen=True)
class Result:
    """``weights``: the file of the trained network. ``psnr``: of its validation, scale -> dB; empty without one."""

    weights: Path
    psnr: dict[float, float]


@dataclass(frozen=True)
class Progress:
    """What a run tells about once every ``log_every`` iterations. ``psnr``: of the last validation, scale -> dB."""

    iteration: int
    iterations: int
    loss: float
    iterations_per_s: float
    seconds_left: float
    psnr: dict[float, float]


def train(
    config: Config,
    resume: bool = False,
    tell: Callable[[Progress], None] = _silent,
    warn: Callable[[str], None] = _silent,
) -> Result:
    """Train to the end; a later call with ``resume`` goes on where the state was last saved, on processors bit for bit
    (on GPUs sums of gradients have no fixed order). Signals to end wait until it is saved, in a single process.

    Under ``torchrun`` every process takes its share of the batch, on a device of its own, or raises BackendUnavailable.

    The weights are the moving average; the settings are kept beside them. Raises FileExistsError for a folder that
    holds a run or a network, without ``resume``; FileNotFoundError for one that holds no run, with it; BlockingIOError
    for one in which another process is at work; CheckpointError for a state that does not fit; Diverged; ValueError and
    OSError for data that cannot be used and for fewer iterations than are done already.
    """
    device = find_device(config.device)
    if device.type == "cuda" and _processes() > 1:
        device = find_device(f"cuda:{os.environ.get('LOCAL_RANK') or os.environ.get('RANK', '0')}")
        torch.cuda.set_device(device)  # where its collectives run
    with _group(device) as (rank, size), torch_threads(config.threads or None):
        run = _Run(config, device, rank, size, tell, warn)
        check_library()
        if config.film:
            film.check(device)
        check(run.folder, resume)
        with held(run.folder) if rank == 0 else nullcontext(), own_stream(device):
            run.prepare(resume)
            if device.type == "cpu":
                keep_freed_memory()
            # Several processes would each stop elsewhere, and wait for each other.
            with _without_denormals(), nullcontext() if size > 1 else Postponed() as stop:
                run.loop(stop)
        result = Result(run.folder / WEIGHTS, run.psnr)
        del run
        return result


def load_data(
    config: Config, device: torch.device, warn: Callable[[str], None] = _silent
) -> tuple[data.Pictures, list[Pair]]:
    """The pictures of a run, on ``device``, and the test pairs made of those it holds out.

    Raises FileNotFoundError and ValueError for data that cannot be used; ``warn`` hears of each file skipped.
    """
    check_data(Path(config.output), config.data)
    arrays: list[np.ndarray] = []
    least = math.ceil(config.patch * config.scale_min)
    if config.data:
        needed = max(least, _VALIDATION_LEAST) if config.held_out else least
        arrays, skipped = data.load([Path(folder) for folder in config.data], needed)
        for one in skipped:
            warn(str(one))
        if skipped:
            warn(f"{len(skipped)} training pictures skipped, {len(arrays)} used")
    taken = len(arrays)
    arrays += synthetic.pictures(config.synthetic, _SYNTHETIC_SIZE, config.seed)
    if len(arrays) <= config.held_out:
        raise ValueError(
            f"{len(arrays)} training pictures: more than the {config.held_out} held out are needed; --synthetic N "
            "makes some, --set held_out=N holds out fewer"
        )
    # Spread over the folders, and the same for every run on the same data.
    held = {round((i + 0.5) * len(arrays) / config.held_out - 0.5) for i in range(config.held_out)}
    compression = Compression("JPEG", (config.jpeg_min + config.jpeg_max) // 2) if config.jpeg else None
    pairs = [
        pair(str(i), _middle(array), scale, PROTOCOLS["benchmark"], compression)
        for i, array in enumerate(arrays)
        if i in held
        for scale in VALIDATION_SCALES
    ]
    photographs, drawings = (
        [arrays[i] for i in indices if i not in held] for indices in (range(taken), range(taken, len(arrays)))
    )
    if config.halves:
        photographs += [data.halved(array) for array in photographs if min(array.shape[:2]) >= 2 * least]
    return data.Pictures(photographs + drawings, device, len(drawings), config.places), pairs


class _Run:
    def __init__(
        self,
        config: Config,
        device: torch.device,
        rank: int,
        size: int,
        tell: Callable[[Progress], None],
        warn: Callable[[str], None],
    ) -> None:
        if config.batch % size:
            raise ValueError(f"batch is {config.batch}, must be a multiple of the {size} processes")
        self.config, self.device, self.rank, self.size, self.tell, self.warn = config, device, rank, size, tell, warn
        self.folder = Path(config.output)
        self.psnr: dict[float, float] = {}
        self.saved: int | None = None  # iteration

    def prepare(self, resume: bool) -> None:
        config, state_path, warn = self.config, self.folder / STATE, self.warn if self.rank == 0 else _silent
        network = begin(config)
        self.config = config = replace(config, **{key: getattr(network.architecture, key) for key in SHAPE})
        self.state = State.new(network, config, self.device, self.rank)
        if resume:
            self.state.restore(state_path, self.rank)
            self.saved = self.state.iteration
            if self.saved > config.iterations:
                raise ValueError(f"iterations is {config.iterations}, {state_path} has done {self.saved} already")
        self.pictures, self.validation = load_data(config, self.device, warn)
        if resume and self.state.pictures not in (None, self.pictures.digest()):
            warn("the pictures are not those the run was saved with: what is held out may differ, and its PSNR with it")
        self.state.pictures = self.pictures.digest()
        if config.init and config.encoder and not resume:
            network = self.state.network
            assert isinstance(network, Liif)
            attach(network, behind(config, network).to(self.device), self.pictures, config.seed)
            self.state.average = {key: value.clone() for key, value in network.state_dict().items()}
        self.log = Log(self.folder, self.state.iteration)
        if self.rank == 0:
            write_text(self.folder / SETTINGS, to_toml(config))  # what a later sitting goes by
        architecture = self.state.network.architecture
        self.mean, self.std = (
            torch.tensor(v, device=self.device)[:, None, None] for v in (architecture.mean, architecture.std)
        )
        self.luma = torch.tensor(LUMA, device=self.device)
        bf16 = config.precision == "bf16" or (
            config.precision == "auto" and faster_in_bf16(self.device, architecture.decoder)
        )
        self.autocast = torch.autocast(self.device.type, torch.bfloat16) if bf16 else nullcontext()
        model: nn.Module = self.state.network
        if self.size > 1:
            cards = [self.device.index] if self.device.type == "cuda" else None
            model = nn.parallel.DistributedDataParallel(model, device_ids=cards)
        self.model = model
        graph = partial(Replayed, generator=self.state.generator) if possible(self.device, self.size) else None
        # Two, as what flows into layers is looked at in some iterations only.
        self.differentiate = [graph(self._differentiate) if graph else self._differentiate for _ in range(2)]
        self.precision = "bf16" if bf16 else "fp32"

    def loop(self, stop: Postponed | None = None) -> None:
        config, state = self.config, self.state
        loss_sum, since, start = torch.zeros((), device=self.device), state.iteration, time.perf_counter()
        while state.iteration < config.iterations:
            loss_sum += self.step()
            state.iteration += 1
            last = state.iteration == config.iterations
            every = (config.log_every, config.save_every, config.validate_every)
            logs, saves, validates = (last or state.iteration % n == 0 for n in every)
            stopped = bool(stop)
            saves = saves or stopped
            if not (logs or saves or validates):
                continue
            loss = self._mean(loss_sum / (state.iteration - since))
            speed = (state.iteration - since) / (time.perf_counter() - start)
            if not (math.isfinite(loss) and state.finite()):  # the last step shows in no loss yet
                good = f"the state of iteration {self.saved} is good" if self.saved else "no state was saved yet"
                raise Diverged(f"diverged at iteration {state.iteration} (loss {loss}): lower the rate (--lr); {good}")
            since = state.iteration
            loss_sum.zero_()
            if validates and self.saved is None:
                self.save()  # or a run that is killed when it has weights could neither go on nor begin anew
            if self.rank == 0:
                if validates:
                    self.validate()
                lr = config.lr_at(state.iteration - 1)
                self.log.add(state.iteration, loss, lr, speed, self.psnr if validates else {})
                left = (config.iterations - state.iteration) / speed
                self.tell(Progress(state.iteration, config.iterations, loss, speed, left, self.psnr))
            if saves:
                self.save()
            if stopped:
                return
            start = time.perf_counter()
        if self.rank == 0 and not self.psnr:  # resumed at its end
            self.validate()

    def step(self) -> torch.Tensor:
        """One iteration; its loss, in normalised units."""
        config, state, network = self.config, self.state, self.state.network
        for group in state.optimizer.param_groups:
            group["lr"] = config.lr_at(state.iteration) * group["pace"]
        state.inputs.begin(state.iteration)
        loss, gradients, state.inputs.now = self.differentiate[state.inputs.now is not None]()
        state.inputs.end(self.size)
        for parameter, gradient in zip(network.parameters(), gradients, strict=True):
            parameter.grad = gradient
        with centred(state.inputs) if config.centred else nullcontext():
            if config.clip:
                nn.utils.clip_grad_norm_(network.parameters(), config.clip)
            state.optimizer.step()
        state.follow(config.ema)
        if config.encoder_pace and config.revive_every and (state.iteration + 1) % config.revive_every == 0:
            revive(network, state.average, state.optimizer, state.inputs, state.iteration)
        return loss

    def _differentiate(self) -> tuple[torch.Tensor, list[torch.Tensor | None], dict[str, torch.Tensor] | None]:
        """The loss of a new batch, its gradients, and what the layers were given. Nothing is asked of a GPU, and what
        is new each time is in tensors that were there before."""
        config, network, inputs = self.config, self.state.network, self.state.inputs
        batch = self.pictures.batch(
            config.batch // self.size,
            config.patch,
            None if network.on_grid else config.queries,
            (config.scale_min, config.scale_max),
            self.state.generator,
        )
        image = ((self._worn(batch.lr) - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        with self.autocast:
            colors = self.model(image, batch.y, batch.x, batch.cell)
        target = (batch.target - self.mean[:, 0, 0]) / self.std[:, 0, 0]
        loss = (self._errors(colors.float() - target) * batch.share).sum()
        self.state.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        return loss.detach(), [parameter.grad for parameter in network.parameters()], inputs.now

    def _worn(self, lr: torch.Tensor) -> torch.Tensor:
        """A batch's patches as a film or a JPEG brings them."""
        config, generator = self.config, self.state.generator
        if config.film and torch.rand(1, generator=generator).item() < config.film:
            return film.at_random(lr, (config.crf_min, config.crf_max), generator)
        if config.jpeg:
            return jpeg.at_random(lr, config.jpeg, (config.jpeg_min, config.jpeg_max), generator)
        return lr

    def _errors(self, difference: torch.Tensor) -> torch.Tensor:
        """[..., 3] -> [...]: L1 of the colours and, for the share `Config.luma`, of the luma they make together."""
        share, colors = self.config.luma, difference.abs().mean(-1)
        if not share:
            return colors
        return (1 - share) * colors + share * (difference @ self.luma).abs()

    def validate(self) -> None:
        """PSNR on Y of the held-out pictures, through the product's own path; the weights are written."""
        state = self.state
        weights = state.weights(
            self.folder.name, iterations=str(state.iteration), recipe=_recipe(self.config, self.precision)
        )
        if self.validation:
            up = Upscaler(weights, device=self.device, precision="fp32", threads=self.config.threads or None)
            found = evaluate(up, self.validation)
            self.psnr = {scale: summary.psnr for scale, summary in found.items()}
        save_weights(self.folder / WEIGHTS, weights, force=True)
        self.log.draw()

    def save(self) -> None:
        generators: list[torch.Tensor] = [self.state.generator.get_state()] * self.size
        if self.size > 1:
            dist.all_gather_object(generators, generators[0])
        if self.rank == 0:
            self.state.save(self.folder / STATE, generators)
        self.saved = self.state.iteration

    def _mean(self, value: torch.Tensor) -> float:
        if self.size > 1:
            dist.all_reduce(value)
            value = value / self.size
        return float(value)


def _recipe(config: Config, precision: str) -> str:
    values = asdict(config)
    return ", ".join([*(f"{key} {values[key]}" for key in _RECORDED), precision])


def _middle(picture: np.ndarray) -> np.ndarray:
    top, left = ((side - min(side, _VALIDATION_SIDE)) // 2 for side in picture.shape[:2])
    return picture[top : top + _VALIDATION_SIDE, left : left + _VALIDATION_SIDE]


def faster_in_bf16(device: torch.device, decoder: str) -> bool:
    """Whether an iteration takes less time with products of bf16 than of float32.

    On AMD's Zen 5 0.55 of it for LIIF, 0.8 for the default and 0.9 to 1 for the small networks. With PyTorch's
    convolutions only LIIF's; what is nearly all convolutions is slower, but with AMX.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    # Builds without oneDNN, as those for Macs, do not have the question either.
    mkldnn = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    if not mkldnn or not cpu.prefers_bf16():
        return False
    return decoder == "liif" or shares_threads() or cpu.isa() == "amx"


def keep_freed_memory() -> None:
    """Have glibc reuse what an iteration frees: mapping its buffers anew each time costs as much as the arithmetic."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        arena_max, mmap_max, trim_threshold, top_pad = -8, -4, -1, -2  # malloc.h
        for option, value in ((arena_max, 1), (mmap_max, 0), (trim_threshold, 2**31 - 1), (top_pad, 1 << 28)):
            libc.mallopt(option, value)


@contextmanager
def _without_denormals() -> Iterator[None]:
    """What is kept of a weight without a gradient fades until a processor takes three times as long for it."""
    if not float(torch.full((1,), 1e-38) / 2):  # the caller's setting already, not to be undone
        yield
        return
    _flush_denormals(True)
    try:
        yield
    finally:
        _flush_denormals(False)


def _flush_denormals(flush: bool) -> None:
    torch.set_flush_denormal(flush)  # of this thread
    if not cpu.missing():
        cpu._cpu.share_mode(threads=torch.get_num_threads())


def _processes() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def _group(device: torch.device) -> Iterator[tuple[int, int]]:
    """(rank, number of processes), as ``torchrun`` says."""
    if _processes() == 1:
        yield 0, 1
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield dist.get_rank(), dist.get_world_size()
        # All leave together, and nothing holds on to the group: its threads must end before the process does.
        dist.barrier()
    finally:
        gc.collect()
        dist.destroy_process_group()
