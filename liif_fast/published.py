"""LIIF exactly as published, in plain PyTorch: what everything else is tested against and compared with in speed.

Chen, Liu, Wang, "Learning Continuous Image Representation with Local Implicit Image Function", CVPR 2021. Features are
unfolded, every output pixel queries the MLP at four neighbouring cells, and the four answers are blended by the area of
the opposite rectangle.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F

from .architecture import Architecture
from .checkpoint import Weights

_Step = Callable[..., torch.Tensor]
QUERIES = 30000  # at once, as in the authors' demo


@torch.inference_mode()
def upscale(
    weights: Weights,
    image: torch.Tensor,
    size: tuple[int, int],
    queries: int = QUERIES,
    compiled: Callable[[_Step], _Step] = lambda step: step,
) -> torch.Tensor:
    """Image [3, H, W] in [0, 1] -> [3, *size] in [0, 1], not clamped, in the dtype and on the device of ``image``.

    ``compiled``: what is made of the encoder and of the queries before they run, such as `torch.compile`.
    """
    run_encode, run_query = compiled(encode), compiled(query)
    t = {name: tensor.to(image) for name, tensor in weights.tensors.items()}
    mean, std = (
        torch.tensor(v).to(image)[:, None, None] for v in (weights.architecture.mean, weights.architecture.std)
    )
    feat = run_encode(t, weights.architecture, ((image - mean) / std)[None])
    coord = _make_coord(size, image)
    cell = torch.ones_like(coord) * torch.tensor([2 / size[0], 2 / size[1]]).to(image)
    parts = [
        run_query(weights.architecture, t, feat, coord[None, i : i + queries], cell[None, i : i + queries])
        for i in range(0, len(coord), queries)
    ]
    return torch.cat(parts, 1)[0].T.reshape(3, *size) * std + mean


def encode(t: Mapping[str, torch.Tensor], a: Architecture, x: torch.Tensor) -> torch.Tensor:
    def conv(name: str, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, t[f"{name}.weight"], t[f"{name}.bias"], padding=1)

    x = conv("encoder.head.0", x)
    y = x
    for i in range(a.n_resblocks):
        y = y + conv(f"encoder.body.{i}.body.2", F.relu(conv(f"encoder.body.{i}.body.0", y)))
        y = F.relu(y) if a.relu_after_add else y
    return x + conv(f"encoder.body.{a.n_resblocks}", y)


def _make_coord(size: tuple[int, int], like: torch.Tensor) -> torch.Tensor:
    axes = [(2 * torch.arange(n).to(like) + 1) / n - 1 for n in size]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).view(-1, 2)


def query(
    a: Architecture, t: Mapping[str, torch.Tensor], feat: torch.Tensor, coord: torch.Tensor, cell: torch.Tensor
) -> torch.Tensor:
    height, width = feat.shape[-2:]
    places = _make_coord((height, width), feat).view(height, width, 2).permute(2, 0, 1).expand(len(feat), -1, -1, -1)
    if a.feat_unfold:
        feat = F.unfold(feat, 3, padding=1).view(len(feat), -1, height, width)
    extent = torch.tensor([height, width]).to(coord)
    shifts, tie = ((-1, 1), 1e-6) if a.local_ensemble else ((0,), 0.0)
    answers, areas = [], []
    for vy in shifts:
        for vx in shifts:
            near = coord + torch.tensor([vy, vx]).to(coord) / extent + tie
            near = near.clamp(-1 + 1e-6, 1 - 1e-6)
            grid = near.flip(-1)[:, None]
            q_feat = F.grid_sample(feat, grid, mode="nearest", align_corners=False)[:, :, 0].permute(0, 2, 1)
            q_place = F.grid_sample(places, grid, mode="nearest", align_corners=False)[:, :, 0].permute(0, 2, 1)
            relative = (coord - q_place) * extent
            inputs = [q_feat, relative] + ([cell * extent] if a.cell_decode else [])
            answers.append(_mlp(t, len(a.hidden_list), torch.cat(inputs, -1)))
            areas.append((relative[..., 0] * relative[..., 1]).abs() + 1e-9)
    total = torch.stack(areas).sum(0)
    if a.local_ensemble:
        areas = areas[::-1]
    blended = torch.zeros_like(answers[0])
    for answer, area in zip(answers, areas, strict=True):
        blended = blended + answer * (area / total)[..., None]
    return blended


def _mlp(t: Mapping[str, torch.Tensor], hidden: int, x: torch.Tensor) -> torch.Tensor:
    for i in range(hidden):
        x = F.relu(F.linear(x, t[f"imnet.layers.{2 * i}.weight"], t[f"imnet.layers.{2 * i}.bias"]))
    return F.linear(x, t[f"imnet.layers.{2 * hidden}.weight"], t[f"imnet.layers.{2 * hidden}.bias"])
