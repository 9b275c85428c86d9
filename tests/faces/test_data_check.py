"""`quickstudy data check`, and a path where tasks are named: what is planted in the data is found."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from quickstudy.cli.main import main
from quickstudy.core.catalogue import arguments
from quickstudy.core.errors import UserError
from quickstudy.questions.data_card import data_card
from quickstudy.tasks import TASKS
from quickstudy.tasks.arrays import Arrays
from quickstudy.tasks.functions import Sinusoid
from quickstudy.tasks.guess import guess

ROWS, CLASSES = 20, 10


def rows(seed: int = 0) -> tuple[torch.Tensor, np.ndarray]:
    x = torch.rand(CLASSES * ROWS, 12, generator=torch.Generator().manual_seed(seed))
    return x, np.repeat([f"c{i}" for i in range(CLASSES)], ROWS)


def about(x: torch.Tensor, y: np.ndarray) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for finding in data_card(Arrays.of(x, y, shot=1, query=5)).findings:
        found.setdefault(finding.about, []).append(finding.said)
    return found


def split_rows(x: torch.Tensor, y: np.ndarray, split: str) -> list[int]:
    """The rows of the classes of a split."""
    names = Arrays.of(x, y).names(split)  # type: ignore[arg-type]
    return [i for i, label in enumerate(y) if label in names]


def test_nothing_is_said_of_clean_data() -> None:
    assert about(*rows()) == {}


def test_a_row_in_two_splits_is_a_leak_and_bears_two_labels() -> None:
    x, y = rows()
    a, b = split_rows(x, y, "train")[0], split_rows(x, y, "test")[0]
    x[b] = x[a]
    found = about(x, y)
    assert "1 row is in more than one split" in found["leak"][0]
    assert "1 row bears more than one label" in found["labels"][0]


def test_a_row_that_is_nearly_another_is_a_leak() -> None:
    x, y = rows()
    a, b = split_rows(x, y, "train")[3], split_rows(x, y, "valid")[4]
    x[b] = x[a] + 1e-4
    said = about(x, y)["leak"]
    assert len(said) == 1 and "1 rows of valid and test are nearly the same" in said[0]
    assert f"row {b} of" in said[0] and f"row {a} of" in said[0]


def test_repeated_rows_single_rows_and_blank_rows() -> None:
    x, y = rows()
    free = [i for i in split_rows(x, y, "train") if y[i] not in ("c3", "c4")]
    x[free[1]] = x[free[0]]
    x[free[5]] = 0.5
    keep = ~((y == "c3") & (np.arange(len(y)) % ROWS > 0)) & ~((y == "c4") & (np.arange(len(y)) % ROWS > 3))
    found = about(x[torch.from_numpy(keep)], y[keep])
    assert "1 row repeats another one of the same class" in found["duplicates"][0]
    assert "with a single row" in found["rows"][0] and "'c3'" in found["rows"][0]
    assert "fewer than the 1 + 5 rows" in found["rows"][1] and "'c4'" in found["rows"][1]
    assert "1 rows hold one value throughout" in found["blank"][0]


def test_tasks_that_are_made_have_nothing_to_look_through() -> None:
    assert "made on the spot" in data_card(Sinusoid()).facts["data"]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for c in range(10):
        (tmp_path / "photos" / f"kind{c}").mkdir(parents=True)
        for i in range(6):
            pixels = rng.integers(0, 255, (12, 12), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / f"kind{c}" / f"{i}.png")
    return tmp_path / "photos"


def test_the_command_names_all_that_cannot_be_read(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "kind0" / "0.png").write_text("no image")
    (photos / "kind1" / "0.png").write_text("no image")
    assert main(["data", "check", str(photos), "--json", str(tmp_path / "card.json")]) == 0
    said = capsys.readouterr().out
    assert "classes" in said and said.count("left out an unreadable image") == 2
    card = json.loads((tmp_path / "card.json").read_text())
    assert card["facts"]["kind"] == "classification" and len(card["findings"]) >= 2


def test_a_path_stands_where_tasks_are_named(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "--learner", "protonet", "--train.steps", "1", "--train.valid_every", "0", "--quiet"]
    asked = ["--tasks", str(photos), "--tasks.query", "2", "--out", str(tmp_path / "run"), "--tasks.way", "2"]
    assert main([*words, *asked]) == 0, capsys.readouterr().err
    assert f"path: {photos}" in (tmp_path / "run" / "config.yaml").read_text()


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("a.csv", "text,label\nhello,greet\n", "text"),
        ("a.tsv", "label\ttext\ngreet\thello\n", "text"),
        ("a.jsonl", '{"text": "hello", "label": "greet"}\n', "text"),
        ("b.csv", "task;time;value\n1;2;3\n", "series"),
        ("c.csv", "task,age,target\n1,2,3\n", "table"),
        ("d.csv", "path,label\na.png,cat\n", "pictures"),
    ],
)
def test_the_kind_is_told_by_the_columns(tmp_path: Path, name: str, text: str, kind: str) -> None:
    (tmp_path / name).write_text(text)
    found = guess(str(tmp_path / name))
    assert (found["name"], found["path"]) == (kind, str(tmp_path / name))
    assert set(found) <= set(arguments(TASKS[kind])) | {"name"}


def test_what_cannot_be_told_is_said(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    (tmp_path / "x.doc").write_text("a")
    (tmp_path / "empty").mkdir()
    for path, words in (
        (tmp_path / "x.csv", "columns a, b"), (tmp_path / "x.doc", "cannot tell"),
        (tmp_path / "empty", "neither class folders"), (tmp_path / "gone", "no file or folder"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=words):
            guess(str(path))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["data", "chek", "x"], "check"), (["data", "check"], "needs a path"), (["data"], "needs action"),
        (["data", "check", "gone.csv"], "no file or folder gone.csv"),
        (["train", "--tasks", "gone/photos"], "no file or folder gone/photos"),
    ],
)  # fmt: skip
def test_errors_are_one_sentence(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    err = capsys.readouterr().err
    assert said in err and "Traceback" not in err and err.count("\n") == 1
