"""Who will not pay the next bill: customers in the order of their numbers, and groups of them that were not seen."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from torch import Tensor

from quickstudy.core.learner import MetaLearner
from quickstudy.core.source import Source, Spec, Split
from quickstudy.core.task import Examples, Task
from quickstudy.evaluate import evaluating
from quickstudy.learners import make
from quickstudy.pretrained import pretrained
from quickstudy.scores import interval
from quickstudy.train import train

SHOTS = (8, 16, 64)
"""Customers whose outcome is known, just before those that are asked about."""
ASKED = 64
LEARNERS = ("protonet", "r2d2", "anil", "tabular")
"""Trained on earlier customers (or other groups); `tabular` comes trained, on synthetic tables alone."""
WINDOW, STRIDE = 5000, 500
"""Customers that a sliding model is fitted to, and after how many it is fitted anew."""
WORDS = ("SEX", "EDUCATION", "MARRIAGE")
SMALLEST = 200
"""Customers in a group, at least."""
Says = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From support rows and asked rows, (task, n) numbers of customers each, to scores (task, asked)."""


@dataclass(frozen=True)
class Customers:
    """x: (row, feature), amounts as signed logarithms and words as indicators; y: 1 for a default; group: (row,)."""

    x: np.ndarray
    y: np.ndarray
    group: np.ndarray


def customers(data: Path) -> Customers:
    """The table of data/credit_default, in its order (Yeh and Lien 2009, Expert Systems with Applications 36(2)).

    The order is that of the customers' numbers: the table bears no date, and what drifts along it is not known. A group
    is a sex, an education and ten years of age.
    """
    with gzip.open(data / "credit_default" / "uci_credit_default.csv.gz", "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    columns = {name: np.array([float(row[name]) for row in rows]) for name in rows[0] if name != "ID"}
    parts = []
    for name, values in columns.items():
        if name in WORDS:
            parts += [(values == value).astype(float) for value in np.unique(values)]
        elif name.startswith(("LIMIT", "BILL", "PAY_AMT")):
            parts.append(np.sign(values) * np.log1p(np.abs(values)))
        elif name != "target":
            parts.append(values)
    education = np.minimum(np.maximum(columns["EDUCATION"], 1), 4)
    group = columns["SEX"] * 100 + education * 10 + np.minimum(columns["AGE"] // 10, 6)
    return Customers(np.column_stack(parts), columns["target"].astype(np.int64), group.astype(int))


def auc(y: np.ndarray, score: np.ndarray) -> float:
    """The share of pairs of a default and none that are in the right order, ties half; NaN without such a pair."""
    return float(roc_auc_score(y, score)) if 0 < y.sum() < len(y) else float("nan")


class Pools(Source):
    """Tasks from pools of customers by split: from 8 to 64 rows to learn from, and the 64 that follow them in the pool.

    in_order: support and query are neighbours, as in a stream; else they are drawn from the pool at random.
    """

    def __init__(self, rows: Customers, pools: dict[Split, list[np.ndarray]], in_order: bool):
        self.rows, self.pools, self.in_order = rows, pools, in_order
        known = rows.x[np.concatenate(pools["train"])]
        self.centre, self.spread = known.mean(0), known.std(0) + 1e-9

    @property
    def spec(self) -> Spec:
        return Spec("classification", (self.rows.x.shape[1],), way=2, train_classes=2)

    def scaled(self, index: np.ndarray) -> Tensor:
        """The features of customers as deviations from those of training."""
        return torch.from_numpy(((self.rows.x[index] - self.centre) / self.spread).clip(-6, 6)).float()

    def examples(self, index: np.ndarray, weight: Tensor | None = None) -> Examples:
        """Customers (task, n) with their outcomes."""
        y = torch.from_numpy(self.rows.y[index])
        return Examples(self.scaled(index), y, torch.ones(index.shape) if weight is None else weight)

    def sample(self, split: Split, tasks: int, rng: torch.Generator) -> Task:
        most, found = max(SHOTS), []
        for _ in range(tasks):
            pool = self.pools[split][int(torch.randint(len(self.pools[split]), (), generator=rng))]
            if self.in_order:
                start = int(torch.randint(len(pool) - most - ASKED + 1, (), generator=rng))
                found.append(pool[start : start + most + ASKED])
            else:
                found.append(pool[torch.randperm(len(pool), generator=rng).numpy()[: most + ASKED]])
        index = np.stack(found)
        shots = torch.randint(min(SHOTS), most + 1, (tasks, 1), generator=rng)
        weight = (torch.arange(most) >= most - shots).float()  # the nearest rows are those that are known
        return Task(self.examples(index[:, :most], weight), self.examples(index[:, most:]))

    def sample_pooled(self, split: Split, rows: int, rng: torch.Generator) -> Examples:
        pool = np.concatenate(self.pools[split])
        return self.examples(pool[torch.randint(len(pool), (1, rows), generator=rng).numpy()])


def said_by(learner: MetaLearner, source: Pools) -> Says:
    """A learner's scores: how much likelier a default is than none (a difference of logits)."""

    def says(support: np.ndarray, asked: np.ndarray) -> np.ndarray:
        found = []
        with evaluating(learner, 0):
            for part in np.array_split(np.arange(len(support)), max(1, len(support) // 25)):
                state = learner.adapt(source.examples(support[part]))
                logits = learner.predict(state, source.scaled(asked[part]))
                found.append(logits[..., 1] - logits[..., 0])
        return torch.cat(found).double().numpy()

    return says


def methods(source: Pools, steps: int, seed: int, sliding: bool) -> dict[str, Callable[[], Says]]:
    """By name, what makes a method ready. Learners keep their best weights on the valid pools."""
    rows, known = source.rows, np.concatenate(source.pools["train"])

    def pooled(model: Any) -> Callable[[], Says]:
        def ready() -> Says:
            model.fit(source.scaled(known).numpy(), rows.y[known])
            return lambda support, asked: model.decision_function(flat(asked)).reshape(asked.shape)

        return ready

    def flat(index: np.ndarray) -> np.ndarray:
        return source.scaled(index.flatten()).numpy()

    def slid(model: Any) -> Callable[[], Says]:
        def says(support: np.ndarray, asked: np.ndarray) -> np.ndarray:
            out, fitted = np.zeros(asked.shape), -STRIDE
            for task in range(len(asked)):
                first = int(asked[task, 0])
                if first - fitted >= STRIDE:  # only customers before those that are asked
                    window, fitted = np.arange(max(0, first - WINDOW), first), first
                    model.fit(flat(window), rows.y[window])
                out[task] = model.decision_function(flat(asked[task]))
            return out

        return lambda: says

    def alone() -> Says:
        def says(support: np.ndarray, asked: np.ndarray) -> np.ndarray:
            out = np.zeros(asked.shape)
            for task in range(len(asked)):
                if 0 < rows.y[support[task]].sum() < support.shape[1]:
                    model = LogisticRegression(C=0.1).fit(flat(support[task]), rows.y[support[task]])
                    out[task] = model.decision_function(flat(asked[task]))
            return out

        return says

    def learner(name: str) -> Callable[[], Says]:
        def ready() -> Says:
            if name == "tabular":
                return said_by(pretrained().learner.for_way(2), source)
            torch.manual_seed(seed)
            made = make(name, source.spec)
            every = max(1, steps // 6)
            options: dict[str, Any] = {"meta_batch": 8, "clip": 10.0, "valid_every": every, "valid_tasks": 100}
            train(made, source, steps=steps, seed=seed, progress=False, **options)
            return said_by(made, source)

        return ready

    boosting = lambda: HistGradientBoostingClassifier(max_iter=100, learning_rate=0.05, random_state=0)  # noqa: E731
    found: dict[str, Callable[[], Says]] = {
        "logistic regression": pooled(LogisticRegression(max_iter=500)),
        "gradient boosting": pooled(boosting()),
        "logistic regression, labelled rows alone": alone,
    }
    if sliding:
        found["gradient boosting, refitted on a sliding window"] = slid(boosting())
        found["logistic regression, refitted on a sliding window"] = slid(LogisticRegression(max_iter=500))
    return found | {name: learner(name) for name in LEARNERS}


def stream(rows: Customers, split: Split) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Support and asked customers of every task of the stream, and the unit of each: blocks of 64 one after another."""
    pool = stream_pools(rows)[split][0]
    starts = np.arange(max(SHOTS), len(pool) - ASKED + 1, ASKED)
    index = pool[starts[:, None] + np.arange(-max(SHOTS), ASKED)]
    return index[:, : max(SHOTS)], index[:, max(SHOTS) :], np.arange(len(starts))


def stream_pools(rows: Customers) -> dict[Split, list[np.ndarray]]:
    """The first 60 % of the customers to train on, 15 % to choose by, and the last quarter for the test."""
    n = len(rows.y)
    ends = (0, int(0.6 * n), int(0.75 * n), n)
    return {s: [np.arange(*ends[k : k + 2])] for k, s in enumerate(("train", "valid", "test"))}


def group_pools(rows: Customers, seed: int, least: int = SMALLEST) -> dict[Split, list[np.ndarray]]:
    """Groups dealt at random: half to train on, a sixth to choose by, a third for the test."""
    names, counts = np.unique(rows.group, return_counts=True)
    names = np.random.default_rng(seed).permutation(names[counts >= SMALLEST])
    ends = (0, len(names) // 2, 2 * len(names) // 3, len(names))
    return {
        split: [np.flatnonzero(rows.group == name) for name in names[ends[k] : ends[k + 1]]]
        for k, split in enumerate(("train", "valid", "test"))
    }


def groups(pools: list[np.ndarray], draws: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same for groups: `draws` tasks of each, its customers at random; the group is the unit."""
    rng = np.random.default_rng(seed)
    index = np.stack([rng.permutation(pool)[: max(SHOTS) + ASKED] for pool in pools for _ in range(draws)])
    return index[:, : max(SHOTS)], index[:, max(SHOTS) :], np.repeat(np.arange(len(pools)), draws)


def figures(rows: Customers, tasks: tuple[np.ndarray, np.ndarray, np.ndarray], says: Says) -> dict[str, Any]:
    """AUC by unit at each number of labelled rows: a mean over the unit's tasks that hold a default and none."""
    support, asked, unit = tasks
    found: dict[str, Any] = {}
    for shot in SHOTS:
        scores = says(support[:, -shot:], asked)
        each = np.array([auc(rows.y[a], s) for a, s in zip(asked, scores, strict=True)])
        found[str(shot)] = [float(np.nanmean(each[unit == u])) for u in np.unique(unit)]
    return found


def credit(kept: Callable[..., dict[str, Any]], data: Path, out: Path, short: bool, seed: int = 0) -> dict[str, Any]:
    """Both questions about credit: AUC with its interval over units, and the difference from the best plain method.

    Which plain method that is, is decided on the valid part, at 64 labelled rows.
    """
    rows = customers(data)
    steps, draws = (5, 2) if short else (400, 20)
    if short:
        rows = Customers(*(part[::8] for part in (rows.x, rows.y, rows.group // 10)))
    found: dict[str, Any] = {}
    for question in ("stream", "groups"):
        pools = stream_pools(rows) if question == "stream" else group_pools(rows, seed)
        source = Pools(rows, pools, question == "stream")
        asked: dict[str, tuple[np.ndarray, ...]] = {
            split: stream(rows, split) if question == "stream" else groups(pools[split], draws, seed)
            for split in ("valid", "test")
        }  # type: ignore[assignment]
        results = {
            name: kept(out / f"credit-{question}", name, lambda ready=ready, asked=asked: both(rows, asked, ready()))
            for name, ready in methods(source, steps, seed, question == "stream").items()
        }
        plain = [name for name in results if name not in LEARNERS]
        best = max(plain, key=lambda name: float(np.mean(results[name]["valid"]["64"])))
        found[question] = {
            "plain": best, "tasks": len(asked["test"][0]), "units": len(np.unique(asked["test"][2])),
            "rows": {
                name: {
                    "learner": name in LEARNERS, "seconds": row["seconds"],
                    "auc": {shot: _mean(np.array(values)) for shot, values in row["test"].items()},
                    "difference": None if name == best else {
                        shot: _mean(np.subtract(values, results[best]["test"][shot]))
                        for shot, values in row["test"].items()
                    },
                }
                for name, row in results.items()
            },
        }  # fmt: skip
    return found


def both(rows: Customers, asked: dict[str, tuple[np.ndarray, ...]], says: Says) -> dict[str, Any]:
    """The figures of a method on the valid and the test part."""
    return {split: figures(rows, tasks, says) for split, tasks in asked.items()}  # type: ignore[arg-type]


def _mean(values: np.ndarray) -> dict[str, float]:
    values = values[np.isfinite(values)]
    return {"mean": float(values.mean()), "interval": interval(values.tolist())}
