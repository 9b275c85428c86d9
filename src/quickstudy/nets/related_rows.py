"""Codes of rows that have looked at each other: a relation network over all pairs of a task's rows."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from quickstudy.nets.mlp import MLP


class RelatedRows(nn.Module):
    """code_i = mean over rows j of r(e(f_i), e(f_j)), for a linear e and a network r of two hidden layers
    (Santoro and others 2017, arXiv 1706.01427; in the form of LEO, arXiv 1807.05960).

    (task, n, size), (task, n) -> (task, n, 2 latents). Rows of weight 0 are not looked at. Takes n^2 of everything.
    """

    def __init__(self, size: int, latents: int):
        super().__init__()
        self.encode = nn.Linear(size, latents, bias=False)
        self.relate = MLP((2 * latents,), out=2 * latents, width=2 * latents)

    def forward(self, features: Tensor, weight: Tensor) -> Tensor:
        code, n = self.encode(features), features.shape[1]
        left, right = code.unsqueeze(2).expand(-1, -1, n, -1), code.unsqueeze(1).expand(-1, n, -1, -1)
        related = self.relate(torch.cat([left, right], -1).flatten(1, 2)).unflatten(1, (n, n))
        share = weight.to(code.dtype) / weight.sum(1, keepdim=True).clamp_min(1e-12)
        return (related * share.view(-1, 1, n, 1)).sum(2)
