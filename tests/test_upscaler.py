"""The public face: every kind of picture in and out, sizes, windows, points, alpha, threads."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from common import noise, random_weights
from liif_fast import Upscaler, published
from liif_fast.checkpoint import Architecture, Weights
from liif_fast.frame import Frame
from liif_fast.image import Planes

SHALLOW = random_weights(Architecture(1, 16, (16, 16)), seed=5)


@pytest.fixture(scope="module")
def up() -> Upscaler:
    return Upscaler(SHALLOW, precision="fp32")


def random_picture(shape: tuple[int, ...], dtype: type = np.uint8, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).random(shape)
    top = 1.0 if np.issubdtype(dtype, np.floating) else np.iinfo(dtype).max
    return (values * top).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float16, np.float32, np.float64])
@pytest.mark.parametrize("channels", [None, 1, 2, 3, 4])
def test_numpy(up: Upscaler, dtype: type, channels: int | None) -> None:
    shape = (5, 7) if channels is None else (5, 7, channels)
    out = up(random_picture(shape, dtype), size=(11, 17))
    assert type(out) is np.ndarray
    assert out.dtype == dtype
    assert out.shape == (11, 17, *shape[2:])
    assert out.std() > 0


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("shape", [(3, 5, 7), (1, 5, 7), (2, 4, 5, 7), (1, 2, 5, 7)])
def test_torch(up: Upscaler, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    picture = torch.from_numpy(random_picture(shape)).float()
    picture = (picture / 255 if dtype.is_floating_point else picture).to(dtype)
    out = up(picture, scale=2)
    assert (out.dtype, tuple(out.shape)) == (dtype, (*shape[:-2], 10, 14))
    if len(shape) == 4:
        for one, many in zip(picture, out, strict=True):
            assert torch.equal(up(one, scale=2), many)


@pytest.mark.parametrize("max_memory", [None, 1])
def test_planes_are_written_as_planes(max_memory: int | None) -> None:
    """Without a transposition afterwards; in one piece or in tiles."""
    up = Upscaler(random_weights(Architecture(1, 16, (16, 16))), precision="fp32", max_memory=max_memory)
    pixels = random_picture((40, 90, 3))
    planes = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
    assert np.array_equal(up(planes, size=(63, 130)).permute(1, 2, 0).numpy(), up(pixels, size=(63, 130)))
    for color, planar in ((planes.permute(1, 2, 0), True), (torch.from_numpy(pixels), False)):
        made = Frame(Planes(color, None), up._field, max_memory or 1 << 28).render((63, 130), None, None).color
        assert made.permute(2, 0, 1).is_contiguous() == planar
        assert made.is_contiguous() != planar


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "1", "CMYK", "I;16", "F"])
def test_pillow(up: Upscaler, mode: str) -> None:
    picture = Image.fromarray(random_picture((5, 7, 3)))
    source = Image.fromarray(random_picture((5, 7), np.uint16)) if mode == "I;16" else picture.convert(mode)
    if mode == "F":
        source = Image.fromarray(random_picture((5, 7), np.float32))
    out = up(source, scale=3)
    assert isinstance(out, Image.Image)
    assert out.size == (21, 15)
    assert out.mode == {"P": "RGB", "1": "L", "CMYK": "RGB"}.get(mode, mode)


def test_kinds_agree(up: Upscaler) -> None:
    array = random_picture((6, 9, 3))
    expected = up(array, scale=2)
    assert np.array_equal(np.asarray(up(Image.fromarray(array), scale=2)), expected)
    tensor = up(torch.from_numpy(array).permute(2, 0, 1), scale=2)
    assert np.array_equal(tensor.permute(1, 2, 0).numpy(), expected)
    assert np.array_equal(up(np.asfortranarray(array), scale=2), expected)
    assert np.array_equal(up(np.repeat(array, 2, 1)[:, ::2], scale=2), expected)
    floats = up(array.astype(np.float32) / 255, scale=2)
    assert np.abs(floats * 255 - expected).max() < 0.501
    gray = up(array[..., 0], scale=2)
    assert np.array_equal(up(array[..., :1], scale=2)[..., 0], gray)
    color = up(np.repeat(array[..., :1], 3, -1).astype(np.float32) / 255, scale=2)
    assert np.abs(color.mean(-1) * 255 - gray).max() < 0.501


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 9, 3), (7, 1, 3), (1, 2, 1)])
def test_least_pictures(up: Upscaler, shape: tuple[int, ...]) -> None:
    out = up(random_picture(shape), scale=(5, 3))
    assert out.shape == (5 * shape[0], 3 * shape[1], shape[2])


@pytest.mark.parametrize(
    ("request_", "size"),
    [
        ({"scale": 1}, (12, 20)),
        ({"scale": 3.7}, (44, 74)),
        ({"scale": (0.5, 2)}, (6, 40)),
        ({"scale": 64}, (768, 1280)),
        ({"size": (13, 21)}, (13, 21)),
        ({"longest": 50}, (30, 50)),
    ],
    ids=str,
)
def test_sizes(up: Upscaler, request_: dict, size: tuple[int, int]) -> None:
    assert up(random_picture((12, 20, 3)), **request_).shape == (*size, 3)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(
    height=st.integers(1, 12), width=st.integers(1, 12), scales=st.tuples(st.floats(0.5, 6), st.floats(0.5, 6)),
    seed=st.integers(0, 9),
)  # fmt: skip
def test_equals_the_published_algorithm(height: int, width: int, scales: tuple[float, float], seed: int) -> None:
    size = max(1, round(height * scales[0] + 0.5)), max(1, round(width * scales[1] + 0.5))
    picture = random_picture((height, width, 3), np.float32, seed)
    ours = Upscaler(SHALLOW, precision="fp32", cell_clamp=None)(picture, size=size)
    exact = published.upscale(SHALLOW, torch.from_numpy(picture).permute(2, 0, 1).double(), size)
    theirs = exact.permute(1, 2, 0).clamp(0, 1).numpy()
    # There the published blend is a quotient of rounding errors.
    fine = ~(noise(size[0], height)[:, None] | noise(size[1], width))
    assert np.abs(ours - theirs)[fine].max(initial=0) < 2e-5


def test_cell_clamp(up: Upscaler) -> None:
    picture = random_picture((4, 4, 3), np.float32)
    paper = Upscaler(SHALLOW, precision="fp32", cell_clamp=None)
    assert np.array_equal(up(picture, scale=4), paper(picture, scale=4))
    assert not np.array_equal(up(picture, scale=9), paper(picture, scale=9))


def test_windows(up: Upscaler) -> None:
    picture = random_picture((9, 12, 3), np.float32)
    field = up.encode(picture)
    whole = field.render(scale=4)
    assert np.array_equal(whole, up(picture, scale=4))
    window = field.render(scale=4, box=(2, 3, 7, 10.5))
    np.testing.assert_allclose(window, whole[8:28, 12:42], atol=2e-6)
    # A window of fractions of pixels, and of another scale for each axis.
    free = field.render(size=(10, 33), box=(1.3, 0.25, 1.8, 11.75))
    assert free.shape == (10, 33, 3)
    y, x = 1.3 + (np.arange(10) + 0.5) * 0.05, 0.25 + (np.arange(33) + 0.5) * 11.5 / 33
    points = np.stack(np.meshgrid(y, x, indexing="ij"), -1).reshape(-1, 2)
    assert np.isfinite(field.sample(points)).all()


def test_points(up: Upscaler) -> None:
    picture = random_picture((9, 12, 3), np.float32)
    field = up.encode(picture)
    centres = np.stack(np.meshgrid((np.arange(36) + 0.5) / 4, (np.arange(48) + 0.5) / 4, indexing="ij"), -1)
    found = field.sample(centres.reshape(-1, 2), scale=4)
    np.testing.assert_allclose(np.asarray(found).reshape(36, 48, 3), field.render(scale=4), atol=2e-6)
    # Beyond the clamp as well, where the cell stays as it is at x4.
    far = field.sample((centres.reshape(-1, 2)[::7] // 0.125 + 0.5) * 0.125, scale=8)
    y, x = (centres.reshape(-1, 2)[::7] // 0.125).astype(int).T
    np.testing.assert_allclose(far, field.render(scale=8)[y, x], atol=2e-6)
    with pytest.raises(ValueError, match=r"point \(3.0, 12.5\) is outside the 9 x 12"):
        field.sample(np.array([[3.0, 12.5]]))
    for scale in (-3.0, 0.0, 0.4, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"scale .*{scale}"):
            field.sample(np.array([[3.0, 2.5]]), scale=scale)
    with pytest.raises(TypeError, match="a scale must be a number, got '4'"):
        field.sample(np.array([[3.0, 2.5]]), scale="4")  # type: ignore[arg-type]


@pytest.mark.filterwarnings("error")
def test_points_in_any_array(up: Upscaler) -> None:
    points = np.random.default_rng(0).uniform(0, 9, (5, 2))
    field = up.encode(random_picture((9, 12, 4)))
    wanted = field.sample(points)
    frozen = points.copy()
    frozen.flags.writeable = False
    swapped = points[:, ::-1].copy()
    for same in (frozen, swapped[:, ::-1], points.astype(">f8"), points.astype(np.longdouble), points.tolist()):
        assert np.array_equal(field.sample(same), wanted)
    assert field.sample(torch.from_numpy(points).float()).shape == (5, 4)
    assert field.sample(np.zeros((3, 0, 2))).shape == (3, 0, 4)


@pytest.mark.parametrize("max_memory", [None, 60_000])
def test_encoder_runs_once(max_memory: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    up = Upscaler(SHALLOW, precision="fp32", max_memory=max_memory)
    calls = []
    z = up.encoder.z
    monkeypatch.setattr(up.encoder, "z", lambda x: calls.append(x) or z(x))
    field = up.encode(random_picture((20, 20, 3)))
    once = len(calls)
    assert once == 1 if max_memory is None else once <= 20 * 20
    first = field.render(scale=2)
    field.render(scale=3)
    if max_memory is None:
        assert len(calls) == once
    assert np.array_equal(first, Upscaler(SHALLOW, precision="fp32")(random_picture((20, 20, 3)), scale=2))


@pytest.mark.parametrize("max_memory", [None, 60_000])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_field_stays_when_its_picture_is_overwritten(channels: int, max_memory: int | None) -> None:
    up = Upscaler(SHALLOW, precision="fp32", max_memory=max_memory)
    picture = random_picture((40, 40, channels))
    for source in (picture, torch.from_numpy(picture.copy()).permute(2, 0, 1)):
        field = up.encode(source)
        wanted = np.asarray(field.render(scale=2))
        source[:] = 0
        assert np.array_equal(field.render(scale=2), wanted)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float16, np.float32])
@pytest.mark.parametrize("scale", [0.7, 1, 2.3, 4])
def test_alpha_stays_between_what_is_around(up: Upscaler, dtype: type, scale: float) -> None:
    """Also at the border, where the network sees black beyond; and between its own parts not at all the same."""
    white = 1 if np.issubdtype(dtype, np.floating) else np.iinfo(dtype).max
    alpha = np.zeros((24, 31), dtype)
    alpha[:, 13:] = white
    alpha[8:11, 20:23] = white // 2
    picture = np.dstack([random_picture((24, 31, 3), dtype), alpha])
    found = up(picture, scale=scale)
    drawn = found[..., 3]
    y, x = (((np.arange(n) + 0.5) * cells / n).astype(int) for n, cells in zip(drawn.shape, alpha.shape, strict=True))
    assert (drawn[:, x <= 10] == 0).all()
    assert (drawn[:, (x >= 25) | ((x >= 15) & (x <= 17))] == white).all()
    assert (drawn[y >= 13][:, x >= 15] == white).all()
    if scale > 1:
        assert len(np.unique(drawn)) > 3
    field = up.encode(picture)
    tile = field.render(size=drawn.shape, box=(0, 0, 24, 31))
    assert np.array_equal(tile, found)
    places = np.random.default_rng(0).uniform(0, (24, 10.9), (40, 2))
    assert (field.sample(places)[:, 3] == 0).all()
    assert field.sample([(9.5, 21.5)], scale=4)[0, 3] < 1


def test_opaque_alpha_changes_nothing(up: Upscaler) -> None:
    color = random_picture((8, 9, 3))
    opaque = np.dstack([color, np.full((8, 9), 255, np.uint8)])
    out = up(opaque, scale=3)
    assert np.array_equal(out[..., :3], up(color, scale=3))
    assert (out[..., 3] == 255).all()


def test_no_fringe() -> None:
    """What is painted under full transparency does not show at the edge."""
    up = Upscaler(precision="fp32")
    color = np.full((12, 12, 3), (200, 60, 30), np.uint8)
    alpha = np.zeros((12, 12), np.uint8)
    alpha[:, :6] = 255
    hidden = color.copy()
    hidden[:, 6:] = (0, 255, 0)
    flat = up(np.dstack([color, alpha]), scale=4)
    dirty = up(np.dstack([hidden, alpha]), scale=4)
    visible = flat[..., 3] > 8
    assert 0.4 < visible.mean() < 0.7
    difference = np.abs(flat.astype(int) - dirty)[visible]
    assert difference.max() <= 2
    assert np.abs(dirty[..., :3][visible].astype(int) - (200, 60, 30)).max() <= 6


def test_several_threads_at_once(up: Upscaler) -> None:
    pictures = [random_picture((15 + i, 20, 3), seed=i) for i in range(6)]
    expected = [up(picture, scale=2) for picture in pictures]
    with ThreadPoolExecutor(6) as pool:
        for _ in range(3):
            found = list(pool.map(lambda picture: up(picture, scale=2), pictures))
            assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_says_what_runs_and_that_ran(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from liif_fast.backends import cpu, reference

    up = Upscaler(SHALLOW, precision="bf16", threads=2)
    assert up.description == f"random5, cpu, bf16, cpu ({isa}), 2 threads"
    used = []
    native = cpu._cpu.decode
    monkeypatch.setattr(cpu._cpu, "decode", lambda **given: used.append(given["isa"]) or native(**given))
    monkeypatch.setattr(reference, "decode", None)
    up(random_picture((5, 5, 3)), scale=2)
    assert set(used) == {isa}


def test_reference_backend_agrees(up: Upscaler) -> None:
    picture = random_picture((9, 9, 3), np.float32)
    plain = Upscaler(SHALLOW, precision="fp32", backend="reference")
    assert "reference (PyTorch" in plain.description
    np.testing.assert_allclose(plain(picture, scale=3), up(picture, scale=3), atol=2e-6)
    for channels in (1, 3):
        deep = random_picture((9, 9, channels), np.uint16)
        assert np.abs(plain(deep, scale=3).astype(int) - up(deep, scale=3)).max() <= 1


def test_progress_ends_at_all(up: Upscaler) -> None:
    seen: list[tuple[int, int]] = []
    up(random_picture((30, 40, 4)), scale=4, progress=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1][0] == seen[-1][1]


def test_model_as_weights_or_name(tmp_path) -> None:
    from liif_fast import checkpoint

    checkpoint.save(tmp_path / "mine.safetensors", SHALLOW, torch.float32)
    picture = random_picture((5, 5, 3))
    by_path = Upscaler(tmp_path / "mine.safetensors", precision="fp32")
    assert isinstance(by_path.weights, Weights)
    assert np.array_equal(by_path(picture, scale=2), Upscaler(SHALLOW, precision="fp32")(picture, scale=2))
