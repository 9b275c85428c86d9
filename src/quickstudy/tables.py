"""Evaluations side by side, as cells and as a table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rich.table import Table
from rich.text import Text

from quickstudy.core.errors import UserError
from quickstudy.curves import Curve
from quickstudy.scores import PERCENT, Evaluation, compare, in_words


class Row(NamedTuple):
    """One evaluation in words. Empty where there is nothing to say."""

    learner: str
    score: str
    difference: str
    verdict: str
    ece: str
    adapt: str
    state: str


def in_bytes(size: float) -> str:
    """A size as people read it.

    >>> in_bytes(12), in_bytes(12_800)
    ('12 B', '12.8 kB')
    """
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def rows(evaluations: Sequence[Evaluation]) -> list[Row]:
    """Every evaluation in words, with its paired difference against the first.

    The score is the headline of the first where it was taken, else a measure that bears its name. An
    evaluation that met other tasks than the first, or shares no measure with it, has no difference.
    """
    first, made = evaluations[0], []
    for met in evaluations:
        measure = next((m for m in first.signs if m in met.signs), met.headline)
        named = "" if measure == first.headline else f" {measure}"
        difference, verdict = "", ""
        if met is not first:
            try:
                paired = compare(met, first, measure)
                difference = in_words(measure, paired.difference, paired.interval, signed=True)
                verdict = paired.verdict
            except UserError:
                verdict = "not comparable"
        made.append(
            Row(
                met.learner,
                in_words(measure, met.mean(measure), met.interval(measure)) + named,
                difference,
                verdict,
                "" if met.ece is None else f"{100 * met.ece:.1f}",
                f"{1000 * met.adapt_seconds:.2g}",
                in_bytes(met.state_bytes),
            )
        )
    return made


def heading(measure: str) -> str:
    """The name of a measure with its unit.

    >>> heading("accuracy"), heading("mse")
    ('accuracy %', 'mse')
    """
    return f"{measure.replace('_', ' ')} %" if measure in PERCENT else measure.replace("_", " ")


def evaluation_table(evaluations: Sequence[Evaluation], title: str | None = None) -> Table:
    """A table for the terminal: score, paired difference against the first, calibration, cost."""
    first = evaluations[0]
    table = Table(title=title, title_justify="left", caption=caption(evaluations), caption_justify="left")
    table.add_column("learner")
    for name in (heading(first.headline), f"against {first.learner}", "ECE %", "adapt ms/task", "state/task"):
        table.add_column(Text(name), justify="right")
    colours = {"better": "green", "worse": "red"}
    for row in rows(evaluations):
        difference = Text(f"{row.difference} {row.verdict}".strip(), style=colours.get(row.verdict, ""))
        table.add_row(Text(row.learner), row.score, difference, row.ece, row.adapt, row.state)
    return table


def curve_table(curve: Curve) -> Table:
    """A table for the terminal: the measure at each point of a curve."""
    title = f"{curve.learner}: {heading(curve.measure)} over {curve.tasks} tasks"
    table = Table(title=title, title_justify="left", caption="\n".join(curve.notes) or None, caption_justify="left")
    table.add_column({"shot": "shots", "step": "inner steps"}[curve.axis], justify="right")
    table.add_column(Text(heading(curve.measure)), justify="right")
    for at, mean, half in zip(curve.at, curve.means, curve.intervals, strict=True):
        table.add_row(str(at), in_words(curve.measure, mean, half))
    return table


def caption(evaluations: Sequence[Evaluation]) -> str:
    """What the numbers of a table stand on."""
    first = evaluations[0]
    return f"{first.tasks} {first.split} tasks of {first.source}, seed {first.seed}; ± is the 95 % interval"
