"""Whether what was found is better than the defaults on tasks that had no say in the choice."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from quickstudy.configuration import source_in, valid_source_in
from quickstudy.core.errors import UserError
from quickstudy.fanout import Crew
from quickstudy.questions.units import unit_interval, units_of
from quickstudy.scores import in_words, interval
from quickstudy.tune import ledger
from quickstudy.tune.outcome import Outcome, Trial
from quickstudy.tune.tuning import FAILS, Tuning

NOTE = "confirmed "
"""Begins the names of the study's notes on what was scored so far: a confirmation can be gone on with too."""


@dataclass(frozen=True)
class Confirmation:
    """Best and defaults, each trained anew from several seeds, the same for both, and scored on the same unseen tasks.

    difference: best - defaults of the measure. tasks_interval: half its 95 % interval over what was held out (see
    questions/units.py). seeds_interval: half that over the seeds; infinite for one. seeds: from which both came
    through; where that is none, nothing is said of a gain. note: what there is to say of it.
    """

    measure: str
    sign: int
    split: str
    best: float
    defaults: float
    difference: float
    tasks_interval: float
    seeds_interval: float
    seeds: int
    tasks: int
    unit: str
    note: str = ""

    @property
    def interval(self) -> float:
        """Half the 95 % interval for other tasks and other seeds: both parts, as independent ones add up.

        With one seed the seeds' part is not known, and it speaks of these two trained learners alone.
        """
        seeds = self.seeds_interval if math.isfinite(self.seeds_interval) else 0.0
        return math.hypot(self.tasks_interval, seeds)

    @property
    def verdict(self) -> str:
        """'better' or 'worse' if the interval leaves 0 out, else 'no gain shown'."""
        gain = self.sign * self.difference
        if gain > self.interval:
            return "better"
        return "worse" if gain < -self.interval else "no gain shown"

    def __str__(self) -> str:
        if not self.seeds:
            return f"From no seed did best and defaults both come through: no gain is shown. {self.note}"
        words = in_words(self.measure, self.difference, self.interval, signed=True)
        of, seeds = in_words(self.measure, self.best), f"{self.seeds} seed{'s' * (self.seeds != 1)}"
        said = {"better": "The gain holds", "worse": "The defaults are better", "no gain shown": "No gain is shown"}
        text = (
            f"{said[self.verdict]} on {self.tasks} unseen {self.split} tasks: {self.measure} {of} with the best and "
            f"{in_words(self.measure, self.defaults)} with the defaults, difference {words} ({seeds} each, 95 % "
            f"interval over {self.unit}{' and seeds' if self.seeds > 1 else ' for these trained learners alone'})."
        )
        return f"{text} {self.note}".strip()

    def card(self) -> dict[str, Any]:
        """As JSON holds it."""
        card = {**self.__dict__, "interval": self.interval, "verdict": self.verdict}
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in card.items()}


@dataclass(frozen=True)
class _Work:
    """What one process is to do: train one of the two from one seed, and score it."""

    tuning: Tuning
    trials: tuple[Trial, Trial]
    variants: tuple[str, str]
    split: Literal["valid", "test"]
    tasks: int

    def card(self, index: int) -> list[float] | str:
        """The measure on each task, or why training failed: the best for an even index, the defaults for an odd one."""
        which, number = index % 2, index // 2
        trial, tuning = self.trials[which], self.tuning
        name = f"{NOTE}{trial.place} {self.split} {self.tasks} {number}"
        study = tuning.open()
        if name not in study.user_attrs:
            config = tuning.configured(self.variants[which], trial.chosen or {}, "confirm", number)
            asked = (None, self.split, self.tasks, ledger.seed_of(tuning.seed, "unseen"))
            try:
                scores, _ = tuning.scored(config, source_in(config), *asked)
                found: list[float] | str = scores.values(tuning.measure()[0])
            except (UserError, *FAILS) as error:
                found = str(error)
            study.set_user_attr(name, found)
        return study.user_attrs[name]


def confirm(
    found: Outcome,
    seeds: int = 3,
    tasks: int = 600,
    processes: int = 1,
    watch: Callable[[int], object] | None = None,
) -> Confirmation | None:
    """Train the best and the defaults anew from the same seeds, and compare them on `tasks` tasks of the test split.

    Where there is no test split, on validation tasks that were not drawn before, which the note says. None where the
    best trial is the defaults, or one of the two did not come through. watch: called with the trainings done.
    A seed from which training fails is left out, which the note says. Raises UserError for fewer than one seed or two
    tasks.
    """
    best, plain, tuning = found.best, found.defaults, found.tuning
    if seeds < 1 or tasks < 2:
        raise UserError(f"a confirmation with {seeds} seeds on {tasks} tasks: give at least 1 seed and 2 tasks.")
    if best is None or plain is None or best is plain:
        return None
    source = source_in(tuning.defaults)
    source = valid_source_in(tuning.defaults, source) or source
    split, note = _held_out(source)
    first = next(iter(tuning.bases))
    work = _Work(tuning, (best, plain), (best.variant or first, first), split, tasks)
    values: list[list[float] | str] = []
    with Crew(processes) as crew:
        for one in crew.each(work.card, 2 * seeds):
            values.append(one)
            if watch:
                watch(len(values))
    pairs = [pair for pair in zip(values[::2], values[1::2], strict=True) if not any(isinstance(v, str) for v in pair)]
    notes = [note, *_failures(values, seeds)]
    if not pairs:
        nan, said = math.nan, " ".join(filter(None, notes))
        return Confirmation(found.measure, found.sign, split, nan, nan, nan, nan, nan, 0, tasks, "tasks", said)
    scores = np.array(pairs)
    gaps = scores[:, 0] - scores[:, 1]
    units = units_of(source, split, tasks, ledger.seed_of(tuning.seed, "unseen"))
    names = {"task": "tasks", "class": "classes", "group": "groups"}
    return Confirmation(
        found.measure, found.sign, split, float(scores[:, 0].mean()), float(scores[:, 1].mean()), float(gaps.mean()),
        unit_interval(gaps.mean(0), units), interval(gaps.mean(1).tolist()), len(pairs), tasks,
        names[units.name], " ".join(filter(None, (*notes, units.note and f"Of the tasks: {units.note}."))),
    )  # fmt: skip


def _failures(values: list[list[float] | str], seeds: int) -> list[str]:
    """What is to be said of trainings that failed."""
    found = []
    for who, those in (("the best", values[::2]), ("the defaults", values[1::2])):
        failed = [one for one in those if isinstance(one, str)]
        if failed:
            why = failed[0].split(";")[0].rstrip(".")
            found.append(f"{len(failed)} of {seeds} trainings with {who} failed: {why}.")
    return found


def _held_out(source: Any) -> tuple[Literal["valid", "test"], str]:
    """The split to confirm on, and what is to be said of it."""
    try:
        source.sample("test", 1, source.rng(0, "test", "is there one"))
        return "test", ""
    except UserError:
        return "valid", (
            "There is no test split: these are validation tasks drawn afresh, but of the same classes that the choice "
            "was made on, which flatters it."
        )
