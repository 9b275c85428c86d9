"""Sample tasks with a learner's answers: as a picture where they can be drawn, else row by row in words."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup
from torch import Tensor

from quickstudy.core.objective import Classification, Objective, values_of
from quickstudy.core.task import select
from quickstudy.report.chapter import drawn_task
from quickstudy.report.page import Section, table
from quickstudy.report.shown import Shown

MOST_ROWS = 10
"""Rows of a support, and of a query, that are shown."""
MOST_DEVIATION = 1.6448536
"""Deviations of a normal distribution on either side that hold 90 % of it."""


def sample(shown: Shown, t: int, objective: Objective, prediction: Tensor, number: int) -> Section:
    """Task t of a batch as a learner meets it, and what it answers.

    prediction: (task, n, size), for the query. number: of the sample, for its heading; 1 for the first.
    """
    words = "One task, as the learner meets it" if number == 1 else "Another task"
    one = select(shown.task, slice(t, t + 1))
    drawn = None if shown.zero_shot else drawn_task(one, shown.classes[t] or None, prediction[t : t + 1])
    if drawn is not None:
        return Section(words, drawn.body, drawn.words)
    titled = f"{words} ({shown.titles[t]})" if shown.titles[t] else words
    said = "Classes" if shown.zero_shot else "Learnt from"
    body = Markup("") if shown.zero_shot else rows(shown, 0, t, f"{said} ({_count(shown, 0, t)})", _known(shown))
    if shown.zero_shot:
        names = sorted(shown.name(t, int(c)) for c in one.support.y[0][one.support.weight[0] > 0])
        body = Markup("<p>{}</p>").format(f"Known by their descriptions alone: {', '.join(names)}.")
    head, cells = _answers(shown, t, objective, prediction)
    body += rows(shown, 1, t, f"Asked ({_count(shown, 1, t)}), and the answer", head, cells)
    about = "The learner sees the rows above with what is true of them, and the rows below without it."
    return Section(titled, body, about)


def _count(shown: Shown, part: int, t: int) -> str:
    found = len(real_rows(shown, part, t))
    few = f", {MOST_ROWS} shown" if found > MOST_ROWS else ""
    return f"{found} row{'s' * (found != 1)}{few}"


def _known(shown: Shown) -> list[str]:
    return ["class" if shown.task.support.y.dim() == 2 else "value"]


def real_rows(shown: Shown, part: int, t: int) -> list[int]:
    """The rows of a task that are no padding."""
    return (shown.task[part].weight[t] > 0).nonzero().flatten().tolist()


def rows(
    shown: Shown,
    part: int,
    t: int,
    label: str,
    head: Sequence[str],
    cells: dict[int, list[object]] | None = None,
) -> Markup:
    """Rows of the support (part 0) or the query (part 1) as a table; head, cells: what is true of them, or said."""
    kept = spread_over(shown, part, t)
    lines: list[list[object]] = []
    for i in kept:
        said = cells[i] if cells else [shown.truth(part, t, i)]
        # cells may not fit on a phone: what matters comes before them
        lines.append([*said, *shown.cells(part, t, i)] if shown.columns else [shown.portrait(part, t, i), *said])
    if shown.columns:
        return table([*head, *shown.header], lines, label, "rows cells")
    return table(["example", *head], lines, label, "rows")


def spread_over(shown: Shown, part: int, t: int, most: int = MOST_ROWS) -> list[int]:
    """Up to `most` real rows, of as many classes as there are, in their order."""
    found = real_rows(shown, part, t)
    y = shown.task[part].y
    if y.dim() != 2:
        return found[:most]
    seen: dict[int, int] = {}
    rank = []
    for i in found:
        label = int(y[t, i])
        rank.append((seen.get(label, 0), i))
        seen[label] = seen.get(label, 0) + 1
    return sorted(i for _, i in sorted(rank)[:most])


def _answers(
    shown: Shown, t: int, objective: Objective, prediction: Tensor
) -> tuple[list[str], dict[int, list[object]]]:
    """The heads of the columns that say what is true and what was answered, and their cells by row of the query."""
    found: dict[int, list[object]] = {}
    asked = real_rows(shown, 1, t)
    if isinstance(objective, Classification):
        odds = prediction[t].double().softmax(-1)
        for i in asked:
            best = int(odds[i].argmax())
            good = best == int(shown.task.query.y[t, i])
            mark = Markup('<span class="{}">{} {}</span>').format(
                "better" if good else "worse", "✓" if good else "✗", shown.name(t, best)
            )
            found[i] = [shown.truth(1, t, i), mark, f"{100 * float(odds[i, best]):.0f} %"]
        return ["class", "answer", "how sure"], found
    mean, deviation = values_of(objective, prediction[t : t + 1])
    for i in asked:
        said = ", ".join(f"{v:.4g}" for v in mean[0, i].tolist())
        found[i] = [shown.truth(1, t, i), said]
        if deviation is not None:
            low, high = mean[0, i] - MOST_DEVIATION * deviation[0, i], mean[0, i] + MOST_DEVIATION * deviation[0, i]
            pairs = zip(low.tolist(), high.tolist(), strict=True)
            found[i].append(", ".join(f"{a:.4g} to {b:.4g}" for a, b in pairs))
    return ["value", "answer", *["90 % interval"] * (deviation is not None)], found
