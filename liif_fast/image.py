"""The pictures a Python caller passes (Pillow, numpy, torch) <-> the colour and alpha planes the engine works on."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from . import dlpack

if TYPE_CHECKING:
    from PIL.Image import Image

_TORCH_DTYPES = (torch.uint8, torch.uint16, torch.float16, torch.bfloat16, torch.float32, torch.float64)
_NUMPY_DTYPES = ("uint8", "uint16", "float16", "float32", "float64")
# What is white in integers; floats have 1.
WHITE = {torch.uint8: 255.0, torch.uint16: 65535.0}


@dataclass(frozen=True)
class Planes:
    """One picture taken apart. The tensors may share memory with the caller's picture: they are read only."""

    # [H, W, 3 or 1 (gray)] uint8 | uint16 | float16 | float32 (0..1, a little beyond is allowed), any device
    color: torch.Tensor
    alpha: torch.Tensor | None  # [H, W, 1], same dtype, not premultiplied


@dataclass(frozen=True)
class Unpacked:
    """What ``unpack`` gives: the frames (one per batch element) and the way back."""

    frames: list[Planes]
    _repack: Callable[[list[torch.Tensor]], Any]

    def pack(self, frames: list[Planes]) -> Any:
        """Planes of any size, otherwise like ``self.frames`` -> an object of the kind that was unpacked.

        Kind, dtype, rank, channels and device are those of the original. ValueError for another number of frames,
        other channels or frames of different sizes in one batch; TypeError for another dtype.
        """
        if len(frames) != len(self.frames):
            raise ValueError(f"{len(frames)} frames to pack, {len(self.frames)} were unpacked")
        joined = [join(frame) for frame in frames]
        for new, old in zip(joined, self.frames, strict=True):
            channels = old.color.shape[2] + (old.alpha is not None)
            if new.dtype != old.color.dtype:
                raise TypeError(f"frame of {new.dtype} to pack, {old.color.dtype} was unpacked")
            if new.ndim != 3 or new.shape[2] != channels or new.shape != joined[0].shape:
                raise ValueError(f"frame of shape {tuple(new.shape)} to pack, not [H, W, {channels}] as the others")
        return self._repack(joined)


def unpack(obj: Any) -> Unpacked:
    """Takes a picture apart into planes, without a copy where its dtype allows.

    - Pillow: any mode. Palettes become RGB or RGBA, premultiplied modes plain ones, ``1`` becomes L or LA, CMYK and LAB
      become sRGB, ``I`` (0..65535) becomes ``I;16``; ``pack`` keeps ``info``'s dpi, exif, and icc_profile unless the
      colours left it.
    - numpy: HW or HWC, C of 1 gray, 2 gray + alpha, 3 RGB, 4 RGBA; uint8, uint16, float16, float32, float64.
    - torch: CHW or BCHW on any device, the same C and dtypes, and bfloat16.
    - Other arrays with ``__dlpack__`` (CuPy, JAX), on any device: as numpy's; ``pack`` gives a torch tensor, HW or HWC,
      on that device, which has ``__dlpack__`` too.

    Floats are in 0..1. Raises TypeError for other types and dtypes and for what is masked, ValueError for other ranks
    and channels, pictures without pixels, NaN, infinities, and floats outside -0.5..1.5.
    """
    if isinstance(obj, torch.Tensor):
        return _unpack_torch(obj)
    if isinstance(obj, np.ndarray):
        return _unpack_numpy(obj)
    pillow = sys.modules.get("PIL.Image")  # where it is not imported, nobody has an image of it
    if pillow is not None and isinstance(obj, pillow.Image):
        return _unpack_pillow(obj)
    if hasattr(obj, "__dlpack__"):
        return _unpack_dlpack(obj)
    hint = "; read the file first" if isinstance(obj, str) or hasattr(obj, "__fspath__") else ""
    raise TypeError(f"{type(obj).__name__} is not a Pillow image, a numpy array or a torch tensor{hint}")


def _unpack_torch(tensor: torch.Tensor) -> Unpacked:
    if tensor.dtype not in _TORCH_DTYPES or tensor.layout != torch.strided or tensor.is_meta:
        kind = "meta tensors" if tensor.is_meta else f"tensors of {tensor.dtype}, {tensor.layout}"
        raise TypeError(f"{kind} are no pictures: uint8, uint16, or float16, bfloat16, float32, float64 in 0..1 are")
    shape = tuple(tensor.shape)
    if tensor.ndim not in (3, 4) or shape[-3] not in (1, 2, 3, 4):
        hint = "; it looks like HWC: use .permute(2, 0, 1)" if tensor.ndim == 3 and shape[-1] in (1, 2, 3, 4) else ""
        if tensor.ndim == 4 and shape[-1] in (1, 2, 3, 4):
            hint = "; it looks like BHWC: use .permute(0, 3, 1, 2)"
        if tensor.ndim == 2:
            hint = "; use [None] for one channel"
        raise ValueError(f"shape {shape} is not CHW or BCHW with 1 to 4 channels{hint}")
    batch = tensor.detach().resolve_neg()
    batch = batch[None] if tensor.ndim == 3 else batch
    _check_size(shape)
    frames = [_split(_checked(frame.permute(1, 2, 0))) for frame in batch]

    def repack(joined: list[torch.Tensor]) -> torch.Tensor:
        made = [t.permute(2, 0, 1).to(tensor.device, tensor.dtype).contiguous() for t in joined]
        if len(made) == 1:  # a result of a gigabyte is not worth a copy
            return made[0] if tensor.ndim == 3 else made[0][None]
        return torch.stack([bits(t) for t in made]).view(tensor.dtype)

    return Unpacked(frames, repack)


def _unpack_numpy(array: np.ndarray) -> Unpacked:
    if array.dtype.name not in _NUMPY_DTYPES:
        hint = "; use .astype(np.uint8) * 255" if array.dtype == bool else ""
        raise TypeError(f"arrays of {array.dtype} are no pictures: uint8, uint16, or floats in 0..1 are{hint}")
    if np.ma.is_masked(array):
        raise TypeError("masked arrays are no pictures: use .filled(), or give the mask as alpha")
    _check_hwc(array.shape)
    flat = array.ndim == 2
    frame = _from_numpy(array[..., None] if flat else array)

    def repack(joined: list[torch.Tensor]) -> np.ndarray:
        made = joined[0].contiguous().cpu().numpy().astype(array.dtype, copy=False)
        return made[..., 0] if flat else made

    return Unpacked([_split(_checked(frame))], repack)


def _unpack_dlpack(obj: Any) -> Unpacked:
    kind, tensor = type(obj).__name__, dlpack.tensor_of(obj)
    if tensor.dtype not in _TORCH_DTYPES:
        raise TypeError(f"{kind} of {tensor.dtype} is no picture: uint8, uint16, or floats in 0..1 are")
    _check_hwc(tuple(tensor.shape))
    flat = tensor.ndim == 2

    def repack(joined: list[torch.Tensor]) -> torch.Tensor:
        made = joined[0].to(tensor.device, tensor.dtype).contiguous()
        return made[..., 0] if flat else made

    return Unpacked([_split(_checked(tensor[..., None] if flat else tensor))], repack)


def _unpack_pillow(im: Image) -> Unpacked:
    from . import modes

    _check_size((im.height, im.width))
    array, icc = modes.to_array(im)
    # The picture is taken as it is stored, so an orientation in its EXIF block is still to be applied.
    kept = {"icc_profile": icc, "dpi": im.info.get("dpi"), "exif": im.info.get("exif")}
    info = {key: value for key, value in kept.items() if value}

    def repack(joined: list[torch.Tensor]) -> Image:
        return modes.from_array(joined[0].contiguous().cpu().numpy(), info)

    return Unpacked([_split(_checked(_from_numpy(array)))], repack)


def _from_numpy(array: np.ndarray) -> torch.Tensor:
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    if not native.flags.writeable or any(stride < 0 or stride % native.itemsize for stride in native.strides):
        native = native.copy()  # torch has no negative strides, and warns about read-only memory
    return torch.from_numpy(native)


def _check_hwc(shape: tuple[int, ...]) -> None:
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in (1, 2, 3, 4)):
        hint = "; it looks like CHW: use .transpose(1, 2, 0)" if len(shape) == 3 and shape[0] in (1, 2, 3, 4) else ""
        if len(shape) == 4:
            hint = "; pass pictures one by one, or a torch tensor BCHW"
        raise ValueError(f"shape {tuple(shape)} is not HW or HWC with 1 to 4 channels{hint}")
    _check_size(shape)


def _check_size(shape: tuple[int, ...]) -> None:
    if 0 in shape:
        raise ValueError(f"a picture of shape {tuple(shape)} has no pixels")


def _checked(frame: torch.Tensor) -> torch.Tensor:
    """Integers and float16 as they are, other floats as float32; floats once they are known to be a picture's."""
    if frame.data_ptr() % frame.element_size():  # as in the middle of a file
        frame = frame.clone()
    if not frame.is_floating_point():
        return frame
    frame = frame if frame.dtype == torch.float16 else frame.to(torch.float32)
    low, high = (float(v) for v in frame.aminmax())
    if not (low >= -0.5 and high <= 1.5):
        bad = int((~frame.isfinite()).sum())
        if bad:
            raise ValueError(f"{bad} of {frame.numel()} values are NaN or infinite")
        way = "divide by 255 (or what is white)" if high > 1.5 else "floats must lie in [0, 1]"
        raise ValueError(f"float values are from {low:g} to {high:g}, not in 0..1: {way}")
    return frame


def _split(frame: torch.Tensor) -> Planes:
    color = 1 if frame.shape[2] < 3 else 3
    return Planes(frame[..., :color], frame[..., color:] if frame.shape[2] > color else None)


def join(planes: Planes) -> torch.Tensor:
    """[H, W, C], alpha last."""
    color, alpha = planes.color, planes.alpha
    return color if alpha is None else torch.cat((bits(color), bits(alpha)), dim=-1).view(color.dtype)


def bits(t: torch.Tensor) -> torch.Tensor:
    """uint16 as int16 of the same bits: torch has few operations for uint16, and older versions fewer."""
    return t.view(torch.int16) if t.dtype == torch.uint16 else t


def to_float(t: torch.Tensor) -> torch.Tensor:
    """Samples of a picture's dtype (uint8, uint16, float16, float32), any shape -> float32 with white at 1."""
    top = WHITE.get(t.dtype)
    return t.to(torch.float32) if top is None else t.to(torch.float32).div_(top)


_BLEED_BAND = 1 << 20  # samples worked on at once


def bleed(color: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """Gives pixels that cannot be seen the colour of their visible neighbours, so that scaling mixes in no fringe.

    ``color`` is [H, W, C], ``alpha`` [H, W, 1] of the same dtype (uint8, uint16, floats in 0..1). Returns ``color``
    with every pixel of alpha 0 replaced by a smooth extension of the rest, which is exactly kept; ``color`` itself
    where nothing, or everything, is invisible. What the invisible pixels held has no influence.

    Pull-push (Gortler et al., The Lumigraph, 1996): averages weighted by alpha over ever coarser grids, then each level
    filled from the coarser one. Beside the result it needs a third of the picture in float32.
    """
    height, width, channels = color.shape
    hidden = bits(alpha) == 0
    if not hidden.any() or hidden.all():
        return color
    del hidden
    if width > height:  # bands lie across the longer side
        return bleed(color.transpose(0, 1), alpha.transpose(0, 1)).transpose(0, 1)
    rows = 2 * max(1, _BLEED_BAND // (2 * width * (channels + 1)))
    levels = [_halve(lambda first, last: _premultiply(color[first:last], alpha[first:last]), height, width, rows)]
    while (size := levels[-1].shape[1:])[0] > 1:
        levels.append(_halve(lambda first, last: levels[-1][:, first:last], size[0], size[1], 2 * rows))
    filled = levels.pop()
    filled /= filled[-1:].clamp_min(torch.finfo(torch.float32).tiny)
    while levels:
        fine = levels.pop()
        for y in range(0, fine.shape[1], 2 * rows):
            part = fine[:, y : y + 2 * rows]
            part += (1 - part[-1:]) * _double(filled, y, *part.shape[1:])
        filled = fine
    out = torch.empty_like(color)
    top = WHITE.get(color.dtype)
    for y in range(0, height, rows):
        kept, invisible = color[y : y + rows], bits(alpha[y : y + rows]) == 0
        if invisible.any():
            extension = _double(filled[:-1], y, *kept.shape[:2]).permute(1, 2, 0)
            if top is not None:
                extension = extension.mul_(top).round_().clamp_(0, top)
            kept = torch.where(invisible, bits(extension.to(color.dtype)), bits(kept)).view(color.dtype)
        out[y : y + rows] = kept
    return out


def _premultiply(color: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """-> [C + 1, h, w]: the colours times their weights, and the weights."""
    color, weight = to_float(color).permute(2, 0, 1), to_float(alpha).permute(2, 0, 1).clamp(0, 1)
    return torch.cat((torch.where(weight > 0, color * weight, 0), weight))


def _halve(fine: Callable[[int, int], torch.Tensor], height: int, width: int, rows: int) -> torch.Tensor:
    """[C + 1, h, w], whose rows ``fine`` gives -> half as large; ``rows`` (even) at once.

    Sums over 4 x 4, scaled down where the weights add up to more than 1. That each square reaches over its own 2 x 2
    is what lets the extension leave a visible edge with the colours of that edge.
    """
    coarse = None
    for top in range(0, height, rows):
        bottom = min(top + rows, height + height % 2)
        first, last = max(0, top - 1), min(bottom + 1, height)
        part = fine(first, last)
        part = F.pad(part, (1, 1 + width % 2, first - (top - 1), bottom + 1 - last))
        sums = F.avg_pool2d(part[None], 4, stride=2, divisor_override=1)[0]
        if coarse is None:
            coarse = sums.new_empty(len(sums), (height + 1) // 2, (width + 1) // 2)
        torch.div(sums, sums[-1:].clamp_min(1), out=coarse[:, top // 2 : bottom // 2])
    assert coarse is not None
    return coarse


def _double(coarse: torch.Tensor, top: int, height: int, width: int) -> torch.Tensor:
    """Rows ``top .. top + height`` (top is even) of ``coarse`` [C, h, w] enlarged twice, pixel centres aligned."""
    first = max(0, top // 2 - 1)  # one row more on either side, to blend with
    part = coarse[None, :, first : (top + height + 1) // 2 + 1]
    doubled = F.interpolate(part, scale_factor=2, mode="bilinear", align_corners=False)
    return doubled[0, :, top - 2 * first :][:, :height, :width]
