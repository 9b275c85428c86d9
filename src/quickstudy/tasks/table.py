"""One table in which a column says which task (customer, patient, site, market) a row belongs to."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from quickstudy.core.errors import UserError, nearest
from quickstudy.core.reader import Reader, Rows
from quickstudy.core.source import Scaling, Spec
from quickstudy.tasks.columns import Column, encode, fit_columns, scale_of, scale_of_values, width
from quickstudy.tasks.drawing import AnyLabelled, AnyRows, Cuts, Drawer, EachClass, Span
from quickstudy.tasks.grouped import Grouped, by_task, deal, spans
from quickstudy.tasks.one_table import OneTable
from quickstudy.tasks.sampling import Count
from quickstudy.tasks.sheet import Sheet, listed, missing, numbers, read_sheet, sheet_of, times
from quickstudy.tasks.target import labels, read_target, without_target

SCHEMES = ("rows", "per_class")


class Table(OneTable):
    """Tasks from one table (.csv, .tsv, also .gz): the rows with the same entry in `task_column` are a task.

    target: the column to predict. kind: classification or regression; "auto" looks at it (tasks/target.py). A class
    means the same in every task. All other columns but those in `ignore` are x: numbers, or categories where a column
    holds words or is in `categorical` (names with commas, or a list). A missing cell (empty, NA, NaN, ?) is the mean of
    the training tasks and a 1 in an indicator; a category is one of those that training tasks have, or none. Whatever
    is fitted is fitted to training tasks; a row without target is left out.

    shot: rows to learn from; with scheme "per_class", in classification, of each class (a class with too few is left
    out of that task). A query of a class that the support does not show has weight 0. time_column: then the support is
    the `shot` rows before some moment and the query is of later rows: any for values, the next ones for classes. The
    time itself (numbers or ISO dates) is in x, as what lies between a row and the support.

    valid_fraction, test_fraction: whole tasks that are held out, dealt by `split_seed`; or name them in valid_tasks and
    test_tasks. scale_rows: see `Scaled`, the scale of a task is found from its support and so many pseudo-rows.
    delimiter: "" for a tab in .tsv and a comma in other files.
    """

    papers = ()
    episode_options: ClassVar[frozenset[str]] = frozenset({"shot", "query", "scheme"})

    def __init__(
        self,
        path: str = "",
        task_column: str = "",
        target: str = "",
        shot: Count = 10,
        query: Count = 10,
        kind: str = "auto",
        scheme: str = "rows",
        time_column: str = "",
        categorical: str | Sequence[str] = "",
        ignore: str | Sequence[str] = "",
        valid_fraction: float = 0.2,
        test_fraction: float = 0.2,
        valid_tasks: str | Sequence[str] = "",
        test_tasks: str | Sequence[str] = "",
        scale_rows: float = 10.0,
        delimiter: str = "",
        split_seed: int = 0,
    ):
        self.path = path
        self.task_column = task_column
        self.target = target
        self.shot = shot
        self.query = query
        self.kind = kind
        self.scheme = scheme
        self.time_column = time_column
        self.categorical = categorical
        self.ignore = ignore
        self.valid_fraction = valid_fraction
        self.test_fraction = test_fraction
        self.valid_tasks = valid_tasks
        self.test_tasks = test_tasks
        self.scale_rows = scale_rows
        self.delimiter = delimiter
        self.split_seed = split_seed

    def load(self) -> Grouped:
        """The rows as numbers.

        Raises UserError if the table cannot be read, lacks a column, or one does not hold what it should.
        """
        sheet = self._sheet()
        found = read_target(sheet, self.target, self.kind)
        tasks = sheet.columns[self.task_column]
        moments = times(sheet, self.time_column)[0] if self.time_column else None
        names, order, counts = by_task(tasks, moments)
        held = listed(self.valid_tasks), listed(self.test_tasks)
        splits = deal(names, self.valid_fraction, self.test_fraction, *held, self.split_seed)
        trained = {names[t] for t in splits["train"].tolist()}
        train = np.array([task in trained for task in tasks])
        aside = {self.task_column, self.target, self.time_column, *listed(self.ignore)}
        features = [name for name in sheet.columns if name not in aside]
        if not features and not self.time_column:
            raise UserError(f"{self.path} has no column to predict from beside the target and the task: add some.")
        columns = fit_columns(sheet, features, train, listed(self.categorical), self.time_column)
        x = encode(columns, sheet)
        known, at = torch.from_numpy(train), torch.from_numpy(order)
        means, deviations, relative = scale_of(columns, x[known])
        y_scale = scale_of_values(found.y[known]) if found.kind == "regression" else ((), ())
        way = len(found.classes)
        scaling = Scaling(means, deviations, *y_scale, self.scale_rows, relative)
        count = torch.from_numpy(counts)
        start = count.cumsum(0) - count
        self._cache()["columns"] = columns, found.classes, found.kind
        return Grouped(
            x[at],
            found.y[at],
            start,
            count,
            names,
            spans(start, count, splits),
            Spec(found.kind, (width(columns),), way, train_classes=way, scaling=scaling),
            times=None if moments is None else moments[order],
        )

    def _sheet(self) -> Sheet:
        """The rows that have a task and a target."""
        for option in ("path", "task_column", "target"):
            if not getattr(self, option):
                raise UserError(f"table needs {option}: give a table, the column of the task, and that of the target.")
        if not self.scale_rows >= 0:
            raise UserError(f"scale_rows is {self.scale_rows}: give a number of rows, 0 or more (inf for one scale).")
        if self.scheme not in SCHEMES:
            raise UserError(f"unknown scheme {self.scheme!r}: {nearest(self.scheme, SCHEMES)}")
        sheet = self.cells()
        asked = {"task_column": [self.task_column], "target": [self.target], "time_column": listed(self.time_column)}
        asked |= {"categorical": listed(self.categorical), "ignore": listed(self.ignore)}
        for option, names in asked.items():
            for name in names:
                sheet.column(name, option)
        empty = missing(sheet.columns[self.task_column])
        if empty.any():
            line = sheet.lines[int(empty.argmax())]
            raise UserError(f"line {line} of {self.path} says no task (column {self.task_column!r}): fill it in.")
        gone = without_target(sheet, self.target)
        if gone.any():
            warnings.warn(f"{gone.sum()} rows of {self.path} have no {self.target} and are left out", stacklevel=2)
        return sheet.rows(~gone)

    def drawer(self, rows: Grouped, span: Span, shot: tuple[int, int], query: tuple[int, int]) -> Drawer:
        regression = rows.spec.kind == "regression"
        if rows.times is None:
            if regression:
                return AnyRows.of(span, shot, query)
            if self.scheme == "per_class":
                return EachClass.of(span, rows.y, rows.spec.way, shot, query)
            return AnyLabelled.of(span, rows.y, shot, query)
        if self.scheme == "per_class" and not regression:
            raise UserError("per_class cannot be had with a time_column, where rows come in their order: leave it out.")
        moments, labels = rows.times, rows.y.numpy()

        def cuts(task: int, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
            at = np.arange(first + shot[1], last - query[1] + 1)
            at = at[moments[at - 1] < moments[at]] if len(at) else at
            if not regression:
                shown = [bool(np.isin(labels[c : c + query[0]], labels[c - shot[0] : c]).any()) for c in at]
                at = at[np.array(shown, dtype=bool)]
            return at, at - shot[1]

        return Cuts.of(span, cuts, shot, query, far=regression, y=None if regression else rows.y)

    def reader(self) -> TableReader:
        self.prepare()
        columns, classes, kind = self._cache()["columns"]
        return TableReader(columns, self.target, kind == "regression", classes, self.task_column, self.delimiter)

    def classes(self) -> list[str]:
        """The names of the classes, in the order of their numbers; none for regression."""
        self.prepare()
        return list(self._cache()["columns"][1])


class TableReader(Reader):
    """Rows of one task from a table with the columns of training, in any order; others are not looked at.

    columns: what is known of each (tasks/columns.py). target: the column of the label or value, which a table to
    predict may lack. classes: those of training. task: a column
    that must hold one task, where it is there.
    """

    given_as = "frame"

    def __init__(
        self,
        columns: Sequence[Column],
        target: str,
        regression: bool = False,
        classes: Sequence[str] = (),
        task: str = "",
        delimiter: str = "",
    ):
        self.columns = columns
        self.target = target
        self.regression = regression
        self.classes = classes
        self.task = task
        self.delimiter = delimiter

    def read(self, path: str) -> Rows:
        return self.rows(read_sheet(path, self.delimiter))

    def given(self, rows: Any) -> Tensor:
        """The rows of a frame with the columns of training, whatever others it has."""
        words = {c["name"] for c in self.columns if c["kind"] == "category" and "1.0" not in c["categories"]}
        return encode(self.columns, sheet_of(rows, frozenset(words)))

    def rows(self, sheet: Sheet) -> Rows:
        """The rows of a table that was read.

        Raises UserError if it holds several tasks, lacks a column, or has the target in some rows only.
        """
        found = sorted(set(sheet.columns.get(self.task, ())))
        if len(found) > 1:
            raise UserError(
                f"{sheet.path} holds rows of {len(found)} tasks ({', '.join(found[:3])}{', ...' * (len(found) > 3)} "
                f"in {self.task!r}): give those of one."
            )
        x, names = encode(self.columns, sheet), [f"line {line}" for line in sheet.lines]
        gone = missing(sheet.columns[self.target]) if self.target in sheet.columns else np.ones(len(sheet), bool)
        if gone.all():
            return Rows(x, None, None, names)
        if gone.any():
            raise UserError(
                f"line {sheet.lines[int(gone.argmax())]} of {sheet.path} has no {self.target!r} and other rows have: "
                "put the rows to learn from in one file, and those to predict in another."
            )
        if self.regression:
            return Rows(x, None, self._values(sheet), names)
        words = labels(sheet, self.target)
        new = next((word for word in words if word not in self.classes), None)
        if new is not None:
            raise UserError(f"{sheet.path} holds the class {new!r}, unknown in training: {nearest(new, self.classes)}")
        return Rows(x, words, None, names)

    def _values(self, sheet: Sheet) -> Tensor:
        values = numbers(sheet, self.target)
        if values is None:
            raise UserError(f"the target {self.target!r} of {sheet.path} holds words: give a number in every row.")
        return torch.from_numpy(values.astype(np.float32)).unsqueeze(1)

    def unlabelled(self, path: str) -> str:
        return f"add the column {self.target!r}"
