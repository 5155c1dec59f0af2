"""The command line: what it makes and what it refuses. Several pictures are in test_batch.py, how it ends in
test_cli_ends.py."""

import json
import os
import platform
import shutil
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import liif_fast
from common import GOLDEN
from images import pixels
from liif_fast import batch, cli, console, output, system
from liif_fast.weights import DEFAULT, PAPER

TINY = str(GOLDEN / "tiny.pth")


def run(*args, model=TINY):
    words = [str(a) for a in args]
    engine = ["--model", model, "--precision", "fp32"] if words[0] == "upscale" else []
    return CliRunner().invoke(cli.app, [*words, *engine], prog_name="liif-fast")


def refused(result, *words, code=2):
    """One line of error, no traceback, no line of result."""
    assert result.exit_code == code, result.output
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("liif-fast: error: ")
    for word in words:
        assert word in lines[0]
    assert result.stdout == ""


def names(place="."):
    return sorted(str(p.relative_to(place)) for p in Path(place).rglob("*"))


def size(path):
    with Image.open(path) as im:
        return im.size


# What it makes.


def test_default_is_four_times_beside_the_input(folder):
    result = run("upscale", "a.png")
    assert result.exit_code == 0
    assert result.stderr == ""
    line, engine = result.stdout.splitlines()
    assert line.startswith("a_x4.png  68 x 44  ")
    assert line.endswith(" MP/s")
    assert engine.startswith("tiny, cpu, fp32, ")
    assert size("a_x4.png") == (68, 44)


def test_same_pixels_as_the_upscaler(folder):
    assert run("upscale", "a.png", "--scale", "3.7", "-o", "b.png", "--threads", 1).exit_code == 0
    expected = liif_fast.Upscaler(TINY, precision="fp32", threads=1)(pixels(), scale=3.7)
    assert np.array_equal(np.array(Image.open("b.png")), expected)


def test_an_input_without_a_name(folder):
    """As of a variable that is not set: not all pictures of the current folder."""
    for words in ([""], ["", "a.png"]):
        result = run("upscale", *words)
        assert result.exit_code == 2
        assert "an input without a name" in result.stderr
    assert not list(folder.glob("*_x4*"))


def test_window(folder):
    assert run("upscale", "a.png", "--box", "1.5,2,9.25,15", "--width", 60).exit_code == 0
    field = liif_fast.Upscaler(TINY, precision="fp32").encode(pixels())
    expected = field.render(size=(36, 60), box=(1.5, 2, 9.25, 15))
    assert np.array_equal(np.array(Image.open("a_crop_60w.png")), expected)


@pytest.mark.parametrize(
    ("options", "name", "expected"),
    [
        (["--scale", "2.5"], "a_x2.5.png", (42, 28)),
        (["-s", "2x3"], "a_x2x3.png", (34, 33)),
        (["--size", "40x30"], "a_40x30.png", (40, 30)),
        (["--longest", "50"], "a_50px.png", (50, 32)),
        (["--width", "51"], "a_51w.png", (51, 33)),
        (["--height", "22"], "a_22h.png", (34, 22)),
        (["--height", "22", "--width", "19"], "a_19x22.png", (19, 22)),
        (["--fit", "40x40"], "a_fit_40x40.png", (40, 26)),
        (["--fit", "99x22"], "a_fit_99x22.png", (34, 22)),
        (["--fit", "40x40", "--box", "0,0,11,5"], "a_crop_fit_40x40.png", (18, 40)),
        (["--suffix", "WEBP"], "a_x4.webp", (68, 44)),
        (["--suffix", ".webp", "--lossless"], "a_x4.webp", (68, 44)),
        (["-o", "b.jpg", "--quality", "80"], "b.jpg", (68, 44)),
        (["--cell-clamp", "none", "--max-memory", "1M"], "a_x4.png", (68, 44)),
    ],
)
def test_sizes_names_and_formats(folder, options, name, expected):
    result = run("upscale", "a.png", *options)
    assert result.exit_code == 0, result.output
    assert names() == sorted(["a.png", name])
    assert size(name) == expected


def test_json_and_quiet(folder):
    result = run("upscale", "a.png", "--json", "--scale", 2)
    found = json.loads(result.stdout)
    expected = {"input": "a.png", "output": "a_x2.png", "width": 34, "height": 22, "channels": 3, "model": "tiny"}
    assert {**expected, "unchanged": False}.items() <= found.items()
    assert found["seconds"] > 0
    assert found["description"].startswith("tiny, cpu, fp32")
    assert run("upscale", "a.png", "--quiet", "--scale", 3).output == ""
    Path("text.png").write_text("not a picture")
    result = run("upscale", "text.png", "--json")
    assert result.exit_code == 2
    assert json.loads(result.stdout) == {
        "input": "text.png",
        "error": result.stderr.removeprefix("liif-fast: error: ")[:-1],
    }


def test_times_are_without_the_start(folder, monkeypatch):
    """Whatever is imported or loaded once takes no time of a picture, the first and only one too."""

    def slowly(function):
        return lambda *args, **kwargs: (time.sleep(2), function(*args, **kwargs))[1]

    monkeypatch.setattr(batch.Request, "target", slowly(batch.Request.target))
    monkeypatch.setattr(cli._Run, "upscaler", slowly(cli._Run.upscaler))
    assert 0 < json.loads(run("upscale", "a.png", "--json").stdout)["seconds"] < 2


@pytest.mark.parametrize(
    ("megapixels", "text"), [(0.00123, "0.00123"), (0.5, "0.5"), (2.345, "2.35"), (1234.5, "1234")]
)
def test_speed_has_three_digits(megapixels, text):
    assert console.speed(megapixels) == f"{text} MP/s"


@pytest.mark.parametrize("options", [["--scale", 1], ["--longest", 17], ["--fit", "99x11"]])
def test_the_size_it_has_changes_no_pixel(folder, options):
    result = run("upscale", "a.png", *options, "-o", "b.png")
    assert result.stdout.splitlines()[0].endswith("unchanged, as it has this size")
    assert np.array_equal(np.array(Image.open("b.png")), pixels())
    found = json.loads(run("upscale", "a.png", *options, "-o", "b.png", "-f", "--json").stdout)
    assert found["unchanged"]
    assert "model" not in found, "no network ran"
    assert run("upscale", "a.png", *options, "--box", "2,3,9,12", "--size", "9x7", "-o", "c.png").exit_code == 2


def test_a_window_of_its_own_size_changes_no_pixel(folder):
    assert run("upscale", "a.png", "--box", "2,3,9,12", "--size", "9x7", "-o", "b.png").exit_code == 0
    assert np.array_equal(np.array(Image.open("b.png")), pixels()[2:9, 3:12])
    assert run("upscale", "a.png", "--box", "2,3.5,9,12.5", "--size", "9x7", "-o", "c.png", "--json").stdout.count(
        "tiny"
    )


@pytest.mark.parametrize(
    ("options", "warning"),
    [
        (["--size", "40x30"], "17 x 11 becomes 40 x 30, stretched by 1.16; --fit 40x30 keeps the aspect"),
        (["--size", "30x40"], "17 x 11 becomes 30 x 40, stretched by 2.06; --fit 30x40 keeps the aspect"),
        (["--longest", "12"], "17 x 11 becomes 12 x 8: smaller, and the network is made to enlarge"),
        (["--size", "35x22"], None),  # no whole pixels are nearer
        (["--scale", "2x3"], None),
        (["--box", "0,0,5,10", "--size", "40x20"], None),
    ],
)
def test_what_is_doubtful_is_said(folder, options, warning):
    result = run("upscale", "a.png", *options, "-o", "b.png")
    assert result.exit_code == 0
    assert result.stderr == ("" if warning is None else f"liif-fast: warning: a.png: {warning}\n")


def test_quality_is_for_the_formats_that_have_one(folder):
    Image.fromarray(pixels()).save("b.jpg")
    assert run("upscale", "a.png", "b.jpg", "-o", "out", "--quality", 50).exit_code == 0
    refused(run("upscale", "a.png", "--quality", 50), "quality")


def test_warnings_are_lines(folder):
    with output.writer("deep.png", (11, 17, 3), np.uint16) as out:
        out.write(pixels(dtype=np.uint16))
    result = run("upscale", "deep.png", "-o", "flat.jpg")
    assert result.exit_code == 0
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("liif-fast: warning: flat.jpg: ")
    assert run("upscale", "deep.png", "-o", "flat.jpg", "-f", "-q").output == ""


def test_names_that_are_not_text(folder):
    strange = os.fsdecode(b"line\nb\xffreak [red].png")
    try:
        shutil.copy("a.png", strange)
    except OSError:
        pytest.skip("names are text on this file system")
    result = run("upscale", strange)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith(r"line\nb\udcffreak [red]_x4.png  68 x 44")


# What it refuses.


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--scale", "0"], "--scale"),
        (["--scale", "nan"], "--scale"),
        (["--scale", "two"], "--scale"),
        (["--scale", "1x2x3"], "--scale"),
        (["--scale", "0.3"], "below 0.5"),
        (["--scale", "1e9"], "too large"),
        (["--scale=-2"], "--scale"),
        (["--size", "40"], "--size"),
        (["--size", "0x40"], "--size"),
        (["--longest", "0"], "--longest"),
        (["--longest", "5"], "below 0.5"),
        (["--scale", "2", "--width", "40"], "--scale or --width"),
        (["--size", "40x40", "--longest", "40"], "--size or --longest"),
        (["--size", "40x40", "--fit", "40x40"], "--size or --fit"),
        (["--fit", "40"], "--fit"),
        (["--fit", "99x4"], "below 0.5"),
        (["--box", "1,2,3"], "--box"),
        (["--box", "5,5,5,9"], "box"),
        (["--box", "0,0,99,9"], "box"),
        (["--box", "nan,0,9,9"], "box"),
        (["--suffix", ".xyz"], ".xyz"),
        (["-o", "b.xyz"], ".xyz"),
        (["-o", "b"], "suffix"),
        (["-o", "b.jpg", "--suffix", "png"], "different formats"),
        (["-o", "missing/b.png"], "missing"),
        (["-o", "file/b.png"], "file"),
        (["-o", "file/deeper/"], "file"),
        (["-o", "a.png"], "replace an input"),
        (["-o", "a.png", "--force"], "replace an input"),
        (["-o", "link.png", "--force"], "replace an input"),
        (["-o", "taken.png"], "--force"),
        (["-o", "b.jpg", "--lossless"], "with loss only"),
        (["-o", "b.webp", "--scale", "1000"], "16383"),
        (["-o", "b.jpg", "--quality", "101"], "--quality"),
        (["--max-pixels", "100"], "limit of 100"),
        (["--max-pixels", "many"], "--max-pixels"),
        (["--max-memory", "-1"], "--max-memory"),
        (["--max-memory", "0"], "--max-memory"),
        (["--model", "edsr-baseline", "--self-ensemble"], "as edsr-baseline-resample, not for edsr-baseline"),
        (["--cell-clamp", "off"], "--cell-clamp"),
        (["--cell-clamp", "0.1"], "--cell-clamp must be a scale of at least 1"),
        (["--threads", "0"], "--threads"),
        (["--device", "tpu"], "device"),
        (["--backend", "magic"], "backend"),
        (["--engine", "magic"], "engine"),
        (["--engine", "tensorrt-rtx", "--device", "cpu"], "'tensorrt-rtx' cannot run on cpu"),
        (["--precision", "fp7"], "precision"),
        (["--sacle", "4"], "--sacle"),
        (["missing.png"], "missing.png"),
        (["*.bmp"], "*.bmp"),
        (["empty", "-o", "out/"], "no picture in this folder"),
        (["."], "-o FOLDER"),
        (["taken.png", "-o", "b.png"], "need a folder"),
        (["file.gif", "-o", "out", "--suffix", "png", "copy/a.png"], "would both be written"),
    ],
)
def test_refusals(folder, options, word):
    Path("file").write_text("")
    Path("empty").mkdir()
    Path("copy").mkdir()
    shutil.copy("a.png", "copy/a.png")
    shutil.copy("a.png", "taken.png")
    Image.fromarray(pixels()).save("file.gif")
    os.link("a.png", "link.png")
    before = names()
    # The last option of a kind wins, so that those of `run` must come first here.
    words = ["upscale", "a.png", "--model", TINY, "--precision", "fp32", *options]
    refused(CliRunner().invoke(cli.app, words, prog_name="liif-fast"), word)
    assert names() == before


def test_refuses_what_is_no_model(folder):
    refused(run("upscale", "a.png", model="nothing"), "no model named 'nothing'", DEFAULT)
    refused(run("upscale", "a.png", model="a.png"), "a.png: not a checkpoint")
    refused(run("upscale", "a.png", "missing.png", "-o", "out"), "missing.png")
    assert names() == ["a.png"]


def test_alpha_where_there_is_none(folder):
    Image.fromarray(pixels(channels=4)).save("b.png")
    refused(run("upscale", "b.png", "-o", "b.jpg"), "alpha", "--background")
    refused(run("upscale", "b.png", "-o", "b.jpg", "--background", "wihte"), "--background", "'wihte'")
    assert run("upscale", "b.png", "-o", "b.jpg", "--background", "white").exit_code == 0
    Image.fromarray(pixels()).convert("RGBA").save("c.png")
    assert run("upscale", "c.png", "-o", "c.jpg").exit_code == 0
    assert size("b.jpg") == size("c.jpg") == (68, 44)


@pytest.mark.parametrize("suffix", [".jfif", ".JPE", ".mpo"])
def test_jpegs_by_other_names(folder, suffix):
    Image.fromarray(pixels()).save(f"b{suffix}", "JPEG")
    assert run("upscale", f"b{suffix}").exit_code == 0
    with Image.open("b_x4.jpg") as im:
        assert (im.format, im.size) == ("JPEG", (68, 44))


def test_for_a_jpeg_the_model_that_knows_them_is_named(folder):
    Image.open("a.png").save("a.jpg")
    line = "JPEGs of less than the highest quality are better enlarged by --model realtime-jpeg"
    assert run("upscale", "a.jpg", model="realtime").stdout.splitlines()[-1] == line
    for words, model in (
        (("a.png", "-f"), "realtime"),
        (("a.jpg", "-f"), "realtime-jpeg"),
        (("a.jpg", "-f"), "realtime-small"),
        (("a.jpg", "-f", "--quiet"), "realtime"),
        (("a.jpg", "-f", "--json"), "realtime"),
    ):
        result = run("upscale", *words, model=model)
        assert result.exit_code == 0, result.output
        assert "JPEGs of" not in result.output


def test_refuses_what_memory_cannot_assemble(folder, monkeypatch):
    import psutil

    monkeypatch.setattr(psutil, "virtual_memory", lambda: types.SimpleNamespace(available=1 << 20, total=1 << 30))
    refused(run("upscale", "a.png", "--scale", 40, "-o", "b.bmp"), "PNG and TIFF are written by rows")


def test_usage(folder):
    refused(run("upscale"), "INPUT", "liif-fast upscale --help")
    refused(run("enlarge"), "enlarge", "liif-fast --help")
    for args in (["-h"], ["--help"], []):
        result = CliRunner().invoke(cli.app, args, prog_name="liif-fast")
        assert result.exit_code == 0
        assert "liif-fast upscale photo.jpg --scale 4" in result.stdout
    for command in ("upscale", "info", "bench", "export onnx", "export tensorrt"):
        result = CliRunner().invoke(cli.app, [*command.split(), "-h"], prog_name="liif-fast")
        assert result.exit_code == 0
        assert f"  liif-fast {command} " in result.stdout
    result = CliRunner().invoke(cli.app, ["eval", "-h"], prog_name="liif-fast")
    assert "[lpips]" in result.stdout, "taken for markup"
    assert CliRunner().invoke(cli.app, ["--version"]).stdout == f"liif-fast {liif_fast.__version__}\n"


def test_bench_gets_its_options(monkeypatch):
    module = types.ModuleType("liif_fast.bench")
    calls = []
    module.run = lambda *args: calls.append(args)
    monkeypatch.setitem(sys.modules, "liif_fast.bench", module)
    monkeypatch.setattr(liif_fast, "bench", module, raising=False)
    assert run("bench", "--quick", "--json", "x.json", "--threads", 2, "--engine", "torch").exit_code == 0
    assert calls == [(PAPER, "auto", "auto", None, 2, True, Path("x.json"), "torch")]


def test_info():
    found = json.loads(run("info", "--json").stdout)
    assert found["version"] == liif_fast.__version__
    assert found["devices"]["cpu"]["backends"]["fp32"]["reference"] is None
    assert found["devices"]["cpu"]["engines"]["fp32"]["torch"] is None
    assert "CUDA" in found["devices"]["cpu"]["engines"]["bf16"]["tensorrt"]
    assert found["devices"]["cpu"]["precision_auto"] in ("fp32", "bf16")
    assert DEFAULT in found["models"]
    assert {"PNG", "TIFF", "JPEG"} <= set(found["formats_written"])
    assert "GIF" in found["formats_read"]
    text = run("info").stdout
    for word in (f"liif-fast    {liif_fast.__version__}", "usable", "16 blocks of 64 features", "precision auto"):
        assert word in text


def test_the_name_of_a_mac_s_processor(tmp_path, monkeypatch):
    def no_such_file(path):
        raise FileNotFoundError(path)

    monkeypatch.setattr(system.Path, "read_text", no_such_file)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert system.processor() == (platform.processor() or platform.machine())
    (tmp_path / "sysctl").write_text('#!/bin/sh\ntest "$*" = "-n machdep.cpu.brand_string" && echo Apple M2\n')
    (tmp_path / "sysctl").chmod(0o755)
    assert system.processor() == "Apple M2"


def test_info_of_a_forced_instruction_set_that_is_not_there(monkeypatch):
    monkeypatch.setenv("LIIF_FAST_CPU_ISA", "abacus")
    result = run("info")
    assert result.exit_code == 0
    assert "LIIF_FAST_CPU_ISA=abacus cannot run here" in result.stdout


@pytest.mark.parametrize(
    ("text", "base", "expected"),
    [
        ("800M", 1024, 800 << 20),
        ("2G", 1024, 2 << 30),
        ("1.5 GiB", 1024, 3 << 29),
        ("100M", 1000, 10**8),
        ("7", 1000, 7),
    ],
)
def test_counts(text, base, expected):
    assert batch.count(text, "--x", base) == expected
