"""Scores along an axis: more examples of each class, or more steps of adaptation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from quickstudy.core.errors import UserError
from quickstudy.core.learner import MetaLearner, Stepwise
from quickstudy.core.source import Source, Split
from quickstudy.evaluate import cut, device_of, draw, dtype_of, evaluate, evaluating, name_of, ready
from quickstudy.fanout import Crew
from quickstudy.scores import interval


@dataclass(frozen=True)
class Curve:
    """The mean of a measure at each point of an axis, over the same number of seeded tasks.

    axis: "shot" (support rows a class) or "step" (inner steps); at: the points on it.
    sign: +1 if higher is better, -1 if lower is.
    means, intervals: the mean over tasks and half its 95 % t-interval, at each point.
    notes: what could not be measured, and why.
    """

    learner: str
    axis: Literal["shot", "step"]
    measure: str
    sign: int
    tasks: int
    at: list[int]
    means: list[float]
    intervals: list[float]
    notes: list[str] = field(default_factory=list)

    def card(self) -> dict[str, Any]:
        """The curve as JSON holds it."""
        return asdict(self)


def shot_curve(
    learner: MetaLearner,
    source: Source,
    shots: Sequence[int] = (1, 2, 5, 10),
    tasks: int = 200,
    seed: int = 0,
    split: Split = "test",
    batch: int | None = None,
    name: str | None = None,
    processes: int | Crew = 1,
) -> Curve:
    """The headline measure with each number of support rows; shots that the source cannot give are noted.

    Raises UserError if not one of the shots could be measured.
    """
    at, means, intervals, notes, problem = [], [], [], [], None
    for shot in shots:
        try:
            met = evaluate(learner, source.reshaped(shot=shot), split, tasks, seed, batch, name, processes=processes)
        except UserError as error:
            problem = error
            notes.append(f"shot {shot} left out: {error}")
            continue
        at.append(shot)
        means.append(met.mean())
        intervals.append(met.interval())
    if not at:
        raise problem or UserError("no shots were given: name at least one, as in shots=(1, 5).")
    measure, sign = next(iter(learner.objective.measures.items()))
    label = name or name_of(learner, "learner")
    return Curve(label, "shot", measure, sign, tasks, at, means, intervals, notes)


def adaptation_curve(
    learner: MetaLearner,
    source: Source,
    steps: int = 10,
    tasks: int = 200,
    seed: int = 0,
    split: Split = "test",
    batch: int | None = None,
    name: str | None = None,
) -> Curve:
    """The headline measure after 0, 1, ..., `steps` inner steps, on the tasks that `evaluate` meets.

    Raises UserError for a learner that does not adapt in steps.
    """
    label = name or name_of(learner, "learner")
    learner = ready(learner, source)
    if not isinstance(learner, Stepwise):
        raise UserError(f"{label} does not adapt in steps: an adaptation curve needs a learner such as maml.")
    if steps < 0:
        raise UserError(f"steps is {steps}: an adaptation curve needs 0 or more inner steps.")
    measure, sign = next(iter(learner.objective.measures.items()))
    values: list[list[float]] = [[] for _ in range(steps + 1)]
    place = device_of(learner), dtype_of(learner)
    with evaluating(learner, seed):
        for part in (part for block in draw(source, split, tasks, seed) for part in cut(block, batch, *place)):
            for step, state in enumerate(learner.path(part.support, steps)):
                prediction = learner.predict(state, part.query.x, part.query.weight)
                values[step] += learner.objective.measure(prediction, part.query)[measure].double().tolist()
    means = [sum(v) / len(v) for v in values]
    return Curve(
        label, "step", measure, sign, tasks, list(range(steps + 1)), means, [interval(v) for v in values]
    )
