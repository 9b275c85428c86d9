"""Whether a gain is worth having, as one answer with its interval, its cost and what would help to tell."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from typing import Literal

import numpy as np

from quickstudy.questions.units import Units, unit_interval
from quickstudy.scores import Evaluation, compare
from quickstudy.tables import in_bytes

Answer = Literal["pays", "does not pay", "cannot tell"]
FAR = 50.0
"""Times as many test tasks or classes beyond which it is not worth trying to tell."""
LONGER = 3
"""Times the training time by which growth is measured."""


@dataclass(frozen=True)
class Effect:
    """How much better one learner is than another on the same tasks.

    mean, half: in points of accuracy (of other measures where higher is better: hundredths), or in % of the error of
    the second; half is that of the 95 % interval. own: the part of the variance of the mean that more tasks would
    shrink, the rest being that of the classes.
    """

    mean: float
    half: float
    unit: str
    own: float = 1.0

    @property
    def low(self) -> float:
        """The lower end of the interval."""
        return self.mean - self.half

    @property
    def high(self) -> float:
        """The upper end of the interval."""
        return self.mean + self.half


def effect(a: Evaluation, b: Evaluation, measure: str, units: Units) -> Effect:
    """How much better `a` is than `b`, with its interval over the units of their common tasks.

    An error's gain is R = sum (b_t - a_t) / sum b_t, whose interval is that of b_t - a_t - R b_t over the mean of b_t
    (to first order in both).
    Raises UserError if they did not meet the same tasks.
    """
    compare(a, b, measure)
    sign = a.signs[measure]
    first, second = np.asarray(a.values(measure)), np.asarray(b.values(measure))
    gain = sign * (first - second)
    if sign > 0:
        unit, values, scale, mean = "points", gain, 100.0, float(gain.mean())
    else:
        error = float(second.mean())
        if not error > 0:
            return Effect(0.0, 0.0, "%")
        mean = float(gain.mean()) / error
        unit, values, scale = "%", gain - mean * second, 100.0 / error
    half = unit_interval(values, units)
    alone = unit_interval(values, Units("task"))
    own = min(1.0, (alone / half) ** 2) if half > 0 else 1.0
    mean *= 100.0
    return Effect(mean, scale * half, unit, own)


def decide(found: Effect, worth: float, growth: float, growth_half: float) -> Answer:
    """pays: the whole interval lies above `worth`. does not pay: it lies below, and would after `LONGER` times the
    training too, if the learner gained as much again (`growth`, with half its interval) as by the last `LONGER` times.
    """
    if found.low > worth:
        return "pays"
    further = found.mean + max(growth, 0.0) + math.hypot(found.half, growth_half)
    return "does not pay" if max(found.high, further) < worth else "cannot tell"


@dataclass(frozen=True)
class Verdict:
    """Whether meta-learning pays on the tasks of a source, and what that rests on.

    scores: of the chosen learner and the chosen plain baseline on the test tasks; tried: of all methods on the
    validation tasks, as text. worth: the smallest gain worth having, in the effect's unit. growth, growth_half: what
    the learner gained on the validation tasks by the last `LONGER` times of training, in the same unit. spent: seconds
    of training of all together; costs: of the two, training seconds, milliseconds to adapt to a task and bytes of
    state. units, unit_count: what the interval counts.
    """

    answer: Answer
    learner: str
    plain: str
    measure: str
    scores: dict[str, float]
    effect: Effect
    worth: float
    growth: float
    growth_half: float
    tasks: int
    units: str
    unit_count: int | None
    seconds: float
    spent: float
    costs: dict[str, dict[str, float]]
    tried: dict[str, str]
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> str:
        """All of it as JSON, with the answer in words."""
        return json.dumps({**asdict(self), "advice": self.advice(), "text": str(self)}, ensure_ascii=False, indent=1)

    def __str__(self) -> str:
        said = [self._opening(), self._rests(), self._cost()]
        if advice := self.advice():
            said.append(advice)
        return " ".join([*said, *(f"Note: {note}." for note in self.notes)])

    def advice(self) -> str:
        """What would help to tell; "" where nothing is asked for."""
        if self.answer != "cannot tell":
            return ""
        found, gap = self.effect, abs(self.effect.mean - self.worth)
        if found.high < self.worth:
            return (
                f"{self.learner} was still learning (its last {LONGER} times of training gave it {self.growth:+.1f} "
                f"{found.unit}): give about --seconds {LONGER * self.seconds:g}."
            )
        times = (found.half / gap) ** 2 if gap > 0 else math.inf
        if not times < FAR:
            return "The gain is so near to what is worth having that no reasonable number of tasks would tell: " + (
                "choose by what the two cost."
            )
        # what more tasks cannot shrink is the part of the classes
        room = 1 / times - (1 - found.own)
        if room > found.own / FAR:
            return f"To tell, about {_round(self.tasks * found.own / room):,} test tasks would help (--test_tasks)."
        return f"To tell, about {_round((self.unit_count or 1) * times):,} test {_plural(self.units)} would be needed."

    def _opening(self) -> str:
        found, better = self.effect, self.effect.low > 0
        opening = {
            "pays": "Meta-learning pays here",
            "does not pay": f"Meta-learning does not pay here with {self.seconds:g} seconds of training",
            "cannot tell": "Whether meta-learning pays here cannot be told",
        }[self.answer]
        if self.answer == "cannot tell" and better:
            opening = "Meta-learning is better here, but whether by as much as is worth having cannot be told"
        a, b = (_score(self.measure, self.scores[name]) for name in (self.learner, self.plain))
        unit = " %" if found.unit == "%" else " points"
        gain = "of the error saved" if found.unit == "%" else "of accuracy" if self.measure == "accuracy" else ""
        return (
            f"{opening}: {self.learner} has {self.measure.replace('_', ' ')} {a} on unseen tasks and {self.plain}, the "
            f"best plain baseline, {b}: {found.mean:+.1f}{unit} {gain}".rstrip()
            + f" (95 % interval {found.low:+.1f} to {found.high:+.1f}; {self.worth:g} or more is worth having)."
        )

    def _rests(self) -> str:
        over = f"the same {self.tasks} test tasks"
        if self.unit_count is not None:
            over += f", of {self.unit_count} {_plural(self.units)}, which the interval counts"
        return f"Both were chosen among {len(self.tried)} methods on validation tasks and compared once, on {over}."

    def _cost(self) -> str:
        def words(name: str) -> str:
            cost = self.costs[name]
            state = in_bytes(cost["state_bytes"])
            trained = f"{cost['train_seconds']:.0f} s of training" if cost["train_seconds"] else "no training"
            return f"{name} takes {trained}, {cost['adapt_ms']:.2g} ms to adapt to a task and {state} a task"

        return f"Cost: {words(self.learner)}; {words(self.plain)}. All training took {self.spent:.0f} s."


def _score(measure: str, value: float) -> str:
    return f"{100 * value:.1f} %" if measure == "accuracy" else f"{value:.3g}"


def _plural(unit: str) -> str:
    return {"task": "tasks", "class": "classes", "group": "groups of classes"}[unit]


def _round(count: float) -> int:
    """A count to two digits, upwards."""
    step = 10 ** max(math.floor(math.log10(max(count, 1))) - 1, 0)
    return math.ceil(count / step) * step
