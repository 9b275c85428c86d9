"""What is measured of runs and plain baselines on one set of tasks, or found where it was kept."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jsonargparse import Namespace
from scipy.special import ndtri

from quickstudy.cli.evaluating import baselines
from quickstudy.cli.trained import watched
from quickstudy.core.errors import UserError
from quickstudy.core.learner import MetaLearner
from quickstudy.core.source import Source
from quickstudy.curves import Curve
from quickstudy.evaluate import BLOCK, evaluate, fingerprint
from quickstudy.questions.answers import Answers, answers
from quickstudy.report.chapter import LEVELS
from quickstudy.report.confusions import confusions, matrix
from quickstudy.report.runs import Kept, RunFiles
from quickstudy.report.shown import class_names
from quickstudy.scores import Evaluation

KEPT_PAIRS = 50
"""Pairs of classes that are kept, of those that are confused."""


@dataclass(frozen=True)
class Entrant:
    """A learner that is measured: a run's, or a baseline.

    identity: the digest of a run's file, or the card of a baseline.
    """

    label: str
    learner: MetaLearner
    source: Source
    identity: Any


@dataclass
class Group:
    """Runs on the same tasks."""

    runs: Sequence[RunFiles]
    labels: Sequence[str]
    sources: Sequence[Source]
    options: Namespace

    @cached_property
    def entrants(self) -> list[Entrant]:
        """The runs, and behind them the plain baselines."""
        device = torch.device(self.options.device)
        found = [
            Entrant(label, run.trained.learner.to(device), source, run.digest)
            for run, label, source in zip(self.runs, self.labels, self.sources, strict=True)
        ]
        source = self.sources[0]
        for name, learner in baselines(self.options.baselines, source, self.options.seed).items():
            if name not in self.labels:
                found.append(Entrant(name, learner.to(device), source, {"baseline": name}))
        return found

    def kept(self, number: int) -> Kept:
        """Where results of an entrant are kept: beside its run; those of a baseline, beside the first run."""
        return self._kept[number if number < len(self.runs) else 0]

    @cached_property
    def _kept(self) -> list[Kept]:
        return [Kept(run, self.options.again) for run in self.runs]

    def digest(self, source: Source, tasks: int) -> str:
        """The digest of the tasks: results are found again by it, and not if the data changed."""
        return fingerprint(source, self.options.split, tasks, self.options.seed)

    def facts(self, entrant: Entrant, digest: str, what: str) -> dict[str, Any]:
        seed = self.options.seed
        return {"what": what, "learner": entrant.identity, "tasks": digest, "split": self.options.split, "seed": seed}

    def measured(self, number: int, drawn: tuple[Source, str], tasks: int, about: str = "") -> Evaluation:
        """What one entrant scores on the tasks of a source, given with their digest."""
        entrant, split, seed = self.entrants[number], self.options.split, self.options.seed
        source, digest = drawn

        def make() -> Evaluation:
            with watched(f"evaluating {entrant.label}{about}", tasks) as watch:
                return evaluate(entrant.learner, source, split, tasks, seed, name=entrant.label, watch=watch)

        facts = self.facts(entrant, digest, "evaluation")
        return self.kept(number).evaluation(entrant.label, facts, make)

    @cached_property
    def digests(self) -> list[str]:
        """Of the test tasks, for each entrant: those of one source are drawn once."""
        known: dict[int, str] = {}
        for one in self.entrants:
            if id(one.source) not in known:
                known[id(one.source)] = self.digest(one.source, self.options.test_tasks)
        return [known[id(one.source)] for one in self.entrants]

    @cached_property
    def evaluations(self) -> list[Evaluation]:
        found = []
        for number, entrant in enumerate(self.entrants):
            found.append(self.measured(number, (entrant.source, self.digests[number]), self.options.test_tasks))
            print(f"  {entrant.label}: {found[-1]}", flush=True)
        return found

    def rng(self, source: Source, index: int) -> torch.Generator:
        """As the tasks of a block are drawn with."""
        return source.rng(self.options.seed, self.options.split, "evaluate", index)

    def curves(self) -> tuple[dict[str, Curve], list[str]]:
        """Scores with more and fewer examples, by a measure that all have; and what could not be measured."""
        met, tasks = self.evaluations, self.options.curve_tasks
        asked = [i for i, entrant in enumerate(self.entrants) if entrant.label != "chance"]
        common = [m for m in met[0].signs if all(m in met[i].signs for i in asked)] or [met[0].headline]
        notes: list[str] = []
        found: dict[str, dict[int, Evaluation]] = {}
        for shot in self.options.shots:
            known: dict[int, tuple[Source, str]] = {}
            for i in asked:
                source, label = self.entrants[i].source, self.entrants[i].label
                try:
                    if id(source) not in known:
                        changed = source.reshaped(shot=shot)
                        known[id(source)] = changed, self.digest(changed, tasks)
                    one = self.measured(i, known[id(source)], tasks, f" with {shot} examples")
                    found.setdefault(label, {})[shot] = one
                except UserError as error:
                    notes.append(f"{shot} examples left out: {error}")
        made = {
            name: _curve(by, common[0], met[0].signs[common[0]], tasks)
            for name, by in found.items()
            if all(common[0] in one.signs for one in by.values())
        }
        return made, list(dict.fromkeys(notes))

    def answers(self, number: int) -> dict[str, Any]:
        """What the answers of a run come to, as JSON holds it: confusions, or how much its intervals hold."""
        options = self.options
        entrant, split, count, seed = self.entrants[number], options.split, options.test_tasks, options.seed

        def make() -> dict[str, Any]:
            with watched(f"asking {entrant.label}", count) as watch:
                found = answers(entrant.learner, entrant.source, split, count, seed, watch)
            if found.kind == "regression":
                return {"held": held(found), "stated": found.stated}
            names: list[list[str]] = []
            for index in range(math.ceil(count / BLOCK)):
                size = min(BLOCK, count - index * BLOCK)
                names += class_names(entrant.source, split, size, self.rng(entrant.source, index))
            said = found.out.argmax(-1)
            if not all(names):
                return {}
            pairs_found = confusions(found.y, said, found.weight, names)
            whole = matrix(found.y, said, found.weight, names)
            return {
                "pairs": [asdict(one) for one in pairs_found[:KEPT_PAIRS]],
                "different": len(pairs_found),
                "wrong": int(((said != found.y) & (found.weight > 0)).sum()),
                "rows": int((found.weight > 0).sum()),
                "matrix": whole and asdict(whole),
            }

        return self.kept(number).result(self.facts(entrant, self.digests[number], "answers"), make)


def _curve(by: Mapping[int, Evaluation], measure: str, sign: int, tasks: int) -> Curve:
    means, halves = [one.mean(measure) for one in by.values()], [one.interval(measure) for one in by.values()]
    return Curve(next(iter(by.values())).learner, "shot", measure, sign, tasks, list(by), means, halves)


def held(found: Answers) -> list[float]:
    """The share of values within the intervals that are to hold each of `LEVELS` of them."""
    assert found.deviation is not None
    real = found.weight > 0
    off = np.abs(found.y - found.out)[real]
    deviation = found.deviation[real]
    known = np.isfinite(deviation)
    within = off[known] / deviation[known].clip(1e-12)
    return [float((within <= ndtri(0.5 + level / 2)).mean()) if known.any() else 0.0 for level in LEVELS]
