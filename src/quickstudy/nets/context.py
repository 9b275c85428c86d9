"""Full context embeddings: what a row is, read together with the support it stands beside."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class FullContext(nn.Module):
    """The full context embeddings of matching networks (Vinyals et al. 2016, arXiv 1606.04080, appendix A).

    A support row, read in its order by an LSTM from either side:  g_i = forward_i + backward_i + x_i.
    A query row, by an LSTM that attends to the support `steps` times, from h = c = 0:

        r = sum_i softmax_i(h . g_i) g_i,  h, c = LSTM([x, r], h, c),  h <- h + x

    Rows of weight 0 are passed over: the LSTMs read the rest as if they were not there.
    """

    def __init__(self, size: int, steps: int):
        super().__init__()
        self.steps = steps
        self.there = nn.LSTM(size, size, batch_first=True)
        self.back = nn.LSTM(size, size, batch_first=True)
        self.attentive = nn.LSTMCell(2 * size, size)

    def support(self, x: Tensor, weight: Tensor) -> Tensor:
        """g, (task, n, d), of the support's features (task, n, d); 0 for rows of weight 0."""
        there = _read(self.there, x, weight)
        back = _read(self.back, x.flip(1), weight.flip(1)).flip(1)
        return (there + back + x) * (weight > 0).unsqueeze(-1)

    def query(self, x: Tensor, context: Tensor, weight: Tensor) -> Tensor:
        """f, (task, n, d), of the query's features; context: the g of `support`, with its weight."""
        h, c = torch.zeros_like(x), torch.zeros_like(x)
        absent = (weight == 0).unsqueeze(1)
        for _ in range(self.steps):
            scores = h @ context.transpose(1, 2)
            # far below every score, and finite where a task has no rows at all
            lowest = scores.detach().amin(-1, keepdim=True) - 1e4
            read = torch.where(absent, lowest, scores).softmax(-1) @ context
            rows = torch.cat([x, read], -1).flatten(0, 1)
            h, c = self.attentive(rows, (h.flatten(0, 1), c.flatten(0, 1)))
            h, c = h.view_as(x) + x, c.view_as(x)
        return h


def _read(lstm: nn.LSTM, x: Tensor, weight: Tensor) -> Tensor:
    """What the LSTM says at every row, having read those of some weight only."""
    # padding goes behind all rows, where it cannot be read before them; nothing depends on its own outputs
    order = (weight == 0).long().argsort(dim=1, stable=True).unsqueeze(-1).expand_as(x)
    return torch.zeros_like(x).scatter(1, order, lstm(x.gather(1, order))[0])
