"""The decoders and the convolution for processors: plain C++, and code for AVX2, AVX-512, AVX-512-BF16 and AMX or for
NEON and ARM's BF16 extension, in one binary.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

import torch

try:
    from .. import _cpu

    _missing: str | None = None
except ImportError as error:  # a source tree that was never built
    _missing = f"the compiled module is missing ({error}); install the package with `pip install .`"

if TYPE_CHECKING:
    from ..grid import Axis, Taps

# What adds products of bf16 and nothing else.
BF16_ISAS = ("amx", "avx512bf16", "neonbf16")
# Forces an instruction set: one of amx, avx512bf16, avx512, avx2, neonbf16, neon, scalar.
ISA_VARIABLE = "LIIF_FAST_CPU_ISA"
# kPanel and kMaxWidth in csrc/decode.h: columns of a packed weight panel, and the widest layer.
PANEL, MAX_WIDTH = 16, 256
# kSkip in csrc/convolve.h: channels of an image there.
SKIP = 4
# Places of a tile of F(4x4, 3x3).
PLACES = 36
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
    return next(name for name in usable if not (name in BF16_ISAS and dtype == torch.float32))


def missing() -> bool:
    """Whether the compiled module is."""
    return bool(_missing)


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
    name = isa()
    return name == "amx" or (name == "avx512bf16" and not _cpu.is_intel())


def unavailable(device: torch.device, dtype: torch.dtype) -> str | None:
    if _missing:
        return _missing
    if device.type != "cpu":
        return f"it runs on processors, not on {device.type}"
    if dtype not in (torch.float32, torch.bfloat16):
        return f"it stores activations as float32 or bfloat16, not {dtype}"
    return refusal(dtype)


def describe(dtype: torch.dtype) -> str:
    return isa(dtype)


def pack(layers: list[torch.Tensor], dtype: torch.dtype) -> list[torch.Tensor]:
    """Hidden weights [out, in] -> panels of 16 outputs; see ``HiddenLayer`` in csrc/decode.h. All else is float32."""
    first, hidden = layers[:4], layers[4:]
    packed = [t.float().contiguous() for t in first]
    for weight, bias in zip(hidden[::2], hidden[1::2], strict=True):
        out, into = weight.shape
        per_word = 2 if dtype == torch.bfloat16 else 1
        panels = weight.to(dtype).reshape(out // PANEL, PANEL, into // per_word, per_word).permute(0, 2, 1, 3)
        packed += [panels.contiguous(), bias.float().contiguous()]
    return packed


def _check(z: torch.Tensor, layers: list[torch.Tensor]) -> None:
    """Layers that `pack` did not make for this z would be read past their ends."""
    if z.dtype not in (torch.float32, torch.bfloat16):
        raise TypeError(f"z must be float32 or bfloat16, got {z.dtype}")
    per_word = 2 if z.dtype == torch.bfloat16 else 1
    widths = [z.shape[2], *(len(weight) * PANEL for weight in layers[4::2])]
    expected: list[tuple[tuple[int, ...], torch.dtype]] = [
        (shape, torch.float32) for shape in ((widths[0],), (widths[0],), (3, widths[-1]), (3,))
    ]
    for into, out in pairwise(widths):
        expected += [((out // PANEL, into // per_word, PANEL, per_word), z.dtype), ((out,), torch.float32)]
    given = [(tuple(t.shape), t.dtype) for t in layers]
    if given != expected or not all(t.is_contiguous() for t in layers):
        raise ValueError(f"layers are not those packed for {z.dtype} z of {z.shape[2]} channels, got {given}")
    if any(width % PANEL or width > MAX_WIDTH for width in widths):
        raise ValueError(f"widths must be multiples of {PANEL} up to {MAX_WIDTH}, got {widths}")


def decode(
    z: torch.Tensor,
    y: Axis,
    x: Axis,
    paired: bool,
    layers: list[torch.Tensor],
    cell_term: torch.Tensor,
    scale: list[float],
    shift: list[float],
    low: float,
    high: float,
    threads: int,
    out: torch.Tensor,
) -> None:
    _check(z, layers)
    # Every pointer is taken here, right after what it points to was checked, the rest of it in ops.decode.
    first_y, first_x, last, last_bias = layers[:4]
    hidden = [
        (weight.data_ptr(), bias.data_ptr(), weight.shape[1] * weight.shape[3], len(bias))
        for weight, bias in zip(layers[4::2], layers[5::2], strict=True)
    ]
    strides = (0, *out.stride()) if paired else out.stride()
    _cpu.decode(
        isa=isa(z.dtype),
        threads=threads,
        z=z.data_ptr(),
        type=getattr(_cpu.Type, TYPES[z.dtype]),
        width=z.shape[2],
        z_row_stride=z.stride(0),
        sides=y.index.shape[0],
        y=(y.index.data_ptr(), y.offset.data_ptr(), y.weight.data_ptr(), y.size),
        x=(x.index.data_ptr(), x.offset.data_ptr(), x.weight.data_ptr(), x.size),
        paired=paired,
        first=cell_term.data_ptr(),
        first_y=first_y.data_ptr(),
        first_x=first_x.data_ptr(),
        hidden=hidden,
        last=last.data_ptr(),
        last_bias=last_bias.data_ptr(),
        scale=tuple(scale),
        shift=tuple(shift),
        range=(low, high),
        out=out.data_ptr(),
        out_type=getattr(_cpu.Type, OUT_TYPES[out.dtype]),
        out_strides=strides,
    )


def resample(
    z: torch.Tensor,
    y: Taps,
    x: Taps,
    paired: bool,
    scale: list[float],
    shift: list[float],
    low: float,
    high: float,
    threads: int,
    out: torch.Tensor,
) -> None:
    if z.dtype not in (torch.float32, torch.bfloat16):
        raise TypeError(f"z must be float32 or bfloat16, got {z.dtype}")
    # Every pointer is taken here; what they point to was checked in resample.py.
    strides = (0, *out.stride()) if paired else out.stride()
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
        paired=paired,
        scale=tuple(scale),
        shift=tuple(shift),
        range=(low, high),
        out=out.data_ptr(),
        out_type=getattr(_cpu.Type, OUT_TYPES[out.dtype]),
        out_strides=strides,
    )


@dataclass(frozen=True)
class Convolution:
    """Weights for `convolve` of pictures of ``dtype``: ``panels`` as ``weight`` in csrc/convolve.h, or ``winograd`` and
    ``winograd_skip`` as there; ``bias`` float32 [out], ``skips``: whether a skip picture is one of the inputs."""

    dtype: torch.dtype
    kernel: int
    inputs: int
    bias: torch.Tensor
    skips: bool
    panels: torch.Tensor | None = None
    winograd: torch.Tensor | None = None
    winograd_skip: torch.Tensor | None = None


def pack_convolution(
    weight: torch.Tensor, bias: torch.Tensor, dtype: torch.dtype, skip: torch.Tensor | None = None
) -> Convolution:
    """Of weights [out, in, k, k], bias [out], and, where the image is added, ``skip`` [out, SKIP]."""
    out, into, kernel = weight.shape[:3]
    packed = Convolution(dtype, kernel, into, bias.float().contiguous(), skip is not None)
    if not direct(dtype) and fits_winograd(out, into, kernel):
        products = dtype if isa(dtype) in BF16_ISAS else torch.float32
        of_skip = None if skip is None else skip.float().T.contiguous()
        return replace(packed, winograd=pack_winograd(weight.double(), products), winograd_skip=of_skip)
    inputs = weight.permute(0, 2, 3, 1).reshape(out, -1)
    if skip is not None:
        inputs = torch.cat([inputs, skip], dim=1)
    per_word = 2 if dtype == torch.bfloat16 else 1
    panels = inputs.to(dtype).reshape(out // PANEL, PANEL, -1, per_word).permute(0, 2, 1, 3).contiguous()
    return replace(packed, panels=panels)


def direct(dtype: torch.dtype) -> bool:
    """Whether all convolutions are direct: AMX takes less time for all products than others for Winograd's quarter."""
    return isa(dtype) == "amx"


def fits_winograd(out: int, into: int, kernel: int = 3) -> bool:
    """Whether F(4x4, 3x3) takes weights [out, into, kernel, kernel]."""
    return kernel == 3 and out % PANEL == 0 and into % PANEL == 0 and max(out, into) <= MAX_WIDTH


def pack_winograd(weight: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Weights [out, in, 3, 3] for F(4x4, 3x3), computed in theirs and stored in ``dtype``: see ``winograd`` in
    csrc/convolve.h."""
    out, into = weight.shape[:2]
    panels = weight.reshape(out // PANEL, PANEL, into, 9).permute(3, 0, 2, 1).reshape(9, -1)
    packed = (_spread().to(weight.dtype) @ panels).to(dtype).view(PLACES, out // PANEL, into, PANEL)
    if dtype == torch.bfloat16:
        return packed.unflatten(2, (into // 2, 2)).transpose(3, 4).contiguous()
    return packed


def unpack_winograd(gradient: torch.Tensor) -> torch.Tensor:
    """The transpose of `pack_winograd`: a gradient of packed weights to that of weights [out, in, 3, 3]."""
    _, panels, into, _ = gradient.shape
    kernels = _spread().to(gradient.dtype).T @ gradient.view(PLACES, -1)
    return kernels.view(9, panels, into, PANEL).permute(1, 3, 2, 0).reshape(panels * PANEL, into, 3, 3)


@lru_cache
def _spread() -> torch.Tensor:
    """G (x) G, float64 [PLACES, 9]: a kernel's values at pairs of the points of csrc/cpu/winograd_simd.h."""
    points = torch.tensor([0, 0.5**0.5, -(0.5**0.5), 2**0.5, -(2**0.5)], dtype=torch.float64, device="cpu")
    # Over the derivative, at each, of the polynomial whose roots they are.
    rows = torch.stack([points**0, points, points**2], 1) / (5 * points**4 - 7.5 * points**2 + 1)[:, None]
    rows = torch.cat([rows, torch.tensor([[0, 0, 1]], dtype=torch.float64, device="cpu")])
    return torch.kron(rows, rows)


def convolve(
    image: torch.Tensor,
    by: Convolution,
    threads: int,
    out: torch.Tensor,
    relu: bool = False,
    add: torch.Tensor | None = None,
    skip: torch.Tensor | None = None,
) -> None:
    """A convolution of zero-bordered pictures; see csrc/convolve.h.

    Args:
        image: [H + 2, W + 2, in], float32 or bfloat16, contiguous; the border counts as input.
        by: of `pack_convolution`, for the dtype of ``image``.
        out: [H, W, out], with pixels and channels contiguous; may be the inside of a bordered picture.
        add: as ``out``, added before the ReLU; may be ``out`` itself.
        skip: [H + 2, W + 2, SKIP] contiguous, if ``by`` was packed for one.
    """
    dtype, (rows, columns, channels) = image.dtype, out.shape
    pictures = [image, *([] if skip is None else [skip])]
    views = [out, *([] if add is None else [add])]
    fits = (
        image.shape[2] == by.inputs
        and by.inputs % 2 == 0
        and dtype == by.dtype
        and channels == len(by.bias)
        and (skip is not None) == by.skips
        and (skip is None or skip.shape[2] == SKIP)
        and all(p.shape[:2] == (rows + 2, columns + 2) and p.dtype == dtype and p.is_contiguous() for p in pictures)
        and all(v.shape == out.shape and v.dtype == dtype and v.stride() == out.stride() for v in views)
        and out.stride()[1:] == (channels, 1)
        and all(t.device.type == "cpu" for t in (*pictures, *views))
    )
    if not fits:
        shapes = ", ".join(f"{t.dtype} {tuple(t.shape)}" for t in (*pictures, *views))
        raise ValueError(f"pictures and a convolution of {by.inputs} to {len(by.bias)} do not fit each other: {shapes}")

    # Every pointer is taken here, right after the checks.
    def inside(picture: torch.Tensor | None) -> tuple[int, int]:
        if picture is None:
            return 0, 0
        at = picture[1:-1, 1:-1]
        return at.data_ptr(), at.stride(0)

    _cpu.convolve(
        isa=isa(dtype),
        threads=threads,
        type=getattr(_cpu.Type, TYPES[dtype]),
        grid=_cpu.PixelGrid(rows, columns),
        into=image.shape[2],
        out=channels,
        kernel=by.kernel,
        input=inside(image),
        skip=inside(skip),
        weight=0 if by.panels is None else by.panels.data_ptr(),
        winograd=0 if by.winograd is None else by.winograd.data_ptr(),
        winograd_type=getattr(_cpu.Type, TYPES[torch.float32 if by.winograd is None else by.winograd.dtype]),
        winograd_skip=0 if by.winograd_skip is None else by.winograd_skip.data_ptr(),
        bias=by.bias.data_ptr(),
        relu=relu,
        add=0 if add is None else add.data_ptr(),
        output=(out.data_ptr(), out.stride(0)),
    )


def convolve_pictures(
    pictures: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, threads: int, out: torch.Tensor
) -> None:
    """3x3 convolutions of pictures with zeros around them, [B, H, W, in], to ``out`` [B, H, W, out].

    ``weight`` of `pack_winograd`, ``bias`` [out]; all float32 and contiguous.
    """
    _check_pictures(pictures, weight, bias, out)
    count, rows, columns, into = pictures.shape
    packed = (PLACES, len(bias) // PANEL, into, PANEL)
    if not fits_winograd(len(bias), into) or weight.shape != packed or out.shape != (count, rows, columns, len(bias)):
        raise ValueError(
            f"pictures {tuple(pictures.shape)} to {tuple(out.shape)}, packed weights {tuple(weight.shape)} and "
            f"{len(bias)} biases do not fit each other"
        )
    _cpu.convolve(
        isa=isa(torch.float32),
        threads=threads,
        type=_cpu.Type.f32,
        grid=_cpu.PixelGrid(count * rows, columns, rows),
        into=into,
        out=len(bias),
        kernel=3,
        input=(pictures.data_ptr(), columns * into),
        skip=(0, 0),
        weight=0,
        winograd=weight.data_ptr(),
        winograd_type=_cpu.Type.f32,
        winograd_skip=0,
        bias=bias.data_ptr(),
        relu=False,
        add=0,
        output=(out.data_ptr(), columns * len(bias)),
    )


def convolve_gradient(pictures: torch.Tensor, gradient: torch.Tensor, threads: int) -> torch.Tensor:
    """The gradient of the packed weights of `convolve_pictures`, from that of its result, [B, H, W, out].

    The same bits from run to run, but for another number of threads.
    """
    (count, rows, columns, into), out = pictures.shape, gradient.shape[3]
    _check_pictures(pictures, gradient)
    if gradient.shape[:3] != pictures.shape[:3] or not fits_winograd(out, into):
        raise ValueError(f"pictures {tuple(pictures.shape)} and gradient {tuple(gradient.shape)} do not fit each other")
    weight = pictures.new_empty(PLACES, out // PANEL, into, PANEL)
    _cpu.convolve_gradient(
        isa=isa(torch.float32),
        threads=threads,
        grid=_cpu.PixelGrid(count * rows, columns, rows),
        into=into,
        out=out,
        input=pictures.data_ptr(),
        output=gradient.data_ptr(),
        weight=weight.data_ptr(),
    )
    return weight


def _check_pictures(*tensors: torch.Tensor) -> None:
    for t in tensors:
        if t.dtype != torch.float32 or t.device.type != "cpu" or not t.is_contiguous():
            raise ValueError(f"{t.dtype} {tuple(t.shape)} on {t.device}: must be contiguous float32 on the processor")
