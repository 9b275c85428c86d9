"""Series of readings (of a patient, a sensor, a market): what comes next, or what lies between."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from quickstudy.core.errors import UserError, nearest
from quickstudy.core.reader import Reader, Rows
from quickstudy.core.source import SPLITS, Scaling, Spec, Split
from quickstudy.tasks.columns import Column, encode, fit_columns, scale_of, scale_of_values, width
from quickstudy.tasks.drawing import Cuts, Drawer, Span
from quickstudy.tasks.grouped import Grouped, by_task, deal, spans
from quickstudy.tasks.one_table import OneTable
from quickstudy.tasks.sampling import Count
from quickstudy.tasks.sheet import Sheet, listed, missing, numbers, read_sheet, times
from quickstudy.tasks.table import TableReader

KINDS = ("forecast", "interpolate")
HELD = ("tasks", "time")
STEPS = 10
"""Steps of the usual length that are one unit of time inside a learner."""
ALL = 2**31 - 1
"""Stands for any number of readings: all within `past`."""


class Series(OneTable):
    """Tasks from a table of readings (.csv, .tsv, also .gz), a row for each: of which task, when, and how much.

    forecast: the support is the `shot` readings before some moment, or all within `past` before it, and the query the
    next `query` readings; never is a reading of the support later than one that is asked. interpolate: both are dealt
    at random from shot + query readings that follow each other. Readings need not be evenly spaced.

    x: how far a reading is from those of the support in time, then the covariates (numbers or categories, known for
    what is asked too; read as by `table`). The time is a number, or a date of ISO 8601: then `past` is in days. Every
    task has the scale of its support and of `scale_rows` pseudo-rows (see `Scaled`). Without task_column the table is
    one series. Readings without a value are left out.

    hold_out: "tasks", whole ones, by valid_fraction, test_fraction and split_seed or the names in valid_tasks and
    test_tasks; "time": of all readings the last share is asked in test, that before in valid, and the support of either
    may reach back into what was there before.
    """

    papers = ()

    def __init__(
        self,
        path: str = "",
        task_column: str = "",
        time_column: str = "time",
        value_column: str = "value",
        covariates: str | Sequence[str] = "",
        shot: Count = 20,
        query: Count = 10,
        past: float = 0.0,
        kind: str = "forecast",
        hold_out: str = "tasks",
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
        self.time_column = time_column
        self.value_column = value_column
        self.covariates = covariates
        self.shot = shot
        self.query = query
        self.past = past
        self.kind = kind
        self.hold_out = hold_out
        self.valid_fraction = valid_fraction
        self.test_fraction = test_fraction
        self.valid_tasks = valid_tasks
        self.test_tasks = test_tasks
        self.scale_rows = scale_rows
        self.delimiter = delimiter
        self.split_seed = split_seed

    def load(self) -> Grouped:
        """The readings in the order of task and time.

        Raises UserError if the table cannot be read, lacks a column, or has two readings of a task at one time.
        """
        sheet = self._sheet()
        moments, dates = times(sheet, self.time_column)
        tasks = sheet.columns[self.task_column] if self.task_column else [Path(self.path).stem] * len(sheet)
        names, order, counts = by_task(tasks, moments)
        count = torch.from_numpy(counts)
        start = count.cumsum(0) - count
        first = start.numpy()
        once(sheet, moments, order, first, names)
        values = numbers(sheet, self.value_column)
        if values is None:
            raise UserError(f"the values {self.value_column!r} of {self.path} are words: give a number in every row.")
        if (values == values[0]).all():
            raise UserError(f"the value {self.value_column!r} of {self.path} is {values[0]:g} in every row: no task.")
        times_in_order = moments[order]
        if self.hold_out == "tasks":
            held = listed(self.valid_tasks), listed(self.test_tasks)
            parts = deal(names, self.valid_fraction, self.test_fraction, *held, self.split_seed)
            asked = spans(start, count, parts)
        else:
            asked = self._periods(times_in_order, first, counts)
        train = np.zeros(len(sheet), bool)
        for _, a, b in asked["train"].each():
            train[order[a:b]] = True
        steps = np.diff(times_in_order)[np.diff(np.repeat(np.arange(len(names)), counts)) == 0]
        step = float(np.median(steps)) if len(steps) else 1.0
        time: Column = {
            "name": self.time_column, "kind": "time", "mean": 0.0, "deviation": STEPS * step,
            "origin": float(moments[train].max()), "dates": dates,
        }  # fmt: skip
        beside = fit_columns(sheet, listed(self.covariates), train, ())
        known = torch.from_numpy(train)
        others = encode(beside, sheet)
        # a time is counted from the first reading of its task: single precision is then enough
        since = (times_in_order - np.repeat(times_in_order[first], counts)).astype(np.float32)
        at = torch.from_numpy(order)
        x = torch.cat([torch.from_numpy(since).unsqueeze(1), others[at]], 1)
        y = torch.from_numpy(values.astype(np.float32)).unsqueeze(1)
        means, deviations, _ = scale_of(beside, others[known]) if beside else ((), (), ())
        scale = ((0.0, *means), (STEPS * step, *deviations), *scale_of_values(y[known]))
        self._cache()["columns"] = [time, *beside]
        spec = Spec("regression", (1 + width(beside),), scaling=Scaling(*scale, self.scale_rows, (0,)))
        return Grouped(x, y[at], start, count, names, asked, spec, times=times_in_order)

    def _sheet(self) -> Sheet:
        """The rows that have a value."""
        for option, known in (("kind", KINDS), ("hold_out", HELD)):
            if getattr(self, option) not in known:
                raise UserError(f"{option} is {getattr(self, option)!r}: {nearest(getattr(self, option), known)}")
        if not self.path:
            raise UserError("series needs a path: give a table with a row for each reading.")
        if not (self.scale_rows >= 0 and self.past >= 0):
            raise UserError(f"scale_rows is {self.scale_rows} and past {self.past}: neither may be below 0.")
        sheet = self.cells()
        wanted = {"task_column": listed(self.task_column), "time_column": [self.time_column]}
        wanted |= {"value_column": [self.value_column], "covariates": listed(self.covariates)}
        for option, names in wanted.items():
            for name in names:
                sheet.column(name, option)
        if self.task_column and missing(sheet.columns[self.task_column]).any():
            line = sheet.lines[int(missing(sheet.columns[self.task_column]).argmax())]
            raise UserError(f"line {line} of {self.path} says no task (column {self.task_column!r}): fill it in.")
        gone = missing(sheet.columns[self.value_column])
        if gone.all():
            raise UserError(f"the values {self.value_column!r} of {self.path} are all missing: name another column.")
        if gone.any():
            warnings.warn(f"{gone.sum()} readings of {self.path} have no value and are left out", stacklevel=2)
        return sheet.rows(~gone)

    def _periods(self, moments: np.ndarray, first: np.ndarray, counts: np.ndarray) -> dict[Split, Span]:
        """What is asked of every task in each period of time."""
        v, t = self.valid_fraction, self.test_fraction
        if not (v >= 0 and t >= 0 and v + t < 1):
            raise UserError(f"valid_fraction {v} and test_fraction {t} leave no time to train on: give less of it.")
        ends = np.quantile(moments, [1 - v - t, 1 - t])
        found: dict[Split, list[tuple[int, int, int]]] = {split: [] for split in SPLITS}
        for task, (a, n) in enumerate(zip(first.tolist(), counts.tolist(), strict=True)):
            inside = [a, *(a + np.searchsorted(moments[a : a + n], ends)).tolist(), a + n]
            for split, low, high in zip(SPLITS, inside[:-1], inside[1:], strict=True):
                if high > low:
                    found[split].append((task, low, high))
        return {s: Span(*torch.tensor(rows, dtype=torch.long).reshape(-1, 3).unbind(1)) for s, rows in found.items()}

    def drawer(self, rows: Grouped, span: Span, shot: tuple[int, int], query: tuple[int, int]) -> Drawer:
        moments, begin = rows.times, rows.start.tolist()
        assert moments is not None
        mix = self.kind == "interpolate"

        def cuts(task: int, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
            least = first + shot[1] if mix else max(first, begin[task] + (1 if self.past else shot[1]))
            at = np.arange(least, last - query[1] + 1)
            if not self.past or mix:
                return at, at - shot[1]
            low = begin[task] + np.searchsorted(moments[begin[task] : last], moments[at] - self.past)
            kept = low < at
            return at[kept], low[kept]

        return Cuts.of(span, cuts, (ALL, ALL) if self.past and not mix else shot, query, mix=mix)

    def reader(self) -> SeriesReader:
        self.prepare()
        columns = self._cache()["columns"]
        return SeriesReader(columns, self.value_column, self.task_column, self.kind == "forecast", self.delimiter)


def once(sheet: Sheet, moments: np.ndarray, order: np.ndarray, first: np.ndarray, names: Sequence[str]) -> None:
    """Raise UserError where a task has two readings at one time; order: the rows by task and time."""
    same = np.diff(moments[order]) == 0
    same[first[1:] - 1] = False
    if same.any():
        at = int(same.argmax())
        a, b = sorted((sheet.lines[order[at]], sheet.lines[order[at + 1]]))
        task = names[int(np.searchsorted(first, at, side="right")) - 1]
        raise UserError(
            f"{sheet.path} has two readings of {task!r} at one time (lines {a} and {b}): keep one of them, or name the "
            "column that tells their tasks apart in task_column."
        )


class SeriesReader(Reader):
    """Readings of one task: times, covariates and, to learn from, values.

    columns: the time and the covariates (tasks/columns.py). value: the column of the values, which a file to predict
    may lack. task: a column that must hold one task, where it is there. forecast: what is asked is later than what is
    known.
    """

    given_as = "frame"

    def __init__(
        self, columns: Sequence[Column], value: str, task: str = "", forecast: bool = True, delimiter: str = ""
    ):
        self.columns = columns
        self.value = value
        self.task = task
        self.forecast = forecast
        self.delimiter = delimiter

    def read(self, path: str) -> Rows:
        sheet = read_sheet(path, self.delimiter)
        name = self.columns[0]["name"]
        sheet.column(name)
        moments, _ = times(sheet, name)
        rows = TableReader(self.columns, self.value, regression=True, task=self.task, delimiter=self.delimiter)
        if self.task in sheet.columns and len(set(sheet.columns[self.task])) > 1:
            return rows.rows(sheet)  # which says so
        once(sheet, moments, moments.argsort(kind="stable"), np.zeros(1, np.int64), [path])
        gone = missing(sheet.columns[self.value]) if self.value in sheet.columns else np.ones(len(sheet), bool)
        if self.forecast and gone.any() and not gone.all():
            asked = int(np.where(gone, moments, np.inf).argmin())
            late = int(np.where(gone, -np.inf, moments).argmax())
            if moments[late] > moments[asked]:
                raise UserError(
                    f"line {sheet.lines[late]} of {path} has a value at a later time than line {sheet.lines[asked]}, "
                    "which is asked: a forecast may not know the future; take it out, or train with kind interpolate."
                )
        return rows.rows(sheet)._replace(names=sheet.columns[name])

    def given(self, rows: Any) -> Tensor:
        """The rows of a frame with the columns of training. Nothing here sees which of them are known and later."""
        return TableReader(self.columns, self.value, regression=True).given(rows)

    def unlabelled(self, path: str) -> str:
        return f"add the column {self.value!r}"
