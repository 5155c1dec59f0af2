"""``liif-fast eval``: folders of pictures by every method, as tables, JSON and strips."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .. import bench
from ..console import Meter, printable, say, say_error
from ..encoder import torch_threads
from ..output import check_place, write_text
from ..upscaler import Upscaler, find_device, find_precision
from ..words import counted
from . import strips, testset
from .evaluate import Method, Score, Summary, bicubic, fixed, lanczos, network, score
from .metrics import Protocol, find_protocol
from .perceptual import Lpips
from .testset import Pair, Skipped

BASELINES: dict[str, Method] = {"bicubic": bicubic, "Lanczos": lanczos}


@dataclass
class SetReport:
    """One folder: the scores of each (scale, method), in the order of the tables, and what was left out."""

    name: str
    count: int = 0
    scores: dict[tuple[float, str], list[Score]] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)

    def summaries(self, scale: float) -> dict[str, Summary]:
        """Of each method; empty where no picture could be used."""
        return {name: Summary(tuple(scores)) for (at, name), scores in self.scores.items() if at == scale}


@dataclass(frozen=True)
class StripRequest:
    """Strips of the first ``count`` pictures (None: all) of each folder, in ``folder``."""

    folder: Path
    count: int | None = None


def run(
    models: Sequence[str],
    data: Sequence[Path],
    scales: str,
    protocol: str,
    fixed_models: Sequence[str],
    fixed_scale: float,
    options: Mapping[str, Any],
    strip_request: StripRequest | None,
    json_path: Path | None,
    lpips: bool = False,
    compression: testset.Compression | None = None,
) -> int:
    """Evaluate, print the tables and write what was asked for; the number of pictures that were left out somewhere.

    ``options`` are those of `Upscaler`. Raises as `Upscaler` and `testset.find`, and ValueError for scales, a protocol
    or names that cannot be, and where no picture, no codec or no LPIPS can be used.
    """
    seen = Lpips() if lpips else None
    factors, measured = parse_scales(scales), find_protocol(protocol)
    if not (math.isfinite(fixed_scale) and fixed_scale >= 1):
        raise ValueError(f"--fixed-scale must be a number of at least 1, got {fixed_scale}")
    if compression and (problem := compression.unavailable()):
        raise ValueError(f"no {compression}: {problem}")
    for folder in data:
        testset.find(folder)
    if json_path:
        check_place(json_path, force=True)
    if options["precision"] == "auto":  # of no model in particular: networks are compared, not what rounding costs them
        options = {**options, "precision": find_precision("auto", find_device(options["device"]))}
    with torch_threads(options["threads"]):
        upscalers = {word: Upscaler(word, **options) for word in dict.fromkeys([*models, *fixed_models])}
        methods = methods_of(upscalers, models, fixed_models, fixed_scale)
        for up in upscalers.values():
            say(up.description)
        if strip_request:
            strip_request.folder.mkdir(parents=True, exist_ok=True)
        reports = []
        for name, folder in zip(_names(data), data, strict=True):
            reports.append(measure(name, folder, methods, factors, measured, strip_request, seen, compression))
            show(reports[-1], factors, measured, compression)
    skipped = len({s.path for report in reports for s in report.skipped})
    if not any(report.scores for report in reports):
        raise ValueError(f"no picture could be used ({skipped} skipped)")
    if skipped:
        say_error(_left_out(reports, factors))
    if json_path:
        models_used = {word: _model(up) for word, up in upscalers.items()}
        first = next(iter(upscalers.values()))
        engine = {"device": str(first.device), "precision": first.precision, "cell_clamp": first.cell_clamp}
        head: dict[str, Any] = {"machine": bench.machine(first), "engine": engine, "models": models_used}
        head |= {"protocol": {"name": measured.name, "psnr": measured.description}, "fixed_scale": fixed_scale}
        head["compression"] = asdict(compression) if compression else None
        sets = [_json(report, factors) for report in reports]
        write_text(json_path, json.dumps({**head, "sets": sets}, indent=1, allow_nan=False) + "\n")
    return skipped


def measure(
    name: str,
    folder: Path,
    methods: Mapping[str, Method],
    scales: Sequence[float],
    protocol: Protocol,
    strip_request: StripRequest | None = None,
    lpips: Lpips | None = None,
    compression: testset.Compression | None = None,
) -> SetReport:
    """Every picture of a folder at every scale by every method, one picture in memory at a time."""
    paths = testset.find(folder)
    stems = [path.stem for path in paths]
    report = SetReport(name, len(paths))
    for scale in scales:  # the tables' order
        report.scores |= {(scale, method): [] for method in methods}
    with Meter(len(paths)) as meter:
        for i, path in enumerate(paths):
            meter.picture(path.name)
            pairs, skipped = testset.pairs_of(path, scales, protocol, compression)
            report.skipped += skipped
            for reason in skipped:
                with meter.aside():
                    say_error(str(reason), "skipped: ")
            done, total = 0, len(methods) * sum(pair.hr[..., 0].size for pair in pairs)
            for pair in pairs:
                predictions = {}
                for method, render in methods.items():
                    found, predictions[method] = score(render, pair, protocol, lpips)
                    report.scores[pair.scale, method].append(found)
                    done += found.pixels
                    meter(done, total)
                if strip_request and (strip_request.count is None or i < strip_request.count):
                    scores = {method: report.scores[pair.scale, method][-1] for method in methods}
                    sheet = _strip(pair, predictions, scores, protocol.shave(pair.scale))
                    own = path.stem if stems.count(path.stem) == 1 else path.name
                    strips.save(strip_request.folder / f"{name}_{own}_x{pair.scale:g}.png", sheet)
            meter.finish_picture()
    report.scores = {key: scores for key, scores in report.scores.items() if scores}
    return report


def methods_of(
    upscalers: Mapping[str, Upscaler], models: Sequence[str], fixed_models: Sequence[str], fixed_scale: float
) -> dict[str, Method]:
    """Label -> method: the baselines, the models, the fixed ones. Each has run once, so that the first picture is not
    slower than the others. ValueError for two of one name."""
    methods = dict(BASELINES)
    pairs = [(_label(upscalers[word]), network(upscalers[word])) for word in models]
    for word in fixed_models:
        up = upscalers[word]
        pairs.append((f"{_label(up)} x{fixed_scale:g}, Lanczos", fixed(up, fixed_scale)))
    for label, method in pairs:
        if label in methods:
            raise ValueError(f"two methods are named {label!r}: give each model once, by files of different names")
        method(np.zeros((16, 16, 3), np.uint8), (32, 32))
        methods[label] = method
    return methods


def parse_scales(text: str) -> list[float]:
    """``"2,3,3.7"`` -> numbers above 1, each once."""
    try:
        scales = [float(part) for part in text.split(",")]
    except ValueError:
        scales = []
    if not scales or not all(math.isfinite(scale) and scale > 1 for scale in scales):
        raise ValueError(f"--scales must be numbers above 1 such as 2,3,3.7, got {text!r}")
    return list(dict.fromkeys(scales))


def show(
    report: SetReport,
    scales: Sequence[float],
    protocol: Protocol,
    compression: testset.Compression | None = None,
) -> None:
    """Print a folder's tables."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if not console.is_terminal:
        console = Console(width=100)  # a file has no width of its own
    for scale in scales:
        rows = report.summaries(scale)
        if not rows:
            console.print(Text(f"{printable(report.name)} x{scale:g}: no picture could be used"))
            continue
        count = len(next(iter(rows.values())).scores)
        what = counted(count, "picture") + (f" from {compression}" if compression else "")
        console.print(Text(f"{printable(report.name)} x{scale:g}, {what}: PSNR of {protocol.description}"))
        table = Table()
        table.add_column("method")
        seen = any(row.lpips is not None for row in rows.values())
        for heading in ("PSNR dB", "rounded", "SSIM", *["LPIPS"] * seen, "s", "MP/s"):
            table.add_column(heading, justify="right", no_wrap=True)
        for name, row in rows.items():
            values = [f"{row.psnr:.2f}", f"{row.psnr_rounded:.2f}", f"{row.ssim:.4f}"]
            values += [f"{row.lpips:.4f}"] if row.lpips is not None else []
            values.append(f"{row.seconds:.2f}")
            table.add_row(Text(printable(name)), *values, f"{row.megapixels_per_s:.3g}")
        console.print(table)
        for name, row in rows.items():
            if 0 < row.equal < count:
                console.print(Text(f"{printable(name)}: {row.equal} of them equal, left out of its mean PSNR"))


def _left_out(reports: Sequence[SetReport], scales: Sequence[float]) -> str:
    every = [one for report in reports for one in report.skipped]
    times = Counter(one.path for one in every)
    wholly = {one.path for one in every if one.scale is None or times[one.path] == len(scales)}
    parts = (
        [f"{len(wholly)} of {counted(sum(report.count for report in reports), 'picture')} skipped"] if wholly else []
    )
    if partly := len(times) - len(wholly):
        parts.append(f"{partly}{' more' * bool(wholly)} skipped at some of the scales")
    return ", ".join(parts)


def _strip(pair: Pair, predictions: Mapping[str, np.ndarray], scores: Mapping[str, Score], border: int) -> np.ndarray:
    """True picture, baselines and networks where the first network gains most over bicubic."""
    truth = pair.hr / 255
    first = next(name for name in predictions if name not in BASELINES)
    window = strips.detail(truth, predictions["bicubic"], predictions[first], border)
    panels = [(f"{pair.name} x{pair.scale:g}", truth)]
    panels += [(f"{name} {scores[name].psnr:.2f} dB", image) for name, image in predictions.items()]
    return strips.strip(panels, window)


def _label(up: Upscaler) -> str:
    """Networks that ensemble themselves have a plus, as in their papers."""
    return up.weights.name + "+" * up.encoder.self_ensemble


def _names(folders: Sequence[Path]) -> list[str]:
    """What to call each: its own name, unless two have the same."""
    own = [folder.resolve().name for folder in folders]
    return own if len(set(own)) == len(own) else [str(folder).replace("/", "_") for folder in folders]


def _model(up: Upscaler) -> dict[str, str]:
    weights = up.weights
    return {
        "name": weights.name,
        "fingerprint": weights.fingerprint,
        "architecture": weights.architecture.summary(),
        "description": up.description,
    }


def _json(report: SetReport, scales: Sequence[float]) -> dict[str, Any]:
    """A set as plain values; what is no finite number, as the PSNR of equal pictures, is null."""
    results = []
    for scale in scales:
        for method, row in report.summaries(scale).items():
            means = {key: _finite(getattr(row, key)) for key in ("psnr", "psnr_rounded", "ssim", "lpips")}
            times = {"seconds": row.seconds, "megapixels_per_s": row.megapixels_per_s}
            pictures = [{key: _finite(value) for key, value in asdict(s).items()} for s in row.scores]
            results.append({"scale": scale, "method": method, **means, **times, "pictures": pictures})
    skipped = [{"path": str(s.path), "scale": s.scale, "reason": s.reason} for s in report.skipped]
    return {"name": report.name, "results": results, "skipped": skipped}


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
