"""Networks as files: ONNX run by ONNX Runtime against our fp32 and the official code, engines, and the commands."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file
from typer.testing import CliRunner

from common import CPU, FP32, GOLDEN, GOLDENS, noise, random_weights
from liif_fast import Upscaler, cli, export, trt_engine
from liif_fast.checkpoint import Architecture, Weights, load
from liif_fast.upscaler import DECODERS

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
from liif_fast import onnx_graph  # noqa: E402

TINY = str(GOLDEN / "tiny.pth")
OTHERS = {
    "resample": Architecture(2, 16, (32, 16), decoder="resample", mean=(0.4, 0.5, 0.6), std=(1.0, 0.5, 0.25)),
    "rectified": Architecture(1, 16, (16,), decoder="resample", relu_after_add=True),
    "deep": Architecture(1, 16, (16, 32, 48, 16), True, False, False, mean=(0.45, 0.44, 0.4), std=(1.0, 1.0, 1.0)),
    "single": Architecture(1, 16, (32,), local_ensemble=False),
}
SIZES = [(9, 7), (18, 14), (33, 26), (270, 210), (5, 4), (1009, 7), (9, 211)]
needs_rtx = pytest.mark.skipif(
    trt_engine.FLAVOURS["tensorrt-rtx"].missing is not None, reason="tensorrt-rtx-cu12 is not installed"
)


@cache
def network(name: str) -> Weights:
    return load(GOLDEN / f"{name}.pth") if name in GOLDENS else random_weights(OTHERS[name], seed=3)


def decoder(weights: Weights) -> Any:
    return DECODERS[weights.architecture.decoder](weights, CPU, FP32, "reference")


def session(model: Any) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def picture(shape: tuple[int, int] = (9, 7)) -> np.ndarray:
    return np.random.default_rng(0).random((*shape, 3), np.float32)


def run(graph: Any, image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    (out,) = graph.run(None, {"image": image.transpose(2, 0, 1)[None], "size": np.array(size)})
    return np.asarray(out[0]).transpose(1, 2, 0)


@pytest.mark.parametrize("clamp", [4.0, None])
@pytest.mark.parametrize("name", [*GOLDENS, *OTHERS])
def test_the_picture_is_ours(name: str, clamp: float | None) -> None:
    weights = network(name)
    graph = session(onnx_graph.whole(weights, decoder(weights), clamp))
    ours = Upscaler(weights, device="cpu", precision="fp32", cell_clamp=clamp)
    for shape in [(9, 7), (1, 1), (1, 13)]:
        image = picture(shape)
        for size in SIZES:
            if all(2 * s >= n for s, n in zip(size, shape, strict=True)):
                assert np.abs(run(graph, image, size) - ours(image, size=size)).max() < 1e-5


@pytest.mark.parametrize("name", GOLDENS)
def test_the_picture_is_that_of_the_official_code(name: str) -> None:
    content = load_file(GOLDEN / f"{name}.safetensors")
    image = content["image"].float().numpy() / 255
    graph = session(onnx_graph.whole(network(name), decoder(network(name)), None))
    for key, expected in content.items():
        if key.startswith("out_"):
            size = (expected.shape[0], expected.shape[1])
            # Where the published blend is not rounding noise.
            where = np.ix_(*(~noise(n, c) for n, c in zip(size, image.shape[:2], strict=True)))
            difference = run(graph, image, size) - (expected.numpy() * 0.5 + 0.5).clip(0, 1)
            assert np.abs(difference[where]).max() < 1e-5


@pytest.mark.parametrize("name", ["tiny", "tiny_noensemble", "resample"])
def test_windows(name: str) -> None:
    weights = network(name)
    encoder, window = (session(model) for model in onnx_graph.split(weights, decoder(weights), 4.0))
    image = picture((11, 13))
    (z,) = encoder.run(None, {"image": image.transpose(2, 0, 1)[None]})
    field = Upscaler(weights, device="cpu", precision="fp32").encode(image)
    for box, size in [((0, 0, 11, 13), (22, 39)), ((1.5, 2, 8.25, 6.5), (31, 43)), ((10, 12, 11, 13), (7, 5))]:
        inputs = {"z": z, "size": np.array(size), "box": np.array(box, np.float32)}
        ours = field.render(size=size, box=box)
        assert np.abs(window.run(None, inputs)[0][0].transpose(1, 2, 0) - ours).max() < 1e-5


@pytest.mark.parametrize("name", ["tiny", "resample"])
def test_a_fixed_scale(name: str) -> None:
    weights = network(name)
    ours = Upscaler(weights, device="cpu", precision="fp32")
    for scale in (2.0, 3.7, 0.5, 17):
        graph = session(onnx_graph.whole(weights, decoder(weights), 4.0, scale))
        assert [one.name for one in graph.get_inputs()] == ["image"]
        for shape in [(5, 7), (1, 3)]:
            (out,) = graph.run(None, {"image": picture(shape).transpose(2, 0, 1)[None]})
            expected = ours(picture(shape), scale=scale)
            assert out[0].shape[1:] == expected.shape[:2]
            assert np.abs(out[0].transpose(1, 2, 0) - expected).max() < 1e-5


@pytest.mark.parametrize("name", ["resample", "rectified"])
@pytest.mark.parametrize("clamp", [4.0, None])
def test_a_whole_scale_of_a_resampling_decoder_is_a_filter(name: str, clamp: float | None) -> None:
    weights = network(name)
    ours = Upscaler(weights, device="cpu", precision="fp32", cell_clamp=clamp)
    for scale in (1, 2, 3.0, 4, 5, 6, 8, 16):
        model = onnx_graph.whole(weights, decoder(weights), clamp, scale)
        # What any runtime has, and none does in another precision than the rest.
        kinds = {node.op_type for node in model.graph.node}
        assert kinds <= {"Conv", "Relu", "Add", "Sub", "Mul", "Div", "DepthToSpace", "Pad", "Clip"}
        assert onnx.TensorProto.DOUBLE not in {tensor.data_type for tensor in model.graph.initializer}
        graph = session(model)
        for shape in [(9, 7), (1, 1), (1, 13)]:
            (out,) = graph.run(None, {"image": picture(shape).transpose(2, 0, 1)[None]})
            assert np.abs(out[0].transpose(1, 2, 0) - ours(picture(shape), scale=scale)).max() < 1e-5


@pytest.mark.parametrize("scale", [None, 2, 3.7])
@pytest.mark.parametrize("name", ["tiny", "resample", "deep"])
def test_halves(name: str, scale: float | None) -> None:
    """Pictures, weights and products; coordinates stay in float64, and at a whole scale there are none."""
    weights = network(name)
    model = onnx_graph.whole(weights, decoder(weights), 4.0, scale, np.float16)
    kinds = {tensor.data_type for tensor in model.graph.initializer}
    assert onnx.TensorProto.FLOAT not in kinds
    assert (onnx.TensorProto.DOUBLE in kinds) == (scale != 2 or name != "resample")
    image = picture((16, 12)).astype(np.float16)
    inputs = {"image": image.transpose(2, 0, 1)[None]} | ({} if scale else {"size": np.array((50, 31))})
    (out,) = session(model).run(None, inputs)
    assert out.dtype == np.float16
    how = {"scale": scale} if scale else {"size": (50, 31)}
    ours = Upscaler(weights, device="cpu", precision="fp32")(image.astype(np.float32), **how)
    difference = np.abs(out[0].transpose(1, 2, 0) - ours)
    assert 0 < difference.max() < 1e-2
    assert difference.mean() < 1e-3


@pytest.mark.parametrize("name", ["tiny", "resample"])
def test_plain_operators_and_names(name: str) -> None:
    weights = network(name)
    whole = onnx_graph.whole(weights, decoder(weights), 4.0)
    parts = onnx_graph.split(weights, decoder(weights), 4.0)
    for model in (whole, *parts):
        kinds = {node.op_type for node in model.graph.node}
        # Sigmoid, and nodes without names: ONNX Runtime 1.18 fuses them to what it cannot run.
        assert not kinds & {"GridSample", "Loop", "Scan", "If", "Resize", "ScatterElements", "NonZero", "Sigmoid"}
        names = [node.name for node in model.graph.node]
        assert len(set(names) - {""}) == len(names)
        assert all(node.domain == "" for node in model.graph.node)
        assert [(o.domain, o.version) for o in model.opset_import] == [("", onnx_graph.OPSET)]
    faces = [([i.name for i in m.graph.input], [o.name for o in m.graph.output]) for m in (whole, *parts)]
    assert faces == [(["image", "size"], ["picture"]), (["image"], ["z"]), (["z", "size", "box"], ["picture"])]


@needs_rtx
@pytest.mark.parametrize("name", ["tiny", "resample"])
@pytest.mark.parametrize("kind", ["whole", "fixed scale", "encoder", "decoder"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_tensorrt_builds_it(name: str, kind: str, dtype: Any) -> None:
    weights = network(name)
    if kind in ("encoder", "decoder"):
        model = onnx_graph.split(weights, decoder(weights), 4.0, dtype)[kind == "decoder"]
    else:
        model = onnx_graph.whole(weights, decoder(weights), 4.0, 2 if kind == "fixed scale" else None, dtype)
    trt = trt_engine.FLAVOURS["tensorrt-rtx"].trt
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    definition = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(definition, logger)
    assert parser.parse(model.SerializeToString()), parser.get_error(0).desc()
    profile, config = builder.create_optimization_profile(), builder.create_builder_config()
    sides, width = ((4, 4), (270, 480), (540, 960)), len(decoder(weights).head.weight)
    inputs = [definition.get_input(i).name for i in range(definition.num_inputs)]
    if "image" in inputs:
        profile.set_shape("image", *((1, 3, *side) for side in sides))
    if "z" in inputs:
        profile.set_shape("z", *((*side, width) for side in sides))
    if "size" in inputs:
        profile.set_shape_input("size", *((2 * h, 2 * w) for h, w in sides))
    config.add_optimization_profile(profile)
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM89, 0)
    assert builder.build_serialized_network(definition, config) is not None


# The commands.


def command(*words: object) -> Any:
    return CliRunner().invoke(cli.app, ["export", *map(str, words)], prog_name="liif-fast")


def refused(result: Any, word: str, folder: Path) -> None:
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("liif-fast: error: ")
    assert word in line
    assert result.stdout == ""
    assert [path.name for path in folder.iterdir()] == ["taken.onnx"]


def test_onnx_command(tmp_path: Path) -> None:
    result = command("onnx", TINY, tmp_path / "a.onnx")
    assert result.exit_code == 0, result.output
    file, difference = result.stdout.splitlines()
    assert file.startswith(f"{tmp_path / 'a.onnx'}  ")
    assert difference.startswith("largest difference to fp32 here: ")
    assert float(difference.split()[5]) < 1e-5
    assert run(onnxruntime.InferenceSession(tmp_path / "a.onnx"), picture(), (11, 13)).shape == (11, 13, 3)
    assert command("onnx", TINY, tmp_path / "b.onnx", "--split", "--cell-clamp", "none").exit_code == 0
    assert command("onnx", TINY, tmp_path / "a.onnx", "--scale", "2.5", "--force").exit_code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.onnx", "b_decoder.onnx", "b_encoder.onnx"]
    result = command("onnx", TINY, tmp_path / "b.onnx", "--split", "--precision", "fp16", "--force")
    assert 1e-5 < float(result.stdout.splitlines()[2].split()[5]) < 1e-2
    (z,) = onnxruntime.InferenceSession(tmp_path / "b_encoder.onnx").get_outputs()
    assert z.type == "tensor(float16)"


@pytest.mark.parametrize(
    ("words", "word"),
    [
        (["onnx", TINY, "a.pb"], ".onnx"),
        (["onnx", TINY, "taken.onnx"], "--force"),
        (["onnx", TINY, "missing/a.onnx"], "missing"),
        (["onnx", "nothing", "a.onnx"], "no model named 'nothing'"),
        (["onnx", TINY, "a.onnx", "--split", "--scale", "2"], "--split"),
        (["onnx", TINY, "a.onnx", "--scale", "0.2"], "0.2"),
        (["onnx", TINY, "a.onnx", "--scale", "nan"], "nan"),
        (["onnx", TINY, "a.onnx", "--cell-clamp", "off"], "--cell-clamp"),
        (["onnx", TINY, "a.onnx", "--cell-clamp", "0"], "--cell-clamp must be a scale of at least 1"),
        (["onnx", TINY, "a.onnx", "--precision", "bf16"], "precision must be one of fp32, fp16"),
        (["tensorrt", TINY, "a.onnx"], ".engine"),
        (["tensorrt", TINY, "a.engine", "--engine", "torch"], "engine must be one of"),
        (["tensorrt", TINY, "a.engine", "--precision", "fp32"], "precision must be one of"),
        (["tensorrt", TINY, "a.engine", "--engine", "tensorrt", "--capability", "SM89"], "tensorrt-rtx only"),
        (["tensorrt", "nothing", "a.engine"], "no model named 'nothing'"),
        ([], "Missing command"),
        (["openvino", TINY, "a.xml"], "openvino"),
    ],
)
def test_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], word: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("taken.onnx").write_text("")
    refused(command(*words), word, tmp_path)


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "taken.onnx").write_text("")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    refused(command("onnx", TINY, tmp_path / "a.onnx"), "pip install 'liif_fast[onnx]'", tmp_path)


@pytest.mark.parametrize("options", [[], ["--split"]])
def test_a_wrong_picture_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str]) -> None:
    (tmp_path / "taken.onnx").write_text("")
    monkeypatch.setattr(onnx_graph, "TIE_SHIFT", 1e-2)
    refused(command("onnx", TINY, tmp_path / "a.onnx", *options), "differ from ours by", tmp_path)


@needs_rtx
def test_tensorrt_command(tmp_path: Path) -> None:
    result = command("tensorrt", TINY, tmp_path / "a.engine", "--capability", "SM86", "--capability", "SM120")
    assert result.exit_code == 0, result.output
    assert "tensorrt-rtx, fp16, SM86, SM120" in result.stdout
    assert (tmp_path / "a.engine").read_bytes()[:4] == b"vtrt"
    (tmp_path / "a.engine").rename(tmp_path / "taken.onnx")
    refused(command("tensorrt", TINY, tmp_path / "b.engine", "--capability", "SM90"), "got 'SM90'", tmp_path)
    if not export.torch.cuda.is_available():
        refused(command("tensorrt", TINY, tmp_path / "b.engine"), "--capability names one", tmp_path)
