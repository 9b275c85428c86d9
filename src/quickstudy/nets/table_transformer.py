"""A transformer over the cells of a table: columns look at each other within a row, rows within a column."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.core.errors import UserError
from quickstudy.core.task import Inputs
from quickstudy.core.tracing import is_tracing
from quickstudy.nets.attention import Attention, RowBlock, scaled

CELL = 5
"""What a cell is told by: see `describe_cells`."""
FLAT = 1e-6
"""A column whose deviation is a smaller share than this of its largest value is constant up to rounding."""


def describe_cells(values: Tensor, present: Tensor, weight: Tensor) -> Tensor:
    """(task, row, column, CELL) for values and present (task, row, column), of which the first rows are the support.

    A cell is seen from the support's cells of its column, weighted by `weight` (task, n): asinh of its standard score,
    its rank from -1 to 1, the share of equal values, that it is there, log(1 + support cells) / 4. All are unchanged
    where a column is shifted or scaled by a positive factor. 0 where there is no cell.
    """
    n = weight.shape[1]
    present = present > 0.5
    values = values.masked_fill(~present, 0.0)
    counts = weight.unsqueeze(-1) * present[:, :n].to(weight.dtype)
    total = counts.sum(1, keepdim=True)
    safe = total.clamp_min(1e-12)
    mean = (counts * values[:, :n]).sum(1, keepdim=True) / safe
    apart = values - mean
    variance = (counts * apart[:, :n].square()).sum(1, keepdim=True) / safe
    flat = variance <= (FLAT * (values[:, :n].abs() * (counts > 0)).amax(1, keepdim=True)).square()
    score = torch.where(flat, 0.0, apart / torch.where(flat, 1.0, variance).sqrt())
    # the weight below a value, and up to it, from the sorted support; a row that does not count lies above all
    known = torch.where(counts > 0, values[:, :n], torch.inf).transpose(1, 2).contiguous()
    known, order = known.sort(-1)
    steps = F.pad(counts.transpose(1, 2).gather(2, order).cumsum(-1), (1, 0))
    asked = values.detach().transpose(1, 2).contiguous()
    below, upto = (
        steps.gather(2, torch.searchsorted(known.detach(), asked, right=right)).transpose(1, 2) / safe
        for right in (False, True)
    )
    known = (total.log1p() / 4).expand_as(score)
    cells = torch.stack([score.asinh(), below + upto - 1, upto - below, torch.ones_like(score), known], -1)
    return cells * present.unsqueeze(-1).to(cells.dtype)


class CellBlock(nn.Module):
    """Attention over the columns of a row, then over the rows of a column, then a two-layer network of each cell:
    normalised before each part. Rows are looked at only if they are of the support.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.before = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.columns = Attention(width, heads)
        self.rows = Attention(width, heads)
        self.up = scaled(nn.Linear(width, 2 * width))
        self.down = scaled(nn.Linear(2 * width, width))

    def forward(self, h: Tensor, columns: Tensor | None, weight: Tensor, every: Tensor | None, last: bool) -> Tensor:
        """h (table, row, column, width) -> the same, or (table, row, 1, width) of the last column if `last`.

        columns: (table, column), 0 for those that are not looked at; None: all are. weight: (table, n), of the rows
        of the support, which come first; every: the same, or None where all are 1.
        """
        tables, rows, _, _ = h.shape
        n = weight.shape[1]
        seen = self.before[0](h)
        asking, h = (seen[:, :, -1:], h[:, :, -1:]) if last else (seen, h)
        looked = None if columns is None else columns.unsqueeze(1).expand(-1, rows, -1).flatten(0, 1)
        flat = seen.flatten(0, 1)
        h = h + self.columns(asking.flatten(0, 1), flat, flat, looked).unflatten(0, (tables, rows))
        seen = self.before[1](h).transpose(1, 2).flatten(0, 1)
        looked = None if every is None else every.unsqueeze(1).expand(-1, h.shape[2], -1).flatten(0, 1)
        shown = seen[:, :n]
        h = h + self.rows(seen, shown, shown, looked).unflatten(0, (tables, h.shape[2])).transpose(1, 2)
        return h + self.down(F.gelu(self.up(self.before[2](h))))


class TableTransformer(nn.Module):
    """Says of each row that is asked whether it is of one class, from the support's rows of that class and of others.

    A cell's token is a network of what `describe_cells` says; one more column holds the label: of the class, of
    another, or asked. After `depth` blocks over cells only the tokens of the label's column go on, through `reading`
    blocks in which rows look at the support's rows. Columns and rows have no place: their order says nothing.

    In the line of nanoTabPFN (Pfefferle and others 2025, arXiv 2511.03634) and TabPFN v2; what is added are ranks, the
    blocks over rows alone, and one class against the rest in place of a column of class numbers.
    """

    def __init__(self, width: int, depth: int, reading: int, heads: int):
        super().__init__()
        if depth < 1 or reading < 0:
            raise UserError(f"depth is {depth} and reading {reading}: give 1 block over cells or more, and 0 or more.")
        self.cell = nn.Sequential(scaled(nn.Linear(CELL, width), 2.0), nn.GELU(), scaled(nn.Linear(width, width)))
        self.label = scaled(nn.Linear(4, width), 2.0)
        self.blocks = nn.ModuleList(CellBlock(width, heads) for _ in range(depth))
        self.readers = nn.ModuleList(RowBlock(width, heads) for _ in range(reading))
        self.last = nn.LayerNorm(width)
        self.head = scaled(nn.Linear(width, 1))

    def forward(self, cells: Tensor, columns: Tensor | None, sign: Tensor, weight: Tensor) -> Tensor:
        """The logit (table, asked rows) of being of the class.

        cells: (table, row, column, CELL), the support's rows first; columns: (table, column), 1 for those that the
        support shows, or None for all; sign: (table, n), 1 for rows of the class, -1 for others; weight: (table, n).
        """
        n = sign.shape[1]
        every = None if not is_tracing() and bool((weight == 1).all()) else weight
        told = F.pad(torch.stack([sign, torch.zeros_like(sign)], -1), (0, 0, 0, cells.shape[1] - n))
        told[:, n:, 1] = 1.0
        counts = torch.stack([(weight * (sign > 0)).sum(1), (weight * (sign < 0)).sum(1)], -1).log1p() / 4
        told = torch.cat([told, counts.unsqueeze(1).expand(-1, told.shape[1], -1)], -1)
        h = torch.cat([self.cell(cells), self.label(told).unsqueeze(2)], 2)
        if columns is not None:
            columns = F.pad(columns, (0, 1), value=1.0)
        for i, block in enumerate(self.blocks, start=1):
            h = block(h, columns, weight, every, i == len(self.blocks))
        rows = h.squeeze(2)
        for reader in self.readers:
            rows = reader(rows, reader.shown(rows)[:, :n], every)  # type: ignore[operator]
        return self.head(self.last(rows[:, n:])).squeeze(-1)


def as_table(x: Inputs) -> Tensor:
    """Rows as (task, n, 2, columns): values, then whether there is a cell."""
    if isinstance(x, Tensor) and x.dim() == 3:
        return torch.stack([x, torch.ones_like(x)], 2)
    if not isinstance(x, Tensor) or x.dim() != 4 or x.shape[2] != 2:
        shape = tuple(x.shape[2:]) if isinstance(x, Tensor) else "of several parts"
        raise UserError(f"tabular takes rows (columns,) or (2, columns), and these are {shape}: give rows of a table.")
    return x
