"""The decoder in plain PyTorch: any device, any float dtype up to float64. What the kernels are tested against."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from ..quantization import FORMATS, Format

if TYPE_CHECKING:
    from ..grid import Axis, Taps
    from ..pixels import Pixels

# Output pixels at once: keeps the hidden activations of their neighbours in tens of megabytes.
CHUNK = 1 << 15


def unavailable(device: torch.device, dtype: torch.dtype) -> str | None:
    return None if dtype.is_floating_point or dtype in FORMATS else f"{dtype} is not a float type"


def describe(dtype: torch.dtype) -> str:
    return f"PyTorch {torch.__version__}"


def pack(layers: list[torch.Tensor], dtype: torch.dtype) -> list[torch.Tensor]:
    """Hidden weights in the storage type, all else as wide as sums are."""
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    if dtype in FORMATS:
        return [t.to(wide) for t in layers[:4]] + layers[4:]
    hidden = [t.to(dtype) if t.dim() == 2 else t.to(wide) for t in layers[4:]]
    return [t.to(wide) for t in layers[:4]] + hidden


def decode(
    z: torch.Tensor,
    y: Axis,
    x: Axis,
    layers: list[torch.Tensor],
    cell_term: torch.Tensor,
    pixels: Pixels,
    threads: int,
) -> None:
    first_y, first_x, last, last_bias = layers[:4]
    wide = last.dtype
    out, paired, scale, shift, low, high = pixels
    scales, shifts = (_on_device(v, wide, z.device) for v in (scale, shift))
    form = FORMATS.get(layers[4].dtype) if layers[4:] else None
    count = x.size if paired else y.size * x.size
    for start in range(0, count, CHUNK):
        pixel = torch.arange(start, min(count, start + CHUNK), device=z.device)
        row, column = (pixel, pixel) if paired else (pixel // x.size, pixel % x.size)
        blended = torch.zeros(len(pixel), last.shape[1], dtype=wide, device=z.device)
        for sy in range(len(y.index)):
            for sx in range(len(x.index)):
                cells = z[y.index[sy, row].long(), x.index[sx, column].long()].to(wide)
                offset_y, offset_x = y.offset[sy, row, None].to(wide), x.offset[sx, column, None].to(wide)
                h = F.relu(cells + (cell_term.to(wide) + first_y * offset_y + first_x * offset_x))
                h = _hidden_quantized(form, h, layers[4:]) if form else _hidden(h, layers[4:], z)
                blended += (y.weight[sy, row].to(wide) * x.weight[sx, column].to(wide))[:, None] * h
        rgb = _stored(((F.linear(blended, last) + last_bias) * scales + shifts).clamp(low, high), out.dtype)
        if paired:
            out[start : start + len(pixel)] = rgb
        elif out.dtype == torch.uint16:  # as int16 of the same bits: torch has few operations for uint16
            out.view(torch.int16)[row, column] = rgb.view(torch.int16)
        else:
            out[row, column] = rgb


def _hidden(h: torch.Tensor, layers: list[torch.Tensor], z: torch.Tensor) -> torch.Tensor:
    for weight, bias in zip(layers[::2], layers[1::2], strict=True):
        h = F.relu(F.linear(h.to(z.dtype), weight).to(h.dtype) + bias)
    return h


def _hidden_quantized(form: Format, h: torch.Tensor, layers: list[torch.Tensor]) -> torch.Tensor:
    """Its rounding, with products and sums in float32."""
    h = h + form.zero
    for weight, (multiplier, bias) in zip(layers[::2], layers[1::2], strict=True):
        h = F.linear(form.quantize(h), weight.float()) * multiplier + bias
    return F.relu(h)


def resample(z: torch.Tensor, y: Taps, x: Taps, pixels: Pixels, threads: int) -> None:
    wide = torch.float64 if z.dtype == torch.float64 else torch.float32
    out, paired, scale, shift, low, high = pixels
    scales, shifts = (_on_device(v, wide, z.device) for v in (scale, shift))
    height, width = z.shape[:2]
    factor = y.lines // height
    fine = z.to(wide).view(height, width, factor, 3, factor).permute(0, 2, 1, 4, 3)
    fine = fine.reshape(y.lines, x.lines, 3)
    # A picture of fewer lines than there are taps has shares of zero for those it lacks.
    columns = (x.first[:, None] + torch.arange(x.taps.shape[1], device=z.device)).clamp(max=x.lines - 1)
    rows = (y.first[:, None] + torch.arange(y.taps.shape[1], device=z.device)).clamp(max=y.lines - 1)
    step = CHUNK if paired else max(1, CHUNK // max(1, x.size))
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        taps_y = y.taps[part].to(wide)
        if paired:
            window = fine[rows[part, :, None], columns[part, None, :]]
            rgb = torch.einsum("nkld,nk,nl->nd", window, taps_y, x.taps[part].to(wide))
        else:
            summed = torch.einsum("nkwd,nk->nwd", fine[rows[part]], taps_y)
            rgb = torch.einsum("nmld,ml->nmd", summed[:, columns], x.taps.to(wide))
        out[part] = _stored((rgb * scales + shifts).clamp(low, high), out.dtype)


def _on_device(values: list[float], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Made there: a copy from the host would have no place in a CUDA graph."""
    return torch.stack([torch.full((), value, dtype=dtype, device=device) for value in values])


def _stored(rgb: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    if not dtype.is_floating_point:
        rgb = rgb.round()
    # Through int32 where a dtype has no conversion of its own.
    return rgb.to(torch.int32).to(dtype) if dtype == torch.uint16 else rgb.to(dtype)
