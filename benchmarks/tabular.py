"""The table learner with the shipped weights beside scikit-learn, on the small classification tables of PMLB.

    python benchmarks/tabular.py --parts runs/tabular   # 10 draws of every table; goes on where it was broken off
    python benchmarks/tabular.py --draws 1 --tables 5   # the short form; writes nothing

A task: 8, 16, 32 or 64 rows of a table with their labels, at random but for one row of every class; asked are the other
rows, at most 1,000 of them. All methods meet the same rows. No choice of the learner, its prior or its training was
made on these tables. Intervals are over tables: the draws of one are averaged first. Figures come out in
benchmarks/results/tabular.json.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from results import data_folder, machine, write
from scipy.stats import rankdata
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import quickstudy as qs
from quickstudy.checkpoint import Checkpoint
from quickstudy.pretrained import pretrained
from quickstudy.scores import interval

SHOTS = (8, 16, 32, 64)
ASKED = 1000
Method = Callable[[Checkpoint, np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def ours(trained: Checkpoint, x: np.ndarray, y: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Probabilities (row, class) of the table learner; a NaN is a missing cell."""
    rows, queries = (
        torch.stack([torch.from_numpy(np.nan_to_num(v, nan=0.0)), torch.from_numpy(~np.isnan(v))], 1).float()
        for v in (x, asked)
    )
    task = qs.adapt(trained, rows, [f"{label:03}" for label in y])
    return task.probabilities(queries).double().numpy()


def plain(make: Callable[[], Any], scaled: bool, trained: Checkpoint, x: np.ndarray, y: np.ndarray, asked: np.ndarray):
    """Probabilities (row, class) of a method of scikit-learn; a missing cell is the mean of its column."""
    steps = [SimpleImputer(keep_empty_features=True), *([StandardScaler()] if scaled else []), make()]
    return make_pipeline(*steps).fit(x, y).predict_proba(asked)


METHODS: dict[str, Method] = {
    "tabular": ours,
    "logistic regression": partial(plain, partial(LogisticRegression, max_iter=1000), True),
    "random forest": partial(plain, partial(RandomForestClassifier, random_state=0), False),
    "gradient boosting": partial(plain, partial(GradientBoostingClassifier, random_state=0), False),
    "5 nearest neighbours": partial(plain, KNeighborsClassifier, True),
}


def auc(y: np.ndarray, chances: np.ndarray) -> float:
    """The area under the curve of each class against the rest, averaged over the classes that are asked.

    Column c of `chances` is of class c.
    """
    found = [roc_auc_score(y == c, chances[:, c]) for c in range(chances.shape[1]) if 0 < (y == c).sum() < len(y)]
    return float(np.mean(found))


def read(name: str) -> tuple[np.ndarray, np.ndarray]:
    """The cells and the class numbers of one table."""
    with zipfile.ZipFile(data_folder() / "pmlb_small" / "pmlb_classification.zip") as archive:
        rows = list(csv.reader(io.StringIO(archive.read(f"{name}.csv").decode())))
    target = rows[0].index("target")
    values = np.array([[float(cell) if cell else np.nan for cell in row] for row in rows[1:]])
    return np.delete(values, target, 1), np.unique(values[:, target], return_inverse=True)[1]


def split(y: np.ndarray, shot: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of `shot` rows, one of every class and the rest at random, and of those that are asked."""
    order = rng.permutation(len(y))
    first = np.unique(y[order], return_index=True)[1]
    rest = np.setdiff1d(np.arange(len(y)), first)
    place = np.concatenate([first, rest])[:shot]
    others = np.setdiff1d(rest, place)
    return order[place], order[others][:ASKED]


def measure(name: str, draws: int, parts: Path | None) -> dict[str, Any]:
    """What every method scored on every draw of one table: {shot: {method: [auc, ...]}}, and the seconds it took."""
    torch.set_num_threads(1)
    trained, (x, y) = pretrained("tabular"), read(name)
    kept = parts and parts / f"{name} {draws} {trained.card['digest'][:8]}.json"
    if kept and kept.exists():
        return json.loads(kept.read_text())
    scores: dict[str, dict[str, list[float]]] = {}
    seconds: dict[str, list[float]] = {method: [] for method in METHODS}
    for shot in SHOTS:
        if y.max() + 1 > shot or len(y) < 2 * shot:
            continue
        scores[str(shot)] = {method: [] for method in METHODS}
        for number in range(draws):
            rng = np.random.default_rng([number, shot, *name.encode()])
            rows, asked = split(y, shot, rng)
            for method, run in METHODS.items():
                begin = time.perf_counter()
                chances = run(trained, x[rows], y[rows], x[asked])
                seconds[method].append(time.perf_counter() - begin)
                scores[str(shot)][method].append(auc(y[asked], chances))
    facts = {"table": name, "classes": int(y.max()) + 1, "columns": x.shape[1]}
    took = {method: float(np.median(spent)) for method, spent in seconds.items()}
    found = {**facts, "scores": scores, "seconds": took}
    if kept:
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(found))
    return found


def paired(ours: np.ndarray, theirs: np.ndarray) -> dict[str, float]:
    """Their mean, and how far ours is ahead with a 95 % interval, both over tables."""
    ahead = ours - theirs
    half = interval(ahead.tolist())
    return {"auc": float(theirs.mean()), "ahead": float(ahead.mean()), "interval": half}


def summary(found: list[dict[str, Any]]) -> dict[str, Any]:
    """{shot: {tables, tasks, methods: {method: mean AUC, mean rank, how far ours is ahead}}}"""
    rows: dict[str, Any] = {}
    for shot in map(str, SHOTS):
        met = [one["scores"][shot] for one in found if shot in one["scores"]]
        if len(met) < 2:
            continue
        means = {method: np.array([np.mean(one[method]) for one in met]) for method in METHODS}
        every = np.concatenate([np.array([one[method] for method in METHODS]).T for one in met])
        ranks = rankdata(-every, axis=1).mean(0)
        methods = {
            method: {**paired(means["tabular"], means[method]), "rank": float(rank)}
            for method, rank in zip(METHODS, ranks, strict=True)
        }
        rows[shot] = {"tables": len(met), "tasks": len(every), "methods": methods}
    return rows


def section() -> str:
    """The Markdown of these figures; "" if there are none."""
    from tables import read as result
    from tables import table

    found = result("tabular")
    if not found:
        return ""
    parts = ["## Small tables: the shipped table learner", ""]
    for shot, row in found["rows"].items():
        lines = []
        for method, score in row["methods"].items():
            ahead = "" if method == "tabular" else f"{100 * score['ahead']:+.1f} ± {100 * score['interval']:.1f}"
            lines.append([method, f"{100 * score['auc']:.1f}", f"{score['rank']:.2f}", ahead])
        parts += [f"{shot} labelled rows ({row['tasks']} tasks of {row['tables']} tables):", ""]
        parts += [table(["method", "AUC in %", "mean rank", "tabular is ahead by"], lines), ""]
    missed = [
        f"{method} at {shot} rows"
        for shot in ("16", "32")
        for method, score in found["rows"].get(shot, {"methods": {}})["methods"].items()
        if method != "tabular" and score["ahead"] <= 0
    ]
    took = ", ".join(f"{method} {value:.0f}" for method, value in found["milliseconds"].items())
    mark = f"missed: not ahead of {', '.join(missed)}" if missed else "met"
    parts += [
        "PMLB, one table of every family of near-duplicates; AUC of one class against the rest, averaged over classes, "
        f"{found['draws']} draws of each table, at most {ASKED:,} rows asked; intervals (95 %) over tables, with the "
        "draws of each averaged. Methods of scikit-learn with their defaults (columns scaled for the first and last). "
        "Tables of fewer than twice the labelled rows, or of more classes than these, are left out. "
        "Neither the prior, nor the training, nor the choice of the weights saw one of these tables. The mark, ahead "
        f"of each on average at 16 and 32 rows: {mark}. Milliseconds a task, learning and asking, the median: {took}, "
        f"on {found['hardware']}, one thread each of two processes, with other work on the machine. "
        "`python benchmarks/tabular.py`",
    ]
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--tables", type=int, help="the first so many tables alone; nothing is written")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--parts", type=Path, help="a folder that keeps what is done of every table")
    given = parser.parse_args()
    index = data_folder() / "pmlb_small" / "index_classification.csv"
    names = [row["dataset"] for row in csv.DictReader(index.read_text().splitlines())][: given.tables]
    found = []
    with ProcessPoolExecutor(given.processes) as pool:
        for one in pool.map(partial(measure, draws=given.draws, parts=given.parts), names):
            found.append(one)
            print(f"{len(found)} of {len(names)}: {one['table']}", flush=True)
    rows = summary(found)
    for shot, row in rows.items():
        print(shot, row["tables"], "tables", row["tasks"], "tasks")
        for method, score in row["methods"].items():
            print(f"  {method:22} AUC {score['auc']:.4f} rank {score['rank']:.2f} ahead {score['ahead']:+.4f} "
                  f"± {score['interval']:.4f}")  # fmt: skip
    took = {method: 1000 * float(np.median([one["seconds"][method] for one in found])) for method in METHODS}
    print({method: round(value, 1) for method, value in took.items()})
    if given.tables is None:
        digest = pretrained("tabular").card["digest"]
        write("tabular", {"draws": given.draws, "weights": digest, "rows": rows, "milliseconds": took,
                          "tables": found, **machine()})  # fmt: skip


if __name__ == "__main__":
    main()
