"""The command line with several pictures: folders, patterns, results of earlier runs, one that cannot be done."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from images import pixels
from liif_fast import files, output
from test_cli import names, refused, run, size


def test_one_bad_file_does_not_stop_a_folder(folder):
    source = folder / "in"
    (source / "deep").mkdir(parents=True)
    Image.fromarray(pixels()).save(source / "cut.jpg")
    (source / "cut.jpg").write_bytes((source / "cut.jpg").read_bytes()[:400])
    (source / "text.png").write_text("not a picture")
    (source / "notes.txt").write_text("not even called one")
    Image.fromarray(pixels(channels=4)).save(source / "rgba.png")
    with output.writer(source / "deep16.png", (11, 17, 3), np.uint16) as out:
        out.write(pixels(dtype=np.uint16))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels()).save(source / "deep" / "turned.jpg", exif=exif)
    Image.fromarray(pixels(channels=1)[..., 0]).save(source / "deep" / "gray.gif")

    result = run("upscale", source, "-o", "out", "--recursive", "--scale", 2, "--json")
    assert result.exit_code == 1
    errors = result.stderr.splitlines()
    assert len(errors) == 4
    assert errors[0] == f"liif-fast: warning: {source / 'notes.txt'} left out: no format that is read"
    assert any("cut.jpg" in e for e in errors)
    assert any("text.png" in e for e in errors)
    assert errors[-1] == "liif-fast: error: 2 of 6 pictures could not be done"
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert sum("error" in f for f in found) == 2
    assert len(found) == 6
    assert names("out") == ["deep", "deep/gray.png", "deep/turned.jpg", "deep16.png", "rgba.png"]
    assert size("out/deep/turned.jpg") == (22, 34)
    assert files.read("out/rgba.png")[0].shape == (22, 34, 4)
    assert files.read("out/deep16.png")[0].dtype == np.uint16
    assert files.read("out/deep/turned.jpg")[0].shape == (34, 22, 3)


def test_patterns_and_several(folder):
    shutil.copy("a.png", "b.png")
    shutil.copy("a.png", "c[1].png")
    assert run("upscale", "*.png", "-o", "out").exit_code == 0
    assert names("out") == ["a.png", "b.png", "c[1].png"]
    assert run("upscale", "a.png", "a.png", "b.png").exit_code == 0  # the same one twice is one
    assert run("upscale", "c[1].png").exit_code == 0  # a file before a pattern
    assert {"a_x4.png", "b_x4.png", "c[1]_x4.png"} <= set(names())
    assert run("upscale", "a.png", "-o", "new/").exit_code == 0
    assert names("new") == ["a.png"]


def test_a_broken_off_run_goes_on(folder):
    for name in "bc":
        shutil.copy("a.png", f"{name}.png")
    work = ("upscale", ".", "-o", "out", "--suffix", "jpg")
    assert run(*work).exit_code == 0
    made = Path("out/a.jpg").stat()
    Path("out/b.jpg").unlink()
    refused(run(*work), "out/a.jpg: exists already (as do 1 more); --force replaces it, --skip-existing leaves it")
    result = run(*work, "--skip-existing")
    assert result.exit_code == 0
    assert result.stderr == "liif-fast: 2 of 3 results are there already\n"
    assert len(result.stdout.splitlines()) == 2
    assert names("out") == ["a.jpg", "b.jpg", "c.jpg"]
    assert os.path.samestat(Path("out/a.jpg").stat(), made)
    result = run(*work, "--skip-existing")
    assert (result.exit_code, result.stdout) == (0, "")
    Path("a.png").write_text("not a picture")
    Path("out/a.jpg").unlink()
    assert run(*work, "--skip-existing").exit_code == 1, "one of several, though the only one left"
    shutil.copy("b.png", "a.png")
    assert run(*work, "--skip-existing", "--quiet").output == ""
    assert size("out/a.jpg") == (68, 44)
    refused(run(*work, "--skip-existing", "--force"), "--force or --skip-existing")


def test_a_broken_off_run_of_several_formats_goes_on_with_a_quality(folder):
    Path("in").mkdir()
    for name in ("a.jpg", "b.png"):
        Image.fromarray(pixels()).save(f"in/{name}")
    work = ("upscale", "in", "-o", "out", "--quality", "90")
    assert run(*work).exit_code == 0
    Path("out/b.png").unlink()
    assert run(*work, "--skip-existing").exit_code == 0
    assert names("out") == ["a.jpg", "b.png"]


def test_a_result_that_may_be_another_pictures(folder):
    Path("in").mkdir()
    Image.fromarray(pixels()).save("in/a.jpg")
    work = ("upscale", "in", "-o", "out", "--suffix", ".png")
    assert run(*work).exit_code == 0
    Image.fromarray(pixels()).save("in/a.png")
    result = run(*work, "--skip-existing")
    assert result.exit_code == 0
    assert "out/a.png may be of in/a.jpg, whose result is out/a.jpg.png now" in result.stderr


def test_results_beside_their_pictures_are_not_inputs(folder):
    shutil.copy("a.png", "b.png")
    assert run("upscale", "*.png", "--scale", 2).exit_code == 0
    expected = ["a.png", "a_x2.png", "b.png", "b_x2.png"]
    refused(run("upscale", *expected, "--scale", 2, "--force"), "a_x2.png: the result would replace an input")
    for words in (["*.png", "--force"], ["*.png", "--skip-existing"], [*expected, "--skip-existing"]):
        result = run("upscale", *words, "--scale", 2)
        assert result.exit_code == 0
        warning = "liif-fast: warning: a_x2.png and 1 more left out: results of other inputs"
        assert result.stderr.splitlines()[0] == warning
        assert names() == expected


def test_pictures_that_differ_in_their_suffix_are_all_kept(folder):
    Path("in").mkdir()
    for name in ("a.jpg", "a.png", "b.jpg"):
        Image.fromarray(pixels()).save(f"in/{name}")
    for _ in range(2):
        assert run("upscale", "in", "-o", "out", "--suffix", "png", "--force").exit_code == 0
        assert names("out") == ["a.jpg.png", "a.png", "b.png"]
    Image.fromarray(pixels()).save("a.gif")
    assert run("upscale", "a.gif", "a.png").exit_code == 0
    assert {"a.gif_x4.png", "a_x4.png"} <= set(names())


def test_links_to_other_pictures_are_pictures(folder):
    Path("in").mkdir()
    shutil.copy("a.png", "in/1.png")
    for name in ("0.png", "2.png"):
        os.symlink("1.png", f"in/{name}")
    os.symlink("in", "also")
    for words in (["in"], ["in/0.png", "in/2.png", "in/1.png"], ["in", "also/*.png"]):
        assert run("upscale", *words, "-o", "out", "--force").exit_code == 0
        assert names("out") == ["0.png", "1.png", "2.png"]
        shutil.rmtree("out")


def test_a_dangling_link_does_not_stop_the_others(folder):
    os.symlink("nowhere", "b.png")
    for words in ([".", "-o", "out"], ["*.png"]):
        result = run("upscale", *words)
        assert result.exit_code == 1
        assert result.stdout.splitlines()[0].endswith(" MP/s")
        assert result.stderr.splitlines() == [
            "liif-fast: error: b.png: No such file or directory",
            "liif-fast: error: 1 of 2 pictures could not be done",
        ]
    refused(run("upscale", "b.png"), "b.png: no such file")
    refused(run("upscale", "c*.png"), "c*.png: matches no file")


def test_results_inside_the_folder_are_not_inputs(folder):
    for _ in range(2):
        assert run("upscale", ".", "-o", "large", "--recursive", "--force").exit_code == 0
    assert names() == ["a.png", "large", "large/a.png"]


def test_results_inside_the_folder_by_another_name(folder, also):
    """As by Large where the folder is large, on most Macs."""
    Path("large").mkdir()
    shutil.copy("a.png", "large/old.png")
    also(folder / "large", folder / "Large")
    assert run("upscale", ".", "-o", "Large", "--recursive", "--force").exit_code == 0
    assert names("large") == ["a.png", "old.png"]


@pytest.mark.parametrize("options", [(), ("--force",), ("--skip-existing",)])
def test_no_result_replaces_another_s(folder, also, options):
    """As photo.png does Photo.png, on most Macs."""
    for place in ("in/p", "in/q", "out/p"):
        Path(place).mkdir(parents=True)
    for place, width in (("p", 17), ("q", 18)):
        Image.fromarray(pixels(width=width)).save(f"in/{place}/a.png")
    also(folder / "out" / "p", folder / "out" / "q")
    result = run("upscale", "in", "-o", "out", "--recursive", "--scale", 2, *options)
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        "liif-fast: error: in/p/a.png and in/q/a.png would both be written to out/q/a.png",
        "liif-fast: error: 1 of 2 pictures could not be done",
    ]
    assert size("out/p/a.png") == (34, 22)


def test_existing_results_are_all_found_before_the_first_is_made(folder):
    shutil.copy("a.png", "b.png")
    Path("out").mkdir()
    shutil.copy("a.png", "out/b.png")
    refused(run("upscale", "a.png", "b.png", "-o", "out"), "out/b.png", "--force")
    assert names("out") == ["b.png"]
    assert run("upscale", "a.png", "b.png", "-o", "out", "--force").exit_code == 0
    assert size("out/b.png") == (68, 44)
