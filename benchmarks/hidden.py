"""Learning curves whose larger numbers of examples are hidden from the forecast: the job of benchmarks/forecasts.py."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from results import data_folder

from quickstudy.benchmark import step_seconds
from quickstudy.core.learner import MetaLearner
from quickstudy.core.source import Source
from quickstudy.learners import make
from quickstudy.questions.forecast import power_law
from quickstudy.questions.shots import ShotScores, shot_scores
from quickstudy.questions.units import Units
from quickstudy.tasks import Glyphs, Harmonics, Intents, Mixture, Omniglot, Sinusoid
from quickstudy.tasks.pool import ClassSource, Pool
from quickstudy.train import train

FIT_TASKS, TRUE_TASKS = 200, 300
FAMILIES = ("CBF", "Chinatown", "ECG200", "ECG5000", "ECGFiveDays", "Fish", "ItalyPowerDemand", "OSULeaf", "PowerCons",
            "ProximalPhalanxTW", "SmoothSubspace", "SyntheticControl", "Trace", "TwoLeadECG", "Adiac")  # fmt: skip
"""UCR sets of unrelated series, the first of which that are there and large enough are taken."""


class Problem(ClassSource):
    """One table as a learning problem: every task has all its classes, and rows of its own for support and query."""

    imbalance = 0.0
    scheme = "fixed"

    def __init__(self, x: np.ndarray, y: np.ndarray, shot: int = 1, query: int = 5):
        self.x = x
        self.y = y
        self.way = len(np.unique(y))
        self.shot = shot
        self.query = query

    def load(self) -> Pool:
        names, label = np.unique(self.y, return_inverse=True)
        every = torch.arange(len(names))
        x, y = torch.from_numpy(self.x.astype(np.float32)), torch.from_numpy(label.reshape(-1))
        return Pool.of(x, y, [str(n) for n in names], {"train": every, "valid": every, "test": every})


@dataclass(frozen=True)
class Hidden:
    """A curve: which part of it is fitted, and which is hidden. seconds: of training; trained: the tasks of training,
    where they differ."""

    data: str
    name: str
    learner: str
    make: Callable[[], Source]
    fit: tuple[int, ...] = (1, 2, 3, 5)
    hidden: tuple[int, ...] = (10, 20)
    seconds: float = 3.0
    trained: Callable[[], Source] | None = None


class Curves:
    """One curve after another; what is in the folder is not worked out again."""

    def __init__(self, development: bool, folder: str):
        self.development = development
        self.folder = folder

    def __call__(self, number: int) -> dict[str, Any]:
        place = Path(self.folder) / f"{number}.json"
        if place.exists():
            return json.loads(place.read_text())
        found = measured(curves(self.development)[number])
        place.write_text(json.dumps(found))
        return found


def measured(curve: Hidden) -> dict[str, Any]:
    """The scores to fit, over tasks of seed 0, and the hidden truth, over others of the same classes (seed 1)."""
    source = curve.make()
    learner = trained(curve, (curve.trained or curve.make)())
    fit = shot_scores(learner, source, curve.fit, FIT_TASKS, 0, name=curve.learner)
    # three numbers at least are measured at once: the largest of those fitted is among them, and not used
    true = shot_scores(learner, source, (curve.fit[-1], *curve.hidden), TRUE_TASKS, 1, name=curve.learner)
    return {
        "data": curve.data, "name": curve.name, "learner": curve.learner, "measure": fit.measure, "sign": fit.sign,
        "shots": fit.shots, "values": fit.values.tolist(), "hidden": true.shots[1:],
        "true": true.errors[:, 1:].mean(0).tolist(),
        "noise": (true.errors[:, 1:].std(0, ddof=1) / TRUE_TASKS**0.5).tolist(),
    }  # fmt: skip


def trained(curve: Hidden, source: Source) -> MetaLearner:
    """The learner, trained for the curve's seconds if it can be."""
    torch.manual_seed(0)
    learner = make(curve.learner, source.spec)
    if learner.trained:
        options: dict[str, Any] = {"seed": 0, "progress": False, "clip": 10.0}
        steps = max(1, int(curve.seconds / step_seconds(learner, source, curve.seconds, options)))
        train(learner, source, steps=steps, valid_every=0, **options)
    return learner


def judged(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The forecast at each hidden number beside the truth and the plain power law.

    The interval is one over tasks (the truth is of the same classes), and holds the noise of the measured truth.
    """
    values = np.array(row["values"])
    facts = row["learner"], row["name"], "test", 0, "class", row["measure"], row["sign"], row["shots"]
    scores = ShotScores(*facts, values, Units("task"))
    found, plain = scores.forecast(), power_law(scores.shots, scores.errors.mean(0))
    made = []
    for n, true, noise in zip(row["hidden"], row["true"], row["noise"], strict=True):
        middle, low, high = (float(part[0]) for part in found.interval([n], noise=noise))
        made.append({
            "times": n / scores.shots[-1], "true": true, "forecast": middle, "low": low, "high": high,
            "inside": bool(low <= true <= high), "power": plain(n), "misfit": found.misfit,
            "last": float(scores.errors[:, -1].mean()),
        })  # fmt: skip
    return made


def curves(development: bool) -> list[Hidden]:
    """All curves, or others to choose the forecast's two constants on."""
    data = data_folder()
    if development:
        return [
            *(Hidden("glyphs", f"glyphs {way}-way", name, lambda way=way: Glyphs(way, 1, 5, drawings=30))
              for way in (5, 10) for name in ("centroid", "logistic")),
            *(Hidden("functions", type(make()).__name__, name, make, (2, 3, 5, 10), (20, 40), 3.0, late)
              for make, late in ((Harmonics, lambda: Harmonics("2-40")), (Mixture, lambda: Mixture("2-40")))
              for name in ("alpaca", "r2d2", "cnp", "chance", "ridge")),
        ]  # fmt: skip
    found = [
        Hidden("Omniglot", f"Omniglot {way}-way", name, lambda way=way: omniglot(way), hidden=(10, 15), seconds=20.0)
        for way, name in ((5, "centroid"), (5, "logistic"), (5, "protonet"), (5, "r2d2"), (20, "centroid"))
    ]
    for data_set in ("clinc150", "hwu64"):
        path = str(data / "intents" / f"{data_set}.tsv")
        named = {"clinc150": "CLINC150", "hwu64": "HWU64"}[data_set]
        found += [
            Hidden(named, f"{named} {way}-way", name, lambda way=way, path=path: Intents(path, way, 1, 5))
            for way in (5, 10) for name in ("centroid", "logistic", "protonet", "r2d2")
        ]  # fmt: skip
    for number, (name, x, y) in enumerate(series(data / "ucr_small" / "ucr_small.npz", 10)):
        found.append(Hidden("UCR", name, ("logistic", "centroid")[number % 2], lambda x=x, y=y: Problem(x, y)))
    for name, x, y in tables(data / "pmlb_small" / "pmlb_classification.zip", 10):
        found.append(Hidden("PMLB", name, "logistic", lambda x=x, y=y: Problem(x, y), (1, 2, 5, 10), (20, 40)))
    found += [
        Hidden("sinusoids", "sinusoid", name, lambda: Sinusoid(5, 20), (2, 3, 5, 10), (20, 40), 4.0,
               lambda: Sinusoid("2-40", 20))
        for name in ("chance", "ridge", "alpaca", "r2d2", "cnp")
    ]  # fmt: skip
    # in turn, so that a run that was broken off has some of each
    names = list(dict.fromkeys(curve.data for curve in found))
    each = [[curve for curve in found if curve.data == name] for name in names]
    return [curve for row in zip_longest(*each) for curve in row if curve is not None]


def omniglot(way: int) -> Source:
    return Omniglot(str(data_folder() / "omniglot" / "omniglot28.npz"), way, 1, 5)


def series(path: Path, most: int) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """UCR sets, each with the classes of at least 26 rows, series resampled to 64 points of mean 0 and deviation 1."""
    found = []
    with np.load(path) as file:
        for name in FAMILIES:
            if f"{name}__X" not in file:
                continue
            x, y = enough(np.nan_to_num(file[f"{name}__X"]), file[f"{name}__y"], 26)
            if len(np.unique(y)) < 2:
                continue
            at = np.linspace(0, x.shape[1] - 1, 64)
            x = np.stack([np.interp(at, np.arange(x.shape[1]), row) for row in x])
            deviation = x.std(1, keepdims=True)
            found.append((name, (x - x.mean(1, keepdims=True)) / np.where(deviation > 0, deviation, 1), y))
    return found[:most]


def tables(path: Path, most: int) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """PMLB tables with two classes or more of at least 46 rows, columns of mean 0 and deviation 1, in order of name."""
    found: list[tuple[str, np.ndarray, np.ndarray]] = []
    with zipfile.ZipFile(path) as archive:
        for name in sorted(archive.namelist()):
            if len(found) == most or not name.endswith((".tsv.gz", ".tsv", ".csv")):
                continue
            text = archive.read(name)
            text = gzip.decompress(text) if name.endswith(".gz") else text
            delimiter = "," if name.endswith(".csv") else "\t"
            rows = list(csv.reader(io.StringIO(text.decode()), delimiter=delimiter))
            target = rows[0].index("target")
            numbers = np.array([[float(v) if v else 0.0 for v in row] for row in rows[1:]])
            x, y = enough(np.delete(numbers, target, 1), numbers[:, target], 46)
            if 2 <= len(np.unique(y)) <= 10 and x.shape[1] <= 60:
                deviation = x.std(0)
                x = (x - x.mean(0)) / np.where(deviation > 0, deviation, 1)
                found.append((Path(name).name.split(".")[0], x, y))
    return found


def enough(x: np.ndarray, y: np.ndarray, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows of the classes that have so many."""
    names, counts = np.unique(y, return_counts=True)
    kept = np.isin(y, names[counts >= rows])
    return x[kept], y[kept]
