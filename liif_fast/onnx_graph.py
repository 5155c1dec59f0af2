"""A network as ONNX graphs, written node by node from its weights: no tracing, no GridSample, every size dynamic.

Coordinates are computed in the graph as `grid` does, in float64, as only that decides ties the same way; they are
O(height + width). Cells are then gathered by rows and columns, and all per-pixel arithmetic is of the graph's type,
float32 or float16. The decoder gathers the whole window at once: in float32 it takes about 7 kB a pixel at a width of
256, so large results are made of windows.

At a whole, fixed scale a resampling decoder needs no coordinates: its taps come again every few lines, and the graph
has convolutions, paddings and pixel shuffles only, all of that type.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from . import grid
from .architecture import FACTOR
from .checkpoint import Weights
from .encoder import convolutions, edsr
from .grid import TAPS, TIE_SHIFT
from .ops import Decoder
from .resample import WIDEST, Resampler

# Old enough for runtimes of 2022.
OPSET, IR_VERSION = 17, 8
# Of the fixed ones that become a filter; at more than that its weights grow large.
FILTERED = range(1, 17)
IMAGE, SIZE, BOX, Z, PICTURE = "image", "size", "box", "z", "picture"

Pair = tuple[str, str]  # names of two values, of rows and of columns


class Graph:
    """Nodes and constants; a value is its name. ``dtype``: of pictures, weights and products, float32 or float16."""

    def __init__(self, name: str, dtype: Any = np.float32) -> None:
        self.name, self.dtype, self.kind = name, dtype, helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def __call__(self, kind: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """A node with one output; its value."""
        name = name or f"{kind.lower()}_{len(self.nodes)}"
        # Named as its value: ONNX Runtime 1.18 fuses two nodes without names into two of one name, and refuses them.
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name, **attributes))
        return name

    def constant(self, value: Any, dtype: Any = None, name: str = "") -> str:
        array = np.asarray(value, dtype or self.dtype)
        name = name or f"constant_{len(self.constants)}"
        self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
        return name

    def double(self, value: float) -> str:
        return self.constant(value, np.float64, f"double_{value!r}")

    def integers(self, *values: int) -> str:
        return self.constant(values, np.int64, f"integers_{'_'.join(map(str, values))}")

    def integer(self, value: int) -> str:
        return self.constant(value, np.int64, f"integer_{value}")

    def cast(self, x: str, kind: int) -> str:
        return self("Cast", x, to=kind)

    def value(self, name: str, shape: list[Any]) -> Any:
        """An input or output of the graph's type."""
        return helper.make_tensor_value_info(name, self.kind, shape)

    def item(self, x: str, i: int) -> str:
        """x[i] of a vector, a scalar."""
        return self("Gather", x, self.integer(i), axis=0)

    def unsqueeze(self, x: str, *axes: int) -> str:
        return self("Unsqueeze", x, self.integers(*axes))

    def model(self, inputs: list[Any], output: Any, notes: str) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes, self.name, inputs, [output], list(self.constants.values()), doc_string=notes
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="liif_fast"
        )
        model.doc_string = notes
        onnx.checker.check_model(model, full_check=True)
        return model


def add_encoder(graph: Graph, weights: Weights, decoder: Decoder | Resampler, image: str) -> str:
    """``image`` [1, 3, H, W] in [0, 1] -> z [H, W, C]."""
    z = add_planes(graph, weights, decoder, image, np.arange(len(decoder.head.weight)))
    return graph("Squeeze", graph("Transpose", z, perm=[0, 2, 3, 1]), graph.integers(0))


def add_planes(graph: Graph, weights: Weights, decoder: Decoder | Resampler, image: str, order: np.ndarray) -> str:
    """``image`` -> z [1, C, H, W], its channels in this order."""
    a = weights.architecture
    layers = convolutions(weights, decoder.head)

    def convolve(name: str, x: str) -> str:
        weight, bias = (part[order] if name == "project" else part for part in layers[name])
        side = weight.shape[-1]
        kernel, shift = graph.constant(weight, name=f"{name}.weight"), graph.constant(bias, name=f"{name}.bias")
        return graph("Conv", x, kernel, shift, kernel_shape=[side, side], pads=[side // 2] * 4)

    def per_color(values: tuple[float, ...]) -> str:
        return graph.constant(np.reshape(values, (1, 3, 1, 1)))

    x = graph("Div", graph("Sub", image, per_color(a.mean)), per_color(a.std))
    features = edsr(x, a, convolve, lambda value: graph("Relu", value), lambda one, two: graph("Add", one, two))
    z = convolve("project", features)
    if decoder.head.skip:
        z = graph("Add", z, graph("Conv", x, graph.constant(decoder.head.repeats[order]), kernel_shape=[1, 1]))
    return z


class Axis:
    """One axis of a window: ``cells`` and ``size`` int64 scalars, ``start`` and ``stop`` float64 in input pixels."""

    def __init__(self, graph: Graph, cells: str, size: str, start: str, stop: str, cell_clamp: float | None) -> None:
        self.graph = g = graph
        self.cells, self.cells_double = cells, g.cast(cells, TensorProto.DOUBLE)
        self.step = g("Div", g("Sub", stop, start), g.cast(size, TensorProto.DOUBLE))
        numbers = g.cast(g("Range", g.integer(0), size, g.integer(1)), TensorProto.DOUBLE)
        centres = g("Add", numbers, g.double(0.5))
        self.positions = g("Add", start, g("Mul", centres, self.step))
        side = g("Mul", g.double(2.0), self.step)
        self.cell = side if cell_clamp is None else g("Max", side, g.double(2 / cell_clamp))

    def clip(self, x: str, low: str, high: str) -> str:
        return self.graph("Min", self.graph("Max", x, low), high)

    def neighbours(self, ensemble: bool) -> list[tuple[str, str, str]]:
        """`grid.axis`: for each side index int64, offset and weight, all [N]; a lone one's weight is ""."""
        g, one = self.graph, self.graph.double(1.0)
        query = g("Sub", g("Mul", self.positions, g("Div", g.double(2.0), self.cells_double)), one)
        last = g("Sub", self.cells_double, one)
        indices, offsets = [], []
        for shift in (-1.0, 1.0) if ensemble else (0.0,):
            moved = g("Div", g.double(shift), self.cells_double)
            near = g("Add", query, g("Add", moved, g.double(TIE_SHIFT)) if ensemble else moved)
            near = self.clip(near, g.double(-1 + TIE_SHIFT), g.double(1 - TIE_SHIFT))
            scaled = g("Sub", g("Mul", g("Add", near, one), self.cells_double), one)
            index = self.clip(g("Round", g("Div", scaled, g.double(2.0))), g.double(0.0), last)
            centre = g("Add", g("Mul", g.double(2.0), index), one)
            indices.append(g.cast(index, TensorProto.INT64))
            offsets.append(g("Sub", g("Mul", g.double(2.0), self.positions), centre))
        if ensemble:
            distances = [g("Abs", offset) for offset in reversed(offsets)]  # of the opposite side
            total = g("Add", *distances)
            found = g("Greater", total, g.double(0.0))
            safe = g("Where", found, total, one)
            weights = [g("Where", found, g("Div", distance, safe), g.double(0.5)) for distance in distances]
            weights = [g.cast(weight, g.kind) for weight in weights]
        else:
            weights = [""]
        offsets = [g.cast(offset, g.kind) for offset in offsets]
        return list(zip(indices, offsets, weights, strict=True))

    def taps(self, mlp: list[np.ndarray]) -> list[tuple[str, str]]:
        """`grid.taps` with `resample.shares`: for each tap its fine line, int64 [N], and its share, [N]."""
        g, one, zero = self.graph, self.graph.double(1.0), self.graph.double(0.0)
        lines = g("Mul", self.cells, g.integer(FACTOR))
        at = g("Sub", g("Mul", self.positions, g.double(float(FACTOR))), g.double(0.5))
        first = g("Sub", g("Floor", at), g.double(float(TAPS // 2 - 1)))
        line = g("Add", g.unsqueeze(first, 1), g.constant(np.arange(TAPS)[None], np.float64))
        distance = g("Abs", g("Sub", g.unsqueeze(at, 1), line))  # [N, TAPS]
        inverse = g("Max", g("Div", self.cell, g.double(2.0)), g.double(1 / FACTOR))
        widening = self.clip(g("Mul", g.double(float(FACTOR)), inverse), one, g.double(WIDEST))
        share = g("Add", self._cubic(g("Div", distance, widening)), self._learned(distance, inverse, mlp))
        share = g("Div", share, g("ReduceSum", share, g.integers(1), keepdims=1))
        last = g("Sub", g.cast(lines, TensorProto.DOUBLE), one)
        line = g.cast(self.clip(line, zero, last), TensorProto.INT64)
        share = g.cast(share, g.kind)
        return [
            (g("Gather", line, g.integer(k), axis=1), g("Gather", share, g.integer(k), axis=1)) for k in range(TAPS)
        ]

    def _cubic(self, x: str) -> str:
        g = self.graph

        def polynomial(*coefficients: float) -> str:
            value = g.double(coefficients[0])
            for coefficient in coefficients[1:]:
                value = g("Add", g("Mul", value, x), g.double(coefficient))
            return value

        far = g("Where", g("Less", x, g.double(2.0)), polynomial(-0.5, 2.5, -4.0, 2.0), g.double(0.0))
        return g("Where", g("Less", x, g.double(1.0)), polynomial(1.5, -2.5, 0.0, 1.0), far)

    def _learned(self, distance: str, inverse: str, mlp: list[np.ndarray]) -> str:
        g = self.graph
        near = g("Div", distance, g.double(TAPS / 2))
        scale = g("Expand", inverse, g("Shape", near))
        hidden = g("Concat", g.unsqueeze(near, 2), g.unsqueeze(scale, 2), axis=2)
        for i in range(0, len(mlp), 2):
            product = g("MatMul", hidden, g.constant(mlp[i].T, np.float64))
            hidden = g("Add", product, g.constant(mlp[i + 1], np.float64))
            if i < len(mlp) - 2:
                # SiLU; ONNX Runtime 1.18 takes Mul and Sigmoid for one operator, which it has in float32 only.
                hidden = g("Div", hidden, g("Add", g("Exp", g("Neg", hidden)), g.double(1.0)))
        window = g("Max", g("Sub", g.double(1.0), g("Mul", near, near)), g.double(0.0))
        return g("Mul", g("Mul", window, window), g("Squeeze", hidden, g.integers(2)))


def add_liif(graph: Graph, decoder: Decoder, z: str, y: Axis, x: Axis) -> str:
    """z [H, W, C] -> colours [rows, columns, 3] of the network's range."""
    g = graph
    layers = [layer.numpy() for layer in decoder.layers]
    first_y, first_x, last, last_bias = (g.constant(layer.T) for layer in layers[:4])
    hidden = [(g.constant(w.T), g.constant(b)) for w, b in zip(layers[4::2], layers[5::2], strict=True)]
    cell_term = None
    if decoder.first_cell.shape[1]:
        cell = [g.unsqueeze(g.cast(axis.cell, g.kind), 0) for axis in (y, x)]
        cell_term = g("MatMul", g.constant(decoder.first_cell), g("Concat", *cell, axis=0))
    blended = ""
    columns = x.neighbours(decoder.local_ensemble)
    for index_y, offset_y, weight_y in y.neighbours(decoder.local_ensemble):
        row = g("Gather", z, index_y, axis=0)  # [rows, W, C]
        term_y = g("Mul", g.unsqueeze(offset_y, 1, 2), first_y)
        term_y = g("Add", term_y, cell_term) if cell_term else term_y
        for index_x, offset_x, weight_x in columns:
            term = g("Add", term_y, g("Mul", g.unsqueeze(offset_x, 0, 2), first_x))
            h = g("Relu", g("Add", g("Gather", row, index_x, axis=1), term))
            for weight, bias in hidden:
                h = g("Relu", g("Add", g("MatMul", h, weight), bias))
            if weight_y:
                h = g("Mul", h, g("Mul", g.unsqueeze(weight_y, 1, 2), g.unsqueeze(weight_x, 0, 2)))
            blended = g("Add", blended, h) if blended else h
    return g("Add", g("MatMul", blended, last), last_bias)


def add_resampling(graph: Graph, decoder: Resampler, z: str, y: Axis, x: Axis) -> str:
    """As `add_liif`."""
    g = graph
    mlp = [layer.numpy() for layer in decoder.mlp]
    parts = g("Reshape", z, g("Concat", g("Shape", z, end=2), g.integers(FACTOR, 3, FACTOR), axis=0))
    parts = g("Transpose", parts, perm=[0, 2, 1, 4, 3])  # [H, FACTOR, W, FACTOR, 3]
    lines = g("Concat", *(g.unsqueeze(g("Mul", a.cells, g.integer(FACTOR)), 0) for a in (y, x)), g.integers(3), axis=0)
    picture = g("Reshape", parts, lines)
    for dimension, axis in enumerate((y, x)):
        summed = ""
        for line, share in axis.taps(mlp):
            part = g("Gather", picture, line, axis=dimension)
            part = g("Mul", part, g.unsqueeze(share, *(i for i in range(3) if i != dimension)))
            summed = g("Add", summed, part) if summed else part
        picture = summed
    return picture


def add_filter(graph: Graph, weights: Weights, decoder: Resampler, scale: int, cell_clamp: float | None) -> str:
    """``image`` [1, 3, H, W] in [0, 1] -> colours [1, 3, scale * H, scale * W] of the network's range."""
    g = graph
    order = np.arange(3 * FACTOR**2).reshape(FACTOR, 3, FACTOR).swapaxes(0, 1).flatten()  # (colour, row, column)
    picture = g("DepthToSpace", add_planes(g, weights, decoder, IMAGE, order), blocksize=FACTOR, mode="CRD")
    # The next ``outputs`` look at fine lines ``stride`` further on.
    outputs, stride = (n // math.gcd(scale, FACTOR) for n in (scale, FACTOR))
    cells, inner = 5, 2  # far from both edges
    positions = inner + (np.arange(outputs) + 0.5) / scale
    taps = decoder.tables(positions, cells, grid.cell(0, 1, scale, cell_clamp))
    first = taps.first.numpy() - inner * FACTOR
    before, length = -int(first[0]), int(first[-1] - first[0]) + TAPS
    shares = np.zeros((outputs, length))
    for i in range(outputs):
        start = first[i] + before
        shares[i, start : start + TAPS] = taps.taps[i].numpy()
    after = length - stride - before
    # Lines outside the picture are that at its edge.
    picture = g("Pad", picture, g.integers(0, 0, before, before, 0, 0, after, after), mode="edge")
    down = g.constant(np.tile(shares, (3, 1))[:, None, :, None])
    picture = g("Conv", picture, down, kernel_shape=[length, 1], strides=[stride, 1], group=3)
    across = g.constant(np.tile(shares, (3 * outputs, 1))[:, None, None, :])
    picture = g("Conv", picture, across, kernel_shape=[1, length], strides=[1, stride], group=3 * outputs)
    return g("DepthToSpace", picture, blocksize=outputs, mode="CRD") if outputs > 1 else picture


def whole(
    weights: Weights,
    decoder: Decoder | Resampler,
    cell_clamp: float | None,
    scale: float | None = None,
    dtype: Any = np.float32,
) -> onnx.ModelProto:
    """``image`` [1, 3, H, W] in [0, 1] and ``size`` int64 [2] = (rows, columns) -> ``picture``.

    ``picture`` is [1, 3, rows, columns], clamped to [0, 1]; it and ``image`` are of ``dtype``, float32 or float16. With
    ``scale`` there is no ``size``; it is ``scale`` times the image's, at a whole one by a filter where `add_filter` has
    one. ``cell_clamp``: see `grid.cell`.
    """
    graph = g = Graph("upscaler", dtype)
    notes = f"{weights.name}: {weights.architecture.summary()}"
    inputs = [g.value(IMAGE, [1, 3, "height", "width"])]
    if isinstance(decoder, Resampler) and scale is not None and scale in FILTERED:
        colors = add_filter(g, weights, decoder, int(scale), cell_clamp)
        return graph.model(inputs, _finished(g, weights, colors), notes)
    cells = g("Shape", IMAGE, start=2)
    if scale is None:
        size = SIZE
        inputs.append(helper.make_tensor_value_info(SIZE, TensorProto.INT64, [2]))
    else:
        scaled = g("Round", g("Mul", g.cast(cells, TensorProto.DOUBLE), g.double(scale)))
        size = g.cast(g("Max", scaled, g.double(1.0)), TensorProto.INT64)
    end = g.cast(cells, TensorProto.DOUBLE)
    y, x = (Axis(g, g.item(cells, i), g.item(size, i), g.double(0.0), g.item(end, i), cell_clamp) for i in range(2))
    output = _picture(g, weights, decoder, add_encoder(g, weights, decoder, IMAGE), y, x)
    return graph.model(inputs, output, notes)


def split(
    weights: Weights, decoder: Decoder | Resampler, cell_clamp: float | None, dtype: Any = np.float32
) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """Encoder: ``image`` as for `whole` -> ``z`` [H, W, C]. Decoder: ``z``, ``size``, ``box`` -> ``picture``.

    ``box`` is float32 [4], the window (top, left, bottom, right) in pixels of the image that is to be ``size`` large.
    """
    notes, width = f"{weights.name}: {weights.architecture.summary()}", len(decoder.head.weight)
    encoder, g = Graph("encoder", dtype), Graph("decoder", dtype)
    encoder("Identity", add_encoder(encoder, weights, decoder, IMAGE), name=Z)
    image, z = g.value(IMAGE, [1, 3, "height", "width"]), g.value(Z, ["height", "width", width])
    cells, box = g("Shape", Z), g.cast(BOX, TensorProto.DOUBLE)
    y, x = (
        Axis(g, g.item(cells, i), g.item(SIZE, i), g.item(box, i), g.item(box, i + 2), cell_clamp) for i in range(2)
    )
    output = _picture(g, weights, decoder, Z, y, x)
    size = helper.make_tensor_value_info(SIZE, TensorProto.INT64, [2])
    window = helper.make_tensor_value_info(BOX, TensorProto.FLOAT, [4])
    return encoder.model([image], z, notes), g.model([z, size, window], output, notes)


def _picture(g: Graph, weights: Weights, decoder: Decoder | Resampler, z: str, y: Axis, x: Axis) -> Any:
    colors = add_liif(g, decoder, z, y, x) if isinstance(decoder, Decoder) else add_resampling(g, decoder, z, y, x)
    planes = g("Unsqueeze", g("Transpose", colors, perm=[2, 0, 1]), g.integers(0))
    return _finished(g, weights, planes)


def _finished(g: Graph, weights: Weights, colors: str) -> Any:
    """Colours [1, 3, rows, columns] of the network's range -> `PICTURE`."""
    std, mean = (
        g.constant(np.reshape(values, (1, 3, 1, 1))) for values in (weights.architecture.std, weights.architecture.mean)
    )
    g("Clip", g("Add", g("Mul", colors, std), mean), g.constant(0.0), g.constant(1.0), name=PICTURE)
    return g.value(PICTURE, [1, 3, "rows", "columns"])
