"""The EDSR encoder on processors, by our own convolution: ReLU, skips and the image added in the same pass."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from . import native_convolution, pages
from .architecture import Architecture
from .backends import cpu
from .checkpoint import Weights
from .encoder import BaseEncoder, Head, convolutions
from .image import WHITE
from .native_convolution import Step, step

# Of a workspace that is kept for the next picture of the same size: touching new memory costs a fifth of the time.
_KEPT_BYTES = 256 << 20
# Of half the range of 8 bits, which is 1 where the image is normalised.
_GREY_LEVELS = 127.5


def unavailable(architecture: Architecture, head: Head, device: torch.device, dtype: torch.dtype) -> str | None:
    """Why this encoder cannot run, None if it can."""
    for what, count in (("features", architecture.n_feats), ("channels of z", len(head.weight))):
        if count % cpu.PANEL:
            return f"it takes multiples of {cpu.PANEL} {what}, not {count}"
    return cpu.unavailable(device, dtype)


class NativeEncoder(BaseEncoder):
    """By our own convolution: what PyTorch computes but for rounding.

    The same bits for any number of threads, and for any tile of `tiling.crop`. F(4x4, 3x3) makes a line round otherwise
    where any of its tile's six lines of input does, so that a border is felt two lines further with each convolution,
    instead of one; the first, whose inputs are too few for it, is direct, and with AMX all are.
    """

    engine = "native"

    def __init__(
        self, weights: Weights, head: Head, device: torch.device, dtype: torch.dtype, threads: int | None = None
    ) -> None:
        super().__init__(weights, head, device, dtype, threads)
        a = weights.architecture
        self.features, self.blocks, self.relu_after_add = a.n_feats, a.n_resblocks, a.relu_after_add
        # The image in grey levels from the middle, of which bf16 holds those of 8 bits exactly; but not their inverse,
        # which direct products have to store where the image is added.
        unit = 1.0 if head.skip and native_convolution.direct(head.weight, dtype) else _GREY_LEVELS
        self._mean, self._std = self.mean.tolist(), (self.std / unit).tolist()
        # The repeated image as one more input of the last convolution: [width, SKIP].
        skip = None
        if head.skip:
            color = torch.arange(self.width, device="cpu") // head.skip % 3
            skip = F.one_hot(color, native_convolution.SKIP).float() / unit
        self.packed = {}
        for name, (weight, bias) in convolutions(weights, head).items():
            if name == "encoder.head.0":
                weight = F.pad(weight / unit, (0, 0, 0, 0, 0, native_convolution.SKIP - 3))
            self.packed[name] = native_convolution.pack(weight, bias, dtype, skip if name == "project" else None)
        if spread := sum(by.winograd is not None for by in self.packed.values()):
            self.halo += spread + 1
        # Three pictures of features, the image, z.
        self.bytes_per_cell = (3 * self.features + native_convolution.SKIP + self.width) * dtype.itemsize
        self._free: deque[_Workspace] = deque()

    def __getstate__(self) -> dict[str, Any]:
        """Without the workspaces kept: a copy, as a stream's, has its own as long as it lives."""
        return {**self.__dict__, "_free": deque()}

    def z(self, image: torch.Tensor) -> torch.Tensor:
        # No step may be PyTorch's: its threads would go on looking for work for a while, where ours have some.
        work = self._workspace(*image.shape[:2])
        white, threads = WHITE.get(image.dtype, 1.0), self.threads or torch.get_num_threads()
        native_convolution.normalise(image, white, self._mean, self._std, threads, inside(work.image))
        z = pages.empty(*image.shape[:2], self.width, dtype=self.dtype)
        project = step(work.branch, self.packed["project"], z, skip=work.image if self.skip else None)
        native_convolution.convolve([*work.steps, project], threads)
        if work.bytes <= _KEPT_BYTES:
            self._free.append(work)
        return z

    def _workspace(self, height: int, width: int) -> _Workspace:
        with suppress(IndexError):
            if (work := self._free.pop()).image.shape[:2] == (height + 2, width + 2):
                return work
            self._free.clear()  # of another size too, one for each thread that there was at once
        # In large pages: a convolution works down strips, with a page or more of the small ones for each row.
        channels = (native_convolution.SKIP, self.features, self.features, self.features)
        image, head, features, branch = (pages.zeros(height + 2, width + 2, n, dtype=self.dtype) for n in channels)
        return _Workspace(image, head, features, branch, self.edsr(image, head, features, branch))

    def edsr(self, image: torch.Tensor, head: torch.Tensor, features: torch.Tensor, branch: torch.Tensor) -> list[Step]:
        """From the image to EDSR's features, which end in ``branch``."""
        steps = []

        def convolve(name: str, source: torch.Tensor, out: torch.Tensor, **more: Any) -> None:
            steps.append(step(source, self.packed[name], inside(out), **more))

        convolve("encoder.head.0", image, head)
        source, relu = head, self.relu_after_add
        for i in range(self.blocks):
            convolve(f"encoder.body.{i}.body.0", source, branch, relu=True)
            convolve(f"encoder.body.{i}.body.2", branch, features, relu=relu, add=inside(source))
            source = features
        convolve(f"encoder.body.{self.blocks}", source, branch, add=inside(head))
        return steps


@dataclass
class _Workspace:
    """Pictures with a border of zeros that nothing writes to, and the convolutions from one to another."""

    image: torch.Tensor
    head: torch.Tensor
    features: torch.Tensor
    branch: torch.Tensor
    steps: list[Step]

    @property
    def bytes(self) -> int:
        return sum(picture.nbytes for picture in (self.image, self.head, self.features, self.branch))


def inside(picture: torch.Tensor) -> torch.Tensor:
    return picture[1:-1, 1:-1]
