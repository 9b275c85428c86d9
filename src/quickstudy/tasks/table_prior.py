"""Tables drawn from a synthetic prior, for learners that are to read any small table."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from quickstudy.core.errors import UserError
from quickstudy.core.source import SPLITS, Source, Spec, Split
from quickstudy.core.task import Examples, Task
from quickstudy.tasks.sampling import Count, branch, count_range
from quickstudy.tasks.table_mechanisms import MECHANISMS, SCORES, between, chance, normal, scale, shares, standard
from quickstudy.tasks.tables import TablesReader

LEVELS = 10
"""Values that a column of categories has at most."""


class TablePrior(Source):
    """Classification tables of random mechanisms: a prior over data sets, in the line of TabPFN (arXiv 2207.01848).

    A table comes from a linear rule, a random network, a sum of trees, smooth waves, a structural causal model or a
    Gaussian mixture (tasks/table_mechanisms.py). Columns lean on each other or not, many say nothing, some have heavy
    tails, some are cut into ordered or unordered categories; cells may be missing, classes are of unlike size and
    labels partly wrong. The scale of a column is arbitrary.

    way: 2 classes in three of five tables, else more. shot and query count rows: shot is drawn on a logarithmic scale.
    features: columns, drawn from a log-normal about the middle of the range, but no more than `cells` / rows (0: no
    limit). Tables drawn together have the same numbers of rows and columns, so that none is padding. A row is (2,
    most features): values, then 1 where there is a cell; beyond a table's own columns all is 0. The first row of each
    class lies in the support: no class is asked that was not shown.

    >>> source = TablePrior(features="2-6")
    >>> source.spec.x_shape, source.spec.way
    ((2, 6), 10)
    """

    papers = ("hollmann2023tabpfn",)

    def __init__(
        self,
        way: Count = "2-10",
        shot: Count = "4-96",
        query: Count = 32,
        features: Count = "1-40",
        cells: int = 2000,
    ):
        self.way = way
        self.shot = shot
        self.query = query
        self.features = features
        self.cells = cells

    @property
    def spec(self) -> Spec:
        most = self._ways()[1]
        return Spec("classification", (2, count_range(self.features, "features")[1]), way=most, train_classes=most)

    def sample(self, split: Split, tasks: int, rng: torch.Generator) -> Task:
        """`tasks` tables of one size. Raises UserError for options that do not fit each other."""
        rng = self._stream(split, rng)
        (fewest, most), (_, asked) = count_range(self.shot, "shot"), count_range(self.query, "query")
        low, high = self._ways()
        if fewest < low:
            raise UserError(f"shot is {self.shot} rows and way is {self.way}: give a row for every class, or more.")
        shot = round(math.exp(_one(between(math.log(fewest), math.log(most), (1,), rng))))
        narrow, wide = count_range(self.features, "features")
        middle, spread = math.log(narrow * wide) / 2, math.log(wide / narrow) / 5
        columns = round(math.exp(middle + spread * _one(normal((1,), rng))))
        limit = self.cells // (shot + asked) if self.cells else wide
        columns = min(max(min(columns, limit), narrow), wide)
        cap = max(low, min(high, shot // 3))
        ways = torch.randint(min(low + 1, cap), cap + 1, (tasks,), generator=rng, device=rng.device)
        ways = torch.where(chance(0.6, (tasks,), rng), low, ways)
        x, y = self._tables(shot + asked, columns, ways, rng)
        order = _first_of_each(y)
        each = torch.arange(tasks, device=y.device).unsqueeze(1)
        x, y = x[each, order], y[each, order]
        real = torch.ones(y.shape, device=y.device)
        return Task(*(Examples(x[:, part], y[:, part], real[:, part]) for part in (slice(shot), slice(shot, None))))

    def reader(self) -> TablesReader:
        return TablesReader(self.spec.x_shape[1])

    def sample_pooled(self, split: Split, rows: int, rng: torch.Generator) -> Examples:
        """Rows of many tables thrown together; a class number means another thing in every table."""
        drawn: list[Examples] = []
        while sum(part.y.numel() for part in drawn) < rows:
            drawn.append(self.sample(split, 8, rng).query)
        x, y, weight = (torch.cat([t.flatten(0, 1) for t in parts])[:rows] for parts in zip(*drawn, strict=True))
        return Examples(x.unsqueeze(0), y.unsqueeze(0), weight.unsqueeze(0))

    def _tables(self, n: int, f: int, ways: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """x (m, n, 2, most features) and y (m, n) of whole tables."""
        m = len(ways)
        values, y = torch.zeros(m, n, f, device=rng.device), torch.zeros(m, n, dtype=torch.long, device=rng.device)
        odds = torch.tensor([share for _, share in MECHANISMS], device=rng.device)
        family = torch.multinomial(odds, m, replacement=True, generator=rng)
        for number, (mechanism, _) in enumerate(MECHANISMS):
            chosen = (family == number).nonzero().flatten()
            if len(chosen):
                values[chosen], y[chosen] = mechanism(len(chosen), n, f, ways[chosen], rng)
        y = _relabelled(y, ways, rng)
        values, present = _dressed(values, rng)
        x = torch.zeros(m, n, 2, self.spec.x_shape[1], device=rng.device)
        x[:, :, 0, :f], x[:, :, 1, :f] = values * present, present
        return x, y

    def _ways(self) -> tuple[int, int]:
        low, high = count_range(self.way, "way")
        if not 2 <= low <= high <= SCORES:
            raise UserError(f"way is {self.way}: give a number of classes from 2 to {SCORES}, or a range within.")
        return low, high

    def _stream(self, split: Split, rng: torch.Generator) -> torch.Generator:
        if split not in SPLITS:
            raise UserError(f"unknown split {split!r}: choose train, valid or test.")
        return branch(rng, split, device=self.device)


def _one(value: Tensor) -> float:
    return float(value)


def _relabelled(y: Tensor, ways: Tensor, rng: torch.Generator) -> Tensor:
    """y (m, n) with some labels wrong, two classes or more in every table, and classes in a random order."""
    m, n = y.shape
    rate = between(-0.25, 0.15, (m, 1), rng).clamp_min(0)
    other = torch.randint(n, (m, n), generator=rng, device=y.device)
    y = torch.where(chance(rate, (m, n), rng), y.gather(1, other), y)
    single = (y == y[:, :1]).all(1, keepdim=True)
    half = torch.rand((m, n), generator=rng, device=y.device).argsort(1) % 2
    y = torch.where(single, half, y)
    ticket = torch.rand((m, SCORES), generator=rng, device=y.device)
    ticket = ticket + (torch.arange(SCORES, device=y.device) >= ways.unsqueeze(1))
    return ticket.argsort(1).argsort(1).gather(1, y)


def _dressed(x: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Values (m, n, f) as tables show them, and 1 where there is a cell, 0 where it is missing.

    Noise of measurement; warped columns; columns cut into a few levels, in order or in none; other units.
    """
    m, n, f = x.shape
    x = standard(x)
    blur = between(-0.5, 0.7, (m, 1, 1), rng).clamp_min(0)
    x = standard(x + blur * normal((m, n, f), rng)).clamp(-8, 8)
    warp = torch.randint(8, (m, 1, f), generator=rng, device=x.device)
    for number, form in enumerate((x.clamp(-5, 5).exp(), x * x.square(), x.sign() * x.abs().sqrt(), x.tanh())):
        x = torch.where(warp == number, form, x)
    cut = chance(between(-0.7, 1.2, (m, 1, 1), rng), (m, 1, f), rng)
    x = torch.where(cut, _levels(x, rng), standard(x))
    x = x * scale(0.1, 100.0, (m, 1, f), rng) + normal((m, 1, f), rng) * scale(0.1, 10.0, (m, 1, f), rng)
    lost = between(-0.8, 0.2, (m, 1, 1), rng).clamp_min(0) * between(0.0, 2.0, (m, 1, f), rng)
    return x, 1 - chance(lost, (m, n, f), rng).to(x.dtype)


def _levels(x: Tensor, rng: torch.Generator) -> Tensor:
    """Columns (m, n, f) cut at random places into two to LEVELS levels: 0, 1, ..., or codes in no order."""
    m, _, f = x.shape
    edges = torch.rand((m, 1, f, LEVELS - 1), generator=rng, device=x.device)
    used = (LEVELS - 1) * torch.rand((m, 1, f, 1), generator=rng, device=x.device).pow(2.5)
    unused = torch.arange(LEVELS - 1, device=x.device) > used
    level = (shares(x).unsqueeze(-1) > edges.masked_fill(unused, 2.0)).sum(-1)
    codes = torch.rand((m, LEVELS, f), generator=rng, device=x.device).argsort(1)
    return torch.where(chance(0.3, (m, 1, f), rng), codes.gather(1, level), level).to(x.dtype)


def _first_of_each(y: Tensor) -> Tensor:
    """An order of the rows (m, n) in which the first row of every class comes before all others."""
    same = y.unsqueeze(2) == y.unsqueeze(1)
    again = same.tril(-1).any(-1)
    return again.to(torch.uint8).argsort(dim=1, stable=True)
