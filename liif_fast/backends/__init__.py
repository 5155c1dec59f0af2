"""Who decodes: the order of backends, the choice among them, and the reasons against each.

A backend is a module with
``unavailable(device, dtype) -> str | None``: the reason why it cannot decode there, None if it can,
``describe(dtype) -> str``: what it runs on, for people,
``pack(layers, dtype) -> list[Tensor]``: weights in the layout its kernels read,
``decode(...)``: see ``ops.py`` for the arguments, and
``resample(...)``: see ``resample.py``.
"""

from __future__ import annotations

import warnings
from types import ModuleType

import torch

from ..quantization import FORMATS, FP8, INT8
from . import cpu, reference, triton

# Best first.
BACKENDS: dict[str, ModuleType] = {"cpu": cpu, "triton": triton, "reference": reference}


class BackendUnavailable(RuntimeError):
    """The backend, engine or device asked for cannot run here; the text says why."""


def select(name: str, device: torch.device, dtype: torch.dtype) -> str:
    """The backend that will decode on ``device`` with weights and activations stored as ``dtype``.

    ``"auto"`` takes the first that can, and never 8 bits as `reference` emulates them; it warns where kernels that the
    device should have are missing. Any other name is that backend or BackendUnavailable, never another one; the same
    goes for an instruction set that the environment names.
    """
    if device.type == "cpu" and (problem := cpu.refusal()):
        raise BackendUnavailable(problem)
    if name != "auto" and name not in BACKENDS:
        raise ValueError(f"backend must be one of auto, {', '.join(BACKENDS)}; got {name!r}")
    reasons = reasons_against(device, dtype)
    if name == "auto":
        for candidate, reason in reasons.items():
            if reason is None and not (candidate == "reference" and dtype in FORMATS):
                missing = cpu.missing() if device.type == "cpu" else dtype != torch.float32  # Triton's are no fp32
                if candidate == "reference" and missing:
                    why = reasons["cpu" if device.type == "cpu" else "triton"]
                    warnings.warn(f"plain PyTorch decodes, which is slow: {why}", stacklevel=2)
                return candidate
        if dtype == FP8.dtype and device.type == "cpu":
            raise BackendUnavailable(
                "fp8 is for CUDA devices, not cpu: take another precision, or emulate it, slowly, by "
                "backend='reference'"
            )
        # Only 8 bits have none that can, and only these have them at all.
        name = "triton" if dtype == FP8.dtype else "cpu"
    if reasons[name] is not None:
        if dtype == INT8.dtype and device.type != "cpu":
            raise BackendUnavailable(f"int8 is for processors, not {device}: take device='cpu' or another precision")
        raise BackendUnavailable(f"backend {name!r} cannot run on {device} in {dtype}: {reasons[name]}")
    return name


def stored(dtype: torch.dtype) -> torch.dtype:
    """How z, and all activations but those that hidden layers read, are stored where those are of ``dtype``.

    With int8 that is float32: an encoder in bf16 takes a tenth less of the whole time, and loses ten times as much as
    the hidden layers do.
    """
    return {INT8.dtype: torch.float32, FP8.dtype: torch.float16}.get(dtype, dtype)


def reasons_against(device: torch.device, dtype: torch.dtype) -> dict[str, str | None]:
    """For each backend, best first: why it cannot run, or None if it can."""
    return {name: module.unavailable(device, dtype) for name, module in BACKENDS.items()}
