"""The table of configurations, compiled for every architecture without any of them: limits, tensor cores, pipelines.

By default what each architecture takes first; with LIIF_FAST_TEST_TABLE=1 every row of the table, at the paper's depth
too, which takes many minutes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liif_fast.kernels.configs import TABLE, candidates, padded, tiles

pytest.importorskip("triton")

# Bytes of shared memory that a program may have.
SHARED = {80: 163 << 10, 86: 99 << 10, 89: 99 << 10, 90: 227 << 10, 100: 227 << 10, 120: 99 << 10}
# The instruction of tensor cores.
PRODUCT = {**dict.fromkeys(SHARED, "mma.sync"), 90: "wgmma.mma_async", 100: "tcgen05.mma"}
# Bytes of a thread's stack that resident weights of 256 channels may cost: addresses and constants of the loop over
# blocks, written and read once a block, some thirty of its thousands of instructions; each Triton makes its own choice.
FP8_CONSTANTS = 144
# The same of decoders other than the paper's and the bundled one of two layers, but on data centres' cards since
# Hopper: an address or two.
ADDRESSES = 32
BUNDLED = ([256] * 4, [256] * 2)
WHOLE = bool(os.environ.get("LIIF_FAST_TEST_TABLE"))


def jobs(capability: int) -> list[list[Any]]:
    widths = [(256, 256)]
    if WHOLE:
        widths += [(128, 128), (64, 64), (256,) * 4, (256,) * 3, (128, 256, 32), (256,)]
    elif capability == 90:
        widths += [(64, 64), (256,) * 4]
    elif capability == 80:
        widths += [(64, 64)]
    found = [
        [capability, "decode", dtype, layers, config]
        for layers in widths
        for dtype in (("fp16", "bf16") if WHOLE or layers == (256, 256) else ("fp16",))
        for config in candidates(capability, layers)[: None if WHOLE else 1]
    ]
    return [*found, [capability, "resample", "fp16", [], []]]


def said(script: str, cache: Path, *arguments: str) -> Any:
    """What a script beside this file prints as JSON."""
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name(script), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TRITON_CACHE_DIR": str(cache)},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("capability", SHARED)
def test_compiles(capability: int, tmp_path: Path) -> None:
    todo = jobs(capability)
    for job, made in zip(todo, said("compiled.py", tmp_path, json.dumps(todo)), strict=True):
        print(job, made)
        spared = capability in (90, 100) or list(job[3]) in BUNDLED or job[1] == "resample"
        assert made["stack"] <= (0 if spared else ADDRESSES), (job, made)
        assert made["shared"] <= SHARED[capability], (job, made)
        if job[1] == "decode":
            assert made["products"][PRODUCT[capability]] > 0, (job, made)
        if job[2] == "bf16":  # a chunk of z and the queries: activations are rounded once
            rows, chunk, warps = job[4][:3]
            assert made["widened"] <= 2 * rows * (chunk + 32) // (32 * warps), (job, made)
        if job[3] and job[3][-1] == 256:
            # Weights are on their way while others are multiplied, and on Hopper a product follows another without a
            # wait: where there are too few registers for that, each begins alone.
            assert made["copies"] > 0, (job, made)
            assert 2 * made["begun"] <= made["issued"], (job, made)


def fp8_jobs(capability: int) -> list[list[Any]]:
    widths = [(64, 64), (256, 256)]
    if capability == 90:
        widths += [(256,) * 4]
    if WHOLE:
        widths += [(128, 128), (256,) * 4, (128, 256, 32)]
    return [
        [capability, "decode_fp8", "fp16", layers, config]
        for layers in dict.fromkeys(widths)
        for config in candidates(capability, layers, float8=True)[: None if WHOLE else 1]
    ]


@pytest.mark.parametrize("capability", [89, 90, 100, 120])
def test_float8(capability: int, tmp_path: Path) -> None:
    todo = fp8_jobs(capability)
    for job, made in zip(todo, said("compiled.py", tmp_path, json.dumps(todo)), strict=True):
        print(job, made)
        _, _, _, widths, (rows, chunk, warps, _, resident, _) = job
        assert made["stack"] <= (FP8_CONSTANTS if resident and max(widths) == 256 else 0), (job, made)
        assert sum(a * b for a, b in pairwise(widths)) * resident < made["shared"] <= SHARED[capability], (job, made)
        assert made["products"][PRODUCT[capability]] > 0, (job, made)
        assert made["float8"] > 0, (job, made)
        # Conversions saturate, two numbers each; activations stay in their threads: only the blend asks neighbours.
        if resident and set(widths) == {256}:  # products wait for each other at the ends of chunks alone
            assert made["begun"] <= 2 * widths[0] // chunk + len(widths), (job, made)
        assert made["saturating"] == sum(widths[:-1]) * rows // (64 * warps), (job, made)
        assert made["shuffles"] <= 16 + (capability == 100), (job, made)  # one elects who asks for products


def test_one_compilation_serves_all_sizes(tmp_path: Path) -> None:
    """A kernel takes many seconds to compile, so neither sizes, strides, alignment nor points may be part of it."""
    assert said("launched.py", tmp_path) == {"decode": 1, "resample": 1}


def test_table() -> None:
    assert [padded(width) for width in (16, 32, 48, 256)] == [32, 32, 64, 256]
    for capability in SHARED:
        for width in range(16, 257, 16):
            found = candidates(capability, [padded(width), 32])
            assert found
            assert all(padded(width) % config.chunk == 0 and 32 % config.wide == 0 for config in found)
    assert all(config.rows % 4 == 0 and config.rows // 16 >= config.warps for row in TABLE.values() for config in row)
    assert candidates(90, [256, 256])[0].chunk == 64
    assert candidates(103, [256])[0] == candidates(100, [256])[0]


@given(rows=st.integers(1, 5000), columns=st.integers(1, 5000), bits=st.integers(3, 8))
def test_tiles_cover_a_picture(rows: int, columns: int, bits: int) -> None:
    across, wide, count = tiles(rows, columns, 1 << bits)
    width, height = 1 << wide, 1 << bits - wide
    down = count // across
    assert count == across * down
    assert (across - 1) * width < columns <= across * width
    assert (down - 1) * height < rows <= down * height
    fewest = min(-(-columns >> b) * -(-rows >> bits - b) for b in range(bits + 1))
    assert count == fewest


def test_tiles_are_lines_where_those_fit() -> None:
    assert tiles(1080, 1920, 32) == (60, 5, 64800)
    assert tiles(100, 1, 32) == (1, 0, 4)  # points
    assert tiles(1, 100, 32) == (4, 5, 4)
