"""The EDSR encoder and the projection of the decoder's first layer: graph, interface, and the maker in PyTorch."""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

import torch
import torch.nn.functional as F

from . import normalise, tiling
from .architecture import Architecture
from .checkpoint import Weights
from .forks import forked
from .image import to_float

# Set, all features are looked at, which waits for a GPU: float16 overflows above 65504, and then pictures turn black.
CHECK_VARIABLE = "LIIF_FAST_CHECK"


@dataclass(frozen=True)
class Head:
    """The last convolution before z, which the decoder asks for: ``weight`` [C, n_feats, k, k], ``bias`` [C].

    ``skip``: 0, or how often per axis the normalised image is repeated and added to z, whose channels are then (row,
    colour, column) of a picture so many times as fine.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    skip: int = 0

    @property
    def repeats(self) -> torch.Tensor:
        """[C, 3, 1, 1]: the convolution of ones that makes of the image what is added. Exact, and what runtimes are
        best at: they add the other's outputs as they write its own."""
        color = torch.arange(3).repeat_interleave(self.skip).repeat(self.skip)
        return F.one_hot(color, 3).float()[:, :, None, None]


T = TypeVar("T")


def convolutions(weights: Weights, head: Head) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Weight and bias of every convolution from the image to z, by name; ``project`` is the head's."""
    found = {
        name.removesuffix(".weight"): (tensor, weights.tensors[name.removesuffix("weight") + "bias"])
        for name, tensor in weights.tensors.items()
        if name.startswith("encoder.") and name.endswith(".weight")
    }
    return found | {"project": (head.weight, head.bias)}


def edsr(x: T, a: Architecture, convolve: Callable[[str, T], T], relu: Callable[[T], T], add: Callable[[T, T], T]) -> T:
    """EDSR's features of a normalised image, in whatever the three operations compute or describe.

    ``relu`` and ``add`` may write into their first argument, which is not used again.
    """
    x = convolve("encoder.head.0", x)
    features = x
    for i in range(a.n_resblocks):
        branch = relu(convolve(f"encoder.body.{i}.body.0", features))
        features = add(convolve(f"encoder.body.{i}.body.2", branch), features)
        features = relu(features) if a.relu_after_add else features
    return add(convolve(f"encoder.body.{a.n_resblocks}", features), x)


class Scroll(Protocol):
    """z of a picture [H, W, 1 or 3] from top to bottom, each row encoded once.

    ``length``: rows that a call can ask for.
    """

    length: int

    def __call__(self, first: int, last: int) -> torch.Tensor:
        """Rows ``first`` to ``last``, and perhaps more; ``first`` is never less than the time before."""


class BaseEncoder(ABC):
    """image -> z: EDSR's features and the convolution that the decoder begins with; subclasses differ in who computes.

    Args:
        weights: the network.
        head: of its decoder.
        device, dtype: of the weights, the activations and z.
        threads: of the processor; None leaves PyTorch's setting alone.
    """

    engine: str  # its name in `engines.ENGINES`
    self_ensemble = False

    def __init__(
        self, weights: Weights, head: Head, device: torch.device, dtype: torch.dtype, threads: int | None = None
    ) -> None:
        architecture = weights.architecture
        self.device, self.dtype, self.threads = device, dtype, threads
        self.halo = architecture.halo
        self.width, self.skip = len(head.weight), head.skip
        self.mean, self.std = (
            torch.tensor(v, dtype=torch.float32, device=device) for v in (architecture.mean, architecture.std)
        )
        at_once = partial(normalise.normalised, mean=architecture.mean, std=architecture.std, dtype=dtype)
        self._at_once = at_once if normalise.can(device, dtype) else None
        # On a GPU, to be encoded at once: beyond 32 bits cuDNN's convolutions are few, or not to be relied on.
        widest = max(self.width, architecture.n_feats)
        self.most_cells = (2**31 - 1) // widest if device.type == "cuda" else sys.maxsize
        self.flops_per_cell = 2 * sum(weight.numel() for weight, _ in convolutions(weights, head).values())
        # Image, residual, two activations and oneDNN's padded copies; then z beside the features.
        features = architecture.n_feats
        self.bytes_per_cell = max(6 * features, 2 * features + 2 * self.width) * dtype.itemsize + 12

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Image [H, W, 1 or 3], uint8, uint16 or floats in [0, 1] -> z [H, W, width], contiguous."""
        with torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
            z = self._mean_of_turns(to_float(image)) if self.self_ensemble else self.z(image)
        return self.checked(z)

    def checked(self, z: torch.Tensor) -> torch.Tensor:
        """FloatingPointError for NaN and infinities, where somebody asked to look for them."""
        if os.environ.get(CHECK_VARIABLE) and (bad := int((~z.isfinite()).sum())):
            raise FloatingPointError(
                f"{bad} of {z.numel()} features are NaN or infinite in {self.dtype} by engine {self.engine!r}; another "
                "precision (bf16 has the range of fp32) or engine may do"
            )
        return z

    def scroll(self, image: torch.Tensor, most_cells: int) -> Scroll | None:
        """z of a picture [H, W, 1 or 3] some rows at a time, each encoded once, with ``most_cells`` in memory; None
        where only tiles with halos do."""
        return None

    def takes(self, height: int, width: int) -> bool:
        """Whether a picture of this size goes through in one piece."""
        return True

    def private(self) -> BaseEncoder:
        """One whose state nobody else changes."""
        return self

    def ensemble_itself(self) -> None:
        """Have every picture encoded in its eight orientations, and the mean of what they give, turned back, as z.

        That is EDSR's geometric self-ensemble (Lim et al., arXiv 1707.02921, section 3.4), for a z of fine pictures:
        what comes after is linear, so their mean gives the mean of the enlarged ones. Turned tiles do not begin where
        those of F(4x4, 3x3) do in the whole picture: in bf16 they differ from it by about a grey level at most.
        """
        assert self.skip
        self.self_ensemble = True
        self.bytes_per_cell += self.width * (4 + 2 * self.dtype.itemsize) + 24  # and the image twice in float32

    def _mean_of_turns(self, image: torch.Tensor) -> torch.Tensor:
        total = torch.zeros(*image.shape[:2], self.width, dtype=torch.float32, device=image.device)
        for turn in range(8):
            flips, across = [axis for axis in (0, 1) if turn >> axis & 1], turn & 4
            turned = (image.transpose(0, 1) if across else image).flip(flips).contiguous()
            # The channels are a cell's (row, colour, column).
            z = self.z(turned).unflatten(2, (self.skip, 3, self.skip))
            z = z.flip([*flips, *(2 + 2 * axis for axis in flips)])
            total += (z.transpose(0, 1).transpose(2, 4) if across else z).flatten(2)
        return (total / 8).to(self.dtype)

    def _normalise(self, image: torch.Tensor) -> torch.Tensor:
        """Samples -> normalised image [H, W, 3] of ``dtype``."""
        if self._at_once and image.device == self.device:
            return self._at_once(image)
        image = to_float(image)
        if image.shape[2] == 1:
            return ((image - self.mean) / self.std).to(self.dtype)  # a gray channel becomes three
        # By whole rows: three values at a time would take twenty times as long.
        mean, std = (v.repeat(image.shape[1]) for v in (self.mean, self.std))
        return (image.flatten(1) - mean).div_(std).view(image.shape).to(self.dtype)

    @abstractmethod
    def z(self, image: torch.Tensor) -> torch.Tensor:
        """As calling, but without turns."""


class Encoder(BaseEncoder):
    """In PyTorch, which any device has."""

    engine = "torch"

    def __init__(
        self, weights: Weights, head: Head, device: torch.device, dtype: torch.dtype, threads: int | None = None
    ) -> None:
        super().__init__(weights, head, device, dtype, threads)
        self.architecture = weights.architecture
        self.convolutions = {
            name: (
                weight.to(device, dtype).contiguous(memory_format=torch.channels_last),
                bias.to(device, dtype),
            )
            for name, (weight, bias) in convolutions(weights, head).items()
        }

    def z(self, image: torch.Tensor) -> torch.Tensor:
        return self.run(self._normalise(image))

    def run(self, x: torch.Tensor) -> torch.Tensor:
        """Normalised image [H, W, 3] -> z [H, W, width], contiguous; both of ``dtype``."""
        with torch_threads(self.threads):
            z = self.project(self.encode(x.permute(2, 0, 1)[None]))
            if self.skip:
                z.view(*x.shape[:2], self.skip, 3, self.skip).add_(x[:, :, None, :, None])
            return z

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Normalised image [1, 3, H, W], channels last -> EDSR's features [1, n_feats, H, W]."""
        return edsr(x, self.architecture, self._convolve, torch.relu_, torch.Tensor.add_)

    def project(self, features: torch.Tensor) -> torch.Tensor:
        """Features [1, n_feats, H, W] -> z [H, W, width], contiguous."""
        return self._convolve("project", features)[0].permute(1, 2, 0).contiguous()

    def _convolve(self, name: str, x: torch.Tensor) -> torch.Tensor:
        weight, bias = self.convolutions[name]
        return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)


def in_tiles(
    encode: Callable[[torch.Tensor], torch.Tensor],
    image: torch.Tensor,
    halo: int,
    tile: tuple[int, int],
    z: torch.Tensor,
) -> None:
    """z [H, W, C] of a whole image [H, W, ...], ``tile`` (rows, columns) cells at a time, halo not counted."""
    height, width = z.shape[:2]
    cells_y, cells_x = (torch.arange(n, dtype=torch.int32, device="cpu")[None] for n in (height, width))
    for y in tiling.spans(cells_y, height, halo, tile[0]):
        for x in tiling.spans(cells_x, width, halo, tile[1]):
            part = encode(image[y.crop_start : y.crop_stop, x.crop_start : x.crop_stop])
            inner = part[y.start - y.crop_start :, x.start - x.crop_start :]
            z[y.start : y.stop, x.start : x.stop] = inner[: y.stop - y.start, : x.stop - x.start]


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """PyTorch's processor threads inside the block; None leaves them as they are, and so does a forked process."""
    before = torch.get_num_threads()
    if count is None or count == before or forked():
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
