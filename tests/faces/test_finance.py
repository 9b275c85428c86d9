"""examples/finance.py runs in its short form, and nothing in it looks into the future."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quickstudy.scores import interval

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def load() -> Iterator[Any]:
    """A module of the examples by name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        yield importlib.import_module
    for name in [name for name in sys.modules if name.startswith("finance")]:
        del sys.modules[name]


def prices(days: int = 1000, stocks: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random walks with a high and a low, from 2013 to the end of 2016 and on."""
    rng = np.random.default_rng(seed)
    close = 50 * np.exp(np.cumsum(0.01 * rng.standard_normal((stocks, days)), 1))
    spread = 1 + np.abs(0.01 * rng.standard_normal((stocks, days)))
    table = np.stack([close, close * spread, close / spread, close, 1e6 * spread], -1)
    dates = np.arange(np.datetime64("2013-02-08"), np.datetime64("2018-02-08"))
    dates = dates[np.is_busday(dates)][:days].astype(str)
    return table, dates, np.array([f"S{k}" for k in range(stocks)])


def test_features_know_the_past_alone(load: Any) -> None:
    seen = load("finance_market").seen
    table, dates, names = prices()
    before = seen(table, dates, names)
    changed = table.copy()
    changed[:, 501:] *= 1.5
    after = seen(changed, dates, names)
    assert np.array_equal(before.x[:, :501], after.x[:, :501], equal_nan=True)
    assert not np.array_equal(before.x[:, 501:], after.x[:, 501:], equal_nan=True)
    assert np.isfinite(before.x[:, 30:]).all()
    assert np.allclose(before.volatility_next[:, :-1], before.volatility[:, 1:])


def test_methods_know_the_past_alone(load: Any) -> None:
    market, stocks = load("finance_market"), load("finance_stocks")
    table, dates, names = prices(days=1180)
    first = int(np.flatnonzero(np.array([d >= "2017-01-01" for d in dates]))[0])

    def answers(data: np.ndarray) -> dict[str, np.ndarray]:
        found = market.seen(data, dates, names)
        rows = {split: market.tasks_of(found, found.split(split)) for split in ("train", "valid", "test")}
        given = stocks.Setting(found, rows, 2, 0)
        early = rows["test"].quarter == rows["test"].quarter.min()
        plain = {name: work()["test"][early] for name, work in stocks.plain_volatility(given).items()}
        return plain | {"cnp": stocks.learned("cnp", given, direction=False)["test"][early]}

    changed, last = table.copy(), first + 30
    noise = np.random.default_rng(1).standard_normal(changed[:, last + 1 :].shape[:2])
    changed[:, last + 1 :] *= np.exp(0.05 * noise)[..., None]
    one, other = answers(table), answers(changed)
    for name, said in one.items():  # up to row 29 of the quarter: what row 30 is asked about has changed
        assert np.array_equal(said[:, :10], other[name][:, :10]), name


def test_splits_are_in_time_and_tasks_within_a_quarter(load: Any) -> None:
    market = load("finance_market")
    found = market.seen(*prices(days=1180))
    rows = {split: market.tasks_of(found, found.split(split)) for split in ("train", "valid", "test")}
    ends = [rows[s].quarter.max() for s in ("train", "valid")]
    assert ends[0] < rows["valid"].quarter.min() and ends[1] < rows["test"].quarter.min()
    for part in rows.values():
        known = part.known > 0
        assert (found.quarters[part.day + 1] == part.quarter[:, None])[known].all()  # its answer too


def test_costs_are_counted(load: Any) -> None:
    market, stocks = load("finance_market"), load("finance_stocks")
    found = market.seen(*prices(days=1180))
    rows = {"test": market.tasks_of(found, found.split("test"))}
    given = stocks.Setting(found, rows, 2, 0)
    shape = rows["test"].move[:, market.SUPPORT :].shape
    gross = np.expm1(rows["test"].move[:, market.SUPPORT :])
    held = stocks.traded(given, "test", np.ones(shape))
    assert np.allclose((gross - held)[:, 0], stocks.COST) and np.allclose((gross - held)[:, 1:], 0)
    turned = np.tile([1.0, -1.0], shape[1] // 2) * np.ones(shape)
    assert np.allclose((turned * gross - stocks.traded(given, "test", turned))[:, 1:], 2 * stocks.COST)


def test_months_count_by_their_rows(load: Any) -> None:
    over = load("finance_stocks").over_months
    values, rows = np.array([1.0, 2.0, 3.0]), np.array([5.0, 5.0, 5.0])
    assert over(values, rows) == pytest.approx({"mean": 2.0, "interval": interval(values.tolist())})
    assert over(np.array([0.0, 1.0]), np.array([30.0, 10.0]))["mean"] == pytest.approx(0.25)


def test_auc(load: Any) -> None:
    auc = load("finance_credit").auc
    assert auc(np.array([0, 1, 0, 1]), np.array([0.1, 0.9, 0.5, 0.5])) == pytest.approx(3.5 / 4)
    assert np.isnan(auc(np.array([0, 0]), np.array([1.0, 2.0])))


def test_a_sliding_model_sees_earlier_customers_alone(load: Any) -> None:
    credit = load("finance_credit")
    rng = np.random.default_rng(0)
    rows = credit.Customers(rng.standard_normal((2400, 4)), (rng.random(2400) < 0.3).astype(int), np.zeros(2400, int))
    other = credit.Customers(rows.x, rows.y.copy(), rows.group)
    other.y[2000:] = 1 - other.y[2000:]
    name, said = "logistic regression, refitted on a sliding window", []
    for one in (rows, other):
        source = credit.Pools(one, credit.stream_pools(one), True)
        support, asked, _ = credit.stream(one, "test")
        early = asked[:, -1] < 2000
        said.append(credit.methods(source, 1, 0, True)[name]()(support, asked)[early])
    assert len(said[0]) and np.array_equal(*said)


@pytest.mark.slow
def test_the_short_form(load: Any, test_data: Path, tmp_path: Path) -> None:
    figures = load("finance").run(["stocks", "credit"], test_data, tmp_path, short=True, write=False)
    rows = figures["stocks"]["volatility"]["rows"]
    assert rows["HAR, all stocks"]["score"]["mean"] < rows["last value"]["score"]["mean"]
    assert rows["alpaca"]["difference"]["interval"] > 0
    assert set(figures["credit"]) == {"stream", "groups"}
