"""Heart disease at a hospital that is new: 0, 8, 16 or 32 of its patients are labelled, and three others' are known.

Each of the four hospitals is the new one in turn; nothing is chosen on it: steps and options stand below.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from healthcare_rows import Pairs, area, benchmark, kept
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import quickstudy as qs
from quickstudy.checkpoint import Checkpoint
from quickstudy.learners import make
from quickstudy.pretrained import pretrained
from quickstudy.tasks.sheet import numbers, read_sheet
from quickstudy.tasks.table import Table
from quickstudy.train import train

HOSPITALS = ("cleveland", "hungarian", "switzerland", "va")
SHOTS = (0, 8, 16, 32)
OTHERS = 64
"""Patients of the other hospitals that `tabular` reads beside those of the new one: it was made for small tables."""
IMPOSSIBLE = {"chol": 0.0, "trestbps": 0.0}
"""Values that stand for a missing one in these files: nobody has no cholesterol and no blood pressure."""
META = {"protonet": "ProtoNet", "anil": "ANIL"}
OPTIONS: dict[str, dict[str, Any]] = {"anil": {"inner_lr": 0.1, "inner_steps": 5}}
PLAIN = {
    "logistic": partial(LogisticRegression, max_iter=1000),
    "boosting": partial(GradientBoostingClassifier, random_state=0),
    "forest": partial(RandomForestClassifier, random_state=0),
}
TITLES = {
    "logistic_pooled": "logistic regression, three hospitals and the labelled",
    "boosting_pooled": "gradient boosting, three hospitals and the labelled",
    "forest_pooled": "random forest, three hospitals and the labelled",
    "logistic_alone": "logistic regression, the labelled alone",
    "boosting_alone": "gradient boosting, the labelled alone",
    "forest_alone": "random forest, the labelled alone",
    "tabular_alone": "`tabular` as shipped, the labelled alone",
    "tabular_others": f"`tabular` as shipped, the labelled and {OTHERS} of the three hospitals",
    **{key: f"{title}, trained on the three hospitals" for key, title in META.items()},
}


@dataclass(frozen=True)
class Ward:
    """A new hospital: its patients as the table source encodes them, and as cells (NaN where one is missing), and the
    same of the other hospitals. y: 1 for the ill."""

    source: Table
    x: np.ndarray
    y: np.ndarray
    cells: np.ndarray
    others_x: np.ndarray
    others_y: np.ndarray
    others_cells: np.ndarray


def cleaned(data: Path, out: Path) -> Path:
    """The patients as a table; what cannot be is left empty."""
    with open(data / "heart_disease_4sites" / "heart_4sites.csv", newline="") as file:
        lines = list(csv.reader(file))
    header, rows = lines[0], lines[1:]
    for row in rows:
        for i, name in enumerate(header):
            if name != "site" and row[i]:
                row[i] = "" if IMPOSSIBLE.get(name) == float(row[i]) else f"{float(row[i]):g}"
    rows.sort(key=lambda row: row[0])
    out.mkdir(parents=True, exist_ok=True)
    with open(out / "hearts.csv", "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return out / "hearts.csv"


def ward(path: Path, hospital: str) -> Ward:
    """The table source fits means, categories and indicators to the three other hospitals."""
    words = "cp,restecg,slope,thal"
    held: dict[str, Any] = {"valid_fraction": 0.0, "test_tasks": hospital}
    source = Table(
        str(path), "site", "target", "4-32", 32, "classification", categorical=words, ignore="num", **held
    )
    rows, sheet = source.prepare(), read_sheet(str(path))
    number = rows.names.index(hospital)
    mine = np.zeros(len(rows.x), bool)
    mine[int(rows.start[number]) : int(rows.start[number] + rows.count[number])] = True
    columns = [numbers(sheet, name) for name in sheet.columns if name not in ("site", "num", "target")]
    # the file is in the order of the hospitals, as the rows of the source are
    cells = np.stack([column for column in columns if column is not None], 1)
    x, y = rows.x.double().numpy(), rows.y.numpy()
    return Ward(source, x[mine], y[mine], cells[mine], x[~mine], y[~mine], cells[~mine])


def plain(name: str, pooled: bool, at: Ward, rows: np.ndarray, asked: np.ndarray, seed: int) -> np.ndarray:
    x, y = at.x[rows], at.y[rows]
    if pooled:
        x, y = np.concatenate([at.others_x, x]), np.concatenate([at.others_y, y])
    return make_pipeline(StandardScaler(), PLAIN[name]()).fit(x, y).predict_proba(at.x[asked])[:, 1]


def tabular(others: int, shipped: Checkpoint, at: Ward, rows: np.ndarray, asked: np.ndarray, seed: int) -> np.ndarray:
    more = np.random.default_rng([seed, len(rows)]).permutation(len(at.others_y))[:others]
    cells = np.concatenate([at.others_cells[more], at.cells[rows]])
    y = np.concatenate([at.others_y[more], at.y[rows]])
    return benchmark("tabular").ours(shipped, cells, y, at.cells[asked])[:, 1]


def adapted(learner: Checkpoint, at: Ward, rows: np.ndarray, asked: np.ndarray, seed: int) -> np.ndarray:
    x, new = (torch.from_numpy(at.x[which]).float() for which in (rows, asked))
    return qs.adapt(learner, x, [str(label) for label in at.y[rows]]).probabilities(new)[:, 1].double().numpy()


def method(key: str, at: Ward, steps: int) -> Callable[..., np.ndarray]:
    """What turns labelled patients (numbers in the ward) into scores of those asked; trained first where it must be."""
    name, _, how = key.partition("_")
    if name in PLAIN:
        return partial(plain, name, how == "pooled")
    if name == "tabular":
        return partial(tabular, OTHERS if how == "others" else 0, pretrained("tabular"))
    torch.manual_seed(0)
    learner = make(name, at.source.spec, **OPTIONS.get(name, {}))
    train(learner, at.source, steps=steps, meta_batch=8, valid_every=0, progress=False)
    return partial(adapted, Checkpoint(learner, {}))


def measure(path: Path, hospital: str, key: str, draws: int, steps: int) -> dict[str, Any]:
    """By number of labelled patients what `Pairs` gives; all methods meet the same draws."""
    at, found = ward(path, hospital), {}
    run, split = method(key, at, steps), benchmark("tabular").split
    for shot in SHOTS:
        if shot == 0 and not key.endswith(("pooled", "others")):
            continue
        pairs, everyone = Pairs(at.y), np.arange(len(at.y))
        for number in range(draws if shot else draws if key == "tabular_others" else 1):
            rng = np.random.default_rng([number, shot, *hospital.encode()])
            rows, asked = split(at.y, shot, rng) if shot else (everyone[:0], everyone)
            pairs.add(asked, run(at, rows, asked, number))
        found[str(shot)] = pairs.means()
    return found


def hospitals(data: Path, out: Path, short: bool = False) -> dict[str, Any]:
    """The figures of all methods at each number of labelled patients."""
    draws, steps = (2, 5) if short else (50, 1000)
    path = cleaned(data, out)
    keys = [key for key in TITLES if not short or key in ("logistic_pooled", "tabular_alone", "protonet")]
    found = {
        key: [
            kept(out, f"{key}-{name}-{draws}-{steps}", partial(measure, path, name, key, draws, steps))
            for name in HOSPITALS
        ]
        for key in keys
    }
    rows: dict[str, Any] = {key: {} for key in found}
    best: dict[str, str] = {}
    for shot in map(str, SHOTS):
        at = {key: [one[shot] for one in of] for key, of in found.items() if shot in of[0]}
        usual = [key for key in at if key.endswith(("pooled", "alone")) and not key.startswith("tabular")]
        best[shot] = max(usual, key=lambda key: area(at[key])["mean"])
        for key, of in at.items():
            one = {"auc": area(of), "difference": area(of, at[best[shot]])}
            rows[key][shot] = one | {"hospitals": {n: area([m]) for n, m in zip(HOSPITALS, of, strict=True)}}
            gaps = {n: area([m], [b]) for n, m, b in zip(HOSPITALS, of, at[best[shot]], strict=True)}
            rows[key][shot]["ahead"] = gaps
    patients = {name: len(ward(path, name).y) for name in HOSPITALS}
    return {"draws": draws, "steps": steps, "patients": patients, "best": best, "titles": TITLES, "rows": rows}
