"""Muon: momentum whose update is made orthogonal, and Adam for what is no matrix."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

# Newton-Schulz coefficients that bring singular values near one in five steps (Jordan et al., "Muon", 2024).
_STEPS, _A, _B, _C = 5, 3.4445, -4.7750, 2.0315


class Muon(torch.optim.Optimizer):
    """Momentum whose update of each matrix is made orthogonal (Jordan et al., 2024); Adam for everything else.

    Convolutions count as matrices [out, in * kernel]. ``lr`` is Adam's; a matrix moves by ``lr`` times an
    orthogonal matrix scaled to Adam's usual root mean square, so that one learning rate serves both. In a
    group whose ``matrices`` is False all parameters are Adam's.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter] | list[dict[str, Any]],
        lr: float,
        betas: tuple[float, float],
        momentum: float = 0.95,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas, "momentum": momentum, "matrices": True})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """All matrices of one shape at once, and all else at once: on a GPU the launches of a thousand small products
        would take longer than the network."""
        for group in self.param_groups:
            matrices: dict[torch.Size, list[torch.Tensor]] = {}
            rest: list[torch.Tensor] = []
            for p in group["params"]:
                if p.grad is None:
                    continue
                if group["matrices"] and p.ndim >= 2 and min(p.shape[0], p[0].numel()) > 3:
                    matrices.setdefault(p.shape, []).append(p)
                else:
                    rest.append(p)
            for alike in matrices.values():
                self._turn(alike, group["lr"], group["momentum"])
            if rest:
                self._adam(rest, group["lr"], group["betas"])

    def _turn(self, parameters: list[torch.Tensor], lr: float, momentum: float) -> None:
        for p in parameters:
            if not self.state[p]:
                self.state[p]["momentum"] = torch.zeros_like(p)
        kept, gradients = [self.state[p]["momentum"] for p in parameters], _gradients(parameters)
        torch._foreach_lerp_(kept, gradients, 1 - momentum)
        updates = orthogonal(stacked(torch._foreach_lerp(gradients, kept, momentum)))
        torch._foreach_add_(parameters, unstacked(updates, parameters[0].shape), alpha=-lr)

    def _adam(self, parameters: list[torch.Tensor], lr: float, betas: tuple[float, float]) -> None:
        for p in parameters:
            if not self.state[p]:
                self.state[p].update(step=0, mean=torch.zeros_like(p), square=torch.zeros_like(p))
            self.state[p]["step"] += 1
        states, gradients = [self.state[p] for p in parameters], _gradients(parameters)
        means, squares = ([state[name] for state in states] for name in ("mean", "square"))
        seen = [[1 - beta ** state["step"] for state in states] for beta in betas]
        torch._foreach_lerp_(means, gradients, 1 - betas[0])
        torch._foreach_lerp_(squares, torch._foreach_mul(gradients, gradients), 1 - betas[1])
        roots = torch._foreach_sqrt(torch._foreach_div(squares, seen[1]))
        torch._foreach_add_(roots, 1e-8)
        torch._foreach_addcdiv_(parameters, means, roots, [-lr / share for share in seen[0]])


def _gradients(parameters: list[torch.Tensor]) -> list[torch.Tensor]:
    return [p.grad for p in parameters if p.grad is not None]


def stacked(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Weights of one shape, [out, in] or [out, in, rows, columns], as matrices [N, out, rows * columns * in]: channels
    last, as those of convolutions lie in memory, so that they are copied once."""
    return torch.stack([tensor.movedim(1, -1).flatten(1) for tensor in tensors])


def unstacked(matrices: torch.Tensor, shape: torch.Size) -> list[torch.Tensor]:
    """`stacked` undone, for weights of ``shape``."""
    out, into, *kernel = shape
    return list(matrices.view(len(matrices), out, *kernel, into).movedim(-1, 2).unbind())


def orthogonal(update: torch.Tensor) -> torch.Tensor:
    """The nearest orthogonal matrices, about, of one or several [..., rows, columns], times 0.2 sqrt(longer side): the
    root mean square of Adam's updates."""
    x = update[None] if update.ndim == 2 else update
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-12)
    for _ in range(_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C), x, beta=_A)
    x = x.mT if tall else x
    return (x * (0.2 * math.sqrt(max(update.shape[-2:])))).view(update.shape)
