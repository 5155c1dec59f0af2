"""Frames of 4:2:0 video <-> R'G'B', on the device they are on: one pass of native code, csrc/colors.h.

planes = (luma, chroma)                                              # NV12 as a decoder gives it, uint8, rows padded
image = yuv.to_rgb(planes, "nv12", matrix="bt709", dtype=torch.float16, scale=(2,) * 3, shift=(-1,) * 3)
yuv.from_rgb(picture, "p010le", matrix="bt2020")                     # new planes

What is converted is R'G'B', whose transfer function and primaries stay as they are; `colorimetry` has the matrices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from . import _cpu
from .backends import BackendUnavailable, cpu
from .colorimetry import MATRICES, from_rgb_matrix, to_rgb_matrix
from .image import WHITE

try:
    from . import _cuda
except ImportError:  # built where nvcc is
    _cuda = None  # type: ignore[assignment]


@dataclass(frozen=True)
class Format:
    """A pixel format of 4:2:0. ``unused``: low bits of every stored sample that are not part of its value."""

    bits: int
    paired: bool = False  # Cb and Cr take turns in one plane
    unused: int = 0

    @property
    def dtype(self) -> torch.dtype:
        return torch.uint8 if self.bits == 8 else torch.uint16


# By ffmpeg's names.
FORMATS = {
    "yuv420p": Format(8),
    "nv12": Format(8, paired=True),
    "yuv420p10le": Format(10),
    "p010le": Format(10, paired=True, unused=6),
}
# Whether chroma lies between two (rows, columns) of pixels, or on the first. "left" is that of MPEG-2 and of films that
# do not say, "center" that of JPEG and MPEG-1, "topleft" that of BT.2020.
SITINGS = {"left": (True, False), "center": (True, True), "topleft": (False, False)}
Planes = tuple[torch.Tensor, ...]


def unavailable(device: torch.device) -> str | None:
    """Why nothing can be converted on a device, None if it can."""
    if device.type == "cpu":
        return None
    if device.type != "cuda":
        return f"colours are converted on processors and CUDA devices, not on {device.type}"
    if not _cuda:
        return "this build has no CUDA code: nvcc was not there when it was made, or could not make it"
    return f"its CUDA code cannot run: {problem}" if (problem := _cuda.problem()) else None


def shapes(format: str, height: int, width: int) -> list[tuple[int, ...]]:
    """Of the planes of a frame, as `to_rgb` takes and `from_rgb` gives them. ValueError for a format or a size."""
    found = _known("format", format, FORMATS)
    if height < 1 or width < 1:
        raise ValueError(f"a frame has pixels, got a height of {height} and a width of {width}")
    chroma = ((height + 1) // 2, (width + 1) // 2)
    return [(height, width), (*chroma, 2)] if found.paired else [(height, width), chroma, chroma]


def to_rgb(
    planes: Sequence[torch.Tensor],
    format: str,
    *,
    matrix: str = "bt709",
    full_range: bool = False,
    siting: str = "left",
    dtype: torch.dtype = torch.float32,
    scale: Sequence[float] = (1.0, 1.0, 1.0),
    shift: Sequence[float] = (0.0, 0.0, 0.0),
    out: torch.Tensor | None = None,
    threads: int | None = None,
) -> torch.Tensor:
    """[3, H, W] R'G'B' of a frame.

    Args:
        planes: luma [H, W], then Cb and Cr [ceil(H/2), ceil(W/2)] each, or both in one [ceil(H/2), ceil(W/2), 2]. uint8
            or, of more than 8 bits, uint16; all on one device. Samples of a row are neighbours, rows may be padded.
        format: of `FORMATS`. matrix: of `MATRICES`. siting: of `SITINGS`.
        full_range: black is 0 and white the largest value; else 16 and 235, times 2^(bits - 8).
        dtype: float32, float16, bfloat16: ``v * scale + shift`` per channel, v in [0, 1]; or uint8, uint16, whose white
            is their largest value and which take no scale and shift.
        out: where it goes, with any strides, for instance ``hwc.permute(2, 0, 1)``; ``dtype`` is then its own.
        threads: of the processor; None takes PyTorch's number.

    Raises TypeError for a dtype, ValueError for a shape, stride, device or name, BackendUnavailable for a device that
    this build has no code for, RuntimeError with CUDA's reason.
    """
    found, size = _check_planes(planes, format)
    device = planes[0].device
    if out is None:
        out = torch.empty(3, *size, dtype=dtype, device=device)
    _check_rgb(out, size, device)
    # The network's numbers must be finite, and low <= high.
    if any(len(v) != 3 for v in (scale, shift)) or not all(abs(float(v)) < 1e30 for v in (*scale, *shift)):
        raise ValueError(f"scale and shift must be three finite numbers each, got {scale} and {shift}")
    if out.dtype in WHITE:
        if tuple(scale) != (1, 1, 1) or tuple(shift) != (0, 0, 0):
            raise ValueError(f"{out.dtype} spans its range: scale and shift are for floats, got {scale} and {shift}")
        scale = (WHITE[out.dtype],) * 3
    by, zero = to_rgb_matrix(_known("matrix", matrix, MATRICES), found.bits, full_range)
    ends = [sorted((t, s + t)) for s, t in zip(scale, shift, strict=True)]
    numbers: dict[str, list[Any]] = {
        "zero": zero,
        "by": [[s * v for v in row] for s, row in zip(scale, by, strict=True)],
        "shift": list(shift),
        "low": [low for low, _ in ends],
        "high": [high for _, high in ends],
    }
    _run("to_rgb", planes, found, siting, out, numbers, threads)
    return out


def from_rgb(
    rgb: torch.Tensor,
    format: str,
    *,
    matrix: str = "bt709",
    full_range: bool = False,
    siting: str = "left",
    out: Sequence[torch.Tensor] | None = None,
    threads: int | None = None,
) -> Planes:
    """The planes of a frame, rounded to the nearest, of ``rgb`` [3, H, W] with any strides.

    Args:
        rgb: uint8 or uint16, whose white is their largest value, or float32, float16, bfloat16 in [0, 1], to which it
            is clamped (a NaN is 0).
        out: planes to write into, as `to_rgb` takes them; None makes new ones.

    The others, and what is raised, as for `to_rgb`.
    """
    rgb = rgb.resolve_neg()
    if rgb.ndim != 3 or rgb.shape[0] != 3:
        raise ValueError(f"rgb must be [3, H, W], got {tuple(rgb.shape)}")
    size = (rgb.shape[1], rgb.shape[2])
    wanted = shapes(format, *size)
    if out is None:
        out = [torch.empty(shape, dtype=FORMATS[format].dtype, device=rgb.device) for shape in wanted]
    found, _ = _check_planes(out, format)
    if tuple(out[0].shape) != size:
        raise ValueError(f"out is a frame of {tuple(out[0].shape)}, rgb one of {size}")
    _check_rgb(rgb, size, out[0].device)
    top = (1 << found.bits) - 1
    by, zero = from_rgb_matrix(_known("matrix", matrix, MATRICES), found.bits, full_range)
    white = WHITE.get(rgb.dtype, 1.0)
    numbers: dict[str, list[Any]] = {
        "zero": [0.0] * 3,
        "by": [[v / white for v in row] for row in by],
        "shift": zero,
        "low": [0.0] * 3,
        "high": [float(top)] * 3,
    }
    _run("from_rgb", out, found, siting, rgb, numbers, threads)
    return tuple(out)


def _known(what: str, name: str, among: dict[str, Any]) -> Any:
    if name not in among:
        raise ValueError(f"{what} must be one of {', '.join(among)}; got {name!r}")
    return among[name]


def _check_planes(planes: Sequence[torch.Tensor], format: str) -> tuple[Format, tuple[int, int]]:
    """What native code would otherwise read or write past the ends of. The format, and the frame's (height, width)."""
    found = _known("format", format, FORMATS)
    given = [tuple(plane.shape) for plane in planes]
    fits = bool(given) and len(given[0]) == 2 and given == shapes(format, *given[0])
    if not fits:
        raise ValueError(f"planes of {format} are luma [H, W] and chroma of half as many, rounded up; got {given}")
    for plane in planes:
        if plane.dtype != found.dtype:
            raise TypeError(f"planes of {format} are {found.dtype}, got {plane.dtype}")
        _check_memory(plane)
        if plane.device != planes[0].device:
            raise ValueError(f"planes are on one device, got {planes[0].device} and {plane.device}")
        neighbours = (2, 1) if plane.ndim == 3 else (1,)
        if (plane.shape[1] > 1 and plane.stride()[1:] != neighbours) or plane.stride()[2:] not in ((), (1,)):
            raise ValueError(f"samples of a row must be neighbours, got strides of {plane.stride()}")
    return found, (given[0][0], given[0][1])


def _check_rgb(rgb: torch.Tensor, size: tuple[int, int], device: torch.device) -> None:
    if rgb.dtype not in cpu.OUT_TYPES:
        raise TypeError(f"R'G'B' is {', '.join(str(t).removeprefix('torch.') for t in cpu.OUT_TYPES)}; got {rgb.dtype}")
    _check_memory(rgb)
    if tuple(rgb.shape) != (3, *size):
        raise ValueError(f"R'G'B' of this frame is [3, {size[0]}, {size[1]}], got {tuple(rgb.shape)}")
    if rgb.device != device:
        raise ValueError(f"the planes are on {device}, R'G'B' is on {rgb.device}")


def _check_memory(tensor: torch.Tensor) -> None:
    """What lies there are its numbers, where processors expect them."""
    if tensor.is_neg():
        raise ValueError("out is negated as it is read, and cannot be written into: take out.resolve_neg()")
    if tensor.data_ptr() % tensor.element_size():
        raise ValueError(f"{tensor.dtype} at address {tensor.data_ptr():#x} is not aligned: take a clone")


def _run(
    way: str,
    planes: Sequence[torch.Tensor],
    format: Format,
    siting: str,
    rgb: torch.Tensor,
    numbers: dict[str, list[Any]],
    threads: int | None,
) -> None:
    """The one place that takes pointers and chooses who computes."""
    between, device = _known("siting", siting, SITINGS), rgb.device
    reason = unavailable(device)
    if reason:
        raise BackendUnavailable(reason)
    native: Any = _cuda if device.type == "cuda" else _cpu
    step = 2 if format.paired else 1
    luma, *chroma = [(plane.data_ptr(), plane.stride(0)) for plane in planes]
    if format.paired:
        chroma.append((chroma[0][0] + planes[1].element_size(), chroma[0][1]))
    channel, row, column = rgb.stride()
    params = native.ColorParams(
        size=(rgb.shape[1], rgb.shape[2]),
        y=(*luma, 1),
        u=(*chroma[0], step),
        v=(*chroma[1], step),
        sample=getattr(native.Type, cpu.OUT_TYPES[format.dtype]),
        unused=format.unused,
        between=between,
        rgb=rgb.data_ptr(),
        rgb_type=getattr(native.Type, cpu.OUT_TYPES[rgb.dtype]),
        rgb_strides=(row, column, channel),
        **numbers,
    )
    if device.type == "cuda":
        stream = torch.cuda.current_stream(device)
        with torch.cuda.device(device):  # and back, where the device before has been in use
            getattr(native, way)(params, device=stream.device_index, stream=stream.cuda_stream)
    else:
        if problem := cpu.refusal(torch.float32):
            raise BackendUnavailable(problem)
        getattr(native, way)(params, isa=cpu.isa(torch.float32), threads=threads or torch.get_num_threads())
