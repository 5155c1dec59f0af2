"""The EDSR encoder and the projection of the decoder's first layer, in PyTorch, channels last."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from .checkpoint import Weights


@dataclass(frozen=True)
class Head:
    """The last convolution before z, which the decoder asks for: ``weight`` [C, n_feats, k, k], ``bias`` [C].

    ``skip``: 0, or how often per axis the normalised image is repeated and added to z, whose channels are then (row,
    colour, column) of a picture so many times as fine.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    skip: int = 0


class Encoder:
    """image -> z: EDSR's features and the convolution that the decoder begins with.

    Args:
        weights: the network.
        head: of its decoder.
        device, dtype: of the weights, the activations and z.
        threads: of the processor; None leaves PyTorch's setting alone.
    """

    def __init__(
        self, weights: Weights, head: Head, device: torch.device, dtype: torch.dtype, threads: int | None = None
    ) -> None:
        architecture = weights.architecture
        self.device, self.dtype, self.threads = device, dtype, threads
        self.halo = architecture.halo
        self.width, self.skip = len(head.weight), head.skip
        self.blocks = architecture.n_resblocks
        features = architecture.n_feats
        convolutions = {
            name.removesuffix(".weight"): (tensor, weights.tensors[name.removesuffix("weight") + "bias"])
            for name, tensor in weights.tensors.items()
            if name.startswith("encoder.") and name.endswith(".weight")
        }
        convolutions["project"] = (head.weight, head.bias)
        self.convolutions = {
            name: (
                weight.to(device, dtype).contiguous(memory_format=torch.channels_last),
                bias.to(device, dtype),
            )
            for name, (weight, bias) in convolutions.items()
        }
        self.mean = torch.tensor(architecture.mean, device=device)
        self.std = torch.tensor(architecture.std, device=device)
        self.flops_per_cell = 2 * sum(weight.numel() for weight, _ in self.convolutions.values())
        # Image, residual, two activations and oneDNN's padded copies; then z beside the features.
        self.bytes_per_cell = max(6 * features, 2 * features + 2 * self.width) * dtype.itemsize + 12

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Image [H, W, 1 or 3] float32 in [0, 1] -> z [H, W, width], contiguous."""
        with torch.inference_mode(), torch_threads(self.threads):
            x = ((image - self.mean) / self.std).to(self.dtype)  # a gray channel becomes three
            z = self.project(self.encode(x.permute(2, 0, 1)[None]))
            if self.skip:
                z.view(*x.shape[:2], self.skip, 3, self.skip).add_(x[:, :, None, :, None])
            return z

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Normalised image [1, 3, H, W], channels last -> EDSR's features [1, n_feats, H, W]."""
        x = self._convolve("encoder.head.0", x)
        features = x
        for i in range(self.blocks):
            branch = self._convolve(f"encoder.body.{i}.body.0", features).relu_()
            features = self._convolve(f"encoder.body.{i}.body.2", branch).add_(features)
        return self._convolve(f"encoder.body.{self.blocks}", features).add_(x)

    def project(self, features: torch.Tensor) -> torch.Tensor:
        """Features [1, n_feats, H, W] -> z [H, W, width], contiguous."""
        return self._convolve("project", features)[0].permute(1, 2, 0).contiguous()

    def _convolve(self, name: str, x: torch.Tensor) -> torch.Tensor:
        weight, bias = self.convolutions[name]
        return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """PyTorch's processor threads inside the block; None leaves them as they are."""
    before = torch.get_num_threads()
    if count is None or count == before:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
