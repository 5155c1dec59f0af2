"""The networks as trainable modules, with the parameter names of the official code."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from .. import grid
from ..architecture import FACTOR, Architecture
from ..checkpoint import Weights
from ..grid import TAPS, Axis
from ..resample import shares
from .convolution import Convolution, convolve

_TAPS_PACE = 0.05


class Block(nn.Module):
    """EDSR's residual block: convolution, ReLU, convolution, skip, and ResNet's further ReLU where it is asked for."""

    def __init__(self, feats: int, relu_after_add: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(Convolution(feats, feats), nn.ReLU(inplace=True), Convolution(feats, feats))
        self.after = nn.ReLU(inplace=True) if relu_after_add else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.after(x + self.body(x))
        return y


class Edsr(nn.Module):
    """EDSR without its upsampler: normalised image [B, 3, H, W] -> features [B, n_feats, H, W]."""

    def __init__(self, a: Architecture) -> None:
        super().__init__()
        self.head = nn.Sequential(Convolution(3, a.n_feats))
        blocks = (Block(a.n_feats, a.relu_after_add) for _ in range(a.n_resblocks))
        self.body = nn.Sequential(*blocks, Convolution(a.n_feats, a.n_feats))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.head(x)
        return x + self.body(x)


class Mlp(nn.Module):
    """Linear layers with ``between`` between them, by the names of the official code; the networks apply them."""

    def __init__(self, widths: tuple[int, ...], between: Callable[[], nn.Module]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(len(widths) - 1):
            layers += [nn.Linear(widths[i], widths[i + 1]), between()]
        self.layers = nn.Sequential(*layers[:-1])


class Network(nn.Module):
    """An EDSR encoder and a decoder: image and queries to colours. Its parameters start as PyTorch's layers do.

    ``on_grid``: the queries are all crossings of rows and columns; otherwise they are scattered.
    """

    on_grid = False

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.encoder = Edsr(architecture)

    def forward(self, image: torch.Tensor, y: torch.Tensor, x: torch.Tensor, cell: torch.Tensor) -> torch.Tensor:
        """Colours at the queries.

        ``image`` [B, 3, H, W], normalised. ``y``, ``x`` float64 [B * Q]: places in pixels of the input, edge based,
        those of one image after those of another. ``cell`` [B, 2]. Returns [B, Q, 3], of a grid [B, Q, Q, 3],
        normalised.
        """
        raise NotImplementedError

    def groups(self, encoder_pace: float = 1.0) -> list[dict[str, Any]]:
        """The parameters that are to learn, as an optimiser takes them. ``pace``: their share of the learning rate;
        ``matrices``: whether they are layers large enough for Muon."""
        paces = {1.0: list[nn.Parameter]()}
        for name, parameter in self.named_parameters():
            pace = encoder_pace if name.startswith("encoder.") else 1.0
            parameter.requires_grad_(pace > 0)
            if parameter.requires_grad:
                paces.setdefault(pace, []).append(parameter)
        return [{"params": some, "pace": pace, "matrices": True} for pace, some in paces.items()]


class Liif(Network):
    """The local-ensemble MLP, its first layer projected on the LR grid (exact)."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture)
        self.imnet = Mlp((architecture.imnet_in, *architecture.hidden_list, 3), partial(nn.ReLU, inplace=True))

    def forward(self, image: torch.Tensor, y: torch.Tensor, x: torch.Tensor, cell: torch.Tensor) -> torch.Tensor:
        height, width = image.shape[2:]
        ensemble = self.architecture.local_ensemble
        return self.decode(
            self.project(self.encoder(image)), grid.axis(y, height, ensemble), grid.axis(x, width, ensemble), cell
        )

    def project(self, feat: torch.Tensor) -> torch.Tensor:
        """Features [B, n_feats, H, W] -> z [B, H, W, width]."""
        a, first = self.architecture, self._first
        kernel = 3 if a.feat_unfold else 1
        weight = first.weight[:, : a.n_feats * kernel**2].reshape(-1, a.n_feats, kernel, kernel)
        return convolve(feat, weight, first.bias).permute(0, 2, 3, 1)

    def decode(self, z: torch.Tensor, y: Axis, x: Axis, cell: torch.Tensor) -> torch.Tensor:
        """z [B, H, W, width] and tables of B * Q queries to [B, Q, 3]."""
        batch, height, width, channels = z.shape
        rows = torch.arange(batch, device=z.device).repeat_interleave(y.size // batch) * height
        sides = [(j, i) for j in range(len(y.index)) for i in range(len(x.index))]
        at = torch.stack([(rows + y.index[j]) * width + x.index[i] for j, i in sides])  # [S, B * Q]
        offset = torch.stack([torch.stack([y.offset[j], x.offset[i]], -1) for j, i in sides])
        share = torch.stack([y.weight[j] * x.weight[i] for j, i in sides])

        a = self.architecture
        beside = self._first.weight[:, a.imnet_in - (4 if a.cell_decode else 2) :]
        hidden = z.reshape(-1, channels).index_select(0, at.flatten()).view(*at.shape, channels)
        hidden += F.linear(offset.to(beside.dtype), beside[:, :2])
        if a.cell_decode:
            hidden += F.linear(cell, beside[:, 2:]).repeat_interleave(y.size // batch, dim=0)
        for layer in list(self.imnet.layers)[1:-1]:
            hidden = layer(hidden)
        # The last layer is linear and the shares sum to one: blending first is the same, at a quarter of the work.
        return self._last((share[..., None] * hidden).sum(0)).view(batch, -1, 3)

    @property
    def _first(self) -> nn.Linear:
        layer = self.imnet.layers[0]
        assert isinstance(layer, nn.Linear)
        return layer

    @property
    def _last(self) -> nn.Module:
        return self.imnet.layers[-1]


class Resample(Network):
    """A picture ``FACTOR`` times as fine, the repeated input added, resampled with learned taps."""

    on_grid = True

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture)
        self.upsample = Convolution(architecture.n_feats, 3 * FACTOR**2)
        self.taps = Mlp((2, *architecture.hidden_list, 1), nn.SiLU)
        # It starts as the input itself, resampled with the cubic.
        for parameter in (*self.upsample.parameters(), *self.taps.layers[-1].parameters()):
            nn.init.zeros_(parameter)

    def forward(self, image: torch.Tensor, y: torch.Tensor, x: torch.Tensor, cell: torch.Tensor) -> torch.Tensor:
        fine = self._fine(image).flatten(1, 3)  # [B, H * FACTOR * 3, W * FACTOR]
        rows, columns = (
            self._matrices(places, cells, side)
            for places, cells, side in zip((y, x), image.shape[2:], cell.T, strict=True)
        )
        with torch.autocast(image.device.type, enabled=False):  # the taps are no place to round
            across = (fine @ columns.mT).view(len(image), rows.shape[2], -1)
            return (rows @ across).view(*rows.shape[:2], 3, -1).permute(0, 1, 3, 2)

    def _fine(self, image: torch.Tensor) -> torch.Tensor:
        """The fine picture [B, H, FACTOR, 3, W * FACTOR]: a line of each colour after another, so that both products
        with taps find what they need side by side."""
        shuffled = self.upsample(self.encoder(image)).float().unflatten(1, (3, FACTOR, FACTOR))
        fine = shuffled + image[:, :, None, None]  # [B, 3, FACTOR, FACTOR, H, W]
        return fine.permute(0, 4, 2, 1, 5, 3).flatten(4)

    def groups(self, encoder_pace: float = 1.0) -> list[dict[str, Any]]:
        """Taps as fast as the rest would learn to blur, while the fine picture is still poor, and never come back."""
        taps, rest = list(self.taps.parameters()), super().groups(encoder_pace)
        own = set(taps)
        for group in rest:
            group["params"] = [p for p in group["params"] if p not in own]
        return [*rest, {"params": taps, "pace": _TAPS_PACE, "matrices": False}]

    def _matrices(self, places: torch.Tensor, cells: int, side: torch.Tensor) -> torch.Tensor:
        """The taps of B * Q rows or columns as B matrices [Q, FACTOR * cells]; ``side`` [B]: of their cell."""
        batch = len(side)
        sides = side.repeat_interleave(len(places) // batch)[:, None]
        mlp = [p.float() for p in self.taps.parameters()]
        with torch.autocast(places.device.type, enabled=False):
            table = grid.taps(places, cells, lambda distance: shares(distance, sides, mlp))
        at = (table.first[:, None] + torch.arange(TAPS, device=places.device)).clamp(max=table.lines - 1)
        matrix = table.taps.new_zeros(len(places), table.lines).scatter_add(1, at, table.taps)
        return matrix.view(batch, -1, table.lines)


_NETWORKS: dict[str, type[Network]] = {"liif": Liif, "resample": Resample}


def make(architecture: Architecture) -> Network:
    return _NETWORKS[architecture.decoder](architecture)


def from_weights(weights: Weights) -> Network:
    network = make(weights.architecture)
    network.load_state_dict(weights.tensors)
    return network


def to_weights(architecture: Architecture, tensors: dict[str, torch.Tensor], name: str, **metadata: str) -> Weights:
    """`Weights` of a copy of a network's tensors. Raises CheckpointError where they are not finite."""
    copies = {key: tensor.detach().float().cpu().contiguous().clone() for key, tensor in tensors.items()}
    return Weights(architecture, copies, name, metadata)
