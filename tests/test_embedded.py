"""Inside other programs: PyTorch's settings there, copies of the object."""

from __future__ import annotations

import os
import pickle
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
import pytest
import torch

from common import ROOT, random_weights
from liif_fast import Upscaler
from liif_fast.checkpoint import Architecture, Weights
from liif_fast.native_encoder import NativeEncoder
from test_upscaler import random_picture

NETWORKS = {
    "liif": random_weights(Architecture(1, 16, (16, 16))),
    "resample": random_weights(Architecture(1, 16, (16,), decoder="resample")),
}


class DefaultDtype(AbstractContextManager[None]):
    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def __enter__(self) -> None:
        torch.set_default_dtype(self.dtype)

    def __exit__(self, *error: object) -> None:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(("backend", "engine"), [("cpu", "native"), ("reference", "torch")])
@pytest.mark.parametrize("decoder", NETWORKS)
@pytest.mark.parametrize(
    "setting",
    [
        lambda: DefaultDtype(torch.float64),
        lambda: DefaultDtype(torch.float16),
        lambda: DefaultDtype(torch.bfloat16),
        lambda: torch.device("meta"),  # as default device, which new tensors take that name none
        lambda: torch.autocast("cpu", torch.bfloat16),
        torch.inference_mode,
    ],
    ids=["float64", "float16", "bfloat16", "device", "autocast", "inference"],
)
def test_settings_of_pytorch_have_no_say(
    setting: Callable[[], AbstractContextManager[object]], decoder: str, backend: str, engine: str
) -> None:
    pictures = [random_picture((29, 31, c), np.uint16) for c in (1, 3, 4)]
    places = np.random.default_rng(1).uniform(0, 29, (7, 2))

    def all_of_it() -> list[np.ndarray]:
        found = []
        for max_memory in (None, 60_000):
            up = Upscaler(NETWORKS[decoder], precision="fp32", backend=backend, engine=engine, max_memory=max_memory)
            fields = [up.encode(picture) for picture in pictures]
            found += [up(p, scale=2.5) for p in pictures] + [f.sample(places) for f in fields]
            found += up.stream(pictures, scale=2)
        return found

    wanted = all_of_it()
    with setting():
        found = all_of_it()
    assert all(np.array_equal(a, b) for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize(
    ("model", "how"),
    [
        *((network, {}) for network in NETWORKS.values()),
        ("edsr-baseline-2", {}),
        ("edsr-baseline-2", {"device": "cpu", "precision": "fp8", "backend": "reference"}),
    ],
    ids=[*NETWORKS, "measured", "fp8"],
)
def test_pickles(model: str | Weights, how: dict[str, Any]) -> None:
    up = Upscaler(model, **how)
    picture = random_picture((9, 11, 3))
    wanted = up(picture, scale=3)
    before = len(pickle.dumps(Upscaler(model, **how)))
    up(random_picture((400, 400, 3)), scale=1)
    assert len(pickle.dumps(up)) < before + 1000, "what is kept for the next picture of this size is in it"
    again = pickle.loads(pickle.dumps(up))
    assert np.array_equal(again(picture, scale=3), wanted)
    assert np.array_equal(next(again.stream([picture], scale=3)), wanted)
    assert repr(again) == repr(up) == f"<Upscaler: {up.description}>"


@pytest.mark.parametrize("network", NETWORKS)
def test_what_multiprocessing_shares_is_not_what_is_pointed_to(network: str) -> None:
    """It moves the tensors that it pickles, and `Tensor.share_memory_` does, while kept steps have their addresses."""
    up, picture = Upscaler(NETWORKS[network]), random_picture((9, 11, 3))
    wanted = up(picture, scale=3)
    assert isinstance(up.encoder, NativeEncoder)
    packed = [t for by in up.encoder.packed.values() for t in vars(by).values() if isinstance(t, torch.Tensor)]
    places = [tensor.data_ptr() for tensor in packed]
    shared = bytes(ForkingPickler.dumps(up))
    for tensor in up.weights.tensors.values():
        tensor.share_memory_()
    assert [tensor.data_ptr() for tensor in packed] == places
    again = pickle.loads(shared)
    for one in (up, again, again):
        assert np.array_equal(one(picture, scale=3), wanted)


@pytest.mark.parametrize("dropped", ["None", "print"])
def test_a_stream_is_not_continued_in_a_forked_process(dropped: str) -> None:
    code = """
import os, sys, numpy as np
from liif_fast import Upscaler
dropped = {"None": None, "print": lambda number: None}[sys.argv[1]]
frames = [np.full((20, 20, 3), i, np.uint8) for i in range(9)]
stream = Upscaler("realtime-small").stream(iter(frames), scale=2, dropped=dropped)
next(stream)
if child := os.fork():
    left = len(list(stream))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), left == 8 or dropped is not None)
    sys.exit()
try:
    list(stream)
except RuntimeError as error:
    print(error, flush=True)
    os._exit(3)
"""
    command = [sys.executable, "-c", code, dropped]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    said, ended = done.stdout.splitlines()
    assert re.fullmatch(r"this stream was begun in process \d+, before a fork: begin one in each process", said)
    assert ended == "3 True"


@pytest.mark.parametrize("engine", ["auto", "torch"])
def test_forked_processes_do_not_wait_for_threads_that_are_not_there(engine: str) -> None:
    """In an interpreter of its own, whose PyTorch has worked on several threads."""
    code = """
import os, sys, numpy as np, torch
from functools import partial
from liif_fast import Upscaler
torch.set_num_threads(2)
up = Upscaler("realtime-small", engine=sys.argv[1], threads=2)
picture = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
wanted = up(picture, scale=2)
torch.rand(1000, 1000).sum()
if child := os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
alike = partial(np.allclose, wanted, atol=0 if sys.argv[1] == "auto" else 1)  # PyTorch rounds by its threads
same = [alike(found.astype(int)) for found in (up(picture, scale=2), *up.stream([picture] * 2, scale=2))]
os._exit(0 if same == [True] * 3 else 1)
"""
    # Its own group, as the forked one would be left.
    with subprocess.Popen([sys.executable, "-c", code, engine], cwd=ROOT, start_new_session=True) as process:
        try:
            assert process.wait(60) == 0
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
