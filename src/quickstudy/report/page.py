"""The report: one HTML file that needs nothing else, readable on a phone and in the dark."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from torch import Tensor

from quickstudy.core.errors import UserError
from quickstudy.core.files import write_whole
from quickstudy.core.task import Task
from quickstudy.curves import Curve
from quickstudy.report import figures
from quickstudy.report.drawing import style, svg
from quickstudy.report.pictures import drawable, task_figure
from quickstudy.scores import Evaluation, in_words
from quickstudy.tables import caption, heading, rows

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
    with style():
        sample = Markup("")
        if sample_task is not None and drawable(sample_task):
            sample = svg(task_figure(sample_task, names, predictions))
        drawn = _figures(evaluations, log, shot_curves or {}, adaptation)
    loader = PackageLoader("quickstudy.report", ".")
    here = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    page = here.get_template("page.html.jinja").render(
        title=title,
        css=Markup(loader.get_source(here, "page.css")[0]),
        answer=_answer(evaluations, answer),
        sample=sample,
        sample_words=_sample_words(first, predictions is not None),
        rows=rows(evaluations),
        first=first.learner,
        score_name=heading(first.headline),
        split_words=f"{first.tasks} {first.split} tasks",
        calibrated=any(met.ece is not None for met in evaluations),
        caption=caption(evaluations),
        published=_published(published),
        figures=drawn,
        command=command,
        made=_made(first),
        card=json.dumps(dict(card or {}), indent=2, ensure_ascii=False, default=str),
    )
    write_whole(path, page.encode())
    return Path(path)


def _answer(evaluations: Sequence[Evaluation], lead: str | None) -> dict[str, Any]:
    first, others = evaluations[0], evaluations[1:]
    table = rows(evaluations)
    said = [
        f"{met.learner.replace('_', ' ')}: {_score(met, first.headline)}"
        + (f" ({row.verdict})" if row.verdict in ("better", "worse") else "")
        for met, row in zip(others, table[1:], strict=True)
    ]
    return {"lead": lead or given_words(first), "score": f"{_score(first, first.headline)}.", "others": said}


def given_words(met: Evaluation) -> str:
    """What a learner was given, in plain words.

    "From 1 example of each of 5 classes never seen in training:"
    """
    seen = "seen in training" if met.split == "train" else "never seen in training"
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


def _sample_words(first: Evaluation, answered: bool) -> str:
    if first.kind == "regression":
        return "The learner sees the dots and nothing else of this function, and says how it goes on."
    words = "Each line is a class. The learner sees the examples on the left and labels those on the right."
    return words + (" ✓ marks a right answer, ✗ a wrong one with what was said instead." if answered else "")


def _published(given: Sequence[Mapping[str, Any]] | None) -> dict[str, Any] | None:
    if not given:
        return None
    columns = list(dict.fromkeys(name for row in given for name in row))
    return {"columns": columns, "rows": [[row.get(name, "") for name in columns] for row in given]}


def _figures(
    evaluations: Sequence[Evaluation],
    log: Sequence[Mapping[str, Any]],
    shot_curves: Mapping[str, Curve],
    adaptation: Curve | None,
) -> list[dict[str, Any]]:
    first, parts = evaluations[0], []

    def add(title: str, words: str, svg: Markup, notes: Sequence[str] = ()) -> None:
        parts.append({"title": title, "words": words, "svg": svg, "notes": list(notes)})

    if shot_curves:
        one = next(iter(shot_curves.values()))
        notes = list(dict.fromkeys(note for curve in shot_curves.values() for note in curve.notes))
        words = f"Each point is the mean over {one.tasks} {first.split} tasks; bands are 95 % intervals."
        add("More examples", words, svg(figures.shot_figure(shot_curves)), notes)
    if adaptation is not None:
        words = f"Step 0 is before adapting. The mean over {adaptation.tasks} tasks, with its 95 % interval."
        add("As it adapts", words, svg(figures.adaptation_figure(adaptation)), adaptation.notes)
    if first.reliability is not None:
        words = (
            f"Of its answers with a given confidence, how many were right; on the dashed line it may be taken "
            f"at its word. The expected calibration error is {100 * first.reliability.ece:.1f} %."
        )
        add("Can its confidence be believed?", words, svg(figures.reliability_figure(first.reliability)))
    training = figures.training_figure(log, first.headline)
    if training is not None:
        words = f"{len(log)} rows of the training log; neighbours are averaged where there are many."
        add("Training", words, svg(training))
    return parts


def _made(first: Evaluation) -> list[tuple[str, str]]:
    graphics = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    try:
        own = version("quickstudy")
    except PackageNotFoundError:
        own = "unknown"
    return [
        ("tasks", f"{first.source}, {first.split} split, evaluated with seed {first.seed}"),
        ("versions", f"quickstudy {own}, torch {torch.__version__}, Python {platform.python_version()}"),
        ("machine", f"{platform.system()} {platform.machine()}, {os.cpu_count()} processor cores{graphics}"),
        ("written", datetime.now(UTC).strftime("%Y-%m-%d")),
    ]
