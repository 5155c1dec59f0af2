"""MATLAB's imresize, against a literal transcription of its code."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from liif_fast.grid import cubic
from liif_fast.training.resize import matrices, resize


def imresize_line(line: np.ndarray, target: int) -> np.ndarray:
    """One line by MATLAB's ``contributions``, as a loop, 1-based: kernel width, leftmost index, mirrored indices."""
    source = len(line)
    scale = target / source
    width = 4 / scale if scale < 1 else 4.0

    def kernel(x: float) -> float:
        x = abs(x)
        if x <= 1:
            return 1.5 * x**3 - 2.5 * x**2 + 1
        return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x <= 2 else 0.0

    mirrored = [*range(1, source + 1), *range(source, 0, -1)]
    out = np.zeros(target)
    for x in range(1, target + 1):
        u = x / scale + 0.5 * (1 - 1 / scale)
        left = math.floor(u - width / 2)
        indices = [left + i for i in range(math.ceil(width) + 2)]
        weights = [scale * kernel(scale * (u - i)) if scale < 1 else kernel(u - i) for i in indices]
        total = sum(weights)
        out[x - 1] = sum(
            w / total * line[mirrored[(i - 1) % (2 * source)] - 1] for i, w in zip(indices, weights, strict=True)
        )
    return out


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (12, 6),
        (12, 4),
        (12, 3),
        (13, 5),
        (30, 2),
        (7, 3),
        (5, 11),
        (9, 36),
        (4, 4),
        (1, 1),
        (1, 5),
        (2, 1),
        (6, 1),
        (100, 27),
    ],
)
def test_equals_the_transcription(source: int, target: int) -> None:
    line = np.random.default_rng(source).random(source)
    found = resize(torch.from_numpy(line)[None, None].expand(1, 3, -1), (3, target))
    np.testing.assert_allclose(found[0, 0].numpy(), imresize_line(line, target), atol=1e-6)


def test_both_axes_and_channels() -> None:
    image = torch.rand(2, 3, 20, 33, dtype=torch.float64)
    found = resize(image, (10, 11))
    rows = np.stack([imresize_line(line, 10) for line in image[1, 2].T.numpy()], 1)
    wanted = np.stack([imresize_line(line, 11) for line in rows])
    np.testing.assert_allclose(found[1, 2].numpy(), wanted, atol=1e-6)


def test_matrices_of_many_lengths() -> None:
    lengths = torch.tensor([16, 40, 64])
    batch = matrices(lengths, 16, 64)
    assert batch.shape == (3, 16, 64)
    for i, length in enumerate(lengths.tolist()):
        single = matrices(torch.tensor([length]), 16, length)[0]
        torch.testing.assert_close(batch[i, :, :length], single)
        assert not batch[i, :, length:].any()
    torch.testing.assert_close(batch.sum(-1), torch.ones(3, 16))


def test_kernel() -> None:
    x = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, -0.5])
    torch.testing.assert_close(cubic(x), torch.tensor([1.0, 0.5625, 0.0, -0.0625, 0.0, 0.0, 0.5625]))


@pytest.mark.parametrize("target", [2, 3, 7, 48, 200])
def test_no_kernel_reaches_a_far_image(target: int) -> None:
    """Without them lines of two samples and more give the same bits."""
    sources = torch.tensor([2, 3, 5, 47, 48, 49, 96, 190])
    assert torch.equal(matrices(sources, target, 192, least=2), matrices(sources, target, 192))
