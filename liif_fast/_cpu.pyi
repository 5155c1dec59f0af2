"""The compiled decoders; csrc/decode.h and csrc/resample.h say what every argument means."""

from enum import Enum

class Type(Enum):
    u8 = 0
    u16 = 1
    f32 = 2
    bf16 = 3

def isas() -> list[tuple[str, bool]]: ...
def decode(
    *,
    isa: str,
    threads: int,
    z: int,
    type: Type,
    width: int,
    z_row_stride: int,
    sides: int,
    y: tuple[int, int, int, int],
    x: tuple[int, int, int, int],
    paired: bool,
    first: int,
    first_y: int,
    first_x: int,
    hidden: list[tuple[int, int, int, int]],
    last: int,
    last_bias: int,
    scale: tuple[float, ...],
    shift: tuple[float, ...],
    range: tuple[float, float],
    out: int,
    out_type: Type,
    out_strides: tuple[int, ...],
) -> None: ...
def resample(
    *,
    isa: str,
    threads: int,
    z: int,
    type: Type,
    rows: int,
    columns: int,
    z_row_stride: int,
    y: tuple[int, int, int],
    x: tuple[int, int, int],
    paired: bool,
    scale: tuple[float, ...],
    shift: tuple[float, ...],
    range: tuple[float, float],
    out: int,
    out_type: Type,
    out_strides: tuple[int, ...],
) -> None: ...
def convolve(
    *,
    isa: str,
    threads: int,
    type: Type,
    rows: int,
    columns: int,
    into: int,
    out: int,
    kernel: int,
    input: tuple[int, int],
    skip: tuple[int, int],
    weight: int,
    winograd: int,
    winograd_skip: int,
    bias: int,
    relu: bool,
    add: int,
    output: tuple[int, int],
) -> None: ...
