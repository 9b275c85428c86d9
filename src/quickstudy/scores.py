"""What was measured: scores task by task, their intervals, and paired differences.

The task is the unit: an interval says how far the mean over these tasks may be from the mean over all
tasks of the split. Learners that met the same tasks are compared task by task.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.special import stdtrit

from quickstudy.calibration import Reliability
from quickstudy.core.errors import UserError, nearest

PERCENT = ("accuracy", "coverage_90")
"""Measures shown in per cent."""


def interval(values: Sequence[float]) -> float:
    """Half the width of the 95 % t-interval of the mean; infinite for fewer than two values, NaN if one is
    not finite.

    half = t_{0.975, n-1} * s / sqrt(n)

    >>> round(interval([1.0, 2.0, 3.0]), 3)
    2.484
    """
    n = len(values)
    if n < 2:
        return math.inf
    with np.errstate(invalid="ignore"):
        deviation = np.std(values, ddof=1)
    return float(stdtrit(n - 1, 0.975) * deviation / math.sqrt(n))


def in_words(measure: str, mean: float, half: float = math.inf, signed: bool = False) -> str:
    """A mean and its interval as people read them; an infinite interval is left out.

    >>> in_words("accuracy", 0.98412, 0.0021), in_words("mse", 0.5614, 0.0421)
    ('98.4 ± 0.2', '0.561 ± 0.042')
    """
    if measure in PERCENT:
        mean, half, digits = 100 * mean, 100 * half, 1
    elif 0 < half < math.inf:
        digits = min(max(1 - math.floor(math.log10(half)), 0), 6)
    else:
        digits = 3
    sign = "+" if signed else ""
    return f"{mean:{sign}.{digits}f}" + (f" ± {half:.{digits}f}" if math.isfinite(half) else "")


@dataclass(frozen=True)
class Evaluation:
    """What one learner scored on each of a row of seeded tasks.

    signs: name of each measure, the headline first: +1 if higher is better, -1 if lower is.
    measures: name of each measure to its value on every task.
    way, shot: classes, and support rows a class (regression: rows; zero-shot: 0); None where the tasks vary.
    reliability: the calibration of all real query rows (classification only).
    adapt_seconds: seconds of adaptation a task, the median over the batches.
    state_bytes: bytes of adapted state a task.
    fingerprint: a digest of the tasks; evaluations with the same one met the same tasks.
    """

    learner: str
    source: str
    split: str
    seed: int
    kind: str
    way: int | None
    shot: int | None
    signs: dict[str, int]
    measures: dict[str, list[float]]
    reliability: Reliability | None
    adapt_seconds: float
    state_bytes: float
    fingerprint: str

    @property
    def headline(self) -> str:
        """The name of the measure that counts most."""
        return next(iter(self.signs))

    @property
    def tasks(self) -> int:
        """How many tasks were met."""
        return len(self.measures[self.headline])

    @property
    def ece(self) -> float | None:
        """Expected calibration error in [0, 1]; None for regression."""
        return None if self.reliability is None else self.reliability.ece

    def values(self, measure: str | None = None) -> list[float]:
        """A measure (the headline if not named) on every task.

        Raises UserError for a measure that was not taken.
        """
        measure = measure or self.headline
        if measure not in self.measures:
            raise UserError(f"{self.learner} has no measure {measure!r}: {nearest(measure, self.measures)}")
        return self.measures[measure]

    def mean(self, measure: str | None = None) -> float:
        """The mean over tasks."""
        return float(np.mean(self.values(measure)))

    def interval(self, measure: str | None = None) -> float:
        """Half the width of the 95 % t-interval of the mean, the tasks being the unit."""
        return interval(self.values(measure))

    def __str__(self) -> str:
        words = in_words(self.headline, self.mean(), self.interval())
        return f"{self.headline} {words} ({self.tasks} task{'s' * (self.tasks != 1)})"

    def to_json(self) -> str:
        """All of it as JSON, with a summary for other programs; a value that is not finite becomes null."""
        summary = {m: {"mean": self.mean(m), "interval_95": self.interval(m)} for m in self.measures}
        derived = {"headline": self.headline, "tasks": self.tasks, "ece": self.ece, "summary": summary}
        return json.dumps(_finite({**asdict(self), **derived}), ensure_ascii=False, allow_nan=False)

    @staticmethod
    def from_json(text: str) -> Evaluation:
        """The evaluation that `to_json` wrote; null values come back as NaN.

        Raises UserError for text that is not one.
        """
        try:
            card = json.loads(text)
            given = {name: card[name] for name in Evaluation.__dataclass_fields__}
            bins = given["reliability"]
            given["reliability"] = bins and Reliability(**{k: _numbers(v) for k, v in bins.items()})
            given["measures"] = {name: _numbers(values) for name, values in given["measures"].items()}
            if list(given["signs"]) != list(given["measures"]):
                raise ValueError("signs and measures differ")
            return Evaluation(**given)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"this is not an evaluation written by quickstudy ({type(error).__name__}: {error}): "
                "give the text that `Evaluation.to_json` made."
            ) from error


def _finite(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {k: _finite(v) for k, v in tree.items()}
    if isinstance(tree, list):
        return [_finite(v) for v in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree


def _numbers(values: list[float | None]) -> list[float]:
    return [math.nan if v is None else float(v) for v in values]


@dataclass(frozen=True)
class Comparison:
    """The paired difference a - b of a measure on the same tasks, with its 95 % interval."""

    a: str
    b: str
    measure: str
    sign: int
    difference: float
    interval: float
    tasks: int

    @property
    def verdict(self) -> str:
        """'better' or 'worse' if the interval leaves 0 out, else 'cannot tell'."""
        gain = self.sign * self.difference
        if gain > self.interval:
            return "better"
        return "worse" if gain < -self.interval else "cannot tell"

    def __str__(self) -> str:
        words = in_words(self.measure, self.difference, self.interval, signed=True)
        if self.verdict == "cannot tell":
            said = f"cannot tell {self.a} from {self.b}"
        else:
            said = f"{self.a} is {self.verdict} than {self.b}"
        return f"{said}: {self.measure} {words} on the same {self.tasks} tasks"


def compare(a: Evaluation, b: Evaluation, measure: str | None = None) -> Comparison:
    """Whether `a` is better than `b`, task by task; by the first measure both have, unless one is named.

    Raises UserError if they did not meet the same tasks or share no measure.
    """
    if a.fingerprint != b.fingerprint or a.tasks != b.tasks:
        raise UserError(
            f"{a.learner} and {b.learner} did not meet the same tasks: "
            "evaluate both with the same source, split, tasks and seed."
        )
    measure = measure or next((m for m in a.signs if m in b.signs), None)
    if measure is None:
        raise UserError(
            f"{a.learner} measures {', '.join(a.signs)} and {b.learner} measures {', '.join(b.signs)}: "
            "compare learners that share a measure."
        )
    with np.errstate(invalid="ignore"):
        gap = np.subtract(a.values(measure), b.values(measure))
    difference, half = float(gap.mean()), interval(gap.tolist())
    return Comparison(a.learner, b.learner, measure, a.signs[measure], difference, half, a.tasks)


def harmonic_mean(seen: Evaluation, unseen: Evaluation) -> tuple[float, float]:
    """H = 2 s u / (s + u) of two mean accuracies, and half its 95 % interval: the score of generalised zero-shot tasks.

    s is the accuracy on rows of seen classes and u that on rows of unseen ones, each among all classes of a task (Xian
    and others 2017, arXiv 1707.00600): evaluate a source with `seen` twice, with asked="seen" and asked="unseen". The
    interval is that of H to first order in s and u, the tasks being the unit.

    Raises UserError if the two are not of the same tasks.
    """
    if (seen.source, seen.split, seen.seed, seen.tasks) != (unseen.source, unseen.split, unseen.seed, unseen.tasks):
        raise UserError("these are not of the same tasks: evaluate both with the same source, split, tasks and seed.")
    s, u = seen.mean("accuracy"), unseen.mean("accuracy")
    if s + u == 0:
        return 0.0, 0.0
    by_s, by_u = 2 * u**2 / (s + u) ** 2, 2 * s**2 / (s + u) ** 2
    both = zip(seen.values("accuracy"), unseen.values("accuracy"), strict=True)
    return 2 * s * u / (s + u), interval([by_s * a + by_u * b for a, b in both])
