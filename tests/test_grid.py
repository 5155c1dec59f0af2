"""grid: the tables against the paper's coordinates, sizes, boxes, cells."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from liif_fast import grid

CELLS, SIZES = st.integers(1, 300), st.integers(1, 900)
settings.register_profile("grid", deadline=None, max_examples=150)
in_profile = settings(settings.get_profile("grid"))


def paper(size: int, cells: int, ensemble: bool, dtype: torch.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Along one axis, literally as the official code has it: index and relative coordinate [sides, size]."""
    coord = -1 + 1 / size + (2 / size) * torch.arange(size, dtype=dtype)
    centres = -1 + 1 / cells + (2 / cells) * torch.arange(cells, dtype=dtype)
    index, relative = [], []
    for shift in (-1, 1) if ensemble else (0,):
        near = coord + shift * (2 / cells / 2) + (1e-6 if ensemble else 0)
        near = near.clamp(-1 + 1e-6, 1 - 1e-6)
        # grid_sample, mode nearest, align_corners False.
        picked = (((near + 1) * cells - 1) / 2).round().clamp(0, cells - 1).long()
        index.append(picked)
        relative.append((coord - centres[picked]) * cells)
    return torch.stack(index).numpy(), torch.stack(relative).double().numpy()


def tied(size: int, cells: int) -> np.ndarray:
    """Queries so near the border between two cells that rounding decides, where the paper's shift does not."""
    at = (np.arange(size) + 0.5) * cells / size
    return np.abs(at - np.rint(at)) < 1e-4


def whole(size: int, cells: int, ensemble: bool = True) -> grid.Axis:
    return grid.axis(grid.centres(0, cells, size), cells, ensemble)


@in_profile
@given(size=SIZES, cells=CELLS, ensemble=st.booleans())
def test_tables_are_the_papers(size: int, cells: int, ensemble: bool) -> None:
    axis = whole(size, cells, ensemble)
    for dtype, within in ((torch.float64, 1e-6), (torch.float32, 1e-6 * cells + 1e-6)):
        index, relative = paper(size, cells, ensemble, dtype)
        # Without the shift, rounding errors decide ties; with it, float32 does nearly the same for large pictures.
        sure = ~tied(size, cells) if not ensemble else np.ones(size, bool)
        if ensemble and dtype == torch.float32:
            at = (np.arange(size) + 0.5) * cells / size + 0.5  # ties of the shifted queries
            sure = np.abs(at + cells * 5e-7 - np.rint(at + cells * 5e-7)) > 2e-7 * cells
        np.testing.assert_array_equal(axis.index.numpy()[:, sure], index[:, sure])
        np.testing.assert_allclose(axis.offset.numpy()[:, sure], relative[:, sure], rtol=0, atol=within)


@in_profile
@given(size=SIZES, cells=CELLS, ensemble=st.booleans())
def test_tables_are_tables(size: int, cells: int, ensemble: bool) -> None:
    axis = whole(size, cells, ensemble)
    sides = 2 if ensemble else 1
    for part, dtype in ((axis.index, torch.int32), (axis.offset, torch.float32), (axis.weight, torch.float32)):
        assert part.shape == (sides, size)
        assert part.dtype == dtype
        assert part.is_contiguous()
    assert axis.size == size
    index = axis.index.numpy()
    assert index.min() >= 0
    assert index.max() < cells
    assert (np.diff(index, axis=1) >= 0).all()
    assert (np.diff(index, axis=0) >= 0).all()
    assert (np.diff(index, axis=0) <= 1).all()
    assert (axis.weight.numpy() >= 0).all()
    np.testing.assert_allclose(axis.weight.numpy().sum(axis=0), 1, rtol=0, atol=2e-7)
    # Index and offset together say where the query is.
    at = (index + 0.5) + axis.offset.numpy() / 2
    np.testing.assert_allclose(at, np.broadcast_to(grid.centres(0, cells, size), at.shape), rtol=0, atol=1e-6)
    # A neighbour is at most one cell away, beyond the outermost centres half a cell more.
    assert np.abs(axis.offset.numpy()).max() <= 2 + 1e-5
    assert ensemble or np.abs(axis.offset.numpy()).max() <= 1 + 1e-5


@in_profile
@given(size=SIZES, cells=st.integers(2, 300))
def test_weights_are_linear_interpolation_between_centres(size: int, cells: int) -> None:
    """The paper's opposite rectangle is what bilinear interpolation between cell centres gives, edges repeated."""
    axis = whole(size, cells)
    at = grid.centres(0, cells, size) - 0.5
    ours = (axis.weight.double() * axis.index.double()).sum(dim=0).numpy()
    inside = (at > 0) & (at < cells - 1)
    np.testing.assert_allclose(ours[inside], at[inside], rtol=0, atol=1e-4)
    np.testing.assert_allclose(ours[~inside], at[~inside].clip(0, cells - 1), rtol=0, atol=1e-4)


@in_profile
@given(
    height=st.integers(1, 40), width=st.integers(1, 40), y=st.floats(0, 1), x=st.floats(0, 1), ensemble=st.just(True)
)
def test_weights_are_opposite_areas(height: int, width: int, y: float, x: float, ensemble: bool) -> None:
    """Products of the two axes' weights are eq. 4: the area of the opposite rectangle over the sum of the four."""
    rows, columns = (grid.axis(np.array([p * n]), n, ensemble) for p, n in ((y, height), (x, width)))
    ry, rx = rows.offset[:, 0].double().numpy(), columns.offset[:, 0].double().numpy()
    areas = np.abs(np.outer(ry, rx))
    assume(areas.sum() > 1e-3)
    weights = np.outer(rows.weight[:, 0].numpy(), columns.weight[:, 0].numpy())
    np.testing.assert_allclose(weights, areas[::-1, ::-1] / areas.sum(), rtol=0, atol=1e-5)


@in_profile
@given(data=st.data(), size=SIZES, cells=CELLS, ensemble=st.booleans())
def test_part(data: st.DataObject, size: int, cells: int, ensemble: bool) -> None:
    axis = whole(size, cells, ensemble)
    start = data.draw(st.integers(0, size))
    stop = data.draw(st.integers(start, size))
    origin = int(axis.index[:, start:stop].min()) if stop > start else 0
    part = axis.part(start, stop, origin)
    assert part.size == stop - start
    assert torch.equal(part.index, axis.index[:, start:stop] - origin)
    assert torch.equal(part.offset, axis.offset[:, start:stop])
    assert torch.equal(part.weight, axis.weight[:, start:stop])
    assert all(t.is_contiguous() for t in (part.index, part.offset, part.weight))
    assert part.index.dtype == torch.int32
    moved = part.to(torch.device("cpu"))
    assert torch.equal(moved.index, part.index)


@in_profile
@given(data=st.data(), cells=CELLS, size=st.integers(2, 400))
def test_a_window_is_a_part_of_the_whole(data: st.DataObject, cells: int, size: int) -> None:
    """The centres of a window that is some whole output pixels are these pixels' centres."""
    first = data.draw(st.integers(0, size - 1))
    last = data.draw(st.integers(first + 1, size))
    window = grid.centres(first * cells / size, last * cells / size, last - first)
    np.testing.assert_allclose(window, grid.centres(0, cells, size)[first:last], rtol=0, atol=1e-9 * cells)


def test_known_tables() -> None:
    """Twice two cells, by hand."""
    axis = whole(4, 2)
    assert axis.index.tolist() == [[0, 0, 0, 1], [0, 1, 1, 1]]
    assert axis.offset.tolist() == [[-0.5, 0.5, 1.5, 0.5], [-0.5, -1.5, -0.5, 0.5]]
    assert axis.weight.tolist() == [[0.5, 0.75, 0.25, 0.5], [0.5, 0.25, 0.75, 0.5]]
    alone = whole(4, 2, False)
    assert alone.index.tolist() == [[0, 0, 1, 1]]
    assert alone.offset.tolist() == [[-0.5, 0.5, -0.5, 0.5]]
    assert alone.weight.tolist() == [[1, 1, 1, 1]]


def test_cell() -> None:
    assert grid.cell(0, 10, 40, None) == 0.5
    assert grid.cell(3, 8, 40, None) == 0.25
    assert grid.cell(3, 8, 40, 4) == 0.5
    assert grid.cell(3, 8, 10, 4) == 1


@pytest.mark.parametrize(
    ("request_", "size"),
    [
        ({"scale": 2}, (20, 14)),
        ({"scale": 1.25}, (12, 9)),  # 12.5 -> 12 and 8.75 -> 9
        ({"scale": 0.5}, (5, 4)),  # 3.5 -> 4
        ({"scale": (3, 0.5)}, (30, 4)),
        ({"scale": [1, 2.0]}, (10, 14)),
        ({"scale": np.float32(2)}, (20, 14)),
        ({"size": (11, 13)}, (11, 13)),
        ({"size": [np.int64(11), 5]}, (11, 5)),
        ({"size": np.array([11, 5])}, (11, 5)),
        ({"scale": np.array([3, 0.5])}, (30, 4)),
        ({"longest": 25}, (25, 18)),  # 17.5 -> 18
        ({"longest": 5}, (5, 4)),
        ({"scale": 1e6}, (10_000_000, 7_000_000)),
        ({"size": (grid.MAX_SIDE, 7)}, (grid.MAX_SIDE, 7)),
    ],
)
def test_output_size(request_: dict[str, Any], size: tuple[int, int]) -> None:
    got = grid.output_size(10, 7, **request_)
    assert got == size
    assert all(type(n) is int for n in got)


@pytest.mark.parametrize(
    ("request_", "error", "text"),
    [
        ({}, ValueError, "exactly one of scale, size, longest; got none"),
        ({"scale": 2, "size": (4, 4)}, ValueError, "got scale, size"),
        ({"scale": 2, "longest": 9, "size": (4, 4)}, ValueError, "got scale, size, longest"),
        ({"scale": 0}, ValueError, "positive and finite, got 0"),
        ({"scale": -2}, ValueError, "got -2"),
        ({"scale": math.nan}, ValueError, "got nan"),
        ({"scale": 10**400}, ValueError, "beyond all floats"),
        ({"scale": math.inf}, ValueError, "got inf"),
        ({"scale": (2, math.nan)}, ValueError, "got nan"),
        ({"scale": "2"}, TypeError, "got '2'"),
        ({"scale": True}, TypeError, "got True"),
        ({"scale": (1, 2, 3)}, ValueError, "vertical, horizontal"),
        ({"size": 7}, ValueError, r"size must be \(height, width\), got 7"),
        ({"size": (7,)}, ValueError, "size must be"),
        ({"size": np.zeros((2, 2), int)}, ValueError, "size must be"),
        ({"scale": np.array(2.0)}, ValueError, "a number or"),
        ({"size": (7, 8, 9)}, ValueError, "size must be"),
        ({"size": (7.0, 8)}, TypeError, "whole pixels, got 7.0"),
        ({"size": (True, 8)}, TypeError, "got True"),
        ({"size": (0, 8)}, ValueError, "at least 1 pixel, got 0"),
        ({"size": (-7, 8)}, ValueError, "got -7"),
        ({"size": (grid.MAX_SIDE + 1, 8)}, ValueError, "too large"),
        ({"scale": 1e7}, ValueError, "too large"),
        ({"scale": 1e300}, ValueError, r"output of 7e\+300 x 1e\+301 pixels is too large"),
        ({"scale": 1e308}, ValueError, "too large"),
        ({"longest": 10**400}, ValueError, "may exceed 16777216, got a number of 401 digits"),
        ({"size": (8, 20_000_000)}, ValueError, "got 20000000"),
        ({"longest": 0}, ValueError, "got 0"),
        ({"longest": 20.0}, TypeError, "got 20.0"),
        ({"longest": 4}, ValueError, "below 0.5"),
        ({"scale": 0.4}, ValueError, "below 0.5"),
        ({"scale": (1, 0.3)}, ValueError, "scale 0.3 is below 0.5"),
        ({"size": (4, 7)}, ValueError, r"10 -> 4 pixels"),
    ],
)
def test_output_size_refuses(request_: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        grid.output_size(10, 7, **request_)


@in_profile
@given(height=st.integers(1, 5000), width=st.integers(1, 5000), scale=st.floats(0.5, 64))
def test_every_scale_from_half_up_is_taken(height: int, width: int, scale: float) -> None:
    """Rounding to whole pixels never makes an allowed scale a refused one."""
    rows, columns = grid.output_size(height, width, scale=scale)
    assert abs(rows - height * scale) <= 0.5
    assert abs(columns - width * scale) <= 0.5


@in_profile
@given(height=st.integers(1, 3000), width=st.integers(1, 3000), longest=st.integers(1, 6000))
def test_longest_keeps_the_aspect(height: int, width: int, longest: int) -> None:
    assume(2 * longest >= max(height, width))
    rows, columns = grid.output_size(height, width, longest=longest)
    assert max(rows, columns) == longest
    assert abs(rows * width - columns * height) <= max(width, height) / 2 or min(rows, columns) == 1


def test_longest_of_a_thin_picture() -> None:
    assert grid.output_size(1, 1000, longest=500) == (1, 500)
    assert grid.output_size(1000, 3, longest=4000) == (4000, 12)


def test_boxes() -> None:
    assert grid.check_box(None, 5, 7) == (0, 0, 5, 7)
    assert grid.check_box((1, 2, 5, 7), 5, 7) == (1, 2, 5, 7)
    assert grid.check_box((0.5, 1.25, 0.75, 6.5), 5, 7) == (0.5, 1.25, 0.75, 6.5)
    for box in (
        (0, 0, 5.1, 7), (-0.1, 0, 5, 7), (0, 0, 5, 8), (2, 0, 2, 7), (3, 0, 2, 7), (0, 5, 5, 4), (0, 0, 5),
        (0, 0, math.nan, 7), (0, math.nan, 5, 7), (0, 0, math.inf, 7), (1, 2, 3, 4, 5),
        (None, 0, 5, 7), ("top", 0, 5, 7), 5, (0, 0, 10**400, 7),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"box .*{re.escape(str(box))}"):
            grid.check_box(box, 5, 7)  # type: ignore[arg-type]


@in_profile
@given(at=st.lists(st.floats(0, 1), min_size=1, max_size=30), cells=CELLS, ensemble=st.booleans())
def test_points_anywhere(at: list[float], cells: int, ensemble: bool) -> None:
    """Points in any order, on edges and corners too."""
    positions = np.array(at) * cells
    axis = grid.axis(positions, cells, ensemble)
    index = axis.index.numpy()
    assert index.min() >= 0
    assert index.max() < cells
    np.testing.assert_allclose(axis.weight.numpy().sum(axis=0), 1, rtol=0, atol=2e-7)
    np.testing.assert_allclose(
        index + 0.5 + axis.offset.numpy() / 2, np.tile(positions, (len(index), 1)), rtol=0, atol=1e-4
    )


def test_tables_go_to_a_gpu_without_a_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """From there they have to be waited for."""
    asked: list[tuple[str, bool]] = []
    positions = grid.centres(0, 7, 11)
    tables = grid.axis(positions, 7), grid.taps(positions, 7, lambda distance: 4 - distance)

    def to(table: torch.Tensor, device: torch.device, non_blocking: bool) -> torch.Tensor:
        asked.append((device.type, non_blocking))
        return table.clone()

    monkeypatch.setattr(torch.Tensor, "to", to)
    for table in tables:
        for device in ("cuda", "cpu"):
            table.to(torch.device(device))
    assert sorted(set(asked)) == [("cpu", False), ("cuda", True)]
    assert len(asked) == 2 * (3 + 2)
