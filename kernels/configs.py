"""How the decoding kernel is cut for each architecture and width: the one table, and nothing else decides."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import gcd
from typing import NamedTuple

# Every width is padded to a multiple of this, the narrowest chunk.
PAD = 32


class Config(NamedTuple):
    """``rows`` of a program (neighbours of its pixels), columns of a ``chunk`` of its hidden state, and its ``warps``.

    A warp's rows times the width are the registers it needs: 16 rows of 256, 32 of 128. In float8 ``chunk`` is the
    first layer's, ``wide`` the others', and with ``resident`` all weights stay in shared memory.
    """

    rows: int
    chunk: int
    warps: int
    wide: int = 0
    resident: int = 0


# (least compute capability, widest layer up to): candidates, first the one taken unless measured otherwise. None spills
# registers; tests/test_triton_compile.py holds that.
TABLE: dict[tuple[int, int], tuple[Config, ...]] = {
    (80, 128): (Config(64, 32, 4), Config(128, 32, 8)),
    (80, 256): (Config(128, 32, 8), Config(64, 32, 4)),
    (90, 128): (Config(128, 64, 4), Config(128, 64, 8)),
    (90, 256): (Config(128, 64, 8), Config(64, 64, 4)),
    (100, 128): (Config(128, 32, 4), Config(64, 32, 4), Config(128, 32, 8)),
    (100, 256): (Config(128, 32, 8), Config(64, 32, 4)),
}
# The same in float8. What is resident needs the bytes of the hidden weights, 32 KiB for the ends and a few more.
FP8_TABLE: dict[tuple[int, int], tuple[Config, ...]] = {
    (89, 128): (Config(128, 32, 8, 32),),
    (89, 256): (Config(128, 32, 8, 32),),
    (90, 128): (Config(128, 32, 8, 128, 1), Config(128, 32, 8, 128)),
    (90, 256): (Config(128, 32, 8, 256, 1), Config(128, 32, 8, 256), Config(128, 64, 8, 64)),
    (100, 128): (Config(128, 32, 8, 32),),
    (100, 256): (Config(64, 32, 8, 128),),
    (120, 128): (Config(128, 32, 8, 32),),
    (120, 256): (Config(128, 32, 8, 32),),
}
# Bytes of shared memory on cards that keep weights there, less what decoding itself takes.
ROOM = (227 - 32) << 10


def padded(width: int) -> int:
    return -(-width // PAD) * PAD


def candidates(capability: int, widths: Sequence[int], float8: bool = False) -> list[Config]:
    """Configurations for layers of padded ``widths`` on a card of that compute capability (80, 86, 89, 90, 120...)."""
    column = 128 if max(widths) <= 128 else 256
    if float8:
        return _in_fp8(FP8_TABLE[max(least for least, _ in FP8_TABLE if least <= capability), column], widths)
    row = max(least for least, _ in TABLE if least <= capability)
    fitting = [config for config in TABLE[row, column] if all(width % config.chunk == 0 for width in widths)]
    narrow = [config._replace(chunk=PAD) for config in TABLE[row, column]]
    return list(dict.fromkeys(fitting or narrow))


def _in_fp8(configs: Sequence[Config], widths: Sequence[int]) -> list[Config]:
    """As `candidates`: ``wide`` as narrow as the widths need, and resident only what there is room for."""
    weights = sum(into * out for into, out in pairwise(widths))
    found = []
    for config in configs:
        wide, chunk = gcd(config.wide, *widths[1:]), gcd(config.chunk, widths[0])
        if weights <= ROOM or not config.resident:
            found.append(config._replace(wide=wide, chunk=chunk))
    return list(dict.fromkeys(found))
