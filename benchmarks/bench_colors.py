"""Colours of a 4:2:0 frame of 1080p, one way: ours and swscale's on the processor, ours beside a copy on a CUDA device.

`make bench` and `make bench-gpu`.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from liif_fast import yuv
from liif_fast.video.colors import BT709, LIMITED, Colors, Swscale

HEIGHT, WIDTH = 1080, 1920
LARGE = 1 << 28  # bytes
CARD = torch.device("cuda")
FORMATS = ("nv12", "p010le")
needs_card = pytest.mark.skipif(
    not torch.cuda.is_available() or yuv.unavailable(CARD) is not None, reason="no CUDA device, or no CUDA code"
)


def frame(format: str, height: int, width: int, device: torch.device) -> list[torch.Tensor]:
    random = np.random.default_rng(0)
    top, kind = (256, np.uint8) if yuv.FORMATS[format].bits == 8 else (65536, np.uint16)
    shapes = yuv.shapes(format, height, width)
    return [torch.from_numpy(random.integers(0, top, shape).astype(kind)).to(device) for shape in shapes]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float32], ids=str)
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("way", ["to", "from"])
def test_processor(report: Callable, threads: int, way: str, format: str, dtype: torch.dtype) -> None:
    planes = frame(format, HEIGHT, WIDTH, torch.device("cpu"))
    rgb = torch.empty(HEIGHT, WIDTH, 3, dtype=dtype).permute(2, 0, 1)
    yuv.to_rgb(planes, format, out=rgb)
    if way == "to":
        report(lambda: yuv.to_rgb(planes, format, out=rgb, threads=threads), pixels=HEIGHT * WIDTH)
    else:
        report(lambda: yuv.from_rgb(rgb, format, out=planes, threads=threads), pixels=HEIGHT * WIDTH)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("way", ["to", "from"])
def test_swscale(report: Callable, way: str, format: str) -> None:
    pytest.importorskip("av")
    colors, converter = Colors(BT709, LIMITED), Swscale()
    kind, white = (np.uint8, 255) if yuv.FORMATS[format].bits == 8 else (np.uint16, 65535)
    picture = np.random.default_rng(0).integers(0, white + 1, (HEIGHT, WIDTH, 3)).astype(kind)
    made = converter.frame(picture, format, colors)
    work = (
        (lambda: converter.picture(made, colors)) if way == "to" else lambda: converter.frame(picture, format, colors)
    )
    report(work, pixels=HEIGHT * WIDTH)


def milliseconds(work: list[Callable[[], object]]) -> list[float]:
    """Sorted times on the device of all together, queued while it is busy: the host's share is not in them."""
    times = []
    for _ in range(20):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda._sleep(20_000_000)
        start.record()
        for each in work:
            each()
        stop.record()
        stop.synchronize()
        times.append(start.elapsed_time(stop))
    return sorted(times)


@needs_card
@pytest.mark.parametrize("height", [1080, 2160])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("way", ["to", "from"])
def test_device(benchmark: Any, way: str, format: str, dtype: torch.dtype, height: int) -> None:
    """Microseconds a frame, GB/s of what has to be read and written, and that as a share of a large copy's."""
    width = height * 16 // 9
    made: list[tuple[list[torch.Tensor], torch.Tensor]] = []
    size = 0
    # As many frames as do not stay in the second cache.
    while size < LARGE:
        planes = frame(format, height, width, CARD)
        # As networks read and decoders write: planes of floats, pixels of integers.
        rgb = torch.zeros(3, height, width, dtype=torch.float32, device=CARD).to(dtype)
        rgb = rgb if dtype.is_floating_point else rgb.view(height, width, 3).permute(2, 0, 1)
        made.append((planes, rgb))
        size += sum(t.numel() * t.element_size() for t in (*planes, rgb))
    work: list[Callable[[], object]]
    if way == "to":
        work = [partial(yuv.to_rgb, planes, format, out=rgb) for planes, rgb in made]
    else:
        work = [partial(yuv.from_rgb, rgb, format, out=planes) for planes, rgb in made]
    large, other = (torch.empty(LARGE, dtype=torch.uint8, device=CARD) for _ in range(2))
    times, copies = milliseconds(work), milliseconds([partial(other.copy_, large)])
    rate, copied = size / statistics.median(times) / 1e6, 2 * LARGE / statistics.median(copies) / 1e6
    benchmark.extra_info |= {
        "device": torch.cuda.get_device_name(),
        "us": 1e3 * statistics.median(times) / len(work),
        "us_min_max": [1e3 * times[0] / len(work), 1e3 * times[-1] / len(work)],
        "GB_per_s": rate,
        "share_of_copy": rate / copied,
    }

    # The table's own clock, which includes the host's part.
    def awaited() -> None:
        work[0]()
        torch.cuda.synchronize()

    benchmark.pedantic(awaited, rounds=20, warmup_rounds=3)
