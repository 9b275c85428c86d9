"""Drawing a support and a query from the rows of a task: what each may hold, and how often."""

from __future__ import annotations

import numpy as np
import torch

from quickstudy.core.source import generator
from quickstudy.tasks.drawing import AnyLabelled, AnyRows, Cuts, EachClass, Span, known

COUNTS = torch.tensor([7, 12, 9])
START = COUNTS.cumsum(0) - COUNTS
SPAN = Span(torch.arange(3), START, START + COUNTS)
ROWS = int(COUNTS.sum())


def rng() -> torch.Generator:
    return generator(0, "drawing")


def inside(drawn) -> None:
    """Rows are of their task, and none is in both parts."""
    for owner, support, sw, query, qw in zip(*drawn, strict=True):
        a, b = support[sw > 0].tolist(), query[qw > 0].tolist()
        assert all(START[owner] <= row < START[owner] + COUNTS[owner] for row in a + b)
        assert len(set(a + b)) == len(a + b) and a and b


def test_any_rows_of_a_task_are_equally_likely() -> None:
    drawer = AnyRows.of(SPAN, (3, 3), (4, 4))
    drawn = drawer.draw(6000, rng())
    inside(drawn)
    seen = torch.bincount(drawn.support.flatten(), minlength=ROWS).double()
    # tasks equally likely, then rows: 2000 tasks of n rows, 3 of each in the support
    wanted = (2000 * 3 / COUNTS).repeat_interleave(COUNTS)
    assert ((seen - wanted).abs() < 6 * wanted.sqrt()).all()


def test_a_task_too_short_is_left_out() -> None:
    assert AnyRows.of(SPAN, (4, 4), (4, 4)).tasks.tolist() == [1, 2]
    assert AnyRows.of(SPAN, (1, 8), (1, 8)).tasks.tolist() == []


def test_rows_of_every_class() -> None:
    y = torch.tensor([0, 1, 0, 1, 0, 1, 2] + [0, 1, 2] * 4 + [1] * 9)
    drawer = EachClass.of(SPAN, y, 3, (1, 1), (2, 2))
    assert drawer.tasks.tolist() == [0, 1]  # the third has one class
    drawn = drawer.draw(200, rng())
    inside(drawn)
    for owner, support, weight in zip(drawn.owner, drawn.support, drawn.support_weight, strict=True):
        assert y[support[weight > 0]].tolist() == ([0, 1] if owner == 0 else [0, 1, 2])


def test_labelled_rows_ask_only_what_was_shown() -> None:
    y = torch.tensor([0, 1, 0, 1, 2, 3, 4] + [0] * 6 + [1] * 6 + [5, 6, 7, 8, 0, 1, 2, 3, 4])
    drawer = AnyLabelled.of(SPAN, y, (2, 4), (3, 3))
    assert drawer.tasks.tolist() == [0, 1]  # no class of the third comes twice
    drawn = drawer.draw(500, rng())
    inside(drawn)
    assert {int(n) for n in drawn.support_weight.sum(1)} == {2, 3, 4}
    shown = known(y[drawn.support], drawn.support_weight, y[drawn.query])
    assert (shown == (drawn.query_weight > 0)).all() and not shown.all()


def moments() -> np.ndarray:
    """Rising times of every task, some of them twice."""
    return np.concatenate([np.arange(int(n)) // 2 for n in COUNTS]).astype(float)


def cuts(shot: int, query: int):
    t = moments()

    def of(task: int, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        at = np.arange(first + shot, last - query + 1)
        at = at[t[at - 1] < t[at]]
        return at, at - shot

    return of


def test_the_support_is_the_past() -> None:
    t = torch.from_numpy(moments())
    for far in (False, True):
        drawn = Cuts.of(SPAN, cuts(3, 2), (1, 3), (2, 2), far=far).draw(500, rng())
        inside(drawn)
        latest = torch.where(drawn.support_weight > 0, t[drawn.support], -1).amax(1)
        assert (latest < t[drawn.query].amin(1)).all()
        # the last rows before the cut, as many as were drawn
        assert {int(n) for n in drawn.support_weight.sum(1)} == {1, 2, 3}
        ends = torch.where(drawn.support_weight > 0, drawn.support, -1).amax(1)
        gap = drawn.query[:, 0] - ends
        assert (gap == 1).all() if not far else ((gap >= 1).all() and (gap > 1).any())


def test_what_lies_between_is_dealt_at_random() -> None:
    drawn = Cuts.of(SPAN, cuts(3, 2), (3, 3), (2, 2), mix=True).draw(500, rng())
    inside(drawn)
    both = torch.cat([drawn.support, drawn.query], 1).sort(1).values
    assert (both.diff(dim=1) == 1).all()
    assert (drawn.support.amax(1) > drawn.query.amin(1)).any()
