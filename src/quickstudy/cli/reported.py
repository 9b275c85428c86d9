"""What a report says of runs on one set of tasks: a chapter of sections, made of what was measured."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from markupsafe import Markup

from quickstudy.cli.measured import Group
from quickstudy.core.catalogue import describe
from quickstudy.core.errors import UserError
from quickstudy.core.learner import MetaLearner
from quickstudy.core.source import Source, Split
from quickstudy.evaluate import BLOCK, draw_block, evaluating, name_of, ready
from quickstudy.influence import influence
from quickstudy.questions.units import unit_interval, units_of
from quickstudy.report.chapter import answered, calibration, coverage, scores, shots, training
from quickstudy.report.comparisons import Pair, compared, pairs
from quickstudy.report.confusions import Confusion, Matrix, Portraits, confused
from quickstudy.report.influences import influences
from quickstudy.report.page import Chapter, Section
from quickstudy.report.samples import sample
from quickstudy.report.shown import Shown
from quickstudy.tasks.pool import ClassSource

CLOSELY = 4
"""Runs whose confusions and influences are shown."""
MOST_LEFT_OUT = 200
"""Examples of a task that are left out one by one, at most."""
FEW_SHOTS = 5
"""Examples of a class in the task whose examples are left out, where the tasks show one."""


def chapter(group: Group, title: str) -> Chapter:
    """All that is said of these runs."""
    met = group.evaluations
    parts: list[Section | None] = [
        *samples(group),
        scores(met),
        comparison(group),
        more_examples(group),
        training({label: run.log for run, label in zip(group.runs, group.labels, strict=True)}, met[0]),
        *trusted(group),
        *influence_of(group),
    ]
    return Chapter(answered(met), [part for part in parts if part], title)


def comparison(group: Group) -> Section | None:
    """Two by two, with the interval over what the tasks were drawn from where they share it."""
    met, split, count = group.evaluations, group.options.split, group.options.test_tasks
    units = units_of(group.sources[0], split, count, group.options.seed)
    by_name = {one.learner: one for one in met}

    def with_units(pair: Pair) -> Pair:
        if units.members is None or pair.found is None:
            return pair
        a, b = (by_name[name].values(pair.found.measure) for name in (pair.a, pair.b))
        half = unit_interval(np.subtract(a, b), units)
        return replace(pair, wider=half if math.isfinite(half) else None)

    made = [with_units(pair) for pair in pairs(met, len(group.runs))]
    section = compared(made, units.name)
    return replace(section, notes=[*section.notes, units.note]) if section and units.note else section


def more_examples(group: Group) -> Section | None:
    """Scores with more and fewer examples."""
    curves, notes = group.curves()
    by_class = isinstance(group.sources[0], ClassSource)
    section = shots(curves, group.evaluations[0], None if by_class else "examples")
    if section and not by_class and group.evaluations[0].kind == "classification":
        notes = [
            *notes,
            "Only classes among the examples are asked: fewer examples make fewer classes, and less to ask.",
        ]
    return replace(section, notes=notes) if section else None


def trusted(group: Group) -> list[Section | None]:
    """Whether what is said of confidence can be believed, and what is taken for what."""
    met = group.evaluations
    few = range(min(len(group.runs), CLOSELY))
    if met[0].kind == "regression":
        return [coverage({group.labels[i]: group.answers(i) for i in few})]
    known = {met[i].learner: bins for i in range(len(group.runs)) if (bins := met[i].reliability)}
    return [calibration(known), *(confusion(group, i) for i in few)]


def confusion(group: Group, number: int) -> Section | None:
    said = group.answers(number)
    if not said:
        return None
    entrant = group.entrants[number]
    found = [Confusion(**{**one, "where": [(t, i) for t, i in one["where"]]}) for one in said["pairs"]]
    whole = Matrix(**said["matrix"]) if said["matrix"] else None
    counts = said["wrong"], said["rows"], said["different"]
    return confused(found, whole, _portraits(group, entrant.source), entrant.label, *counts)


def _portraits(group: Group, source: Source) -> Portraits:
    options, blocks = group.options, {}

    def portraits(true: str, said: str, where: list[tuple[int, int]]) -> dict[str, list[Markup]]:
        asked: list[Markup] = []
        taken: list[Markup] = []
        for t, i in where:
            index, place = divmod(t, BLOCK)
            if index not in blocks:
                task = draw_block(source, options.split, options.test_tasks, options.seed, index)
                blocks[index] = Shown(source, options.split, task, group.rng(source, index))
            shown = blocks[index]
            asked.append(shown.portrait(1, place, i))
            support = shown.task.support
            label = shown.classes[place].index(said)
            rows = ((support.y[place] == label) & (support.weight[place] > 0)).nonzero().flatten().tolist()
            known = [shown.portrait(0, place, row) for row in rows[:1] if not shown.zero_shot]
            taken += [one for one in known if len(taken) < 2 and one not in taken]
        return {"asked": asked} | ({f"examples of {said}": taken} if taken else {})

    return portraits


def samples(group: Group) -> list[Section]:
    """Some tasks with the answers of the first run."""
    count = group.options.samples
    if not count:
        return []
    entrant = group.entrants[0]
    shown, prediction, learner = _drawn(group, entrant.source, entrant.learner, count)
    return [sample(shown, t, learner.objective, prediction, t + 1) for t in range(count)]


def _drawn(group: Group, source: Source, learner: MetaLearner, count: int) -> tuple[Shown, torch.Tensor, MetaLearner]:
    split: Split = group.options.split
    words = (group.options.seed, split, "sample task")
    task = source.sample(split, count, source.rng(*words))
    learner = ready(learner, source)
    with evaluating(learner, group.options.seed):
        prediction = learner.predict(learner.adapt(task.support), task.query.x, task.query.weight)
    return Shown(source, split, task, source.rng(*words)), prediction.cpu(), learner


def influence_of(group: Group) -> list[Section]:
    """Which examples of one task make each run say what it says."""
    made = []
    for entrant in group.entrants[: min(len(group.runs), CLOSELY)]:
        source, about = _left_out_from(group, entrant.source)
        if source is None:
            continue
        shown, prediction, learner = _drawn(group, source, entrant.learner, 1)
        if not 2 <= int((shown.task.support.weight > 0).sum()) <= MOST_LEFT_OUT:
            continue
        with evaluating(learner, group.options.seed):
            found = influence(learner, shown.task)
        made.append(influences(found, shown, prediction, entrant.label, about))
    return made


def _left_out_from(group: Group, source: Source) -> tuple[Source | None, str]:
    """The source of the task whose examples are left out, and how it differs; None where there is none."""
    if source.spec.kind == "zero-shot":
        return None, ""
    if isinstance(source, ClassSource) and source.shot == 1:
        try:
            more = source.reshaped(shot=FEW_SHOTS)
            more.sample(group.options.split, 1, more.rng(0))
            few = f"In this task every class has {FEW_SHOTS} examples, so that one can be left out. "
            return more, few
        except UserError:
            pass  # its classes have too few rows for that
    return source, ""


def tasks_of(source: Source) -> str:
    """The name of a source and its options, in short."""
    card = describe(source, "tasks")
    few = [f"{k} {card[k]}" for k in ("way", "shot") if k in card]
    return f"{name_of(source, 'tasks')}" + (f" ({', '.join(few)})" if few else "")
