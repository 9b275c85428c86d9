"""What is to be predicted in a table: classes or values, found by looking at the column."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from quickstudy.core.errors import UserError
from quickstudy.tasks.sheet import Sheet, missing, numbers

Kind = Literal["classification", "regression"]
KINDS = ("auto", "classification", "regression")
MOST_CLASSES = 20
"""Whole numbers that take no more values than this are taken for classes."""


class Target(NamedTuple):
    """kind; classes: names in the order of their numbers (none for values); y: (row,) classes or (row, 1) values."""

    kind: Kind
    classes: list[str]
    y: Tensor


def kind_of(sheet: Sheet, name: str, kind: str) -> Kind:
    """The kind of a target: "auto" takes words and few whole numbers for classes, other numbers for values.

    Raises UserError for an unknown kind, or values asked for where there are words.
    """
    if kind not in KINDS:
        raise UserError(f"kind is {kind!r}: give auto, classification or regression.")
    if kind == "classification":
        return "classification"
    found = numbers(sheet, name)
    if kind == "regression":
        if found is None:
            raise UserError(f"the target {name!r} of {sheet.path} holds words and kind is regression: give numbers.")
        return "regression"
    if found is None:
        return "classification"
    known = np.unique(found[~np.isnan(found)])
    return "classification" if len(known) <= MOST_CLASSES and (known == known.round()).all() else "regression"


def read_target(sheet: Sheet, name: str, kind: str, alone: bool = False) -> Target:
    """The target of a table in which no cell of it is missing.

    Raises UserError for one that is the same in every row, or a class with one row, unless that may be (`alone`).
    """
    found = kind_of(sheet, name, kind)
    if found == "regression":
        values = numbers(sheet, name)
        assert values is not None
        if (values == values[0]).all():
            raise UserError(f"the target {name!r} of {sheet.path} is {values[0]:g} in every row: nothing to learn.")
        return Target(found, [], torch.from_numpy(values.astype(np.float32)).unsqueeze(1))
    words = labels(sheet, name)
    classes = sorted(set(words))  # as `adaptation.adapt` sorts them
    number = {word: i for i, word in enumerate(classes)}
    y = torch.tensor([number[word] for word in words])
    counts = torch.bincount(y, minlength=len(classes)).tolist()
    if len(classes) < 2:
        raise UserError(f"the target {name!r} of {sheet.path} is {classes[0]!r} in every row: nothing to learn.")
    if min(counts) < 2 and not alone:
        rare = classes[counts.index(min(counts))]
        raise UserError(
            f"the class {rare!r} of the target {name!r} has one row in {sheet.path}, and it takes one to learn from "
            "and one to ask: add rows of it, or take it out (for values, give kind regression)."
        )
    return Target(found, classes, y)


def labels(sheet: Sheet, name: str) -> list[str]:
    """The classes of the rows by name; 1 and 1.0 are one class."""
    found = []
    for cell in sheet.columns[name]:
        try:
            value = float(cell)
            found.append(str(int(value)) if value == round(value) else cell)
        except (ValueError, OverflowError):
            found.append(cell)
    return found


def without_target(sheet: Sheet, name: str) -> np.ndarray:
    """Whether the target of each row is missing: (row,).

    Raises UserError if all are.
    """
    gone = missing(sheet.columns[name])
    if gone.all():
        raise UserError(f"the target {name!r} of {sheet.path} is empty in every row: name another column.")
    return gone
