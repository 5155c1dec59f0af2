"""The commands for films. Nothing here imports torch or av before it is needed: ``--help`` must be quick."""

from __future__ import annotations

import json
import re
import warnings
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import batch
from ..console import SOME_FAILED, check_stdout, say, say_error
from ..options import Backend, CellClamp, Device, Engine, Model, Precision, SelfEnsemble, Threads, keywords
from ..weights import DEFAULT
from ..words import counted

if TYPE_CHECKING:
    from ..upscaler import Upscaler

VIDEO_EXAMPLES = """\
  liif-fast video film.mp4 large.mkv --scale 2
  liif-fast video film.mp4 large.mp4 --size 3840x2160 --codec libx265 --crf 18
  liif-fast video film.mkv large.mkv --height 1440 --start 1:30 --frames 240 --preview look.png
  liif-fast video film.mp4 large.mkv --scale 2 --resume        goes on after a break
  liif-fast video sticker.gif large.webp --scale 4"""
PIPE_EXAMPLES = """\
  ffmpeg -i in.mp4 -f yuv4mpegpipe - | liif-fast pipe --scale 2 | ffmpeg -i - out.mp4
  camera | liif-fast pipe --input-size 640x360 --format rgb24 --size 1280x720 --latency | viewer"""
ZOOM_EXAMPLES = """\
  liif-fast zoom photo.jpg out.mp4 --to 0.45,0.30,0.55,0.36
  liif-fast zoom photo.jpg out.mp4 --from 0.1,0.2,0.3,0.4 --to full --seconds 5 --size 1280x720 --easing linear"""

Scale = Annotated[
    str | None,
    typer.Option(
        "--scale",
        "-s",
        metavar="S",
        help="Factor of at least 0.5, as 2 or 2.25, or two for width x height; default: 2.",
        rich_help_panel="Size",
    ),
]
Size = Annotated[str | None, typer.Option(metavar="WxH", help="Width x height, as 3840x2160.", rich_help_panel="Size")]
Longest = Annotated[int | None, typer.Option(help="The longer side; aspect kept.", rich_help_panel="Size")]
Width = Annotated[int | None, typer.Option(help="Width; aspect kept without --height.", rich_help_panel="Size")]
Height = Annotated[int | None, typer.Option(help="Height; aspect kept without --width.", rich_help_panel="Size")]
Codec = Annotated[
    str | None,
    typer.Option(
        help="ffmpeg's name of an encoder, as libx265, libsvtav1, ffv1 or h264_nvenc; default: libx264, libx265 for "
        "more than 8 bits, libvpx-vp9 for .webm.",
        rich_help_panel="Encoding",
    ),
]
Crf = Annotated[
    float | None,
    typer.Option(
        help="Quality in the encoder's own units, lower is better; of videotoolbox 1 to 100, higher is better.",
        rich_help_panel="Encoding",
    ),
]
Preset = Annotated[str | None, typer.Option(help="Speed of the encoder, as fast or slow.", rich_help_panel="Encoding")]
PixelFormat = Annotated[
    str | None,
    typer.Option(
        help="As yuv444p or yuv420p10le; default: the input's, or the nearest that players know.",
        rich_help_panel="Encoding",
    ),
]
CodecOption = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=VALUE", help="Any other of the encoder's; again for more.", rich_help_panel="Encoding"),
]
Force = Annotated[bool, typer.Option("--force", "-f", help="Replace an existing result.", rich_help_panel="Files")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")]
Json = Annotated[bool, typer.Option("--json", help="The result as one JSON object.")]


def video(
    input: Annotated[str, typer.Argument(metavar="INPUT", help="A film, or an animated GIF, WebP, PNG or AVIF.")],
    output: Annotated[
        str,
        typer.Argument(
            metavar="OUTPUT",
            help="A film: .mkv, .mp4, .mov, .webm; of an animated picture also .gif, .webp, .png, .apng, .avif.",
        ),
    ],
    scale: Scale = None,
    size: Size = None,
    longest: Longest = None,
    width: Width = None,
    height: Height = None,
    start: Annotated[
        str | None, typer.Option(metavar="TIME", help="Begin there: seconds, or 1:30.5.", rich_help_panel="Part")
    ] = None,
    end: Annotated[str | None, typer.Option(metavar="TIME", help="End there.", rich_help_panel="Part")] = None,
    frames: Annotated[int | None, typer.Option(help="At most so many frames.", min=1, rich_help_panel="Part")] = None,
    codec: Codec = None,
    crf: Crf = None,
    preset: Preset = None,
    pixel_format: PixelFormat = None,
    codec_option: CodecOption = None,
    deinterlace: Annotated[
        bool, typer.Option("--deinterlace", help="Make whole frames of fields (bwdif).", rich_help_panel="Encoding")
    ] = False,
    leave_out: Annotated[
        bool,
        typer.Option("--leave-out", help="Go without streams that the result cannot hold.", rich_help_panel="Files"),
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where an earlier run was broken off.", rich_help_panel="Files")
    ] = False,
    preview: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="First write a strip of three frames: bicubic on the left, this on the right.",
            rich_help_panel="Files",
        ),
    ] = None,
    force: Force = False,
    model: Model = DEFAULT,
    device: Device = "auto",
    precision: Precision = "auto",
    backend: Backend = "auto",
    engine: Engine = "auto",
    threads: Threads = None,
    cell_clamp: CellClamp = "4",
    self_ensemble: SelfEnsemble = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Enlarges a film; sound, subtitles, chapters, attachments, times, colours and rotation stay as they are.

    Of an animated picture durations, repetitions and transparency stay; WebP and PNG are written without loss.

    The result keeps the film's shape on the screen. A run that is broken off keeps what it has finished, for --resume.

    Exit code 0: done; 1: done as far as the damaged input goes; 2: refused or broken off.
    """
    from . import animation, film

    request = _request(scale, size, longest, width, height)
    part = (_seconds(start, "--start"), _seconds(end, "--end"))
    job = film.Job(
        input, output, request, _choice(codec, crf, preset, pixel_format, codec_option),
        *part, frames, deinterlace, leave_out, resume, force,
    )  # fmt: skip
    options = keywords(device, precision, backend, threads, cell_clamp, self_ensemble, engine=engine)
    if quiet:
        warnings.simplefilter("ignore")
    upscaler: list[Upscaler] = []

    def ready() -> Upscaler:
        from ..upscaler import Upscaler

        upscaler.append(Upscaler(model, **options))
        return upscaler[0]

    make = animation.make if animation.writes(output) else film.make
    meter = film.FilmMeter(not quiet)
    with meter:
        made = make(job, ready, meter, None if preview is None else partial(_strip, preview, force))
    description = upscaler[0].description
    speed = (made.frames - made.resumed) / made.seconds
    if as_json:
        facts: dict[str, Any] = {
            "input": input, "output": output, "width": made.width, "height": made.height, "frames": made.frames,
            "resumed": made.resumed, "seconds": round(made.seconds, 3), "frames_per_second": round(speed, 3),
            "codec": made.codec, "pixel_format": made.pixel_format,
            "steps": {name: round(seconds, 3) for name, seconds in made.steps.items()}, "description": description,
        }  # fmt: skip
        say(json.dumps(facts))
    elif not quiet:
        frames_text = counted(made.frames, "frame") + (f" ({made.resumed} from before)" if made.resumed else "")
        say(f"{output}  {made.width} x {made.height}  {frames_text}  {made.seconds:.2f} s  {speed:.2f} fps")
        say(description)
    if made.damage:
        say_error(f"{input}: {made.damage}; the rest is done")
        raise typer.Exit(SOME_FAILED)


def _strip(path: str, force: bool, *what: Any) -> None:
    from .preview import write_strip

    write_strip(path, force, *what)


def _request(
    scale: str | None, size: str | None, longest: int | None, width: int | None, height: int | None
) -> batch.Request:
    given = size or longest or width or height
    return batch.Request.parse(scale or (None if given else "2"), size, longest, width, height)


def _choice(
    codec: str | None, crf: float | None, preset: str | None, pixel_format: str | None, others: list[str] | None
) -> Any:
    from .encoding import Choice

    options = {}
    for text in others or ():
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise ValueError(f"--codec-option must be NAME=VALUE such as tune=film, got {text!r}")
        options[name] = value
    return Choice(codec, crf, preset, pixel_format, options)


def _seconds(text: str | None, option: str) -> Fraction | None:
    if text is None:
        return None
    match = re.fullmatch(r"(?:(?:(\d+):)?(\d{1,2}):)?(\d+(?:\.\d*)?|\.\d+)", text.strip())
    if not match:
        raise ValueError(f"{option} must be seconds or HOURS:MINUTES:SECONDS, got {text!r}")
    hours, minutes, seconds = (Fraction(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds


def zoom(
    input: Annotated[str, typer.Argument(metavar="PICTURE", help="A picture.")],
    output: Annotated[str, typer.Argument(metavar="OUTPUT", help="The film: .mkv, .mp4, .mov or .webm.")],
    to: Annotated[
        str,
        typer.Option(
            metavar="L,T,R,B",
            help="The last window: left, top, right, bottom in fractions of the picture, or 'full'.",
            rich_help_panel="Move",
            show_default=False,
        ),
    ],
    start: Annotated[
        str, typer.Option("--from", metavar="L,T,R,B", help="The first window, likewise.", rich_help_panel="Move")
    ] = "full",
    seconds: Annotated[float, typer.Option(help="Length of the film.", rich_help_panel="Move")] = 8.0,
    easing: Annotated[str, typer.Option(help="smooth, linear, in or out.", rich_help_panel="Move")] = "smooth",
    size: Annotated[str, typer.Option(metavar="WxH", help="Width x height.", rich_help_panel="Size")] = "1920x1080",
    fps: Annotated[float, typer.Option(help="Frames a second.", rich_help_panel="Size")] = 30.0,
    codec: Codec = None,
    crf: Crf = None,
    preset: Preset = None,
    pixel_format: PixelFormat = None,
    codec_option: CodecOption = None,
    force: Force = False,
    model: Model = DEFAULT,
    device: Device = "auto",
    precision: Precision = "auto",
    backend: Backend = "auto",
    engine: Engine = "auto",
    threads: Threads = None,
    cell_clamp: CellClamp = "4",
    self_ensemble: SelfEnsemble = False,
    quiet: Quiet = False,
) -> None:
    """A film that zooms into a picture, each frame rendered at a scale of its own.

    A window of another shape than the film is widened to it, and kept inside the picture.
    """
    import time

    from .film import FilmMeter
    from .motion import Plan, prepare, read, render

    if not 0.001 <= fps <= 1000:
        raise ValueError(f"--fps must be from 0.001 to 1000, got {fps:g}")
    windows = _window(start, "--from"), _window(to, "--to")
    columns, rows = batch.size_of(size, "--size")
    options = keywords(device, precision, backend, threads, cell_clamp, self_ensemble, engine=engine)
    if quiet:
        warnings.simplefilter("ignore")
    picture = read(input)
    plan = Plan(picture.shape, *windows, seconds, (rows, columns), Fraction(fps).limit_denominator(1001), easing)
    choice = _choice(codec, crf, preset, pixel_format, codec_option)
    encoding = prepare(output, choice, plan, picture, force)
    from ..upscaler import Upscaler

    upscaler = Upscaler(model, **options)
    begun = time.perf_counter()
    meter = FilmMeter(not quiet)
    with meter:
        meter.picture(output)
        render(output, encoding, plan, picture, upscaler, force, meter)
    spent = time.perf_counter() - begun
    if not quiet:
        frames = counted(plan.frames, "frame")
        say(f"{output}  {columns} x {rows}  {frames}  {spent:.2f} s  {plan.frames / spent:.2f} fps")
        say(upscaler.description)


def _window(text: str, option: str) -> tuple[float, float, float, float]:
    if text.strip().lower() == "full":
        return (0.0, 0.0, 1.0, 1.0)
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != 4:
        raise ValueError(f"{option} must be 'full' or LEFT,TOP,RIGHT,BOTTOM in fractions from 0 to 1, got {text!r}")
    return numbers[0], numbers[1], numbers[2], numbers[3]


def pipe(
    scale: Scale = None,
    size: Size = None,
    longest: Longest = None,
    width: Width = None,
    height: Height = None,
    input_size: Annotated[
        str | None,
        typer.Option(metavar="WxH", help="Of raw frames; without it the input is Y4M.", rich_help_panel="Input"),
    ] = None,
    format: Annotated[
        str,
        typer.Option(help="ffmpeg's name of raw frames' pixel format, as rgb24 or yuv420p.", rich_help_panel="Input"),
    ] = "rgb24",
    matrix: Annotated[
        str,
        typer.Option(help="bt601, bt709, bt2020 of YUV; auto: by its height.", rich_help_panel="Input"),
    ] = "auto",
    full_range: Annotated[
        bool, typer.Option("--full-range", help="Raw YUV has black 0 and white 255.", rich_help_panel="Input")
    ] = False,
    latency: Annotated[
        bool, typer.Option("--latency", help="Write each frame before the next is read: least delay, less speed.")
    ] = False,
    model: Model = DEFAULT,
    device: Device = "auto",
    precision: Precision = "auto",
    backend: Backend = "auto",
    engine: Engine = "auto",
    threads: Threads = None,
    cell_clamp: CellClamp = "4",
    self_ensemble: SelfEnsemble = False,
    quiet: Quiet = False,
) -> None:
    """Enlarges frames from standard input to standard output: Y4M, or raw frames of one size.

    The result has the input's format, matrix and range.

    Exit code 0: done; 1: done, but the input ended within a frame; 2: refused or broken off.
    """
    import io
    import time

    from .errors import check_library
    from .pipe import run
    from .raw import Layout

    check_library()
    check_stdout()
    if quiet:
        warnings.simplefilter("ignore")
    if input_size is None and (format != "rgb24" or full_range):
        raise ValueError(
            "--format and --full-range are of raw frames, whose size --input-size gives; Y4M names its own"
        )
    request = _request(scale, size, longest, width, height)
    options = keywords(device, precision, backend, threads, cell_clamp, self_ensemble, engine=engine)
    layout = None
    if input_size is not None:
        layout = Layout(*batch.size_of(input_size, "--input-size"), format, full_range)
    made: list[Upscaler] = []

    def ready() -> Upscaler:
        from ..upscaler import Upscaler

        made.append(Upscaler(model, **options))
        begun.append(time.perf_counter())
        return made[0]

    begun: list[float] = []
    # Without buffers: a frame is out when it is written, and nothing holds a lock when the program ends.
    with io.FileIO(0, closefd=False) as source, io.FileIO(1, "w", closefd=False) as result:
        done, cut = run(source, result, layout, request, matrix, latency, ready)
    if cut:
        say_error(f"the input ended {cut} bytes into frame {done + 1}; {counted(done, 'frame')} done")
        raise typer.Exit(SOME_FAILED)
    if not done:
        raise ValueError("no frame came on standard input")
    spent = time.perf_counter() - begun[0]
    if not quiet:
        say_error(f"{counted(done, 'frame')}  {spent:.2f} s  {done / spent:.2f} fps; {made[0].description}", "")
