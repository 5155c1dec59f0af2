"""The decoders for processors: plain C++, and code for AVX2, AVX-512, AVX-512-BF16, AMX and both kinds of VNNI or for
NEON and ARM's BF16 extension, in one binary.
"""

from __future__ import annotations

import os
from itertools import pairwise
from typing import TYPE_CHECKING

import torch

from ..forks import one_thread_in_forks
from ..quantization import INT8

try:
    from .. import _cpu

    _missing: str | None = None
except ImportError as error:  # a source tree that was never built
    _missing = f"the compiled module is missing ({error}); install the package with `pip install .`"

if TYPE_CHECKING:
    from ..grid import Axis, Taps
    from ..pixels import Pixels

one_thread_in_forks()  # since what is done here is done on PyTorch's threads, too

# What adds products of bf16 and nothing else.
BF16_ISAS = ("amx", "avx512bf16", "neonbf16")
# What adds products of int8: those with an instruction for it and nothing else, and others.
VNNI_ISAS = ("avx512vnni", "avxvnni")
INT8_ISAS = (*VNNI_ISAS, "avx2", "scalar")
# Forces an instruction set: one of amx, avx512bf16, avx512vnni, avx512, avxvnni, avx2, neonbf16, neon, scalar.
ISA_VARIABLE = "LIIF_FAST_CPU_ISA"
# kPanel and kMaxWidth in csrc/decode.h: columns of a packed weight panel, and the widest layer.
PANEL, MAX_WIDTH = 16, 256
TYPES = {torch.uint8: "u8", torch.uint16: "u16", torch.float32: "f32", torch.bfloat16: "bf16"}
OUT_TYPES = {**TYPES, torch.float16: "f16"}


def isas() -> dict[str, bool]:
    """Instruction sets in this build, best first, and whether this processor has them."""
    return {} if _missing else dict(_cpu.isas())


def isa(dtype: torch.dtype = torch.bfloat16) -> str:
    """The instruction set that decodes ``dtype``. ValueError if the environment asks for one that cannot run here."""
    usable = [name for name, supported in isas().items() if supported]
    forced = os.environ.get(ISA_VARIABLE)
    if forced:
        if forced not in usable:
            raise ValueError(
                f"{ISA_VARIABLE}={forced} cannot run here; this processor and build have {', '.join(usable)}"
            )
        usable = usable[usable.index(forced) :]
    if dtype == INT8.dtype:
        return next(name for name in usable if name in INT8_ISAS)
    without = (*VNNI_ISAS, *BF16_ISAS) if dtype == torch.float32 else VNNI_ISAS
    return next(name for name in usable if name not in without)


def missing() -> bool:
    """Whether the compiled module is."""
    return bool(_missing)


def on_pytorchs_threads() -> bool:
    """Whether work that asks for as many threads as PyTorch has is done on those; see csrc/cpu/openmp.h."""
    return not _missing and _cpu.openmp()


def refusal(dtype: torch.dtype = torch.bfloat16) -> str | None:
    """Why the instruction set that the environment names cannot run here; None where it names none."""
    try:
        if not _missing:
            isa(dtype)
    except ValueError as error:
        return str(error)
    return None


def prefers_bf16() -> bool:
    """Whether decoding bf16 is faster here than float32.

    Intel's AVX-512-BF16 has one unit for its products where there are two for float32's, so without AMX (processors
    before it, virtual machines that hide it, Linux before 5.16) it is slower there. AMD's has as many. On ARM it has
    not been measured.
    """
    if unavailable(torch.device("cpu"), torch.bfloat16) is not None:
        return False
    name = isa()
    return name == "amx" or (name == "avx512bf16" and not _cpu.is_intel())


def prefers_int8() -> bool:
    """Whether decoding int8 is faster here than anything else.

    VNNI multiplies twice as many bytes as AVX-512-BF16 pairs, and four times as many as float32; AMX multiplies more
    of bf16. AVX2 has twice as many products in 16 bits as in float32.
    """
    if unavailable(torch.device("cpu"), INT8.dtype) is not None or isa() == "amx":
        return False
    return isa(INT8.dtype) in VNNI_ISAS or isa(torch.float32) == "avx2"


def unavailable(device: torch.device, dtype: torch.dtype) -> str | None:
    if _missing:
        return _missing
    if device.type != "cpu":
        return f"it runs on processors, not on {device.type}"
    if dtype not in (torch.float32, torch.bfloat16, INT8.dtype):
        return f"it takes float32, bfloat16 and, of LIIF's hidden layers, int8, not {dtype}"
    problem = refusal(dtype)
    if problem is None and dtype == INT8.dtype and isa(dtype) == "scalar" and os.environ.get(ISA_VARIABLE) != "scalar":
        return f"int8 wants AVX2, AVX-VNNI or AVX-512-VNNI, none of which runs here ({ISA_VARIABLE}=scalar is slow)"
    return problem


def describe(dtype: torch.dtype) -> str:
    return isa(dtype)


def pack(layers: list[torch.Tensor], dtype: torch.dtype) -> list[torch.Tensor]:
    """Hidden weights [out, in] -> panels of 16 outputs; see ``HiddenLayer`` in csrc/decode.h. All else is float32."""
    first, hidden = layers[:4], layers[4:]
    packed = [t.float().contiguous() for t in first]
    kept, per_word = _packing(dtype, isa(dtype))
    for weight, bias in zip(hidden[::2], hidden[1::2], strict=True):
        out, into = weight.shape
        panels = weight.to(kept).reshape(out // PANEL, PANEL, into // per_word, per_word).permute(0, 2, 1, 3)
        packed += [panels.contiguous(), bias.float().contiguous()]
    return packed


def _packing(dtype: torch.dtype, name: str) -> tuple[torch.dtype, int]:
    """How weights are stored for an instruction set, and how many inputs of an output lie together."""
    if dtype == INT8.dtype:
        return (torch.int16, 2) if name == "avx2" else (dtype, 4)
    return dtype, 2 if dtype == torch.bfloat16 else 1


def _check(z: torch.Tensor, layers: list[torch.Tensor]) -> tuple[torch.dtype, str]:
    """What hidden layers are multiplied in, and by which instruction set.

    Layers that `pack` did not make for it and for this z would be read past their ends.
    """
    if z.dtype not in (torch.float32, torch.bfloat16):
        raise TypeError(f"z must be float32 or bfloat16, got {z.dtype}")
    in_int8 = layers[4:5] and layers[4].dtype in (torch.int8, torch.int16)
    products = INT8.dtype if in_int8 else z.dtype
    name = isa(products)
    kept, per_word = _packing(products, name)
    if in_int8 and layers[4].dtype != kept:
        raise ValueError(
            f"int8 layers were packed as {layers[4].dtype}, {name} takes {kept}: make the decoder anew, as the "
            f"processor or {ISA_VARIABLE} has changed"
        )
    widths = [z.shape[2], *(len(weight) * PANEL for weight in layers[4::2])]
    expected: list[tuple[tuple[int, ...], torch.dtype]] = [
        (shape, torch.float32) for shape in ((widths[0],), (widths[0],), (3, widths[-1]), (3,))
    ]
    for into, out in pairwise(widths):
        expected += [((out // PANEL, into // per_word, PANEL, per_word), kept)]
        expected += [((2, out) if in_int8 else (out,), torch.float32)]
    given = [(tuple(t.shape), t.dtype) for t in layers]
    if given != expected or not all(t.is_contiguous() for t in layers):
        raise ValueError(f"layers are not those packed for {products} and z of {z.shape[2]} channels, got {given}")
    if any(width % PANEL or not 0 < width <= MAX_WIDTH for width in widths):
        raise ValueError(f"widths must be multiples of {PANEL} from {PANEL} up to {MAX_WIDTH}, got {widths}")
    return products, name


def decode(
    z: torch.Tensor,
    y: Axis,
    x: Axis,
    layers: list[torch.Tensor],
    cell_term: torch.Tensor,
    pixels: Pixels,
    threads: int,
) -> None:
    products, name = _check(z, layers)
    # Every pointer is taken here, right after what it points to was checked, the rest of it in ops.py.
    first_y, first_x, last, last_bias = layers[:4]
    hidden = []
    for weight, steps in zip(layers[4::2], layers[5::2], strict=True):
        multiplier, bias = steps if steps.dim() == 2 else (steps, steps)  # the first of int8 alone
        into = weight.shape[1] * weight.shape[3]
        hidden.append((weight.data_ptr(), multiplier.data_ptr(), bias.data_ptr(), into, len(bias)))
    _cpu.decode(
        isa=name,
        threads=threads,
        z=z.data_ptr(),
        type=getattr(_cpu.Type, TYPES[z.dtype]),
        products=getattr(_cpu.Type, "i8" if products == INT8.dtype else TYPES[products]),
        width=z.shape[2],
        z_row_stride=z.stride(0),
        sides=y.index.shape[0],
        y=(y.index.data_ptr(), y.offset.data_ptr(), y.weight.data_ptr(), y.size),
        x=(x.index.data_ptr(), x.offset.data_ptr(), x.weight.data_ptr(), x.size),
        first=cell_term.data_ptr(),
        first_y=first_y.data_ptr(),
        first_x=first_x.data_ptr(),
        hidden=hidden,
        last=last.data_ptr(),
        last_bias=last_bias.data_ptr(),
        out=_native(pixels),
    )


def resample(z: torch.Tensor, y: Taps, x: Taps, pixels: Pixels, threads: int) -> None:
    if z.dtype not in (torch.float32, torch.bfloat16):
        raise TypeError(f"z must be float32 or bfloat16, got {z.dtype}")
    # Every pointer is taken here; what they point to was checked in resample.py.
    _cpu.resample(
        isa=isa(z.dtype),
        threads=threads,
        z=z.data_ptr(),
        type=getattr(_cpu.Type, TYPES[z.dtype]),
        rows=z.shape[0],
        columns=z.shape[1],
        z_row_stride=z.stride(0),
        y=(y.first.data_ptr(), y.taps.data_ptr(), y.size),
        x=(x.first.data_ptr(), x.taps.data_ptr(), x.size),
        out=_native(pixels),
    )


def _native(pixels: Pixels) -> _cpu.Pixels:
    out, paired, scale, shift, low, high = pixels
    return _cpu.Pixels(
        paired=paired,
        scale=scale,
        shift=shift,
        low=low,
        high=high,
        data=out.data_ptr(),
        type=getattr(_cpu.Type, OUT_TYPES[out.dtype]),
        strides=(0 if paired else out.stride(0), out.stride(-2), out.stride(-1)),
    )
