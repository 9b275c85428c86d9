"""A folder of tables with columns of their own: each is a task, its rows padded to the widest."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from quickstudy.core.errors import UserError, nearest
from quickstudy.core.reader import Reader, Rows
from quickstudy.core.source import Scaling, Spec, Split
from quickstudy.tasks.drawing import AnyLabelled, AnyRows, Drawer, EachClass, Span
from quickstudy.tasks.grouped import Grouped, GroupedSource, deal, spans
from quickstudy.tasks.sampling import Count
from quickstudy.tasks.sheet import SUFFIXES, Sheet, listed, missing, numbers, read_sheet
from quickstudy.tasks.table import SCHEMES
from quickstudy.tasks.target import Target, kind_of, labels, read_target, without_target


class Tables(GroupedSource):
    """Tasks from a folder of tables (.csv, .tsv, also .gz): a table is a task, and whole tables are held out.

    target: the column to predict, by name; a table without it is asked for its last column. kind: classification or
    regression; "auto" takes that of the first table; tables of the other kind, or of more classes than `way`, are left
    out, with a warning. A class means something in its own table alone.

    x: (2, width): the values of a row, columns by alphabet and then zeros, and below them 1 for every cell that is
    there. All columns must hold numbers (a category as a number), but for those in `ignore`. width: 0 for that of the
    widest table. Values stay in their units: the learner reads the scale of a table from its support (as `tabular`
    does). For regression y is scaled by the support alone (`Scaled`).

    shot, query, scheme, valid_fraction, test_fraction, valid_tasks, test_tasks (names of files without their ending),
    delimiter and split_seed are those of `table`.
    """

    papers = ()
    episode_options: ClassVar[frozenset[str]] = frozenset({"shot", "query", "scheme"})

    def __init__(
        self,
        path: str = "",
        target: str = "target",
        shot: Count = 20,
        query: Count = 20,
        kind: str = "auto",
        scheme: str = "rows",
        way: int = 10,
        width: int = 0,
        ignore: str | Sequence[str] = "",
        valid_fraction: float = 0.2,
        test_fraction: float = 0.2,
        valid_tasks: str | Sequence[str] = "",
        test_tasks: str | Sequence[str] = "",
        delimiter: str = "",
        split_seed: int = 0,
    ):
        self.path = path
        self.target = target
        self.shot = shot
        self.query = query
        self.kind = kind
        self.scheme = scheme
        self.way = way
        self.width = width
        self.ignore = ignore
        self.valid_fraction = valid_fraction
        self.test_fraction = test_fraction
        self.valid_tasks = valid_tasks
        self.test_tasks = test_tasks
        self.delimiter = delimiter
        self.split_seed = split_seed

    def load(self) -> Grouped:
        """All tables as numbers.

        Raises UserError if there is none, one cannot be read, or a column holds words.
        """
        if self.scheme not in SCHEMES:
            raise UserError(f"unknown scheme {self.scheme!r}: {nearest(self.scheme, SCHEMES)}")
        sheets = self._sheets()
        found = {name: self._read(sheet) for name, sheet in sheets.items()}
        first = next(iter(found.values()))[1].kind
        kept = {n: pair for n, pair in found.items() if pair[1].kind == first and len(pair[1].classes) <= self.way}
        if not kept:
            raise UserError(f"all tables in {self.path} have more than {self.way} classes: raise way.")
        if len(kept) < len(found):
            gone = next(name for name in found if name not in kept)
            warnings.warn(
                f"{len(found) - len(kept)} of {len(found)} tables in {self.path} are left out, for they are no {first} "
                f"or have more than {self.way} classes (the first is {gone!r})",
                stacklevel=2,
            )
        names, wide = list(kept), max(cells.shape[1] for cells, _ in kept.values())
        if self.width and self.width < wide:
            raise UserError(f"width is {self.width} and a table has {wide} columns beside its target: give {wide}.")
        x = torch.cat([padded(cells, self.width or wide) for cells, _ in kept.values()])
        held = listed(self.valid_tasks), listed(self.test_tasks)
        splits = deal(names, self.valid_fraction, self.test_fraction, *held, self.split_seed)
        count = torch.tensor([len(cells) for cells, _ in kept.values()])
        start = count.cumsum(0) - count
        y = torch.cat([target.y for _, target in kept.values()])
        spec, pooled = Spec("regression", (2, self.width or wide), scaling=ALONE), None
        if first == "classification":
            sizes = torch.tensor([len(target.classes) for _, target in kept.values()])
            pooled = y + behind(sizes, splits).repeat_interleave(count)
            way, trained = int(sizes.max()), int(sizes[splits["train"]].sum())
            spec = Spec("classification", (2, self.width or wide), way=way, train_classes=trained)
        return Grouped(x, y, start, count, names, spans(start, count, splits), spec, pooled)

    def _sheets(self) -> dict[str, Sheet]:
        folder = Path(self.path)
        if not self.path or not folder.is_dir():
            raise UserError(f"tables needs a folder of tables and path is {self.path!r}: give one, or use `table`.")
        files = sorted(file for file in folder.iterdir() if file.name.lower().endswith(SUFFIXES))
        if not files:
            raise UserError(f"{self.path} holds no tables: give a folder of files that end in {', '.join(SUFFIXES)}.")
        sheets = {}
        for file in files:
            name = file.name.removesuffix(".gz")[: -len(".csv")]
            if name in sheets:
                raise UserError(f"{self.path} holds two tables called {name!r}: rename one of them.")
            sheets[name] = read_sheet(str(file), self.delimiter)
        return sheets

    def _read(self, sheet: Sheet) -> tuple[np.ndarray, Target]:
        target = self.target if self.target in sheet.columns else list(sheet.columns)[-1]
        sheet = sheet.rows(~without_target(sheet, target))
        kind = kind_of(sheet, target, self.kind)
        return cells_of(sheet, {target, *listed(self.ignore)}), read_target(sheet, target, kind, alone=True)

    def drawer(self, rows: Grouped, span: Span, shot: tuple[int, int], query: tuple[int, int]) -> Drawer:
        if rows.spec.kind == "regression":
            return AnyRows.of(span, shot, query)
        if self.scheme == "per_class":
            return EachClass.of(span, rows.y, rows.spec.way, shot, query)
        return AnyLabelled.of(span, rows.y, shot, query)

    def reader(self) -> TablesReader:
        spec = self.prepare().spec
        ignored = listed(self.ignore)
        return TablesReader(spec.x_shape[1], self.target, spec.kind == "regression", ignored, self.delimiter)


ALONE = Scaling(y_mean=(0.0,), y_deviation=(1.0,), rows=0.0)
"""Every table in units of its own, of which the others say nothing."""


def behind(sizes: Tensor, splits: dict[Split, Tensor]) -> Tensor:
    """How many classes the tables before each in its own split have: (table,)."""
    out = torch.zeros_like(sizes)
    for tables in splits.values():
        out[tables] = sizes[tables].cumsum(0) - sizes[tables]
    return out


def cells_of(sheet: Sheet, aside: set[str]) -> np.ndarray:
    """The columns of a table by alphabet, (row, column), NaN where a cell is missing.

    Raises UserError for a column of words, or a table without any column.
    """
    names = sorted(name for name in sheet.columns if name not in aside)
    if not names:
        raise UserError(f"{sheet.path} has no column beside its target: give what to predict it from.")
    columns = []
    for name in names:
        values = numbers(sheet, name)
        if values is None:
            raise UserError(
                f"the column {name!r} of {sheet.path} holds words, which mean nothing in other tables: give numbers, "
                "or name it in ignore."
            )
        columns.append(values)
    return np.stack(columns, 1)


def padded(cells: np.ndarray, width: int) -> Tensor:
    """Cells (row, column) as (row, 2, width): values, and 1 where there is one."""
    there = ~np.isnan(cells)
    both = np.zeros((len(cells), 2, width), np.float32)
    both[:, 0, : cells.shape[1]] = np.where(there, cells, 0)
    both[:, 1, : cells.shape[1]] = there
    return torch.from_numpy(both)


class TablesReader(Reader):
    """A table with columns of its own, of at most `width`: the same ones in what is learnt from and what is asked.

    target: the column of the label or value, which a table to predict may lack.
    """

    given_as = "cells"

    def __init__(
        self,
        width: int,
        target: str = "target",
        regression: bool = False,
        ignore: Sequence[str] = (),
        delimiter: str = "",
    ):
        self.width = width
        self.target = target
        self.regression = regression
        self.ignore = ignore
        self.delimiter = delimiter

    def read(self, path: str) -> Rows:
        sheet = read_sheet(path, self.delimiter)
        cells = cells_of(sheet, {self.target, *self.ignore})
        x, names = self._fitted(cells, f"{path} has, beside {self.target!r},"), [f"line {n}" for n in sheet.lines]
        gone = missing(sheet.columns[self.target]) if self.target in sheet.columns else np.ones(len(sheet), bool)
        if gone.all():
            return Rows(x, None, None, names)
        if gone.any():
            raise UserError(
                f"line {sheet.lines[int(gone.argmax())]} of {path} has no {self.target!r} and other rows have: put the "
                "rows to learn from in one file, and those to predict in another."
            )
        if not self.regression:
            return Rows(x, labels(sheet, self.target), None, names)
        values = numbers(sheet, self.target)
        if values is None:
            raise UserError(f"the target {self.target!r} of {path} holds words: give a number in every row.")
        return Rows(x, None, torch.from_numpy(values.astype(np.float32)).unsqueeze(1), names)

    def given(self, rows: Any) -> Tensor:
        """Cells (row, column), NaN where one is missing."""
        return self._fitted(np.asarray(rows), "X has")

    def _fitted(self, cells: np.ndarray, what: str) -> Tensor:
        if cells.shape[1] > self.width:
            raise UserError(
                f"{what} {cells.shape[1]} columns and the learner takes {self.width}: take some out, or train with a "
                "larger width."
            )
        return padded(cells, self.width)

    def unlabelled(self, path: str) -> str:
        return f"call the column of the labels or values {self.target!r}"
