"""The pictures that the program draws for training."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from liif_fast.training import synthetic


@pytest.mark.parametrize("kind", synthetic.KINDS)
@pytest.mark.parametrize("size", [(1, 1), (7, 130), (96, 61)])
def test_shape_and_seed(kind: str, size: tuple[int, int]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        a, b, c = (synthetic.make(kind, size, seed) for seed in (1, 1, 2))
    assert (a.dtype, a.shape) == (np.uint8, (*size, 3))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


@pytest.mark.parametrize("kind", synthetic.KINDS)
def test_sharp_and_varied(kind: str) -> None:
    """Edges of full contrast, flat parts too, and no two pictures alike."""
    found = [synthetic.make(kind, (160, 160), seed).astype(int) for seed in range(8)]
    steps = np.stack([np.abs(np.diff(picture, axis=1)).max(-1) for picture in found])
    assert (steps > 128).mean() > 0.01
    assert (steps == 0).mean() > 0.1
    means = [picture.mean((0, 1)) for picture in found]
    assert np.std(means, axis=0).max() > 10


def test_all_kinds_in_turn() -> None:
    count = len(synthetic.KINDS)
    made = synthetic.pictures(2 * count, (40, 50), seed=3)
    assert len(made) == 2 * count
    assert all(picture.shape == (40, 50, 3) for picture in made)
    assert len({picture.tobytes() for picture in made}) == 2 * count


def test_refused() -> None:
    with pytest.raises(ValueError, match="'photo'"):
        synthetic.make("photo", (5, 5), 0)
    with pytest.raises(ValueError, match=r"\(0, 5\)"):
        synthetic.make("text", (0, 5), 0)
