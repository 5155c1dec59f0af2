"""LIIF-EDSR as a trainable module, with the parameter names of the official code."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from ..checkpoint import Architecture, Weights
from ..grid import Axis


class Block(nn.Module):
    """EDSR's residual block: convolution, ReLU, convolution, skip."""

    def __init__(self, feats: int) -> None:
        super().__init__()
        self.body = nn.Sequential(convolution(feats, feats), nn.ReLU(inplace=True), convolution(feats, feats))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x)


class Edsr(nn.Module):
    """EDSR without its upsampler: normalised image [B, 3, H, W] -> features [B, n_feats, H, W]."""

    def __init__(self, blocks: int, feats: int) -> None:
        super().__init__()
        self.head = nn.Sequential(convolution(3, feats))
        self.body = nn.Sequential(*(Block(feats) for _ in range(blocks)), convolution(feats, feats))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.head(x)
        return x + self.body(x)


class Mlp(nn.Module):
    """The decoder's layers, by the names of the official code; `Network` applies them."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(len(widths) - 1):
            layers += [nn.Linear(widths[i], widths[i + 1]), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers[:-1])


class Network(nn.Module):
    """Image and queries to colours, with the decoder's first layer projected on the LR grid (exact).

    Args:
        architecture: the network's shape; its parameters start as PyTorch's layers do.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.encoder = Edsr(architecture.n_resblocks, architecture.n_feats)
        self.imnet = Mlp((architecture.imnet_in, *architecture.hidden_list, 3))

    @classmethod
    def from_weights(cls, weights: Weights) -> Network:
        network = cls(weights.architecture)
        network.load_state_dict(weights.tensors)
        return network

    def weights(self, name: str = "unnamed", **metadata: str) -> Weights:
        """A copy of the parameters. Raises CheckpointError where they are not finite."""
        return to_weights(self.architecture, dict(self.state_dict()), name, **metadata)

    def forward(self, image: torch.Tensor, y: Axis, x: Axis, cell: torch.Tensor) -> torch.Tensor:
        """Colours at scattered queries.

        ``image`` [B, 3, H, W], normalised. ``y``, ``x``: tables of B * Q queries, those of one image after those of
        another. ``cell`` [B, 2]. Returns [B, Q, 3], normalised.
        """
        return self.decode(self.project(self.encoder(image)), y, x, cell)

    def project(self, feat: torch.Tensor) -> torch.Tensor:
        """Features [B, n_feats, H, W] -> z [B, H, W, width]."""
        a, first = self.architecture, self._first
        kernel = 3 if a.feat_unfold else 1
        weight = first.weight[:, : a.n_feats * kernel**2].reshape(-1, a.n_feats, kernel, kernel)
        return F.conv2d(feat, weight, first.bias, padding=kernel // 2).permute(0, 2, 3, 1)

    def decode(self, z: torch.Tensor, y: Axis, x: Axis, cell: torch.Tensor) -> torch.Tensor:
        """z [B, H, W, width] and queries, as for `forward`, to [B, Q, 3]."""
        batch, height, width, channels = z.shape
        rows = torch.arange(batch, device=z.device).repeat_interleave(y.size // batch) * height
        sides = [(j, i) for j in range(len(y.index)) for i in range(len(x.index))]
        at = torch.stack([(rows + y.index[j]) * width + x.index[i] for j, i in sides])  # [S, B * Q]
        offset = torch.stack([torch.stack([y.offset[j], x.offset[i]], -1) for j, i in sides])
        share = torch.stack([y.weight[j] * x.weight[i] for j, i in sides])

        a = self.architecture
        beside = self._first.weight[:, a.imnet_in - (4 if a.cell_decode else 2) :]
        hidden = z.reshape(-1, channels).index_select(0, at.flatten()).view(*at.shape, channels)
        hidden += F.linear(offset, beside[:, :2])
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


def convolution(into: int, out: int) -> nn.Conv2d:
    return nn.Conv2d(into, out, 3, padding=1)


def to_weights(
    architecture: Architecture, tensors: dict[str, torch.Tensor], name: str = "unnamed", **metadata: str
) -> Weights:
    """`Weights` of a copy of a network's tensors. Raises CheckpointError where they are not finite."""
    copies = {key: tensor.detach().float().cpu().contiguous().clone() for key, tensor in tensors.items()}
    return Weights(architecture, copies, name, metadata)
