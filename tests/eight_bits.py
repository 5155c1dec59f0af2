"""Decodings with hidden layers in 8 bits, for every backend that has them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import torch

from common import FP16, FP32, Case, moved, problem
from liif_fast.checkpoint import Weights
from liif_fast.ops import Decoder
from liif_fast.pixels import OUT_RANGE
from liif_fast.quantization import FORMATS, Format, measure

CASES = [
    *(Case(hidden=(width, width)) for width in (16, 48, 96)),
    *(Case(hidden=h) for h in ((48, 128, 16), (16, 80, 112, 32), (32,) * 5, (64, 256, 32))),
    *(Case(ensemble=e, cell=c, size=(11, 17)) for e in (True, False) for c in (True, False)),
    *(Case(size=size, ensemble=e) for size in ((1, 1), (1, 47), (13, 31)) for e in (True, False)),
    *(Case(out=o, layout=where) for o in OUT_RANGE for where in ("hwc", "chw", "sparse")),
    Case(paired=True), Case(paired=True, size=(101, 1)), Case(padded=True), Case(size=(5, 3), cells=(1, 1)),
]  # fmt: skip


@cache
def measured(weights: Weights) -> Weights:
    """With layers in each format, for a first layer of normal z."""
    h = torch.randn(2000, weights.architecture.hidden_list[0], generator=torch.Generator().manual_seed(1)).relu()
    hidden = weights.imnet[1:-1]
    return replace(weights, quantized={form.name: measure(form, hidden, h) for form in FORMATS.values()})


def decoded(case: Case, form: Format, backend: str, view: torch.Tensor, stored: torch.dtype = FP16) -> torch.Tensor:
    """z, of type ``stored``, is that of a network whose first outputs are divided by its scale."""
    posed = problem(replace(case, dtype=FP32))
    weights = measured(posed.weights)
    on = view.device
    decoder = Decoder(weights, on, form.dtype, backend, case.threads)
    decoder.dtype = stored
    z = (posed.z / weights.quantized[form.name].scale).to(stored)
    if case.padded:
        whole = torch.zeros(z.shape[0], z.shape[1] + 3, z.shape[2], dtype=stored)
        whole[:, 1:-2] = z
        z = whole[:, 1:-2]
    return decoder(moved(z, on), posed.y.to(on), posed.x.to(on), posed.cell, view, paired=case.paired)
