"""Columns of a table as numbers: what is fitted to the training tasks, and how any table of such columns is read."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from quickstudy.core.errors import UserError, nearest
from quickstudy.tasks.sheet import Sheet, missing, numbers, times

MOST_CATEGORIES = 100
LEAST_DEVIATION = 0.1
"""Of an indicator, when it is scaled: one that is nearly always 0 should not become a large number."""

Column = dict[str, Any]
"""What is known of one column, as JSON holds it.

name; kind: "number", "category" or "time"; mean, deviation: of the training tasks; gaps: some cell was missing there,
so that an indicator follows the number; categories: in the training tasks, sorted, "" for a missing one.
"""


def fit_columns(
    sheet: Sheet, names: Sequence[str], train: np.ndarray, categorical: Collection[str], time: str = ""
) -> list[Column]:
    """What is known of the columns `names`, from the rows at which `train` (row,) is true; `time` comes first.

    Raises UserError for a column without a value in those rows, of numbers and words, or of too many words.
    """
    columns = [_fit_time(sheet, time, train)] if time else []
    for name in names:
        column = sheet.columns[name]
        empty = missing(column)
        if empty[train].all():
            raise UserError(
                f"the column {name!r} of {sheet.path} has no value in the training tasks: name it in ignore."
            )
        values = None if name in categorical else numbers(sheet, name)
        if values is not None:
            known = values[train & ~empty]
            spread = {"mean": float(known.mean()), "deviation": _deviation(known)}
            columns.append({"name": name, "kind": "number", **spread, "gaps": bool(empty[train].any())})
            continue
        found = sorted({"" if e else cell for cell, e, t in zip(column, empty, train, strict=True) if t})
        if len(found) > MOST_CATEGORIES:
            raise UserError(
                f"the column {name!r} of {sheet.path} holds {len(found)} different words, and {MOST_CATEGORIES} are "
                "the most: name it in ignore, or put them into groups."
            )
        columns.append({"name": name, "kind": "category", "categories": found})
    return columns


def _fit_time(sheet: Sheet, name: str, train: np.ndarray) -> Column:
    values, dates = times(sheet, name)
    origin = float(values[train].min())
    spread = {"mean": 0.0, "deviation": _deviation(values[train]), "origin": origin}
    return {"name": name, "kind": "time", **spread, "dates": dates}


def _deviation(values: np.ndarray) -> float:
    """The standard deviation, 1 for what does not vary."""
    found = float(values.std())
    return found if found > 1e-9 * max(1.0, abs(float(values.mean()))) else 1.0


def width(columns: Sequence[Column]) -> int:
    """How many numbers a row becomes."""
    return sum(_width(column) for column in columns)


def _width(column: Column) -> int:
    return len(column["categories"]) if column["kind"] == "category" else 1 + bool(column.get("gaps"))


def encode(columns: Sequence[Column], sheet: Sheet) -> Tensor:
    """The rows of a table as numbers, (row, width), float32.

    A missing number becomes the mean of the training tasks, with a 1 in the indicator behind it if there is one; a
    category that no training task had, all zeros; a time, the distance (in days for dates) from the first one.
    Raises UserError if a column is missing or holds something else.
    """
    lacking = [column["name"] for column in columns if column["name"] not in sheet.columns]
    if lacking:
        more = f" (nor {', '.join(map(repr, lacking[1:]))})" if lacking[1:] else ""
        raise UserError(f"{sheet.path} has no column {lacking[0]!r}{more}: {nearest(lacking[0], sheet.columns)}")
    parts = [_encode(column, sheet) for column in columns]
    joined = np.concatenate(parts, 1) if parts else np.zeros((len(sheet), 0))
    return torch.from_numpy(joined.astype(np.float32))


def _encode(column: Column, sheet: Sheet) -> np.ndarray:
    name, cells = column["name"], sheet.columns[column["name"]]
    if column["kind"] == "category":
        place = {word: i for i, word in enumerate(column["categories"])}
        out = np.zeros((len(cells), len(place)))
        for i, (cell, empty) in enumerate(zip(cells, missing(cells), strict=True)):
            at = place.get("" if empty else cell)
            if at is not None:
                out[i, at] = 1
        return out
    if column["kind"] == "time":
        values, dates = times(sheet, name)
        if dates != column["dates"]:
            was = "dates" if column["dates"] else "numbers"
            raise UserError(f"the times in {sheet.path} (column {name!r}) are no {was}, as in training: give those.")
        return (values - column["origin"]).reshape(-1, 1)
    found = numbers(sheet, name)
    if found is None:
        raise UserError(f"the column {name!r} of {sheet.path} holds words, and held numbers in training: give those.")
    empty = np.isnan(found)
    filled = np.where(empty, column["mean"], found)
    return np.stack([filled, empty.astype(float)], 1) if column["gaps"] else filled.reshape(-1, 1)


def scale_of(columns: Sequence[Column], x: Tensor) -> tuple[tuple[float, ...], tuple[float, ...], tuple[int, ...]]:
    """Mean and deviation of every number of the encoded training rows x (row, width), and which are times."""
    means, deviations, relative = x.double().mean(0).tolist(), x.double().std(0, correction=0).tolist(), []
    at = 0
    for column in columns:
        size = _width(column)
        least = [1e-6 * abs(m) for m in means[at : at + size]]
        if column["kind"] == "time":
            relative.append(at)
        if column["kind"] == "category":
            least = [LEAST_DEVIATION] * size
        elif size == 2:
            least[1] = LEAST_DEVIATION
        for j, floor in enumerate(least, at):
            good = deviations[j] > floor and math.isfinite(deviations[j])
            deviations[j] = deviations[j] if good else (floor if floor == LEAST_DEVIATION else 1.0)
        at += size
    return tuple(means), tuple(deviations), tuple(relative)


def scale_of_values(y: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of the training targets y (row, y_size); 1 for a target that does not vary."""
    mean, deviation = y.double().mean(0).tolist(), y.double().std(0, correction=0).tolist()
    spread = (s if s > 1e-6 * abs(m) and math.isfinite(s) else 1.0 for m, s in zip(mean, deviation, strict=True))
    return tuple(mean), tuple(spread)
