"""What ``liif-fast info`` tells: versions, processor, devices, backends, models, formats."""

from __future__ import annotations

import os
import platform
import subprocess
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import torch
from PIL import features

from . import __version__, backends, checkpoint, engines, memory
from .backends import cpu, stored
from .output import FORMATS
from .upscaler import PRECISIONS, find_device, find_precision
from .weights import DEFAULT
from .words import counted

# Of each extra what it brings.
_EXTRAS = {"video": "av", "train": "matplotlib", "onnx": "onnx", "lpips": "lpips"}


def describe() -> dict[str, Any]:
    """Everything as plain values, for JSON."""
    return {
        "version": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "threads_are_pytorchs": cpu.on_pytorchs_threads(),
        "memory_bytes": psutil.virtual_memory().total,
        "memory_free_bytes": memory.free(),
        "instruction_sets": _instruction_sets(),
        "devices": {str(device): _of_device(device) for device in _devices()},
        "default_device": str(find_device("auto")),
        "models": {name: _model(path) for name, path in checkpoint.available().items()},
        "default_model": DEFAULT,
        "extras": {extra: find_spec(module) is not None for extra, module in _EXTRAS.items()},
        "formats_read": [*_formats(), "GIF"],
        "formats_written": _formats(),
    }


def lines(found: dict[str, Any]) -> list[str]:
    """`describe` for people."""
    free, total = found["memory_free_bytes"] / 2**30, found["memory_bytes"] / 2**30
    out = [
        f"liif-fast    {found['version']} (Python {found['python']}, torch {found['torch']})",
        f"system       {found['platform']}",
        f"processor    {found['processor']}, {counted(found['cores'] or 0, 'core')}, "
        f"{counted(found['threads'], 'thread')} by default{', those of PyTorch' * found['threads_are_pytorchs']}",
        f"memory       {free:.1f} of {total:.1f} GiB free",
    ]
    sets = found["instruction_sets"]
    if "error" in sets:
        out.append(f"instructions {sets['error']}")
    else:
        names = [name if has else f"{name} (not this processor)" for name, has in sets["built"].items()]
        chosen = ", ".join(f"{name} for {precision}" for precision, name in sets["chosen"].items())
        out += [f"instructions {', '.join(names)}", f"             takes {chosen}"]
    for name, device in found["devices"].items():
        default = " (default)" if name == found["default_device"] else ""
        out += ["", f"device {name}{default}: {device['name']}"]
        both = device["precision_auto"], device["precision_auto_liif"]
        liif = "" if both[0] == both[1] else f", of LIIF models measured for it {both[1]}"
        out.append(f"  precision auto is {both[0]}{liif}")
        for precision, reasons in device["backends"].items():
            for backend, reason in reasons.items():
                out.append(f"  {precision:<4}  {backend:<10} {'usable' if reason is None else reason}")
        for precision, reasons in device["engines"].items():
            for engine, reason in reasons.items():
                out.append(f"  {precision:<4}  encoder by {engine:<13} {'usable' if reason is None else reason}")
    out += ["", "models"]
    for name, model in found["models"].items():
        default = " (default)" if name == found["default_model"] else ""
        out += [f"  {name}{default}", f"    {model['summary']}", f"    {model['path']}"]
    extras = [name if there else f"{name} (not installed)" for name, there in found["extras"].items()]
    out += [
        "",
        f"extras       {', '.join(extras)}",
        f"reads        {', '.join(found['formats_read'])}",
        f"writes       {', '.join(found['formats_written'])}",
    ]
    return out


def processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:  # no Linux; a Mac's own name for it would be "arm"
        with suppress(OSError):
            asked = subprocess.run(["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True)
            if name := asked.stdout.strip():
                return name
    return platform.processor() or platform.machine()


def _devices() -> list[torch.device]:
    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [torch.device("cpu"), *(torch.device("cuda", i) for i in range(cards))]


def _of_device(device: torch.device) -> dict[str, Any]:
    name = processor() if device.type == "cpu" else torch.cuda.get_device_name(device)
    against = {precision: backends.reasons_against(device, dtype) for precision, dtype in PRECISIONS.items()}
    encoders = {precision: engines.reasons_against(device, stored(dtype)) for precision, dtype in PRECISIONS.items()}
    return {
        "name": name,
        "precision_auto": find_precision("auto", device),
        "precision_auto_liif": find_precision("auto", device, int8=True),
        "backends": against,
        "engines": encoders,
    }


def _instruction_sets() -> dict[str, Any]:
    reason = cpu.unavailable(torch.device("cpu"), torch.float32)
    if reason:
        return {"error": reason}
    device = torch.device("cpu")
    usable = {name: dtype for name, dtype in PRECISIONS.items() if cpu.unavailable(device, dtype) is None}
    return {"built": cpu.isas(), "chosen": {name: cpu.isa(dtype) for name, dtype in usable.items()}}


def _model(path: Path) -> dict[str, str]:
    try:
        summary = checkpoint.load(path).architecture.summary()
    except (checkpoint.CheckpointError, OSError) as error:
        summary = f"cannot be used: {error}"
    return {"path": str(path), "summary": summary}


def _formats() -> list[str]:
    """Written here; the same are read, and GIF."""
    return [format.name for format in FORMATS if format.name != "AVIF" or features.check("avif")]
