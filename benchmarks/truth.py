"""A verdict on a planted family beside the truth: the job of benchmarks/verdicts.py, for several processes."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from planted import Family, families

from quickstudy import checkpoint
from quickstudy.core.learner import MetaLearner
from quickstudy.core.source import Source
from quickstudy.evaluate import Evaluation, evaluate
from quickstudy.learners import LEARNERS, make
from quickstudy.questions import verdict
from quickstudy.questions.judgement import Effect, Verdict, effect
from quickstudy.questions.units import units_of
from quickstudy.questions.verdict import OPTIONS, Case, Trial
from quickstudy.train import train

LONG = 2
"""Times its share that the long run trains a method."""
TRUTH_TASKS = 600


class Trials:
    """One family after another; what is in the folder is not worked out again.

    step_ms: what a step of training counts, in place of what it takes: the answers then do not depend on how busy the
    machine is. 0 for what it takes.
    """

    def __init__(self, seconds: float, folder: str, step_ms: float):
        self.seconds = seconds
        self.folder = folder
        self.step_ms = step_ms

    def __call__(self, number: int) -> dict[str, Any]:
        if self.step_ms:
            verdict.step_seconds = lambda *_: self.step_ms / 1000
        folder = Path(self.folder)
        place = folder / f"{number}.json"
        if place.exists():
            return json.loads(place.read_text())
        found = tried(families()[number], self.seconds, folder / str(number))
        place.write_text(json.dumps(found))
        return found


def tried(family: Family, seconds: float, folder: Path) -> dict[str, Any]:
    """The verdict on a family, and the truth: the larger gain of the learner as trained and trained longer."""
    source, population = family.make(False), family.make(True)
    seen: dict[str, Trial] = {}
    case = Case(source, seconds, out=folder)
    said = case.run(watch=lambda trial: seen.__setitem__(trial.name, trial))
    own = {name: checkpoint.load(folder / f"{name}.safetensors").learner for name, trial in seen.items() if trial.valid}
    share = LONG * seconds / sum(LEARNERS[name].trained for name in case.names)
    plain = [scored(own[said.plain], population, said.plain)]
    now = gain(scored(own[said.learner], population, said.learner), plain, population, said)
    longest = [n for n in own if seen[n].plain and LEARNERS[n].trained]
    plain += [scored(longer(name, source, share), population, f"{name}, longer") for name in longest]
    late = gain(scored(longer(said.learner, source, share), population, said.learner), plain, population, said)
    best = max((now, late), key=lambda found: found.mean)
    truth = "pays" if best.low > said.worth else "does not pay" if best.high < said.worth else "near"
    return {
        "family": family.name, "shared": family.shared, "answer": said.answer, "learner": said.learner,
        "plain": said.plain, "worth": said.worth, "units": said.units, "effect": asdict(said.effect), "truth": truth,
        "now": asdict(now), "long": asdict(late), "advice": said.advice(), "lost": lost(said, now, best),
    }  # fmt: skip


def scored(learner: MetaLearner, population: Source, name: str) -> Evaluation:
    """The scores on the population."""
    return evaluate(learner, population, "test", TRUTH_TASKS, 1, name=name)


def gain(ours: Evaluation, plain: list[Evaluation], population: Source, said: Verdict) -> Effect:
    """The gain over the best of these plain baselines."""
    units = units_of(population, "test", TRUTH_TASKS, 1)
    return min((effect(ours, one, said.measure, units) for one in plain), key=lambda found: found.mean)


def longer(name: str, source: Source, seconds: float) -> MetaLearner:
    """A method trained for so many seconds."""
    torch.manual_seed(0)
    learner = make(name, source.spec, **OPTIONS.get(name, {}))
    options: dict[str, Any] = {"seed": 0, "progress": False, "clip": 10.0}
    steps = max(1, int(seconds / verdict.step_seconds(learner, source, seconds, options)))
    train(learner, source, steps=steps, valid_every=math.ceil(steps / 5), valid_tasks=100, **options)
    return learner


def lost(said: Verdict, now: Effect, best: Effect) -> float:
    """What following the answer loses: pays takes the learner as it was trained, all else the best plain baseline."""
    return max(0.0, -now.mean) if said.answer == "pays" else max(0.0, best.mean)


def outcome(row: dict[str, Any]) -> str:
    """right, wrong or abstained; near where neither answer is wrong."""
    if row["answer"] == "cannot tell":
        return "abstained"
    return "near" if row["truth"] == "near" else "right" if row["answer"] == row["truth"] else "wrong"
