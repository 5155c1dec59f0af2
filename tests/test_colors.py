"""Colour conversions on the processor against the standards in float64, and against swscale."""

from __future__ import annotations

import itertools
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from common import supported_isas
from liif_fast import yuv
from liif_fast.backends.cpu import ISA_VARIABLE
from liif_fast.colorimetry import MATRICES

FLOATS = {torch.float32: 2.0**-22, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
WHITE = {torch.uint8: 255, torch.uint16: 65535}
# One of them longer than the strips in which rows are worked on.
SIZES = [(1, 1), (1, 2), (2, 1), (3, 5), (4, 4), (7, 13), (2, 1029)]


# The standards, in words of their own: Y = Kr R + Kg G + Kb B, Cb = (B - Y) / (2 (1 - Kb)), Cr alike.


def luma_shares(matrix: str) -> np.ndarray:
    red, blue = {
        "bt601": (0.299, 0.114),
        "bt709": (0.2126, 0.0722),
        "bt2020": (0.2627, 0.0593),
        "fcc": (0.30, 0.11),
        "smpte240m": (0.212, 0.087),
    }[matrix]
    return np.array([red, 1 - red - blue, blue])


def coded(signal: np.ndarray, bits: int, full: bool) -> np.ndarray:
    """[3, ...] of luma in [0, 1] and colour differences in [-1/2, 1/2] -> sample values, not rounded."""
    if full:
        return signal * (2**bits - 1) + np.array([0, 2 ** (bits - 1), 2 ** (bits - 1)])[:, None, None]
    steps = np.array([219.0, 224.0, 224.0])[:, None, None]
    return (signal * steps + np.array([16, 128, 128])[:, None, None]) * 2 ** (bits - 8)


def signal_of(samples: np.ndarray, bits: int, full: bool) -> np.ndarray:
    zero = coded(np.zeros((3, 1, 1)), bits, full)
    return (samples - zero) / (coded(np.ones((3, 1, 1)), bits, full) - zero)


def catmull_rom(distance: float) -> float:
    x = abs(distance)
    if x < 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


@cache
def upsampling(pixels: int, between: bool) -> np.ndarray:
    """[pixels, chroma samples]: interpolation at every pixel of samples at 2 i, or at 2 i + 1/2."""
    count = (pixels + 1) // 2
    weights = np.zeros((pixels, count))
    for pixel in range(pixels):
        at = (pixel - 0.5 * between) / 2
        for i in range(int(np.floor(at)) - 1, int(np.floor(at)) + 3):
            weights[pixel, min(max(i, 0), count - 1)] += catmull_rom(at - i)
    return weights


@cache
def downsampling(pixels: int, between: bool) -> np.ndarray:
    """[chroma samples, pixels]: a tent around 2 i, or the mean of the two pixels around 2 i + 1/2."""
    weights = np.zeros(((pixels + 1) // 2, pixels))
    for i, row in enumerate(weights):
        for offset, weight in {0: 0.5, 1: 0.5}.items() if between else {-1: 0.25, 0: 0.5, 1: 0.25}.items():
            row[min(max(2 * i + offset, 0), pixels - 1)] += weight
    return weights


SITED = {"left": (True, False), "center": (True, True), "topleft": (False, False)}  # between (rows, columns)


def expected_rgb(samples: list[np.ndarray], bits: int, matrix: str, full: bool, siting: str) -> np.ndarray:
    """[3, H, W] in [0, 1]."""
    height, width = samples[0].shape
    rows, columns = upsampling(height, SITED[siting][0]), upsampling(width, SITED[siting][1])
    chroma = [rows @ plane @ columns.T for plane in samples[1:]]
    y, cb, cr = signal_of(np.stack([samples[0], *chroma]), bits, full)
    share = luma_shares(matrix)
    red, blue = y + 2 * (1 - share[0]) * cr, y + 2 * (1 - share[2]) * cb
    return np.stack([red, (y - share[0] * red - share[2] * blue) / share[1], blue]).clip(0, 1)


def expected_samples(rgb: np.ndarray, bits: int, matrix: str, full: bool, siting: str) -> list[np.ndarray]:
    """Not rounded; of R'G'B' [3, H, W] in [0, 1]."""
    share = luma_shares(matrix)
    y = np.tensordot(share, rgb, 1)
    signal = np.stack([y, (rgb[2] - y) / (2 * (1 - share[2])), (rgb[0] - y) / (2 * (1 - share[0]))])
    luma, *chroma = coded(signal, bits, full)
    rows, columns = downsampling(y.shape[0], SITED[siting][0]), downsampling(y.shape[1], SITED[siting][1])
    return [luma, *(rows @ plane @ columns.T for plane in chroma)]


# Frames as decoders hold them.

BITS = {"yuv420p": 8, "nv12": 8, "yuv420p10le": 10, "p010le": 10}


def padded(values: np.ndarray, fill: int = 77) -> torch.Tensor:
    """The values in a larger buffer, at the start of rows that are longer; the rest is ``fill``."""
    whole = np.full((values.shape[0] + 1, values.shape[1] + 3, *values.shape[2:]), fill, values.dtype)
    whole[: len(values), : values.shape[1]] = values
    return torch.from_numpy(whole)[: len(values), : values.shape[1]]


def planes_of(samples: list[np.ndarray], format: str) -> list[torch.Tensor]:
    kind = np.uint8 if BITS[format] == 8 else np.uint16
    stored = [(plane.astype(np.uint16) << (6 if format == "p010le" else 0)).astype(kind) for plane in samples]
    if format in ("nv12", "p010le"):
        stored = [stored[0], np.stack(stored[1:], -1)]
    return [padded(plane) for plane in stored]


def samples_of(planes: Any, format: str) -> list[np.ndarray]:
    stored = [plane.numpy().astype(np.int64) for plane in planes]
    if format in ("nv12", "p010le"):
        stored = [stored[0], stored[1][..., 0], stored[1][..., 1]]
    if format == "p010le":
        assert all((plane % 64 == 0).all() for plane in stored)
    return [plane >> (6 if format == "p010le" else 0) for plane in stored]


def random_samples(size: tuple[int, int], format: str, seed: int = 0) -> list[np.ndarray]:
    """All values that can be stored, also those beyond black, white and the gamut."""
    random = np.random.default_rng(seed)
    chroma = ((size[0] + 1) // 2, (size[1] + 1) // 2)
    return [random.integers(0, 2 ** BITS[format], shape) for shape in (size, chroma, chroma)]


def rgb_buffer(size: tuple[int, int], dtype: torch.dtype, packed: bool, fill: int = 7) -> tuple[Any, torch.Tensor]:
    """A buffer full of ``fill``, and a view [3, H, W] of it."""
    if packed:
        whole = torch.full((size[0] + 1, size[1] + 1, 3), fill).to(dtype)
        return whole, whole[: size[0], : size[1]].permute(2, 0, 1)
    whole = torch.full((4, size[0] + 1, size[1] + 2), fill).to(dtype)
    return whole, whole[:3, : size[0], : size[1]]


COMBINED = list(itertools.product(BITS, MATRICES, (False, True), SITED))


@pytest.mark.parametrize(("format", "matrix", "full", "siting"), COMBINED)
def test_to_rgb_is_the_standard(format: str, matrix: str, full: bool, siting: str) -> None:
    for size in SIZES:
        samples = random_samples(size, format)
        exact = expected_rgb(samples, BITS[format], matrix, full, siting)
        how: dict[str, Any] = {"matrix": matrix, "full_range": full, "siting": siting}
        found = yuv.to_rgb(planes_of(samples, format), format, **how)
        assert np.abs(found.numpy() - exact).max() < 1e-6
        for dtype, white in WHITE.items():
            found = yuv.to_rgb(planes_of(samples, format), format, dtype=dtype, **how)
            assert np.abs(found.numpy() - exact * white).max() <= 0.5 + 1e-6 * white


@pytest.mark.parametrize(("format", "matrix", "full", "siting"), COMBINED)
def test_from_rgb_is_the_standard(format: str, matrix: str, full: bool, siting: str) -> None:
    random = np.random.default_rng(1)
    how: dict[str, Any] = {"matrix": matrix, "full_range": full, "siting": siting}
    top = 2 ** BITS[format] - 1
    for size in SIZES:
        for dtype, white in WHITE.items():
            picture = random.integers(0, white + 1, (3, *size)).astype(str(dtype).removeprefix("torch."))
            exact = expected_samples(picture / white, BITS[format], matrix, full, siting)
            found = samples_of(yuv.from_rgb(torch.from_numpy(picture), format, **how), format)
            for ours, plane in zip(found, exact, strict=True):
                assert np.abs(ours - plane.clip(0, top)).max() <= 0.5 + 1e-6 * top


@pytest.mark.parametrize("dtype", [*FLOATS, *WHITE], ids=str)
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("format", BITS)
def test_layouts_and_types(format: str, packed: bool, dtype: torch.dtype) -> None:
    """Strides of all kinds; nothing beside the frame is written."""
    for size in SIZES:
        samples = random_samples(size, format)
        exact = expected_rgb(samples, BITS[format], "bt709", False, "left")
        whole, view = rgb_buffer(size, dtype, packed)
        white = WHITE.get(dtype, 1)
        assert yuv.to_rgb(planes_of(samples, format), format, out=view) is view
        rounding = FLOATS[dtype] / 2 if dtype in FLOATS else 0.5
        assert np.abs(view.double().numpy() - exact * white).max() <= rounding + 1e-6 * white
        # And back from there, into planes with padding.
        exact = expected_samples(view.double().numpy() / white, BITS[format], "bt709", False, "left")
        planes = planes_of([np.zeros_like(plane, np.int64) for plane in exact], format)
        assert all(a is b for a, b in zip(yuv.from_rgb(view, format, out=planes), planes, strict=True))
        for ours, plane in zip(samples_of(planes, format), exact, strict=True):
            assert np.abs(ours - plane).max() <= 0.5 + 1e-3
        for plane in planes:
            around = plane.as_strided(
                (plane.shape[0] + 1, plane.shape[1] + 3, *plane.shape[2:]), plane.stride()
            ).clone()
            around[: plane.shape[0], : plane.shape[1]] = 77
            assert (around.long() == 77).all()
        view.copy_(torch.full(view.shape, 7).to(dtype))
        assert (whole.double() == 7).all()


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_normalised(dtype: torch.dtype) -> None:
    """(x - mean) / std per channel, of either sign, in one rounding."""
    samples = random_samples((7, 13), "nv12")
    scale, shift = np.array([2.0, 4.5, -1.25]), np.array([-1.0, -2.1, 0.3])
    exact = expected_rgb(samples, 8, "bt601", False, "left") * scale[:, None, None] + shift[:, None, None]
    how: dict[str, Any] = {"matrix": "bt601", "dtype": dtype, "scale": scale.tolist(), "shift": shift.tolist()}
    found = yuv.to_rgb(planes_of(samples, "nv12"), "nv12", **how)
    assert found.dtype == dtype
    assert (np.abs(found.double().numpy() - exact) <= FLOATS[dtype] * np.abs(exact) + 1e-6).all()


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_every_float_is_what_torch_rounds_to(dtype: torch.dtype) -> None:
    """Also the subnormal ones: a chart of luma steps at many scales."""
    levels = np.arange(256).repeat(2)[None].repeat(2, 0)
    planes = planes_of([levels, *[np.full((1, 256), 128)] * 2], "yuv420p")
    for power in range(-28, 18):  # up to infinity in float16
        scale = [1.37 * 2.0**power] * 3
        exact = yuv.to_rgb(planes, "yuv420p", full_range=True, scale=scale)
        assert torch.equal(yuv.to_rgb(planes, "yuv420p", full_range=True, scale=scale, dtype=dtype), exact.to(dtype))


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", MATRICES)
def test_grays_come_back_exactly(matrix: str, full: bool) -> None:
    for format, bits in BITS.items():
        step = 2 ** (bits - 8)
        levels = np.arange(2**bits) if full else np.arange(16 * step, 235 * step + 1)
        luma = levels[None].repeat(3, 0)
        samples = [luma, *[np.full((2, (len(levels) + 1) // 2), 128 * step)] * 2]
        how: dict[str, Any] = {"matrix": matrix, "full_range": full}
        # Eight bits of limited range fit into 256 levels of R'G'B', ten need more.
        types = [torch.uint16, torch.float32] if bits > 8 else [torch.uint8, torch.uint16, torch.float32]
        for dtype in types:
            rgb = yuv.to_rgb(planes_of(samples, format), format, dtype=dtype, **how)
            assert torch.equal(rgb[0], rgb[1])
            assert torch.equal(rgb[0], rgb[2])
            for found, plane in zip(samples_of(yuv.from_rgb(rgb, format, **how), format), samples, strict=True):
                assert np.array_equal(found, plane)


@pytest.mark.parametrize("matrix", MATRICES)
def test_primaries_have_the_codes_of_the_standard(matrix: str) -> None:
    """100 % bars, of which the standards give the extremes: chroma from 16 to 240, luma from 16 to 235."""
    bars = np.array([[1, 1, 1], [0, 0, 0], [0, 0, 1], [1, 1, 0], [1, 0, 0], [0, 1, 1]], float)
    picture = torch.from_numpy(bars.T[:, None].repeat(2, 1).repeat(2, 2).astype(np.float32))
    y, cb, cr = samples_of(yuv.from_rgb(picture, "yuv420p", matrix=matrix, siting="center"), "yuv420p")
    assert (y[0, 0], y[0, 2]) == (235, 16)
    assert (cb[0, 2], cb[0, 3], cr[0, 4], cr[0, 5]) == (240, 16, 240, 16)
    assert (cb[0, :2] == 128).all()
    assert (cr[0, :2] == 128).all()


def test_beyond_the_range() -> None:
    """Samples beyond the gamut and floats beyond [0, 1], infinite or not a number, end at its edge."""
    samples = [np.array([[255, 255], [0, 0]]), np.array([[255]]), np.array([[0]])]
    rgb = yuv.to_rgb(planes_of(samples, "yuv420p"), "yuv420p", scale=(2, 2, 2), shift=(-1, -1, -1))
    assert (rgb.min(), rgb.max()) == (-1, 1)
    odd = [[-0.5, -np.inf, np.nan, 0.0], [1.5, np.inf, 6e4, 1.0]]
    for dtype in FLOATS:
        picture = torch.tensor(odd).to(dtype)[None].expand(3, 2, 4)
        for full, wanted in ((False, (16, 235)), (True, (0, 255))):
            y, cb, cr = samples_of(yuv.from_rgb(picture, "yuv420p", full_range=full), "yuv420p")
            assert [sorted(set(row)) for row in y.tolist()] == [[wanted[0]], [wanted[1]]]
            assert (cb == 128).all()
            assert (cr == 128).all()
    # Full range has no code for the bluest blue: 127.5 above 128.
    blue = torch.tensor([0.0, 0.0, 1.0])[:, None, None].expand(3, 2, 2)
    assert samples_of(yuv.from_rgb(blue, "yuv420p", full_range=True), "yuv420p")[1].item() == 255


def test_unused_bits_are_not_read() -> None:
    samples = random_samples((5, 7), "p010le")
    planes = planes_of(samples, "p010le")
    dirty = [plane.clone().bitwise_or_(torch.tensor(63, dtype=torch.uint16)) for plane in planes]
    assert torch.equal(yuv.to_rgb(planes, "p010le"), yuv.to_rgb(dirty, "p010le"))


def test_every_instruction_set_and_thread_count_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    size = (13, 2053)
    picture = torch.from_numpy(np.random.default_rng(0).integers(0, 65536, (3, *size)).astype(np.uint16))

    def made(format: str, threads: int) -> list[torch.Tensor]:
        planes = planes_of(random_samples(size, format), format)
        rgb = [yuv.to_rgb(planes, format, dtype=dtype, threads=threads) for dtype in (*FLOATS, *WHITE)]
        # The same picture in all types: what differs is how it is read.
        pictures = [
            picture,
            (picture.float() / 65535),
            (picture.float() / 65535).half(),
            (picture.int() // 257).to(torch.uint8),
        ]
        back = [plane for p in pictures for plane in yuv.from_rgb(p, format, threads=threads)]
        return rgb + back

    for format in BITS:
        wanted: list[torch.Tensor] = []
        for isa in supported_isas():
            monkeypatch.setenv(ISA_VARIABLE, isa)
            for threads in (1, 3):
                found = made(format, threads)
                wanted = wanted or found
                assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True)), (isa, threads)


def test_sitings_differ_where_they_should() -> None:
    """A step of chroma stands half a pixel further right when chroma is between columns."""
    cr = np.full((4, 8), 128)
    cr[:, 4:] = 160
    planes = planes_of([np.full((8, 16), 128), np.full((4, 8), 128), cr], "yuv420p")

    def centre(siting: str) -> float:
        line = yuv.to_rgb(planes, "yuv420p", siting=siting)[0, 4]
        share = ((line - line[0]) / (line[-1] - line[0])).double()
        return 16 - float(share.sum())  # where the step would stand if it were sharp

    assert centre("center") - centre("left") == pytest.approx(0.5, abs=1e-5)
    assert centre("topleft") == centre("left")


# Against swscale, whose filters are others: bicubic with another parameter, chroma between columns.


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", ["bt601", "bt709", "bt2020"])
@pytest.mark.parametrize("format", BITS)
def test_close_to_swscale(format: str, matrix: str, full: bool) -> None:
    """On smooth pictures, in levels of 8 bits: two at most, to RGB three; 0.6 on average."""
    pytest.importorskip("av")
    from clips import pattern
    from liif_fast.video import colors
    from liif_fast.video.colors import Colors, Swscale

    known = Colors(colors.MATRICES[matrix], colors.FULL if full else colors.LIMITED)
    picture = pattern(3, 96, 128)
    deep = BITS[format] > 8
    picture = picture.astype(np.uint16) * 257 if deep else picture
    how: dict[str, Any] = {"matrix": matrix, "full_range": full, "siting": "center"}
    frame = Swscale().frame(picture, format, known)
    planes = [torch.from_numpy(plane) for plane in plane_arrays(frame, format)]
    ours = samples_of(yuv.from_rgb(torch.from_numpy(picture).permute(2, 0, 1), format, **how), format)
    for found, plane in zip(ours, samples_of(planes, format), strict=True):
        difference = np.abs(found - plane) / 2 ** (BITS[format] - 8)
        assert difference.max() <= 2
        assert difference.mean() < 0.6
    back = yuv.to_rgb(planes, format, dtype=torch.uint16 if deep else torch.uint8, **how)
    difference = np.abs(back.permute(1, 2, 0).numpy().astype(int) - Swscale().picture(frame, known)) / (
        257 if deep else 1
    )
    assert difference.max() <= 3
    assert difference.mean() < 0.6


def plane_arrays(frame: Any, format: str) -> list[np.ndarray]:
    kind = np.uint8 if BITS[format] == 8 else np.uint16
    found = []
    for plane, shape in zip(frame.planes, yuv.shapes(format, frame.height, frame.width), strict=True):
        strides = (plane.line_size, *np.empty((1, *shape[1:]), kind).strides[1:])
        found.append(np.ndarray(shape, kind, buffer=plane, strides=strides).copy())
    return found
