"""Which classes a learner takes for which, over all tasks, with some of the rows it got wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from markupsafe import Markup

from quickstudy.report.page import Section, folded, gallery, table
from quickstudy.report.shown import clipped

MOST_CONFUSED, MOST_EXAMPLES, MOST_IN_MATRIX = 8, 4, 12


@dataclass
class Confusion:
    """Rows of one class that were taken for another.

    times: how many; of: how many rows of the class were asked where the other was among the task's classes.
    where: (task, row of the query) of the first few.
    """

    true: str
    said: str
    times: int = 0
    of: int = 0
    where: list[tuple[int, int]] = field(default_factory=list)

    @property
    def share(self) -> float:
        return self.times / self.of


def confusions(y: np.ndarray, said: np.ndarray, weight: np.ndarray, names: Sequence[Sequence[str]]) -> list[Confusion]:
    """All pairs of classes that were confused, the most frequent first; of equal ones the larger share.

    y, said: (task, n), numbers of classes; weight: (task, n), 0 for padding; names: of each task, by these numbers.

    >>> y, said = np.array([[0, 0, 1]]), np.array([[0, 1, 1]])
    >>> [(c.true, c.said, c.times, c.of) for c in confusions(y, said, np.ones((1, 3)), [["cat", "dog"]])]
    [('cat', 'dog', 1, 2)]
    """
    found, asked = _tallies(y, said, weight, names)
    for (true, other), one in found.items():
        one.of = asked[true, other]
    return sorted(found.values(), key=lambda one: (-one.times, -one.share, one.true, one.said))


def _tallies(
    y: np.ndarray, said: np.ndarray, weight: np.ndarray, names: Sequence[Sequence[str]]
) -> tuple[dict[tuple[str, str], Confusion], dict[tuple[str, str], int]]:
    found: dict[tuple[str, str], Confusion] = {}
    asked: dict[tuple[str, str], int] = {}
    for t, of_task in enumerate(names):
        real = weight[t] > 0
        present = dict.fromkeys(of_task)
        counts = np.bincount(y[t][real], minlength=len(of_task))
        for label, count in enumerate(counts.tolist()):
            for other in present if count else ():
                if other != of_task[label]:
                    pair = of_task[label], other
                    asked[pair] = asked.get(pair, 0) + count
        for i in (real & (y[t] != said[t])).nonzero()[0].tolist():
            pair = of_task[int(y[t, i])], of_task[int(said[t, i])]
            one = found.setdefault(pair, Confusion(*pair))
            one.times += 1
            if len(one.where) < MOST_EXAMPLES:
                one.where.append((t, i))
    return found, asked


@dataclass(frozen=True)
class Matrix:
    """How often rows of each class (line) were called each class (column): (class, class)."""

    names: list[str]
    counts: list[list[int]]


def matrix(y: np.ndarray, said: np.ndarray, weight: np.ndarray, names: Sequence[Sequence[str]]) -> Matrix | None:
    """The whole table; None where there are more classes than one can take in."""
    known = sorted({name for of_task in names for name in of_task})
    if len(known) > MOST_IN_MATRIX:
        return None
    place = {name: i for i, name in enumerate(known)}
    counts = np.zeros((len(known), len(known)), dtype=int)
    for t, of_task in enumerate(names):
        for i in (weight[t] > 0).nonzero()[0].tolist():
            counts[place[of_task[int(y[t, i])]], place[of_task[int(said[t, i])]]] += 1
    return Matrix(known, counts.tolist())


Portraits = Callable[[str, str, list[tuple[int, int]]], dict[str, list[Markup]]]
"""(true class, said class, rows) -> rows of examples by what they are called."""


def confused(
    found: Sequence[Confusion],
    whole: Matrix | None,
    portraits: Portraits,
    learner: str,
    wrong: int,
    rows: int,
    pairs: int,
) -> Section:
    """The pairs that are confused most, with examples.

    wrong, rows: how many of how many answers were wrong; pairs: how many pairs of classes were confused at all.
    """
    title = f"What {learner} takes for what"
    words = f"{wrong:,} of {rows:,} answers were wrong, of {pairs:,} different pairs of classes."
    if not found:
        return Section(title, Markup(""), f"All {rows:,} answers were right.")
    items: list[dict[str, Any]] = []
    for one in found[:MOST_CONFUSED]:
        said = f"{clipped(one.true, 60)} is taken for {clipped(one.said, 60)}"
        said += f": {one.times} of the {one.of} times that it was asked beside it"
        items.append({"words": said, "rows": list(portraits(one.true, one.said, one.where).items())})
    body = gallery(items)
    if whole is not None:
        body = _as_table(whole) + folded("The pairs confused most, with examples", body)
    elif pairs > len(items):
        words += f" These are the {len(items)} that came most often."
    return Section(title, body, words)


def _as_table(whole: Matrix) -> Markup:
    lines = []
    for name, counts in zip(whole.names, whole.counts, strict=True):
        total = max(sum(counts), 1)
        cells = [
            Markup('<span class="heat" style="background: rgba(var(--heat), {:.2f})">{}</span>').format(
                0.45 * count / total, count
            )
            for count in counts
        ]
        lines.append([clipped(name, 24), *cells])
    label = "Rows of each class (down) by what they were called (across)"
    return table(["", *(clipped(name, 24) for name in whole.names)], lines, label, "matrix")
