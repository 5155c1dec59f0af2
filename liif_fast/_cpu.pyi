"""The compiled decoders, convolutions and colour conversions; the headers in csrc say what every argument means."""

from enum import Enum

class Type(Enum):
    u8 = 0
    u16 = 1
    f32 = 2
    bf16 = 3
    f16 = 4
    i8 = 5

def isas() -> list[tuple[str, bool]]: ...
def is_intel() -> bool: ...
def openmp() -> bool: ...
def share_mode(*, threads: int) -> None: ...

class Pixels:
    def __init__(
        self,
        *,
        paired: bool,
        scale: list[float],
        shift: list[float],
        low: float,
        high: float,
        data: int,
        type: Type,
        strides: tuple[int, int, int],
    ) -> None: ...

def decode(
    *,
    isa: str,
    threads: int,
    z: int,
    type: Type,
    products: Type,
    width: int,
    z_row_stride: int,
    sides: int,
    y: tuple[int, int, int, int],
    x: tuple[int, int, int, int],
    first: int,
    first_y: int,
    first_x: int,
    hidden: list[tuple[int, int, int, int, int]],
    last: int,
    last_bias: int,
    out: Pixels,
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
    out: Pixels,
) -> None: ...

class PixelGrid:
    def __init__(self, rows: int, columns: int, picture_rows: int = 0) -> None: ...

class ConvolveParams:
    def __init__(
        self,
        *,
        type: Type,
        grid: PixelGrid,
        first_row: int = 0,
        into: int,
        out: int,
        kernel: int,
        input: tuple[int, int],
        skip: tuple[int, int] = ...,
        weight: int = 0,
        winograd: int,
        winograd_type: Type = ...,
        winograd_skip: int = 0,
        bias: int,
        relu: bool = False,
        add: int = 0,
        output: tuple[int, int],
    ) -> None: ...

def convolve(chain: list[ConvolveParams], *, isa: str, threads: int) -> None: ...
def convolve_gradient(
    *, isa: str, threads: int, type: Type, grid: PixelGrid, into: int, out: int, input: int, output: int, weight: int
) -> None: ...
def normalise(
    *,
    threads: int,
    type: Type,
    image: int,
    strides: tuple[int, int, int],
    size: tuple[int, int],
    white: float,
    mean: list[float],
    std: list[float],
    out_type: Type,
    out: tuple[int, int],
) -> None: ...

class ColorParams:
    def __init__(
        self,
        *,
        size: tuple[int, int],
        y: tuple[int, int, int],
        u: tuple[int, int, int],
        v: tuple[int, int, int],
        sample: Type,
        unused: int,
        between: tuple[bool, bool],
        rgb: int,
        rgb_type: Type,
        rgb_strides: tuple[int, int, int],
        zero: list[float],
        by: list[list[float]],
        shift: list[float],
        low: list[float],
        high: list[float],
    ) -> None: ...

def to_rgb(params: ColorParams, *, isa: str, threads: int) -> None: ...
def from_rgb(params: ColorParams, *, isa: str, threads: int) -> None: ...
