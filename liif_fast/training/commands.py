"""The workshop's commands. Nothing here imports torch before it is needed: ``--help`` must be quick."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..console import SOME_FAILED
from ..options import Backend, CellClamp, Device, Precision, SelfEnsemble, Threads, keywords

EVAL_EXAMPLES = """\
  liif-fast eval edsr-baseline --data Set5
  liif-fast eval mine.safetensors edsr-baseline --data Set5 --data Set14 --scales 2,3,3.7,4,8
  liif-fast eval realtime realtime-jpeg --data Set5 --jpeg 75
  liif-fast eval edsr-baseline --data DIV2K_valid_HR --protocol div2k --cell-clamp none
  liif-fast eval edsr-baseline --data Set14 --fixed edsr-baseline --strips strips --json set14.json"""


def evaluate(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL", help="Names from `liif-fast info` or checkpoint files.")
    ],
    data: Annotated[
        list[Path],
        typer.Option(metavar="FOLDER", help="Folder of true (HR) pictures; again for another.", show_default=False),
    ],
    scales: Annotated[str, typer.Option(metavar="S,S", help="Factors above 1; fractions allowed.")] = "2,3,4",
    protocol: Annotated[
        str, typer.Option(help="benchmark: PSNR of Y, border of scale left out; div2k: of RGB, border of scale + 6.")
    ] = "benchmark",
    fixed: Annotated[
        list[str] | None,
        typer.Option(metavar="MODEL", help="Also as a network of one scale, then Lanczos; again for another."),
    ] = None,
    fixed_scale: Annotated[float, typer.Option(metavar="S", help="The one scale of --fixed.")] = 4,
    strips: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="The detail where the first model gains most over bicubic, by every method; replaced if there.",
            rich_help_panel="Files",
        ),
    ] = None,
    strip_count: Annotated[
        int | None,
        typer.Option(help="Strips of so many pictures a folder; default: all.", min=1, rich_help_panel="Files"),
    ] = None,
    json_path: Annotated[
        Path | None,
        typer.Option(
            "--json", metavar="FILE", help="Every picture's numbers; replaced if there.", rich_help_panel="Files"
        ),
    ] = None,
    lpips: Annotated[
        bool, typer.Option("--lpips", help="Also LPIPS: extra \\[lpips]; fetches AlexNet, 233 MB.")
    ] = False,
    jpeg: Annotated[
        int | None,
        typer.Option(metavar="QUALITY", help="Reduced pictures go through a JPEG file first.", min=1, max=100),
    ] = None,
    crf: Annotated[
        int | None,
        typer.Option(help="Reduced pictures are frames of a film first, by libx264: extra \\[video].", min=0, max=51),
    ] = None,
    device: Device = "auto",
    precision: Precision = "auto",
    backend: Backend = "auto",
    threads: Threads = None,
    cell_clamp: CellClamp = "4",
    self_ensemble: SelfEnsemble = False,
) -> None:
    """Measures how good networks are, as the papers do: PSNR and SSIM beside bicubic and Lanczos.

    Each picture is reduced by MATLAB's bicubic, rounded to 8 bits, with --jpeg or --crf compressed, and enlarged.

    PSNR is the mean over the pictures: of float predictions, and rounded to 8 bits.

    Exit code 0: all done; 1: some pictures were skipped; 2: refused or broken off.
    """
    from .report import StripRequest, run
    from .testset import Compression

    if jpeg is not None and crf is not None:
        raise ValueError(f"--jpeg {jpeg} and --crf {crf}: one of them")
    compression = (
        Compression("JPEG", jpeg) if jpeg is not None else Compression("H.264", crf) if crf is not None else None
    )
    if strip_count is not None and strips is None:
        raise ValueError(f"--strip-count {strip_count} is of --strips, which is not there")
    options = keywords(device, precision, backend, threads, cell_clamp, self_ensemble)
    request = StripRequest(strips, strip_count) if strips else None
    if run(models, data, scales, protocol, fixed or [], fixed_scale, options, request, json_path, lpips, compression):
        raise typer.Exit(SOME_FAILED)


TRAIN_EXAMPLES = """\
  liif-fast train runs/first --data photographs --iterations 20000
  liif-fast train runs/first --resume
  liif-fast train runs/better --init edsr-baseline --data photographs --synthetic 100 --lr 1.5e-3
  liif-fast train runs/paper --recipe paper --data DIV2K_train_HR --set save_every=2000 --set validate_every=10000
  torchrun --nproc-per-node 4 -m liif_fast train runs/four --config run.toml"""
CALIBRATE_EXAMPLES = """\
  liif-fast calibrate mine.safetensors mine_8bit.safetensors --data photographs
  liif-fast upscale photo.jpg --model mine_8bit.safetensors --device cpu --precision int8"""
BLEND_EXAMPLES = """\
  liif-fast blend edsr-baseline-resample edsr-baseline-resample-jpeg faint.safetensors --share 0.5
  liif-fast upscale photo.jpg --model faint.safetensors"""
EASIER_EXAMPLES = """\
  liif-fast easier edsr-baseline runs/shorter --data photographs --max-loss 0.05 --iterations 2000"""

Output = Annotated[Path, typer.Argument(metavar="FOLDER", help="Of the run: weights, state, log, curves.")]
Data = Annotated[
    list[Path] | None,
    typer.Option(metavar="FOLDER", help="Training pictures, sub-folders included; again for another."),
]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="Settings as TOML; flags go over it.")
]
Synthetic = Annotated[int | None, typer.Option(help="Pictures of text, line art and graphics to make.", min=0)]
Rate = Annotated[float | None, typer.Option("--lr", help="Highest learning rate.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any other setting, as in the TOML file: --set queries=512."),
]


def train(
    output: Output,
    data: Data = None,
    recipe: Annotated[str, typer.Option(help="fast, or paper: that of the LIIF paper.")] = "fast",
    config: ConfigFile = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the run in FOLDER was last saved.")] = False,
    init: Annotated[str | None, typer.Option(metavar="MODEL", help="Begin from this model.")] = None,
    synthetic: Synthetic = None,
    iterations: Annotated[int | None, typer.Option(help="In all, over all sittings; default: 20,000.", min=1)] = None,
    batch: Annotated[int | None, typer.Option(help="Patches an iteration.", min=1)] = None,
    patch: Annotated[int | None, typer.Option(help="Side of an LR patch in pixels.", min=1)] = None,
    lr: Rate = None,
    seed: Annotated[int | None, typer.Option(min=0)] = None,
    settings: Settings = None,
    device: Device = "auto",
    precision: Annotated[
        str, typer.Option(help="Of the products: fp32, bf16 or auto.", rich_help_panel="Engine")
    ] = "auto",
    threads: Threads = None,
) -> None:
    """Trains a network on folders of pictures.

    FOLDER gets model.safetensors (for --model and --init), state.pt (for --resume), log.csv and curves.png. A run that
    was stopped, or killed, goes on from its last saved state, on a processor bit for bit; config.toml has all settings.
    """
    from .sitting import sit

    given = {"init": init, "synthetic": synthetic, "iterations": iterations, "batch": batch, "patch": patch, "lr": lr}
    engine = {"device": device, "precision": precision, "threads": threads, "seed": seed}
    sit(output, data, recipe, config, {**given, **engine}, settings or [], resume)


def easier(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A name from `liif-fast info` or a checkpoint file.")],
    output: Annotated[Path, typer.Argument(metavar="FOLDER", help="For the networks, reports and their runs.")],
    data: Data = None,
    max_loss: Annotated[float, typer.Option(help="Of PSNR on held-out pictures, in dB.")] = 0.05,
    config: ConfigFile = None,
    synthetic: Synthetic = None,
    iterations: Annotated[int | None, typer.Option(help="Of each step; default: 20,000.", min=1)] = None,
    lr: Rate = None,
    settings: Settings = None,
    device: Device = "auto",
    threads: Threads = None,
) -> None:
    """Shortens a network while its quality lasts: LIIF's decoder after EASIER (arXiv 2404.18949), or an encoder.

    Of LIIF's decoder the rectifier whose neurons switch least is folded away, which merges the layers around it; before
    a resampling decoder the encoder's block that is missed least is dropped. Then the network is trained on, and
    measured on held-out pictures. This repeats until more than --max-loss is lost.
    """
    from .sitting import shorten

    given = {"synthetic": synthetic, "iterations": iterations, "lr": lr, "device": device, "threads": threads}
    shorten(model, output, data, config, given, settings or [], max_loss)


def calibrate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A name from `liif-fast info` or a checkpoint file.")],
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="The same network with scales, .safetensors.")],
    data: Annotated[
        list[Path],
        typer.Option(metavar="FOLDER", help="Pictures, sub-folders included; again for another.", show_default=False),
    ],
    pictures: Annotated[int, typer.Option(help="At most so many, spread over all.", min=1)] = 100,
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace an existing file.")] = False,
) -> None:
    """Measures what --precision int8 and fp8 need to know of a network: the scales of its hidden layers.

    Its weights stay as they are, bit for bit.
    """
    from ..checkpoint import load, save
    from ..console import say
    from ..output import check_place
    from .calibrate import calibrate as measured
    from .calibrate import losses

    _check_safetensors(output)
    check_place(output, force)
    weights = measured(load(model), data, pictures)
    lost = losses(weights, data)
    save(output, weights, force=force)
    say(f"{output}  scales of {model} for 8 bits")
    say("at least " + ", ".join(f"{value:.1f} dB in {name}" for name, value in lost.items()) + ", beside fp32")


def blend(
    first: Annotated[str, typer.Argument(metavar="FIRST", help="A name from `liif-fast info` or a checkpoint file.")],
    second: Annotated[str, typer.Argument(metavar="SECOND", help="Likewise, of the same shape.")],
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="What lies between, .safetensors.")],
    share: Annotated[float, typer.Option(help="Of SECOND, 0 to 1.")] = 0.5,
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace an existing file.")] = False,
) -> None:
    """Makes a network between two, of which one was trained from the other.

    Between a network for clean pictures and one for compressed ones it says how much of what compression left is taken
    back; the mean of a run's weights and those it began with is often better than both.
    """
    from ..checkpoint import load, save
    from ..console import say
    from ..output import check_place
    from .blend import blend as between

    _check_safetensors(output)
    check_place(output, force)
    weights = between(load(first), load(second), share)
    save(output, weights, force=force)
    say(f"{output}  {weights.metadata['recipe']}")


def _check_safetensors(path: Path) -> None:
    if path.suffix != ".safetensors":
        raise ValueError(f"{path}: the name must end in .safetensors")
