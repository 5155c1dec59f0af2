"""Who encodes: the order of engines, the choice among them, and the reasons against each."""

from __future__ import annotations

import warnings

import torch

from . import trt_engine
from .backends import BackendUnavailable
from .checkpoint import Weights
from .encoder import BaseEncoder, Encoder, Head

# Best first.
ENGINES = (*trt_engine.FLAVOURS, Encoder.engine)


def reasons_against(device: torch.device, dtype: torch.dtype) -> dict[str, str | None]:
    """For each engine, best first: why it cannot encode on ``device`` in ``dtype``, or None if it can."""
    reasons = {name: trt_engine.unavailable(name, device, dtype) for name in trt_engine.FLAVOURS}
    return {**reasons, Encoder.engine: None}


def make(
    name: str, weights: Weights, head: Head, device: torch.device, dtype: torch.dtype, threads: int | None = None
) -> BaseEncoder:
    """The encoder of a network by the engine ``name``; ``threads`` is for the processor.

    ``"auto"`` takes the first that can, with a warning about one that should and could not. Any other name is that
    engine or BackendUnavailable, never another one. ValueError for a name that is none.
    """
    if name not in ("auto", *ENGINES):
        raise ValueError(f"engine must be one of auto, {', '.join(ENGINES)}; got {name!r}")
    for candidate, reason in reasons_against(device, dtype).items():
        if name not in ("auto", candidate):
            continue
        if reason is not None:
            if name == candidate:
                raise BackendUnavailable(f"engine {name!r} cannot run on {device} in {dtype}: {reason}")
            continue
        if candidate == Encoder.engine:
            break
        try:
            return trt_engine.TensorRTEncoder(candidate, weights, head, device, dtype)
        except BackendUnavailable as error:
            if name == candidate:
                raise
            warnings.warn(f"the encoder runs without it: {error}", stacklevel=2)
    return Encoder(weights, head, device, dtype, threads)
