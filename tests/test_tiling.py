"""tiling: every output once, every cell it reads inside its crop, crops within the budget."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from liif_fast import grid
from liif_fast.tiling import Span, around, least_cells, least_side, spans, tile_shape

in_profile = settings(deadline=None, max_examples=200)


@in_profile
@given(
    cells=st.integers(1, 200),
    size=st.integers(1, 700),
    ensemble=st.booleans(),
    halo=st.integers(0, 40),
    length=st.integers(1, 220),
    window=st.tuples(st.floats(0, 0.99), st.floats(0.001, 1)),
)
def test_spans(cells: int, size: int, ensemble: bool, halo: int, length: int, window: tuple[float, float]) -> None:
    start = window[0] * cells
    axis = grid.axis(grid.centres(start, start + window[1] * (cells - start), size), cells, ensemble)
    cut = list(spans(axis.index, cells, halo, length))
    covered = [i for span in cut for i in range(span.start, span.stop)]
    assert covered == list(range(size))
    for span in cut:
        assert all(type(v) is int for v in vars(span).values())
        read = axis.index[:, span.start : span.stop]
        first, last = int(read.min()), int(read.max())
        # The whole halo on either side, on to a multiple of four, or the edge of the picture.
        assert span.crop_start == max(0, first - halo) // 4 * 4
        assert span.crop_stop == min(cells, math.ceil((last + 1 + halo) / 4) * 4)
        assert last + 1 - first <= length or span.stop - span.start == 1
    # No span could have taken the next output too.
    for span in cut[:-1]:
        read = axis.index[:, span.start : span.stop + 1]
        assert int(read.max()) + 1 - int(read.min()) > length


def test_known_spans() -> None:
    index = torch.arange(7, dtype=torch.int32)[None]
    assert list(spans(index, 7, 1, 3)) == [Span(0, 3, 0, 4), Span(3, 6, 0, 7), Span(6, 7, 4, 7)]
    both = torch.stack([index[0, :-1], index[0, 1:]])
    assert list(spans(both, 7, 0, 3)) == [Span(0, 2, 0, 4), Span(2, 4, 0, 7), Span(4, 6, 4, 7)]
    # A span too short for even one output's two cells still takes one.
    assert list(spans(both, 7, 0, 1))[:2] == [Span(0, 1, 0, 4), Span(1, 2, 0, 4)]


def cost(height: int, width: int, halo: int, high: int, wide: int) -> int:
    """Cells encoded in all."""
    rows, columns = math.ceil(height / high), math.ceil(width / wide)
    return rows * min(height, high + around(halo)) * columns * min(width, wide + around(halo))


@in_profile
@given(
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    halo=st.integers(0, 36),
    max_cells=st.integers(1, 100_000),
    max_height=st.integers(1, 300),
)
def test_tile_shape(height: int, width: int, halo: int, max_cells: int, max_height: int) -> None:
    high, wide = tile_shape(height, width, halo, max_cells, max_height)
    assert 1 <= high <= min(height, max_height)
    assert 1 <= wide <= width
    fits = min(height, high + around(halo)) * min(width, wide + around(halo)) <= max_cells
    if not fits:  # only where nothing does
        assert (high, wide) == (1, 1)
        assert min(height, 1 + around(halo)) * min(width, 1 + around(halo)) > max_cells


@settings(deadline=None, max_examples=60)
@given(height=st.integers(1, 60), width=st.integers(1, 60), halo=st.integers(0, 9), max_cells=st.integers(700, 4000))
def test_tile_shape_wastes_little(height: int, width: int, halo: int, max_cells: int) -> None:
    """Within a fifth of the best of all shapes that fit."""
    high, wide = tile_shape(height, width, halo, max_cells, height)
    best = min(
        cost(height, width, halo, h, w)
        for h in range(1, height + 1)
        for w in range(1, width + 1)
        if min(height, h + around(halo)) * min(width, w + around(halo)) <= max_cells
    )
    assert cost(height, width, halo, high, wide) <= 1.2 * best


@pytest.mark.parametrize("halo", [0, 11, 35, 70])
def test_least_tile(halo: int) -> None:
    """Its own cells are a ninth of it, and it is what its number of cells gives."""
    assert least_cells(halo) <= 9.3 * least_side(halo) ** 2
    high, wide = tile_shape(1080, 1920, halo, least_cells(halo), 1080)
    assert cost(1080, 1920, halo, high, wide) < 10 * 1080 * 1920


@pytest.mark.parametrize("budget", [60 * 80, 10**9])
def test_what_fits_is_one_tile(budget: int) -> None:
    assert tile_shape(60, 80, 35, budget, 60) == (60, 80)
