"""The resampling decoder: ``liif_fast::resample``, `Resampler`, and the taps it learned.

``resample(z, y, x, paired, scale, shift, low, high, backend, threads, out)``

=============  ======================================================================================================
``z``          [H, W, 48] float: a picture 4 times as fine, before its pixel shuffle; layout in csrc/resample.h
``y``, ``x``   [first, taps] of the rows and columns of the output, see `grid.Taps`
``paired``     False: a grid, ``out`` is [rows, columns, 3]. True: a list of points, ``out`` is [points, 3]
``scale``      3 numbers; with ``shift`` from the network's range to the output's, then clamped to [low, high]
``out``        uint8, uint16 (rounded to nearest even), float16 or float32; any strides
=============  ======================================================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import library

from . import grid
from .architecture import FACTOR
from .backends import BACKENDS, select
from .checkpoint import Weights
from .encoder import Head
from .grid import TAPS, Taps
from .ops import together, within
from .pixels import Pixels, output_range
from .quantization import FORMATS

# How much the cubic widens at most: at x2, where the fine picture is twice too fine, it spans all TAPS lines.
WIDEST = 2.0
# Outputs along an axis whose tables are kept; a longer list is of scattered points, or of a picture that takes longer.
_KEPT = 1 << 14

_library = library.Library("liif_fast", "FRAGMENT")
_library.define(
    "resample(Tensor z, Tensor[] y, Tensor[] x, bool paired, float[] scale, float[] shift, float low, float high, "
    "str backend, int threads, Tensor(a!) out) -> ()"
)


def shares(distance: torch.Tensor, cell: float | torch.Tensor, mlp: Sequence[torch.Tensor]) -> torch.Tensor:
    """The share of fine lines at ``distance`` (in fine lines, at least 0) of an output line, before it is normalised.

    A cubic widened where the output is coarser than the fine picture, plus a learned function of distance and scale. It
    is zero from TAPS / 2 on, and continuous. ``cell``: see `grid.cell`. ``mlp``: weight, bias, weight, bias, ... of
    layers with SiLU between them.
    """
    reach = TAPS / 2
    inverse = torch.as_tensor(cell, device=distance.device, dtype=distance.dtype) / 2  # of the scale
    inverse = inverse.clamp(min=1 / FACTOR).expand_as(distance)  # beyond x4 nothing is known
    hidden = torch.stack([distance / reach, inverse], dim=-1).to(mlp[0].dtype)
    for weight, bias in zip(mlp[:-2:2], mlp[1:-2:2], strict=True):
        hidden = F.silu(F.linear(hidden, weight, bias))
    learned = F.linear(hidden, mlp[-2], mlp[-1])[..., 0]
    window = (1 - (distance / reach).square()).clamp(min=0).square()
    return grid.cubic(distance / (FACTOR * inverse).clamp(1, WIDEST)) + window * learned


def to_layout(tensor: torch.Tensor) -> torch.Tensor:
    """[3 * FACTOR**2, ...], channels as a pixel shuffle takes them (colour, row, column) -> (row, colour, column)."""
    return tensor.reshape(3, FACTOR, FACTOR, *tensor.shape[1:]).transpose(0, 1).reshape(tensor.shape)


def _resample(
    z: torch.Tensor,
    y: list[torch.Tensor],
    x: list[torch.Tensor],
    paired: bool,
    scale: list[float],
    shift: list[float],
    low: float,
    high: float,
    backend: str,
    threads: int,
    out: torch.Tensor,
) -> None:
    rows, columns = Taps(y[0], y[1], FACTOR * z.shape[0]), Taps(x[0], x[1], FACTOR * z.shape[1])
    pixels = Pixels(out, paired, scale, shift, low, high)
    _check(z, rows, columns, paired)
    pixels.check(rows.size, columns.size)
    together(z, *y, *x, out)
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}; got {backend!r}")
    BACKENDS[backend].resample(z, rows, columns, pixels, threads)


def _check(z: torch.Tensor, y: Taps, x: Taps, paired: bool) -> None:
    """All that would make native code read or write outside its buffers."""
    channels = 3 * FACTOR**2
    if z.dim() != 3 or z.shape[2] != channels or z.stride(2) != 1 or z.stride(1) != channels:
        raise ValueError(
            f"z must be [H, W, {channels}] with contiguous rows, got shape {tuple(z.shape)}, strides {z.stride()}"
        )
    for name, table in (("y", y), ("x", x)):
        first, taps = table.first, table.taps
        fits = first.dtype == torch.int32 and taps.dtype == torch.float32 and taps.shape == (table.size, TAPS)
        if not (fits and first.dim() == 1 and first.is_contiguous() and taps.is_contiguous()):
            shapes = f"{first.dtype} {tuple(first.shape)}, {taps.dtype} {tuple(taps.shape)}"
            raise ValueError(f"the {name} table must be contiguous int32 [N] and float32 [N, {TAPS}]; got {shapes}")
        if table.size and not within(first, max(1, table.lines - TAPS + 1)):
            raise ValueError(f"the {name} table points outside the {table.lines} fine lines of z")
        # Which processors' code alone goes by.
        if not (paired or first.is_cuda) and table.size > 1 and not within(first.diff(), table.lines):
            raise ValueError(f"the {name} table of a grid must not fall")


_library.impl("resample", _resample, "CompositeExplicitAutograd")
_library.impl("resample", lambda *_: None, "Meta")


class Resampler:
    """A network's resampling decoder, with the face of `ops.Decoder`.

    Args:
        weights: the network; BackendUnavailable and ValueError as for `ops.Decoder`.
    """

    def __init__(
        self,
        weights: Weights,
        device: torch.device,
        dtype: torch.dtype,
        backend: str = "auto",
        threads: int | None = None,
    ) -> None:
        if dtype in FORMATS:
            name = FORMATS[dtype].name
            raise ValueError(f"{weights.name} resamples, without hidden layers to run in {name}: that is for LIIF's")
        self.backend = select(backend, device, dtype)
        self.device, self.dtype, self.threads = device, dtype, threads
        self.mean, self.std = weights.architecture.mean, weights.architecture.std
        names = (name for name in weights.architecture.shapes if name.startswith("taps."))  # in the order of the layers
        self.mlp = [weights.tensors[name].double() for name in names]
        weight, bias = weights.tensors["upsample.weight"], weights.tensors["upsample.bias"]
        self.head = Head(to_layout(weight), to_layout(bias), skip=FACTOR)
        self._kept = lru_cache(maxsize=8)(self._tables)
        # Both passes over a fine picture of the output's own size.
        self.flops_per_pixel = 2 * 2 * 3 * TAPS

    def __getstate__(self) -> dict[str, Any]:
        """Without the tables kept, which are soon made again."""
        return {name: value for name, value in self.__dict__.items() if name != "_kept"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self._kept = lru_cache(maxsize=8)(self._tables)

    @property
    def description(self) -> str:
        return BACKENDS[self.backend].describe(self.dtype)

    def tables(self, positions: NDArray[np.float64], cells: int, cell: float) -> Taps:
        """Where outputs at ``positions`` along an axis look; ``cell``: their size, see `grid.cell`."""
        if len(positions) > _KEPT:
            return self._tables(positions.tobytes(), cells, cell)
        return self._kept(positions.tobytes(), cells, cell)  # the frames of a video have theirs in common

    def _tables(self, positions: bytes, cells: int, cell: float) -> Taps:
        at = np.frombuffer(positions, np.float64).copy()
        return grid.taps(at, cells, lambda distance: shares(distance, cell, self.mlp))

    def __call__(
        self,
        z: torch.Tensor,
        y: Taps,
        x: Taps,
        cell: Sequence[float],
        out: torch.Tensor,
        paired: bool = False,
        peak: float | None = None,
    ) -> torch.Tensor:
        """As `ops.Decoder`; ``cell`` has done its part in the tables."""
        if z.dtype != self.dtype or z.device != self.device:
            raise TypeError(f"z is {z.dtype} on {z.device}; this decoder was made for {self.dtype} on {self.device}")
        torch.ops.liif_fast.resample(
            z,
            [y.first, y.taps],
            [x.first, x.taps],
            paired,
            *output_range(self.mean, self.std, out.dtype, peak),
            self.backend,
            self.threads or torch.get_num_threads(),
            out,
        )
        return out
