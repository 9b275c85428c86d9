"""What drawn tasks look like to people: the names of their classes, and their rows as pictures, words or cells."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from markupsafe import Markup, escape
from PIL import Image
from torch import Tensor

from quickstudy.core.source import Source, Split
from quickstudy.core.task import Task
from quickstudy.tasks.grouped import GroupedSource
from quickstudy.tasks.pool import ClassSource
from quickstudy.tasks.tables import Tables

LONGEST = 160
"""Letters of a text that are shown."""
SIDE = 64
"""Pixels of the longer side of a picture that are kept."""
MOST_CELLS, IN_A_LINE = 6, 3
"""Columns that are shown, in a table and in a line of text."""


class Shown:
    """A batch of drawn tasks, for people.

    rng: as the one that `task` was sampled with, untouched: names and texts are found by drawing once more.
    titles: of each task, "" where it has no name. classes: of each task, the names of its labels, by their numbers;
    empty for regression. header: of the cells of a row; empty where rows are no cells.
    """

    def __init__(self, source: Source, split: Split, task: Task, rng: torch.Generator):
        self.task = task
        count = task.support.tasks
        self.titles = [""] * count
        self.classes: list[list[str]] = [[] for _ in range(count)]
        self.texts: list[list[list[str]]] = []
        self.zero_shot = source.spec.kind == "zero-shot"
        self.columns: Sequence[Mapping[str, Any]] = []
        if isinstance(source, ClassSource):
            drawn, pool = source.draw(split, count, rng), source.prepare()
            self.classes = _of_classes(source, split, drawn.classes)
            if pool.texts:
                parts = (drawn.support_rows, drawn.query_rows)
                self.texts = [[[pool.texts[int(i)] for i in row] for row in part.tolist()] for part in parts]
        elif isinstance(source, GroupedSource):
            owners = source.owners(split, count, rng)
            column = getattr(source, "task_column", "")
            self.titles = [f"{column} {name}".strip() for name in owners]
            self.columns = getattr(source.reader(), "columns", [])
            self.classes = _of_tables(source, owners)
        self.masked = isinstance(source, Tables)  # values, and below them which of them are there
        x = task.query.x
        pictured = isinstance(x, Tensor) and x.dim() == 5 and x.shape[2] in (1, 3)
        self.kept = self._telling() if self.columns else []
        self.tint = Tint(x) if pictured and isinstance(x, Tensor) else None

    def _telling(self) -> list[int]:
        """The columns that are shown: those that differ within a task before those that do not."""
        x = self.task.support.x
        assert isinstance(x, Tensor)
        lines = [[cells_of(self.columns, row) for row in task] for task in x.flatten(2).tolist()]
        same = [all(len({line[c] for line in task}) == 1 for task in lines) for c in range(len(self.columns))]
        return sorted(sorted(range(len(same)), key=lambda c: same[c])[:MOST_CELLS])

    @property
    def header(self) -> list[str]:
        return [clipped(str(self.columns[c]["name"]), 24) for c in self.kept]

    def name(self, t: int, label: int) -> str:
        """The name of a class of task t."""
        names = self.classes[t]
        return clipped(names[label], 40) if label < len(names) else f"class {label}"

    def portrait(self, part: int, t: int, i: int) -> Markup:
        """Row i of the support (part 0) or the query (part 1) of task t, as HTML."""
        if part == 0 and self.zero_shot:
            return escape("its description")
        if self.texts:
            return Markup('<q class="said">{}</q>').format(clipped(self.texts[part][t][i]))
        x = self.task[part].x
        assert isinstance(x, Tensor)
        if self.tint is not None:
            return self.tint.image(x[t, i], f"example of {self._of(part, t, i)}")
        if self.columns:
            pairs = list(zip(self.header, self.cells(part, t, i), strict=True))[:IN_A_LINE]
            return Markup(", ").join(Markup("{} {}").format(name, cell) for name, cell in pairs)
        few = x[t, i][0][x[t, i][1] > 0] if self.masked else x[t, i].flatten()
        kept = ", ".join(f"{v:.3g}" for v in few[:MOST_CELLS].tolist()) + (", …" if len(few) > MOST_CELLS else "")
        return escape(f"x = {kept}" if len(few) == 1 else f"({kept})")

    def _of(self, part: int, t: int, i: int) -> str:
        y = self.task[part].y
        return self.name(t, int(y[t, i])) if y.dim() == 2 else self.titles[t]

    def cells(self, part: int, t: int, i: int) -> list[str]:
        """A row of a table as its columns were written, missing cells empty."""
        x = self.task[part].x
        assert isinstance(x, Tensor)
        found = cells_of(self.columns, x[t, i].flatten().tolist())
        return [found[c] for c in self.kept]

    def truth(self, part: int, t: int, i: int) -> str:
        """The class or the value of a row."""
        y = self.task[part].y
        if y.dim() == 2:
            return self.name(t, int(y[t, i]))
        return ", ".join(f"{v:.4g}" for v in y[t, i].flatten().tolist())


def class_names(source: Source, split: Split, tasks: int, rng: torch.Generator) -> list[list[str]]:
    """The names of the labels of each task that `sample` draws with the same generator; empty where there are none."""
    if isinstance(source, ClassSource):
        return _of_classes(source, split, source.draw(split, tasks, rng).classes)
    if isinstance(source, GroupedSource):
        return _of_tables(source, source.owners(split, tasks, rng))
    return [[] for _ in range(tasks)]


def _of_classes(source: ClassSource, split: Split, classes: Tensor) -> list[list[str]]:
    known = source.names(split) + source.names("train")  # seen classes stand behind a split's own
    return [[known[c] for c in row] for row in classes.tolist()]


def _of_tables(source: GroupedSource, titles: Sequence[str]) -> list[list[str]]:
    if source.spec.kind != "classification":
        return [[] for _ in titles]
    named = list(getattr(source, "classes", list)())
    # without names of their own, classes mean something in their own table alone
    return [named or [f"{title}: {label}" for label in range(source.spec.way)] for title in titles]


def cells_of(columns: Sequence[Mapping[str, Any]], row: Sequence[float]) -> list[str]:
    """An encoded row (tasks/columns.py) as the cells that it was made from; "" for a missing one.

    >>> columns = [{"name": "age", "kind": "number", "gaps": True},
    ...     {"name": "sex", "kind": "category", "categories": ["f", "m"]}]
    >>> cells_of(columns, [61.5, 0.0, 0.0, 1.0]), cells_of(columns, [50.0, 1.0, 0.0, 0.0])
    (['61.5', 'm'], ['', ''])
    """
    found, at = [], 0
    for column in columns:
        if column["kind"] == "category":
            part = row[at : at + len(column["categories"])]
            found.append(clipped(str(column["categories"][part.index(1.0)]), 24) if 1.0 in part else "")
            at += len(part)
            continue
        gaps = bool(column.get("gaps"))
        missing = gaps and row[at + 1] > 0
        found.append("" if missing else _number(row[at], column))
        at += 1 + gaps
    return found


def _number(value: float, column: Mapping[str, Any]) -> str:
    if column["kind"] == "time":  # held as a distance, from a moment that is not known here
        return f"{value:+.4g}{' days' if column.get('dates') else ''}"
    return f"{value:.4g}"


def clipped(text: str, most: int = LONGEST) -> str:
    """A text that is not too long.

    >>> clipped("a long word", 7)
    'a long…'
    """
    return text if len(text) <= most else text[: most - 1] + "…"


class Tint:
    """How the pixels of a batch become a picture: dark ink on a light tile, whichever way round the data holds it."""

    def __init__(self, pixels: Tensor):
        self.low, self.high = float(pixels.min()), float(pixels.max())
        grey = pixels.shape[-3] == 1
        self.flip = grey and float(pixels.median()) < (self.low + self.high) / 2

    def shade(self, image: Tensor) -> np.ndarray:
        """An image (channel, h, w) as (h, w, 3) in [0, 1], of at most 64 pixels a side."""
        shown = ((image.detach().float().cpu() - self.low) / max(self.high - self.low, 1e-12)).clamp(0, 1)
        longest = max(shown.shape[-2:])
        if longest > SIDE:
            size = [max(1, round(side * SIDE / longest)) for side in shown.shape[-2:]]
            shown = F.interpolate(shown.unsqueeze(0), size=size, mode="area")[0]
        found = shown.permute(1, 2, 0).numpy()
        return np.broadcast_to(1 - found if self.flip else found, (*found.shape[:2], 3))

    def image(self, image: Tensor, alt: str) -> Markup:
        """The image as an element that holds its own data."""
        buffer = io.BytesIO()
        Image.fromarray((255 * self.shade(image)).round().astype(np.uint8)).save(buffer, format="PNG", optimize=True)
        data = base64.b64encode(buffer.getvalue()).decode()
        return Markup('<img class="tile" alt="{}" src="data:image/png;base64,{}">').format(alt, data)
