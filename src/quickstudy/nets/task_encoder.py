"""A representation of a task: the mean of an autoencoder's codes of its rows."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quickstudy.core.errors import UserError
from quickstudy.core.objective import Classification, Objective, row_mean
from quickstudy.core.task import Examples
from quickstudy.nets.conv4 import Conv4
from quickstudy.nets.mlp import MLP


class TaskEncoder(nn.Module):
    """Rows and targets -> a vector a task, by a pooling autoencoder (Yao et al. 2019, arXiv 1905.05301, section 4.1).

    e_i = F(x_i, y_i), code_i = encoder(e_i); the representation is mean_i code_i, and |decoder(code_i) - e_i|^2,
    mean over rows, says what it loses. Images first pass a small convolutional network. The way is fixed.

    >>> encoder = TaskEncoder((2,), Classification(3), size=8)
    >>> encoder(Examples(torch.zeros(4, 5, 2), torch.zeros(4, 5, dtype=torch.long), torch.ones(4, 5)))[0].shape
    torch.Size([4, 8])
    """

    def __init__(self, x_shape: tuple[int, ...], objective: Objective, size: int):
        super().__init__()
        self.objective = objective
        image = len(x_shape) == 3 and min(x_shape[1:]) >= 16
        self.look = Conv4(x_shape, out=size, channels=32, norm="group", pool="stride") if image else None
        targets = objective.size if isinstance(objective, Classification) else getattr(objective, "y_size", 1)
        inputs = targets + (size if image else math.prod(x_shape))
        self.rows = MLP((inputs,), out=size, width=size, depth=1)
        self.encoder = MLP((size,), out=size, width=size, depth=1)
        self.decoder = MLP((size,), out=size, width=size, depth=1)

    def forward(self, support: Examples) -> tuple[Float[Tensor, "task size"], Float[Tensor, " task"]]:
        """The representation of each task, and what it loses of its rows."""
        x = support.x
        if not isinstance(x, Tensor):
            raise UserError("this method reads rows that are one tensor, not named ones such as tokens with a mask.")
        x = x.flatten(2) if self.look is None else self.look(x)
        y = self.objective.indicators(support.y) if isinstance(self.objective, Classification) else support.y.flatten(2)
        rows = self.rows(torch.cat([x, y.to(x.dtype)], -1))
        codes = self.encoder(rows)
        lost = (self.decoder(codes) - rows).square().sum(-1)
        weight = support.weight.unsqueeze(-1).to(codes.dtype)
        mean = (codes * weight).sum(1) / weight.sum(1).clamp_min(1e-12)
        return mean, row_mean(lost, support.weight)
