"""Attention over the rows of a task: how much a row is looked at is also said by its weight."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.core.errors import UserError
from quickstudy.nets.mlp import MLP


def attend(
    query: Tensor, key: Tensor, value: Tensor, weight: Tensor | None = None, heads: int = 1, dropout: float = 0.0
) -> Tensor:
    """softmax(q k' / sqrt(d) + log w) v in each of `heads` equal parts of the columns: (task, m, width).

    query: (task, m, width); key, value: (task, n, width); weight: (task, n), or (task, m, n) where each query has its
    own. A row of weight w counts as w equal rows, and one of weight 0 not at all, whatever it holds; where no row has
    any weight the result is 0. dropout: the share of the softmax that is left out by chance.

    >>> query, key, value = torch.ones(1, 1, 2), torch.ones(1, 2, 2), torch.tensor([[[1.0, 2.0], [7.0, 8.0]]])
    >>> attend(query, key, value, weight=torch.tensor([[3.0, 1.0]]))
    tensor([[[2.5000, 3.5000]]])
    """
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (query, key, value))
    if weight is None:
        return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout).transpose(1, 2).flatten(2)
    weight = weight.unsqueeze(1) if weight.dim() == 2 else weight
    counts = weight > 0
    some = counts.any(-1, keepdim=True)
    # without any row a softmax over nothing would be NaN: take all of them there, and then times 0
    bias = torch.where(counts, weight, 1).log().masked_fill(~counts & some, -torch.inf).to(q.dtype)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.unsqueeze(1), dropout_p=dropout)
    return out.transpose(1, 2).flatten(2) * some


RELU = math.sqrt(2)
"""The gain for layers between rectifiers, which let half through."""
Part = TypeVar("Part", bound=nn.Module)


def scaled(part: Part, gain: float = 1.0) -> Part:
    """The module with weights such that each of its linear layers keeps the size of what goes through, times `gain`.

    Torch's own start shrinks rows until biases drown them, and attention then takes long to tell them apart.
    """
    for layer in part.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=gain / math.sqrt(layer.in_features))
    return part


class Attention(nn.Module):
    """Attention over `heads`: queries, keys, values and what comes out each go through a linear map
    (Vaswani et al. 2017, arXiv 1706.03762).

    Keys have no bias: it would move all scores of a query alike, and so nothing. Queries and values have one if `bias`.
    dropout: of the softmax, in training.
    Raises UserError for a width that `heads` does not divide.
    """

    papers = ("vaswani2017attention",)

    def __init__(self, width: int, heads: int, bias: bool = True, dropout: float = 0.0):
        super().__init__()
        if heads < 1 or width < 1 or width % heads:
            raise UserError(f"attention of width {width} with {heads} heads: give a width that heads divides.")
        self.heads = heads
        self.dropout = dropout
        self.query = scaled(nn.Linear(width, width, bias=bias))
        self.key = scaled(nn.Linear(width, width, bias=False))
        self.value = scaled(nn.Linear(width, width, bias=bias))
        self.merge = scaled(nn.Linear(width, width))

    def forward(self, query: Tensor, key: Tensor, value: Tensor, weight: Tensor | None = None) -> Tensor:
        """(task, m, width), for queries (task, m, width), keys and values (task, n, width), weights as in `attend`."""
        dropout = self.dropout if self.training else 0.0
        return self.merge(attend(self.query(query), self.key(key), self.value(value), weight, self.heads, dropout))


class SetAttention(nn.Module):
    """Vectors moved by what they see in others of their set, in the form of FEAT (Ye et al. 2020, arXiv 1812.03664):

        x_i + W_o sum_j a_ij W_v x_j + b_o,   a_ij = softmax_j (W_q x_i . W_k x_j / sqrt(size / heads))

    and a layer norm after it if `normalise`. `dropout` falls on a and on what is added, in training. The order of the
    set does not matter. With W_o = 0, b_o = 0 and no norm it is the identity.
    """

    def __init__(self, size: int, heads: int = 1, normalise: bool = True, dropout: float = 0.0):
        super().__init__()
        self.attention = Attention(size, heads, bias=False, dropout=dropout)
        self.norm = nn.LayerNorm(size) if normalise else nn.Identity()
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, sees: Tensor) -> Tensor:
        """(task, n, d) -> (task, n, d). sees: (task, n or 1, n), whom each looks at; who sees no one reads zeros."""
        return self.norm(x + self.dropout(self.attention(x, x, x, sees.to(x.dtype))))


class RowBlock(nn.Module):
    """h + attention(norm h, rows), then h + a two-layer network of norm h: normalised before each part."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.before = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.attention = Attention(width, heads)
        self.up = scaled(nn.Linear(width, 4 * width))
        self.down = scaled(nn.Linear(4 * width, width))

    def shown(self, h: Tensor) -> Tensor:
        """What others see of the rows h."""
        return self.before[0](h)

    def forward(self, h: Tensor, rows: Tensor, weight: Tensor | None = None) -> Tensor:
        """h: (task, m, width) after looking at `rows` (task, n, width), which are those that `shown` gave."""
        h = h + self.attention(self.before[0](h), rows, rows, weight)
        return h + self.down(F.gelu(self.up(self.before[1](h))))


class RowTransformer(nn.Module):
    """A transformer in which all look at the support and none at a query: one pass over the support is kept for
    all queries, and a query's answer depends on no other query.

    It equals a transformer over support and queries together whose mask leaves the support's columns only.
    Without positions, the order of the support says nothing. Attention sees shares: the support twice over says what it
    says once.
    """

    def __init__(self, width: int, depth: int, heads: int):
        super().__init__()
        if depth < 1:
            raise UserError(f"a transformer of depth {depth}: give at least 1.")
        self.blocks = nn.ModuleList(RowBlock(width, heads) for _ in range(depth))
        self.last = nn.LayerNorm(width)

    def read(self, support: Tensor, weight: Tensor) -> Tensor:
        """What each block shows of the support (task, n, width): (task, depth, n, width)."""
        blocks = _row_blocks(self.blocks)
        shown = [blocks[0].shown(support)]
        for block, after in pairwise(blocks):
            support = block(support, shown[-1], weight)
            shown.append(after.shown(support))
        return torch.stack(shown, 1)

    def answer(self, queries: Tensor, shown: Tensor, weight: Tensor) -> Tensor:
        """The queries (task, m, width) after looking at what `read` gave, block by block."""
        for block, rows in zip(self.blocks, shown.unbind(1), strict=True):
            queries = block(queries, rows, weight)
        return self.last(queries)


class SetEncoder(nn.Module):
    """An MLP of each row, then `attention` blocks in which the rows look at each other: (task, n, width)."""

    def __init__(self, inputs: int, width: int, depth: int, attention: int, heads: int):
        super().__init__()
        if attention < 0:
            raise UserError(f"{attention} layers of self-attention: give 0 or more.")
        self.rows = scaled(MLP((inputs,), out=width, width=width, depth=depth), RELU)
        self.blocks = nn.ModuleList(RowBlock(width, heads) for _ in range(attention))

    def forward(self, rows: Tensor, weight: Tensor) -> Tensor:
        h = self.rows(rows)
        for block in _row_blocks(self.blocks):
            h = block(h, block.shown(h), weight)
        return h


def _row_blocks(modules: nn.ModuleList) -> list[RowBlock]:
    """The modules, said to be what they are."""
    return [module for module in modules if isinstance(module, RowBlock)]
