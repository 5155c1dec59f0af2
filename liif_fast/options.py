"""Options that several commands have."""

from __future__ import annotations

import math
from typing import Annotated, Any

import typer

Model = Annotated[
    str,
    typer.Option("--model", "-m", help="A name from `liif-fast info` or a checkpoint file.", rich_help_panel="Engine"),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.", rich_help_panel="Engine")]
Precision = Annotated[
    str,
    typer.Option(
        help="fp32, bf16, fp16, or, of LIIF decoders, int8, fp8; auto: the fastest that costs next to no quality.",
        rich_help_panel="Engine",
    ),
]
Backend = Annotated[str, typer.Option(help="auto or a name from `liif-fast info`.", rich_help_panel="Engine")]
Engine = Annotated[
    str, typer.Option(help="Of the encoder: auto or a name from `liif-fast info`.", rich_help_panel="Engine")
]
Threads = Annotated[
    int | None, typer.Option(help="Of the processor; default: one a core.", min=1, max=1024, rich_help_panel="Engine")
]
SelfEnsemble = Annotated[
    bool,
    typer.Option(
        "--self-ensemble",
        help="The mean of eight orientations: better, eight times the work; not for LIIF decoders.",
        rich_help_panel="Engine",
    ),
]
CellClamp = Annotated[
    str,
    typer.Option(
        metavar="S",
        help="Scale beyond which a LIIF decoder's cell input stays as it is there; 'none' as in the paper.",
        rich_help_panel="Engine",
    ),
]


def keywords(
    device: str, precision: str, backend: str, threads: int | None, cell_clamp: str, self_ensemble: bool, **more: Any
) -> dict[str, Any]:
    """Of an `Upscaler`."""
    return {
        "device": device,
        "precision": precision,
        "backend": backend,
        "threads": threads,
        "cell_clamp": clamp(cell_clamp),
        "self_ensemble": self_ensemble,
        **more,
    }


def clamp(text: str) -> float | None:
    """The value of ``--cell-clamp``."""
    if text.lower() == "none":
        return None
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 1 <= value < math.inf:
        raise ValueError(f"--cell-clamp must be a scale of at least 1, such as 4, or 'none', got {text!r}")
    return value
