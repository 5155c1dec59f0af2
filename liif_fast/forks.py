"""Forked processes, in which PyTorch's threads are not: it would wait for them for ever."""

from __future__ import annotations

import os

import torch

_forked = False


def forked() -> bool:
    """Whether this process was forked off one in which `one_thread_in_forks` had been called."""
    return _forked


def one_thread_in_forks() -> None:
    """Have PyTorch work on one thread in processes that are forked off from here on, as in DataLoader's."""
    os.register_at_fork(after_in_child=_in_fork)


def _in_fork() -> None:
    global _forked
    _forked = True
    torch.set_num_threads(1)
