"""What the parts of healthcare.py share: rows that are kept while it runs, and intervals that count patients."""

from __future__ import annotations

import importlib
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from scipy.special import ndtri, stdtrit

from quickstudy.core.files import write_whole
from quickstudy.core.learner import MetaLearner
from quickstudy.core.source import Split
from quickstudy.evaluate import BLOCK, draw_block, evaluating, ready
from quickstudy.tasks.pool import ClassSource

ROOT = Path(__file__).resolve().parents[1]
KEPT = ".row.json"
Score = dict[str, float]
"""A mean and half its 95 % interval."""


def benchmark(name: str) -> ModuleType:
    """A script of benchmarks/, of which a part is used here."""
    folder = str(ROOT / "benchmarks")
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module(name)


def kept(folder: Path, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `make` gives; made once and kept in the folder, so that a run that was broken off goes on."""
    path = folder / f"{name}{KEPT}"
    if path.exists():
        return json.loads(path.read_text())["found"]
    begin = time.process_time()
    found = make()
    seconds = round(time.process_time() - begin, 1)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps({"found": found, "seconds": seconds}).encode())
    print(f"{folder.name}: {name} after {seconds:g} seconds", flush=True)
    return found


def spent(folder: Path) -> float:
    """Seconds of processor time that made what is kept in a folder."""
    return sum(json.loads(path.read_text())["seconds"] for path in folder.glob(f"*{KEPT}"))


class Hits:
    """Which answers to the tasks of an evaluation are right, by task and by the row that was asked.

    rows, labels: (task, n), the number of each row that is asked and that of its class, over all of a source.
    """

    def __init__(self, source: ClassSource, split: Split, tasks: int, seed: int):
        self.source, self.tasks, self.seed = source, tasks, seed
        self.split: Split = split
        parts = []
        for index in range(math.ceil(tasks / BLOCK)):
            drawn = source.draw(split, min(BLOCK, tasks - index * BLOCK), source.rng(seed, split, "evaluate", index))
            parts.append((drawn.query_rows, drawn.classes.gather(1, drawn.query_y)))
        self.rows, self.labels = (torch.cat(part).numpy() for part in zip(*parts, strict=True))

    def of(self, answer: Callable[..., torch.Tensor]) -> list[str]:
        """For each task its answers as 1 (right) and 0: `answer` turns a batch of tasks into classes (task, n)."""
        found = []
        for index in range(math.ceil(self.tasks / BLOCK)):
            block = draw_block(self.source, self.split, self.tasks, self.seed, index)
            right = answer(block, index) == block.query.y
            found += ["".join("01"[int(hit)] for hit in row) for row in right]
        return found

    def by(self, learner: MetaLearner) -> list[str]:
        """The same, of a learner that adapts to every task."""
        fitting = ready(learner, self.source)

        def answer(block: Any, index: int) -> torch.Tensor:
            with evaluating(fitting, self.seed + index):
                state = fitting.adapt(block.support)
                return fitting.predict(state, block.query.x, block.query.weight).argmax(-1)

        return self.of(answer)

    def score(self, hits: Sequence[str], against: Sequence[str] | None = None, only: np.ndarray | None = None) -> Score:
        """The accuracy, or the difference of two, with its interval; only: (task,) those that count."""
        values = digits(hits) - (digits(against) if against is not None else 0)
        chosen = np.ones(len(values), bool) if only is None else only
        return crossed(values[chosen], self.rows[chosen], self.labels[chosen])


def digits(hits: Sequence[str]) -> np.ndarray:
    return np.array([[int(hit) for hit in row] for row in hits], dtype=float)


def crossed(values: np.ndarray, rows: np.ndarray, strata: np.ndarray) -> Score:
    """The mean of values (task, n), with an interval in which both tasks and rows are drawn at random.

    A row that is asked in many tasks is counted as one. With r = value - mean of its stratum, T_t and R_i the sums of r
    over a task and over a row, the variance is that of two-way clusters (Cameron, Gelbach and Miller 2011, J. Business
    and Economic Statistics 29(2)): (a sum T_t^2 + b sum R_i^2 - sum r^2) / N^2, a and b = G / (G - 1) of G clusters; it
    is never taken to be below either of the first two. What rows are learnt from in several tasks is not counted.
    """
    left = values.astype(float)
    for stratum in np.unique(strata):
        left = left - np.where(strata == stratum, values[strata == stratum].mean(), 0.0)
    tasks, (_, owner) = len(values), np.unique(rows, return_inverse=True)
    by_row = np.bincount(owner.reshape(-1), left.reshape(-1))
    a = tasks / max(tasks - 1, 1) * np.square(left.sum(1)).sum()
    b = len(by_row) / max(len(by_row) - 1, 1) * np.square(by_row).sum()
    variance = max(a + b - np.square(left).sum(), a, b) / left.size**2
    degrees = max(min(tasks, len(by_row)) - 1, 1)
    return {"mean": float(values.mean()), "interval": float(stdtrit(degrees, 0.975) * math.sqrt(variance))}


class Pairs:
    """The area under the curve of one hospital, averaged over draws of the labelled patients.

    P[i, j] is the share of draws, of those in which ill patient i and healthy patient j are both asked, in which i has
    the higher score (a half for equal ones). The area is the mean of P; its variance over patients is that of DeLong
    and others (1988, Biometrics 44(3)): var_i(mean_j P) / ill + var_j(mean_i P) / healthy, and that of a difference of
    two methods follows from the differences of these means. Scores averaged over draws are not taken: each draw stands.
    """

    def __init__(self, y: np.ndarray):
        self.ill, self.healthy = (y == 1).nonzero()[0], (y == 0).nonzero()[0]
        self.wins = np.zeros((len(self.ill), len(self.healthy)))
        self.met = np.zeros_like(self.wins)

    def add(self, asked: np.ndarray, scores: np.ndarray) -> None:
        """One draw: the numbers of the patients asked, and the score of each."""
        every = np.full(len(self.ill) + len(self.healthy), np.nan)
        every[asked] = scores
        gap = every[self.ill][:, None] - every[self.healthy]
        there = ~np.isnan(gap)
        self.met += there
        self.wins += np.where(there, 0.5 + 0.5 * np.sign(np.nan_to_num(gap)), 0.0)

    def means(self) -> dict[str, list[float]]:
        """The mean of P over its columns, for every ill patient, and over its rows, for every healthy one.

        Patients that were asked in no draw are left out of a short run by the mean of the others.
        """
        with np.errstate(invalid="ignore"):
            share = np.where(self.met > 0, self.wins / self.met, np.nan)
        share = np.where(np.isnan(share), np.nanmean(share), share)
        return {"ill": share.mean(1).round(6).tolist(), "healthy": share.mean(0).round(6).tolist()}


def area(hospitals: Sequence[dict[str, list[float]]], against: Sequence[dict[str, list[float]]] | None = None) -> Score:
    """The mean over hospitals of what `Pairs.means` gave, or its difference; hospitals are fixed, patients drawn."""
    means, variances = [], []
    for number, one in enumerate(hospitals):
        parts = [np.array(one[side]) for side in ("ill", "healthy")]
        if against is not None:
            parts = [part - np.array(against[number][side]) for part, side in zip(parts, one, strict=True)]
        means.append(parts[0].mean())
        variances.append(sum(part.var(ddof=1) / len(part) for part in parts))
    half = ndtri(0.975) * math.sqrt(sum(variances)) / len(means)
    return {"mean": float(np.mean(means)), "interval": float(half)}
