"""The TensorRT network without a GPU: its layers interpreted in PyTorch, its types and sizes, engines that build."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from common import BF16, CPU, FP32, GOLDEN, head_of, random_weights
from liif_fast import trt_network
from liif_fast.checkpoint import Architecture, load
from liif_fast.encoder import Encoder
from liif_fast.trt_network import IMAGE, Network, build, largest

trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx-cu12 is not installed")
LOGGER = trt.Logger(trt.Logger.ERROR)
FP16 = torch.float16
RESAMPLE = Architecture(2, 16, (16,), decoder="resample", mean=(0.4, 0.5, 0.6), std=(1.0, 0.5, 0.25))


NETWORKS = {
    "tiny": load(GOLDEN / "tiny.pth"),
    "tiny_nounfold": load(GOLDEN / "tiny_nounfold.pth"),
    "baseline": load("edsr-baseline"),
    "resample": random_weights(RESAMPLE),
    "rectified": random_weights(replace(RESAMPLE, relu_after_add=True)),
}


def operation(layer: Any) -> tuple[Any, Any]:
    """A layer's kind, and it as its own class: the network hands out the base, which knows inputs and outputs only."""
    kind = layer.type  # which an activation's own ``type`` hides
    classes = {
        trt.LayerType.CONVOLUTION: trt.IConvolutionLayer,
        trt.LayerType.ACTIVATION: trt.IActivationLayer,
        trt.LayerType.ELEMENTWISE: trt.IElementWiseLayer,
        trt.LayerType.SHUFFLE: trt.IShuffleLayer,
    }
    layer.__class__ = classes[kind]
    return kind, layer


def interpret(definition: Any, image: torch.Tensor) -> torch.Tensor:
    """What the definition computes, layer by layer, from what can be read back from it; float32."""
    values: dict[str, torch.Tensor] = {definition.get_input(0).name: image}
    for i in range(definition.num_layers):
        kind, layer = operation(definition.get_layer(i))
        x = [values[layer.get_input(n).name] for n in range(layer.num_inputs) if layer.get_input(n) is not None]
        if kind == trt.LayerType.CONVOLUTION:
            assert tuple(layer.stride_nd) == tuple(layer.dilation_nd) == (1, 1)
            assert layer.num_groups == 1
            shape = (layer.num_output_maps, x[0].shape[1], *layer.kernel_size_nd)
            weight = torch.from_numpy(np.array(layer.kernel)).float().reshape(shape)
            bias = torch.from_numpy(np.array(layer.bias)).float()
            result = F.conv2d(x[0], weight, bias, padding=tuple(layer.padding_nd))
        elif kind == trt.LayerType.ACTIVATION:
            assert layer.type == trt.ActivationType.RELU
            result = F.relu(x[0])
        elif kind == trt.LayerType.ELEMENTWISE:
            assert layer.op == trt.ElementWiseOperation.SUM
            result = x[0] + x[1]
        else:
            assert kind == trt.LayerType.SHUFFLE
            result = x[0].permute(*list(layer.first_transpose)[: x[0].dim()])
        values[layer.get_output(0).name] = result
    return values[definition.get_output(0).name]


@pytest.mark.parametrize("name", NETWORKS)
def test_computes_what_the_encoder_computes(name: str) -> None:
    weights = NETWORKS[name]
    head = head_of(weights)
    network = Network(trt, trt.Builder(LOGGER), weights, head, FP16)
    image = torch.rand(13, 17, 3, generator=torch.Generator().manual_seed(0))
    encoder = Encoder(weights, head, CPU, FP32)
    # The same rounded weights, and sums of them in float32 on both sides.
    encoder.convolutions = {
        name: (weight.half().float(), bias.half().float()) for name, (weight, bias) in encoder.convolutions.items()
    }
    expected = encoder(image)
    found = interpret(network.definition, ((image - encoder.mean) / encoder.std)[None])
    assert found.shape == (1, encoder.width, 13, 17)
    assert float((found[0].permute(1, 2, 0) - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


@pytest.mark.parametrize(("dtype", "kind"), [(FP16, "HALF"), (BF16, "BF16")])
@pytest.mark.parametrize("name", ["tiny", "resample", "rectified"])
def test_types_names_and_layers(name: str, dtype: torch.dtype, kind: str) -> None:
    weights = NETWORKS[name]
    head = head_of(weights)
    definition = Network(trt, trt.Builder(LOGGER), weights, head, dtype).definition
    assert definition.get_flag(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    assert (definition.num_inputs, definition.num_outputs) == (1, 1)
    image, z = definition.get_input(0), definition.get_output(0)
    assert (image.name, tuple(image.shape)) == (IMAGE, (1, -1, -1, 3))
    assert (z.name, tuple(z.shape)) == (trt_network.Z, (1, len(head.weight), -1, -1))
    assert z.allowed_formats == 1 << int(trt.TensorFormat.HWC8)
    layers = [definition.get_layer(i) for i in range(definition.num_layers)]
    computed = [layer.get_output(0).dtype for layer in layers]
    assert {image.dtype, z.dtype, *computed} == {getattr(trt.DataType, kind)}
    blocks, skip = weights.architecture.n_resblocks, head.skip > 0
    count = {kind: sum(layer.type == kind for layer in layers) for kind in {layer.type for layer in layers}}
    expected = {
        trt.LayerType.CONVOLUTION: 2 * blocks + 3 + skip,
        trt.LayerType.ACTIVATION: 2 * blocks if name == "rectified" else blocks,
        trt.LayerType.ELEMENTWISE: blocks + 1 + skip,
        trt.LayerType.SHUFFLE: 1,
    }
    assert count == expected


@pytest.mark.parametrize("capability", ["SM89", "SM120"])
@pytest.mark.parametrize("name", ["tiny", "resample"])
def test_builds_for_an_architecture_that_is_not_here(name: str, capability: str) -> None:
    weights = NETWORKS[name]
    engine = build(trt, LOGGER, weights, head_of(weights), FP16, [capability])
    assert engine[:4] == b"vtrt"
    assert len(engine) > 2 * sum(t.numel() for key, t in weights.tensors.items() if key.startswith("encoder."))


@pytest.mark.parametrize("dtype", [FP16, BF16])
@pytest.mark.parametrize("name", ["baseline", "resample", "rectified"])
def test_nothing_is_between_a_convolution_and_the_next_or_z(name: str, dtype: torch.dtype) -> None:
    """As the plan has it, a program that can be read: rectifiers and sums are parts of convolutions, of which the last
    fills z, row-major; before them there is what spreads the image. And a CUDA graph can be captured of it."""
    weights = NETWORKS[name]
    head = head_of(weights)
    text = build(trt, LOGGER, weights, head, dtype, ["SM89"]).decode("latin-1")
    if "corrltn={" not in text:
        pytest.skip(f"plans of TensorRT for RTX {trt.__version__} cannot be read")
    program = text.partition("\nmain {")[2].partition("shape_main {")[0]
    steps = re.findall(r"^\s*(corrltn|function|copy|reformat)=", program, re.MULTILINE)
    assert steps == ["function", *["corrltn"] * (2 * weights.architecture.n_resblocks + 3 + (head.skip > 0))]
    assert "stream_capturable=1" in text
    z = re.search(r'name="z\.1".* stride_order={ 3 0 2 1 } strides={ \S+ 1 \S+ (\d+) }', text)
    assert z
    assert int(z[1]) == len(head.weight)  # from a pixel to the next: there is nothing between them


def test_one_profile_holds_every_size(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    class Builder(trt.Builder):
        def create_optimization_profile(self) -> Any:
            seen.append(super().create_optimization_profile())
            return seen[-1]

    monkeypatch.setattr(trt, "Builder", Builder)
    weights = NETWORKS["tiny"]
    build(trt, LOGGER, weights, head_of(weights), BF16, ["SM86", "SM89"])
    (profile,) = seen
    shapes = [tuple(shape) for shape in profile.get_shape(IMAGE)]
    assert shapes == [(1, 1, 1, 3), (1, 1080, 1920, 3), (1, 2160, 3840, 3)]


def test_no_tensor_is_larger_than_can_be_counted() -> None:
    for widest, rows in ((64, 2160), (256, 2160), (512, 1092)):
        weights = random_weights(Architecture(1, widest, (16,)))
        assert largest(weights, head_of(weights)) == (rows, 3840)
        assert rows * 3840 * widest < 2**31
