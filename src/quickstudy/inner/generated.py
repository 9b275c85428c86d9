"""Weights made from loss gradients by small networks that work on every coordinate alike."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


def log_and_sign(gradient: Float[Tensor, "*shape"], p: float = 7.0) -> Float[Tensor, "*shape 2"]:
    """(log|g| / p, sign g) where |g| >= e^-p, else (-1, e^p g): size and sign of a gradient of any scale
    (Andrychowicz et al. 2016, arXiv 1606.04474, appendix A). Continuous.

    >>> log_and_sign(torch.tensor([1.0, 0.0]))
    tensor([[ 0.,  1.],
            [-1.,  0.]])
    """
    large = gradient.abs() >= math.exp(-p)
    # the derivative of log at 0 is infinite: small ones are cut off before it
    size = torch.where(large, gradient.abs(), 1).log() / p
    return torch.stack([torch.where(large, size, -1), torch.where(large, gradient.sign(), math.exp(p) * gradient)], -1)


class PerExample(nn.Module):
    """A network 2 -> units -> units -> 1 from each coordinate of an example's gradient to a fast weight."""

    def __init__(self, units: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2, units), nn.ReLU(), nn.Linear(units, units), nn.ReLU(), nn.Linear(units, 1)
        )

    def forward(self, gradient: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return self.layers(log_and_sign(gradient)).squeeze(-1)


class PerTask(nn.Module):
    """An LSTM that reads each coordinate's gradients, example after example, and gives one fast weight for all."""

    def __init__(self, units: int):
        super().__init__()
        self.cell = nn.LSTMCell(2, units)
        self.out = nn.Linear(units, 1)

    def forward(
        self, gradients: Float[Tensor, "task n *shape"], real: Bool[Tensor, "task n"]
    ) -> Float[Tensor, " task *shape"]:
        """Examples that are not real are skipped."""
        shape = gradients.shape[2:]
        read = log_and_sign(gradients.flatten(2)).transpose(1, 2)  # (task, coordinate, n, 2)
        rows, counts = read.flatten(0, 1), real.repeat_interleave(read.shape[1], 0)
        hidden = cell = rows.new_zeros(len(rows), self.cell.hidden_size)
        for t in range(rows.shape[1]):
            moved = self.cell(rows[:, t], (hidden, cell))
            hidden, cell = (
                torch.where(counts[:, t : t + 1], m, b) for m, b in zip(moved, (hidden, cell), strict=True)
            )
        return self.out(hidden).view(len(gradients), *shape)
