"""The convolution for processors, by our own code: packed weights, and pictures as the encoder has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch

from .backends import cpu

# kSkip in csrc/convolve.h: channels of an image there.
SKIP = 4
# Places of a tile of F(4x4, 3x3).
PLACES = 36


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

    # By their bytes: multiprocessing moves the tensors that it pickles to memory that processes share, while a `Step`
    # points to where they were.
    def __getstate__(self) -> dict[str, Any]:
        tensors = {name: v for name, v in self.__dict__.items() if isinstance(v, torch.Tensor)}
        return self.__dict__ | {name: (v.dtype, v.view(torch.uint8).numpy()) for name, v in tensors.items()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        packed = {name: torch.from_numpy(v[1]).view(v[0]) for name, v in state.items() if isinstance(v, tuple)}
        self.__dict__.update(state | packed)


def pack(weight: torch.Tensor, bias: torch.Tensor, dtype: torch.dtype, skip: torch.Tensor | None = None) -> Convolution:
    """Of weights [out, in, k, k], bias [out], and, where the image is added, ``skip`` [out, SKIP]; copies of them."""
    out, into, kernel = weight.shape[:3]
    packed = Convolution(dtype, kernel, into, bias.to(torch.float32, copy=True).contiguous(), skip is not None)
    if not direct(weight, dtype):
        of_skip = None if skip is None else skip.float().T.contiguous()
        return replace(packed, winograd=pack_winograd(weight.double(), products(dtype)), winograd_skip=of_skip)
    inputs = weight.permute(0, 2, 3, 1).reshape(out, -1)
    if skip is not None:
        inputs = torch.cat([inputs, skip], dim=1)
    per_word = 2 if dtype == torch.bfloat16 else 1
    panels = inputs.to(dtype).reshape(out // cpu.PANEL, cpu.PANEL, -1, per_word).permute(0, 2, 1, 3).contiguous()
    return replace(packed, panels=panels)


def direct(weight: torch.Tensor, dtype: torch.dtype) -> bool:
    """Whether a convolution is not by F(4x4, 3x3): AMX takes less time for all products than others for a quarter."""
    return cpu.isa(dtype) == "amx" or not fits_winograd(*weight.shape[:3])


def fits_winograd(out: int, into: int, kernel: int = 3) -> bool:
    """Whether F(4x4, 3x3) takes weights [out, into, kernel, kernel]."""
    return kernel == 3 and out % cpu.PANEL == 0 and into % cpu.PANEL == 0 and max(out, into) <= cpu.MAX_WIDTH


@torch.autocast("cpu", enabled=False)
def pack_winograd(weight: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Weights [out, in, 3, 3] for F(4x4, 3x3), computed in theirs and stored in ``dtype``: see ``winograd`` in
    csrc/convolve.h."""
    out, into = weight.shape[:2]
    *_, per_word = shape = _packed(out, into, dtype)
    kernels = weight.reshape(out // cpu.PANEL, cpu.PANEL, into // per_word, per_word, 9)
    return (_spread().to(weight.dtype) @ kernels.permute(4, 0, 2, 1, 3).reshape(9, -1)).to(dtype).view(shape)


def _packed(out: int, into: int, dtype: torch.dtype) -> tuple[int, ...]:
    """The shape of packed weights."""
    per_word = 2 if dtype == torch.bfloat16 else 1
    return PLACES, out // cpu.PANEL, into // per_word, cpu.PANEL, per_word


@torch.autocast("cpu", enabled=False)
def unpack_winograd(gradient: torch.Tensor) -> torch.Tensor:
    """The transpose of `pack_winograd`: a gradient of packed weights to that of weights [out, in, 3, 3]."""
    _, panels, into, *_ = gradient.shape
    kernels = _spread().to(gradient.dtype).T @ gradient.view(PLACES, -1)
    return kernels.view(9, panels, into, cpu.PANEL).permute(1, 3, 2, 0).reshape(panels * cpu.PANEL, into, 3, 3)


@lru_cache
def _spread() -> torch.Tensor:
    """G (x) G, float64 [PLACES, 9]: a kernel's values at pairs of the points of csrc/cpu/winograd_simd.h."""
    points = torch.tensor([0, 0.5**0.5, -(0.5**0.5), 2**0.5, -(2**0.5)], dtype=torch.float64, device="cpu")
    # Over the derivative, at each, of the polynomial whose roots they are.
    rows = torch.stack([points**0, points, points**2], 1) / (5 * points**4 - 7.5 * points**2 + 1)[:, None]
    rows = torch.cat([rows, torch.tensor([[0, 0, 1]], dtype=torch.float64, device="cpu")])
    return torch.kron(rows, rows)


@dataclass(frozen=True)
class Step:
    """One convolution of a zero-bordered picture, of `step`."""

    params: cpu._cpu.ConvolveParams
    dtype: torch.dtype
    held: tuple[torch.Tensor | Convolution | None, ...]  # what `params` points to


def convolve(steps: Sequence[Step], threads: int) -> None:
    """Convolutions of pictures of one size and dtype: what they give one after another, but all at work at once.

    Of parts of them, each makes rows that those before, or earlier calls, have made.
    """
    if steps:
        cpu._cpu.convolve([step.params for step in steps], isa=cpu.isa(steps[0].dtype), threads=threads)


def step(
    image: torch.Tensor,
    by: Convolution,
    out: torch.Tensor,
    relu: bool = False,
    add: torch.Tensor | None = None,
    skip: torch.Tensor | None = None,
    first_row: int = 0,
) -> Step:
    """A convolution to come, as often as wanted; see csrc/convolve.h.

    Args:
        image: [H + 2, W + 2, in], float32 or bfloat16, contiguous; the border counts as input.
        by: of `pack`, for the dtype of ``image``.
        out: [H, W, out], with pixels and channels contiguous; may be the inside of a bordered picture.
        add: as ``out``, added before the ReLU; may be ``out`` itself.
        skip: [H + 2, W + 2, SKIP] contiguous, if ``by`` was packed for one.
        first_row: the picture's that is the first of ``out``, where that is a part of it: a multiple of 4, and ends at
            one or with the picture.
    """
    dtype, (rows, columns, channels) = image.dtype, out.shape
    pictures = [image, *([] if skip is None else [skip])]
    views = [out, *([] if add is None else [add])]
    fits = (
        image.shape[2] == by.inputs
        and by.inputs % 2 == 0
        and by.kernel in (1, 3)
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

    params = cpu._cpu.ConvolveParams(
        type=_type(image),
        grid=cpu._cpu.PixelGrid(rows, columns),
        first_row=first_row,
        into=image.shape[2],
        out=channels,
        kernel=by.kernel,
        input=inside(image),
        skip=inside(skip),
        weight=0 if by.panels is None else by.panels.data_ptr(),
        winograd=0 if by.winograd is None else by.winograd.data_ptr(),
        winograd_type=getattr(cpu._cpu.Type, cpu.TYPES[torch.float32 if by.winograd is None else by.winograd.dtype]),
        winograd_skip=0 if by.winograd_skip is None else by.winograd_skip.data_ptr(),
        bias=by.bias.data_ptr(),
        relu=relu,
        add=0 if add is None else add.data_ptr(),
        output=(out.data_ptr(), out.stride(0)),
    )
    return Step(params, dtype, (image, by, out, add, skip))


def normalise(
    image: torch.Tensor, white: float, mean: list[float], std: list[float], threads: int, out: torch.Tensor
) -> None:
    """``(image / white - mean) / std`` for the convolution; see csrc/normalise.h.

    Args:
        image: [H, W, 1 (gray) or 3], uint8, uint16, float16 or float32, of any strides.
        mean, std: three of each.
        out: [H, W, SKIP], float32 or bfloat16, with pixels and channels contiguous.
    """
    fits = (
        image.ndim == 3
        and image.shape[2] in (1, 3)
        and image.dtype in cpu.OUT_TYPES.keys() - {torch.bfloat16}
        and out.shape == (*image.shape[:2], SKIP)
        and out.dtype in (torch.float32, torch.bfloat16)
        and out.stride()[1:] == (SKIP, 1)
        and image.device.type == out.device.type == "cpu"
    )
    if not fits:
        given, to = (f"{t.dtype} {tuple(t.shape)} on {t.device}" for t in (image, out))
        raise ValueError(f"{given} does not go into {to}")
    row, column, channel = image.stride()
    cpu._cpu.normalise(
        threads=threads,
        type=getattr(cpu._cpu.Type, cpu.OUT_TYPES[image.dtype]),
        image=image.data_ptr(),
        strides=(row, column, 0 if image.shape[2] == 1 else channel),
        size=(image.shape[0], image.shape[1]),
        white=white,
        mean=mean,
        std=std,
        out_type=getattr(cpu._cpu.Type, cpu.OUT_TYPES[out.dtype]),
        out=(out.data_ptr(), out.stride(0)),
    )


def products(dtype: torch.dtype) -> torch.dtype:
    """Of the packed weights that pictures of ``dtype`` are multiplied by: bfloat16 where there is an instruction."""
    return dtype if cpu.isa(dtype) in cpu.BF16_ISAS else torch.float32


def convolve_pictures(
    pictures: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, threads: int, out: torch.Tensor
) -> None:
    """3x3 convolutions of pictures with zeros around them, [B, H, W, in], to ``out`` [B, H, W, out].

    Pictures of float32 or bfloat16, ``weight`` of `pack_winograd` in their `products`, ``bias`` float32 [out]; all
    contiguous.
    """
    _check_pictures(pictures, out)
    count, rows, columns, into = pictures.shape
    if (
        not fits_winograd(len(bias), into)
        or weight.shape != _packed(len(bias), into, weight.dtype)
        or (weight.dtype, bias.dtype) != (products(pictures.dtype), torch.float32)
        or not (weight.is_contiguous() and bias.is_contiguous())
        or out.shape != (count, rows, columns, len(bias))
    ):
        raise ValueError(
            f"{pictures.dtype} pictures {tuple(pictures.shape)} to {tuple(out.shape)}, packed {weight.dtype} weights "
            f"{tuple(weight.shape)} and {len(bias)} biases do not fit each other"
        )
    params = cpu._cpu.ConvolveParams(
        type=_type(pictures),
        grid=cpu._cpu.PixelGrid(count * rows, columns, rows),
        into=into,
        out=len(bias),
        kernel=3,
        input=(pictures.data_ptr(), columns * into),
        winograd=weight.data_ptr(),
        winograd_type=_type(weight),
        bias=bias.data_ptr(),
        output=(out.data_ptr(), columns * len(bias)),
    )
    cpu._cpu.convolve([params], isa=cpu.isa(pictures.dtype), threads=threads)


def convolve_gradient(pictures: torch.Tensor, gradient: torch.Tensor, threads: int) -> torch.Tensor:
    """The gradient of the packed weights of `convolve_pictures`, float32, from that of its result, [B, H, W, out].

    The same bits from run to run, but for another number of threads.
    """
    (count, rows, columns, into), out = pictures.shape, gradient.shape[3]
    _check_pictures(pictures, gradient)
    if gradient.shape[:3] != pictures.shape[:3] or not fits_winograd(out, into):
        raise ValueError(f"pictures {tuple(pictures.shape)} and gradient {tuple(gradient.shape)} do not fit each other")
    weight = torch.empty(_packed(out, into, torch.float32), dtype=torch.float32, device=pictures.device)
    cpu._cpu.convolve_gradient(
        isa=cpu.isa(torch.float32),
        threads=threads,
        type=_type(pictures),
        grid=cpu._cpu.PixelGrid(count * rows, columns, rows),
        into=into,
        out=out,
        input=pictures.data_ptr(),
        output=gradient.data_ptr(),
        weight=weight.data_ptr(),
    )
    return weight


def _type(tensor: torch.Tensor) -> Any:
    return getattr(cpu._cpu.Type, cpu.TYPES[tensor.dtype])


def _check_pictures(*tensors: torch.Tensor) -> None:
    for t in tensors:
        fits = t.dtype in (torch.float32, torch.bfloat16) and t.dtype == tensors[0].dtype
        if not fits or t.device.type != "cpu" or not t.is_contiguous():
            raise ValueError(
                f"{t.dtype} {tuple(t.shape)} on {t.device}: pictures must be contiguous, on the processor, and all of "
                "float32 or of bfloat16"
            )
