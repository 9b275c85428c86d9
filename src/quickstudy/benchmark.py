"""Many learners on the same tasks, each with the same time to train: who is better, by how much, at what cost."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from quickstudy.core.catalogue import describe
from quickstudy.core.errors import UserError
from quickstudy.core.files import write_whole
from quickstudy.core.learner import MetaLearner
from quickstudy.core.source import Source
from quickstudy.evaluate import evaluate
from quickstudy.fanout import Crew
from quickstudy.learners import FAMILIES, LEARNERS, make
from quickstudy.scores import Comparison, Evaluation, compare
from quickstudy.train import train

PROBE = 0.05
"""Share of the budget that finding out how long a step takes may cost."""
CHECKS = 5
"""Validations in a run: the best weights of so many moments are kept."""


@dataclass(frozen=True)
class Entry:
    """What one learner came to.

    failed: one sentence in place of scores. steps, seconds: of training, 0 where there is nothing to train.
    """

    learner: str
    steps: int = 0
    seconds: float = 0.0
    failed: str = ""
    scores: Evaluation | None = None

    @property
    def family(self) -> str:
        """The family of the learner; "own" for one of yours."""
        return next((name for name, table in FAMILIES.items() if self.learner in table), "own")

    def to_json(self) -> str:
        scores = self.scores and json.loads(self.scores.to_json())
        parts = {"learner": self.learner, "steps": self.steps, "seconds": self.seconds, "failed": self.failed}
        return json.dumps({**parts, "scores": scores}, ensure_ascii=False)

    @staticmethod
    def from_json(text: str) -> Entry:
        card = json.loads(text)
        scores = card.pop("scores")
        return Entry(**card, scores=scores and Evaluation.from_json(json.dumps(scores)))


@dataclass(frozen=True)
class Contest:
    """A comparison that is to be done.

    seconds: for the training of each learner, validation not counted. options, training: of single learners, beside
    their defaults and the arguments of `train`. out: folder that keeps every entry as soon as it is there: a contest
    that was broken off goes on where it was.
    """

    source: Source
    learners: Sequence[str]
    seconds: float = 60.0
    test_tasks: int = 600
    seed: int = 0
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    training: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    out: Path | None = None

    def run(self, processes: int = 1, watch: Callable[[Entry], object] | None = None) -> list[Entry]:
        """All entries, the best first, those that failed last.

        processes: learners that are trained at once, sharing the threads; each then has fewer of them for its time.
        Raises UserError for settings that do not fit, or a folder that holds another contest.
        """
        self._check()
        found: list[Entry] = []
        with Crew(processes) as crew:
            for card in crew.each(self.card, len(self.learners)):
                found.append(Entry.from_json(card))
                if watch:
                    watch(found[-1])
        return sorted(found, key=_rank)

    def card(self, index: int) -> str:
        """The entry of one learner, as JSON: read if it is there, else worked out and kept."""
        name = self.learners[index]
        place = self.out and self.out / f"{name}.json"
        if place and place.exists():
            return place.read_text()
        entry = self._entry(name)
        if place:
            write_whole(place, (entry.to_json() + "\n").encode())
        return entry.to_json()

    def _entry(self, name: str) -> Entry:
        torch.manual_seed(self.seed)
        try:
            learner = make(name, self.source.spec, **self.options.get(name, {}))
            steps, seconds = self._train(learner, self.training.get(name, {})) if learner.trained else (0, 0.0)
            scores = evaluate(learner, self.source, "test", self.test_tasks, self.seed, name=name)
            return Entry(name, steps, seconds, scores=scores)
        except UserError as error:
            return Entry(name, failed=str(error))
        except (RuntimeError, ValueError, ArithmeticError, MemoryError) as error:
            # one method's failure is a row of the table, not the end of it
            said = (str(error).strip().splitlines() or [""])[0]
            return Entry(name, failed=f"{type(error).__name__}: {said}")

    def _train(self, learner: MetaLearner, given: Mapping[str, Any]) -> tuple[int, float]:
        # clipped for all: a table of short runs should compare methods, not who was lucky with its first steps
        options = {"seed": self.seed, "progress": False, "clip": 10.0, **given}
        steps = max(1, int(self.seconds / step_seconds(learner, self.source, self.seconds, options)))
        every = math.ceil(steps / CHECKS)
        run = train(learner, self.source, steps=steps, valid_every=every, valid_tasks=100, **options)
        return steps, run.seconds

    def _check(self) -> None:
        if not self.seconds > 0 or self.test_tasks < 2:
            raise UserError(
                f"a benchmark of {self.seconds} seconds on {self.test_tasks} test tasks: give more than 0 seconds "
                "and at least 2 tasks."
            )
        for name in self.learners:
            LEARNERS[name]
        if self.out is None:
            return
        facts = {
            "tasks": describe(self.source, "tasks"), "seconds": self.seconds, "test_tasks": self.test_tasks,
            "seed": self.seed, "options": self.options, "training": self.training,
        }  # fmt: skip
        text, place = json.dumps(facts, sort_keys=True, indent=1) + "\n", self.out / "benchmark.json"
        if place.exists() and place.read_text() != text:
            raise UserError(
                f"{self.out} holds a benchmark of other tasks or settings (see {place}): give another --out, or the "
                "settings it was begun with."
            )
        self.out.mkdir(parents=True, exist_ok=True)
        write_whole(place, text.encode())


def step_seconds(learner: MetaLearner, source: Source, budget: float, options: dict[str, Any]) -> float:
    """Seconds of an outer step, measured on copies that are thrown away: the faster of two runs, so that a moment in
    which the machine was busy does not cost a learner its training."""

    def seconds(steps: int) -> float:
        return train(copy.deepcopy(learner), source, steps=steps, valid_every=0, **options).seconds

    steps, spent = 1, 0.0
    while True:
        took = seconds(steps)
        spent += took
        if steps > 1 and (took > 0.2 or spent > PROBE * budget):
            return min(took, seconds(steps)) / steps
        if spent > PROBE * budget:  # the first step also finds and loads things: it is not what a step takes
            return took / 2
        steps *= 4


def fitting(source: Source) -> list[str]:
    """The learners of the catalogue that take the tasks of a source."""
    return [name for name, cls in LEARNERS.items() if cls.fits(source.spec)]


def against_baseline(entries: Sequence[Entry]) -> tuple[str, dict[str, Comparison]]:
    """The best plain baseline, and every other learner's paired difference from it on the same tasks.

    ("", {}) if there is none among them.
    """
    scored = [entry for entry in entries if entry.scores]
    plain = min((e for e in scored if e.family == "baseline"), key=_rank, default=None)
    if plain is None or plain.scores is None:
        return "", {}
    pairs = {}
    for entry in scored:
        if entry is not plain and entry.scores and set(entry.scores.signs) & set(plain.scores.signs):
            pairs[entry.learner] = compare(entry.scores, plain.scores)
    return plain.learner, pairs


def pays(entries: Sequence[Entry]) -> str:
    """One paragraph: which methods are better than the best plain baseline, and which are not."""
    plain, pairs = against_baseline(entries)
    if not plain:
        return "No plain baseline is among them: whether meta-learning pays here is not said."
    methods = {e.learner for e in entries if e.family != "baseline"}
    said = {v: [n for n, pair in pairs.items() if n in methods and pair.verdict == v] for v in ("better", "worse")}
    unclear = [name for name in pairs if name in methods and not any(name in names for names in said.values())]
    parts = [f"The best plain baseline is {plain}."]
    if not said["better"]:
        parts.append("No method is shown to be better than it: that meta-learning pays in this setting is not shown.")
    for verb, names in (("Better", said["better"]), ("Worse", said["worse"]), ("Cannot be told from it", unclear)):
        if names:
            parts.append(f"{verb}: {', '.join(sorted(names))}.")
    return " ".join(parts)


def common_measure(scores: Evaluation) -> str:
    """What learners of a kind are ranked by: squared error for real values, since not all say a likelihood."""
    return "mse" if "mse" in scores.signs else scores.headline


def _rank(entry: Entry) -> tuple[bool, float]:
    scores = entry.scores
    if scores is None:
        return True, 0.0
    measure = common_measure(scores)
    value = scores.signs[measure] * scores.mean(measure)
    return False, -value if math.isfinite(value) else math.inf
