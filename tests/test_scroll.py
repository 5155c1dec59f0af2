"""Pictures larger than memory through the encoder for processors: every row once, and the bits of the whole."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from common import BF16, FP32, random_weights, supported_isas
from liif_fast import Upscaler, native_convolution, native_encoder
from liif_fast.architecture import Architecture
from liif_fast.backends import cpu
from liif_fast.checkpoint import Weights
from liif_fast.native_encoder import NativeEncoder

NETWORKS = {
    "liif": random_weights(Architecture(2, 16, (16, 16))),
    "resample": random_weights(Architecture(1, 32, (16,), decoder="resample")),
}


def picture(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (height, width, channels), np.uint8)


def native(weights: Weights, **options: Any) -> tuple[Upscaler, NativeEncoder]:
    up = Upscaler(weights, device="cpu", engine="native", **options)
    assert isinstance(up.encoder, NativeEncoder)
    return up, up.encoder


def least_cells(encoder: NativeEncoder, width: int) -> int:
    """With which a picture of that width is worth it."""
    image = torch.zeros(1, width, 3, dtype=torch.uint8)
    least = next(n for n in range(0, 10**7, 100) if encoder.scroll(image, n))
    assert encoder.scroll(image, least - 100) is None
    return least


@pytest.mark.parametrize("direct", [False, True], ids=["by tiles", "direct"])  # as with AMX
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("dtype", [FP32, BF16], ids=str)
@pytest.mark.parametrize("isa", supported_isas())
def test_same_bits_as_the_whole(
    isa: str, dtype: torch.dtype, network: str, direct: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(cpu.ISA_VARIABLE, isa)
    if direct:
        monkeypatch.setattr(native_convolution, "direct", lambda *_: True)
    _, encoder = native(NETWORKS[network], precision={FP32: "fp32", BF16: "bf16"}[dtype], threads=2)
    choose = np.random.default_rng(0)
    for height, width in ((300, 7), (301, 33), (418, 12)):
        image = torch.from_numpy(picture(height, width))
        whole = encoder(image)
        scroll = encoder.scroll(image, least_cells(encoder, width))
        assert scroll is not None
        assert encoder.lag <= scroll.length < height / 2
        first = last = 0
        while last < height:
            last = min(height, last + int(choose.integers(1, scroll.length + 1)))
            first = min(last - 1, first + int(choose.integers(0, scroll.length)))
            z = scroll(first, last)
            assert len(z) >= last - first
            assert torch.equal(z, whole[first : first + len(z)])


def test_rows_that_nobody_asks_for() -> None:
    _, encoder = native(NETWORKS["resample"], precision="fp32")
    image = torch.from_numpy(picture(500, 9))
    scroll = encoder.scroll(image, least_cells(encoder, 9))
    assert scroll is not None
    for first, last in ((170, 175), (400, 430)):
        assert torch.equal(scroll(first, last)[: last - first], encoder(image)[first:last])


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Of the images that an encoder is given."""
    seen: list[int] = []
    normalise = NativeEncoder.normalise

    def counted(self: NativeEncoder, image: torch.Tensor, *rest: Any) -> None:
        seen.append(len(image))
        normalise(self, image, *rest)

    monkeypatch.setattr(NativeEncoder, "normalise", counted)
    return seen


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("network", NETWORKS)
def test_every_row_is_encoded_once(network: str, channels: int, rows: list[int]) -> None:
    image = picture(700, 40, channels)
    wanted = native(NETWORKS[network], precision="fp32")[0](image, scale=1.5)
    planes = 1 + (channels == 4)
    assert rows == [700] * planes
    _, encoder = native(NETWORKS[network], precision="fp32")
    memory = least_cells(encoder, 40) * encoder.bytes_per_cell * 4 // 3 * planes
    up, encoder = native(NETWORKS[network], precision="fp32", max_memory=memory)
    rows.clear()
    bands = list(up.bands(image, size=wanted.shape[:2]))
    assert sum(rows) == 700 * planes
    assert len(rows) > 4 * planes
    assert max(rows) < 700 / 2
    assert np.array_equal(np.concatenate(bands), wanted.reshape(*wanted.shape[:2], -1))


def test_windows(rows: list[int]) -> None:
    image, box = picture(700, 90), (41.5, 20, 655.25, 60.5)
    up, encoder = native(NETWORKS["resample"], precision="fp32")
    wanted = up.encode(image).render(size=(900, 77), box=box)
    small = native(NETWORKS["resample"], precision="fp32", max_memory=90 * 200 * encoder.bytes_per_cell)[0]
    rows.clear()
    assert np.array_equal(np.concatenate(list(small.bands(image, (900, 77), box=box))), wanted)
    assert len(rows) > 2
    # Those of the window, and as many around it as a tile has.
    assert sum(rows) < 655.25 - 41.5 + 2 * (encoder.halo + 4)


def test_features_that_are_kept(rows: list[int]) -> None:
    image = picture(700, 40)
    up, encoder = native(NETWORKS["resample"], precision="fp32")
    wanted = up.encode(image).render(size=(900, 77))
    z = 700 * 40 * encoder.width * 4
    small = native(NETWORKS["resample"], precision="fp32", max_memory=2 * z)[0]
    rows.clear()
    field = small.encode(image)
    assert sum(rows) == 700
    assert len(rows) > 1
    assert np.array_equal(field.render(size=(900, 77)), wanted)
    assert sum(rows) == 700


def test_turned_pictures_come_in_tiles(rows: list[int]) -> None:
    image = picture(700, 40)
    up, encoder = native(NETWORKS["resample"], precision="fp32", self_ensemble=True, max_memory=20_000_000)
    assert encoder.scroll(torch.from_numpy(image), 1 << 30) is None
    whole = native(NETWORKS["resample"], precision="fp32", self_ensemble=True)[0](image, scale=2)
    rows.clear()
    assert np.abs(up(image, scale=2).astype(int) - whole).max() <= 1
    assert sum(rows) > 4 * (700 + 40)  # with halos


def test_overflow_is_found_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = NETWORKS["resample"]
    tensors = {**weights.tensors, "encoder.head.0.bias": torch.full((32,), 3e38)}
    _, encoder = native(replace(weights, tensors=tensors), precision="fp32")
    image = torch.from_numpy(picture(500, 9))
    for asked in (False, True):
        scroll = encoder.scroll(image, least_cells(encoder, 9))
        assert scroll is not None
        if asked:
            monkeypatch.setenv("LIIF_FAST_CHECK", "1")
            with pytest.raises(FloatingPointError, match="features are NaN or infinite"):
                scroll(0, 20)
        else:
            scroll(0, 20)


def test_large_pictures_share_few_buffers(rows: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Which are kept for the next one."""
    image = torch.from_numpy(picture(700, 40))
    _, encoder = native(NETWORKS["resample"], precision="fp32")
    whole = encoder(image)
    monkeypatch.setattr(native_encoder, "_KEPT_BYTES", 500 * 42 * (3 * 32 + 4) * 4)
    encoder._free.clear()
    rows.clear()
    for _ in range(2):
        assert torch.equal(encoder(image), whole)
    assert sum(rows) == 2 * 700
    assert len(rows) > 4
    assert len(encoder._free) == 1
    assert encoder._free[0].bytes < 42 * 500 * (3 * 32 + 4) * 4
