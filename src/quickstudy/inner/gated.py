"""A learnt rule for descent: an LSTM that reads gradients, one for all entries of all weights."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from quickstudy.core.task import State

SMALLEST = 10.0
"""p of the preprocessing: sizes below exp(-p) count as tiny."""
MEMORY = ("rule hidden", "rule cell", "rule input gate", "rule forget gate")
"""What the rule remembers from step to step, under names that no weight has."""


class GatedRule(nn.Module):
    """theta <- f * theta - i * g for every entry, with gates that a two-layer LSTM learns (Ravi and Larochelle 2017).

    The first layer is a usual LSTM of `hidden` units on [pre(g), pre(L)]; with its output h, for every entry

        i = sigmoid(W_i [h, theta, i_before] + b_i),   f = sigmoid(W_f [h, theta, f_before] + b_f)

    with i = f = 0 before the first step. All entries share its weights, and none looks at another.
    inner_lr: where i starts; f starts at sigmoid(5), nearly 1.
    """

    def __init__(self, hidden: int, inner_lr: float):
        super().__init__()
        self.hidden = hidden
        self.lstm = nn.LSTMCell(4, hidden)
        self.gates = nn.Linear(hidden + 2, 2)
        for p in self.parameters():
            nn.init.uniform_(p, -0.01, 0.01)
        with torch.no_grad():
            self.gates.bias.copy_(torch.tensor([math.log(inner_lr / (1 - inner_lr)), 5.0]))

    def memory(self, tasks: int, entries: int) -> State:
        """What it remembers before the first step, (task, entries, ...), as views of one 0."""
        zero = self.gates.weight.new_zeros(())
        shapes = 2 * [(tasks, entries, self.hidden)] + 2 * [(tasks, entries)]
        return {name: zero.expand(shape) for name, shape in zip(MEMORY, shapes, strict=True)}


def gated(weights: State, slopes: State, losses: Tensor, rate: Any) -> State:
    """The rule, for `rate` the parameters of a GatedRule under the name of every weight that it moves."""
    names = list(rate)
    own: dict[str, Tensor] = rate[names[0]]
    theta = _entries([weights[n] for n in names])
    g = _entries([slopes.get(n, torch.zeros_like(weights[n])) for n in names])
    hidden, cell, i, f = (weights[name] for name in MEMORY)
    read = torch.cat([preprocessed(g), preprocessed(losses).unsqueeze(1).expand(*g.shape, 2)], -1)
    recurrent = [own[f"lstm.{name}"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    flat = (hidden.flatten(0, 1), cell.flatten(0, 1))
    hidden, cell = (h.view(hidden.shape) for h in torch.lstm_cell(read.flatten(0, 1), flat, *recurrent))
    (w_i, w_f), (b_i, b_f) = own["gates.weight"], own["gates.bias"]
    i, f = (
        torch.sigmoid(torch.cat([hidden, theta.unsqueeze(-1), before.unsqueeze(-1)], -1) @ w + b)
        for before, w, b in ((i, w_i, b_i), (f, w_f, b_f))
    )
    parts = (f * theta - i * g).split([weights[n][0].numel() for n in names], 1)
    moved = {n: part.reshape(weights[n].shape) for n, part in zip(names, parts, strict=True)}
    return {**moved, **dict(zip(MEMORY, (hidden, cell, i, f), strict=True))}


def preprocessed(x: Tensor) -> Tensor:
    """(log |x| / p, sign x) where |x| is at least exp(-p), else (-1, exp(p) x): numbers of all sizes, side by side.

    >>> preprocessed(torch.tensor([1.0, -1.0, 0.0]))
    tensor([[ 0.,  1.],
            [ 0., -1.],
            [-1.,  0.]])
    """
    large = x.abs() >= math.exp(-SMALLEST)
    size = torch.where(large, x.abs(), 1).log() / SMALLEST
    return torch.stack([torch.where(large, size, -1), torch.where(large, x.sign(), math.exp(SMALLEST) * x)], -1)


def _entries(tensors: list[Tensor]) -> Tensor:
    return torch.cat([w.reshape(len(w), -1) for w in tensors], 1)
