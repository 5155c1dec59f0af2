"""``liif-fast bench``: how fast each stage is here, beside the machine's own matrix product rate and its peers."""

from __future__ import annotations

import json
import math
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from . import __version__, grid, published
from .backends import cpu, select
from .encoder import torch_threads
from .system import processor
from .upscaler import PRECISIONS, Upscaler

SIDE, SCALE = 128, 4  # the usual small job: 128 x 128 -> 512 x 512
GEMM = (8192, 256)  # rows and width of the matrix product that is the machine's yardstick
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


def timed(run: Callable[[], object], seconds: float = 1.0, most: int = 20) -> list[float]:
    """Sorted times in ms of repeated calls after one to warm up: at least three, for about ``seconds``."""
    run()
    times: list[float] = []
    while len(times) < 3 or (sum(times) < 1000 * seconds and len(times) < most):
        start = time.perf_counter()
        run()
        times.append(1000 * (time.perf_counter() - start))
    return sorted(times)


def gemm_rate(dtype: torch.dtype, device: torch.device, seconds: float = 1.0) -> float:
    """GFLOP/s of PyTorch's [8192, 256] x [256, 256] product."""
    rows, width = GEMM
    a, b = torch.randn(rows, width, device=device).to(dtype), torch.randn(width, width, device=device).to(dtype)
    out = torch.empty_like(a)
    start = time.perf_counter()
    torch.matmul(a[:256], b)
    count = 1 if time.perf_counter() - start > 0.05 else 8  # an emulated product takes seconds
    times = timed(lambda: [torch.matmul(a, b, out=out) for _ in range(count)], seconds)
    return count * 2 * rows * width * width / statistics.median(times) / 1e6


def run(
    model: str,
    device: str = "auto",
    backend: str = "auto",
    precision: str | None = None,
    threads: int | None = None,
    quick: bool = False,
    json_path: Path | None = None,
) -> None:
    """Measure, print a table, and write it with data on the machine to ``json_path``."""
    with torch_threads(threads):
        report = measure(model, device, backend, precision, quick)
    show(report)
    if json_path:
        json_path.parent.mkdir(parents=True, exist_ok=True)
        json_path.write_text(json.dumps(report, indent=1) + "\n")


def measure(model: str, device: str, backend: str, precision: str | None, quick: bool) -> dict:
    """All rows of one machine and model, as JSON data."""
    threads, seconds = torch.get_num_threads(), 0.5 if quick else 2.0
    exact = Upscaler(model, device=device, backend=backend, precision="fp32")
    image = picture(SIDE, SIDE)
    rates: dict[str, float] = {}
    rows: list[Row] = []
    notes: list[str] = []
    for name in [precision] if precision else _with_kernels(exact.device):
        rates[name] = gemm_rate(PRECISIONS[name], exact.device, seconds)
        if name != "fp32" and precision is None and rates[name] * EMULATED < rates.get("fp32", 0):
            notes.append(f"{name}: not native here ({rates[name]:.0f} GFLOP/s matrix product), left out")
            continue
        up = exact if name == "fp32" else Upscaler(exact.weights, device=device, backend=backend, precision=name)
        for count in sorted({1, threads}):
            with torch_threads(count):
                rate = rates[name] if count == threads else gemm_rate(PRECISIONS[name], exact.device, seconds)
                rows.append(_gemm_row(name, count, rate))
                rows += _stages(up, exact, image, rate, seconds)
    rows += _peers(exact, image, rates, 0 if quick else seconds)
    if not quick:
        rows.append(_frame(Upscaler(exact.weights, device=device, backend=backend, precision=precision or "auto")))
    published_ms = next(r.ms for r in rows if r.stage == "published, PyTorch")
    best = min((r for r in rows if r.stage.startswith("end to end 128")), key=lambda r: r.ms)
    return {
        "machine": machine(exact),
        "model": {"name": exact.weights.name, "architecture": exact.weights.architecture.summary()},
        "speedup_over_published": {"precision": best.precision, "ratio": published_ms / best.ms},
        "notes": notes,
        "rows": [asdict(row) for row in rows],
    }


def _with_kernels(device: torch.device) -> list[str]:
    """Precisions that another backend than plain PyTorch decodes in, and fp32 to compare with."""
    return [n for n, dtype in PRECISIONS.items() if n == "fp32" or select("auto", device, dtype) != "reference"]


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


def _gemm_row(precision: str, threads: int, rate: float) -> Row:
    ms = 2 * GEMM[0] * GEMM[1] ** 2 / rate / 1e6
    return Row("GEMM 8192x256x256", precision, threads, ms, ms, ms, 1, None, rate, 1.0)


def _stages(up: Upscaler, exact: Upscaler, image: np.ndarray, gemm: float, seconds: float) -> list[Row]:
    """Encoder, decoder and both, for 128 x 128 -> 512 x 512."""
    side = SIDE * SCALE
    planes = torch.from_numpy(image).float().div(255).to(up.device)
    z = up.encoder(planes)
    cell = (2 / SCALE, 2 / SCALE)
    axis: Any = up.decoder.tables(grid.centres(0, SIDE, side), SIDE, cell[0]).to(up.device)
    out = torch.empty(side, side, 3, dtype=torch.uint8, device=up.device)

    def decode() -> torch.Tensor:
        return up.decoder(z, axis, axis, cell, out)

    sync = torch.cuda.synchronize if up.device.type == "cuda" else lambda: None
    encode = timed(lambda: (up.encoder(planes), sync()), seconds)
    decoded = timed(lambda: (decode(), sync()), seconds)
    whole = timed(lambda: up(image, scale=SCALE), seconds)
    rows = [
        _row("encoder 128²", up.precision, encode, SIDE**2, SIDE**2 * up.encoder.flops_per_cell, gemm),
        _row("decoder 128² → 512²", up.precision, decoded, side**2, side**2 * up.decoder.flops_per_pixel, gemm),
        _row("end to end 128² → 512²", up.precision, whole, side**2),
    ]
    if up is not exact:
        floats = image.astype(np.float32) / 255
        rows[-1].psnr_to_fp32 = psnr(up(floats, scale=SCALE), exact(floats, scale=SCALE))
    return rows


def _peers(exact: Upscaler, image: np.ndarray, rates: dict[str, float], seconds: float) -> list[Row]:
    """The published algorithm in plain PyTorch, and fixed filters, for the same job."""
    size = (SIDE * SCALE, SIDE * SCALE)
    planes = torch.from_numpy(image).permute(2, 0, 1).float().div(255).to(exact.device)

    def plain() -> np.ndarray:
        return published.upscale(exact.weights, planes, size).mul(255).round().clamp(0, 255).byte().cpu().numpy()

    pixels = math.prod(size)
    rows = [_row("published, PyTorch", "fp32", timed(plain, seconds, most=3), pixels)]
    if rates.get("bf16", 0) * EMULATED > rates.get("fp32", 0):
        with torch.autocast(exact.device.type, torch.bfloat16):
            rows.append(_row("published, autocast", "bf16", timed(plain, seconds, most=3), pixels))
    from PIL import Image

    small = Image.fromarray(image)
    for name, method in (("bicubic", Image.Resampling.BICUBIC), ("Lanczos", Image.Resampling.LANCZOS)):
        rows.append(_row(f"{name}, Pillow", "uint8", timed(partial(small.resize, size, method), 0.2), pixels))
    return rows


def _frame(up: Upscaler) -> Row:
    """480 x 270 -> 1920 x 1080, once."""
    image = picture(270, 480)
    return _row("end to end 270p → 1080p", up.precision, timed(lambda: up(image, scale=4), 0, 1), 1920 * 1080)


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
        "instruction_set": cpu.isa() if cpu.isas() else None,
        "backend": up.decoder.backend,
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
        f"{m['processor']}, {m['cores']} cores, {m['instruction_set']}, PyTorch {m['torch']}, device {m['device']}"
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
    best = report["speedup_over_published"]
    console.print(f"{best['ratio']:.1f} x the published algorithm in plain PyTorch fp32 (ours in {best['precision']})")
    for note in report["notes"]:
        console.print(note)
