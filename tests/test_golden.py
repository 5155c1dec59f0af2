"""What the official code makes of a picture, and what every implementation here makes of it."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from common import BF16, CPU, FP32, FP64, GOLDEN, GOLDENS, noise, taken
from liif_fast import Upscaler, grid, published
from liif_fast.backends import reference
from liif_fast.checkpoint import Weights, load
from liif_fast.encoder import Encoder
from liif_fast.ops import Decoder
from liif_fast.pixels import Pixels

TOLERANCE = 2e-5  # of network units, in which white is 1


@cache
def weights(name: str) -> Weights:
    return load(GOLDEN / f"{name}.pth")


@cache
def content(name: str) -> dict[str, torch.Tensor]:
    return load_file(GOLDEN / f"{name}.safetensors")


def sizes(name: str) -> list[tuple[int, int]]:
    return sorted((t.shape[0], t.shape[1]) for key, t in content(name).items() if key.startswith("out_"))


def expected(name: str, size: tuple[int, int]) -> np.ndarray:
    return content(name)[f"out_{size[0]}x{size[1]}"].numpy()


def ordinary(name: str, size: tuple[int, int]) -> tuple[np.ndarray, ...]:
    """Index of the outputs at which the published blend is not rounding noise."""
    cells = content(name)["image"].shape[:2]
    return np.ix_(*(~noise(n, c) for n, c in zip(size, cells, strict=True)))


def image(name: str, dtype: torch.dtype = FP32) -> torch.Tensor:
    return content(name)["image"].to(dtype) / 255


def encoder_of(name: str, dtype: torch.dtype) -> Encoder:
    head = Decoder(weights(name), CPU, FP32, "reference").head
    return Encoder(weights(name), head, CPU, dtype)


@cache
def features(name: str, dtype: torch.dtype) -> torch.Tensor:
    """z [H, W, C] in float64 from the published encoder's, stored as ``dtype``."""
    encoder = encoder_of(name, FP64)
    encoder.mean, encoder.std = encoder.mean.double(), encoder.std.double()
    return encoder(image(name, FP64)).to(dtype)


def decoded(name: str, size: tuple[int, int], dtype: torch.dtype, backend: str, z: torch.Tensor) -> np.ndarray:
    """In network units, the cell not clamped."""
    decoder = Decoder(weights(name), CPU, dtype, backend, threads=2)
    height, width, _ = z.shape
    y, x = (
        grid.axis(grid.centres(0, n, count), n, decoder.local_ensemble)
        for n, count in zip((height, width), size, strict=True)
    )
    cell = [grid.cell(0, n, count, None) for n, count in zip((height, width), size, strict=True)]
    if dtype == FP64:
        out = torch.empty(*size, 3, dtype=FP64)
        term = decoder.first_cell.double() @ torch.tensor(cell, dtype=FP64)[: decoder.first_cell.shape[1]]
        pixels = Pixels(out, False, list(decoder.std), list(decoder.mean), -np.inf, np.inf)
        reference.decode(z, y, x, decoder.layers, term, pixels, 1)
    else:
        out = decoder(z, y, x, cell, torch.empty(*size, 3), peak=np.inf)
    return out.numpy() * 2 - 1


@cache
def exact(name: str, size: tuple[int, int]) -> np.ndarray:
    """The continuous limit: float64 throughout."""
    return decoded(name, size, FP64, "reference", features(name, FP64))


EVERY = [(name, size) for name in GOLDENS for size in sizes(name)]
every_golden = pytest.mark.parametrize(
    ("name", "size"), EVERY, ids=lambda v: v if isinstance(v, str) else f"{v[0]}x{v[1]}"
)


def test_goldens_are_all_there() -> None:
    assert {path.stem for path in GOLDEN.glob("*.pth")} == set(GOLDENS)
    assert len(EVERY) >= 12
    flags = [(a.local_ensemble, a.feat_unfold, a.cell_decode) for a in (weights(name).architecture for name in GOLDENS)]
    assert sorted(flags) == [(False, True, True), (True, False, True), (True, True, False), (True, True, True)]
    assert any(noise(n, c).any() for _, size in EVERY for n, c in zip(size, (29, 37), strict=True))


@every_golden
@pytest.mark.parametrize("dtype", [FP32, FP64])
def test_published_algorithm(name: str, size: tuple[int, int], dtype: torch.dtype) -> None:
    out = published.upscale(weights(name), image(name, dtype).permute(2, 0, 1), size, queries=7000)
    at = ordinary(name, size)
    np.testing.assert_allclose(
        (out * 2 - 1).permute(1, 2, 0).numpy()[at], expected(name, size)[at], rtol=0, atol=TOLERANCE
    )


@every_golden
def test_exact_limit(name: str, size: tuple[int, int]) -> None:
    """The yardstick of the tests below is itself the golden."""
    at = ordinary(name, size)
    np.testing.assert_allclose(exact(name, size)[at], expected(name, size)[at], rtol=0, atol=TOLERANCE)


@every_golden
def test_reference_backend(name: str, size: tuple[int, int]) -> None:
    out = decoded(name, size, FP32, "reference", encoder_of(name, FP32)(image(name)))
    at = ordinary(name, size)
    np.testing.assert_allclose(out[at], expected(name, size)[at], rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(out, exact(name, size), rtol=0, atol=TOLERANCE)


@every_golden
def test_cpu_backend(name: str, size: tuple[int, int], isa: str) -> None:
    out = decoded(name, size, FP32, "cpu", encoder_of(name, FP32)(image(name)))
    at = ordinary(name, size)
    np.testing.assert_allclose(out[at], expected(name, size)[at], rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(out, exact(name, size), rtol=0, atol=TOLERANCE)


@every_golden
def test_cpu_backend_bf16(name: str, size: tuple[int, int], isa: str) -> None:
    z = features(name, BF16)
    ours, plain = (
        np.abs(decoded(name, size, BF16, backend, z) - exact(name, size)) for backend in ("cpu", "reference")
    )
    assert ours.max() <= 2 * plain.max()
    assert np.sqrt((ours**2).mean()) <= 2 * np.sqrt((plain**2).mean())
    assert plain.max() < 0.05


@every_golden
def test_public_face(name: str, size: tuple[int, int], isa: str) -> None:
    up = Upscaler(GOLDEN / f"{name}.pth", device="cpu", precision="fp32", backend="cpu", cell_clamp=None)
    assert f"({taken(isa, FP32)})" in up.description
    out = up(image(name).numpy(), size=size)
    at = ordinary(name, size)
    wanted = (expected(name, size) * 0.5 + 0.5).clip(0, 1)
    np.testing.assert_allclose(out[at], wanted[at], rtol=0, atol=TOLERANCE)
    as_bytes = up(content(name)["image"].numpy(), size=size)
    assert np.abs(as_bytes[at] - wanted[at] * 255).max() <= 0.5 + 255 * TOLERANCE


def test_continuous_at_the_noise() -> None:
    """Where the published blend fails, ours has the value that its surroundings approach."""
    field = Upscaler(GOLDEN / "tiny.pth", device="cpu", precision="fp32", cell_clamp=None).encode(image("tiny").numpy())
    height, width = 28.5, 36.5  # the last cell's centre
    for y, x in ((height, 11.3), (7.7, width), (height, width)):
        near = [(y + dy, x + dx) for dy in (-1e-4, 0, 1e-4) for dx in (-1e-4, 0, 1e-4)]
        colors = field.sample(near)
        assert np.ptp(colors, axis=0).max() < 1e-3
        assert np.ptp(field.sample([(y - 1, x - 1), (y, x)]), axis=0).max() > 1e-2
