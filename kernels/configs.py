"""How the decoding kernel is cut for each architecture and width: the one table, and nothing else decides."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

# Narrowest width; all are padded to a power of two, as sides of Triton's tensors are.
NARROW = 32


class Config(NamedTuple):
    """``rows`` of a program (neighbours of its pixels), outputs in a ``chunk`` of its first layer, and its ``warps``.

    Others are chunked ``wide``, where they are chunked at all. A pipeline has ``stages``; with ``resident``, float8's,
    all weights stay in shared memory. A warp's rows times the width are the registers it needs: 16 rows of 256.
    """

    rows: int
    chunk: int
    warps: int
    wide: int
    resident: int = 0
    stages: int = 1


# (least compute capability, widest layer up to): candidates, first the one taken unless measured otherwise.
# tests/test_triton_compile.py holds that they keep to registers and shared memory, in which every stage has the weights
# of a chunk and, but on Hopper, whose products read activations from registers, there are ROWS times the width of them.
TABLE: dict[tuple[int, int], tuple[Config, ...]] = {
    (80, 128): (Config(64, 64, 4, 64, stages=2), Config(128, 32, 8, 32, stages=2)),
    (80, 256): (Config(128, 32, 8, 32, stages=2), Config(128, 32, 8, 16, stages=2)),
    (86, 128): (Config(64, 64, 4, 64, stages=2), Config(128, 32, 8, 32, stages=2)),
    (86, 256): (Config(128, 32, 8, 16, stages=2),),
    (90, 128): (Config(128, 64, 8, 64, stages=3), Config(64, 64, 4, 64, stages=3)),
    (90, 256): tuple(Config(128, chunk, 8, 32, stages=stages) for chunk, stages in ((64, 3), (64, 2), (32, 4))),
    (100, 128): (Config(128, 64, 8, 64, stages=2), Config(128, 32, 8, 32, stages=2)),
    (100, 256): (Config(128, 32, 8, 32, stages=2), Config(128, 64, 8, 64, stages=2)),
    (120, 128): (Config(64, 64, 4, 64, stages=2), Config(128, 32, 8, 32, stages=2)),
    (120, 256): (Config(128, 32, 8, 16, stages=2),),
}
# The same in float8. What is resident needs the bytes of the hidden weights, 32 KiB for the ends and a few more.
FP8_TABLE: dict[tuple[int, int], tuple[Config, ...]] = {
    (89, 128): (Config(128, 32, 8, 32),),
    (89, 256): (Config(128, 32, 8, 32),),
    (90, 128): (Config(128, 64, 8, 128, 1), Config(128, 32, 8, 128, 1), Config(128, 32, 8, 128)),
    (90, 256): (Config(128, 64, 8, 256, 1), Config(128, 32, 8, 256, 1), Config(128, 64, 8, 128)),
    (100, 128): (Config(128, 32, 8, 32),),
    (100, 256): (Config(64, 32, 8, 128),),
    (120, 128): (Config(128, 32, 8, 32),),
    (120, 256): (Config(128, 32, 8, 32),),
}
# Bytes of shared memory on cards that keep weights there, less what decoding itself takes.
ROOM = (227 - 32) << 10


def padded(width: int) -> int:
    return max(NARROW, 1 << (width - 1).bit_length())


def tiles(rows: int, columns: int, pixels: int) -> tuple[int, int, int]:
    """Tiles of so many ``pixels``, a power of two, that cover a picture: how many lie side by side, the logarithm of
    their width, and their number. Of all widths that with the fewest, for less is then computed beyond the picture; of
    those the widest, whose pixels are neighbours in memory."""
    found = []
    for bits in range(pixels.bit_length() - 1, -1, -1):
        across, down = -(-columns >> bits), -(-rows // (pixels >> bits))
        found.append((across, bits, across * down))
    return min(found, key=lambda tiling: tiling[2])


def candidates(capability: int, widths: Sequence[int], float8: bool = False) -> list[Config]:
    """Configurations for layers of padded ``widths`` on a card of that compute capability (80, 86, 89, 90, 120...):
    chunks no wider than layers, and resident only what there is room for."""
    table = FP8_TABLE if float8 else TABLE
    row = max(least for least, _ in table if least <= capability), 128 if max(widths) <= 128 else 256
    room = sum(into * out for into, out in pairwise(widths)) <= ROOM
    found = [
        config._replace(chunk=min(config.chunk, widths[0]), wide=min([config.wide, *widths[1:]]))
        for config in table[row]
        if room or not config.resident
    ]
    return list(dict.fromkeys(found))
