"""Files of whole series, a line each with its class: as the UCR archive writes them (.tsv, .txt, .csv), and .ts."""

from __future__ import annotations

import gzip
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from quickstudy.core.errors import UserError
from quickstudy.tasks.sheet import MISSING, number

SUFFIXES = (".tsv", ".txt", ".csv", ".ts")
PARTS = ("_train", "_test")
"""Ends of the names of files that hold one data set between them."""


class Recordings(NamedTuple):
    """The series of a file, each (step,) without the padding behind it; the class of each, "" for one that is not
    known; and what to call it."""

    values: list[np.ndarray]
    labels: list[str]
    names: list[str]


def read_recordings(path: str | Path) -> Recordings:
    """The series of a file.

    UCR: no header; a line is the class and then the values, with tabs, commas or spaces between them. .ts: lines that
    begin with @ are its header; a line is the values and, behind a colon, the class. A value that is missing (empty,
    NaN, ?) lies on the line between its neighbours; at the end of a series it is padding. A class "?" is not known.
    Raises UserError if there is no such file, it holds no series, several values a step, or something else.
    """
    found, at = Recordings([], [], []), Path(path)
    try:
        with (gzip.open if at.suffix == ".gz" else open)(at, "rt", encoding="utf-8-sig") as file:
            lines = file.read().splitlines()
    except UnicodeDecodeError:
        raise UserError(f"{path} is no UTF-8 text: give series as the UCR archive writes them, a line each.") from None
    except (OSError, EOFError) as error:
        raise UserError(f"cannot read the series in {path}: {error}; check the path.") from None
    behind = at.name.removesuffix(".gz").endswith(".ts")
    for place, line in enumerate(lines, 1):
        if line.strip() and not line.lstrip().startswith(("#", "@")):
            label, cells = _behind(line, path, place) if behind else _before(line)
            found.values.append(_values(cells, path, place))
            found.labels.append("" if label.lower() in MISSING else _plain(label))
            found.names.append(f"line {place}")
    if not found.values:
        raise UserError(f"{path} holds no series: give a line for each, its class first and then its values.")
    return found


def _before(line: str) -> tuple[str, list[str]]:
    """The class, and the cells behind it."""
    between = "\t" if "\t" in line else "," if "," in line else None
    cells = [cell.strip() for cell in line.split(between)]
    return cells[0], cells[1:]


def _behind(line: str, path: str | Path, place: int) -> tuple[str, list[str]]:
    """The class, and the cells before it."""
    parts = line.split(":")
    if len(parts) != 2:
        said = "no class behind a colon" if len(parts) < 2 else f"{len(parts) - 1} series beside each other"
        raise UserError(f"{path}, line {place}, has {said}: give one series a line, then a colon and its class.")
    return parts[1].strip(), [cell.strip() for cell in parts[0].split(",")]


def _values(cells: list[str], path: str | Path, place: int) -> np.ndarray:
    out = np.full(len(cells), math.nan)
    for i, cell in enumerate(cells):
        if cell.lower() in MISSING:
            continue
        value = number(cell)
        if value is None:
            header = ", or take the header out" if place == 1 else ""
            raise UserError(f"{path}, line {place}, holds {cell!r}, which is no finite number: correct it{header}.")
        out[i] = value
    return whole(out, f"{path}, line {place},")


def whole(values: np.ndarray, where: str) -> np.ndarray:
    """A series (step,) without the padding behind it (NaN), other gaps filled along straight lines.

    Raises UserError for one of fewer than two values.
    """
    known = np.flatnonzero(~np.isnan(values))
    if len(known) < 2:
        raise UserError(f"{where} is a series of {len(known)} values: give at least 2, or take it out.")
    return np.interp(np.arange(known[-1] + 1), known, values[known])


def _plain(label: str) -> str:
    """1.0 and 1 are one class."""
    value = number(label)
    return label if value is None or value != round(value) else str(int(value))


def as_rows(values: list[np.ndarray], length: int, standardise: bool) -> np.ndarray:
    """Series of any length as rows (series, length), float32, each drawn out or together along straight lines.

    standardise: then to mean 0 and standard deviation 1, series by series; one that does not vary becomes 0.
    """
    rows = np.stack([np.interp(np.linspace(0, len(v) - 1, length), np.arange(len(v)), v) for v in values])
    if standardise:
        spread = rows.std(1, keepdims=True)
        flat = spread <= 1e-9 * np.abs(rows).max(1, keepdims=True)
        rows = np.where(flat, 0.0, (rows - rows.mean(1, keepdims=True)) / np.where(flat, 1.0, spread))
    return rows.astype(np.float32)


def series_files(path: str) -> dict[str, list[Path]]:
    """The files of each data set by its name: of a folder, of the folders in it, or one file.

    NAME_TRAIN and NAME_TEST are one data set: whole classes are held out here, never rows.
    Raises UserError if there is none.
    """
    place = Path(path)
    if not path or not place.exists():
        raise UserError(f"series_classes needs a path and there is nothing at {path!r}: give a file or a folder.")
    inside = [place]
    if place.is_dir():
        inside = sorted(file for file in (*place.glob("*"), *place.glob("*/*")) if file.is_file())
        inside = [file for file in inside if file.name.lower().removesuffix(".gz").endswith(SUFFIXES)]
    found: dict[str, list[Path]] = {}
    for file in inside:
        found.setdefault(data_set(file), []).append(file)
    if not found:
        raise UserError(f"{path} holds no series: give files that end in {', '.join(SUFFIXES)}, or folders of those.")
    return found


def data_set(file: Path) -> str:
    """The name of the data set that a file is of.

    >>> data_set(Path("UCR/ECG200/ECG200_TRAIN.tsv"))
    'ECG200'
    """
    name = file.name.removesuffix(".gz")
    name = name.rsplit(".", 1)[0] if name.lower().endswith(SUFFIXES) else name
    return next((name[: -len(end)] for end in PARTS if name.lower().endswith(end)), name)
