"""Deflate as pictures need it: the choice of strategy, pieces that join into one stream, and their checksum."""

from __future__ import annotations

import zlib

_SAMPLE = 1 << 16


def strategy(data: bytes | memoryview, level: int) -> int:
    """zlib's strategy for one band, judged on a sample from its middle.

    The filtered rows of a photograph are noise that string matching hardly shortens: runs and Huffman codes give the
    same size seven times as fast. Drawings repeat themselves; there the sample shows that matching pays.
    """
    middle = max(0, len(data) - _SAMPLE) // 2
    sample = memoryview(data)[middle : middle + _SAMPLE]
    runs, full = (len(deflate(sample, level, s)) for s in (zlib.Z_RLE, zlib.Z_DEFAULT_STRATEGY))
    return zlib.Z_RLE if runs <= full * 1.04 else zlib.Z_DEFAULT_STRATEGY


def deflate(data: bytes | memoryview, level: int, strategy: int, wbits: int = 15, last: bool = True) -> bytes:
    """One zlib stream (wbits 15), or one byte-aligned piece of a raw deflate stream (wbits -15, last False)."""
    z = zlib.compressobj(level, zlib.DEFLATED, wbits, 9, strategy)
    return z.compress(data) + z.flush(zlib.Z_FINISH if last else zlib.Z_SYNC_FLUSH)


def adler32_combine(first: int, second: int, length: int) -> int:
    """adler32(x + y) from adler32(x), adler32(y) and len(y)."""
    base = 65521
    a1, b1, a2, b2 = first & 0xFFFF, first >> 16, second & 0xFFFF, second >> 16
    return (b1 + b2 + length * (a1 - 1)) % base << 16 | (a1 + a2 - 1) % base
