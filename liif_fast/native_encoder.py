"""The EDSR encoder on processors, by our own convolution: ReLU, skips and the image added in the same pass."""

from __future__ import annotations

import ctypes
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from . import native_convolution, pages, tiling
from .architecture import Architecture
from .backends import cpu
from .checkpoint import Weights
from .encoder import BaseEncoder, Head, Scroll, convolutions
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
        height, width = image.shape[:2]
        z = pages.empty(height, width, self.width, dtype=self.dtype)
        of_a_row = width * (3 * self.features + native_convolution.SKIP) * self.dtype.itemsize
        rows = height if height * of_a_row <= _KEPT_BYTES else min(height, self.window)
        work = self._workspace(rows, width)
        if rows == height:
            threads = self.threads or torch.get_num_threads()
            self.normalise(image, inside(work.image), threads)
            native_convolution.convolve([*work.steps, self.step(work.last, z, work.rows)], threads)
        else:
            NativeScroll(self, image, work.buffers).into(z)
        if work.bytes <= _KEPT_BYTES:
            self._free.append(work)
        return z

    def normalise(self, image: torch.Tensor, out: torch.Tensor, threads: int) -> None:
        native_convolution.normalise(image, WHITE.get(image.dtype, 1.0), self._mean, self._std, threads, out)

    def _workspace(self, height: int, width: int) -> _Workspace:
        with suppress(IndexError):
            if (work := self._free.pop()).image.shape[:2] == (height + 2, width + 2):
                return work
            self._free.clear()  # of another size too, one for each thread that there was at once
        buffers = self.buffers(height, width)
        *layers, last = self.layers(*buffers)
        work = _Workspace(buffers, [], last)
        work.steps += [self.step(layer, None, work.rows) for layer in layers]
        return work

    def step(self, layer: Layer, z: torch.Tensor | None, rows: slice, first_row: int = 0) -> Step:
        """Of ``rows`` of the buffers, which make ``z`` where the layer writes to none of them."""
        near = slice(rows.start - 1, rows.stop + 1)
        out, add = (None if picture is None else picture[rows, 1:-1] for picture in (layer.out, layer.add))
        out = z if out is None else out
        assert out is not None
        skip = None if layer.skip is None else layer.skip[near]
        return step(layer.source[near], self.packed[layer.name], out, layer.relu, add, skip, first_row)

    def buffers(self, height: int, width: int) -> Buffers:
        """Of a picture, and a border of zeros that nothing writes to: see `layers`."""
        # In large pages: a convolution works down strips, with a page or more of the small ones for each row.
        channels = (native_convolution.SKIP, self.features, self.features, self.features)
        image, head, features, branch = (pages.zeros(height + 2, width + 2, n, dtype=self.dtype) for n in channels)
        return image, head, features, branch

    def layers(
        self, image: torch.Tensor, head: torch.Tensor, features: torch.Tensor, branch: torch.Tensor
    ) -> list[Layer]:
        """From the image to z."""
        layers = [Layer("encoder.head.0", image, head)]
        source, relu = head, self.relu_after_add
        for i in range(self.blocks):
            layers.append(Layer(f"encoder.body.{i}.body.0", source, branch, relu=True))
            layers.append(Layer(f"encoder.body.{i}.body.2", branch, features, relu=relu, add=source))
            source = features
        layers.append(Layer(f"encoder.body.{self.blocks}", source, branch, add=head))
        return [*layers, Layer("project", branch, None, skip=image if self.skip else None)]

    @property
    def lag(self) -> int:
        """Rows of the image that a `NativeScroll` reads before it has the first of z."""
        return tiling.LINES * len(self.packed)

    @property
    def window(self) -> int:
        """Rows of the buffers of a `NativeScroll`. `lag` of them are copied from one time to the next, a small part;
        were there many more, new memory would take longer to be touched."""
        return 5 * self.lag + tiling.LINES

    def scroll(self, image: torch.Tensor, most_cells: int) -> Scroll | None:
        # With the z of the time before.
        most_cells = most_cells * self.bytes_per_cell // (self.bytes_per_cell + self.width * self.dtype.itemsize)
        rows = most_cells // (image.shape[1] + 2) - 2
        rows = min(rows // tiling.LINES * tiling.LINES, self.window)
        if self.self_ensemble or rows < 2 * self.lag + tiling.LINES:
            return None
        return NativeScroll(self, image, self.buffers(min(rows, image.shape[0]), image.shape[1]))


class NativeScroll(Scroll):
    """As `NativeEncoder.z`, bit for bit.

    Each convolution ends four rows above the one before it, where it goes on the next time. What lies between is in the
    buffers still, of every convolution the rows that the next one has not read: they hold them all.
    """

    def __init__(self, encoder: NativeEncoder, image: torch.Tensor, buffers: Buffers) -> None:
        self.encoder, self.image, self.buffers = encoder, image, buffers
        rows = len(buffers[0]) - 2
        self.length = rows if rows >= len(image) else rows - encoder.lag - tiling.LINES
        self.top = 0  # row of the picture that is the first in the buffers, below their border
        self.read = 0  # rows of the image that have been in the buffers
        self.done = [0] * len(encoder.packed)  # rows of each convolution
        self.z, self.first = self._empty(0), 0

    def __call__(self, first: int, last: int) -> torch.Tensor:
        """z of rows ``first`` to ``last`` and perhaps some more; ``first`` is never less than the time before."""
        while self.done[-1] < last:
            done = self._end(min(last, self.done[-1] + self.length))
            kept = self.z[max(0, min(first, self.done[-1]) - self.first) :]
            z = self._empty(len(kept) + done - self.done[-1])
            z[: len(kept)] = kept
            self.z, self.first = z, self.done[-1] - len(kept)
            self._go_on(done, z[len(kept) :])
            self.encoder.checked(z[len(kept) :])
        self.z, self.first = self.z[first - self.first :], first
        return self.z

    def into(self, z: torch.Tensor) -> None:
        """All rows."""
        while (first := self.done[-1]) < len(z):
            last = self._end(first + self.length)
            self._go_on(last, z[first:last])

    def _end(self, last: int) -> int:
        """Row of z up to which the next time goes that is to have those before ``last``."""
        height, last = self.image.shape[0], -(-last // tiling.LINES) * tiling.LINES
        return last if last + self.encoder.lag < height else height

    def _go_on(self, last: int, z: torch.Tensor) -> None:
        """Rows of z up to ``last``, of `_end`."""
        height = self.image.shape[0]
        read = min(height, last + self.encoder.lag)
        self._make_room()
        threads = self.encoder.threads or torch.get_num_threads()
        colors = self.buffers[0][self._at(self.read) : self._at(read), 1:-1]
        self.encoder.normalise(self.image[self.read : read], colors, threads)
        done = [height if read == height else read - tiling.LINES * (i + 1) for i in range(len(self.done))]
        if read == height:
            for buffer in self.buffers:
                border = buffer[self._at(height)]  # where rows were that have moved
                ctypes.memset(border.data_ptr(), 0, border.nbytes)
        steps = [
            self.encoder.step(layer, z, slice(self._at(begin), self._at(end)), begin)
            for layer, begin, end in zip(self.encoder.layers(*self.buffers), self.done, done, strict=True)
        ]
        native_convolution.convolve(steps, threads)
        self.read, self.done = read, done

    def _at(self, row: int) -> int:
        """Row of the buffers."""
        return row - self.top + 1

    def _make_room(self) -> None:
        top = max(0, self.done[-1] - tiling.LINES)
        for buffer in self.buffers:  # not by PyTorch, see `NativeEncoder.z`; they may overlap
            kept = buffer[self._at(top) : self._at(self.read)]
            ctypes.memmove(buffer[1].data_ptr(), kept.data_ptr(), kept.nbytes)
        self.top = top

    def _empty(self, rows: int) -> torch.Tensor:
        return pages.empty(rows, self.image.shape[1], self.encoder.width, dtype=self.encoder.dtype)


Buffers = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]  # image, head, features, branch


@dataclass
class Layer:
    """A convolution from one buffer to another, or, where ``out`` is None, to z; see `native_convolution.step`."""

    name: str
    source: torch.Tensor
    out: torch.Tensor | None
    relu: bool = False
    add: torch.Tensor | None = None
    skip: torch.Tensor | None = None


@dataclass
class _Workspace:
    """Buffers, and the convolutions from one to another."""

    buffers: Buffers
    steps: list[Step]
    last: Layer  # to z

    @property
    def image(self) -> torch.Tensor:
        return self.buffers[0]

    @property
    def rows(self) -> slice:
        """Without the border."""
        return slice(1, len(self.image) - 1)

    @property
    def bytes(self) -> int:
        return sum(buffer.nbytes for buffer in self.buffers)


def inside(picture: torch.Tensor) -> torch.Tensor:
    return picture[1:-1, 1:-1]
