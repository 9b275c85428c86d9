"""Does meta-learning pay on these tasks? A few fitting learners and the plain baselines are trained in a budget of
seconds, one of each is chosen on validation tasks, and these two are compared once on the test tasks."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from quickstudy import checkpoint
from quickstudy.benchmark import common_measure, step_seconds
from quickstudy.core.catalogue import describe
from quickstudy.core.errors import UserError
from quickstudy.core.files import write_whole
from quickstudy.core.learner import MetaLearner
from quickstudy.core.source import Source
from quickstudy.evaluate import draw, evaluate
from quickstudy.learners import FAMILIES, LEARNERS, make
from quickstudy.questions.judgement import LONGER, Verdict, decide, effect
from quickstudy.questions.units import units_of
from quickstudy.scores import Evaluation, compare
from quickstudy.train import train

CANDIDATES = {
    "classification": ("protonet", "r2d2", "anil"),
    "regression": ("alpaca", "r2d2", "cnp"),
    "zero-shot": ("semantic_protonet", "devise", "eszsl"),
}
"""Learners by kind of task: cheap to train, of different ideas (nearest means, closed forms, gradients, one pass)."""
PLAIN = {
    "classification": ("chance", "centroid", "logistic", "linear_probe"),
    "regression": ("chance", "ridge", "scratch", "pooled", "linear_probe"),
    "zero-shot": ("chance", "nearest_description"),
}
"""What meta-learning has to beat: fits on a task's own rows, and ordinary training on all training tasks at once."""
OPTIONS: dict[str, dict[str, Any]] = {"scratch": {"inner_lr": 0.01}}
WORTH = {"classification": 1.0, "regression": 5.0, "zero-shot": 1.0}
"""The smallest gain worth having by default: points of accuracy, % of the error."""
VALID_TASKS = 200
CHECKS = 5
"""Validations in a run: the best weights of so many moments are kept."""


@dataclass(frozen=True)
class Trial:
    """What one method came to on the validation tasks.

    failed: one sentence in place of scores. steps, seconds: of training, 0 where there is nothing to train. growth,
    growth_half: what the last `LONGER` times of training gained in the measure, more being better, and half its 95 %
    interval; 0 for plain baselines, which are trained once.
    """

    name: str
    failed: str = ""
    steps: int = 0
    seconds: float = 0.0
    growth: float = 0.0
    growth_half: float = 0.0
    valid: Evaluation | None = None

    @property
    def plain(self) -> bool:
        """Whether it is one of the plain baselines."""
        return self.name in FAMILIES["baseline"]

    @property
    def rank(self) -> float:
        """The score on the validation tasks, more being better; -inf without one."""
        if self.valid is None:
            return -math.inf
        measure = common_measure(self.valid)
        value = self.valid.signs[measure] * self.valid.mean(measure)
        return value if math.isfinite(value) else -math.inf

    def __str__(self) -> str:
        return f"{self.name}: {self.valid or self.failed}"

    def to_json(self) -> str:
        facts = {k: getattr(self, k) for k in ("name", "failed", "steps", "seconds", "growth", "growth_half")}
        return json.dumps({**facts, "valid": self.valid and json.loads(self.valid.to_json())}, ensure_ascii=False)

    @staticmethod
    def from_json(text: str) -> Trial:
        card = json.loads(text)
        valid = card.pop("valid")
        return Trial(**card, valid=valid and Evaluation.from_json(json.dumps(valid)))


@dataclass(frozen=True)
class Case:
    """A question that is to be answered.

    seconds: for the training of all methods together, shared out evenly; validation is not counted. worth: the
    smallest gain worth having, in points of accuracy or % of the plain baseline's error (default: 1 and 5). learners:
    in place of `CANDIDATES`. out: folder that keeps each method and its weights as soon as it is trained: a case that
    was broken off goes on where it was.
    """

    source: Source
    seconds: float = 60.0
    worth: float | None = None
    test_tasks: int = 600
    seed: int = 0
    learners: Sequence[str] = ()
    out: Path | None = None

    @property
    def names(self) -> list[str]:
        """The methods that are tried, learners first."""
        spec = self.source.spec
        plain = (name for name in PLAIN[spec.kind] if LEARNERS[name].fits(spec))
        return list(dict.fromkeys([*(self.learners or CANDIDATES[spec.kind]), *plain]))

    def run(self, watch: Callable[[Trial], object] | None = None) -> Verdict:
        """The verdict; test tasks are met once, by the two methods that validation tasks chose.

        Raises UserError for settings that do not fit, a folder that holds another case, or if no learner could be
        trained.
        """
        self._check()
        trials: dict[str, Trial] = {}
        learners: dict[str, MetaLearner] = {}
        for name in self.names:
            trials[name], learner = self._trial(name)
            if learner is not None:
                learners[name] = learner
            if watch:
                watch(trials[name])
        ours, plain = (self._best(trials, plain) for plain in (False, True))
        asked: list[Any] = [self.source, "test", self.test_tasks, self.seed]
        a, b = (evaluate(learners[one.name], *asked, name=one.name) for one in (ours, plain))
        return self._judge(trials, learners, (ours, plain), (a, b))

    def _judge(
        self,
        trials: Mapping[str, Trial],
        learners: Mapping[str, MetaLearner],
        chosen: tuple[Trial, Trial],
        scores: tuple[Evaluation, Evaluation],
    ) -> Verdict:
        (ours, plain), (a, b) = chosen, scores
        measure = next(m for m in (common_measure(b), *a.signs) if m in a.signs and m in b.signs)
        units = units_of(self.source, "test", self.test_tasks, self.seed)
        found = effect(a, b, measure, units)
        assert plain.valid is not None
        error = plain.valid.mean(measure)
        scale = 100.0 if found.unit == "points" else 100.0 / error if error > 0 else 0.0
        growth, half = scale * ours.growth, scale * ours.growth_half
        worth = self._worth()
        costs = {
            trial.name: {
                "train_seconds": trial.seconds, "adapt_ms": 1e3 * met.adapt_seconds, "state_bytes": met.state_bytes,
            }
            for trial, met in ((ours, a), (plain, b))
        }  # fmt: skip
        return Verdict(
            answer=decide(found, worth, growth, half),
            learner=ours.name,
            plain=plain.name,
            measure=measure,
            scores={a.learner: a.mean(measure), b.learner: b.mean(measure)},
            effect=found,
            worth=worth,
            growth=growth,
            growth_half=half,
            tasks=self.test_tasks,
            units=units.name,
            unit_count=units.count,
            seconds=self.seconds,
            spent=sum(trial.seconds for trial in trials.values()),
            costs=costs,
            tried={trial.name: str(trial.valid or trial.failed) for trial in trials.values()},
            notes=self._notes(learners[ours.name], ours.name, plain.name, units.note),
        )

    def _notes(self, learner: MetaLearner, ours: str, plain: str, note: str) -> list[str]:
        notes = [note] if note else []
        if LEARNERS[plain].trained:
            notes.append(f"{plain} is trained on the rows of all training tasks at once, and shares what it finds too")
        if learner.transductive:
            notes.append(f"{ours} looks at all questions of a task at once, which {plain} does not")
        if self.source.spec.kind == "zero-shot" and "nearest_description" not in self.names:
            notes.append(
                "no plain baseline but chance is known where rows and descriptions of zero-shot tasks differ in shape"
            )
        return notes

    def _best(self, trials: Mapping[str, Trial], plain: bool) -> Trial:
        own = [trial for trial in trials.values() if trial.plain == plain]
        best = max(own, key=lambda trial: trial.rank, default=None)
        if best is None or best.rank == -math.inf:
            what = "plain baseline" if plain else "learner"
            why = best.failed or "its scores are not finite" if best else "none was given"
            raise UserError(f"no {what} could be tried ({best.name if best else '-'}: {why}): name others in learners.")
        return best

    def _trial(self, name: str) -> tuple[Trial, MetaLearner | None]:
        """One method trained and scored on the validation tasks: read if it is there, else worked out and kept."""
        place = self.out and self.out / f"{name}.json"
        weights = self.out and self.out / f"{name}.safetensors"
        if place and weights and place.exists():
            trial = Trial.from_json(place.read_text("utf-8"))
            return trial, checkpoint.load(weights).learner if trial.valid else None
        learner: MetaLearner | None = None
        try:
            trial, learner = self._tried(name)
        except UserError as error:
            trial = Trial(name, failed=str(error))
        except (RuntimeError, ValueError, ArithmeticError, AssertionError, MemoryError) as error:
            # one method's failure is said, and the others go on
            first = (str(error).strip().splitlines() or [""])[0]
            trial = Trial(name, failed=f"{type(error).__name__}: {first}".removesuffix(": "))
        if place and weights:
            if learner is not None:
                checkpoint.save(learner, weights, self.source, seed=self.seed)
            write_whole(place, (trial.to_json() + "\n").encode())
        return trial, learner

    def _tried(self, name: str) -> tuple[Trial, MetaLearner]:
        torch.manual_seed(self.seed)
        learner = make(name, self.source.spec, **OPTIONS.get(name, {}))
        steps, seconds, before = 0, 0.0, None
        if learner.trained:
            # clipped for all: short runs should compare methods, not who was lucky with the first steps
            options: dict[str, Any] = {"seed": self.seed, "progress": False, "clip": 10.0}
            share = self.seconds / sum(LEARNERS[n].trained for n in self.names)
            steps = max(2, int(share / step_seconds(learner, self.source, share, options)))
            short = max(1, round(steps / (1 + LONGER)))
            steps -= short  # which the plain baselines do without too, so that all are trained as long
            if name not in FAMILIES["baseline"]:
                early = copy.deepcopy(learner)
                seconds += train(early, self.source, steps=short, valid_every=0, **options).seconds
                before = self._valid(early, name)
            every = math.ceil(steps / CHECKS)
            kept = {"valid_every": every, "valid_tasks": min(100, self._valid_tasks())}
            seconds += train(learner, self.source, steps=steps, **kept, **options).seconds
        found = self._valid(learner, name)
        growth, half = 0.0, 0.0
        if before is not None:
            gained = compare(found, before, common_measure(found))
            growth, half = gained.sign * gained.difference, gained.interval
        return Trial(name, "", steps, seconds, growth, half, found), learner

    def _valid(self, learner: MetaLearner, name: str) -> Evaluation:
        return evaluate(learner, self.source, "valid", self._valid_tasks(), self.seed, name=name)

    def _valid_tasks(self) -> int:
        return min(VALID_TASKS, self.test_tasks)

    def _worth(self) -> float:
        return WORTH[self.source.spec.kind] if self.worth is None else self.worth

    def _check(self) -> None:
        if not self.seconds > 0 or self.test_tasks < 2 or not self._worth() >= 0:
            raise UserError(
                f"a verdict from {self.seconds:g} seconds, {self.test_tasks} test tasks and a gain of {self._worth():g}"
                " worth having: give more than 0 seconds, at least 2 tasks and a worth of at least 0."
            )
        for name in self.learners:
            if self.source.spec.kind not in LEARNERS[name].kinds:
                make(name, self.source.spec)  # which says what fits
        for split in ("train", "valid", "test"):
            next(draw(self.source, split, 1, self.seed))
        if self.out is None:
            return
        facts = {
            "tasks": describe(self.source, "tasks"), "seconds": self.seconds, "test_tasks": self.test_tasks,
            "seed": self.seed, "methods": self.names,
        }  # fmt: skip
        text, place = json.dumps(facts, sort_keys=True, indent=1) + "\n", self.out / "case.json"
        if place.exists() and place.read_text("utf-8") != text:
            raise UserError(
                f"{self.out} holds a verdict on other tasks or settings (see {place}): give another --out, or the "
                "settings it was begun with."
            )
        self.out.mkdir(parents=True, exist_ok=True)
        write_whole(place, text.encode())
