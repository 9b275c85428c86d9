"""Tomorrow's volatility and direction of stocks, a quarter at a time: learnt on the past, asked about later ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from finance_market import ROWS, SUPPORT, Market, Quarters, Rows, market, tasks_of
from scipy.special import stdtrit
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, Ridge

from quickstudy.core.learner import MetaLearner
from quickstudy.core.source import SPLITS, Split
from quickstudy.evaluate import evaluating
from quickstudy.learners import make
from quickstudy.train import train

VOLATILITY = ("alpaca", "cnp", "anp", "r2d2")
DIRECTION = ("protonet", "r2d2", "matching")
COST = 5e-4
"""Of what is bought or sold: half a spread and fees, in shares of its value."""
DECAYS = (0.8, 0.9, 0.94, 0.97)
LIMIT = 60_000
"""Rows that gradient boosting is fitted to at most."""
Answers = dict[Split, np.ndarray]
"""By split, an answer for each row that is asked: (task, ROWS - SUPPORT)."""


@dataclass(frozen=True)
class Setting:
    """What every method is given: the market, its tasks by split, steps of training, and a seed."""

    market: Market
    rows: dict[Split, Rows]
    steps: int
    seed: int

    def asked(self, split: Split, values: np.ndarray) -> np.ndarray:
        """Values (stock, day) at the rows of a split that are asked."""
        rows = self.rows[split]
        return values[rows.stock[:, None], rows.day][:, SUPPORT:]


def setting(data: Path, steps: int, stocks: int | None, seed: int) -> Setting:
    """stocks: so many only, for a short run."""
    found = market(data)
    if stocks:
        chosen = np.random.default_rng(seed).permutation(len(found.tickers))[:stocks]
        names = ("x", "volatility", "volatility_next", "return_next", "tickers")
        found = replace(found, **{name: getattr(found, name)[chosen] for name in names})
    return Setting(found, {split: tasks_of(found, found.split(split)) for split in SPLITS}, steps, seed)


def learned(name: str, given: Setting, direction: bool) -> Answers:
    """The answers of a learner, trained on the first quarters; its best weights are those of the valid ones.

    Volatility in its unit; for direction, how much likelier up is than down (a difference of logits). "pooled" is a
    network for all stocks, which does not adapt.
    """
    source = Quarters(given.rows, direction)
    torch.manual_seed(given.seed)
    learner = make(name, source.spec)
    every = max(1, given.steps // 6)
    options: dict[str, Any] = {"meta_batch": 16, "clip": 10.0, "valid_every": every, "valid_tasks": 200}
    train(learner, source, steps=given.steps, seed=given.seed, progress=False, **options)
    return {split: answers(learner, source, split) for split in ("valid", "test")}


def answers(learner: MetaLearner, source: Quarters, split: Split) -> np.ndarray:
    """What a learner answers to every task of a split."""
    found: list[torch.Tensor] = []
    with evaluating(learner, 0):
        for index in np.array_split(np.arange(len(source.rows[split].x)), max(1, len(source.rows[split].x) // 100)):
            task = source.task(split, index)
            said = learner.predict(learner.adapt(task.support), task.query.x, task.query.weight)
            found.append(said[..., 1] - said[..., 0] if source.direction else said[..., 0])
    values = torch.cat(found).double().numpy()
    return values if source.direction else values * source.y_spread + source.y_centre


def plain_volatility(given: Setting) -> dict[str, Callable[[], Answers]]:
    """What one would do without learning across tasks; what can be chosen is chosen on the valid quarters."""
    volatility, rows = given.market.volatility, given.rows

    def each(f: Callable[[Split], np.ndarray]) -> Answers:
        return {split: f(split) for split in ("valid", "test")}

    def own_mean() -> Answers:
        mean = lambda split: rows[split].y[:, :SUPPORT].mean(1, keepdims=True)  # noqa: E731
        return each(lambda split: np.repeat(mean(split), ROWS - SUPPORT, 1))

    def ewma() -> Answers:
        tried = [each(lambda split, d=decay: given.asked(split, smoothed(volatility, d))) for decay in DECAYS]
        return min(tried, key=lambda found: loss(given, "valid", found["valid"]))

    return {
        "own mean": own_mean,
        "last value": lambda: each(lambda split: given.asked(split, volatility)),
        "EWMA": ewma,
        "HAR, all stocks": lambda: each(fitted(given, Ridge(1.0), regression=True, columns=3)),
        "HAR, a stock alone, refitted each quarter": lambda: each(lambda split: own_har(given, split)),
        "ridge, all stocks": lambda: each(fitted(given, Ridge(1.0), regression=True)),
        "one network, all stocks": lambda: learned("pooled", given, direction=False),
        "gradient boosting, all stocks": lambda: each(fitted(given, _boosting(True), regression=True)),
        "gradient boosting, refitted each quarter": lambda: each(lambda s: refitted(given, s, regression=True)),
    }


def plain_direction(given: Setting) -> dict[str, Callable[[], Answers]]:
    """The same for the direction of tomorrow's return."""

    def each(f: Callable[[Split], np.ndarray]) -> Answers:
        return {split: f(split) for split in ("valid", "test")}

    shape = lambda split: given.rows[split].x[:, SUPPORT:, 0].shape  # noqa: E731
    logistic = LogisticRegression(max_iter=500)
    return {
        "always up": lambda: each(lambda split: np.ones(shape(split))),
        "as today": lambda: each(lambda split: given.rows[split].x[:, SUPPORT:, 5]),
        "against today": lambda: each(lambda split: -given.rows[split].x[:, SUPPORT:, 5]),
        "logistic regression, all stocks": lambda: each(fitted(given, logistic, regression=False)),
        "gradient boosting, all stocks": lambda: each(fitted(given, _boosting(False), regression=False)),
        "gradient boosting, refitted each quarter": lambda: each(lambda s: refitted(given, s, regression=False)),
    }


def _boosting(regression: bool) -> Any:
    kind = HistGradientBoostingRegressor if regression else HistGradientBoostingClassifier
    return kind(max_iter=150, learning_rate=0.05, max_leaf_nodes=15, random_state=0)


def smoothed(values: np.ndarray, decay: float) -> np.ndarray:
    """The exponentially weighted mean of each stock's days up to each day; days that are not known change nothing."""
    out, now = np.full_like(values, np.nan), np.full(len(values), np.nan)
    for day in range(values.shape[1]):
        today = values[:, day]
        now = np.where(np.isnan(now), today, np.where(np.isnan(today), now, decay * now + (1 - decay) * today))
        out[:, day] = now
    return out


def _known_rows(rows: Rows, regression: bool) -> tuple[np.ndarray, np.ndarray]:
    known = rows.known > 0
    return rows.x[known], rows.y[known] if regression else (rows.move[known] > 0).astype(int)


def _fit(model: Any, x: np.ndarray, y: np.ndarray, seed: int) -> Any:
    chosen = np.random.default_rng(seed).permutation(len(x))[:LIMIT]
    return model.fit(x[chosen], y[chosen])


def _says(model: Any, x: np.ndarray, regression: bool) -> np.ndarray:
    flat = x.reshape(-1, x.shape[-1])
    said = model.predict(flat) if regression else model.decision_function(flat)
    return said.reshape(x.shape[:-1])


def fitted(given: Setting, model: Any, regression: bool, columns: int | None = None) -> Callable[[Split], np.ndarray]:
    """A model of all stocks, fitted once to the training quarters; columns: to the first so many features."""
    x, y = _known_rows(given.rows["train"], regression)
    centre, spread = x.mean(0)[:columns], x.std(0)[:columns] + 1e-9
    _fit(model, (x[:, :columns] - centre) / spread, y, given.seed)
    return lambda s: _says(model, (given.rows[s].x[:, SUPPORT:, :columns] - centre) / spread, regression)


def refitted(given: Setting, split: Split, regression: bool) -> np.ndarray:
    """Gradient boosting fitted anew before each quarter, to the four quarters before it."""
    rows = given.rows[split]
    out = np.zeros(rows.x[:, SUPPORT:, 0].shape)
    for quarter in np.unique(rows.quarter):
        x, y = _known_rows(tasks_of(given.market, range(quarter - 4, quarter)), regression)
        model = _fit(_boosting(regression), x, y, given.seed)
        here = rows.quarter == quarter
        out[here] = _says(model, rows.x[here][:, SUPPORT:], regression)
    return out


def own_har(given: Setting, split: Split) -> np.ndarray:
    """HAR (Corsi 2009, J. Financial Econometrics 7(2)) by least squares to all earlier days of the same stock."""
    rows, found = given.rows[split], given.market
    out = np.zeros(rows.x[:, SUPPORT:, 0].shape)
    for task, (stock, quarter) in enumerate(zip(rows.stock, rows.quarter, strict=True)):
        first = int(np.flatnonzero(found.quarters == quarter)[0])
        x, y = found.x[stock, : first - 1, :3], found.volatility_next[stock, : first - 1]
        good = np.isfinite(x).all(1) & np.isfinite(y)
        # a new member has no past of its own: the support then speaks for it
        x = np.concatenate([x[good], rows.x[task, :SUPPORT, :3]])
        y = np.concatenate([y[good], rows.y[task, :SUPPORT]])
        weights = np.linalg.lstsq(np.column_stack([np.ones(len(x)), x]), y, rcond=None)[0]
        out[task] = weights[0] + rows.x[task, SUPPORT:, :3] @ weights[1:]
    return out


def loss(given: Setting, split: Split, said: np.ndarray) -> float:
    """The mean squared error of the logarithm of volatility, over all rows that are asked."""
    rows = given.rows[split]
    known = rows.known[:, SUPPORT:]
    return float((np.square(said - rows.y[:, SUPPORT:]) * known).sum() / known.sum())


def months_of(given: Setting, split: Split) -> list[np.ndarray]:
    """For each month, in order, which rows that are asked (task, ROWS - SUPPORT) lie in it."""
    rows, known = given.rows[split], given.rows[split].known[:, SUPPORT:] > 0
    months = np.array([date[:7] for date in given.market.dates])[rows.day[:, SUPPORT:]]
    return [known & (months == month) for month in np.unique(months[known])]


def by_month(given: Setting, split: Split, values: np.ndarray) -> np.ndarray:
    """The mean of a value a row over all stocks and days of each month: stocks of one day are no independent rows."""
    return np.array([values[month].mean() for month in months_of(given, split)])


def over_months(values: np.ndarray, rows: np.ndarray) -> dict[str, float]:
    """The mean over all rows from those of the months, and half its 95 % interval, the months being the unit.

    m = sum_k r_k v_k / sum r;  V = n / (n - 1) sum_k r_k^2 (v_k - m)^2 / (sum r)^2;  half = t_{0.975, n-1} sqrt(V)

    for r_k rows in month k of n: months are of unequal length, since the first 20 days of a quarter are not asked.
    """
    n, mean = len(values), float(rows @ values / rows.sum())
    variance = n / (n - 1) * float(np.square(rows * (values - mean)).sum()) / float(rows.sum()) ** 2
    return {"mean": mean, "interval": float(stdtrit(n - 1, 0.975) * np.sqrt(variance))}


def traded(given: Setting, split: Split, side: np.ndarray) -> np.ndarray:
    """The daily net return, (task, asked day), of holding each stock on the side given, -1 or 1, costs counted.

    Each day's change of side costs `COST` of what is bought or sold; so does opening.
    """
    rows = given.rows[split]
    before = np.concatenate([np.zeros((len(side), 1)), side[:, :-1]], 1)
    return side * np.expm1(rows.move[:, SUPPORT:]) - COST * np.abs(side - before)
