"""What held-out tasks of one way and shot teach of a learner: a temperature, and thresholds for sets."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

from quickstudy.core.errors import UserError
from quickstudy.questions.answers import Answers
from quickstudy.questions.conformal import LEVELS, row_threshold, task_threshold

WIDEST = 7.0
"""Temperatures are looked for between exp(-WIDEST) and exp(WIDEST)."""
FLOOR = 0.1
"""Part of the typical error that is added to a task's own, which a handful of rows may show as 0 by chance."""


@dataclass(frozen=True)
class Setting:
    """What was learnt from tasks of one way and shot (the smallest and the largest, each).

    temperature: what logits are divided by; for regression what deviations are multiplied by.
    typical: for a learner that says no deviation, the median error on left out support rows, in the unit of y.
    rows, by_task: the thresholds of scores at each level of `conformal.LEVELS`, infinite where tasks are too few.
    """

    way: tuple[int, int]
    shot: tuple[int, int]
    tasks: int
    temperature: float
    typical: float | None
    rows: list[float]
    by_task: list[float]

    def threshold(self, level: float, by_task: bool = False) -> float:
        """The threshold at a level, the next whole per cent above.

        Raises UserError for a level that none is kept for.
        """
        place = math.ceil(100 * level - 1e-9) - round(100 * LEVELS[0])
        if not 0 <= place < len(LEVELS):
            raise UserError(f"the coverage asked for is {level}: give a share from 0.5 to 0.99.")
        return (self.by_task if by_task else self.rows)[place]

    def deviation(self, found: np.ndarray) -> np.ndarray:
        """The deviations to go by: those of `Answers`, calibrated."""
        if self.typical is not None:
            found = np.where(np.isnan(found), self.typical, found) + FLOOR * self.typical
        return self.temperature * np.maximum(found, 1e-12)

    def scores(self, found: Answers) -> np.ndarray:
        """How little the truth fits, (task, n): 1 - p(y), or the largest |y - mean| / deviation of a row's targets."""
        if found.deviation is None:
            odds = found.probabilities(self.temperature)
            return 1 - np.take_along_axis(odds, found.y[..., None], -1)[..., 0]
        return (np.abs(found.y - found.out) / self.deviation(found.deviation)).max(-1)

    def away(self, way: int, shot: float) -> tuple[float, float]:
        """How far a task of that way and shot is from those it was learnt from; (0, 0) for one like them."""
        return _outside(way, self.way), _outside(shot, self.shot)

    @classmethod
    def of_card(
        cls, way: Any, shot: Any, tasks: Any, temperature: Any, typical: Any, rows: Any, by_task: Any
    ) -> Setting:
        """A setting as a file gave it.

        Raises ValueError or TypeError where it is none.
        """
        kept = [[math.inf if v is None else float(v) for v in values] for values in (rows, by_task)]
        (few, many), (least, most) = way, shot
        if any(len(values) != len(LEVELS) for values in kept) or not 0 < float(temperature) < math.inf:
            raise ValueError("damaged")
        ends = (int(few), int(many)), (int(least), int(most))
        return cls(*ends, int(tasks), float(temperature), None if typical is None else float(typical), *kept)


def temperature(found: Answers) -> float:
    """The temperature of least log loss, the mean over tasks of the mean over rows (Guo and others, arXiv 1706.04599).

    For regression the factor of all deviations of least Gaussian log loss: the root of the mean of ((y - mean) /
    deviation)^2 (Levi and others, arXiv 1905.11659).
    """
    share = found.weight / found.weight.sum(1, keepdims=True) / len(found)
    if found.deviation is not None:
        z = (found.y - found.out) / found.deviation
        return float(np.sqrt((np.square(z).mean(-1) * share).sum()))
    true = np.take_along_axis(found.out, found.y[..., None], -1)
    gaps = np.where(found.weight[..., None] > 0, found.out - true, 0.0)  # the loss is log sum exp(gap / T)

    def loss(cold: float) -> float:
        scaled = gaps * math.exp(cold)
        top = scaled.max(-1)
        return float(((top + np.log(np.exp(scaled - top[..., None]).sum(-1))) * share).sum())

    best = minimize_scalar(loss, bounds=(-WIDEST, WIDEST), method="bounded", options={"xatol": 1e-7})
    return math.exp(-float(best.x))  # type: ignore[attr-defined]


def learnt(found: Answers, sure: float = 0.9) -> Setting:
    """The setting that answers to held-out tasks give."""
    first, rest = found.part(slice(0, len(found) // 3)), found.part(slice(len(found) // 3, None))
    typical = None
    if first.deviation is not None and not first.stated:
        own = first.deviation[:, 0, 0]
        known = own[np.isfinite(own)]
        # one row a task leaves none out: all deviations are then equal, and the temperature scales them
        typical = float(np.median(known)) if len(known) else 1.0
        typical = max(typical, 1e-9)
    one = Setting(found.way, found.shot, len(rest), 1.0, typical, [], [])
    if first.deviation is not None:
        first = replace(first, deviation=one.deviation(first.deviation))
    one = replace(one, temperature=max(temperature(first), 1e-9))
    scores = rest.by_task(one.scores(rest))
    rows = [row_threshold(scores, level) for level in LEVELS]
    return replace(one, rows=rows, by_task=[task_threshold(scores, level, sure) for level in LEVELS])


def _outside(value: float, ends: tuple[int, int]) -> float:
    """How far a number is from a range, as the logarithm of a ratio."""
    near = min(max(value, ends[0]), ends[1])
    return abs(math.log(max(value, 0.5) / max(near, 0.5)))
