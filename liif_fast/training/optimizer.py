"""Muon: momentum whose update is made orthogonal, and Adam for what is no matrix."""

from __future__ import annotations

import math
from collections.abc import Iterable
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
        for group in self.param_groups:
            lr, (b1, b2), momentum = group["lr"], group["betas"], group["momentum"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if group["matrices"] and p.ndim >= 2 and min(p.shape[0], p[0].numel()) > 3:
                    if not state:
                        state["momentum"] = torch.zeros_like(p)
                    state["momentum"].lerp_(p.grad, 1 - momentum)
                    update = p.grad.lerp(state["momentum"], momentum)
                    p.sub_(orthogonal(update.reshape(len(p), -1)).view(p.shape), alpha=lr)
                    continue
                if not state:
                    state.update(step=0, mean=torch.zeros_like(p), square=torch.zeros_like(p))
                state["step"] += 1
                state["mean"].lerp_(p.grad, 1 - b1)
                state["square"].lerp_(p.grad.square(), 1 - b2)
                mean = state["mean"] / (1 - b1 ** state["step"])
                root = (state["square"] / (1 - b2 ** state["step"])).sqrt() + 1e-8
                p.addcdiv_(mean, root, value=-lr)


def orthogonal(update: torch.Tensor) -> torch.Tensor:
    """The nearest orthogonal matrix, about, times 0.2 sqrt(longer side): the root mean square of Adam's updates."""
    tall = update.shape[0] > update.shape[1]
    x = update.mT if tall else update
    x = x / (x.norm() + 1e-12)
    for _ in range(_STEPS):
        gram = x @ x.mT
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=_B, alpha=_C), x, beta=_A)
    x = x.mT if tall else x
    return x * (0.2 * math.sqrt(max(update.shape)))
