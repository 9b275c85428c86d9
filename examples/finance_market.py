"""Daily prices of the members of the S&P 500 as tasks: one stock in one quarter, from what was known each day."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from quickstudy.core.source import Source, Spec, Split
from quickstudy.core.task import Examples, Task

FEATURES = (
    *("volatility today", "mean of 5 days", "mean of 22 days", "market's volatility today", "market's mean of 5 days"),
    *("return today", "return over 5 days", "loss today", "market's return today", "volume against 22 days"),
)
"""Of a stock on a day, all known at its close. Volatility is the logarithm of Parkinson's range, see `volatility`."""
SUPPORT = 20
"""Days at the beginning of a quarter that a learner adapts to; it is asked about the rest."""
ROWS = 66
"""Days of a quarter at most."""
LAST_TRAIN, LAST_VALID = "2015-12-31", "2016-12-31"


@dataclass(frozen=True)
class Market:
    """x: (stock, day, feature); volatility_next, return_next: (stock, day), of the day after; NaN where not known.

    quarters: of every day, numbered from 0; dates, tickers: their names. volatility: (stock, day), today's.
    """

    x: np.ndarray
    volatility: np.ndarray
    volatility_next: np.ndarray
    return_next: np.ndarray
    quarters: np.ndarray
    dates: np.ndarray
    tickers: np.ndarray

    def split(self, split: Split) -> np.ndarray:
        """The quarters of a split, in time: those to learn from come first, those of the test last."""
        ends = {int(q): str(self.dates[self.quarters == q][-1]) for q in np.unique(self.quarters)}
        where = {q: "train" if d <= LAST_TRAIN else "valid" if d <= LAST_VALID else "test" for q, d in ends.items()}
        return np.array([q for q, name in where.items() if name == split])


def market(data: Path) -> Market:
    """The market from data/stocks_sp500; days with a price that cannot be (high below low, a jump by half) are unknown.

    The members are those of 2018: firms that had failed by then are missing, which flatters holding stocks.
    """
    with np.load(data / "stocks_sp500" / "sp500_5yr_ohlcv.npz") as file:
        return seen(file["ohlcv"].astype(np.float64), file["dates"], file["tickers"])


def seen(prices: np.ndarray, dates: np.ndarray, tickers: np.ndarray) -> Market:
    """The market from prices (stock, day, 5): open, high, low, close and volume; NaN where a stock was not listed."""
    high, low, close, volume = (prices[..., k] for k in (1, 2, 3, 4))
    returns = np.full_like(close, np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        returns[:, 1:] = np.log(close[:, 1:] / close[:, :-1])
        wrong = (high < low) | (np.abs(returns) > 0.4)
        returns[wrong] = np.nan
        spread = np.log(high / low) / np.sqrt(4 * np.log(2))
        spread[wrong] = np.nan
        volatility = np.log(np.maximum(spread, 5e-4))
        traded = np.log(np.maximum(volume, 1.0))
    week, month = past_mean(volatility, 5), past_mean(volatility, 22)
    everyone = np.nanmean(volatility, 0, keepdims=True) + 0 * volatility
    whole = np.nanmean(returns[:, 1:], 0)
    whole = np.concatenate([[np.nan], whole])[None] + 0 * returns
    x = np.stack([
        volatility, week, month, everyone, past_mean(everyone, 5), returns, 5 * past_mean(returns, 5),
        np.minimum(returns, 0.0), whole, traded - past_mean(traded, 22),
    ], -1)  # fmt: skip
    quarters = np.array([(int(d[:4]) - 2013) * 4 + (int(d[5:7]) - 1) // 3 for d in dates])
    return Market(x, volatility, later(volatility), later(returns), quarters, dates, tickers)


def past_mean(values: np.ndarray, days: int) -> np.ndarray:
    """The mean over the last `days` days, today included, along the last axis; NaN where one is not known."""
    out = np.full_like(values, np.nan)
    sums = np.lib.stride_tricks.sliding_window_view(values, days, axis=-1).mean(-1)
    out[..., days - 1 :] = sums
    return out


def later(values: np.ndarray) -> np.ndarray:
    """What the next day brings, on each day."""
    return np.concatenate([values[:, 1:], np.full_like(values[:, :1], np.nan)], 1)


@dataclass(frozen=True)
class Rows:
    """Tasks of a split: x (task, ROWS, feature), y and move (task, ROWS), known (task, ROWS) is 1 for a real row.

    y: tomorrow's volatility; move: tomorrow's return. stock, quarter: (task,). day: (task, ROWS), of the row.
    """

    x: np.ndarray
    y: np.ndarray
    move: np.ndarray
    known: np.ndarray
    stock: np.ndarray
    quarter: np.ndarray
    day: np.ndarray


def tasks_of(market: Market, quarters: Sequence[int] | np.ndarray) -> Rows:
    """Every stock in every quarter of which the first 20 days and at least one later one are known.

    The last day of a quarter is no row: what it would be asked about lies in the next.
    """
    parts: list[tuple[np.ndarray, ...]] = []
    good = np.isfinite(market.x).all(-1) & np.isfinite(market.volatility_next) & np.isfinite(market.return_next)
    for quarter in quarters:
        days = np.flatnonzero(market.quarters == quarter)[:-1]
        if len(days) <= SUPPORT:
            continue
        stocks = np.flatnonzero(good[:, days[:SUPPORT]].all(1) & good[:, days[SUPPORT:]].any(1))
        place = np.ix_(stocks, days)
        wide = ((0, 0), (0, ROWS - len(days)))
        known = np.pad(good[place], wide)
        cells = [np.pad(np.nan_to_num(v[place]), wide) for v in (market.volatility_next, market.return_next)]
        x = np.pad(np.nan_to_num(market.x[place]), (*wide, (0, 0))) * known[..., None]
        day = np.broadcast_to(np.pad(days, wide[1]), known.shape)
        parts.append((x, *cells, known.astype(float), stocks, np.full(len(stocks), quarter), day))
    return Rows(*(np.concatenate(column) for column in zip(*parts, strict=True)))


class Quarters(Source):
    """Tasks of stocks and quarters: `rows` by split, x and volatility as deviations from the training tasks.

    direction: asked is whether tomorrow's return is above 0 (two classes), else tomorrow's volatility.
    """

    def __init__(self, rows: dict[Split, Rows], direction: bool = False):
        self.rows = rows
        self.direction = direction
        known = rows["train"].known > 0
        x, y = rows["train"].x[known], rows["train"].y[known]
        self.centre, self.spread = x.mean(0), x.std(0) + 1e-9
        self.y_centre, self.y_spread = float(y.mean()), float(y.std())

    @property
    def spec(self) -> Spec:
        shape = (len(FEATURES),)
        return Spec("classification", shape, way=2, train_classes=2) if self.direction else Spec("regression", shape)

    def task(self, split: Split, index: np.ndarray) -> Task:
        """The tasks at `index` of a split."""
        rows = self.rows[split]
        known = torch.from_numpy(rows.known[index]).float()
        x = torch.from_numpy(((rows.x[index] - self.centre) / self.spread).clip(-8, 8)).float() * known.unsqueeze(-1)
        if self.direction:
            y = torch.from_numpy((rows.move[index] > 0).astype(np.int64))
        else:
            y = torch.from_numpy((rows.y[index] - self.y_centre) / self.y_spread).float().unsqueeze(-1)
        cut = lambda part: Examples(x[:, part], y[:, part], known[:, part])  # noqa: E731
        return Task(cut(slice(SUPPORT)), cut(slice(SUPPORT, None)))

    def sample(self, split: Split, tasks: int, rng: torch.Generator) -> Task:
        return self.task(split, torch.randint(len(self.rows[split].x), (tasks,), generator=rng).numpy())

    def sample_pooled(self, split: Split, rows: int, rng: torch.Generator) -> Examples:
        drawn = self.sample(split, 1 + rows // SUPPORT, rng).support
        flat = lambda t: t.flatten(0, 1)[None, :rows]  # noqa: E731
        assert isinstance(drawn.x, Tensor)
        return Examples(flat(drawn.x), flat(drawn.y), flat(drawn.weight))
