"""The decoders for NVIDIA cards: one fused Triton kernel each, see kernels/.

Triton is imported when a decoder is first asked for on such a card, and only then.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

import torch

from ..quantization import FP8

if TYPE_CHECKING:
    from ..grid import Axis, Taps
    from ..kernels.configs import Config
    from ..pixels import Pixels

# The first with all that the kernels use, and whose kernels several threads may begin at once.
LEAST_VERSION = (3, 5)
LEAST_CAPABILITY = (8, 0)
FP8_CAPABILITY = (8, 9)
# Queries per side of a table; the kernels count them in 32 bits.
MOST_QUERIES = 1 << 29
# Least inner and outer sizes of a matrix product.
PRODUCT = 16


def unavailable(device: torch.device, dtype: torch.dtype) -> str | None:
    if device.type != "cuda":
        return f"it needs a CUDA device, not {device.type}"
    if dtype not in (torch.float16, torch.bfloat16, FP8.dtype):
        return f"it stores activations as float16 or bfloat16, not {dtype}"
    if torch.version.cuda is None or not torch.cuda.is_available():
        return f"PyTorch {torch.__version__} finds no CUDA device"
    try:
        import triton
    except ImportError as error:
        return f"triton cannot be imported ({error}); `pip install 'liif_fast[cuda]'`"
    if tuple(int(part) for part in triton.__version__.split(".")[:2]) < LEAST_VERSION:
        return f"triton {triton.__version__} is too old, {'.'.join(map(str, LEAST_VERSION))} is needed"
    capability = torch.cuda.get_device_capability(device)
    if capability < LEAST_CAPABILITY:
        return f"compute capability {capability[0]}.{capability[1]} is too low, 8.0 is needed"
    if dtype == FP8.dtype and capability < FP8_CAPABILITY:
        return f"compute capability {capability[0]}.{capability[1]} is too low for float8, 8.9 is needed"
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        return "triton needs a C compiler for its launchers: gcc, clang or what CC names"
    return _launcher_problem()


@cache
def _launcher_problem() -> str | None:
    """Why Triton cannot compile what loads its kernels, which it does once for a machine."""
    import triton

    try:
        _ = triton.runtime.driver.active.utils
    except Exception as error:  # the compiler's, the linker's or the driver's
        reason = " ".join(str(error).split())
        return f"triton cannot compile its launchers (are Python's headers installed?): {reason[:200]}"
    return None


def describe(dtype: torch.dtype) -> str:
    import triton

    return f"Triton {triton.__version__}"


def pack(layers: list[torch.Tensor], dtype: torch.dtype) -> list[torch.Tensor]:
    """[first, last, last bias, weight, bias, weight, bias, ...] as kernels/decode.py reads them, padded with zeros.

    For float8, as kernels/decode_fp8.py does: weights are [out, in], and there are steps in the place of biases.
    """
    from ..kernels.configs import padded

    first_y, first_x, last, last_bias = (t.float() for t in layers[:4])
    hidden = layers[4:]
    # Without hidden layers nothing is rounded on the way, so nothing may be.
    stored = torch.float32 if not hidden else torch.float16 if dtype == FP8.dtype else dtype
    offsets = first_y.new_zeros(PRODUCT, padded(len(first_y)), dtype=stored)
    for i, weight in enumerate((first_y, first_x)):
        high, low = _split(weight, stored)
        offsets[3 * i : 3 * i + 3, : len(weight)] = torch.stack([high, high, low])
    colors = first_y.new_zeros(padded(last.shape[1]), PRODUCT, dtype=stored)
    colors[: last.shape[1], :6] = torch.stack(_split(last.T, stored), dim=-1).flatten(1)
    packed = [offsets, colors, last_bias]
    if dtype == FP8.dtype:
        return packed + _padded_fp8(hidden)
    for weight, bias in zip(hidden[::2], hidden[1::2], strict=True):
        out, into = weight.shape
        wide = weight.new_zeros(padded(into), padded(out), dtype=dtype)
        wide[:into, :out] = weight.T
        packed += [wide, weight.new_zeros(padded(out), dtype=torch.float32)]
        packed[-1][:out] = bias
    return packed


def _padded_fp8(layers: list[torch.Tensor]) -> list[torch.Tensor]:
    """Each 16 inputs of a weight (2, 4, 2) with the middle axis first: the order of activations in the kernel."""
    from ..kernels.configs import padded

    packed = []
    for weight, steps in zip(layers[::2], layers[1::2], strict=True):
        out, into = weight.shape
        wide = weight.new_zeros(padded(out), padded(into), dtype=torch.float32)
        wide[:out, :into] = weight.float()
        ordered = wide.view(padded(out), -1, 2, 4, 2).transpose(2, 3).reshape(wide.shape)
        packed += [ordered.to(weight.dtype), weight.new_zeros(2, padded(out), dtype=torch.float32)]
        packed[-1][:, :out] = steps
    return packed


def _split(tensor: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """``tensor``, float32, as a sum of two tensors of ``dtype``: what it rounds to, and the rest."""
    high = tensor.to(dtype)
    return high, (tensor - high.float()).to(dtype)


def _check(z: torch.Tensor, layers: list[torch.Tensor]) -> list[int]:
    """The layers' padded widths. Layers that `pack` did not make for this z would be read past their ends."""
    from ..kernels.configs import padded

    float8 = _in_fp8(layers)
    widths = [padded(z.shape[2]), *(weight.shape[0 if float8 else -1] for weight in layers[3::2])]
    stored = z.dtype if len(widths) > 1 else torch.float32
    expected = [((PRODUCT, widths[0]), stored), ((widths[-1], PRODUCT), stored), ((3,), torch.float32)]
    for into, out in pairwise(widths):
        expected += (
            [((out, into), FP8.dtype), ((2, out), torch.float32)]
            if float8
            else [((into, out), z.dtype), ((out,), torch.float32)]
        )
    given = [(tuple(t.shape), t.dtype) for t in layers]
    if (
        given != expected
        or (float8 and z.dtype != torch.float16)
        or not all(t.is_contiguous() and t.device == z.device for t in layers)
    ):
        raise ValueError(f"layers are not those packed for {z.dtype} z of {z.shape[2]} channels, got {given}")
    if any(width != padded(width) or width > 256 for width in widths):
        raise ValueError(f"widths must be at most 256, got {widths}")
    return widths


def decode(
    z: torch.Tensor,
    y: Axis,
    x: Axis,
    layers: list[torch.Tensor],
    cell_term: torch.Tensor,
    pixels: Pixels,
    threads: int,
) -> None:
    z, rows, columns, strides = _shape(z, y.size, x.size, pixels)
    widths = _check(z, layers)
    first, last, last_bias = layers[:3]
    sides = len(y.index)
    lines = rows * columns * sides**2
    if not lines:
        return

    from ..kernels.configs import tiles

    if float8 := _in_fp8(layers):
        from ..kernels.decode_fp8 import decode_fp8 as kernel
    else:
        from ..kernels.decode import decode as kernel

    def run(config: Config) -> None:
        across, tile_bits, blocks = tiles(rows, columns, config.rows // sides**2)
        programs = blocks
        options: dict[str, float] = {"STAGES": config.stages}
        more: tuple[int, ...] = ()
        if float8:
            more = (blocks,)
            options = {"RESIDENT": config.resident, "ZERO": FP8.zero, "num_stages": 1}
        if config.resident:
            programs = min(blocks, _processors(z.device))
        kernel[(programs,)](
            z, z.stride(0) // z.shape[2],
            y.index, y.offset, y.weight, rows,
            x.index, x.offset, x.weight, columns, x.size, across, tile_bits, int(pixels.paired),
            cell_term, first, tuple(layers[3::2]), tuple(layers[4::2]), last, last_bias,
            *pixels.scale, *pixels.shift, pixels.low, pixels.high,
            pixels.out, *strides, *more,
            CHANNELS=z.shape[2], WIDTHS=tuple(widths), SIDES=sides, ROWS=config.rows, CHUNK=config.chunk,
            WIDE=config.wide, num_warps=config.warps, enable_fp_fusion=True, **options,
        )  # fmt: skip

    with on(z.device):
        run(_config(z, widths, sides, lines, run, float8))


def _config(
    z: torch.Tensor, widths: list[int], sides: int, lines: int, run: Callable[[Config], None], float8: bool
) -> Config:
    """The table's candidate that is fastest here; the first, where nothing can or need be measured."""
    from ..kernels import tuning
    from ..kernels.configs import candidates

    among = candidates(_capability(z.device, FP8_CAPABILITY if float8 else LEAST_CAPABILITY), widths, float8)
    if z.device.type != "cuda":
        return among[0]
    name = tuning.key(torch.cuda.get_device_name(z.device), widths, FP8.dtype if float8 else z.dtype, sides)
    fit = lines >= tuning.LEAST_ROWS and not torch.cuda.is_current_stream_capturing()
    return tuning.choose(name, among, (lambda c: tuning.milliseconds(lambda: run(c))) if fit else None)


def _in_fp8(layers: list[torch.Tensor]) -> bool:
    return len(layers) > 3 and layers[3].dtype == FP8.dtype


def _processors(device: torch.device) -> int:
    """Multiprocessors of a card; of a processor, which only interprets, too few for every program to have one block."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 2


def _capability(device: torch.device, least: tuple[int, int]) -> int:
    """80, 86, 89, 90, 120...; the least for a processor, which only interprets kernels."""
    major, minor = torch.cuda.get_device_capability(device) if device.type == "cuda" else least
    return 10 * major + minor


def resample(z: torch.Tensor, y: Taps, x: Taps, pixels: Pixels, threads: int) -> None:
    from ..kernels.configs import tiles
    from ..kernels.resample import PIXELS, WARPS
    from ..kernels.resample import resample as kernel

    z, rows, columns, strides = _shape(z, y.size, x.size, pixels)
    if not rows * columns:
        return
    across, tile_bits, programs = tiles(rows, columns, PIXELS)
    with on(z.device):
        kernel[(programs,)](
            z, z.stride(0) // z.shape[2], *z.shape[:2],
            y.first, y.taps, rows,
            x.first, x.taps, columns, across, tile_bits, int(pixels.paired),
            *pixels.scale, *pixels.shift, pixels.low, pixels.high,
            pixels.out, *strides,
            FACTOR=y.lines // z.shape[0], TAPS=y.taps.shape[1], PIXELS=PIXELS,
            num_warps=WARPS, enable_fp_fusion=True,
        )  # fmt: skip


def _shape(z: torch.Tensor, rows: int, columns: int, pixels: Pixels) -> tuple[torch.Tensor, int, int, tuple[int, ...]]:
    """z, the rows and columns of the output, and its strides, as kernels count them."""
    if z.dtype not in (torch.float16, torch.bfloat16):
        raise TypeError(f"z must be float16 or bfloat16, got {z.dtype}")
    if max(rows, columns) >= MOST_QUERIES:
        raise ValueError(f"a table may have fewer than {MOST_QUERIES} entries, got {max(rows, columns)}")
    if z.stride(0) % z.shape[2]:
        z = z.contiguous()  # its rows are counted in cells
    strides = pixels.out.stride()
    # A list of points is a grid of one column.
    return (z, rows, 1, (strides[0], 0, strides[1])) if pixels.paired else (z, rows, columns, strides)


def on(device: torch.device) -> AbstractContextManager[object]:
    """Kernels are launched on the current device; a processor interprets them."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
