"""``liif-fast bench``: how fast each stage is here, beside the machine's own matrix product rate and its peers."""

from __future__ import annotations

import json
import math
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import cycle, islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from . import __version__, backends, engines, published
from .backends import BACKENDS, cpu, select, stored, triton
from .checkpoint import load
from .encoder import torch_threads
from .field import Field
from .output import check_place, write_text
from .quantization import FORMATS
from .system import processor
from .upscaler import PRECISIONS, Upscaler, find_device, find_precision, has_int8


@dataclass(frozen=True)
class Job:
    """A picture of some (height, width) and the size it is enlarged to, with names of both."""

    before: str
    after: str
    picture: tuple[int, int]
    size: tuple[int, int]

    def __str__(self) -> str:
        return f"{self.before} → {self.after}"


SMALL = Job("128²", "512²", (128, 128), (512, 512))
LIVE = Job("270p", "1080p", (270, 480), (1080, 1920))
FILM = Job("1080p", "2160p", (1080, 1920), (2160, 3840))
# Taken apart into stages, and measured as a whole.
STAGES = {"cpu": SMALL, "cuda": FILM}
WHOLE = {"cpu": LIVE, "cuda": Job("540p", "2160p", (540, 960), (2160, 3840))}
STREAMED = 60  # frames
# Rows, inner and outer width of the matrix product that is the yardstick: as the decoder's own, or as large as a GPU
# needs to be at its best.
GEMM = {"cpu": (8192, 256), "cuda": (8192, 8192)}
# A precision that multiplies matrices this much slower than fp32 is emulated; timing it would take minutes and tell
# nothing.
EMULATED = 4


@dataclass
class Row:
    """One line of the table. Times in ms: median, fastest and slowest; error is PSNR in dB against fp32, inf if
    equal."""

    stage: str
    precision: str
    threads: int
    ms: float
    ms_min: float
    ms_max: float
    runs: int
    megapixels_per_s: float | None = None
    gflops: float | None = None
    share_of_gemm: float | None = None
    psnr_to_fp32: float | None = None


def timed(run: Callable[[], object], device: torch.device, seconds: float = 1.0, most: int = 20) -> list[float]:
    """Sorted times in ms of repeated calls after one to warm up: at least three, for about ``seconds``."""
    wait = partial(torch.cuda.synchronize, device) if device.type == "cuda" else lambda: None
    run()
    times: list[float] = []
    while len(times) < 3 or (sum(times) < 1000 * seconds and len(times) < most):
        wait()
        start = time.perf_counter()
        run()
        wait()
        times.append(1000 * (time.perf_counter() - start))
    return sorted(times)


def gemm_rate(dtype: torch.dtype, device: torch.device, seconds: float = 1.0) -> float:
    """GFLOP/s of PyTorch's matrix product of the shape `GEMM`; of int8 with sums of 32 bits."""
    rows, width = GEMM[device.type]
    a, b = (torch.randn(n, width, device=device).mul(10).to(dtype) for n in (rows, width))
    out = torch.empty_like(a, dtype=torch.int32 if dtype == torch.int8 else dtype)
    product = torch._int_mm if dtype == torch.int8 else torch.matmul
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    product(a[:256], b)  # the first one sets the library up
    wait()
    start = time.perf_counter()
    product(a[:256], b)
    wait()
    count = 1 if time.perf_counter() - start > 0.05 else 8  # an emulated product takes seconds
    times = timed(lambda: [product(a, b, out=out) for _ in range(count)], device, seconds)
    return count * 2 * rows * width * width / statistics.median(times) / 1e6


def run(
    model: str,
    device: str = "auto",
    backend: str = "auto",
    precision: str | None = None,
    threads: int | None = None,
    quick: bool = False,
    json_path: Path | None = None,
    engine: str = "auto",
) -> None:
    """Measure, print a table, and write it with data on the machine to ``json_path``, which is checked first."""
    if json_path:
        check_place(json_path, force=True)
    with torch_threads(threads):
        report = measure(model, device, backend, precision, quick, engine)
    show(report)
    if json_path:
        write_text(json_path, json.dumps(report, indent=1) + "\n")


def measure(model: str, device: str, backend: str, precision: str | None, quick: bool, engine: str = "auto") -> dict:
    """All rows of one machine and model, as JSON data."""
    threads, seconds = torch.get_num_threads(), 0.5 if quick else 2.0
    on, weights = find_device(device), load(model)
    int8 = has_int8(weights, backend)
    names = [find_precision(precision, on, int8)] if precision else _with_kernels(int8, on, backend, engine)
    first = PRECISIONS[names[0]] if names else torch.float32
    select(backend, on, first)  # raises where it cannot
    engines.check(engine, on, stored(first))
    # What others are compared with; a backend or an engine that was named need not do fp32.
    does_fp32 = backend == "auto" or BACKENDS[backend].unavailable(on, torch.float32) is None
    encodes_fp32 = _encodes(engine, on, torch.float32)
    exact = Upscaler(
        weights,
        device=on,
        backend=backend if does_fp32 else "auto",
        engine=engine if encodes_fp32 else "auto",
        precision="fp32",
    )
    up, job = exact, STAGES[on.type]
    image = picture(*job.picture)
    rates: dict[str, float] = {}
    rows: list[Row] = []
    notes: list[str] = []
    for name in names:
        multiplied = PRECISIONS[name] if name == "int8" else stored(PRECISIONS[name])
        rates[name] = gemm_rate(multiplied, on, seconds)
        emulated = PRECISIONS[name] not in FORMATS and rates[name] * EMULATED < rates.get("fp32", 0)
        if emulated and precision is None:
            notes.append(f"{name}: not native here ({rates[name]:.0f} GFLOP/s matrix product), left out")
            continue
        same = name == "fp32" and does_fp32 and encodes_fp32
        up = exact if same else Upscaler(exact.weights, device=on, backend=backend, engine=engine, precision=name)
        for count in sorted({1, threads} if on.type == "cpu" else {threads}):
            with torch_threads(count), _without_tf32():
                rate = rates[name] if count == threads else gemm_rate(multiplied, on, seconds)
                rows.append(_gemm_row(name, on, rate))
                rows += _stages(up, exact, job, image, rate, seconds)
        if on.type == "cuda":
            if name == "fp32":
                notes.append(
                    "fp32: stages without TF32, which convolutions of PyTorch's take unless they are told not to"
                )
            rows.append(_streamed(up, job, STREAMED // 4 if quick else STREAMED))
    is_liif = exact.weights.architecture.decoder == "liif"
    rows += _peers(exact, job, image, rates, 0 if quick else seconds, is_liif, notes)
    if not quick:
        last = Upscaler(exact.weights, device=on, backend=backend, engine=engine, precision=precision or "auto")
        rows.append(_whole(last))
    report = {
        "machine": machine(up),
        "model": {"name": exact.weights.name, "architecture": exact.weights.architecture.summary()},
        "notes": notes,
    }
    if is_liif:
        published_ms = next(r.ms for r in rows if r.stage == "published, PyTorch")
        best = min((r for r in rows if r.stage == f"end to end {job}"), key=lambda r: r.ms)
        report["speedup_over_published"] = {"precision": best.precision, "ratio": published_ms / best.ms}
    return {**report, "rows": [asdict(row) for row in rows]}


@contextmanager
def _without_tf32() -> Iterator[None]:
    """In fp32 cuDNN's convolutions would round to 10 bits, as fp16 does: too close to it to compare it with."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def _with_kernels(int8: bool, device: torch.device, backend: str, engine: str) -> list[str]:
    """Precisions that the backend decodes and the engine encodes in; of "auto", those that another than plain PyTorch
    does, and fp32."""
    # fp8 only where it is asked for: not every model can.
    able = {name: dtype for name, dtype in PRECISIONS.items() if dtype not in FORMATS or (name == "int8" and int8)}
    every = {name: dtype for name, dtype in able.items() if _encodes(engine, device, dtype)}
    if backend in BACKENDS:
        return [name for name, dtype in every.items() if BACKENDS[backend].unavailable(device, dtype) is None]
    kernels = [name for name in BACKENDS if name != "reference"]
    against = {name: backends.reasons_against(device, dtype) for name, dtype in every.items()}
    return [n for n, reasons in against.items() if n == "fp32" or None in (reasons[name] for name in kernels)]


def _encodes(engine: str, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether it can; what is no engine at all is refused later."""
    return engines.reasons_against(device, stored(dtype)).get(engine) is None


def picture(height: int, width: int) -> np.ndarray:
    """A smooth picture with edges and grain, uint8 [height, width, 3]."""
    y, x = np.mgrid[:height, :width]
    waves = np.stack([np.sin(x / 7 + y / 19), np.cos(y / 5 - x / 23), np.sign(np.sin((x + y) / 11))], axis=-1)
    grain = np.random.default_rng(0).normal(0, 0.05, waves.shape)
    return np.clip(127.5 + 90 * (waves + grain), 0, 255).astype(np.uint8)


def _row(
    stage: str, precision: str, times: list[float], pixels: int, flops: float | None = None, gemm: float | None = None
) -> Row:
    ms = statistics.median(times)
    gflops = flops / ms / 1e6 if flops else None
    share = gflops / gemm if gflops and gemm else None
    count = torch.get_num_threads()
    return Row(stage, precision, count, ms, times[0], times[-1], len(times), pixels / ms / 1e3, gflops, share)


def _gemm_row(precision: str, device: torch.device, rate: float) -> Row:
    rows, width = GEMM[device.type]
    ms = 2 * rows * width**2 / rate / 1e6
    count = torch.get_num_threads()
    return Row(f"GEMM {rows}x{width}x{width}", precision, count, ms, ms, ms, 1, None, rate, 1.0)


def _stages(up: Upscaler, exact: Upscaler, job: Job, image: np.ndarray, gemm: float, seconds: float) -> list[Row]:
    """Encoder, decoder and both."""
    planes = torch.from_numpy(image).to(up.device)
    z = up.encoder(planes)
    field = Field(planes, up.encoder, up.decoder, 1 << 40, up.cell_clamp)
    y, x, cell = field.tables(job.size, (0, 0, *job.picture))
    y, x = y.to(up.device), x.to(up.device)
    out = torch.empty(*job.size, 3, dtype=torch.uint8, device=up.device)
    cells, pixels = math.prod(job.picture), math.prod(job.size)
    encode = timed(lambda: up.encoder(planes), up.device, seconds)
    decode = timed(lambda: up.decoder(z, y, x, cell, out), up.device, seconds)
    whole = timed(lambda: up(image, size=job.size), up.device, seconds)
    encoders_gemm = gemm if PRECISIONS[up.precision] == up.encoder.dtype else None  # it is not in 8 bits
    rows = [
        _row(f"encoder {job.before}", up.precision, encode, cells, cells * up.encoder.flops_per_cell, encoders_gemm),
        _row(f"decoder {job}", up.precision, decode, pixels, pixels * up.decoder.flops_per_pixel, gemm),
        _row(f"end to end {job}", up.precision, whole, pixels),
    ]
    if up is not exact:
        floats = image.astype(np.float32) / 255
        rows[-1].psnr_to_fp32 = psnr(up(floats, size=job.size), exact(floats, size=job.size))
    return rows


def _streamed(up: Upscaler, job: Job, frames: int) -> Row:
    """Milliseconds a frame of a film, numpy in and out, from the third frame on."""
    still = picture(*job.picture)
    # Made before: a GPU is sooner done with a frame than the host with making one.
    moving = [np.roll(still, i, axis=1) for i in range(4)]
    done = [time.perf_counter() for _ in up.stream(islice(cycle(moving), frames), size=job.size)]
    times = sorted(1e3 * (after - before) for before, after in pairwise(done[2:]))
    return _row(f"stream {job}", up.precision, times, math.prod(job.size))


def _peers(
    exact: Upscaler,
    job: Job,
    image: np.ndarray,
    rates: dict[str, float],
    seconds: float,
    is_liif: bool,
    notes: list[str],
) -> list[Row]:
    """The same job by the published algorithm in plain PyTorch, where the network is one for it, and fixed filters."""
    device, pixels = exact.device, math.prod(job.size)
    planes = torch.from_numpy(image).permute(2, 0, 1).float().div(255).to(device)

    def plain(**how: Any) -> np.ndarray:
        made = published.upscale(exact.weights, planes, job.size, **how)
        return made.mul(255).round().clamp(0, 255).byte().cpu().numpy()

    rows = []
    if is_liif:
        rows.append(_row("published, PyTorch", "fp32", timed(plain, device, seconds, most=3), pixels))
        half = "fp16" if device.type == "cuda" else "bf16"
        if rates.get(half, 0) * EMULATED > rates.get("fp32", 0):
            with torch.autocast(device.type, PRECISIONS[half]):
                rows.append(_row("published, autocast", half, timed(plain, device, seconds, most=3), pixels))
                # On processors it needs a C++ compiler, on a GPU Triton.
                if device.type == "cuda" and triton.unavailable(device, PRECISIONS[half]) is None:
                    best = partial(plain, compiled=torch.compile)
                    rows += _compiled(half, best, device, seconds, pixels, notes)
    from PIL import Image

    small, host = Image.fromarray(image), torch.device("cpu")
    for name, method in (("bicubic", Image.Resampling.BICUBIC), ("Lanczos", Image.Resampling.LANCZOS)):
        resize = partial(small.resize, job.size[::-1], method)
        rows.append(_row(f"{name}, Pillow", "uint8", timed(resize, host, 0.2), pixels))
    return rows


def _compiled(
    precision: str, run: Callable[[], object], device: torch.device, seconds: float, pixels: int, notes: list[str]
) -> list[Row]:
    """A row, or a note where PyTorch's compiler fails: all others have been measured by then."""
    stage = "published, autocast, torch.compile"
    try:
        return [_row(stage, precision, timed(run, device, seconds, most=3), pixels)]
    except Exception as error:
        notes.append(f"{stage}: left out, {type(error).__name__}: {' '.join(str(error).split())[:200]}")
        return []


def _whole(up: Upscaler) -> Row:
    job = WHOLE[up.device.type]
    image = picture(*job.picture)
    times = timed(lambda: up(image, size=job.size), up.device, 0)
    return _row(f"end to end {job}", up.precision, times, math.prod(job.size))


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Of two pictures in [0, 1], in dB."""
    mse = float(np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2))
    return -10 * math.log10(mse) if mse else math.inf


def machine(up: Upscaler) -> dict:
    """What the figures depend on."""
    return {
        "processor": processor(),
        "cores": psutil.cpu_count(logical=False),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "device": torch.cuda.get_device_name(up.device) if up.device.type == "cuda" else "cpu",
        "instruction_set": cpu.isa(PRECISIONS[up.precision]) if cpu.isas() else None,
        "backend": up.decoder.backend,
        "encoder": up.encoder.engine,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "liif_fast": __version__,
        "date": time.strftime("%Y-%m-%d"),
    }


def show(report: dict) -> None:
    """Print the table."""
    from rich.console import Console
    from rich.table import Table

    m = report["machine"]
    console = Console()
    if not console.is_terminal:
        console = Console(width=110)  # a file has no width of its own
    console.print(
        f"{m['processor']}, {m['cores']} cores, {m['instruction_set']}, PyTorch {m['torch']}, device {m['device']}, "
        f"encoder by {m['encoder']}"
    )
    console.print(f"{report['model']['name']}: {report['model']['architecture']}")
    table = Table("stage", "precision")
    for heading in ("threads", "ms", "spread", "MP/s", "GFLOP/s", "of GEMM", "dB to fp32"):
        table.add_column(heading, justify="right")
    for row in report["rows"]:
        spread = (row["ms_max"] - row["ms_min"]) / row["ms"] if row["runs"] > 1 else None
        columns = [
            (row["threads"], "{}"),
            (row["ms"], "{:.1f}"),
            (spread, "{:.0%}"),
            (row["megapixels_per_s"], "{:.3f}"),
            (row["gflops"], "{:.0f}"),
            (row["share_of_gemm"], "{:.2f}"),
            (row["psnr_to_fp32"], "{:.1f}"),
        ]
        cells = ["" if value is None else form.format(value) for value, form in columns]
        table.add_row(row["stage"], row["precision"], *cells)
    console.print(table)
    if best := report.get("speedup_over_published"):
        console.print(f"{best['ratio']:.1f} x the published algorithm in plain PyTorch fp32 (in {best['precision']})")
    for note in report["notes"]:
        console.print(note)
