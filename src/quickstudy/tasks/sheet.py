"""A file of rows under a header (.csv or .tsv, also .gz), read as text, and its cells as numbers and times."""

from __future__ import annotations

import csv
import gzip
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from quickstudy.core.errors import UserError, nearest
from quickstudy.tasks.records import missing as nothing
from quickstudy.tasks.records import of_frame

MISSING = frozenset({"", "na", "nan", "?"})
"""Cells that say nothing, in lower case."""
SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
DAY = 86400.0


@dataclass(frozen=True)
class Sheet:
    """The cells of a file by column, without the spaces around them; `lines` is where in the file each row is."""

    path: str
    columns: dict[str, list[str]]
    lines: list[int]

    def __len__(self) -> int:
        return len(self.lines)

    def column(self, name: str, option: str = "") -> list[str]:
        """The cells of a column.

        Raises UserError, naming the option that asked for it, if there is none of that name.
        """
        if name not in self.columns:
            asked = f", which {option} names" if option else ""
            raise UserError(f"{self.path} has no column {name!r}{asked}: {nearest(name, self.columns)}")
        return self.columns[name]

    def rows(self, kept: np.ndarray) -> Sheet:
        """The rows at which `kept` (row,) is true."""
        at = kept.nonzero()[0].tolist()
        columns = {name: [cells[i] for i in at] for name, cells in self.columns.items()}
        return Sheet(self.path, columns, [self.lines[i] for i in at])


def read_sheet(path: str, delimiter: str = "") -> Sheet:
    """The cells of a file.

    delimiter: what stands between two columns; for "" a tab in .tsv files and a comma in others.
    Raises UserError if there is no such file, it is no UTF-8 text, or its rows do not fit its header.
    """
    at = Path(path)
    if at.is_dir():
        raise UserError(f"{path} is a folder: give one file ({', '.join(SUFFIXES[:2])}).")
    between = delimiter or ("\t" if path.removesuffix(".gz").endswith(".tsv") else ",")
    if len(between) != 1:
        raise UserError(f"delimiter is {delimiter!r}: give one character, such as ';'.")
    lines: list[int] = []
    found: list[list[str]] = []
    try:
        with (gzip.open if path.endswith(".gz") else open)(path, "rt", encoding="utf-8-sig", newline="") as file:
            table = csv.reader(file, delimiter=between)
            for row in table:
                if any(cell.strip() for cell in row):
                    found.append([cell.strip() for cell in row])
                    lines.append(table.line_num)
    except UnicodeDecodeError:
        raise UserError(f"{path} is no UTF-8 text: save it as UTF-8, with commas (.csv) or tabs (.tsv).") from None
    except (csv.Error, EOFError, gzip.BadGzipFile) as error:
        raise UserError(f"{path} cannot be read as a table ({error}): save it as .csv again.") from None
    except OSError as error:
        raise UserError(f"cannot read the table {path}: {error.strerror or error}; check the path.") from None
    return _fitted(path, found, lines, between)


def _fitted(path: str, found: list[list[str]], lines: list[int], between: str) -> Sheet:
    if not found:
        raise UserError(f"{path} is empty: give a header with the names of the columns, and a row for each example.")
    header = found[0]
    if len(header) == 1:
        other = max(DELIMITERS, key=header[0].count)
        if other != between and other in header[0]:
            raise UserError(
                f"{path} has one column if {DELIMITERS.get(between, repr(between))} stand between columns, and its "
                f"header holds {DELIMITERS[other]}: give --tasks.delimiter {other!r}."
            )
    for name in header:
        if not name or header.count(name) > 1:
            what = f"two columns called {name!r}" if name else "a column without a name"
            raise UserError(f"the header of {path} has {what}: give every column a name of its own.")
    if len(found) == 1:
        raise UserError(f"{path} has a header and no rows: give a row for each example.")
    for row, line in zip(found, lines, strict=True):
        if len(row) != len(header):
            raise UserError(
                f"{path}, line {line}, has {len(row)} cells and the header {len(header)}: give every row as many."
            )
    cells = [list(column) for column in zip(*found[1:], strict=True)]
    return Sheet(path, dict(zip(header, cells, strict=True)), lines[1:])


def sheet_of(frame: Any, whole: frozenset[str] = frozenset()) -> Sheet:
    """A frame in memory (see records.py) as it would be read from a file.

    whole: columns in which 3.0 stands for 3, as where a number that names a category comes with gaps.
    Raises UserError for anything else, or a frame without rows.
    """
    records = of_frame(frame, "X")
    columns = {name: [_cell(v, name in whole) for v in values] for name, values in records.columns.items()}
    return Sheet("X", columns, list(range(len(records))))


def _cell(value: Any, whole: bool) -> str:
    if nothing(value) or str(value) in ("<NA>", "NaT"):
        return ""
    return str(int(value)) if whole and isinstance(value, float) and value.is_integer() else str(value).strip()


def missing(cells: Sequence[str]) -> np.ndarray:
    """Whether each cell says nothing: (row,)."""
    return np.fromiter((cell.lower() in MISSING for cell in cells), bool, len(cells))


def numbers(sheet: Sheet, name: str) -> np.ndarray | None:
    """A column as float64 (row,), NaN where a cell is missing; None for one that holds words.

    Raises UserError for one of which most cells are numbers and some are not.
    """
    cells = sheet.columns[name]
    out, words, good = np.full(len(cells), math.nan), [], 0
    for i, cell in enumerate(cells):
        if cell.lower() in MISSING:
            continue
        value = number(cell)
        if value is None:
            words.append(i)
        else:
            out[i], good = value, good + 1
    if not words:
        return out
    if good < len(words):
        return None
    raise UserError(
        f"the column {name!r} of {sheet.path} holds {good} numbers and {cells[words[0]]!r} in line "
        f"{sheet.lines[words[0]]}: correct that cell or leave it empty, or name the column in categorical or ignore."
    )


def number(cell: str) -> float | None:
    """A cell as a finite number, None if it is not one."""
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) and "_" not in cell else None


def times(sheet: Sheet, name: str) -> tuple[np.ndarray, bool]:
    """A column of times as float64 (row,), and whether they are dates (ISO 8601), which are given in days.

    Raises UserError for a cell that is neither, or a mixture.
    """
    cells = sheet.columns[name]
    dates = bool(cells) and number(cells[0]) is None
    out = np.empty(len(cells))
    for i, cell in enumerate(cells):
        value = _day(cell) if dates else number(cell)
        if value is None:
            wanted = "a date such as 2024-05-31 08:30" if dates else "a number"
            shown = repr(cell) if cell else "nothing"
            raise UserError(
                f"the time in line {sheet.lines[i]} of {sheet.path} (column {name!r}) is {shown}: give {wanted}, as in "
                "the other rows, or leave the row out."
            )
        out[i] = value
    return out, dates


def _day(cell: str) -> float | None:
    try:
        moment = datetime.fromisoformat(cell)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() / DAY


def listed(names: str | Sequence[str]) -> list[str]:
    """Names as a list: they may come with commas between them, or as a list as YAML writes it.

    >>> listed("age, sex"), listed('["age", "sex"]'), listed("")
    (['age', 'sex'], ['age', 'sex'], [])
    """
    if not isinstance(names, str):
        return [str(name) for name in names]
    return [name for part in names.strip(" []").split(",") if (name := part.strip(" \"'"))]
