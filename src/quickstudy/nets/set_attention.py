"""One layer of self-attention over a set of vectors."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from quickstudy.core.errors import UserError


class SetAttention(nn.Module):
    """Vectors moved by what they see in others of their set, in the form of FEAT (Ye et al. 2020, arXiv 1812.03664):

        x_i + W_o sum_j a_ij W_v x_j,   a_ij = softmax_j (W_q x_i . W_k x_j / sqrt(d / heads))

    and a layer norm after it if `normalise`. `dropout` falls on a and on what is added, in training. The order of the
    set does not matter. With W_o = 0 and no norm it is the identity.

    Raises UserError for a size that `heads` does not divide.
    """

    def __init__(self, size: int, heads: int = 1, normalise: bool = True, dropout: float = 0.0):
        super().__init__()
        if heads < 1 or size % heads:
            raise UserError(f"attention over vectors of size {size} with {heads} heads: give a number that divides.")
        self.heads = heads
        self.ask, self.key, self.value = (nn.Linear(size, size, bias=False) for _ in range(3))
        self.out = nn.Linear(size, size)
        self.norm = nn.LayerNorm(size) if normalise else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        for layer in (self.ask, self.key, self.value):
            nn.init.normal_(layer.weight, std=1 / math.sqrt(size))
        nn.init.xavier_normal_(self.out.weight)

    def forward(self, x: Tensor, sees: Tensor) -> Tensor:
        """(task, n, d) -> (task, n, d). sees: (task, n or 1, n), whom each may look at; all may at themselves."""
        q, k, v = (f(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.ask, self.key, self.value))
        scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])
        allowed = sees | torch.eye(x.shape[1], dtype=torch.bool, device=x.device)
        attention = self.dropout(scores.masked_fill(~allowed.unsqueeze(1), -torch.inf).softmax(-1))
        return self.norm(x + self.dropout(self.out((attention @ v).transpose(1, 2).flatten(2))))
