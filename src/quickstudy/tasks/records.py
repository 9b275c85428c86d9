"""Tables of words as users bring them: CSV, TSV, JSON lines, and frames in memory. Nothing read runs code."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from quickstudy.core.errors import UserError, nearest

DELIMITERS = {".csv": ",;\t|", ".tsv": "\t"}
"""What may stand between the columns, the likeliest first."""
JSON_LINES = (".jsonl", ".ndjson", ".json")
SUFFIXES = (*DELIMITERS, *JSON_LINES)
SAMPLE = 50
"""Rows that are looked at to find what stands between the columns."""
CLIP = 60
"""Letters of a value that a sentence shows."""


@dataclass(frozen=True)
class Records:
    """The rows of a table.

    columns: the values of each column by its name, None where a row has none; names: what to call each row;
    where: what to call the table.
    """

    columns: dict[str, list[Any]]
    names: list[str]
    where: str

    def __len__(self) -> int:
        return len(self.names)

    def column(self, name: str, option: str) -> list[Any]:
        """The values of a column. Raises UserError if there is none of that name, which `option` gave."""
        if name in self.columns:
            return self.columns[name]
        known = [clipped(column) for column in self.columns]
        if len(known) == 1 and any(d in known[0] for d in ",;\t|"):
            raise UserError(
                f"{self.where} has one column, {known[0]!r}, and none named {name!r}: put tabs between the columns of "
                "a .tsv file, and commas (or ; or |) between those of a .csv file."
            )
        raise UserError(f"{self.where} has no column {name!r} ({option}): {nearest(name, known)}")

    def texts(self, name: str, option: str) -> list[str]:
        """The values of a column of texts, without the white space around them.

        Raises UserError for a row with nothing there, or anything but text.
        """
        found = []
        for value, row in zip(self.column(name, option), self.names, strict=True):
            if not missing(value) and not isinstance(value, str):
                raise UserError(
                    f"{self.where}, {row}: {name} is {clipped(value)}, which is no text: give a text in every row."
                )
            if missing(value) or not value.strip():
                raise UserError(
                    f"{self.where}, {row}, has no text in the column {name!r}: fill it in, or leave the row out."
                )
            found.append(value.strip())
        return found

    def labels(self, name: str, option: str) -> list[str]:
        """The values of a column of labels, which are texts or whole numbers, as text.

        Raises UserError for a row with nothing there, labels of both kinds, or anything else.
        """
        found, kinds = [], dict[str, str]()
        for value, row in zip(self.column(name, option), self.names, strict=True):
            if missing(value):
                raise UserError(
                    f"{self.where}, {row}, has nothing in the column {name!r}: fill it in, or leave the row out."
                )
            if isinstance(value, str | bool):
                kinds.setdefault("a text", row)
                found.append(str(value).strip())
            elif isinstance(value, Integral) or (isinstance(value, Real) and float(value).is_integer()):
                kinds.setdefault("a number", row)
                found.append(str(int(value) if isinstance(value, Integral) else int(float(value))))
            else:
                raise UserError(
                    f"{self.where}, {row}: {name} is {clipped(value)}: labels are texts or whole numbers; give one of "
                    "these in every row."
                )
        if len(kinds) > 1:
            said = " and ".join(f"{kind} in {row}" for kind, row in kinds.items())
            raise UserError(f"{self.where}: the column {name!r} holds {said}: give labels of one kind.")
        return found

    def only(self, rows: Sequence[int]) -> Records:
        """These rows alone."""
        columns = {name: [values[i] for i in rows] for name, values in self.columns.items()}
        return Records(columns, [self.names[i] for i in rows], self.where)


def missing(value: Any) -> bool:
    """Whether a value says nothing: None, NaN, or white space."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, Real) and math.isnan(value))


def clipped(value: Any) -> str:
    """A value as a sentence shows it, on one line."""
    text = " ".join(str(value).split())
    return text if len(text) <= CLIP else text[: CLIP - 3] + "..."


def read_records(path: str, wanted: Collection[str] = ()) -> Records:
    """The rows of a .csv, .tsv or .jsonl file (also .ndjson, .json; .gz after any of them), UTF-8 with or without a
    byte order mark.

    The first line of a .csv or .tsv file names the columns; values that hold a line end, the delimiter or quotes
    stand in quotes. A .csv file may have commas, semicolons, tabs or bars between its columns: those are taken that
    give the columns in `wanted`, and equally long rows. If the quotes of a .tsv file do not come in pairs, they are
    letters like others. JSON: an object in each line, or one array of objects.

    Raises UserError for a file that is missing, empty, of another kind, not UTF-8, or damaged.
    """
    suffix = Path(path.lower().removesuffix(".gz")).suffix
    if Path(path).is_dir():
        inside = sorted(p.name for p in Path(path).iterdir() if p.suffix.lower() in SUFFIXES)
        hint = f"give one of {', '.join(inside[:5])} in it" if inside else "give a file"
        raise UserError(f"{path} is a folder: {hint}.")
    if suffix not in SUFFIXES:
        raise UserError(f"{path} is no table that is read here: give a file that ends in {', '.join(SUFFIXES)}.")
    text = read_text(path)
    found = _json(text, path) if suffix in JSON_LINES else _table(text, path, DELIMITERS[suffix], wanted)
    if not len(found):
        raise UserError(f"{path} holds no rows: give at least one, under a line that names the columns.")
    return found


def read_text(path: str) -> str:
    """A file of text. Raises UserError if it cannot be read, or is not UTF-8."""
    try:
        data = Path(path).read_bytes()
        data = gzip.decompress(data) if path.lower().endswith(".gz") else data
    except (OSError, EOFError, zlib.error) as error:
        said = getattr(error, "strerror", None) or "it is damaged"
        raise UserError(f"cannot read {path}: {said}; check the path.") from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path} is not UTF-8 (line {line}): save it as UTF-8 text.") from None
    if "\0" in text:
        raise UserError(f"{path} holds zero bytes and is no text: save it as UTF-8 text.")
    return text


def of_frame(frame: Any, where: str = "the frame") -> Records:
    """A table in memory as rows: a pandas or polars frame, an Arrow table, a Hugging Face dataset, a dict of columns,
    or a list of dicts. None of those packages is imported. Numbers that stand for names (ClassLabel) become names.

    Raises UserError for anything else, or a table without rows.
    """
    if isinstance(frame, Mapping):
        if any(hasattr(part, "column_names") for part in frame.values()):
            raise UserError(f"{where} holds several datasets ({', '.join(map(str, frame))}): give one of them.")
        columns = {str(name): _listed(values) for name, values in frame.items()}
    elif isinstance(frame, list | tuple):
        return _of_objects(list(frame), [f"row {i}" for i in range(len(frame))], where)
    else:
        names = getattr(frame, "column_names", None)
        names = getattr(frame, "columns", None) if names is None else names
        if names is None or not hasattr(frame, "__getitem__"):
            raise UserError(f"{where} is a {type(frame).__name__}: give a frame, a dataset or a list of dicts.")
        columns = {str(name): _named(frame, str(name), _listed(frame[name])) for name in names}
    lengths = {len(values) for values in columns.values()}
    if len(lengths) > 1:
        said = " and ".join(map(str, sorted(lengths)))
        raise UserError(f"{where} has columns of {said} rows: give equally long ones.")
    if lengths <= {0}:
        raise UserError(f"{where} holds no rows: give at least one.")
    return Records(columns, [f"row {i}" for i in range(lengths.pop())], where)


def _listed(column: Any) -> list[Any]:
    for name in ("to_pylist", "to_list", "tolist"):
        if hasattr(column, name):
            return list(getattr(column, name)())
    return list(column)


def _named(frame: Any, name: str, values: list[Any]) -> list[Any]:
    """The values, those of a ClassLabel column as the names they stand for."""
    features = getattr(frame, "features", None)
    known = getattr(features.get(name), "names", None) if isinstance(features, Mapping) else None
    return [known[v] if isinstance(v, int) and 0 <= v < len(known) else v for v in values] if known else values


def _of_objects(objects: list[Any], names: list[str], where: str) -> Records:
    columns: dict[str, list[Any]] = {}
    for i, (row, name) in enumerate(zip(objects, names, strict=True)):
        if not isinstance(row, Mapping):
            raise UserError(f"{where}, {name}, is no object: give one with the names of the columns in every row.")
        for key in row:
            if key not in columns:
                columns[str(key)] = [None] * i
        for key, values in columns.items():
            values.append(row.get(key))
    if not objects:
        raise UserError(f"{where} holds no rows: give at least one.")
    return Records(columns, names, where)


def _json(text: str, where: str) -> Records:
    objects, names, number = [], [], 1
    try:
        if text.lstrip().startswith("["):
            objects = json.loads(text)
            return _of_objects(objects, [f"row {i}" for i in range(len(objects))], where)
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                objects.append(json.loads(line))
                names.append(f"line {number}")
    except (ValueError, RecursionError) as error:
        line = number + getattr(error, "lineno", 1) - 1
        raise UserError(f"{where}, line {line}, is no JSON: give an object in each line.") from None
    return _of_objects(objects, names, where)


def _table(text: str, where: str, delimiters: str, wanted: Collection[str]) -> Records:
    if not text.strip():
        raise UserError(f"{where} is empty: give a line that names the columns, and a line for each row.")
    delimiter = max(delimiters, key=lambda d: _fit(text, d, wanted))
    try:
        return _cut(text, where, delimiter)
    except UserError:
        if delimiters != "\t":
            raise
        return _cut(text, where, delimiter, csv.QUOTE_NONE)


def _rows(text: str, delimiter: str, quoting: int = csv.QUOTE_MINIMAL) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not blank, each with the number of its first line."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting, strict=True)  # type: ignore
    line = 1
    for row in reader:
        if any(cell.strip() for cell in row):
            yield line, row
        line = reader.line_num + 1


def _fit(text: str, delimiter: str, wanted: Collection[str]) -> tuple[int, int, int]:
    """How well a delimiter fits the first rows: columns that are wanted, rows as long as the header, columns."""
    try:
        header, *rows = (row for _, row in islice(_rows(text, delimiter), SAMPLE))
    except (csv.Error, ValueError):
        return -1, 0, 0
    names = {name.strip() for name in header}
    return len(names.intersection(wanted)), -sum(len(row) != len(header) for row in rows), len(header)


def _cut(text: str, where: str, delimiter: str, quoting: int = csv.QUOTE_MINIMAL) -> Records:
    names: list[str] = []
    rows: list[list[str]] = []
    header: list[str] = []
    line = 1
    try:
        for line, row in _rows(text, delimiter, quoting):
            if not header:
                header = [name.strip() for name in row]
                twice = sorted({name for name in header if header.count(name) > 1})
                if twice:
                    raise UserError(f"{where} has two columns named {clipped(twice[0])!r}: give each its own name.")
                continue
            if len(row) != len(header):
                raise UserError(
                    f"{where}, line {line}, has {len(row)} columns and the first line names {len(header)}: put a text "
                    "that holds what stands between the columns in quotes."
                )
            rows.append(row)
            names.append(f"line {line}")
    except csv.Error as error:
        raise UserError(
            f"{where} cannot be read after line {line} ({error}): put a text that holds quotes in quotes, and double "
            "its own."
        ) from None
    columns = {name: [row[i] for row in rows] for i, name in enumerate(header)}
    return Records(columns, names, where)
