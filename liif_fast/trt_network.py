"""EDSR and the projection as a TensorRT network, built from our weights through the network API.

The same code serves ``tensorrt`` from 10.12 on, 11, and ``tensorrt_rtx``: whichever module is given as ``trt``. Enum
members go by name, as their values differ between versions, and precision is in the types of the network (strong
typing), as the builder's flags for it are gone in 11.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch

from .checkpoint import Weights
from .encoder import Head, convolutions, edsr

IMAGE, Z = "image", "z"
# (height, width) of an image: the least, the one to be fastest at, the most. An engine has one profile for all sizes.
SIZES = ((1, 1), (1080, 1920), (2160, 3840))
# TensorRT counts the elements of a tensor with 32 bits.
_MOST_ELEMENTS = 2**31 - 1
_TYPES = {torch.float16: "HALF", torch.bfloat16: "BF16"}
# Channels of z are a multiple of it: those of the format HWC8.
CHANNELS = 8


def largest(weights: Weights, head: Head) -> tuple[int, int]:
    """The most (rows, columns) that an engine of this network takes at once."""
    height, width = SIZES[-1]
    widest = max(weights.architecture.n_feats, len(head.weight))
    return min(height, _MOST_ELEMENTS // (width * widest)), width


class Network:
    """An `INetworkDefinition`: ``image`` [1, H, W, 3], normalised, -> ``z`` [1, C, H, W], channels last, of one dtype.

    Both ends lie as we hold them, [H, W, 3] and [H, W, C]. z is in the format HWC8, in which convolutions write, so
    that the last one fills it; C must be a multiple of its eight. There is no such format of three channels, so that
    the image's order is in its shape, and a layer transposes it.

    The definition points into this object's memory; it must be built while the object lives.
    """

    def __init__(self, trt: ModuleType, builder: Any, weights: Weights, head: Head, dtype: torch.dtype) -> None:
        self._trt, self._type = trt, getattr(trt.DataType, _TYPES[dtype])
        self._dtype, self._held = dtype, list[torch.Tensor]()
        self._convolutions = convolutions(weights, head) | {"skip": (head.repeats, torch.zeros(len(head.weight)))}
        self.definition = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        image = self.definition.add_input(IMAGE, self._type, (1, -1, -1, 3))
        x = self._transpose(image, (0, 3, 1, 2))
        z = self._convolve("project", edsr(x, weights.architecture, self._convolve, self._relu, self._add))
        if head.skip:
            z = self._add(z, self._convolve("skip", x))
        z.name = Z
        self.definition.mark_output(z)
        z.allowed_formats = 1 << int(trt.TensorFormat.HWC8)

    def _convolve(self, name: str, x: Any) -> Any:
        weight, bias = self._convolutions[name]
        side = weight.shape[-1]
        layer = self.definition.add_convolution_nd(
            x, len(weight), (side, side), self._pointer(weight), self._pointer(bias)
        )
        layer.padding_nd = (side // 2, side // 2)
        layer.name = name
        return layer.get_output(0)

    def _relu(self, x: Any) -> Any:
        return self.definition.add_activation(x, self._trt.ActivationType.RELU).get_output(0)

    def _add(self, x: Any, y: Any) -> Any:
        return self.definition.add_elementwise(x, y, self._trt.ElementWiseOperation.SUM).get_output(0)

    def _transpose(self, x: Any, order: tuple[int, ...]) -> Any:
        layer = self.definition.add_shuffle(x)
        layer.first_transpose = order
        return layer.get_output(0)

    def _pointer(self, tensor: torch.Tensor) -> Any:
        self._held.append(tensor.to("cpu", self._dtype).contiguous())
        return self._trt.Weights(self._type, self._held[-1].data_ptr(), tensor.numel())


def build(
    trt: ModuleType,
    logger: Any,
    weights: Weights,
    head: Head,
    dtype: torch.dtype,
    capabilities: Sequence[str] = (),
) -> bytes:
    """A serialised engine of `Network`.

    Args:
        logger: a ``trt.ILogger``, which hears the reasons.
        capabilities: members of ``trt.ComputeCapability`` to build for, as "SM89", which TensorRT for RTX does with no
            GPU present; none: the GPU of this machine.

    Raises RuntimeError where TensorRT makes no engine.
    """
    builder = trt.Builder(logger)
    network = Network(trt, builder, weights, head, dtype)
    config = builder.create_builder_config()
    config.max_aux_streams = 0  # layers come one after the other; a stream beside takes memory and waits
    if hasattr(trt.BuilderFlag, "REQUIRE_USER_ALLOCATION"):  # what takes memory by itself fits in no CUDA graph
        config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
    resized = getattr(trt.PreviewFeature, "RUNTIME_ACTIVATION_RESIZE_10_10", None)
    if resized is not None:  # or the memory asked for may be that of the largest picture, whatever the picture
        config.set_preview_feature(resized, True)
    if capabilities:
        config.num_compute_capabilities = len(capabilities)
        for i, name in enumerate(capabilities):
            config.set_compute_capability(getattr(trt.ComputeCapability, name), i)
    profile = builder.create_optimization_profile()
    most = largest(weights, head)
    profile.set_shape(IMAGE, *((1, min(height, most[0]), min(width, most[1]), 3) for height, width in SIZES))
    config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network.definition, config)
    if engine is None:
        raise RuntimeError("TensorRT built no engine")
    return bytes(engine)
