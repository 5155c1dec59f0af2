"""How the command line ends: errors, signals, full disks, two at once. In processes of their own where it matters."""

import ctypes
import os
import resource
import signal
import subprocess
import sys
import time
import warnings
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

import liif_fast
from images import pixels
from liif_fast import console, files
from test_cli import TINY, names, refused, run

ROOT = Path(liif_fast.__file__).parents[1]


def process(*args, **options):
    """A real one as a shell starts it, whatever started the tests; its output is text."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "LIIF_FAST_DEBUG": ""}
    environment.pop("PYTHONUNBUFFERED", None)
    command = [sys.executable, "-m", "liif_fast", *map(str, args)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # background jobs do not hear Ctrl-C
    return subprocess.Popen(command, **{**pipes, "text": True, "env": environment, "preexec_fn": heard, **options})


def finish(started, timeout=60):
    out, err = started.communicate(timeout=timeout)
    return started.returncode, out, err


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (MemoryError(), "not enough memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 1 bytes\nmore"), "not enough memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate"), "not enough memory"),
        (liif_fast.BackendUnavailable("no card"), "no card"),
        (OSError(5, "Input/output error", "disk"), "disk: Input/output error"),
        (KeyError("bug\nin two lines"), "unexpected KeyError"),
        (RuntimeError("bug\nin two lines"), "unexpected RuntimeError: bug (LIIF_FAST_DEBUG=1"),
    ],
)
def test_every_error_is_a_line(folder, monkeypatch, error, word):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(liif_fast.Upscaler, "bands", fail)
    refused(run("upscale", "a.png"), word)
    assert names() == ["a.png"]
    monkeypatch.setenv(console.DEBUG_VARIABLE, "1")
    assert "Traceback" in run("upscale", "a.png").stderr


@pytest.mark.skipif(sys.platform == "darwin", reason="this system does not limit memory")
def test_training_out_of_memory(folder):
    """The advice is of what a run can do with less of, not of tiles."""

    def limited():
        resource.setrlimit(resource.RLIMIT_AS, (12 << 30, 12 << 30))

    work = ("train", "run", "--synthetic", 9, "--iterations", 1, "--set", "batch=20000", "--threads", 1)
    code, out, err = finish(process(*work, preexec_fn=limited))
    assert (code, out) == (2, "")
    assert err.splitlines()[-1] == (
        "liif-fast: error: not enough memory; smaller values than --set batch=20000 --set patch=48 need less, "
        "and less --data"
    )


def test_signals_leave_no_file(folder):
    Image.fromarray(pixels(200, 300)).save("big.png")
    signals = {"int": signal.SIGINT, "term": signal.SIGTERM}
    for out in signals:
        Path(out).mkdir()
    before = names()
    work = ("upscale", "big.png", "--scale", 30, "--model", TINY)
    started = {out: process(*work, "-o", f"{out}/b.png", cwd=folder) for out in signals}
    deadline = time.monotonic() + 30
    while not all(map(names, signals)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert all(map(names, signals)), "the work never began"
    time.sleep(0.3)
    for out, number in signals.items():
        started[out].send_signal(number)
        assert finish(started[out]) == (-number, "", "liif-fast: interrupted\n"), "by it, or a shell's loop goes on"
    assert names() == before


def test_ctrl_c_during_imports():
    code = """
import signal, sys
class Finder:
    def find_spec(name, *_):
        if name == "liif_fast.cli":
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Finder)
signal.signal(signal.SIGINT, signal.default_int_handler)
from liif_fast.__main__ import main
main()
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_closed_streams(folder, closed):
    def close():
        for fd in closed:
            os.close(fd)

    code, out, err = finish(process("upscale", "a.png", "-o", "b.png", "--model", TINY, cwd=folder, preexec_fn=close))
    assert (code, bool(out), err) == (0, 1 not in closed, "")
    assert files.read("b.png")[0].shape == (44, 68, 3)
    code, out, err = finish(process("upscale", "none.png", cwd=folder, preexec_fn=close))
    assert (code, out) == (2, "")
    assert err == ("" if 2 in closed else "liif-fast: error: none.png: no such file\n")
    if 1 in closed:
        code, out, err = finish(process("upscale", "a.png", "-o", "-", "--model", TINY, cwd=folder, preexec_fn=close))
        assert (code, out) == (2, "")
        assert 2 in closed or "standard output is closed" in err


def test_two_at_once_make_one_file(folder):
    Image.fromarray(pixels(100, 150)).save("big.png")
    both = [process("upscale", "big.png", "-o", "b.png", "--model", TINY, cwd=folder) for _ in range(2)]
    results = [finish(one) for one in both]
    assert sorted(code for code, _, _ in results) == [0, 2]
    assert "exists already" in "".join(err for _, _, err in results)
    assert names() == ["a.png", "b.png", "big.png"]
    assert files.read("b.png")[0].shape == (400, 600, 3)


def test_full_disk(folder):
    def little_room():
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))

    args = ("upscale", "a.png", "-o", "b.tif", "--scale", 20, "--model", TINY)
    code, out, err = finish(process(*args, cwd=folder, preexec_fn=little_room))
    assert (code, out) == (2, "")
    assert err.startswith("liif-fast: error: b.tif: no space left")
    assert len(err.splitlines()) == 1
    assert names() == ["a.png"]


def test_nobody_reads(folder):
    reader, writer = os.pipe()
    os.close(reader)
    code, _, err = finish(process("--version", cwd=folder, stdout=writer))
    os.close(writer)
    assert (code, err) == (2, "liif-fast: error: nothing reads the output any more (broken pipe)\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_no_room_for_what_is_said(folder):
    with open("/dev/full", "w") as full:
        code, _, err = finish(process("--version", cwd=folder, stdout=full))
    assert (code, err) == (2, "liif-fast: error: No space left on device\n")


def without_privilege():
    """Makes root obey permissions, in the process to be."""
    drop_from_bounding_set, dac_override = 24, 1
    if os.geteuid() == 0 and ctypes.CDLL(None).prctl(drop_from_bounding_set, dac_override, 0, 0, 0):
        raise OSError("root may not give up its privilege here")


def test_no_permission_to_write(folder):
    folder.chmod(0o555)
    before = names()
    try:
        started = [
            process("upscale", "a.png", "-o", output, "--model", TINY, cwd=folder, preexec_fn=without_privilege)
            for output in ("b.png", "new/")
        ]
        for code, out, err in map(finish, started):
            assert (code, out, len(err.splitlines())) == (2, "", 1)
            assert err.startswith("liif-fast: error: ")
            assert "ermission" in err
        assert names() == before
    finally:
        folder.chmod(0o755)


def start_of(setup):
    """Seconds until the help is shown, and whether torch was imported for it."""
    code = f"""
import sys
{setup}
sys.argv = ["liif-fast", "--help"]
from liif_fast.__main__ import main
try:
    main()
finally:
    print("torch" in sys.modules, file=sys.stderr)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert "upscale" in done.stdout
    return time.perf_counter() - start, done.stderr.split()[-1] == "True"


def test_help_does_not_wait_for_torch():
    # The commands alone, without what liif_fast/__init__.py imports.
    alone = f"import types; m = types.ModuleType('liif_fast'); m.__path__ = [{str(ROOT / 'liif_fast')!r}]"
    runs = [start_of(f"{alone}; sys.modules['liif_fast'] = m") for _ in range(3)]
    assert not any(torch for _, torch in runs)
    assert min(seconds for seconds, _ in runs) < 1.5  # about 0.3 on an idle machine


def test_help_of_the_package_does_not_wait_for_torch():
    assert not start_of("")[1]


def test_the_end_does_not_search_for_garbage():
    code = """
import atexit, gc, sys
atexit.register(lambda: print(len(gc.get_objects()) * 100 < gc.get_freeze_count()))  # after what main() registers
sys.argv = ["liif-fast", "--version"]
from liif_fast.__main__ import main
main()
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.split()[-1] == "True"


def test_progress_is_for_terminals(folder):
    meter = console.Meter(3)
    with meter:
        meter.picture("a.png")
        meter(1, 10)
    assert meter._shown is False


def test_filters_are_as_before():
    before = list(warnings.filters)
    run("--version")
    assert warnings.filters == before
