"""Tables of words: every form that users bring them in gives the same rows."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from quickstudy.tasks.records import of_frame, read_records

ROWS = [
    ("play it, please", "music"),
    ('she said "stop"', "stop"),
    ("two\nlines", "music"),
    ("żółć; café", "words"),
]
WANTED = ("text", "label")


def quoted(delimiter: str) -> str:
    cells = [('"' + a.replace('"', '""') + '"', b) for a, b in ROWS]
    return "\n".join(delimiter.join(row) for row in [("text", "label"), *cells]) + "\n"


def holds(path: Path) -> None:
    found = read_records(str(path), WANTED)
    assert list(zip(found.texts("text", ""), found.labels("label", ""), strict=True)) == ROWS


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_csv_file_may_have_any_delimiter(tmp_path: Path, delimiter: str, encoding: str) -> None:
    path = tmp_path / "a.CSV"
    path.write_text(quoted(delimiter), encoding)
    holds(path)
    path.write_bytes(quoted(delimiter).replace("\n", "\r\n").replace("two\r\n", "two\n").encode(encoding))
    holds(path)


def test_the_other_forms(tmp_path: Path) -> None:
    objects = [{"label": b, "text": a, "more": [1]} for a, b in ROWS]
    content = {
        "a.tsv": quoted("\t"),
        "a.jsonl": "\n\n".join(json.dumps(row) for row in objects),
        "a.json": json.dumps(objects, ensure_ascii=False, indent=1),
    }
    for name, text in content.items():
        (tmp_path / name).write_text(text, "utf-8")
        holds(tmp_path / name)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(quoted(",").encode()))
    holds(tmp_path / "a.csv.gz")


def test_quotes_that_do_not_come_in_pairs_are_letters_in_a_tsv_file(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text('text\tlabel\n"hello\tgreet\nsix" pipe\tbuy\n"so" he said\tsay\n')
    assert read_records(str(path)).columns["text"] == ['"hello', 'six" pipe', '"so" he said']


def test_the_delimiter_that_gives_the_wanted_columns_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id,a,b;text;label\n1,2,3;hello;x\n4,5,6;bye;y\n")
    assert read_records(str(path), WANTED).columns["text"] == ["hello", "bye"]
    path.write_text("text\nno delimiter here\nnor here\n")
    assert read_records(str(path), WANTED).columns == {"text": ["no delimiter here", "nor here"]}


def test_rows_are_called_by_their_first_line(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('text,label\n"two\nlines",x\n\nnext,y\n')
    assert read_records(str(tmp_path / "a.csv")).names == ["line 2", "line 5"]
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n\n{"text": "b", "label": 3}\n')
    found = read_records(str(tmp_path / "a.jsonl"))
    assert found.names == ["line 1", "line 3"] and found.columns["label"] == [None, 3]


class Series:
    """A column as pandas and polars have it: it lists itself."""

    def __init__(self, values: list[Any], way: str):
        setattr(self, way, lambda: values)


class Pandas:
    """What of a pandas or polars frame is looked at."""

    def __init__(self, columns: dict[str, list[Any]], way: str = "tolist"):
        self._held, self._way = columns, way
        self.columns = list(columns)

    def __getitem__(self, name: str) -> Series:
        return Series(self._held[name], self._way)


class ClassLabel:
    names = ("no", "yes")


def test_frames_in_memory() -> None:
    columns = {"text": ["a b", "c"], "label": [1.0, 0.0]}
    rows = [{"text": "a b", "label": 1}, {"text": "c", "label": 0}]
    for frame in (columns, rows, Pandas(columns), Pandas(columns, "to_list"), Pandas(columns, "to_pylist")):
        found = of_frame(frame)
        assert found.texts("text", "") == ["a b", "c"] and found.labels("label", "") == ["1", "0"]
    assert of_frame([{"text": "a"}, {"label": "x"}]).columns == {"text": ["a", None], "label": [None, "x"]}


def test_numbers_of_a_class_label_become_names() -> None:
    class Named(Pandas):
        features = {"label": ClassLabel(), "text": None}
        column_names = ("text", "label")

    found = of_frame(Named({"text": ["a", "b"], "label": [1, 0]}))
    assert found.labels("label", "") == ["yes", "no"]
