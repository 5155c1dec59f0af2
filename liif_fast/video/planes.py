"""4:2:0 frames <-> pictures by our own code, on the upscaler's device; what is not 4:2:0 goes through swscale.

Chroma is placed where films have it, which swscale is not told. On a processor it takes a fraction of swscale's time;
on its way to a GPU and back a frame is half as many bytes as a picture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .. import yuv
from .colors import FULL, MATRICES, Colors, Swscale

if TYPE_CHECKING:
    import av

CPU = torch.device("cpu")
_NAMES = {number: name for name, number in MATRICES.items()}


class Converter:
    """Frames -> pictures on a device and back. For one thread.

    On a processor a picture is numpy [H, W, C], as those of `colors.Swscale` are, which converts what is not of
    `yuv.FORMATS`. On a GPU it is a tensor [3, H, W] there, of the same dtypes and ranges. Work on it is queued on the
    stream that is current in the calling thread, which is where whoever takes the picture must work too.

    Args:
        siting: where chroma lies, of `yuv.SITINGS`. PyAV does not say it of frames; "left" is what players assume.
    """

    def __init__(self, device: torch.device = CPU, siting: str = "left") -> None:
        # A build without code for the device converts on the processor.
        self.device, self.siting = (CPU if yuv.unavailable(device) else device), siting
        self._swscale = Swscale()

    def picture(self, frame: av.VideoFrame, colors: Colors | None = None) -> Any:
        """``colors`` None: those that the frame names."""
        colors = colors or Colors.of(frame)
        format = frame.format.name.replace("yuvj", "yuv")  # full range, which `Colors` knows
        if format not in yuv.FORMATS:
            return self._swscale.picture(frame, colors)
        planes = [plane.to(self.device) for plane in _planes(frame, format)]
        if self.device.type == "cuda":  # by channels, as a tensor has them, or the result would be sorted to that
            return yuv.to_rgb(planes, format, **self._how(colors), dtype=planes[0].dtype)
        picture = torch.empty(frame.height, frame.width, 3, dtype=planes[0].dtype)
        yuv.to_rgb(planes, format, **self._how(colors), out=picture.permute(2, 0, 1))
        return picture.numpy()

    def frame(self, picture: Any, format: str, colors: Colors) -> av.VideoFrame:
        """As the encoder wants it. ``colors`` are those to write."""
        rgb = picture if isinstance(picture, torch.Tensor) else torch.from_numpy(picture).permute(2, 0, 1)
        if format not in yuv.FORMATS or len(rgb) != 3:
            return self._swscale.frame(to_array(picture), format, colors)
        import av

        made = av.VideoFrame(rgb.shape[2], rgb.shape[1], format)
        targets = _planes(made, format)
        planes = yuv.from_rgb(rgb, format, **self._how(colors), out=None if rgb.is_cuda else targets)
        if rgb.is_cuda:
            for target, plane in zip(targets, planes, strict=True):
                target.copy_(plane)
        made.colorspace, made.color_range = colors.matrix, colors.range
        made.color_primaries, made.color_trc = colors.primaries, colors.transfer
        return made

    def _how(self, colors: Colors) -> dict[str, Any]:
        # One thread: the steps of a pipeline are side by side already.
        return {
            "matrix": _NAMES[colors.matrix], "full_range": colors.range == FULL, "siting": self.siting, "threads": 1,
        }  # fmt: skip


def to_array(picture: Any) -> np.ndarray:
    """A picture, wherever it is, as an array [H, W, C]."""
    return picture.permute(1, 2, 0).contiguous().cpu().numpy() if isinstance(picture, torch.Tensor) else picture


def _planes(frame: av.VideoFrame, format: str) -> list[torch.Tensor]:
    """Those of a frame, in its own memory."""
    kind = np.dtype(np.uint8 if yuv.FORMATS[format].bits == 8 else np.uint16)
    found = []
    for plane, shape in zip(frame.planes, yuv.shapes(format, frame.height, frame.width), strict=True):
        strides = (plane.line_size, kind.itemsize * (2 if len(shape) == 3 else 1), kind.itemsize)[: len(shape)]
        found.append(torch.from_numpy(np.ndarray(shape, kind, memoryview(plane), strides=strides)))
    return found
