"""Thresholds that hold without any assumption on the learner: conformal prediction where tasks are exchangeable.

A row's score says how little its true answer fits the prediction. Scores come from rows of many held-out tasks; a new
task is one more of them, whatever its rows are like among themselves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import bdtr

LEVELS = tuple(percent / 100 for percent in range(50, 100))
"""The levels that thresholds are kept for."""


def row_threshold(scores: Sequence[np.ndarray], level: float) -> float:
    """The threshold under which the score of a row of a new task lies with probability of at least `level`.

    The `level` quantile of the K tasks' scores, those of a task sharing its weight 1 / (K + 1) and the last 1 / (K + 1)
    lying at infinity: exact for a row of a new task exchangeable with these (two-layer conformal prediction, Dunn,
    Wasserman and Ramdas, arXiv 1809.07441; Lee, Barber and Willett, arXiv 2306.06342). Infinite for too few tasks.

    >>> row_threshold([np.array([0.1, 0.2]), np.array([0.3, 0.4]), np.array([0.5, 0.6])], 0.5)
    0.4
    >>> row_threshold([np.array([0.1, 0.2])], 0.9)
    inf
    """
    kept = [one for one in scores if len(one)]
    if not kept:
        return math.inf
    share = np.concatenate([np.full(len(one), 1 / len(one)) for one in kept])
    values = np.concatenate(kept)
    order = values.argsort(kind="stable")
    reached = share[order].cumsum()
    # sums of shares: what is equal but for rounding is equal
    place = int(np.searchsorted(reached, level * (len(kept) + 1) - 1e-9))
    return float(values[order[place]]) if place < len(values) else math.inf


def task_threshold(scores: Sequence[np.ndarray], level: float, sure: float) -> float:
    """The threshold under which, with probability of at least `sure` over tasks, at least `level` of a new task's rows
    score: the ceil(sure (K + 1))-th smallest of the K tasks' own ceil(level n)-th smallest scores.

    It holds for as many rows as these tasks have. Infinite for too few tasks. The promise for tasks rather than rows
    is that of Fisch and others (arXiv 2102.08898); their predictor of a task's own quantile is left out.

    >>> task_threshold([np.arange(1, 11) + k for k in range(9)], 0.9, 0.5)
    13.0
    """
    own = sorted(float(np.sort(one)[math.ceil(level * len(one) - 1e-9) - 1]) for one in scores if len(one))
    place = math.ceil(sure * (len(own) + 1) - 1e-9)
    return own[place - 1] if 1 <= place <= len(own) else math.inf


def below_by_chance(rows: Sequence[int], covered: float, level: float) -> float:
    """The share of tasks with fewer than `level` of their rows covered, were every row covered with probability
    `covered`: what chance alone gives with so few rows.

    >>> round(below_by_chance([10, 10], 0.9, 0.9), 3)
    0.264
    """
    counts, times = np.unique(np.asarray(rows), return_counts=True)
    most = np.ceil(level * counts - 1e-9) - 1
    return float((bdtr(most, counts, covered) * times).sum() / times.sum())
