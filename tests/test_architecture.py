"""The house: who may import whom, what an import costs, how long a file may be."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import liif_fast
from common import ROOT

PACKAGE = ROOT / "liif_fast"
KERNELS = sorted((ROOT / "kernels").glob("*.py"))  # liif_fast.kernels, once installed
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent.name != "kernels") + KERNELS
# From the top down; a module imports what stands in a row below its own, never beside or above it. Functions may import
# later what their command needs, which the command line does throughout, but by the same arrows.
ROWS = [
    ["__main__"],
    ["cli"],
    ["training.commands", "export_commands"],
    ["training.report", "training.sitting"],
    ["training.shorten", "training.calibrate", "training.blend"],
    ["training.train"],
    ["training.easier", "training.folder"],
    ["training.state", "training.stopping", "training.log", "training.synthetic", "training.strips", "training.attach"],
    ["training.data"],
    ["training.evaluate", "training.config", "training.revival", "training.centring"],
    ["training.inputs", "training.edges"],
    ["training.testset", "training.perceptual", "training.network", "training.optimizer"],
    ["training.metrics", "training.resize", "training.convolution", "training.replay"],
    ["training.jpeg", "training.film"],
    ["video.commands"],
    ["video.animation"],
    ["video.film", "video.preview", "video.motion", "video.pipe"],
    ["video.mux", "video.frames"],
    ["video.source", "video.encoding", "video.segments", "video.stages", "video.planes", "video.palette"],
    ["video.colors", "video.hdr", "video.raw", "video.opening", "video.matroska"],
    ["video.animation_source"],
    ["video.container"],
    ["video.errors"],
    ["bench"],
    ["system", "export"],
    ["upscaler"],
    ["gpu_stream", "engines", "frame", "changes"],
    ["trt_engine"],
    ["trt_context"],
    ["trt_network", "trt_kernels"],
    ["field", "published", "onnx_graph"],
    ["resample"],
    ["ops", "yuv"],
    ["native_encoder", "fused_encoder", "engine_cache"],
    ["encoder", "native_convolution"],
    ["normalise"],
    ["backends"],
    ["backends.cpu", "backends.triton", "backends.reference"],
    ["kernels.decode", "kernels.decode_fp8", "kernels.resample", "kernels.tuning"],
    ["kernels.normalise", "kernels.finish"],
    ["kernels.ends"],
    ["kernels.configs", "kernels.pixels"],
    ["pixels"],
    ["standard"],
    ["batch", "console", "options"],
    ["files"],
    ["image"],
    ["checkpoint"],
    ["output"],
    ["png", "tiff", "metadata"],
    ["exif", "iptc"],
    ["bands"],
    ["grid"],
    ["quantization", "architecture", "tiling", "modes", "deflate", "colorimetry", "pages", "_cpu", "_cuda"],
    ["device_memory"],
    ["stream", "cuda_streams", "memory", "weights", "words", "forks"],
    ["dlpack"],
]
RANK = {name: i for i, row in enumerate(ROWS) for name in row}
# Subpackages that only the command line knows.
WINGS = ("training", "video")
# The package's lazy exports, a wing's, and folders.
EMPTY = {"", *WINGS, "kernels"}
# The name of a type only.
ALSO = {("batch", "field")}


def parts_of(path: Path) -> tuple[str, ...]:
    return path.relative_to(PACKAGE if path.is_relative_to(PACKAGE) else ROOT).with_suffix("").parts


def name_of(path: Path) -> str:
    parts = parts_of(path)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> set[str]:
    """Our modules that a file names in imports, wherever they stand."""
    found = set()
    here = parts_of(path)[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert not any(a.name.split(".")[0] in ("liif_fast", "kernels") for a in node.names), path
        if not isinstance(node, ast.ImportFrom) or node.level == 0:
            continue
        base = [*here[: len(here) - node.level + 1], *(node.module.split(".") if node.module else [])]
        for alias in node.names:
            whole = ".".join([*base, alias.name])
            found.add(whole if whole in RANK else ".".join(base))
    return found - {""}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_go_down(path: Path) -> None:
    name = name_of(path)
    if name in EMPTY:
        return
    assert name in RANK, "a new module: give it a row"
    for other in imports(path):
        assert other in RANK, f"{name} imports {other}"
        if (name, other) not in ALSO:
            assert RANK[other] > RANK[name], f"{name} imports {other}, which is not below it"


def test_the_table_has_no_ghosts() -> None:
    assert set(RANK) - {"_cpu", "_cuda"} == {name_of(path) for path in MODULES} - EMPTY


@pytest.mark.parametrize("wing", WINGS)
def test_only_the_command_line_knows_the_wings(wing: str) -> None:
    for path in MODULES:
        if not name_of(path).startswith(wing) and name_of(path) != "cli":
            assert not any(name.startswith(wing) for name in imports(path)), path


def test_kernels_know_torch_and_triton_only() -> None:
    for path in KERNELS:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            known = {"torch", "triton", *sys.stdlib_module_names}
            assert {name.split(".")[0] for name in names} <= known, path
        assert all(name.startswith("kernels") for name in imports(path)), path


def test_native_code_knows_no_torch() -> None:
    sources = [path for path in (ROOT / "csrc").rglob("*") if path.is_file()]
    assert sources
    for path in sources:
        text = path.read_text()
        assert not re.search(r"\b(torch|ATen|c10)\b", text), path
        if not path.name.startswith("bindings"):
            assert "pybind11" not in text, path


@pytest.mark.parametrize("path", [*MODULES, *(path for path in (ROOT / "csrc").rglob("*") if path.is_file())], ids=str)
def test_files_are_short_and_say_what_they_are(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 430
    if path.suffix == ".py":
        assert ast.get_docstring(ast.parse(text))
    else:
        assert text.startswith("//")


def test_import_is_lazy_and_cheap() -> None:
    code = "import sys, liif_fast; assert 'torch' not in sys.modules; assert 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    # Beside what torch takes in the same process, as machines are busy at times: about a fifteenth.
    script = "from time import perf_counter as now; a = now(); import torch; b = now(); import liif_fast; "
    script += "liif_fast.Upscaler; print((now() - b) / (b - a))"
    runs = [
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True) for _ in range(3)
    ]
    assert min(float(run.stdout) for run in runs) < 0.15


def test_exports() -> None:
    assert set(liif_fast.__all__) <= set(dir(liif_fast))
    for name in liif_fast.__all__:
        assert getattr(liif_fast, name)
    with pytest.raises(AttributeError, match="no attribute 'Downscaler'"):
        liif_fast.Downscaler  # noqa: B018
