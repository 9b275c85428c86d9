"""Runs and plain baselines against each other, two by two, on the same tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from quickstudy.core.errors import UserError
from quickstudy.report.page import Section, coloured, table
from quickstudy.scores import Comparison, Evaluation, compare, in_words
from quickstudy.tables import heading

MOST_PAIRS = 60


@dataclass(frozen=True)
class Pair:
    """Two learners on the same tasks.

    wider: half the 95 % interval if what the tasks were drawn from (classes, say) were drawn anew too; None where each
    task is a draw of its own. failed: why they cannot be compared, in place of `found`.
    """

    a: str
    b: str
    found: Comparison | None
    wider: float | None = None
    failed: str = ""


def pairs(evaluations: Sequence[Evaluation], runs: int) -> list[Pair]:
    """Every run (the first `runs` evaluations) against every other learner, by the first measure both have."""
    made = []
    for i, j in combinations(range(len(evaluations)), 2):
        if i >= runs:
            continue
        a, b = evaluations[i], evaluations[j]
        try:
            made.append(Pair(a.learner, b.learner, compare(a, b)))
        except UserError as error:
            made.append(Pair(a.learner, b.learner, None, failed=str(error)))
    return made


def compared(made: Sequence[Pair], unit: str = "task") -> Section | None:
    """The differences with their intervals and what they say; unit: what `wider` takes for the unit of chance."""
    if not made:
        return None
    shown = list(made)[:MOST_PAIRS]
    wider = any(pair.wider is not None for pair in shown)
    over = {"class": "over classes", "group": "over groups of classes"}.get(unit, f"over {unit}s")
    header = ["learner", "against", "verdict", "difference", "measure", *[f"interval {over}"] * wider]
    lines: list[list[object]] = []
    for pair in shown:
        one = pair.found
        if one is None:
            lines.append([pair.a, pair.b, coloured("not comparable"), "", "", *[""] * wider])
            continue
        line: list[object] = [pair.a, pair.b, coloured(one.verdict)]
        line += [in_words(one.measure, one.difference, one.interval, signed=True), heading(one.measure)]
        if wider:
            line.append("" if pair.wider is None else in_words(one.measure, one.difference, pair.wider, signed=True))
        lines.append(line)
    count = len(made)
    words = (
        "Each difference is the first less the second, the mean over the same tasks, with its 95 % interval: “better” "
        "and “worse” are said where that leaves 0 out. "
    )
    if count > 1:
        words += (
            f"Of {count} comparisons of equally good learners, {max(0.05 * count, 0.1):.1f} would be called different "
            "by chance. "
        )
    if wider:
        words += (
            f"The tasks share their classes. The interval {over} holds if other classes were drawn too: where it holds "
            "0, what is said is said of these classes and no others."
        )
    notes = list(dict.fromkeys(pair.failed for pair in shown if pair.failed))
    notes += [f"{count - MOST_PAIRS} more pairs are left out."] * (count > MOST_PAIRS)
    return Section("Compared on the same tasks", table(header, lines, "Paired differences", "pairs rows"), words, notes)
