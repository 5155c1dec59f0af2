"""A LIIF decoder put behind another encoder, without training: its first layer is fitted to the new features."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from .convolution import Convolution
from .data import Pictures
from .network import Edsr, Liif, Network, Resample

_BATCHES, _COUNT, _PATCH = 40, 16, 40  # patches that are looked at
_SCALES = (1.0, 4.0)
_RIDGE = 1e-6  # of the mean square of what is fitted to


@torch.no_grad()
def attach(network: Liif, other: Network, pictures: Pictures, seed: int) -> None:
    """Give ``network`` the encoder of ``other``, of the same shape.

    What its decoder's first layer gets from the features is linear in them: of the new ones it takes the weights that
    give the same on the pictures in the mean square. In front of a resampling decoder, which adds the image itself, an
    encoder has no use for flat colours, and its features tell nothing of them: then `_keep_image` is done before.
    """
    device = pictures.pixels.device
    generator = torch.Generator(device).manual_seed(seed)
    a = network.architecture
    mean, std = (torch.tensor(v, device=device)[:, None, None] for v in (a.mean, a.std))
    images = [(pictures.batch(_COUNT, _PATCH, 1, _SCALES, generator).lr - mean) / std for _ in range(_BATCHES)]
    if isinstance(other, Resample):
        _keep_image(other.encoder, other.upsample, images)
    kernel = 3 if a.feat_unfold else 1
    inputs = a.n_feats * kernel**2
    first = network.imnet.layers[0]
    assert isinstance(first, nn.Linear)
    square = torch.zeros(inputs + 1, inputs + 1, dtype=torch.float64, device=device)
    product = torch.zeros(inputs + 1, len(first.weight), dtype=torch.float64, device=device)
    for image in images:
        x = _unfolded(other.encoder(image), kernel)
        x = torch.cat([x, torch.ones_like(x[:, :1])], 1)
        wanted = _unfolded(network.encoder(image), kernel) @ first.weight[:, :inputs].T
        square += (x.T @ x).double()
        product += (x.T @ wanted).double()
    square.diagonal().add_(_RIDGE * square.diagonal().mean())
    found = torch.linalg.solve(square, product).float()
    first.weight[:, :inputs] = found[:-1].T
    first.bias.add_(found[-1])
    network.encoder.load_state_dict(other.encoder.state_dict())


def _keep_image(encoder: Edsr, upsample: Convolution, images: list[torch.Tensor]) -> None:
    """Have three combinations of the features be the image's colours.

    The features are what the first convolution gives, and the last one's outputs added. There are combinations of the
    former that are a pixel itself; of those the ones are taken along which the latter vary least, and what they vary
    there is left out of them, with what it takes of the fine picture made least by ``upsample``.
    """
    head, tail = encoder.head[0], encoder.body[-1]
    assert isinstance(head, Convolution)
    assert isinstance(tail, Convolution)
    taken = head.weight.flatten(1).double()  # [C, 27]
    pixel = torch.zeros(taken.shape[1], 3, dtype=torch.float64, device=taken.device)
    for color in range(3):
        pixel[9 * color + 4, color] = 1.0
    varied = torch.zeros(len(taken), len(taken), dtype=torch.float64, device=taken.device)
    for image in images:
        x = _unfolded(encoder.body(encoder.head(image)), 1)
        varied += (x.T @ x).double()
    varied = _definite(varied)
    along = torch.linalg.solve(varied, taken)
    along = along @ torch.linalg.pinv(taken.T @ along, hermitian=True) @ pixel  # [C, 3]: taken.T @ along is the pixel
    used = upsample.weight.permute(0, 2, 3, 1).flatten(0, 2).double()
    cheap = torch.linalg.solve(_definite(used.T @ used), along)
    out = cheap @ torch.linalg.inv(along.T @ cheap)  # [C, 3]: along.T @ out is the identity
    keep = torch.eye(len(along), dtype=torch.float64, device=along.device) - out @ along.T
    tail.weight.copy_(torch.einsum("ij,jkyx->ikyx", keep, tail.weight.double()))
    assert tail.bias is not None
    tail.bias.copy_(keep @ tail.bias.double())


def _definite(matrix: torch.Tensor) -> torch.Tensor:
    return matrix + 1e-3 * matrix.diagonal().mean() * torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)


def _unfolded(features: torch.Tensor, kernel: int) -> torch.Tensor:
    """[B, C, H, W] -> [B * H * W, C * kernel**2], as LIIF's decoder takes them."""
    return F.unfold(features, kernel, padding=kernel // 2).transpose(1, 2).flatten(0, 1)
