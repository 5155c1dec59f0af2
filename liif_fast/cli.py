"""The command ``liif-fast`` and what it does to pictures. Torch is imported only by what computes."""

from __future__ import annotations

import errno
import json
import sys
import time
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import batch, export_commands, standard
from .console import NAME, SOME_FAILED, Command, Commands, Meter, advised, explain, printable, say, say_error, speed
from .options import Backend, CellClamp, Device, Engine, Model, Precision, SelfEnsemble, Threads, keywords
from .training import commands
from .video import commands as films
from .weights import DEFAULT, PAPER, for_jpeg

if TYPE_CHECKING:
    import numpy as np

    from .upscaler import Upscaler

app = typer.Typer(
    cls=Commands,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

UPSCALE_EXAMPLES = """\
  liif-fast upscale photo.jpg                       makes photo_x4.jpg
  liif-fast upscale photo.jpg --fit 3840x2160       makes photo_fit_3840x2160.jpg
  liif-fast upscale photo.jpg -o large.png --scale 2.5
  liif-fast upscale scans/ -o large/ --recursive --suffix .png --skip-existing
  liif-fast upscale - --suffix .jpg < small.png > large.jpg
  liif-fast upscale map.tif -o detail.tif --box 100,200,164,328 --width 2048"""
INFO_EXAMPLES = """\
  liif-fast info
  liif-fast info --json"""
BENCH_EXAMPLES = """\
  liif-fast bench --quick
  liif-fast bench --precision fp32 --json speed.json"""
ROOT_EXAMPLES = """\
  liif-fast upscale photo.jpg --scale 4
  liif-fast upscale --help"""


@app.callback(invoke_without_command=True, epilog=ROOT_EXAMPLES)
def root(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    """Enlarges any picture to any size with one small network: LIIF-EDSR, or a faster one that resamples."""
    if version:
        from . import __version__

        say(f"{NAME} {__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command(cls=Command, epilog=UPSCALE_EXAMPLES)
def upscale(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT", help="Pictures, folders of pictures, patterns such as '*.jpg', or - for stdin."
        ),
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            help="File, folder where there are several, or - for stdout; default: beside the input, as photo_x4.jpg.",
            rich_help_panel="Files",
        ),
    ] = None,
    suffix: Annotated[
        str | None,
        typer.Option(
            help="Format of the results, as .png; default: the input's own, or .png (also for -).",
            rich_help_panel="Files",
        ),
    ] = None,
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Sub-folders too, kept in the output.", rich_help_panel="Files")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Replace existing results.", rich_help_panel="Files")
    ] = False,
    skip_existing: Annotated[
        bool,
        typer.Option("--skip-existing", help="Make only the results that are not there yet.", rich_help_panel="Files"),
    ] = False,
    quality: Annotated[
        int | None,
        typer.Option(help="Of JPEG, WebP and AVIF; default: 95.", min=1, max=100, rich_help_panel="Files"),
    ] = None,
    lossless: Annotated[bool, typer.Option("--lossless", help="WebP without loss.", rich_help_panel="Files")] = False,
    background: Annotated[
        str | None,
        typer.Option(
            metavar="COLOR",
            help="Lay transparent pictures on it, as white or '#20252b'; for JPEG and BMP.",
            rich_help_panel="Files",
        ),
    ] = None,
    max_pixels: Annotated[
        str, typer.Option(metavar="N", help="Refuse larger inputs; as 200M.", rich_help_panel="Files")
    ] = "100M",
    scale: Annotated[
        str | None,
        typer.Option(
            "--scale",
            "-s",
            metavar="S",
            help="Factor of at least 0.5, as 4 or 2.5, or two for width x height, as 2x3; default: 4.",
            rich_help_panel="Size",
        ),
    ] = None,
    size: Annotated[
        str | None, typer.Option(metavar="WxH", help="Width x height, as 3840x2160.", rich_help_panel="Size")
    ] = None,
    fit: Annotated[
        str | None, typer.Option(metavar="WxH", help="The largest that fits in; aspect kept.", rich_help_panel="Size")
    ] = None,
    longest: Annotated[int | None, typer.Option(help="The longer side; aspect kept.", rich_help_panel="Size")] = None,
    width: Annotated[
        int | None, typer.Option(help="Width; aspect kept without --height.", rich_help_panel="Size")
    ] = None,
    height: Annotated[
        int | None, typer.Option(help="Height; aspect kept without --width.", rich_help_panel="Size")
    ] = None,
    box: Annotated[
        str | None,
        typer.Option(
            metavar="T,L,B,R",
            help="Only this window: top, left, bottom, right in pixels of the input, fractions allowed.",
            rich_help_panel="Size",
        ),
    ] = None,
    model: Model = DEFAULT,
    device: Device = "auto",
    precision: Precision = "auto",
    backend: Backend = "auto",
    engine: Engine = "auto",
    threads: Threads = None,
    max_memory: Annotated[
        str | None,
        typer.Option(
            metavar="BYTES",
            help="For features and buffers, as 800M or 2G; default: 1.5G or half of what is free.",
            rich_help_panel="Engine",
        ),
    ] = None,
    cell_clamp: CellClamp = "4",
    self_ensemble: SelfEnsemble = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line for each result.")] = False,
) -> None:
    """Enlarges pictures: a file, several, or a folder.

    JPEG, PNG, TIFF, WebP, AVIF and BMP are read and written, GIF is read. Give one size; the default is --scale 4.

    Times are of reading, enlarging and writing a picture; loading the program and the model is not in them.

    Exit code 0: all done; 1: some of several could not be; 2: refused or broken off.
    """
    from .files import parse_color

    if quiet:
        warnings.simplefilter("ignore")
    if force and skip_existing:
        raise ValueError("give --force or --skip-existing, not both")
    request = batch.Request.parse(scale, size, longest, width, height, box, fit)
    pixels = batch.count(max_pixels, "--max-pixels")
    below = None if background is None else parse_color(background, "--background")
    memory = None if max_memory is None else batch.count(max_memory, "--max-memory", 1024)
    options = keywords(device, precision, backend, threads, cell_clamp, self_ensemble, engine=engine, max_memory=memory)
    with standard.places(inputs, output) as at:
        jobs = batch.plan(at.inputs, at.output, request.tag, suffix, recursive, skip_existing, quality)
        several = len(jobs) > 1
        if several and at.piped:
            raise ValueError(f"-o - is for one picture, there are {len(jobs)}")
        if skip_existing:
            jobs = _missing(jobs, quiet)
        with batch.folders(jobs):
            batch.check(jobs, force, lossless)
            run = _Run(request, pixels, model, options, force, lossless, below, quiet, as_json, at)
            failed = run.all(jobs, several) if jobs else 0
    if failed:
        raise typer.Exit(SOME_FAILED)


def _missing(jobs: list[batch.Job], quiet: bool) -> list[batch.Job]:
    """Those without a result."""
    missing = [job for job in jobs if not job.output.is_file()]
    if len(missing) < len(jobs) and not quiet:
        say_error(f"{len(jobs) - len(missing)} of {len(jobs)} results are there already", "")
    return missing


class _Run:
    """One call of ``upscale``: pictures read, enlarged, written and reported one after the other."""

    def __init__(
        self,
        request: batch.Request,
        max_pixels: int,
        model: str,
        options: dict[str, Any],
        force: bool,
        lossless: bool,
        background: tuple[int, int, int] | None,
        quiet: bool,
        as_json: bool,
        at: standard.Places,
    ) -> None:
        self.request, self.max_pixels, self.model, self.options = request, max_pixels, model, options
        self.force, self.lossless, self.background = force, lossless, background
        self.quiet, self.as_json = quiet, as_json
        self.name, self.said, self.stream = at.name, at.said, sys.stderr if at.piped else sys.stdout
        self.deliver = at.deliver
        self._upscaler: Upscaler | None = None
        self._made = batch.Results()

    def all(self, jobs: list[batch.Job], several: bool) -> int:
        """The number of pictures that could not be done; what ends the whole run, as one that is alone, is raised."""
        failed = 0
        if several:
            self.upscaler()  # what is wrong with it is no single picture's fault
        with Meter(len(jobs), shown=not self.quiet) as meter:
            for job in jobs:
                meter.picture(job.input.name)
                try:
                    with advised("a smaller --max-memory works in smaller tiles, and PNG and TIFF are written by rows"):
                        result = self.one(job, meter)
                    self.deliver(job.output)  # before anything is said of it
                except Exception as error:
                    cause = error.__cause__ or error
                    text = self.said(explain(error))
                    result = {"input": self.name(job.input), "error": text}
                    if not several or getattr(cause, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
                        self.report(result)
                        raise
                    failed += 1
                    with meter.aside():
                        say_error(text if str(job.input) in text else f"{job.input}: {text}")
                meter.finish_picture()
                with meter.aside():
                    self.report(result)
        if self._upscaler and failed < len(jobs) and not self.quiet and not self.as_json:
            say(self._upscaler.description, self.stream)
            if (better := for_jpeg(self._upscaler.weights.name)) and any(job.jpeg for job in jobs):
                say(f"JPEGs of less than the highest quality are better enlarged by --model {better}", self.stream)
        if failed:
            say_error(f"{failed} of {len(jobs)} pictures could not be done")
        return failed

    def upscaler(self) -> Upscaler:
        if self._upscaler is None:
            from .upscaler import Upscaler

            self._upscaler = Upscaler(self.model, **self.options)
        return self._upscaler

    def one(self, job: batch.Job, meter: Meter) -> dict[str, Any]:
        from .files import flatten, read
        from .output import check_output, writer

        self._made.check(job)
        start = time.perf_counter()
        image, metadata = read(job.input, self.max_pixels)
        image = flatten(image, job.output, self.background)
        seconds = time.perf_counter() - start
        # What follows may import torch and load the model: once, whatever the picture, so not in its time.
        rows, columns = target = self.request.target(*image.shape[:2])
        shape = (rows, columns, image.shape[2])
        format = check_output(job.output, shape, image.dtype, self.force, quality=job.quality, lossless=self.lossless)
        batch.check_memory(job.output, format, shape)
        own = self.request.own_pixels(image, target)
        for doubt in self.request.doubts(image, target):
            with meter.aside():
                warnings.warn(f"{job.input}: {doubt}", stacklevel=2)
        bands: Iterable[np.ndarray]
        if own is None:
            upscaler = self.upscaler()
            bands, engine = upscaler.bands(image, target, meter, self.request.box), _engine(upscaler)
        else:
            bands, engine = [own], {}
        start = time.perf_counter()
        with writer(job.output, shape, image.dtype, metadata, job.quality, self.lossless, self.force) as out:
            for band in bands:
                out.write(band)
        seconds += time.perf_counter() - start
        self._made.add(job)
        return {
            "input": self.name(job.input),
            "output": self.name(job.output),
            "width": columns,
            "height": rows,
            "channels": shape[2],
            "seconds": round(seconds, 3),
            "megapixels_per_second": round(rows * columns / 1e6 / seconds, 4),
            "unchanged": own is not None,
            **engine,
        }

    def report(self, result: dict[str, Any]) -> None:
        if self.as_json:
            say(json.dumps(result), self.stream)
        elif not self.quiet and "error" not in result:
            how = "unchanged, as it has this size" if result["unchanged"] else speed(result["megapixels_per_second"])
            size = f"{result['width']} x {result['height']}"
            say(f"{result['output']}  {size}  {result['seconds']:.2f} s  {how}", self.stream)


def _engine(upscaler: Upscaler) -> dict[str, Any]:
    return {
        "model": upscaler.weights.name,
        "device": str(upscaler.device),
        "precision": upscaler.precision,
        "backend": upscaler.decoder.backend,
        "engine": upscaler.encoder.engine,
        "description": upscaler.description,
    }


@app.command(cls=Command, epilog=INFO_EXAMPLES)
def info(as_json: Annotated[bool, typer.Option("--json", help="As one JSON object.")] = False) -> None:
    """What this installation has: versions, processor, backends, precisions, models, formats."""
    from . import system

    found = system.describe()
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        typer.echo("\n".join(printable(line) for line in system.lines(found)))


@app.command(cls=Command, epilog=BENCH_EXAMPLES)
def bench(
    model: Model = PAPER,
    device: Device = "auto",
    backend: Backend = "auto",
    engine: Engine = "auto",
    precision: Annotated[
        str | None,
        typer.Option(
            help="fp32, bf16, fp16, int8, fp8 or auto; default: each that has kernels here, but fp8.",
            rich_help_panel="Engine",
        ),
    ] = None,
    threads: Threads = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer and smaller measurements.")] = False,
    json_path: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the numbers there too.")
    ] = None,
) -> None:
    """Measures how fast this machine is, stage by stage."""
    from .bench import run

    run(model, device, backend, precision, threads, quick, json_path, engine)


app.command("eval", cls=Command, epilog=commands.EVAL_EXAMPLES)(commands.evaluate)
app.command("train", cls=Command, epilog=commands.TRAIN_EXAMPLES)(commands.train)
app.command("video", cls=Command, epilog=films.VIDEO_EXAMPLES)(films.video)
app.command("pipe", cls=Command, epilog=films.PIPE_EXAMPLES)(films.pipe)
app.command("zoom", cls=Command, epilog=films.ZOOM_EXAMPLES)(films.zoom)
app.command("calibrate", cls=Command, epilog=commands.CALIBRATE_EXAMPLES)(commands.calibrate)
app.command("blend", cls=Command, epilog=commands.BLEND_EXAMPLES)(commands.blend)
app.command("easier", cls=Command, epilog=commands.EASIER_EXAMPLES)(commands.easier)

app.add_typer(export_commands.app, name="export")
