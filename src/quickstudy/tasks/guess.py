"""Which source reads a path, from what lies there: so that a path alone may stand where tasks are named."""

from __future__ import annotations

import csv
import gzip
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from quickstudy.core.errors import UserError
from quickstudy.tasks.images import image_files, sub_folders
from quickstudy.tasks.sheet import MISSING, number

TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".csv.gz", ".tsv.gz")
UCR = re.compile(r"(_train|_test)\.(tsv|txt|csv|ts)(\.gz)?$", re.IGNORECASE)
"""Names of files of whole series, as the UCR archive has them."""
SIGNS: dict[str, tuple[str, ...]] = {
    "pictures": ("path", "label"),
    "text": ("text", "label"),
    "series": ("task", "time", "value"),
    "table": ("task", "target"),
}
"""The columns by which a table is known."""
OPTIONS: dict[str, dict[str, str]] = {
    "series": {"task_column": "task"},
    "table": {"task_column": "task", "target": "target"},
}
"""What those of them mean that a source does not look for by itself."""


def guess(path: str) -> dict[str, Any]:
    """The card of the source that reads what lies at a path.

    Raises UserError, which says what to name, where nothing is there or nothing can be told from it.
    """
    place = Path(path)
    if not place.exists():
        raise UserError(f"there is no file or folder {path}: check the path, or name one of the sources with --tasks.")
    name = _folder(place) if place.is_dir() else _file(place)
    return {"name": name, "path": path, **OPTIONS.get(name, {})}


def _folder(place: Path) -> str:
    folders = sub_folders(place)
    if any(image_files(folder) or sub_folders(folder) for folder in folders):
        return "folder"
    files = sorted(file.name for file in place.iterdir() if file.is_file())
    if {"x.npy", "images.npy"} & set(files):
        return "arrays"
    inside = [file for at in (place, *folders) for file in sorted(at.iterdir()) if UCR.search(file.name)]
    if inside and _whole_series(inside[0]):
        return "series_classes"
    tables = [file for file in files if file.lower().endswith(TABLES)]
    if tables:
        return "series_classes" if _whole_series(place / tables[0]) else "tables"
    if image_files(place):
        raise UserError(f"{place} holds images and no sub-folders: put those of each class in a folder of its own.")
    raise UserError(
        f"{place} holds neither class folders of images, nor tables, nor arrays: give a folder with one sub-folder of "
        "images a class, a folder of tables, or a file."
    )


def _file(place: Path) -> str:
    if place.suffix.lower() == ".npz":
        return "arrays"
    if not place.name.lower().endswith((*TABLES, ".ts", ".ts.gz")):
        raise UserError(f"cannot tell what {place} holds: give a folder of images, an .npz, .csv, .tsv or .jsonl file.")
    if _whole_series(place):
        return "series_classes"
    columns = _columns(place)
    for name, signs in SIGNS.items():
        if set(signs) <= set(columns):
            return name
    wanted = "; ".join(f"{' and '.join(signs)} ({name})" for name, signs in SIGNS.items())
    shown = ", ".join(columns[:8]) + (", ..." if len(columns) > 8 else "")
    raise UserError(
        f"{place} has the columns {shown}, and none of the sets that tell its kind: {wanted}; rename them, or say "
        "which is which, as in --tasks text --tasks.path FILE --tasks.text_column NAME --tasks.label_column NAME."
    )


def _whole_series(place: Path) -> bool:
    """Whether a file holds a series a line: it is .ts, or has numbers where a table has the names of its columns."""
    if place.name.lower().removesuffix(".gz").endswith(".ts"):
        return True
    columns = _columns(place)
    columns = columns[0].split() if len(columns) == 1 else columns
    return len(columns) > 2 and all(number(name) is not None or name.lower() in MISSING for name in columns)


def _columns(place: Path) -> Sequence[str]:
    """The names of the columns, from the first line; none where it cannot be read."""
    try:
        with gzip.open(place, "rb") if place.suffix == ".gz" else open(place, "rb") as file:
            line = file.readline(1 << 16).decode("utf-8-sig", errors="replace").strip()
    except OSError as error:
        raise UserError(f"cannot read {place}: {error.strerror or error}; check the file.") from None
    if line.startswith(("{", "[")):
        return [part.split('"')[-1] for part in line.split('":')[:-1]]
    delimiter = max("\t,;|", key=line.count)
    return [name.strip() for name in next(csv.reader([line], delimiter=delimiter), [])]
