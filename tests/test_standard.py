"""``-`` for a picture: standard input and output of the command line."""

import io
import json
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import liif_fast
from images import pixels
from liif_fast import cli
from test_cli import TINY, names
from test_cli_ends import finish, process


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    """Where temporary files go, in a working folder with a.png (17 x 11); nothing stays there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))  # of processes
    Path("temporary").mkdir()
    Image.fromarray(pixels()).save("a.png")
    yield
    assert names("temporary") == []


def run(*words, given=None):
    engine = ("--model", TINY, "--precision", "fp32", "--scale", "2")
    return CliRunner().invoke(cli.app, ["upscale", *words, *engine], input=given, prog_name="liif-fast")


def expected():
    return liif_fast.Upscaler(TINY, precision="fp32")(pixels(), scale=2)


def test_from_stdin_to_stdout():
    result = run("-", given=Path("a.png").read_bytes())
    assert result.exit_code == 0
    assert np.array_equal(np.array(Image.open(io.BytesIO(result.stdout_bytes))), expected())
    line, engine = result.stderr.splitlines()
    assert line.startswith("-  34 x 22  ")
    assert engine.startswith("tiny, cpu, fp32, ")
    assert run("-", "-o", "-", "--quiet", given=Path("a.png").read_bytes()).stderr == ""
    assert names() == ["a.png", "temporary"]


def test_one_of_both():
    result = run("-", "-o", "b.png", "--json", given=Path("a.png").read_bytes())
    found = json.loads(result.stdout)
    assert (found["input"], found["output"]) == ("-", "b.png")
    assert np.array_equal(np.array(Image.open("b.png")), expected())
    result = run("a.png", "-o", "-", "--suffix", "bmp", "--json")
    assert np.array_equal(np.array(Image.open(io.BytesIO(result.stdout_bytes))), expected())
    found = json.loads(result.stderr)
    assert (found["input"], found["output"]) == ("a.png", "-")


def test_refusals():
    Path("folder").mkdir()
    for name in "bc":
        Image.fromarray(pixels()).save(f"folder/{name}.png")
    for words, given, word in (
        (["-"], b"not a picture", "error: -: cannot be read (not a picture"),
        (["-"], b"", "the file is empty"),
        (["-", "a.png"], b"", "- is for one picture"),
        (["folder", "-o", "-"], b"", "-o - is for one picture, there are 2"),
    ):
        result = run(*words, given=given)
        assert (result.exit_code, result.stdout) == (2, "")
        assert word in result.stderr
        assert len(result.stderr.splitlines()) == 1


def test_temporary_files_are_not_named():
    Image.fromarray(pixels(channels=4)).save("alpha.png")
    result = run("alpha.png", "-o", "-", "--suffix", ".jpg")
    assert result.stderr.startswith("liif-fast: error: -: JPEG has no alpha channel")
    result = run("-", "--json", given=b"not a picture")
    assert json.loads(result.stderr.splitlines()[0])["error"].startswith("-: cannot be read")
    given = Path("a.png").read_bytes()
    result = CliRunner().invoke(cli.app, ["upscale", "-", "--size", "10x10", "-m", TINY], input=given)
    assert "liif-fast: warning: -: 17 x 11 becomes 10 x 10: smaller" in result.stderr


def test_a_terminal_takes_no_picture():
    master, terminal = os.openpty()
    code, _, err = finish(process("upscale", "a.png", "-o", "-", "--model", TINY, stdout=terminal))
    os.close(terminal)
    os.close(master)
    assert code == 2
    assert err.startswith("liif-fast: error: standard output is a terminal")


def test_nobody_reads():
    reader, writer = os.pipe()
    os.close(reader)
    started = process("upscale", "a.png", "-o", "-", "--quiet", "--model", TINY, stdout=writer)
    os.close(writer)
    assert finish(started)[::2] == (2, "liif-fast: error: nothing reads the output any more (broken pipe)\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_behind_the_output():
    with open("/dev/full", "wb") as full:
        code, _, err = finish(process("upscale", "a.png", "-o", "-", "--quiet", "--model", TINY, stdout=full))
    assert (code, err) == (2, "liif-fast: error: standard output: No space left on device\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_success_is_said_once_the_output_has_it():
    with open("/dev/full", "wb") as full:
        code, _, err = finish(process("upscale", "a.png", "-o", "-", "--model", TINY, stdout=full))
    assert (code, err) == (2, "liif-fast: error: standard output: No space left on device\n")
