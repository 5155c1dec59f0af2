"""The shape of a network: what a checkpoint says of itself, and every tensor that follows from it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

DECODERS = ("liif", "resample")
# The fine picture of the resampling decoder, per input pixel and axis; see csrc/resample.h.
FACTOR = 4

FLAGS = ("local_ensemble", "feat_unfold", "cell_decode")
# Far above any EDSR; they only keep a forged header from making us loop or allocate.
_MAX_RESBLOCKS, _MAX_FEATS, _MAX_LAYERS = 1024, 4096, 64


class CheckpointError(ValueError):
    """The file is not a LIIF-EDSR checkpoint that can be used; the message is one line and says why."""


def require(condition: bool, problem: str) -> None:
    if not condition:
        raise CheckpointError(problem)


@dataclass(frozen=True)
class Architecture:
    """Shape of an EDSR encoder and its decoder, with the paper's names.

    ``decoder`` is "liif", whose MLP of widths ``hidden_list`` makes colours of features, or "resample": a convolution
    to a picture ``FACTOR`` times as fine, resampled with taps that an MLP of widths ``hidden_list`` makes of distance
    and scale; the flags before it are LIIF's alone. ``relu_after_add``: a ReLU follows the addition of each residual
    block, as in ResNet (He et al., CVPR 2016, figure 2); EDSR has none there.

    The network sees `(x - mean) / std` of RGB in [0, 1] and answers in the same units: image = `y * std + mean`.
    Raises `CheckpointError` where a value is of the wrong type or outside what is supported.
    """

    n_resblocks: int
    n_feats: int
    hidden_list: tuple[int, ...]
    local_ensemble: bool = True
    feat_unfold: bool = True
    cell_decode: bool = True
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    decoder: str = "liif"
    relu_after_add: bool = False

    def __post_init__(self) -> None:
        for key, most in (("n_resblocks", _MAX_RESBLOCKS), ("n_feats", _MAX_FEATS)):
            value = getattr(self, key)
            require(type(value) is int and 1 <= value <= most, f"{key} is {show(value)}, supported is 1 to {most}")
        listed = type(self.hidden_list) is tuple and 1 <= len(self.hidden_list) <= _MAX_LAYERS
        require(listed, f"hidden_list must be a tuple of 1 to {_MAX_LAYERS} widths")
        for width in self.hidden_list:
            fits = type(width) is int and width % 16 == 0 and 16 <= width <= 256
            require(fits, f"hidden width {show(width)} is not supported, multiples of 16 from 16 to 256 are")
        for key in (*FLAGS, "relu_after_add"):
            require(type(getattr(self, key)) is bool, f"{key} is {show(getattr(self, key))}, not true or false")
        for key in ("mean", "std"):
            triple = getattr(self, key)
            numbers = type(triple) is tuple and all(type(v) is float and math.isfinite(v) for v in triple)
            require(numbers and len(triple) == 3, f"{key} must be three finite numbers")
        require(min(self.std) > 0, "std must be positive")
        known = isinstance(self.decoder, str) and self.decoder in DECODERS
        require(known, f"decoder is {show(self.decoder)}, supported are {' and '.join(DECODERS)}")

    @property
    def imnet_in(self) -> int:
        """Width of the MLP's input: features (x9 when unfolded), relative coordinate, cell."""
        return self.n_feats * (9 if self.feat_unfold else 1) + 2 + (2 if self.cell_decode else 0)

    @property
    def halo(self) -> int:
        """LR pixels around a window that its features depend on (one per 3x3 convolution, unfold included)."""
        return 1 + 2 * self.n_resblocks + 1 + (1 if self.feat_unfold or self.decoder == "resample" else 0)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor's name (those of the official code) and shape, in the order of the network."""
        feats, blocks = self.n_feats, self.n_resblocks
        widths = (self.imnet_in, *self.hidden_list, 3)
        layers: dict[str, tuple[int, ...]] = {"encoder.head.0": (feats, 3, 3, 3)}
        layers |= {f"encoder.body.{i}.body.{j}": (feats, feats, 3, 3) for i in range(blocks) for j in (0, 2)}
        layers |= {f"encoder.body.{blocks}": (feats, feats, 3, 3)}
        if self.decoder == "resample":
            layers["upsample"] = (3 * FACTOR**2, feats, 3, 3)
            widths = (2, *self.hidden_list, 1)
        mlp = "taps" if self.decoder == "resample" else "imnet"
        layers |= {f"{mlp}.layers.{2 * i}": (out, into) for i, (into, out) in enumerate(pairwise(widths))}
        return {f"{name}.{key}": shape[:n] for name, shape in layers.items() for key, n in (("weight", 4), ("bias", 1))}

    def summary(self) -> str:
        """One line for people, e.g. for `liif-fast info`."""
        flags = ", ".join(key if getattr(self, key) else f"no {key}" for key in FLAGS)
        hidden = "-".join(map(str, self.hidden_list))
        decoder = f"hidden {hidden}, {flags}" if self.decoder == "liif" else f"x{FACTOR} and resampling, taps {hidden}"
        parameters = sum(math.prod(shape) for shape in self.shapes.values())
        name, size = ("LIIF-EDSR" if self.decoder == "liif" else "EDSR"), f"{parameters / 1e6:.3g} M parameters"
        blocks = f"{self.n_resblocks} blocks of {self.n_feats} features"
        if self.relu_after_add:
            blocks += ", a ReLU after each"
        return f"{name}: {blocks}, {decoder}; {size}, halo {self.halo}"


def show(value: object) -> str:
    """A value from a foreign file, short and on one line; containers by type only, as they may nest without end."""
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else value[:57] + "...")
    if value is None or isinstance(value, bool | float) or (isinstance(value, int) and value.bit_length() <= 64):
        return repr(value)
    return f"a {type(value).__name__}"
