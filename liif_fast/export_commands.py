"""The commands ``liif-fast export onnx`` and ``liif-fast export tensorrt``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import Command, Commands, say
from .options import CellClamp, clamp

ONNX_EXAMPLES = """\
  liif-fast export onnx edsr-baseline upscaler.onnx
  liif-fast export onnx realtime twice.onnx --scale 2 --precision fp16
  liif-fast export onnx edsr-baseline net.onnx --split      makes net_encoder.onnx and net_decoder.onnx"""
TENSORRT_EXAMPLES = """\
  liif-fast export tensorrt edsr-baseline encoder.engine --capability SM89 --capability SM120
  liif-fast export tensorrt edsr-baseline encoder.engine --engine tensorrt"""

app = typer.Typer(cls=Commands, help="Writes a network for other runtimes: ONNX, or a TensorRT engine.")
Network = Annotated[str, typer.Argument(metavar="MODEL", help="A name from `liif-fast info` or a checkpoint file.")]
Force = Annotated[bool, typer.Option("--force", "-f", help="Replace existing files.")]


@app.command("onnx", cls=Command, epilog=ONNX_EXAMPLES)
def to_onnx(
    model: Network,
    output: Annotated[Path, typer.Argument(metavar="OUT.onnx", help="The file.")],
    split: Annotated[bool, typer.Option("--split", help="Two files, OUT_encoder.onnx and OUT_decoder.onnx.")] = False,
    scale: Annotated[
        float | None, typer.Option("--scale", "-s", metavar="S", help="Always this factor; no input 'size'.")
    ] = None,
    precision: Annotated[
        str, typer.Option(help="fp32, or fp16: of pictures, weights and products, as for TensorRT.")
    ] = "fp32",
    cell_clamp: CellClamp = "4",
    force: Force = False,
) -> None:
    """Writes ONNX without GridSample, any size, and measures it in ONNX Runtime against this program.

    Inputs: 'image' [1, 3, H, W], RGB in [0, 1], and 'size' int64 [2], rows and columns.

    Output: 'picture' [1, 3, rows, columns] in [0, 1], of the type of 'image': float32, or float16 by --precision fp16.

    With --split the encoder makes 'z' [H, W, C] of 'image', and the decoder takes 'z', 'size' and 'box' float32 [4],
    the window (top, left, bottom, right) of the image, in its pixels, that is to be 'size' large.
    """
    from .checkpoint import load
    from .export import onnx

    paths, difference = onnx(load(model), output, split, scale, clamp(cell_clamp), force, precision)
    for path in paths:
        say(f"{path}  {path.stat().st_size / 1e6:.1f} MB")
    say(f"largest difference to fp32 here: {difference:.1e} of 1")


@app.command("tensorrt", cls=Command, epilog=TENSORRT_EXAMPLES)
def to_tensorrt(
    model: Network,
    output: Annotated[Path, typer.Argument(metavar="OUT.engine", help="The file.")],
    engine: Annotated[str, typer.Option(help="tensorrt-rtx, or tensorrt for this GPU.")] = "tensorrt-rtx",
    precision: Annotated[str, typer.Option(help="fp16 or bf16.")] = "fp16",
    capability: Annotated[
        list[str] | None,
        typer.Option(metavar="SM", help="As SM89, several allowed, with tensorrt-rtx and no GPU; default: this GPU's."),
    ] = None,
    force: Force = False,
) -> None:
    """Writes the encoder as a TensorRT engine for images from 1 x 1 to 3840 x 2160.

    Input: 'image' [1, H, W, 3], RGB normalised as the model says, (x - mean) / std. Output: 'z' [1, C, H, W], channels
    last (HWC8), which the decoder reads. Both are of the precision asked for.
    """
    from .checkpoint import load
    from .export import tensorrt

    tensorrt(load(model), output, engine, precision, tuple(capability or ()), force)
    built = ", ".join([engine, precision, *(capability or ["this GPU"])])
    say(f"{output}  {output.stat().st_size / 1e6:.1f} MB, {built}; built, not run")
