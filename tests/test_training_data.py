"""Training batches: what is cut, how it is reduced, and that queries and colours belong together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from liif_fast import grid
from liif_fast.training import data
from liif_fast.training.edges import Edges
from liif_fast.training.resize import area_matrices, nearest_matrices, resize

CPU = torch.device("cpu")


def ramp(height: int, width: int) -> np.ndarray:
    """Red is the row, green the column."""
    y, x = np.mgrid[:height, :width]
    return np.stack([y, x, np.full_like(y, 7)], -1).astype(np.uint8)


def batch_of(arrays: list[np.ndarray], seed: int = 0, patch: int = 16, **options: object) -> data.Batch:
    given = {"count": 12, "queries": 50, "scales": (1.0, 4.0), **options}
    generator = torch.Generator().manual_seed(seed)
    return data.Pictures(arrays, CPU).batch(patch=patch, generator=generator, **given)  # type: ignore[arg-type]


def test_queries_lie_where_their_colours_are() -> None:
    """On a ramp, blending the four neighbours by their shares is bilinear interpolation, and that is exact inside."""
    patch = 16
    batch = batch_of([ramp(140, 101), ramp(80, 250)], patch=patch)
    count, queries = batch.target.shape[:2]
    sample = torch.arange(count).repeat_interleave(queries)
    y, x = (grid.axis(places, patch) for places in (batch.y, batch.x))
    blended = torch.zeros(count * queries, 3)
    for j in range(2):
        for i in range(2):
            colors = batch.lr[sample, :, y.index[j].long(), x.index[i].long()]
            blended += (y.weight[j] * x.weight[i])[:, None] * colors
    margin = 3  # cells whose reduction saw the crop's mirrored border
    inside = torch.ones(count * queries, dtype=torch.bool)
    for axis in (y, x):
        inside &= (axis.index >= margin).all(0) & (axis.index < patch - margin).all(0)
    assert inside.sum() > 100
    difference = 255 * (blended - batch.target.reshape(-1, 3)).abs()[inside]
    assert difference.max() < 1.01  # both are rounded


def test_flips_and_transpositions_all_occur() -> None:
    lr = batch_of([ramp(200, 200)], count=64).lr
    seen = set()
    for patch in lr:
        red, green = patch[0], patch[1]
        transposed = bool((red[:, -1] - red[:, 0]).abs().mean() > (red[-1] - red[0]).abs().mean())
        first, second = (green, red) if transposed else (red, green)
        seen.add((transposed, bool(first[-1, 0] > first[0, 0]), bool(second[0, -1] > second[0, 0])))
    assert len(seen) == 8


def test_lr_is_the_reduced_crop() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    batch = batch_of([picture], patch=20, scales=(2.0, 2.0), count=4)  # the whole picture
    hr = torch.from_numpy(picture).permute(2, 0, 1).float()
    views = [torch.rot90(v, k, (1, 2)) for v in (hr, hr.flip(1)) for k in range(4)]
    expected = torch.stack([resize(v, (20, 20)).round().clamp(0, 255) / 255 for v in views])
    for lr in batch.lr:
        assert (expected - lr).abs().amax((1, 2, 3)).min() < 1.5 / 255  # a sum in another order may round otherwise
    torch.testing.assert_close(batch.cell, torch.full((4, 2), 1.0))


def test_patches_prefer_edges() -> None:
    """Of one place in sixteen with a contour, noise beside it, nothing elsewhere."""
    side = 16 * 16
    picture = np.full((side, side, 3), 128, np.uint8)
    picture[:, 128:] = np.random.default_rng(0).choice([108, 148], (side, 128, 1))
    picture[16:48, 16:48] = 40
    generator = torch.Generator().manual_seed(0)
    found = {}
    for places in (1, 40):
        pictures = data.Pictures([picture], CPU, places=places)
        lr = pictures.batch(40, 32, 10, (1.0, 1.0), generator).lr
        found[places] = float((lr.amin((1, 2, 3)) < 0.2).float().mean())  # the dark square is in sight
    assert found[1] < 0.2
    assert found[40] > 0.4


def test_strength_of_edges() -> None:
    """A step's gradient is half of it in two of sixteen columns, so l1 is its square over 32; along a corner's two
    sides l1 and l2 are equal, and so they are in noise."""
    step, corner = np.zeros((40, 50, 3), np.uint8), np.zeros((16, 16, 3), np.uint8)
    step[:, 24:] = 64
    corner[8:, :8] = corner[:8, 8:] = 64
    edges = Edges([corner, step, step.transpose(1, 0, 2)], CPU)

    def at(*square: int) -> float:
        return float(edges.strength(*(torch.tensor([v]) for v in square)))

    expected = 64 / 32**0.5
    assert at(1, 0, 16, 16) == pytest.approx(expected, abs=1e-4)
    assert at(2, 16, 0, 16) == pytest.approx(expected, abs=1e-4)
    assert at(1, 3, 20, 2) == pytest.approx(expected, abs=1e-4), "its block's"
    assert at(1, 0, 0, 32) == pytest.approx(expected / 2, abs=1e-4)
    assert at(1, 0, 32, 16) == at(2, 0, 0, 16) == 0
    assert at(0, 0, 0, 16) < 0.2 * expected


def test_drawings_keep_hard_edges_in_part() -> None:
    """Patches of a drawing in two colours have either nothing between them (nearest), or only averages of whole
    cells (area), or what no average has (bicubic, which overshoots)."""
    art = np.zeros((60, 60, 3), np.uint8)
    art[::5] = art[:, 7:19] = 200
    generator = torch.Generator().manual_seed(0)
    found: dict[str, int] = dict.fromkeys(("nearest", "area", "bicubic"), 0)
    for pictures in (data.Pictures([art], CPU, drawings=1), data.Pictures([art], CPU)):
        lr = pictures.batch(400, 20, None, (3.0, 3.0), generator).lr
        averages = torch.from_numpy(art[..., 0].reshape(20, 3, 20, 3).mean((1, 3))).float().round().unique() / 255
        for patch in lr:
            levels = patch.unique()
            hard = len(levels) <= 2
            kind = "nearest" if hard else "area" if torch.isin(levels, averages).all() else "bicubic"
            found[kind] += 1
        if pictures.photographs == 0:
            assert 70 < found["nearest"] < 130
            assert 70 < found["area"] < 130
            found = dict.fromkeys(found, 0)
    assert found == {"nearest": 0, "area": 0, "bicubic": 400}


@pytest.mark.parametrize("source", [20, 31, 33, 77])
def test_reductions_of_drawings(source: int) -> None:
    line = np.random.default_rng(source).integers(0, 256, (1, source), dtype=np.uint8)
    values, sources = torch.from_numpy(line[0]).float(), torch.tensor([source])
    nearest = nearest_matrices(sources, 20, 80)[0, :, :source] @ values
    np.testing.assert_array_equal(nearest, np.array(Image.fromarray(line).resize((20, 1), Image.Resampling.NEAREST))[0])
    area = area_matrices(sources, 20, 80)[0]
    assert not area[:, source:].any()
    fine = values.repeat_interleave(20).view(20, source).mean(1)  # each sample 20 times, then averaged by whole ones
    torch.testing.assert_close(area[:, :source] @ values, fine, rtol=1e-5, atol=1e-4)


def test_scales_are_spread() -> None:
    cell = batch_of([ramp(200, 200)], count=400).cell[:, 0]
    scale = 2 / cell
    assert scale.min() < 1.1
    assert scale.max() > 3.9
    assert abs(scale.mean() - 2.5) < 0.2
    grids = torch.cat([2 / batch_of([ramp(80, 80)], seed, count=2, queries=None).cell[:1, 0] for seed in range(100)])
    assert grids.min() < 1.1
    assert grids.max() > 3.9
    assert abs(grids.mean() - 2.5) < 0.3


def test_small_pictures_give_what_they_have() -> None:
    batch = batch_of([ramp(20, 30)], patch=16, count=50)
    assert (2 / batch.cell).max() <= 20 / 16 + 1e-6
    assert batch.lr.shape == (50, 3, 16, 16)


def test_seed_decides() -> None:
    a, b, c = (batch_of([ramp(100, 100)], seed) for seed in (1, 1, 2))
    assert torch.equal(a.lr, b.lr)
    assert torch.equal(a.target, b.target)
    assert not torch.equal(a.target, c.target)


def test_folder(tmp_path: Path) -> None:
    for name in ("deeper", ".trash"):
        (tmp_path / name).mkdir()
    Image.fromarray(ramp(60, 50)).save(tmp_path / ".trash" / "hidden.png")
    Image.fromarray(ramp(60, 50)).save(tmp_path / "deeper" / "color.png")
    Image.fromarray(ramp(60, 50)[..., 0]).save(tmp_path / "gray.png")
    Image.fromarray(ramp(10, 50)).save(tmp_path / "small.png")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    (tmp_path / "notes.txt").write_text("not a picture")
    arrays, skipped = data.load([tmp_path], least=48)
    assert [a.shape for a in arrays] == [(60, 50, 3)] * 2
    assert sorted(s.path.name for s in skipped) == ["broken.jpg", "small.png"]
    assert "50 x 10 pixels" in " ".join(map(str, skipped))


def test_no_usable_picture(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no usable training picture"):
        data.load([tmp_path], least=48)
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    for name in "small.png", "smaller.png":
        Image.fromarray(ramp(10, 50)).save(tmp_path / name)
    counts = r"\(2 with a side of less than 48 pixels, 1 that cannot be read; first: .*broken\.jpg: .*\)$"
    with pytest.raises(ValueError, match=counts):
        data.load([tmp_path], least=48)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        data.load([tmp_path / "nowhere"], least=48)


@pytest.mark.parametrize("seed", range(3))
def test_a_grid_is_the_whole_crop(seed: int) -> None:
    """Its colours lie where a scattered query finds them, and what is past the crop's end does not count. All have one
    scale but for pictures too small for it."""
    patch = 16
    batch = batch_of([ramp(140, 101), ramp(80, 250), ramp(18, 18)], seed, patch, queries=None)
    count, sides = len(batch.lr), (2 * patch / batch.cell[:, 0]).round().long()
    widest = int(sides.max())
    assert set(sides.tolist()) == {18, widest}
    assert 18 < widest <= 64
    assert batch.target.shape == (count, widest, widest, 3)
    torch.testing.assert_close(batch.share.sum((1, 2)), torch.full((count,), 1 / count))
    for place, axis in ((batch.y.view(count, -1), 1), (batch.x.view(count, -1), 2)):
        counts = batch.share.amax(3 - axis) > 0
        assert torch.equal(counts.sum(1), sides)
        middle = (torch.arange(widest) + 0.5) * patch / sides[:, None]
        torch.testing.assert_close(place[counts], middle[counts].double(), rtol=1e-6, atol=0)
    inside = batch.share > 0
    for axis in (1, 2):  # neighbours on a ramp differ by one level
        both = inside & inside.roll(1, axis)
        both.select(axis, 0).fill_(False)
        steps = (255 * (batch.target - batch.target.roll(1, axis)))[both]
        torch.testing.assert_close(steps.abs().sum(-1), torch.ones(len(steps)))


@pytest.mark.parametrize("queries", [None, 50])
@pytest.mark.parametrize(("scales", "widest"), [((1.0, 4.0), 64), ((1.0, 2.28), 36), ((1.0, 16.0), 101)])
def test_batches_of_one_shape(queries: int | None, scales: tuple[float, float], widest: int) -> None:
    """As wide as the widest crop there can be, with the same in it."""
    for seed in range(5):
        made = []
        for fixed in (False, True):
            pictures = data.Pictures([ramp(140, 101), ramp(80, 250), ramp(18, 18)], CPU, drawings=1)
            assert not pictures.fixed, "on a processor every batch is as small as can be"
            pictures.fixed = fixed
            made.append(pictures.batch(6, 16, queries, scales, torch.Generator().manual_seed(seed)))
        one, other = made
        torch.testing.assert_close(other.lr, one.lr, rtol=0, atol=1.01 / 255)  # sums in another order
        assert torch.equal(other.cell, one.cell)
        if queries:
            assert all(torch.equal(getattr(one, name), getattr(other, name)) for name in ("y", "x", "target", "share"))
            continue
        wide = one.target.shape[1]
        assert other.target.shape == (6, widest, widest, 3)
        assert torch.equal(other.target[:, :wide, :wide], one.target)
        assert torch.equal(other.share[:, :wide, :wide], one.share)
        assert not other.share[:, wide:].any()
        assert not other.share[:, :, wide:].any()
        assert torch.equal(other.y.view(6, -1)[:, :wide], one.y.view(6, -1))
