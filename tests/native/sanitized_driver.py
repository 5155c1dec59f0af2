"""Decodes, resamples, convolves and converts colours of odd shapes with every instruction set of a sanitized module.

Every buffer has just the size needed.

usage: sanitized_driver.py MODULE [BUFFER]; with BUFFER (z, index, ..., fine, taps, ...) that one is an element short.
"""

from __future__ import annotations

import itertools
import sys
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from typing import Any

import numpy as np

NAME = sys.argv[1].rpartition("/")[2].partition(".")[0]  # _cpu, or _cuda, which has the colours only
spec = spec_from_file_location(NAME, sys.argv[1], loader=ExtensionFileLoader(NAME, sys.argv[1]))
native: Any = module_from_spec(spec)  # type: ignore[arg-type]
spec.loader.exec_module(native)  # type: ignore[union-attr]
SHORT = sys.argv[2] if len(sys.argv) > 2 else None
RANDOM = np.random.default_rng(0)
MULTIPLY_BF16 = ("amx", "avx512bf16", "neonbf16")
INT8 = {"avx512vnni": np.int8, "avxvnni": np.int8, "avx2": np.int16, "scalar": np.int8}  # as weights are packed
OUT = {"u8": np.uint8, "u16": np.uint16, "f32": np.float32}


def exact(values: np.ndarray, name: str, keep: list[np.ndarray]) -> int:
    """The address of a heap block of just these values; of one value less where this buffer is to be short."""
    flat = values.ravel()
    block = np.empty(flat.size - (name == SHORT), flat.dtype)
    block[:] = flat[: block.size]
    keep.append(block)
    return int(block.ctypes.data)


def stored(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    values = RANDOM.normal(0, 0.2, shape).astype(np.float32)
    return values if dtype == "f32" else (values.view(np.uint32) >> 16).astype(np.uint16)


def pixels(data: int, type: str, paired: bool, strides: tuple[int, int, int]) -> Any:
    return native.Pixels(
        paired=paired,
        scale=(100.0, 100.0, 100.0),
        shift=(100.0, 100.0, 100.0),
        low=0.0,
        high=255.0,
        data=data,
        type=getattr(native.Type, type),
        strides=strides,
    )


def decode(
    isa: str,
    dtype: str,
    hidden: tuple[int, ...],
    size: tuple[int, int],
    sides: int,
    out: str,
    paired: bool,
    step: int,
    int8: bool = False,
) -> None:
    keep: list[np.ndarray] = []
    cells = 3, 5
    size = (size[0] * size[1],) * 2 if paired else size
    tables = []
    for n, count in zip(cells, size, strict=True):
        index = np.sort(RANDOM.integers(0, n, (sides, count)).astype(np.int32), axis=1)
        index[:, -1] = n - 1  # the very last cell is read
        parts = ((index, "index"), (stored((sides, count), "f32"), "offset"), (stored((sides, count), "f32"), "share"))
        tables.append((*(exact(values, name, keep) for values, name in parts), count))
    layers = []
    for a, b in itertools.pairwise(hidden):
        weight = RANDOM.integers(-127, 128, (b, a)).astype(INT8[isa]) if int8 else stored((b, a), dtype)
        multiplier, bias = stored((b,), "f32"), stored((b,), "f32")
        parts = ((weight, "weight"), (multiplier, "multiplier"), (bias, "bias"))
        layers.append((*(exact(values, name, keep) for values, name in parts), a, b))
    rows, columns = (1, size[1]) if paired else size
    # Strides of `step` values per channel; the block ends with the last value written.
    length = (rows * columns * 3 - 1) * step + 1
    target = exact(np.zeros(length, OUT[out]), "out", keep)
    first, first_y, first_x = (exact(stored((hidden[0],), "f32"), name, keep) for name in ("first", "by_y", "by_x"))
    native.decode(
        isa=isa,
        threads=2,
        z=exact(stored((*cells, hidden[0]), dtype), "z", keep),
        type=getattr(native.Type, dtype),
        products=native.Type.i8 if int8 else getattr(native.Type, dtype),
        width=hidden[0],
        z_row_stride=cells[1] * hidden[0],
        sides=sides,
        y=tables[0],
        x=tables[1],
        first=first,
        first_y=first_y,
        first_x=first_x,
        hidden=layers,
        last=exact(stored((3, hidden[-1]), "f32"), "last", keep),
        last_bias=exact(stored((3,), "f32"), "last_bias", keep),
        out=pixels(target, out, paired, (0 if paired else columns * 3 * step, 3 * step, step)),
    )


def resample(
    isa: str,
    dtype: str,
    cells: tuple[int, int],
    size: tuple[int, int],
    out: str,
    paired: bool,
    even: bool = False,
    planar: bool = False,
) -> None:
    """``even``: but for the ends, each output lies a fine line beyond the last, with the same mirrored taps."""
    keep: list[np.ndarray] = []
    size = (size[0] * size[1],) * 2 if paired else size
    tables = []
    for n, count in zip(cells, size, strict=True):
        first = np.sort(RANDOM.integers(0, max(1, 4 * n - 7), count).astype(np.int32))
        first[-1] = max(0, 4 * n - 8)  # the very last line is read
        taps = stored((count, 8), "f32")
        taps[:, 4 * n :] = 0
        if even:
            first = np.clip(np.arange(count) - 3, 0, max(0, 4 * n - 8)).astype(np.int32)
            taps[3:-4] = (0.1, 0.2, 0.3, 0.4, 0.3, 0.2, 0.1, 0)
        tables.append((exact(first, "line", keep), exact(taps, "taps", keep), count))
    rows, columns = (1, size[1]) if paired else size
    target = exact(np.zeros(rows * columns * 3, {**OUT, "f16": np.uint16}[out]), "resampled", keep)
    strides = (columns, 1, rows * columns) if planar else (0 if paired else columns * 3, 3, 1)
    native.resample(
        isa=isa,
        threads=2,
        z=exact(stored((*cells, 48), dtype), "fine", keep),
        type=getattr(native.Type, dtype),
        rows=cells[0],
        columns=cells[1],
        z_row_stride=cells[1] * 48,
        y=tables[0],
        x=tables[1],
        out=pixels(target, out, paired, strides),
    )


def convolve(
    isa: str, dtype: str, size: tuple[int, int], inputs: int, outputs: int, kernel: int, skips: bool, tiles: str = ""
) -> None:
    """``tiles``: with weights of F(4x4, 3x3) of that type, which are then taken instead of the plain ones."""
    keep: list[np.ndarray] = []
    rows, columns = size
    item = 4 if dtype == "f32" else 2

    stride = (columns + 2) * inputs
    image = exact(stored((rows + 2, columns + 2, inputs), dtype), "image", keep) + (stride + inputs) * item
    skip = exact(stored((rows, columns, 4), dtype), "skip", keep) if skips else 0
    shape = (outputs, kernel * kernel * inputs + (4 if skips else 0))
    winograd = exact(stored((36, outputs, inputs), tiles), "winograd", keep) if tiles else 0
    output = exact(stored((rows, columns, outputs), dtype), "convolved", keep)
    params = native.ConvolveParams(
        type=getattr(native.Type, dtype),
        grid=native.PixelGrid(rows, columns),
        into=inputs,
        out=outputs,
        kernel=kernel,
        input=(image, stride),
        skip=(skip, columns * 4),
        weight=0 if tiles else exact(stored(shape, dtype), "kernel", keep),
        winograd=winograd,
        winograd_type=getattr(native.Type, tiles or "f32"),
        winograd_skip=exact(stored((4, outputs), "f32"), "winograd_skip", keep) if tiles and skips else 0,
        bias=exact(stored((outputs,), "f32"), "shift", keep),
        relu=True,
        add=output,
        output=(output, columns * outputs),
    )
    native.convolve([params, params], isa=isa, threads=2)


def normalise(sample: str, out: str, channels: int) -> None:
    keep: list[np.ndarray] = []
    rows, columns = 5, 300
    kind = {**OUT, "f16": np.uint16}[sample]
    native.normalise(
        threads=2,
        type=getattr(native.Type, sample),
        image=exact(RANDOM.integers(0, 200, rows * columns * channels).astype(kind), "samples", keep),
        strides=(columns * channels, channels, channels // 3),
        size=(rows, columns),
        white=255.0,
        mean=[0.5] * 3,
        std=[0.5] * 3,
        out_type=getattr(native.Type, out),
        out=(exact(stored((rows, columns, 4), out), "normalised", keep), columns * 4),
    )


def convolve_pictures(
    isa: str, size: tuple[int, int, int], inputs: int, outputs: int, threads: int, type: str = "f32"
) -> None:
    """Pictures with nothing around them, and the gradient of the weights."""
    keep: list[np.ndarray] = []
    count, rows, columns = size
    grid = native.PixelGrid(count * rows, columns, rows)
    pictures = exact(stored((*size, inputs), type), "pictures", keep)
    output = exact(stored((*size, outputs), type), "convolved", keep)
    products = "bf16" if type == "bf16" and isa in MULTIPLY_BF16 else "f32"
    params = native.ConvolveParams(
        type=getattr(native.Type, type),
        grid=grid,
        into=inputs,
        out=outputs,
        kernel=3,
        input=(pictures, columns * inputs),
        skip=(0, 0),
        weight=0,
        winograd=exact(stored((36, outputs, inputs), products), "winograd", keep),
        winograd_type=getattr(native.Type, products),
        winograd_skip=0,
        bias=exact(stored((outputs,), "f32"), "shift", keep),
        relu=False,
        add=0,
        output=(output, columns * outputs),
    )
    native.convolve([params], isa=isa, threads=threads)
    native.convolve_gradient(
        isa=isa,
        threads=threads,
        type=getattr(native.Type, type),
        grid=grid,
        into=inputs,
        out=outputs,
        input=pictures,
        output=output,
        weight=exact(np.empty(36 * outputs * inputs, np.float32), "gradient", keep),
    )


def convert(isa: str, size: tuple[int, int], deep: bool, paired: bool, rgb: str, between: tuple[bool, bool]) -> None:
    """To R'G'B' and back, into the same buffers."""
    keep: list[np.ndarray] = []
    rows, columns = size
    chroma_columns = (columns + 1) // 2
    chroma = (rows + 1) // 2 * chroma_columns
    kind, bits = (np.uint16, 10) if deep else (np.uint8, 8)

    def samples(count: int, name: str) -> int:
        return exact(RANDOM.integers(0, 1 << bits, count).astype(kind), name, keep)

    if paired:
        u = samples(2 * chroma, "cb")
        v = u + keep[-1].itemsize
    else:
        u, v = samples(chroma, "cb"), samples(chroma, "cr")
    step = 2 if paired else 1
    white = {"u8": 255.0, "u16": 65535.0}.get(rgb, 1.0)
    out = {**OUT, "bf16": np.uint16, "f16": np.uint16}[rgb]
    params = native.ColorParams(
        size=size,
        y=(samples(rows * columns, "luma"), columns, 1),
        u=(u, step * chroma_columns, step),
        v=(v, step * chroma_columns, step),
        sample=native.Type.u16 if deep else native.Type.u8,
        unused=0,
        between=between,
        rgb=exact(np.zeros(rows * columns * 3, out), "rgb", keep),
        rgb_type=getattr(native.Type, rgb),
        rgb_strides=(columns * 3, 3, 1) if rows % 2 else (columns, 1, rows * columns),
        zero=[0.0] * 3,
        by=[[0.5, 0.3, 0.2]] * 3,
        shift=[0.0] * 3,
        low=[0.0] * 3,
        high=[min(white, float((1 << bits) - 1))] * 3,
    )
    how: dict[str, Any] = {"device": 0, "stream": 0} if NAME == "_cuda" else {"isa": isa, "threads": 2}
    native.to_rgb(params, **how)
    native.from_rgb(params, **how)


def colors(isa: str) -> None:
    if SHORT:
        convert(isa, (3, 5), False, False, "u8", (True, False))
        return
    for size in (*SIZES, (2, 2), (2, 8), (3, 8), (3, 2050)):
        for deep, paired, between in itertools.product((False, True), (False, True), ((True, False), (False, True))):
            for rgb in (*OUT, "bf16", "f16"):
                convert(isa, size, deep, paired, rgb, between)


SIZES = [(1, 1), (1, 47), (7, 7), (5, 29)]
HIDDEN = [(16,), (16, 16), (48, 16, 80), (144, 208)]
if NAME == "_cuda":
    colors("cuda")
    print("decoded with cuda")
if NAME == "_cpu":  # plain code for all
    for sample, out, channels in itertools.product(("u8", "u16", "f16", "f32"), ("f32", "bf16"), (1, 3)):
        normalise(sample, out, channels)
for isa, supported in native.isas() if NAME == "_cpu" else ():
    if not supported:
        continue
    if SHORT:
        decode(isa, "f32", (16, 32), (5, 7), 2, "f32", False, 1, isa in INT8)
        resample(isa, "f32", (3, 5), (12, 24), "u8", False)
        for tiles in ("", "f32"):
            convolve(isa, "f32", (3, 5), 16, 32, 3, True, tiles)
        convolve_pictures(isa, (2, 3, 5), 16, 32, 1)
        colors(isa)
        continue
    for dtype in ("f32", "bf16"):
        for sides in (1, 2):
            for hidden in HIDDEN:
                for size in SIZES:
                    decode(isa, dtype, hidden, size, sides, "f32", False, 1)
                    if isa in INT8:
                        decode(isa, dtype, hidden, size, sides, "f32", False, 1, int8=True)
            for out in OUT:
                decode(isa, dtype, (32, 48), (5, 11), sides, out, True, 1)
                decode(isa, dtype, (32, 48), (5, 11), sides, out, False, 2)
        for cells in ((1, 1), (1, 2), (3, 5), (2, 700)):
            for size in ((1, 1), (5, 8), (7, 23), (2, 3000)):
                for out in OUT:
                    resample(isa, dtype, cells, size, out, False)
            resample(isa, dtype, cells, (5, 7), "u8", True)
        for cells in ((2, 18), (9, 150)):
            for out, planar in itertools.product((*OUT, "f16"), (False, True)):
                resample(isa, dtype, cells, (4 * cells[0], 4 * cells[1]), out, False, True, planar)
        for size in (*SIZES, (8, 6), (9, 29), (3, 101)):
            for inputs, outputs in ((4, 16), (16, 64), (16, 48), (32, 112)):
                for kernel, skips in itertools.product((1, 3), (False, True)):
                    convolve(isa, dtype, size, inputs, outputs, kernel, skips)
                    if kernel == 3 and inputs >= 16:
                        convolve(isa, dtype, size, inputs, outputs, kernel, skips, "f32")
                        if dtype == "bf16" and isa in MULTIPLY_BF16:
                            convolve(isa, dtype, size, inputs, outputs, kernel, skips, "bf16")
        for batch in ((1, 1, 1), (3, 4, 8), (2, 5, 7), (2, 9, 29), (2, 20, 21)):
            for inputs, outputs in ((16, 16), (16, 64), (32, 112)):
                convolve_pictures(isa, batch, inputs, outputs, 3, dtype)
    colors(isa)
    # The scratch memory of a thread is as large as the widest layers need.
    decode(isa, "f32", (256, 256, 256), (7, 17), 2, "u8", False, 1)
    if isa in INT8:
        decode(isa, "f32", (256, 256, 256), (7, 17), 2, "u8", False, 1, int8=True)
    convolve(isa, "f32", (3, 101), 256, 256, 3, True, "f32")
    if isa in MULTIPLY_BF16:
        convolve(isa, "bf16", (3, 101), 256, 256, 3, True, "bf16")
    convolve_pictures(isa, (1, 3, 101), 256, 256, 1)
    print("decoded with", isa)
