"""Evaluations side by side, as cells and as a table for the terminal."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

from rich import box
from rich.console import Console, Group
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


def terminal() -> Console:
    """Where tables are printed: at least 80 columns wide, and wider where no terminal folds the lines."""
    console = Console()
    file = not console.is_terminal and "COLUMNS" not in os.environ
    return Console(width=200) if file else console if console.width >= 80 else Console(width=80)


def _table(*names: str) -> Table:
    """A plain table that fits 80 columns, its first column to the left."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for i, name in enumerate(names):
        table.add_column(Text(name), justify="right" if i else "left", overflow="fold")
    return table


def evaluation_table(evaluations: Sequence[Evaluation], title: str | None = None) -> Group:
    """A table for the terminal: score, paired difference against the first, calibration, cost."""
    first, met = evaluations[0], rows(evaluations)
    calibrated = any(row.ece for row in met)
    table = _table("learner", heading(first.headline), f"against {first.learner}", *["ECE %"] * calibrated)
    for name in ("adapt ms", "state"):
        table.add_column(Text(name), justify="right")
    table.columns[2].no_wrap = True
    wide, long = max(len(row.difference) for row in met), max(len(row.verdict) for row in met)
    colours = {"better": "green", "worse": "red"}
    for row in met:
        paired = f"{row.difference:>{wide}} {row.verdict:{long}}" if row.verdict else ""
        ece = [row.ece] if calibrated else []
        table.add_row(
            Text(row.learner), row.score, Text(paired, style=colours.get(row.verdict, "")), *ece, row.adapt, row.state
        )
    return _titled(title, table, [caption(evaluations), "adapt and state: milliseconds and memory for each task"])


def shot_table(curves: Sequence[Curve]) -> Group:
    """A table for the terminal: a line for each learner, a column for each number of examples."""
    first = curves[0]
    shots = sorted({at for curve in curves for at in curve.at})
    table = _table("shots", *map(str, shots))
    for curve in curves:
        measured = dict(zip(curve.at, zip(curve.means, curve.intervals, strict=True), strict=True))
        cells = [in_words(curve.measure, *measured[at]) if at in measured else "" for at in shots]
        named = "" if curve.measure == first.measure else f", {heading(curve.measure)}"
        table.add_row(Text(f"{curve.learner}{named}"), *cells)
    notes = list(dict.fromkeys(note for curve in curves for note in curve.notes))
    return _titled(f"{heading(first.measure)} by number of examples, over {first.tasks} tasks", table, notes)


def curve_table(curve: Curve) -> Group:
    """A table for the terminal: the measure at each point of a curve."""
    table = _table({"shot": "shots", "step": "inner steps"}[curve.axis], heading(curve.measure))
    for at, mean, half in zip(curve.at, curve.means, curve.intervals, strict=True):
        table.add_row(str(at), in_words(curve.measure, mean, half))
    return _titled(f"{curve.learner}: {heading(curve.measure)} over {curve.tasks} tasks", table, curve.notes)


def _titled(title: str | None, table: Table, notes: Sequence[str]) -> Group:
    """A table under its title and over its notes, neither of which is broken to the width of the table."""
    above = [Text(title, style="italic")] if title else []
    return Group(*above, table, *(Text(note, style="dim") for note in notes), Text())


def caption(evaluations: Sequence[Evaluation]) -> str:
    """What the numbers of a table stand on."""
    first = evaluations[0]
    return f"{first.tasks} {first.split} tasks of {first.source}, seed {first.seed}; ± is the 95 % interval"
