"""Frames as planes on the upscaler's device: what `colors.Converter` does with swscale, by our own code there.

A pixel of 4:2:0 is half as many bytes on their way to a device and back as one of R'G'B', and no processor converts it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .. import yuv
from .colors import FULL, MATRICES, Colors, Converter

if TYPE_CHECKING:
    import av

_NAMES = {number: name for name, number in MATRICES.items()}


class PlaneConverter:
    """Frames -> pictures on a device and back.

    A picture is a tensor [3, H, W] on the device, of the dtypes and ranges of `colors.Converter`'s arrays. What is not
    of `yuv.FORMATS` is converted by that one, to and from its arrays: pictures are then numpy. On a device work is
    queued on the stream that is current in the calling thread, which is where whoever takes the picture must work too.

    Args:
        siting: where chroma lies, of `yuv.SITINGS`. PyAV does not say it of frames; "left" is what players assume.
    """

    def __init__(self, device: torch.device, siting: str = "left") -> None:
        self.device, self.siting = device, siting
        self._swscale = Converter()

    def picture(self, frame: av.VideoFrame, colors: Colors | None = None) -> Any:
        """``colors`` None: those that the frame names."""
        colors = colors or Colors.of(frame)
        format = frame.format.name.replace("yuvj", "yuv")  # full range, which `Colors` knows
        if format not in yuv.FORMATS:
            return self._swscale.picture(frame, colors)
        planes = [plane.to(self.device) for plane in _planes(frame, format)]
        picture = torch.empty(frame.height, frame.width, 3, dtype=planes[0].dtype, device=self.device).permute(2, 0, 1)
        yuv.to_rgb(planes, format, **self._how(colors), out=picture)
        return picture

    def frame(self, picture: Any, format: str, colors: Colors) -> av.VideoFrame:
        """As the encoder wants it. ``colors`` are those to write."""
        if not isinstance(picture, torch.Tensor):
            return self._swscale.frame(picture, format, colors)
        if format not in yuv.FORMATS:
            return self._swscale.frame(to_array(picture), format, colors)
        import av

        made = av.VideoFrame(picture.shape[2], picture.shape[1], format)
        targets = _planes(made, format)
        here = picture.device.type == "cpu"
        planes = yuv.from_rgb(picture, format, **self._how(colors), out=targets if here else None)
        if not here:
            for target, plane in zip(targets, planes, strict=True):
                target.copy_(plane)
        made.colorspace, made.color_range = colors.matrix, colors.range
        made.color_primaries, made.color_trc = colors.primaries, colors.transfer
        return made

    def _how(self, colors: Colors) -> dict[str, Any]:
        return {"matrix": _NAMES[colors.matrix], "full_range": colors.range == FULL, "siting": self.siting}


def converter(device: torch.device, native: bool | None = None, siting: str = "left") -> Converter | PlaneConverter:
    """For one thread. ``native``: whether it is our own code, on ``device``; None: where that is a CUDA device.

    BackendUnavailable where that is asked for and not there.
    """
    reason = yuv.unavailable(device)
    if native and reason:
        raise yuv.BackendUnavailable(reason)
    if native is None:
        native = device.type == "cuda" and reason is None
    return PlaneConverter(device, siting) if native else Converter()


def to_array(picture: Any) -> np.ndarray:
    """A picture of either converter as an array [H, W, C]."""
    return picture.permute(1, 2, 0).contiguous().cpu().numpy() if isinstance(picture, torch.Tensor) else picture


def same(a: Any, b: Any) -> bool:
    """Whether two pictures of either converter are equal; waits for the device they are on."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        # By bytes: not every comparison knows uint16 on every device.
        return a.shape == b.shape and torch.equal(*(p.permute(1, 2, 0).contiguous().view(torch.uint8) for p in (a, b)))
    return not isinstance(a, torch.Tensor) and not isinstance(b, torch.Tensor) and np.array_equal(a, b)


def _planes(frame: av.VideoFrame, format: str) -> list[torch.Tensor]:
    """Those of a frame, in its own memory."""
    kind = np.dtype(np.uint8 if yuv.FORMATS[format].bits == 8 else np.uint16)
    found = []
    for plane, shape in zip(frame.planes, yuv.shapes(format, frame.height, frame.width), strict=True):
        strides = (plane.line_size, kind.itemsize * (2 if len(shape) == 3 else 1), kind.itemsize)[: len(shape)]
        found.append(torch.from_numpy(np.ndarray(shape, kind, memoryview(plane), strides=strides)))
    return found
