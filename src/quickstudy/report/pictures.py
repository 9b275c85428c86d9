"""A task as a picture: what may be learnt from on the left, what is asked on the right."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from quickstudy.core.errors import UserError
from quickstudy.core.files import write_whole
from quickstudy.core.objective import GaussianRegression
from quickstudy.core.task import Task, map_tensors, select
from quickstudy.report.drawing import COLOURS, INK, RIGHT, WRONG, axes, figure, png, style
from quickstudy.report.shown import Tint

MOST_CLASSES, MOST_SUPPORT, MOST_QUERY = 10, 5, 5


def task_picture(
    task: Task,
    names: Sequence[str] | None = None,
    predictions: Tensor | None = None,
    path: str | Path | None = None,
) -> bytes:
    """The first task of a batch as a PNG, also written to `path` if given.

    task: images (1 or 3 channels), points of the plane, or functions of one variable.
    names: of the classes. predictions: (task, n, size), as `predict` returns them for the query.
    Raises UserError for a task that cannot be drawn, or a path that cannot be written.
    """
    with style():
        picture = png(task_figure(task, names, predictions))
    if path is not None:
        write_whole(path, picture)
    return picture


def drawable(task: Task) -> bool:
    """Whether `task_figure` knows how to draw such a task."""
    x, y = task.query.x, task.query.y
    if isinstance(x, dict) or isinstance(task.support.x, dict) or task.support.x.shape[2:] != x.shape[2:]:
        return False
    if y.dim() == 2:
        return (x.dim() == 5 and x.shape[2] in (1, 3)) or (x.dim() == 3 and x.shape[2] == 2)
    return x.dim() == 3 and x.shape[2] == 1 and y.shape[2] == 1


def task_figure(task: Task, names: Sequence[str] | None = None, predictions: Tensor | None = None) -> Figure:
    """The first task of a batch as a figure; to be called, and rendered, inside `style()`.

    Raises UserError for a task that cannot be drawn.
    """
    if not drawable(task):
        raise UserError(
            "this task cannot be drawn: give one of images (1 or 3 channels), of points of the plane, "
            "or of functions of one variable."
        )
    task = map_tensors(select(task, slice(0, 1)), lambda t: t.detach().cpu())
    if predictions is not None:
        predictions = predictions[:1].detach().cpu()
    if task.query.y.dim() == 3:
        return function_figure(task, predictions)
    if task.query.x.dim() == 3:  # type: ignore[union-attr]
        return _plane(task, names, predictions)
    return _images(task, names, predictions)


def _label(names: Sequence[str] | None, index: int) -> str:
    text = names[index] if names is not None and index < len(names) else chr(ord("A") + index % 26)
    return text if len(text) <= 18 else text[:17] + "…"


def _images(task: Task, names: Sequence[str] | None, predictions: Tensor | None) -> Figure:
    (support, query) = task
    classes = support.y[0][support.weight[0] > 0].unique().tolist()[:MOST_CLASSES]
    columns = [
        [((part.y[0] == c) & (part.weight[0] > 0)).nonzero().flatten().tolist()[:most] for c in classes]
        for part, most in ((support, MOST_SUPPORT), (query, MOST_QUERY))
    ]
    shot, asked = (max(len(rows) for rows in part) for part in columns)
    tint = Tint(torch.cat([support.x[0], query.x[0]]))  # type: ignore[index]

    def tile(plot: Axes, image: Tensor, x: float, y: float, edge: str, width: float) -> None:
        plot.imshow(tint.shade(image), extent=(x, x + 1, y + 1, y), interpolation="none", zorder=1)
        frame = ((x, x + 1, x + 1, x, x), (y, y, y + 1, y + 1, y))
        plot.plot(*frame, color=edge, linewidth=width, zorder=2, solid_joinstyle="miter")

    left, step = max(len(_label(names, c)) for c in classes) * 0.13 + 0.2, 1.1 if predictions is None else 1.38
    middle = left + shot * 1.1 + 0.5
    right, bottom = middle + asked * 1.1, 0.35 + len(classes) * step
    drawn = figure(0.62 * right, 0.62 * bottom, layout=None)
    plot = drawn.add_axes((0, 0, 1, 1))
    plot.set(xlim=(0, right), ylim=(bottom, -0.05), aspect="auto")
    plot.axis("off")
    plot.text(left, 0.12, "learnt from", va="center")
    plot.text(middle, 0.12, "asked" if predictions is None else "asked, and the answer", va="center")
    plot.plot([middle - 0.3] * 2, [0, bottom - 0.1], color=INK, linewidth=0.6, alpha=0.5)
    answers = None if predictions is None else predictions[0].argmax(-1).tolist()
    for row, label in enumerate(classes):
        y = 0.35 + row * step
        plot.text(left - 0.12, y + 0.5, _label(names, label), ha="right", va="center")
        for column, index in enumerate(columns[0][row]):
            tile(plot, support.x[0, index], left + column * 1.1, y, INK, 0.6)  # type: ignore[index]
        for column, index in enumerate(columns[1][row]):
            x = middle + column * 1.1
            if answers is None:
                tile(plot, query.x[0, index], x, y, INK, 0.6)  # type: ignore[index]
                continue
            good = answers[index] == label
            tile(plot, query.x[0, index], x, y, RIGHT if good else WRONG, 1.6)  # type: ignore[index]
            said = "✓" if good else f"✗ {_label(names, answers[index])[:7]}"
            plot.text(x + 0.5, y + 1.17, said, ha="center", va="center", color=RIGHT if good else WRONG, size=8)
    return drawn


def _plane(task: Task, names: Sequence[str] | None, predictions: Tensor | None) -> Figure:
    drawn = figure(4.2, 3.4)
    plot = axes(drawn, "feature 1", "feature 2")
    (support, query) = task
    for part, marker, size, said in ((support, "o", 46, "learnt from"), (query, "x", 18, "asked")):
        for c in support.y[0].unique().tolist():
            rows = part.x[0][(part.y[0] == c) & (part.weight[0] > 0)]  # type: ignore[index]
            label, colour = f"{_label(names, c)}, {said}", COLOURS[c % len(COLOURS)]
            plot.scatter(*rows.T.numpy(), s=size, marker=marker, color=colour, label=label, zorder=3)
    if predictions is not None:
        wrong = (predictions[0].argmax(-1) != query.y[0]) & (query.weight[0] > 0)
        ring = query.x[0][wrong].T.numpy()  # type: ignore[index]
        plot.scatter(*ring, s=90, facecolors="none", edgecolors=WRONG, label="answered wrongly", zorder=4)
    drawn.legend(loc="outside lower center", ncols=2, fontsize=7)
    return drawn


def function_figure(task: Task, predictions: Tensor | None, sizes: Tensor | None = None) -> Figure:
    """A function of one variable: what was learnt from, the truth, and the answer with its interval.

    sizes: (row,), the area of the dot of each real support row, in square points.
    """
    drawn = figure(4.6, 2.8)
    plot = axes(drawn, "x", "y")
    (support, query) = task
    real = query.weight[0] > 0
    x, order = query.x[0, real, 0].sort()  # type: ignore[index]
    plot.plot(x, query.y[0, real, 0][order], color=INK, linestyle="--", linewidth=1.2, label="the truth, asked")
    if predictions is not None:
        shown = predictions[0, real][order]
        mean = shown[:, 0]
        if shown.shape[-1] == 2:
            mean, deviation = (t[0, :, 0] for t in GaussianRegression().mean_and_deviation(shown.unsqueeze(0)))
            band = (mean - 1.645 * deviation, mean + 1.645 * deviation)
            plot.fill_between(x, *band, color=COLOURS[0], alpha=0.2, linewidth=0, label="90 % of its belief")
        plot.plot(x, mean, color=COLOURS[0], linewidth=1.8, label="the answer")
    known = support.weight[0] > 0
    points = (support.x[0, known, 0], support.y[0, known, 0])  # type: ignore[index]
    plot.scatter(*points, color=COLOURS[1], s=26 if sizes is None else sizes.numpy(), zorder=3, label="learnt from")
    drawn.legend(loc="outside upper center", ncols=2, fontsize=8)
    return drawn
