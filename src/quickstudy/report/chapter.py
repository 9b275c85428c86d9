"""What is said of a learner beside others on the same tasks: the answer, a task, the scores, and their figures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup
from torch import Tensor

from quickstudy.calibration import Reliability
from quickstudy.core.errors import UserError
from quickstudy.core.task import Task
from quickstudy.curves import Curve
from quickstudy.report import figures
from quickstudy.report.drawing import style, svg
from quickstudy.report.page import Chapter, Section, circumstances, coloured, figure, folded, table, write_page
from quickstudy.report.pictures import drawable, task_figure
from quickstudy.scores import Evaluation, in_words
from quickstudy.tables import caption, heading, rows

TABLES = ("table", "tables", "series")
"""Sources whose tasks are parts of tables: a class, if there is one, means the same in all of them."""
LEVELS = (*(round(0.1 * i, 1) for i in range(1, 10)), 0.95)
"""What an interval is to hold, for the calibration of values."""
_IN_FULL = {"mse": "mean squared error", "log_likelihood": "log likelihood", "coverage_90": "90 % coverage, %"}


def write_report(
    path: str | Path,
    *,
    title: str,
    command: str,
    evaluations: Sequence[Evaluation],
    log: Sequence[Mapping[str, Any]] = (),
    shot_curves: Mapping[str, Curve] | None = None,
    adaptation: Curve | None = None,
    sample_task: Task | None = None,
    predictions: Tensor | None = None,
    names: Sequence[str] | None = None,
    card: Mapping[str, Any] | None = None,
    published: Sequence[Mapping[str, Any]] | None = None,
    answer: str | None = None,
) -> Path:
    """Write the report of a learner (the first evaluation) beside its baselines (the others).

    command: what a reader types to get the same. log: the rows of training, {step, loss, score, ...}.
    sample_task, predictions, names: one task, `predict`'s answer for its query, its class names.
    card: the learner as JSON holds it. published: rows to stand beside, with the same keys.
    answer: how the first sentence begins, in place of "From 1 example of each of 5 classes ...:".

    Raises UserError without evaluations, or if the file cannot be written (an old one survives).
    """
    if not evaluations:
        raise UserError("a report needs at least one evaluation: evaluate the learner first.")
    first = evaluations[0]
    parts = [
        drawn_task(sample_task, names, predictions),
        scores(evaluations),
        published_rows(published),
        shots(shot_curves or {}, first),
        steps(adaptation),
        calibration({met.learner: met.reliability for met in evaluations[:1] if met.reliability}),
        training({first.learner: log}, first),
    ]
    chapter = Chapter(answered(evaluations, answer), [part for part in parts if part])
    text = json.dumps(dict(card or {}), indent=2, ensure_ascii=False, default=str)
    return write_page(path, title, [chapter], command, made(first), [("The card of the learner", text)])


def made(first: Evaluation) -> list[tuple[str, str]]:
    """On which tasks, and in what circumstances, an evaluation was made."""
    return [("tasks", f"{first.source}, {first.split} split, evaluated with seed {first.seed}"), *circumstances()]


def answered(evaluations: Sequence[Evaluation], lead: str | None = None) -> dict[str, Any]:
    """The first sentence: what the first learner came to, and the others beside it."""
    first, others = evaluations[0], evaluations[1:]
    said = [
        f"{met.learner.replace('_', ' ')}: {_score(met, first.headline)}"
        + (f" ({row.verdict})" if row.verdict in ("better", "worse") else "")
        for met, row in zip(others, rows(evaluations)[1:], strict=True)
    ]
    return {"lead": lead or given_words(first), "score": f"{_score(first, first.headline)}.", "others": said}


def given_words(met: Evaluation) -> str:
    """What a learner was given, in plain words.

    "From 1 example of each of 5 classes never seen in training:"
    """
    seen = "seen in training" if met.split == "train" else "never seen in training"
    if met.source in TABLES:
        many = "a few rows" if met.shot is None or met.kind != "regression" else f"{met.shot} rows"
        return f"From {many} of a task {seen}:"
    if met.kind == "regression":
        many = "a few points" if met.shot is None else f"{met.shot} point{'s' * (met.shot != 1)}"
        return f"From {many} of a function {seen}:"
    many = "a few examples" if met.shot is None else f"{met.shot} example{'s' * (met.shot != 1)}"
    of = "each class, of classes" if met.way is None else f"each of {met.way} classes"
    if met.shot == 0:  # zero-shot
        return f"From a description of {of.split(',')[0]} and no example:"
    return f"From {many} of {of} {seen}:"


def _score(met: Evaluation, measure: str) -> str:
    measure = measure if measure in met.measures else met.headline
    words = in_words(measure, met.mean(measure), met.interval(measure))
    if measure == "accuracy":
        return f"{words} % right"
    return f"{_IN_FULL.get(measure, heading(measure))} {words}"


def drawn_task(task: Task | None, names: Sequence[str] | None, predictions: Tensor | None) -> Section | None:
    """A task of images, of points of the plane or of a function, as a picture; None for another."""
    if task is None or not drawable(task):
        return None
    with style():
        drawing = svg(task_figure(task, names, predictions))
    if task.query.y.dim() == 3:
        words = "The learner sees the dots and nothing else of this function, and says how it goes on."
    else:
        words = "Each line is a class. The learner sees the examples on the left and labels those on the right."
        words += " ✓ marks a right answer, ✗ a wrong one with what was said instead." * (predictions is not None)
    label = "A task: what was learnt from and what was asked"
    return Section("One task, as the learner meets it", figure(drawing, label, "task"), words)


def scores(evaluations: Sequence[Evaluation]) -> Section:
    """What every learner came to, and its paired difference from the first."""
    first, calibrated = evaluations[0], any(met.ece is not None for met in evaluations)
    header = ["learner", heading(first.headline), f"against {first.learner}"]
    header += ["calibration error %"] * calibrated + ["adapting, ms a task", "state a task"]
    lines = []
    for row in rows(evaluations):
        difference = Markup("{} {}").format(row.difference, coloured(row.verdict))
        lines.append([row.learner, row.score, difference, *[row.ece] * calibrated, row.adapt, row.state])
    title = f"Scores on {first.tasks} {first.split} tasks"
    words = (
        f"{caption(evaluations)}. The difference is taken task by task, on the same tasks; “cannot tell” means that "
        "its interval holds zero."
    )
    return Section(title, table(header, lines, title, "scores"), words)


def published_rows(given: Sequence[Mapping[str, Any]] | None) -> Section | None:
    """What others published, to stand beside."""
    if not given:
        return None
    columns = list(dict.fromkeys(name for row in given for name in row))
    lines = [[row.get(name, "") for name in columns] for row in given]
    return Section("Published results", table(columns, lines, "Published results"))


def shots(curves: Mapping[str, Curve], first: Evaluation, axis: str | None = None) -> Section | None:
    """Scores by the number of examples."""
    if not curves:
        return None
    one = next(iter(curves.values()))
    notes = list(dict.fromkeys(note for curve in curves.values() for note in curve.notes))
    words = f"Each point is the mean over {one.tasks} {first.split} tasks; bands are 95 % intervals."
    with style():
        drawing = svg(figures.shot_figure(curves, axis))
    at = sorted({shot for curve in curves.values() for shot in curve.at})
    lines = []
    for name, curve in curves.items():
        known = {
            shot: in_words(curve.measure, mean, half)
            for shot, mean, half in zip(curve.at, curve.means, curve.intervals, strict=True)
        }
        lines.append([name, *(known.get(shot, "") for shot in at)])
    label = f"{heading(one.measure)} by the number of {axis or 'examples'}"
    numbers = folded("The same in numbers", table(["learner", *at], lines, label))
    return Section("More examples", figure(drawing, label) + numbers, words, notes)


def steps(curve: Curve | None) -> Section | None:
    """Scores by the number of inner steps."""
    if curve is None:
        return None
    words = f"Step 0 is before adapting. The mean over {curve.tasks} tasks, with its 95 % interval."
    with style():
        drawing = svg(figures.adaptation_figure(curve))
    body = figure(drawing, f"{heading(curve.measure)} of {curve.learner} by the number of inner steps")
    return Section("As it adapts", body, words, curve.notes)


def calibration(found: Mapping[str, Reliability]) -> Section | None:
    """Whether the probabilities that learners state can be believed."""
    if not found:
        return None
    said = [f"{100 * one.ece:.1f} %" + f" for {name}" * (len(found) > 1) for name, one in found.items()]
    words = (
        "Of its answers with a given confidence, how many were right; on the dashed line it may be taken at its word. "
        "The area of a dot is the share of answers. "
        f"The expected calibration error is {', '.join(said)}."
    )
    with style():
        drawing = svg(figures.reliability_figure(found))
    return Section("Can its confidence be believed?", figure(drawing, "Reliability diagram"), words)


def coverage(said: Mapping[str, Mapping[str, Any]]) -> Section:
    """Whether intervals round predicted values hold what they should.

    said: of each learner, "held" (the share of true values in the intervals of each of `LEVELS`) and "stated" (whether
    it states a deviation).
    """
    with style():
        drawing = svg(figures.coverage_figure({name: (LEVELS, one["held"]) for name, one in said.items()}))
    at = LEVELS.index(0.9)
    parts = [f"{100 * one['held'][at]:.1f} %" + f" for {name}" * (len(said) > 1) for name, one in said.items()]
    words = (
        "Of the true values, how many lay in an interval that should hold so many of them; above the dashed line it is "
        f"wider than need be, below it too narrow. An interval of 90 % held {', '.join(parts)}."
    )
    notes = [
        f"{name} does not say how sure it is: its deviation is how far it was off on examples left out of the support."
        for name, one in said.items()
        if not one["stated"]
    ]
    return Section("Can its confidence be believed?", figure(drawing, "Stated and found coverage"), words, notes)


def training(logs: Mapping[str, Sequence[Mapping[str, Any]]], first: Evaluation) -> Section | None:
    """Loss and validation scores along the way."""
    with style():
        drawn = figures.training_figure(logs, first.headline)
        if drawn is None:
            return None
        drawing = svg(drawn)
    count = sum(map(len, logs.values()))
    words = f"{count} rows of the training log; neighbours are averaged where there are many."
    return Section("Training", figure(drawing, "Loss and validation score over the outer steps"), words)
