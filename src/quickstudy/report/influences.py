"""The influence of the examples of one task on a learner's answers, as a table."""

from __future__ import annotations

import math

import torch
from markupsafe import Markup
from torch import Tensor

from quickstudy.core.task import select
from quickstudy.influence import Influence
from quickstudy.report.drawing import style, svg
from quickstudy.report.page import Section, figure, table
from quickstudy.report.pictures import drawable, function_figure
from quickstudy.report.shown import Shown

MOST_ROWS = 10
LARGEST_DOT = 160.0
"""Square points of the dot of the most influential row."""


def influences(found: Influence, shown: Shown, prediction: Tensor, learner: str, asked_about: str = "") -> Section:
    """The rows of the support of the first task of `shown` that move the learner's answers most.

    prediction: (1, n, size), for the query with all rows. asked_about: what the task is, where it is not as the others.
    """
    y = shown.task.support.y
    classes = y.dim() == 2
    order = found.order()[:MOST_ROWS]
    finite = [float(s) for s in found.strength if math.isfinite(s)]
    top = max(finite, default=0.0) or 1.0
    lines: list[list[object]] = []
    for i in order:
        row = int(found.rows[i])
        moved = found.moved[i]
        strength = float(found.strength[i])
        at = int(moved.abs().argmax())
        j = int(found.asked[at])
        bar = 100.0 if math.isinf(strength) else 100 * strength / top
        size = Markup('<span class="bar" style="width: {:.0f}px"></span>{}').format(0.5 * bar, _number(strength))
        helped = [float(v) for v in found.helped[i] if math.isfinite(v)]
        said: list[object] = [shown.truth(0, 0, row), size, _number(sum(helped) / len(helped), "+") if helped else "—"]
        answer = f" (answered {shown.name(0, int(prediction[0, j].argmax()))})" if classes else ""
        most = Markup("{} at {}{}").format(_number(float(moved[at]), "+"), shown.portrait(1, 0, j), answer)
        if shown.columns:
            lines.append([*said, *shown.cells(0, 0, row)])
        else:
            lines.append([shown.portrait(0, 0, row), *said, most])
    kind = "class" if classes else "value"
    header = [kind, "moves an answer by" + ", nats" * classes, "lowers the loss by"]
    header = [*header, *shown.header] if shown.columns else ["example", *header, "most of all"]
    body = Markup("")
    if not classes and drawable(shown.task):
        share = torch.tensor([min(float(s) / top, 1.0) for s in found.strength])
        one = select(shown.task, slice(0, 1))
        with style():
            drawing = svg(function_figure(one, prediction, 6 + LARGEST_DOT * share))
        body = figure(drawing, "The function, its examples as large as their influence")
    label = f"The {len(order)} most influential of {len(found.rows)} examples"
    body += table(header, lines, label, "rows cells" if shown.columns else "rows most")
    return Section(
        f"Which examples make {learner} say so",
        body,
        _words(found, classes, bool(shown.columns), asked_about),
        _notes(found),
    )


def _words(found: Influence, classes: bool, cells: bool, asked_about: str) -> str:
    """What the numbers are."""
    said = (
        f"{asked_about}Each of {len(found.rows)} examples is left out in turn and the learner adapts again to the "
        "others: this is exact, no gradient is followed. "
    )
    many, last = (
        f"{len(found.asked)} asked rows",
        "" if cells else "; in the last column, with its sign, for one of them",
    )
    if classes:
        said += (
            f"The number is how far the logarithm of the probability of its answers moves, the mean over {many} "
            f"without sign{last}: +0.69 says that the answer is twice as probable with the example as without it, and "
            "-0.69 that it is half as probable. "
        )
    else:
        said += f"The number is how far its answers move, in the unit of the values, the mean over {many}{last}. "
    measure = "minus the logarithm of the probability of the truth" if classes else "that of its training"
    return said + f"The loss is {measure}, the mean over what is asked; below 0 the example does harm."


def _notes(found: Influence) -> list[str]:
    notes = []
    if math.isinf(float(found.strength.max())):
        notes.append("∞: the only example of a class that is answered; without it the class would be unknown.")
    if found.noise > 1e-3:
        notes.append(
            f"This learner draws at random as it adapts: twice the same examples moved answers by {found.noise:.2g}."
        )
    return notes


def _number(value: float, sign: str = "") -> str:
    if math.isinf(value):
        return "∞"
    return f"{value:{sign}.0f}" if abs(value) >= 10 else f"{value:{sign}.2g}"
