"""A network as a file for other runtimes: ONNX, measured against ours before it is written, or a TensorRT engine."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

from . import trt_engine
from .checkpoint import Weights
from .output import check_place, whole_file
from .upscaler import DECODERS, Upscaler

# Of ONNX: the type, and the most that values in [0, 1] may differ; rounding in another order makes about 1e-6 and 2e-3.
ONNX_PRECISIONS: dict[str, tuple[Any, float]] = {"fp32": (np.float32, 1e-4), "fp16": (np.float16, 1e-2)}
PRECISIONS = {"fp16": torch.float16, "bf16": torch.bfloat16}
_MISSING = "{} is missing ({}); pip install 'liif_fast[onnx]'"


class ExportError(ValueError):
    """What cannot be exported, or came out wrong; one line."""


def onnx(
    weights: Weights,
    path: Path,
    split: bool = False,
    scale: float | None = None,
    cell_clamp: float | None = 4.0,
    force: bool = False,
    precision: str = "fp32",
) -> tuple[list[Path], float]:
    """Writes ``path``, or with ``split`` PATH_encoder.onnx and PATH_decoder.onnx; see `onnx_graph` for what is in them.

    ``precision``: "fp32", or "fp16" for pictures, weights and products, which halves memory and is what TensorRT
    computes in if a file says so. Every graph is first run by ONNX Runtime on small pictures. Returns the files and the
    largest difference to our fp32. ExportError for a difference beyond `ONNX_PRECISIONS`, a missing package or
    arguments that do not go together; what `check_place` raises.
    """
    _check_suffix(path, ".onnx")
    if precision not in ONNX_PRECISIONS:
        raise ExportError(f"precision must be one of {', '.join(ONNX_PRECISIONS)}, got {precision!r}")
    dtype, most = ONNX_PRECISIONS[precision]
    if scale is not None and (split or not 0.5 <= scale <= 1000):
        raise ExportError(
            "--scale is for one file, --split leaves the size open" if split else f"scale {scale} is not in 0.5..1000"
        )
    paths = [path.with_name(f"{path.stem}_{part}.onnx") for part in ("encoder", "decoder")] if split else [path]
    for one in paths:
        check_place(one, force)
    try:
        graphs: Any = import_module(".onnx_graph", __package__)
        runtime: Any = import_module("onnxruntime")
    except ImportError as error:
        raise ExportError(_MISSING.format(error.name or "a package", error)) from error
    decoder = DECODERS[weights.architecture.decoder](weights, torch.device("cpu"), torch.float32, "reference")
    if split:
        models = graphs.split(weights, decoder, cell_clamp, dtype)
    else:
        models = (graphs.whole(weights, decoder, cell_clamp, scale, dtype),)
    files = [model.SerializeToString() for model in models]
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors only
    sessions = [runtime.InferenceSession(file, options, providers=["CPUExecutionProvider"]) for file in files]
    difference = _difference(weights, cell_clamp, scale, split, _runner(sessions, scale, dtype))
    if not difference <= most:
        raise ExportError(f"{path}: ONNX Runtime's pictures differ from ours by {difference:.2g}, more than {most:g}")
    for one, file in zip(paths, files, strict=True):
        with whole_file(one, force) as out:
            out.write(file)
    return paths, difference


def tensorrt(
    weights: Weights,
    path: Path,
    engine: str = "tensorrt-rtx",
    precision: str = "fp16",
    capabilities: tuple[str, ...] = (),
    force: bool = False,
) -> None:
    """Writes the encoder as a serialised engine; see `trt_network` for what goes in and comes out.

    Args:
        engine: "tensorrt", for the GPU of this machine, or "tensorrt-rtx".
        capabilities: as "SM89", for tensorrt-rtx, which needs no GPU then; none: the GPU of this machine.

    ExportError and ValueError for arguments; BackendUnavailable where TensorRT is missing or builds nothing; what
    `check_place` raises.
    """
    _check_suffix(path, ".engine")
    if engine not in trt_engine.FLAVOURS:
        raise ExportError(f"engine must be one of {', '.join(trt_engine.FLAVOURS)}, got {engine!r}")
    if precision not in PRECISIONS:
        raise ExportError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    check_place(path, force)
    if capabilities and engine != "tensorrt-rtx":
        raise ExportError("capabilities are chosen with tensorrt-rtx only; tensorrt builds for the GPU it runs on")
    for name in capabilities:
        if name not in trt_engine.known_capabilities():
            raise ExportError(f"capability must be one of {', '.join(trt_engine.known_capabilities())}, got {name!r}")
    if not capabilities and not torch.cuda.is_available():
        where = "" if engine == "tensorrt" else "; --capability names one to build for"
        raise ExportError(f"there is no CUDA device here to build for{where}")
    make = DECODERS[weights.architecture.decoder]
    head = make(weights, torch.device("cpu"), torch.float32, "reference").head
    plan = trt_engine.serialized(engine, weights, head, PRECISIONS[precision], capabilities)
    with whole_file(path, force) as out:
        out.write(plan)


Run = Callable[[np.ndarray, tuple[int, int], tuple[float, float, float, float]], np.ndarray]


def _runner(sessions: list[Any], scale: float | None, dtype: Any) -> Run:
    """(image [H, W, 3], size, box) -> picture [rows, columns, 3] by ONNX Runtime."""

    def run(image: np.ndarray, size: tuple[int, int], box: tuple[float, float, float, float]) -> np.ndarray:
        inputs: dict[str, np.ndarray] = {"image": image.transpose(2, 0, 1)[None].astype(dtype)}
        if len(sessions) == 2:
            inputs = {"z": sessions[0].run(None, inputs)[0], "box": np.array(box, np.float32)}
        if scale is None:
            inputs["size"] = np.array(size, np.int64)
        return np.asarray(sessions[-1].run(None, inputs)[0][0]).transpose(1, 2, 0)

    return run


def _difference(weights: Weights, cell_clamp: float | None, scale: float | None, windows: bool, run: Run) -> float:
    """The largest, over scales from 1 to 30 and, where the graph takes one, a window."""
    upscaler = Upscaler(weights, device="cpu", precision="fp32", cell_clamp=cell_clamp)
    height, width = 9, 7
    image = np.random.default_rng(0).random((height, width, 3), np.float32)
    field = upscaler.encode(image)
    whole = (0.0, 0.0, float(height), float(width))
    sizes = [(9, 7), (18, 14), (33, 26), (270, 7), (5, 211)]
    if scale is not None:
        sizes = [(max(1, round(height * scale)), max(1, round(width * scale)))]
    cases = [(size, whole) for size in sizes]
    if windows:
        cases.append(((31, 43), (1.5, 2.0, 8.25, 6.5)))
    worst = 0.0
    for size, box in cases:
        ours = field.render(size=size, box=box)
        theirs = run(image, size, box)
        if theirs.shape != ours.shape:
            raise ExportError(f"ONNX Runtime makes a picture of {theirs.shape}, not {ours.shape}")
        worst = max(worst, float(np.abs(theirs - ours).max()))
    return worst


def _check_suffix(path: Path, suffix: str) -> None:
    if path.suffix != suffix:
        raise ExportError(f"{path}: the name must end in {suffix}")
