"""Colour conversions on a CUDA device: the bits of those on the processor. `make test-gpu`."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from liif_fast import yuv
from test_colors import BITS, FLOATS, SITED, SIZES, WHITE, planes_of, random_samples, rgb_buffer

CARD = torch.device("cuda")
ready = torch.cuda.is_available() and yuv.unavailable(CARD) is None
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not ready, reason="for a CUDA device, built with nvcc")]
LARGE = [*SIZES, (16, 128), (130, 516), (67, 1021)]


def on_card(plane: torch.Tensor) -> torch.Tensor:
    """The same values with the same padding."""
    whole = torch.zeros(plane.stride(0) * (plane.shape[0] + 1), dtype=plane.dtype, device=CARD)
    there = whole.as_strided(plane.shape, plane.stride())
    there.copy_(plane)
    return there


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("siting", SITED)
@pytest.mark.parametrize("format", BITS)
def test_bits_of_the_processor(format: str, siting: str, packed: bool) -> None:
    for size in LARGE:
        samples = random_samples(size, format)
        for planes in (planes_of(samples, format), [plane.contiguous() for plane in planes_of(samples, format)]):
            for dtype in (*FLOATS, *WHITE):
                how: dict[str, Any] = {"siting": siting, "matrix": "bt2020"}
                wanted = yuv.to_rgb(planes, format, dtype=dtype, **how)
                # With rows that are not aligned, and with those that are where the width allows it.
                aligned = torch.empty(*size, 3, dtype=dtype).permute(2, 0, 1) if packed else torch.empty_like(wanted)
                for view in (rgb_buffer(size, dtype, packed)[1], aligned):
                    rgb = on_card_rgb(view)
                    yuv.to_rgb([on_card(plane) for plane in planes], format, out=rgb, **how)
                    assert torch.equal(rgb.cpu(), wanted)
                    back = yuv.from_rgb(rgb, format, out=[on_card(torch.zeros_like(p)) for p in planes], **how)
                    expected = yuv.from_rgb(wanted, format, **how)
                    assert all(torch.equal(a.cpu(), b) for a, b in zip(back, expected, strict=True))


def on_card_rgb(view: torch.Tensor) -> torch.Tensor:
    length = sum((n - 1) * s for n, s in zip(view.shape, view.stride(), strict=True)) + 1
    return torch.zeros(length, dtype=view.dtype, device=CARD).as_strided(view.shape, view.stride())


def test_normalised_and_clamped() -> None:
    planes = planes_of(random_samples((66, 130), "nv12"), "nv12")
    how: dict[str, Any] = {"scale": (2, 2, -2), "shift": (-1, -1, 1), "dtype": torch.float16}
    found = yuv.to_rgb([on_card(plane) for plane in planes], "nv12", **how)
    assert torch.equal(found.cpu(), yuv.to_rgb(planes, "nv12", **how))
    odd = torch.tensor([float("nan"), float("inf"), -float("inf"), -1, 2, 0.5, 0, 1]).expand(3, 6, 8).contiguous()
    for dtype in FLOATS:
        ours = yuv.from_rgb(odd.to(CARD, dtype), "p010le")
        assert all(torch.equal(a.cpu(), b) for a, b in zip(ours, yuv.from_rgb(odd.to(dtype), "p010le"), strict=True))


def test_on_the_current_stream() -> None:
    """Queued behind what was queued there: a long product first."""
    planes = planes_of(random_samples((1080, 1920), "yuv420p"), "yuv420p")
    wanted = yuv.to_rgb(planes, "yuv420p")
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        large = torch.randn(8192, 8192, device=CARD)
        late = [torch.zeros(plane.shape, dtype=plane.dtype, device=CARD) for plane in planes]
        for _ in range(10):
            large = large @ large
        for plane, values in zip(late, planes, strict=True):
            plane.copy_(values, non_blocking=True)
        found = yuv.to_rgb(late, "yuv420p")
    stream.synchronize()
    assert torch.equal(found.cpu(), wanted)


def test_cuda_says_what_is_wrong() -> None:
    from liif_fast import _cuda

    number: Any = {"zero": [0.0] * 3, "by": [[0.0] * 3] * 3, "shift": [0.0] * 3, "low": [0.0] * 3, "high": [1.0] * 3}
    params = _cuda.ColorParams(
        size=(1, 1), y=(0, 1, 1), u=(0, 1, 1), v=(0, 1, 1), sample=_cuda.Type.u8, unused=0, between=(True, False),
        rgb=0, rgb_type=_cuda.Type.u8, rgb_strides=(3, 3, 1), **number,
    )  # fmt: skip
    with pytest.raises(RuntimeError, match="cudaErrorInvalidDevice"):
        _cuda.to_rgb(params, device=torch.cuda.device_count(), stream=0)
