"""Who encodes: the order of engines, the choice among them, and the reasons against each."""

from __future__ import annotations

import warnings

import torch

from . import fused_encoder, native_encoder, trt_engine
from .backends import BackendUnavailable, cpu
from .checkpoint import Weights
from .encoder import BaseEncoder, Encoder, Head
from .fused_encoder import FusedEncoder
from .native_encoder import NativeEncoder

# Best first.
ENGINES = (*trt_engine.FLAVOURS, NativeEncoder.engine, Encoder.engine)


def reasons_against(
    device: torch.device, dtype: torch.dtype, network: tuple[Weights, Head] | None = None
) -> dict[str, str | None]:
    """For each engine, best first: why it cannot encode on ``device`` in ``dtype``, or None if it can.

    ``network``: for that one; None: for one that is in no engine's way.
    """
    reasons = {name: trt_engine.unavailable(name, device, dtype) for name in trt_engine.FLAVOURS}
    if network is None:
        native = cpu.unavailable(device, dtype)
    else:
        weights, head = network
        native = native_encoder.unavailable(weights.architecture, head, device, dtype)
    return {**reasons, NativeEncoder.engine: native, Encoder.engine: None}


def check(
    name: str, device: torch.device, dtype: torch.dtype, network: tuple[Weights, Head] | None = None
) -> dict[str, str | None]:
    """`reasons_against`, if there is none against ``name``, or that is "auto"; else BackendUnavailable with the reason.

    ValueError for a name that is none.
    """
    if name not in ("auto", *ENGINES):
        raise ValueError(f"engine must be one of auto, {', '.join(ENGINES)}; got {name!r}")
    reasons = reasons_against(device, dtype, network)
    if reason := reasons.get(name):
        raise BackendUnavailable(f"engine {name!r} cannot run on {device} in {dtype}: {reason}")
    return reasons


def make(
    name: str, weights: Weights, head: Head, device: torch.device, dtype: torch.dtype, threads: int | None = None
) -> BaseEncoder:
    """The encoder of a network by the engine ``name``; ``threads`` is for the processor.

    ``"auto"`` takes the first that can, with a warning about one that should and could not. Any other name is that
    engine or BackendUnavailable, never another one. ValueError for a name that is none.
    """
    reasons = check(name, device, dtype, (weights, head))
    for candidate in [name] if name in ENGINES else [one for one, reason in reasons.items() if reason is None]:
        if candidate in trt_engine.FLAVOURS:
            try:
                return trt_engine.TensorRTEncoder(candidate, weights, head, device, dtype)
            except BackendUnavailable as error:
                if name == candidate:
                    raise
                warnings.warn(f"the encoder runs without it: {error}", stacklevel=2)
        elif candidate == NativeEncoder.engine:
            return NativeEncoder(weights, head, device, dtype, threads)
    plain = fused_encoder.unavailable(device, dtype) is not None
    return (Encoder if plain else FusedEncoder)(weights, head, device, dtype, threads)
