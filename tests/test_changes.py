"""Sequences of frames that differ in little: only that is computed, and no bit is another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from common import random_weights
from liif_fast import Upscaler, changes
from liif_fast.backends import cpu
from liif_fast.changes import Part, differing
from liif_fast.checkpoint import Architecture
from liif_fast.dlpack import Held
from liif_fast.field import Field
from liif_fast.native_encoder import NativeEncoder
from liif_fast.pages import planar

SMALL = Architecture(1, 16, (16, 16))
FINE = Architecture(1, 16, (16,), decoder="resample")
SIZE = (131, 143)
pytestmark = pytest.mark.skipif(cpu.unavailable(torch.device("cpu"), torch.float32) is not None, reason="for our C++")


def frames(channels: int = 3) -> list[np.ndarray]:
    """Of a film: its first, a spot, two far apart, the same again, one at the border, all, and one more spot."""
    random = np.random.default_rng(3)
    made = [random.integers(0, 256, (*SIZE, channels), np.uint8)]

    def spots(*places: tuple[int, int]) -> None:
        made.append(made[-1].copy())
        for row, column in places:
            made[-1][row : row + 3, column : column + 5] ^= 255

    spots((60, 70))
    spots((5, 7), (118, 130))
    spots()
    spots((0, 139))
    made.append(random.integers(0, 256, (*SIZE, channels), np.uint8))
    spots((130, 0))
    return made


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Cells of each picture that was encoded."""
    seen: list[int] = []
    encode = NativeEncoder.z

    def z(self: NativeEncoder, image: torch.Tensor) -> torch.Tensor:
        seen.append(image.shape[0] * image.shape[1])
        return encode(self, image)

    monkeypatch.setattr(NativeEncoder, "z", z)
    return seen


@pytest.mark.parametrize("at_once", [1, 2, 3])
@pytest.mark.parametrize("architecture", [SMALL, FINE], ids=["liif", "resample"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_only_what_changes_is_computed(
    precision: str, architecture: Architecture, at_once: int, encoded: list[int]
) -> None:
    if cpu.unavailable(torch.device("cpu"), torch.bfloat16) and precision == "bf16":
        pytest.skip("no bf16 here")
    up = Upscaler(random_weights(architecture), precision=precision, threads=2)
    wanted = [up(frame, size=(300, 171)) for frame in frames()]
    encoded.clear()
    for found, right in zip(up.stream(frames(), size=(300, 171), at_once=at_once), wanted, strict=True):
        assert np.array_equal(found, right)
        found[:] = 0  # the caller's own, though another may be made from it
    whole = SIZE[0] * SIZE[1]
    assert sorted(cells == whole for cells in encoded) == [False] * 5 + [True] * 2
    assert max(cells for cells in encoded if cells < whole) < whole / 4


KINDS: dict[str, Callable[[np.ndarray], Any]] = {
    "pillow": Image.fromarray,
    "gray": lambda frame: frame[:, :, 0],
    "planar": lambda frame: torch.from_numpy(frame).permute(2, 0, 1).contiguous(),
    "one of a batch": lambda frame: torch.from_numpy(frame).permute(2, 0, 1)[None],
    "turned": lambda frame: frame[::-1, ::-1],
    "uint16": lambda frame: frame.astype(np.uint16) * 257,
    "float16": lambda frame: frame.astype(np.float16) / 255,
    "float64": lambda frame: frame / 255,
    "foreign": lambda frame: Held(torch.from_numpy(frame)),
    "bfloat16": lambda frame: torch.from_numpy(frame).permute(2, 0, 1).to(torch.bfloat16) / 255,
}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_frames(kind: str, encoded: list[int]) -> None:
    up = Upscaler(random_weights(FINE), precision="fp32", threads=2)
    given = [KINDS[kind](frame) for frame in frames()]
    wanted = [up(frame, scale=1.5) for frame in given]
    encoded.clear()
    for found, right in zip(up.stream(given, scale=1.5), wanted, strict=True):
        assert type(found) is type(right)
        assert np.array_equal(np.asarray(_float(found)), np.asarray(_float(right)))
    assert min(encoded) < SIZE[0] * SIZE[1] / 4


def _float(picture: Any) -> Any:
    return picture.float() if isinstance(picture, torch.Tensor) else picture


def test_a_foreign_frame_is_no_tensor() -> None:
    """Its result is one, [H, W, C], which three rows could pass for [C, H, W]."""
    up = Upscaler(random_weights(FINE), precision="fp32", threads=2)
    tensor = torch.from_numpy(frames()[0][:3])
    first, second = up.stream([Held(tensor), Held(tensor.clone())], scale=1)
    assert torch.equal(first, second)


def test_memory_is_kept_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts decode no more at once than bands do, and what would be too large enlarged comes with the whole frame."""
    memory = 4 << 20
    up = Upscaler(random_weights(FINE), precision="fp32", threads=2, max_memory=memory)
    decoded: list[int] = []
    pieces: list[int] = []
    decode, piece = Field.decode, Field.piece

    def noted(self: Field, z: Any, y: Any, x: Any, cell: Any, out: torch.Tensor, paired: bool = False) -> None:
        decoded.append(out.shape[0] * out.shape[1])
        decode(self, z, y, x, cell, out, paired)

    def counted(self: Field, *given: Any) -> torch.Tensor:
        pieces.append(1)
        return piece(self, *given)

    monkeypatch.setattr(Field, "decode", noted)
    monkeypatch.setattr(Field, "piece", counted)
    given = frames(1)[:2]
    for scale in (25, 60):
        for found, right in zip(
            up.stream(given, scale=scale, at_once=1), [up(g, scale=scale) for g in given], strict=True
        ):
            assert np.array_equal(found, right)
    assert max(decoded) <= memory // 4 // 8
    assert pieces == [1]  # of the first scale


def test_what_has_no_like_before_it_is_computed_as_a_whole(encoded: list[int]) -> None:
    """Another kind, type, size or layout, an alpha channel, a batch."""
    up = Upscaler(random_weights(FINE), precision="fp32", threads=2)
    first, second = frames()[:2]
    clear = np.full((*SIZE, 1), 255, np.uint8)
    clear[3, 3] = 7
    with_alpha = [np.concatenate([frame, clear], axis=2) for frame in (first, second)]
    tensors = [torch.from_numpy(frame).permute(2, 0, 1) for frame in (first, second)]
    given = [first, second.astype(np.float32) / 255, second[:130], Image.fromarray(second), *with_alpha]
    given += [tensors[0], torch.stack(tensors), tensors[1].contiguous()]
    wanted = [up(frame, scale=2) for frame in given]
    encoded.clear()
    for found, right in zip(up.stream(given, scale=2), wanted, strict=True):
        assert np.array_equal(np.asarray(found), np.asarray(right))
    assert min(encoded) >= 130 * SIZE[1]


@pytest.mark.parametrize("at_once", [1, 2])
def test_an_error_is_its_frames_alone(at_once: int) -> None:
    up = Upscaler(random_weights(FINE), precision="fp32", threads=2)
    good = [frame.astype(np.float32) / 255 for frame in frames()[:2]]
    bad = good[0].copy()
    bad[1, 1, 1] = np.nan

    def source() -> Any:
        yield from (good[0], bad, good[1])

    stream = up.stream(source(), scale=2, at_once=at_once)
    assert np.array_equal(next(stream), up(good[0], scale=2))
    with pytest.raises(ValueError, match="NaN"):
        next(stream)


def test_other_ways_of_encoding_compute_every_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's bits may depend on a picture's size, and those of turned pictures' mean on where a tile ends."""
    for how in ({"engine": "torch"}, {"backend": "reference"}, {"self_ensemble": True}):
        up = Upscaler(random_weights(FINE), precision="fp32", threads=2, **how)  # type: ignore[arg-type]
        seen: list[int] = []
        encode = up.encoder.__class__.__call__

        def counted(self: Any, image: torch.Tensor, seen: list[int] = seen, encode: Any = encode) -> torch.Tensor:
            seen.append(image.shape[0] * image.shape[1])
            return encode(self, image)

        with monkeypatch.context() as patch:
            patch.setattr(up.encoder.__class__, "__call__", counted)
            list(up.stream(frames()[:3], scale=1.5))
        assert seen == [SIZE[0] * SIZE[1]] * 3


@given(data=st.data(), channels=st.sampled_from([1, 3]), by_channels=st.booleans(), apart=st.integers(0, 40))
def test_parts_hold_all_differences(data: st.DataObject, channels: int, by_channels: bool, apart: int) -> None:
    height, width = data.draw(st.integers(1, 70)), data.draw(st.integers(1, 70))
    places = st.tuples(st.integers(0, height - 1), st.integers(0, width - 1), st.integers(0, channels - 1))
    old = torch.zeros(height, width, channels, dtype=torch.uint8)
    new = old.clone()
    for row, column, channel in data.draw(st.lists(places, max_size=6)):
        new[row, column, channel] = 1
    if by_channels:
        old, new = (picture.permute(2, 0, 1).contiguous().permute(1, 2, 0) for picture in (old, new))
    parts = differing(old, new, apart)
    for few in differing(old, new, apart, 16):
        assert any(
            part.top <= few.top < few.bottom <= part.bottom and part.left <= few.left < few.right <= part.right
            for part in parts
        )
        assert (old != new)[few.top : few.bottom : 4, few.left : few.right].any()
    left = (old != new).any(dim=2)
    for part in parts:
        assert 0 <= part.top < part.bottom <= height
        assert 0 <= part.left < part.right <= width
        held = left[part.top : part.bottom, part.left : part.right]
        assert held.any()
        held[:] = False
    assert not left.any()
    for i, a in enumerate(parts):
        for b in parts[:i]:
            gaps = (b.top - a.bottom, a.top - b.bottom, b.left - a.right, a.left - b.right)
            assert max(gaps) >= apart // 4 * 4


def test_frames_in_which_all_moves_are_not_compared_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []

    def noted(old: torch.Tensor, new: torch.Tensor, apart: int, step: int = 1) -> list[Part]:
        steps.append(step)
        return differing(old, new, apart, step)

    monkeypatch.setattr(changes, "differing", noted)
    up = Upscaler(random_weights(FINE), precision="fp32", threads=2)
    list(up.stream([frames()[i] for i in (0, 5, 6)], scale=1.5, at_once=1))
    assert steps == [16, 16, 1]


def test_parts() -> None:
    old, new = torch.zeros(40, 30, 3, dtype=torch.uint8), torch.zeros(40, 30, 3, dtype=torch.uint8)
    assert differing(old, new, 8) == []
    assert not planar(old)
    new[:, :2] = 1
    assert differing(old, new, 8) == [Part(0, 40, 0, 4)]
    assert differing(old, new, 8, 16) == [Part(0, 4, 0, 4), Part(16, 20, 0, 4), Part(32, 36, 0, 4)]
    assert Part(0, 40, 0, 4).area(10, 40, 30) == 40 * 14
