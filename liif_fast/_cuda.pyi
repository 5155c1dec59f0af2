"""The compiled code for CUDA devices; csrc/colors.h says what every argument means."""

from ._cpu import ColorParams as ColorParams
from ._cpu import Type as Type

def problem() -> str: ...  # why nothing can run, or nothing
def to_rgb(params: ColorParams, *, device: int, stream: int) -> None: ...
def from_rgb(params: ColorParams, *, device: int, stream: int) -> None: ...
