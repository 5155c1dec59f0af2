"""The decoder as one PyTorch operator, ``liif_fast::decode``, and `Decoder`, the weights packed for one backend.

``decode(z, y, x, paired, layers, cell_term, scale, shift, low, high, backend, threads, out)``

=============  ======================================================================================================
``z``          [H, W, C] float: projected features, channels last, C contiguous
``y``, ``x``   [index, offset, weight] of the rows and columns of the output, see `grid.Axis`
``paired``     False: a grid, ``out`` is [rows, columns, 3]. True: a list of points, ``out`` is [points, 3]
``layers``     what the backend's ``pack`` made of [first_y, first_x, last, last_bias, weight, bias, weight, bias, ...];
               in 8 bits with the steps of `quantization.Quantized` in the place of biases
``cell_term``  [C] float32: the first layer's weights of the cell times the cell
``scale``      3 numbers; with ``shift`` from the network's range to the output's, then clamped to [low, high]
``out``        uint8, uint16 (rounded to nearest even), float16 or float32; any strides
=============  ======================================================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import library

from . import grid
from .backends import BACKENDS, select, stored
from .checkpoint import Weights
from .encoder import Head
from .grid import Axis
from .pixels import Pixels, output_range
from .quantization import FORMATS, Quantized, pickled, unpickled

_library = library.Library("liif_fast", "DEF")
_library.define(
    "decode(Tensor z, Tensor[] y, Tensor[] x, bool paired, Tensor[] layers, Tensor cell_term, float[] scale, "
    "float[] shift, float low, float high, str backend, int threads, Tensor(a!) out) -> ()"
)


def _decode(
    z: torch.Tensor,
    y: list[torch.Tensor],
    x: list[torch.Tensor],
    paired: bool,
    layers: list[torch.Tensor],
    cell_term: torch.Tensor,
    scale: list[float],
    shift: list[float],
    low: float,
    high: float,
    backend: str,
    threads: int,
    out: torch.Tensor,
) -> None:
    rows, columns = Axis(*y), Axis(*x)
    pixels = Pixels(out, paired, scale, shift, low, high)
    _check(z, rows, columns, cell_term)
    pixels.check(rows.size, columns.size)
    together(z, *y, *x, *layers, cell_term, out)
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}; got {backend!r}")
    BACKENDS[backend].decode(z, rows, columns, layers, cell_term, pixels, threads)


def _check(z: torch.Tensor, y: Axis, x: Axis, cell_term: torch.Tensor) -> None:
    """All that would make native code read or write outside its buffers."""
    if z.dim() != 3 or z.stride(2) != 1 or z.stride(1) != z.shape[2]:
        raise ValueError(f"z must be [H, W, C] with contiguous rows, got shape {tuple(z.shape)}, strides {z.stride()}")
    for name, table, cells in (("y", y, z.shape[0]), ("x", x, z.shape[1])):
        for part, dtype in ((table.index, torch.int32), (table.offset, torch.float32), (table.weight, torch.float32)):
            if part.dtype != dtype or part.shape != (len(y.index), table.size) or not part.is_contiguous():
                raise ValueError(
                    f"the {name} table must be contiguous [sides, size]; got {part.dtype} {tuple(part.shape)}"
                )
        if table.size and not within(table.index, cells):
            raise ValueError(f"the {name} table points outside the {cells} cells of z")
    if len(y.index) not in (1, 2):
        raise ValueError(f"tables must have 1 or 2 sides, got {len(y.index)}")
    if cell_term.shape != z.shape[2:] or cell_term.dtype != torch.float32 or not cell_term.is_contiguous():
        raise ValueError(f"cell_term must be float32 [{z.shape[2]}], got {cell_term.dtype} {tuple(cell_term.shape)}")


def together(z: torch.Tensor, *others: torch.Tensor) -> None:
    """ValueError where one of ``others`` is not on z's device: its address would be taken for one there."""
    for tensor in others:
        if tensor.device != z.device:
            raise ValueError(f"all tensors must be on one device: z is on {z.device}, another on {tensor.device}")


def within(index: torch.Tensor, count: int) -> bool:
    """Whether all of ``index`` is in 0 .. count - 1; where a CUDA graph is captured, after a run that asked, it is."""
    if index.is_cuda and torch.cuda.is_current_stream_capturing():
        return True
    low, high = grid.indices_in(index)
    return low >= 0 and high < count


_library.impl("decode", _decode, "CompositeExplicitAutograd")
# The output is allocated by the caller, so tracing has nothing to make.
_library.impl("decode", lambda *_: None, "Meta")


def quantized(weights: Weights, name: str) -> Quantized:
    """ValueError where the network has no layers in the format of that name, with what to do about it."""
    if name not in weights.quantized:
        if weights.architecture.decoder != "liif" or len(weights.architecture.hidden_list) < 2:
            raise ValueError(f"{weights.name} has no hidden layers to run in {name}")
        todo = "`liif-fast calibrate MODEL OUTPUT --data FOLDER` measures it"
        raise ValueError(f"{weights.name} was not measured for {name}: {todo}")
    return weights.quantized[name]


class Decoder:
    """A network's local-ensemble MLP after the projection, packed for one backend.

    Args:
        weights: the network.
        device, dtype: where z lives (a GPU with its number), and how it and all activations are stored. Sums are
            float32.
        backend: a name of `backends.BACKENDS` or "auto". BackendUnavailable if it cannot run.
        threads: of the processor; None takes PyTorch's number at each call.
    """

    def __init__(
        self,
        weights: Weights,
        device: torch.device,
        dtype: torch.dtype,
        backend: str = "auto",
        threads: int | None = None,
    ) -> None:
        self.backend = select(backend, device, dtype)
        self.device, self.dtype, self.threads = device, stored(dtype), threads
        architecture = weights.architecture
        self.local_ensemble = architecture.local_ensemble
        self.mean, self.std = architecture.mean, architecture.std
        (first, first_bias), *hidden, (last, last_bias) = weights.imnet
        if dtype in FORMATS:
            ready = quantized(weights, FORMATS[dtype].name)
            first, first_bias = first / ready.scale[:, None], first_bias / ready.scale
            hidden = list(zip(ready.weight, ready.steps, strict=True))
        # Inputs of the first layer: features, relative coordinate (y, x), cell (y, x).
        coordinates = first.shape[1] - (4 if architecture.cell_decode else 2)
        # That layer is linear before its ReLU, so its product with the 3x3-unfolded features is a 3x3 convolution of
        # the features (1x1 without feat_unfold), and nothing is ever unfolded.
        kernel = 3 if architecture.feat_unfold else 1
        projection = first[:, :coordinates].reshape(len(first), architecture.n_feats, kernel, kernel)
        self.head = Head(projection, first_bias)
        self.first_cell = first[:, coordinates + 2 :].contiguous().to(device)  # [C, 2], or [C, 0] without the cell
        layers = [first[:, coordinates], first[:, coordinates + 1], last, last_bias]
        for weight, bias in hidden:
            layers += [weight, bias]
        packed = BACKENDS[self.backend].pack([t.contiguous() for t in layers], dtype)
        self._products = dtype
        self.layers = [t.to(device) for t in packed]
        self.width = first.shape[0]
        widths = architecture.hidden_list
        self.neighbours = 4 if self.local_ensemble else 1
        # The hidden layers of every neighbour; all else is a per cent.
        self.flops_per_pixel = 2 * self.neighbours * sum(a * b for a, b in pairwise(widths))

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "layers": pickled(self.layers)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, layers=unpickled(state["layers"]))

    @property
    def description(self) -> str:
        return BACKENDS[self.backend].describe(self._products)

    def tables(self, positions: NDArray[np.float64], cells: int, cell: float) -> Axis:
        """Where outputs at ``positions`` along an axis look; ``cell``: their size, see `grid.cell`."""
        return grid.axis(positions, cells, self.local_ensemble)

    def __call__(
        self,
        z: torch.Tensor,
        y: Axis,
        x: Axis,
        cell: Sequence[float],
        out: torch.Tensor,
        paired: bool = False,
        peak: float | None = None,
    ) -> torch.Tensor:
        """Decode z [H, W, C] into ``out`` at the queries of the tables y and x.

        Args:
            cell: (height, width) of an output pixel in half input pixels, see `grid.cell`.
            out: uint8 and uint16 hold the whole range of their type; floats hold [0, peak].
            peak: the value of white, clamped to; None is that of the type of ``out``; ``inf`` is [0, 1] not clamped at
                all.
        """
        if z.dtype != self.dtype or z.device != self.device:
            raise TypeError(f"z is {z.dtype} on {z.device}; this decoder was made for {self.dtype} on {self.device}")
        cell_term = torch.zeros(self.width, dtype=torch.float32, device=self.device)
        for column, side in zip(self.first_cell.unbind(1), cell, strict=False):  # without the cell there is no column
            cell_term += column * side
        torch.ops.liif_fast.decode(
            z,
            [y.index, y.offset, y.weight],
            [x.index, x.offset, x.weight],
            paired,
            self.layers,
            cell_term,
            *output_range(self.mean, self.std, out.dtype, peak),
            self.backend,
            self.threads or torch.get_num_threads(),
            out,
        )
        return out
