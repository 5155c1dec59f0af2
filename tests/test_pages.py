"""Large buffers: used again once nobody holds them, and never before."""

from __future__ import annotations

import gc
import mmap
import pickle
import re
import resource
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from liif_fast import Upscaler, memory, pages

pytestmark = pytest.mark.skipif(not hasattr(mmap, "MADV_HUGEPAGE"), reason="pages are Linux's")
SHAPE = (1080, 1920, 3)  # an odd number of small pages


@pytest.fixture(autouse=True)
def nothing_kept() -> None:
    gc.collect()
    pages._free.clear()


def made(value: int = 0) -> torch.Tensor:
    return pages.empty(*SHAPE, dtype=torch.uint8).fill_(value)


def test_the_same_memory_again() -> None:
    first = made()
    address = first.data_ptr()
    assert made().data_ptr() != address
    del first
    again = pages.empty(1920, 1080, 3, dtype=torch.uint8)
    other = pages.empty(540, 1920, 3, dtype=torch.bfloat16)
    assert address in (again.data_ptr(), other.data_ptr())
    assert again.data_ptr() != other.data_ptr()
    assert again.is_contiguous()
    assert (again.shape, other.shape, other.dtype) == ((1920, 1080, 3), (540, 1920, 3), torch.bfloat16)


@pytest.mark.parametrize(
    "hold",
    [
        lambda t: t[5:6, ::2],
        lambda t: t.numpy(),
        lambda t: t.permute(2, 0, 1).numpy()[1:, :3],
        lambda t: t.flatten().view(torch.int16),
        lambda t: memoryview(t.numpy()),
        lambda t: torch.from_dlpack(t),
        lambda t: np.from_dlpack(t),
    ],
)
def test_not_while_anything_holds_a_part_of_it(hold: object) -> None:
    tensor = made(7)
    address, held = tensor.data_ptr(), hold(tensor)  # type: ignore[operator]
    del tensor
    gc.collect()
    others = [made(9) for _ in range(3)]
    assert all(other.data_ptr() != address for other in others)
    assert not (np.asarray(held).view(np.uint8) == 9).any()
    del held
    gc.collect()
    assert made().data_ptr() == address


@pytest.mark.skipif(not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="no large pages")
def test_they_are_large_and_a_fork_s_own() -> None:
    """Linux: private memory with the advice "hg"."""
    picture = pages.zeros(1000, 1100, 4, dtype=torch.bfloat16)
    assert (picture.shape, picture.dtype) == ((1000, 1100, 4), torch.bfloat16)
    assert not picture.any()
    rights, flags = "", ""
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if found := re.match(r"(\w+)-(\w+) (\S+) ", line):
            inside = int(found[1], 16) <= picture.data_ptr() < int(found[2], 16)
            rights = found[3] if inside else rights
        elif inside and line.startswith("VmFlags:"):
            flags = line
    assert rights == "rw-p"
    assert " hg" in flags


def test_zeros_are_zero() -> None:
    made(255)
    assert len(pages._free) == 1
    assert not pages.zeros(*SHAPE, dtype=torch.uint8).any()
    assert not pages.zeros(3, 5, dtype=torch.float32).any()


def test_little_is_kept_and_small_ones_are_not_ours() -> None:
    many = [made() for _ in range(40)]
    assert not pages._free
    del many
    kept = sum(map(len, pages._free))
    assert pages.most_kept() - made().nbytes < kept <= pages.most_kept() <= 128 << 20
    small = pages.empty(4, 4, dtype=torch.float32)
    assert small.shape == (4, 4)
    assert small.untyped_storage().resizable()


def test_where_memory_is_scarce_next_to_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free", lambda: 150 << 20)
    pages.most_kept.cache_clear()
    try:
        made()
        assert not pages._free
    finally:
        pages.most_kept.cache_clear()


def test_a_copy_is_of_its_own() -> None:
    tensor = made(3)
    copy = pickle.loads(pickle.dumps(tensor))
    tensor.fill_(4)
    assert bool((copy == 3).all())


def test_threads_do_not_get_each_others() -> None:
    def work(seed: int) -> bool:
        good = True
        for i in range(30):
            tensor = pages.empty(1 << 20, 2 + i % 2, dtype=torch.uint8)
            tensor[::4096] = seed
            good &= bool((tensor[::4096] == seed).all())
        return good

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


def test_frames_after_the_first_touch_no_new_memory() -> None:
    """The result of a frame is as much as 1,500 small pages, z twice that."""
    up = Upscaler("realtime-small", device="cpu", threads=1)
    frames = np.random.default_rng(0).integers(0, 256, (6, 270, 480, 3), np.uint8)
    results = [up(frame, size=(1080, 1920)) for frame in frames[:3]]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for frame in frames:
        results.append(up(frame, size=(1080, 1920)))
        del results[0]
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / len(frames) < 300
    assert np.array_equal(results[-1], up(frames[-1], size=(1080, 1920)))
    assert not np.array_equal(results[-1], results[-2])


def test_pinned_memory_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is less of it than memory; results then are in any other."""
    make, asked = torch.empty_like, []

    def none_left(*given: torch.Tensor, pin_memory: bool = False, **how: object) -> torch.Tensor:
        asked.append(pin_memory)
        if pin_memory:
            raise RuntimeError("CUDA error: out of memory")
        return make(*given, **how)  # type: ignore[call-overload]

    monkeypatch.setattr(torch, "empty_like", none_left)
    planar = torch.zeros(3, 5, 7, dtype=torch.uint8).permute(1, 2, 0)
    found = pages.pinned(planar)
    assert (found.shape, found.dtype, found.stride()) == (planar.shape, planar.dtype, planar.stride())
    assert asked == [True, False]
