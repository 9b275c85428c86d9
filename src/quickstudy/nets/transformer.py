"""A small transformer over the parts of a row: patches of an image, steps of a series, entries of a vector."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.core.errors import UserError
from quickstudy.nets.net import Net


class Transformer(Net):
    """`depth` blocks of self-attention and a two-layer network, normalised before each, over the tokens of one row
    (Vaswani et al. 2017, arXiv 1706.03762; patches as in Dosovitskiy et al. 2021, arXiv 2010.11929).

    (task, n, *x_shape) -> (task, n, out), or the mean token (task, n, width) if `out` is None. Tokens, by the shape of
    a row: (c, h, w) an image, squares of `patch` pixels; (steps, d) a series, a step each; (d,) a vector, an entry
    each, times a vector of its own (Gorishniy et al. 2021, arXiv 2106.11959). Places are learnt.

    Rows never look at each other. Attention has the second derivative that adapting by gradient steps needs: inner
    steps choose the kernel that has one (inner/descent.py). Departure: no dropout, the mean token in place of a
    class token.

    Raises UserError for a patch that does not divide the image, or a width that `heads` does not divide.
    """

    papers = ("vaswani2017attention", "dosovitskiy2021vit")

    def __init__(
        self,
        x_shape: tuple[int, ...],
        out: int | None = None,
        width: int = 64,
        depth: int = 2,
        heads: int = 4,
        patch: int = 7,
    ):
        super().__init__()
        if heads < 1 or width % heads:
            raise UserError(f"a transformer of width {width} with {heads} heads: give a width that heads divides.")
        if len(x_shape) == 3 and (x_shape[1] % patch or x_shape[2] % patch):
            raise UserError(f"patch is {patch} and images are {x_shape[1]} x {x_shape[2]}: give a number that divides.")
        if not 1 <= len(x_shape) <= 3:
            raise UserError(f"a transformer takes vectors, series and images, and not rows of shape {tuple(x_shape)}.")
        self.x_shape = x_shape
        self.out = out
        self.width = width
        self.depth = depth
        self.heads = heads
        self.patch = patch
        tokens, entries = self._tokens(torch.zeros(1, *x_shape)).shape[1:]
        if len(x_shape) == 1:
            self.entry = nn.Parameter(torch.empty(tokens, width).uniform_(-1, 1))
        else:
            self.embed = nn.Linear(entries, width)
        self.place = nn.Parameter(0.02 * torch.randn(tokens, width))
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(depth))
        self.last = nn.LayerNorm(width)
        self.head = nn.Linear(width, out) if out else None

    @property
    def size(self) -> int:
        return self.out or self.width

    def forward(self, x: Tensor) -> Tensor:
        rows = self._tokens(x.flatten(0, 1))
        h = self.place + (rows * self.entry if len(self.x_shape) == 1 else self.embed(rows))
        for block in self.blocks:
            h = block(h)
        h = self.last(h).mean(1)
        return (h if self.head is None else self.head(h)).unflatten(0, x.shape[:2])

    def _tokens(self, rows: Tensor) -> Tensor:
        """(n, *x_shape) -> (n, tokens, entries)."""
        if rows.dim() == 4:
            return F.unfold(rows, self.patch, stride=self.patch).transpose(1, 2)
        return rows if rows.dim() == 3 else rows.unsqueeze(-1)


class _Block(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.before = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.project = nn.Linear(width, 3 * width)
        self.merge = nn.Linear(width, width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)
        for layer in (self.project, self.merge, self.up, self.down):
            nn.init.normal_(layer.weight, std=1 / math.sqrt(layer.in_features))
            nn.init.zeros_(layer.bias)

    def forward(self, h: Tensor) -> Tensor:
        q, k, v = self.project(self.before[0](h)).unflatten(-1, (3, self.heads, -1)).movedim(-3, 0).transpose(2, 3)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        h = h + self.merge(attended)
        return h + self.down(F.gelu(self.up(self.before[1](h))))
