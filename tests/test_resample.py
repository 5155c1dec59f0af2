"""The resampling decoder: its taps, every instruction set against float64, and the whole way through `Upscaler`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from common import BF16, CPU, FP32, FP64, ROUNDING, random_weights, supported_isas
from liif_fast import Upscaler, checkpoint, grid, resample
from liif_fast.architecture import FACTOR
from liif_fast.backends.cpu import BF16_ISAS, ISA_VARIABLE
from liif_fast.checkpoint import Architecture
from liif_fast.grid import TAPS, Taps
from liif_fast.pixels import OUT_RANGE
from liif_fast.resample import Resampler, shares, to_layout

WEIGHTS = random_weights(Architecture(1, 16, (16,), decoder="resample"), seed=2)
MLP = [tensor.double() * 0.3 for name, tensor in WEIGHTS.tensors.items() if name.startswith("taps.")]
CUBIC = [torch.zeros_like(tensor) for tensor in MLP]
SCALES = [0.5, 1, 1.7, 2, 3, 3.7, 4, 8, 30]


def table(size: int, cells: int, mlp: list[torch.Tensor] = MLP, clamp: float = 4.0) -> Taps:
    cell = grid.cell(0, cells, size, clamp)
    return grid.taps(grid.centres(0, cells, size), cells, lambda distance: shares(distance, cell, mlp))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("cells", [1, 2, 7, 50])
def test_taps_sum_to_one_and_are_symmetric(scale: float, cells: int) -> None:
    size = max(1, round(cells * scale))
    found = table(size, cells)
    torch.testing.assert_close(found.taps.sum(1), torch.ones(size))
    assert found.first.min() >= 0
    assert found.first.max() <= max(0, FACTOR * cells - TAPS)
    assert not found.taps[:, FACTOR * cells :].any()
    # The picture mirrored is the table mirrored.
    dense = torch.zeros(size, max(TAPS, FACTOR * cells))
    dense.scatter_add_(1, found.first[:, None] + torch.arange(TAPS), found.taps)
    dense = dense[:, : FACTOR * cells]
    torch.testing.assert_close(dense, dense.flip(0, 1), atol=1e-6, rtol=0)


def test_taps_are_continuous() -> None:
    """A small step of the position is a small step of what it sees, also where a tap leaves and another enters."""
    positions = np.linspace(5, 7, 40_001)
    for cell in (0.5, 0.9, 2.0):
        found = grid.taps(positions, 12, lambda distance, cell=cell: shares(distance, cell, MLP))
        line = torch.sin(torch.arange(FACTOR * 12) * 1.3)
        seen = (found.taps * line[found.first[:, None] + torch.arange(TAPS)]).sum(1)
        assert seen.diff().abs().max() < 2e-3


def test_untrained_taps_are_the_cubic() -> None:
    """At x4 output and fine picture coincide; beyond it the taps interpolate as Pillow's and MATLAB's bicubic does."""
    same = table(40, 10, CUBIC)
    identity = torch.zeros(40, 40).scatter_add_(1, same.first[:, None] + torch.arange(TAPS), same.taps)
    torch.testing.assert_close(identity, torch.eye(40), atol=1e-6, rtol=0)
    line = torch.rand(40, dtype=FP64)
    twice = table(80, 10, CUBIC)
    ours = (twice.taps.double() * line[twice.first[:, None] + torch.arange(TAPS)]).sum(1)
    padded = F.pad(line[None], (4, 4), mode="replicate")[0]
    theirs = F.interpolate(padded[None, None, None], scale_factor=(1, 2), mode="bicubic")[0, 0, 0, 8:-8]
    assert (ours - theirs)[4:-4].abs().max() < 0.06  # PyTorch's cubic has a = -0.75, ours -0.5


def test_gradients_reach_the_taps() -> None:
    mlp = [tensor.clone().requires_grad_() for tensor in MLP]
    found = grid.taps(np.array([3.3, 4.1]), 9, lambda distance: shares(distance, 0.7, mlp))
    (found.taps * torch.arange(TAPS)).sum().backward()
    assert all(tensor.grad is not None and tensor.grad.abs().sum() > 0 for tensor in mlp[:-1])


def exact(z: torch.Tensor, y: Taps, x: Taps) -> np.ndarray:
    """The definition, in float64: pixel shuffle, pad, two sums."""
    shuffled = z.double().view(*z.shape[:2], FACTOR, 3, FACTOR).permute(3, 0, 2, 1, 4)
    fine = F.pad(shuffled.reshape(3, FACTOR * z.shape[0], FACTOR * z.shape[1]), (0, TAPS, 0, TAPS))
    at = torch.arange(TAPS)
    rows = torch.einsum("nk,cnkw->cnw", y.taps.double(), fine[:, y.first[:, None] + at])
    return torch.einsum("ml,cnml->nmc", x.taps.double(), rows[:, :, x.first[:, None] + at]).numpy()


SMALL = [((1, 1), (3, 5)), ((5, 7), (20, 28)), ((7, 3), (5, 11)), ((3, 2), (97, 1))]
LONG = [((2, 530), (5, 2131)), ((2, 530), (3, 600)), ((2, 530), (8, 2120)), ((5, 33), (20, 132))]


def check_decoder(
    decoder: Resampler, out_dtype: torch.dtype, shapes: Sequence[tuple[Any, Any]] = (*SMALL, *LONG)
) -> None:
    """Against float64, on sizes of one, odd ones, and rows longer than a strip; and no byte beside the output."""
    generator = torch.Generator().manual_seed(0)
    for cells, size in shapes:
        z = (torch.randn(cells[0], cells[1] + 2, 48, generator=generator) * 0.6).to(decoder.dtype)[:, 1:-1]
        y, x = (table(n, c) for n, c in zip(size, cells, strict=True))
        white = OUT_RANGE[out_dtype]
        wanted = ((exact(z, y, x) * 0.5 + 0.5) * white).clip(0, white)
        for layout in ("hwc", "chw", "window"):
            whole = torch.full((size[0] + 2, size[1] + 2, 3), 77).to(out_dtype)
            out = whole[1:-1, 1:-1] if layout == "window" else torch.empty(*size, 3).to(out_dtype)
            if layout == "chw":
                out = torch.empty(3, *size).to(out_dtype).permute(1, 2, 0)
            decoder(z, y, x, (0.5, 0.5), out)
            error = np.abs(out.numpy().astype(np.float64) - wanted).max()
            assert error <= ROUNDING[out_dtype] + white * 3e-6, (cells, size, layout)
            if layout == "window":
                whole[1:-1, 1:-1] = whole[0, 0]
                assert (whole == whole[0, 0]).all(), "wrote outside its output"


@pytest.mark.parametrize("backend", ["reference", *supported_isas()])
@pytest.mark.parametrize("dtype", [FP32, BF16], ids=str)
@pytest.mark.parametrize("out_dtype", OUT_RANGE, ids=str)
def test_decodes(backend: str, dtype: torch.dtype, out_dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    isa = backend if backend != "reference" else None
    if isa:
        monkeypatch.setenv(ISA_VARIABLE, isa)
    decoder = Resampler(WEIGHTS, CPU, dtype, "cpu" if isa else "reference", threads=2)
    assert isa is None or isa in decoder.description or isa in BF16_ISAS
    check_decoder(decoder, out_dtype)


def empty(rows: int, columns: int, dtype: torch.dtype, planar: bool) -> torch.Tensor:
    return (
        torch.empty(3, rows, columns).to(dtype).permute(1, 2, 0) if planar else torch.empty(rows, columns, 3).to(dtype)
    )


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("dtype", [torch.uint8, FP32], ids=str)
@pytest.mark.parametrize("scale", [1.3, 2, 2.7, 3.7, 4, 8, 30])
def test_a_pixel_is_the_same_bits_in_any_window(isa: str, scale: float, dtype: torch.dtype, planar: bool) -> None:
    """However far apart its neighbours read, at a strip's end or within, in any row, and whoever else is at work."""
    cells, size = (9, 90), (round(9 * scale), round(90 * scale))
    z, decoder = torch.randn(*cells, 48), Resampler(WEIGHTS, CPU, FP32, "cpu", threads=2)
    y, x = (decoder.tables(grid.centres(0, n, m), n, 2 / scale) for n, m in zip(cells, size, strict=True))
    whole = empty(*size, dtype, planar)
    decoder(z, y, x, (2 / scale, 2 / scale), whole)
    decoder.threads = 1
    windows = [(0, 5), (1, size[1]), (2, 75), (13, 20), (60, size[1] - 1), (size[1] - 9, size[1])]
    for top, (left, right) in enumerate(windows):
        bottom = size[0] - top % 3
        part = empty(bottom - top, right - left, dtype, planar)
        rows, columns = (Taps(t.first[a:b], t.taps[a:b], t.lines) for t, a, b in ((y, top, bottom), (x, left, right)))
        decoder(z, rows, columns, (2 / scale, 2 / scale), part)
        assert torch.equal(part, whole[top:bottom, left:right]), (top, left, right)


@pytest.mark.parametrize("size", [(36, 77), (36, 360), (41, 333)])
def test_what_is_no_number_is_black_in_bytes(isa: str, size: tuple[int, int]) -> None:
    """In whole vectors and in what is left of a row."""
    y, x = table(size[0], 9), table(size[1], 90)
    out = torch.full((*size, 3), 7, dtype=torch.uint8)
    Resampler(WEIGHTS, CPU, FP32, "cpu", threads=1)(torch.full((9, 90, 48), torch.nan), y, x, (0.5, 0.5), out)
    assert not out.any()


@pytest.mark.parametrize("size", [(36, 77), (36, 360), (41, 333)])
def test_bytes_stay_within_what_is_asked(isa: str, size: tuple[int, int]) -> None:
    y, x = table(size[0], 9), table(size[1], 90)
    out = torch.empty(*size, 3, dtype=torch.uint8)
    how = [y.first, y.taps], [x.first, x.taps], False, [100.0] * 3, [120.0] * 3, 60.0, 190.0
    torch.ops.liif_fast.resample(torch.randn(9, 90, 48), *how, "cpu", 1, out)
    assert (int(out.min()), int(out.max())) == (60, 190)


@pytest.mark.parametrize(("rows", "columns"), [(0, 9), (9, 0), (0, 0)])
def test_nothing_to_resample(isa: str, rows: int, columns: int) -> None:
    z, decoder = torch.randn(5, 6, 48), Resampler(WEIGHTS, CPU, FP32, "cpu", threads=2)
    y, x = table(9, 5).part(0, rows), table(9, 6).part(0, columns)
    assert decoder(z, y, x, (0.5, 0.5), torch.empty(rows, columns, 3)).shape == (rows, columns, 3)
    y, x = y.part(0, 0), x.part(0, 0)
    assert decoder(z, y, x, (0.5, 0.5), torch.empty(0, 3), paired=True).shape == (0, 3)


def test_points(isa: str) -> None:
    z = torch.randn(5, 6, 48)
    places = np.random.default_rng(0).random((2, 99))
    y, x = (grid.taps(p * n, n, lambda d: shares(d, 0.5, MLP)) for p, n in zip(places, (5, 6), strict=True))
    found, wanted = torch.empty(99, 3), torch.empty(99, 3)
    Resampler(WEIGHTS, CPU, FP32, "cpu")(z, y, x, (0.5, 0.5), found, paired=True)
    Resampler(WEIGHTS, CPU, FP32, "reference")(z, y, x, (0.5, 0.5), wanted, paired=True)
    torch.testing.assert_close(found, wanted, atol=3e-6, rtol=0)


@pytest.mark.parametrize("bad", ["first", "taps", "falls", "z", "out", "dtype", "device"])
def test_native_code_is_guarded(bad: str) -> None:
    decoder = Resampler(WEIGHTS, CPU, FP32, "cpu")
    z, y, x, out = torch.zeros(4, 4, 48), table(16, 4), table(16, 4), torch.empty(16, 16, 3)
    if bad == "first":
        y = Taps(y.first + 100, y.taps, y.lines)
    elif bad == "taps":
        y = Taps(y.first, y.taps[:, :7].contiguous(), y.lines)
    elif bad == "falls":
        y = Taps(y.first.flip(0).contiguous(), y.taps, y.lines)
    elif bad == "z":
        z = torch.zeros(4, 4, 32)
    elif bad == "out":
        out = torch.empty(16, 15, 3)
    elif bad == "device":  # PyTorch itself sends what has a meta tensor elsewhere
        tables = [y.first, y.taps], [x.first, x.taps.to("meta")]
        with pytest.raises(ValueError, match="z is on cpu, another on meta"):
            resample._resample(z, *tables, False, [1.0] * 3, [0.0] * 3, 0.0, 1.0, "cpu", 1, out)
        return
    else:
        z = z.double()
    with pytest.raises((ValueError, TypeError)):
        decoder(z, y, x, (0.5, 0.5), out)


@pytest.fixture(scope="module")
def up() -> Upscaler:
    return Upscaler(WEIGHTS, precision="fp32")


def test_network_written_out(up: Upscaler) -> None:
    """Encoder, convolution, pixel shuffle, the repeated input, at x4 with untrained taps, in plain PyTorch."""
    tensors = {key: torch.zeros_like(t) if key.startswith("taps.") else t for key, t in WEIGHTS.tensors.items()}
    plain = Upscaler(type(WEIGHTS)(WEIGHTS.architecture, tensors), precision="fp32")
    picture = np.random.default_rng(0).random((6, 9, 3)).astype(np.float32)
    x = torch.from_numpy(picture).permute(2, 0, 1)[None] * 2 - 1

    def conv(name: str, value: torch.Tensor) -> torch.Tensor:
        return F.conv2d(value, tensors[f"{name}.weight"], tensors[f"{name}.bias"], padding=1)

    head = conv("encoder.head.0", x)
    body = head + conv("encoder.body.0.body.2", F.relu(conv("encoder.body.0.body.0", head)))
    fine = F.pixel_shuffle(conv("upsample", head + conv("encoder.body.1", body)), FACTOR)
    fine = fine + F.interpolate(x, scale_factor=FACTOR, mode="nearest")
    wanted = ((fine[0] + 1) / 2).clamp(0, 1).permute(1, 2, 0).numpy()
    np.testing.assert_allclose(plain(picture, scale=4), wanted, atol=2e-5)


def test_layout() -> None:
    channels = torch.arange(48)
    for row, color, column in product(range(4), range(3), range(4)):
        assert to_layout(channels)[(row * 3 + color) * 4 + column] == color * 16 + row * 4 + column


def test_windows_points_tiles_and_kinds(up: Upscaler) -> None:
    picture = np.random.default_rng(0).random((40, 33, 3)).astype(np.float32)
    field = up.encode(picture)
    whole = field.render(scale=3)
    assert np.array_equal(whole, up(picture, scale=3))
    np.testing.assert_allclose(field.render(scale=3, box=(4, 5, 20, 30)), whole[12:60, 15:90], atol=3e-6)
    centres = np.stack(np.meshgrid((np.arange(120) + 0.5) / 3, (np.arange(99) + 0.5) / 3, indexing="ij"), -1)
    np.testing.assert_allclose(
        np.asarray(field.sample(centres.reshape(-1, 2), scale=3)).reshape(120, 99, 3), whole, atol=3e-6
    )
    small = Upscaler(WEIGHTS, precision="fp32", max_memory=200_000)
    np.testing.assert_allclose(small(picture, scale=3), whole, atol=1e-5)
    points = small.encode(picture).sample(centres.reshape(-1, 2)[::37], scale=3)
    np.testing.assert_allclose(np.asarray(points), whole.reshape(-1, 3)[::37], atol=1e-5)
    cell_by_cell = Upscaler(WEIGHTS, precision="fp32", max_memory=1)
    np.testing.assert_allclose(cell_by_cell(picture[:9, :12], scale=3), up(picture[:9, :12], scale=3), atol=1e-5)
    bytes_ = up((picture * 255).astype(np.uint8), size=(77, 100))
    assert (bytes_.dtype, bytes_.shape) == (np.uint8, (77, 100, 3))
    assert up(picture[..., 0], scale=2).shape == (80, 66)
    assert up(np.dstack([picture, picture[..., :1]]), scale=2).shape == (80, 66, 4)
    assert "cpu (" in up.description


def test_flat_colour_stays(up: Upscaler) -> None:
    """Shares sum to one, so a fine picture of one colour is that colour at every scale."""
    tensors = {key: t if key.startswith("taps.") else torch.zeros_like(t) for key, t in WEIGHTS.tensors.items()}
    flat = Upscaler(type(WEIGHTS)(WEIGHTS.architecture, tensors), precision="fp32")
    picture = np.full((9, 7, 3), (10, 128, 251), np.uint8)
    for scale in SCALES:
        assert (flat(picture, scale=scale) == (10, 128, 251)).all()


def test_bf16(up: Upscaler) -> None:
    picture = np.random.default_rng(0).random((20, 20, 3)).astype(np.float32)
    stored = Upscaler(WEIGHTS, precision="bf16")
    error = np.abs(stored(picture, scale=3) - up(picture, scale=3))
    assert 0 < error.max() < 0.05


def test_file(tmp_path) -> None:
    checkpoint.save(tmp_path / "r.safetensors", WEIGHTS, FP32)
    back = checkpoint.load(tmp_path / "r.safetensors")
    assert back.architecture == WEIGHTS.architecture
    assert back.fingerprint == WEIGHTS.fingerprint
    picture = np.random.default_rng(0).random((6, 5, 3)).astype(np.float32)
    whole, loaded = (Upscaler(weights, precision="fp32")(picture, scale=3.7) for weights in (WEIGHTS, back))
    assert np.array_equal(whole, loaded)  # whatever the order of the tensors in the file
    assert "x4 and resampling, taps 16" in back.architecture.summary()
    with pytest.raises(checkpoint.CheckpointError, match="decoder is 'lanczos'"):
        Architecture(1, 16, (16,), decoder="lanczos")


@pytest.mark.parametrize("engine", ["native", "torch"])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_self_ensemble(engine: str, dtype: str) -> None:
    """The mean of what the eight orientations give, each enlarged by itself."""
    weights = random_weights(Architecture(1, 16, (16,), decoder="resample"))
    weights.tensors["upsample.weight"] *= 0.02  # or nearly all would be clamped
    alone = Upscaler(weights, precision=dtype, engine=engine)
    every = Upscaler(weights, precision=dtype, engine=engine, self_ensemble=True)
    assert "self-ensemble" in every.description
    picture = np.random.default_rng(0).random((19, 26, 3)).astype(np.float32)
    size = (44, 71)
    total, free = np.zeros((*size, 3)), np.ones((*size, 3), bool)
    for turn in range(8):
        turned = picture.transpose(1, 0, 2) if turn & 4 else picture
        flips = [axis for axis in (0, 1) if turn >> axis & 1]
        made = alone(np.flip(turned, flips), size=size[::-1] if turn & 4 else size)
        made = np.flip(made, flips)
        made = made.transpose(1, 0, 2) if turn & 4 else made
        total += made
        free &= (made > 0) & (made < 1)  # where one was clamped, their mean is another
    assert free.mean() > 0.5
    found = every(picture, size=size)
    np.testing.assert_allclose(found[free], total[free] / 8, rtol=0, atol=3e-6 if dtype == "fp32" else 8e-3)
    assert np.abs(found - alone(picture, size=size)).max() > 0.01
    in_tiles = Upscaler(weights, precision=dtype, engine=engine, self_ensemble=True, max_memory=1)
    np.testing.assert_allclose(in_tiles(picture, size=size), found, rtol=0, atol=1e-5 if dtype == "fp32" else 4e-3)
    assert np.array_equal(next(every.stream([picture], size=size, at_once=2)), found)


def test_self_ensemble_is_of_fine_pictures() -> None:
    with pytest.raises(ValueError, match="as edsr-baseline-resample, not for edsr-baseline"):
        Upscaler("edsr-baseline", self_ensemble=True)
