"""What can be wrong with texts that users bring: one clear sentence each, and exit code 2."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from quickstudy import checkpoint
from quickstudy.cli import main
from quickstudy.core.errors import UserError
from quickstudy.learners import make
from quickstudy.tasks import Texts
from quickstudy.tasks.records import of_frame

VERBS = ("open", "close", "paint", "lift", "wash", "sell")
THINGS = [f"{a} {b}" for a in ("red", "old", "big") for b in ("lamp", "door", "oven")]
LINES = [(f"{verb} the {thing}", verb) for verb, thing in itertools.product(VERBS, THINGS)]
GOOD = "\n".join(["text,label", *(f"{a},{b}" for a, b in LINES)]) + "\n"
THIRDS = {"valid_fraction": 1 / 3, "test_fraction": 1 / 3, "way": 2, "query": 3, "size": 8}


def objects(*more: dict) -> str:
    return "\n".join(json.dumps(row) for row in [*({"text": a, "label": b} for a, b in LINES), *more])


TABLES: dict[str, tuple[str, str | bytes, str]] = {
    "another name": ("a.csv", GOOD.replace("text,label", "text,labels"), "no column 'label' (label_column): did you"),
    "no header": ("a.csv", GOOD.split("\n", 1)[1], "has no column 'text' (text_column): choose one of: open"),
    "commas in a tsv": ("a.tsv", GOOD, "has one column, 'text,label', and none named 'text': put tabs between"),
    "unquoted commas": ("a.csv", GOOD + "now, open it,open\n", "line 56, has 3 columns and the first line names 2"),
    "an open quote": ("a.csv", GOOD + '"never closed,open\n', "cannot be read after line 55 (unexpected end of data)"),
    "letters after a quote": ("a.csv", GOOD + '"so" he said,open\n', "put a text that holds quotes in quotes"),
    "two names alike": ("a.csv", GOOD.replace("text,label", "text,text"), "two columns named 'text'"),
    "latin 1": ("a.csv", GOOD.encode() + "café,open\n".encode("latin-1"), "is not UTF-8 (line 56): save it as UTF-8"),
    "utf 16": ("a.csv", GOOD.encode("utf-16"), "is not UTF-8 (line 1)"),
    "zeros": ("a.csv", GOOD + "\0,open\n", "holds zero bytes"),
    "empty": ("a.csv", "", "is empty: give a line that names the columns"),
    "a header alone": ("a.csv", "text,label\n", "holds no rows"),
    "no text": ("a.csv", GOOD + '"  ",open\n', "line 56, has no text in the column 'text': fill it in"),
    "no label": ("a.csv", GOOD + "open it,\n", "line 56, has nothing in the column 'label'"),
    "one example": ("a.csv", GOOD + "only once,a\n", "class 'a' of the"),
    "no JSON": ("a.jsonl", objects() + "\n{text: 1}", "line 55, is no JSON"),
    "no objects": ("a.jsonl", objects() + "\n[1]", "line 55, is no object"),
    "deep JSON": ("a.jsonl", "{\"a\":" * 100_000, "line 1, is no JSON"),
    "a number for a text": ("a.jsonl", objects({"text": 7, "label": "open"}), "line 55: text is 7, which is no text"),
    "both kinds": ("a.jsonl", objects({"text": "x", "label": 7}), "holds a text in line 1 and a number in line 55"),
    "a list for a label": ("a.jsonl", objects({"text": "x", "label": ["y"]}), "line 55: label is ['y']: labels are"),
    "nothing there": ("a.jsonl", objects({"text": "x"}), "line 55, has nothing in the column 'label'"),
    "a sheet": ("a.xlsx", b"PK", "is no table that is read here: give a file that ends in .csv, .tsv"),
    "no gzip": ("a.csv.gz", b"PK", "cannot read"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUICKSTUDY_CACHE", str(tmp_path / "cache"))


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def refuses(action: Callable[[], object], *words: str) -> None:
    with pytest.raises(UserError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message and message.endswith((".", "?")), message
    for word in words:
        assert word in message, message


@pytest.mark.parametrize("case", TABLES)
def test_a_table_that_is_wrong(case: str, tmp_path: Path, refused: Callable[..., str]) -> None:
    name, content, wanted = TABLES[case]
    path = write(tmp_path / name, content)
    options = ["--tasks.valid_fraction", "0", "--tasks.test_fraction", "0", "--tasks.size", "8", "--train.steps", "1"]
    assert wanted in refused("train", "--tasks", "text", "--tasks.path", path, "--out", tmp_path / "run", *options)


def test_options_that_do_not_fit(tmp_path: Path) -> None:
    path = str(write(tmp_path / "a.csv", GOOD))
    parts = GOOD.replace("\n", ",train\n").replace("text,label,train", "text,label,part")
    split = str(write(tmp_path / "b.csv", parts.replace("the red lamp,open,train", "the red lamp,open,test")))
    other = str(write(tmp_path / "c.csv", parts.replace("lamp,open,train", "lamp,open,tranning")))
    for given, words in (
        ({}, ("text needs a path",)),
        ({"path": str(tmp_path)}, ("is a folder: give one of a.csv",)),
        ({"path": str(tmp_path / "none.csv")}, ("cannot read", "No such file")),
        ({"path": path, "text_column": "txt"}, ("no column 'txt' (text_column): did you mean 'text'?",)),
        ({"path": path, "split_column": "split"}, ("no column 'split' (split_column)",)),
        ({"path": path, "domain_column": "domain"}, ("no column 'domain' (domain_column)",)),
        ({"path": split, "split_column": "part"}, ("class 'open' is in test (line 2) and in train (line 3)",)),
        ({"path": other, "split_column": "part"}, ("line 2: the split is 'tranning'", "did you mean 'training'?")),
        ({"path": path, "hold_out": "domains"}, ("no column says them: give domain_column",)),
        ({"path": path, "hold_out": "domain"}, ("unknown hold_out 'domain': did you mean 'domains'?",)),
        ({"path": path, "duplicates": "remove"}, ("unknown duplicates 'remove'",)),
        ({"path": path, "fewest": 99}, ("no class", "has 99 texts: lower fewest")),
        ({"path": path, "size": 0}, ("size is 0",)),
        ({"path": path, "encoder": "bert"}, ("there is no sentence encoder at bert", "or give encoder hashed")),
        ({"path": path, "encoder": str(tmp_path)}, ("give hashed, or the folder of a sentence-transformers model",)),
        ({"path": path, "valid_fraction": 0.9, "test_fraction": 0.2}, ("leave no class to train on",)),
    ):
        refuses(Texts(**{**THIRDS, **given}).prepare, *words)


def test_a_domain_that_is_split(tmp_path: Path) -> None:
    rows = [{"text": a, "label": b, "domain": "home", "part": "train" if b == "open" else "test"} for a, b in LINES]
    whole = Texts.of(rows, split_column="part", domain_column="domain", hold_out="domains", **THIRDS)
    refuses(whole.prepare, "the domain 'home' is in train and in test: give it one split")


def test_frames_that_are_none() -> None:
    class Named:
        column_names = ("text",)

    refuses(lambda: of_frame(7), "the frame is a int: give a frame, a dataset or a list of dicts")
    refuses(lambda: of_frame({"train": Named(), "test": Named()}), "several datasets (train, test): give one")
    refuses(lambda: of_frame({"text": ["a"], "label": []}), "columns of 0 and 1 rows")
    for nothing in ([], {}, {"text": []}):
        refuses(lambda nothing=nothing: of_frame(nothing), "holds no rows")
    refuses(lambda: of_frame([{"text": "a"}, 3]), "row 1, is no object")
    refuses(lambda: Texts.of({"text": ["a", float("nan")], "label": [0, 1]}).prepare(), "row 1, has no text")
    refuses(lambda: Texts.of({"text": ["a", "b"], "label": [0, 1.5]}).prepare(), "row 1: label is 1.5: labels are")
    source = Texts.of({"text": [a for a, _ in LINES], "label": [b for _, b in LINES]}, **THIRDS)
    refuses(Texts(source.path, **THIRDS).prepare, "were given in memory and are not stored")


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A learner of texts that was not trained."""
    source = Texts(str(write(tmp_path / "train.csv", GOOD)), **THIRDS)
    torch.manual_seed(0)
    checkpoint.save(make("protonet", source.spec), tmp_path / "best.safetensors", source)
    return tmp_path / "best.safetensors"


def test_the_files_of_a_new_task(trained: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    adapted = tmp_path / "adapted.safetensors"

    def says(name: str, content: str | bytes, wanted: str) -> None:
        path = write(tmp_path / name, content)
        assert wanted in refused("adapt", trained, path, "--out", adapted)

    says("s.csv", "text,intent\nyes,a\nno,b\n", "has no labels to adapt to: give it a column named label (choose")
    says("s.csv", "text\nyes\nno\n", "give it a column named label (there is no other column)")
    says("s.csv", "text,label\nyes,\nno,\n", "has no labels to adapt to: fill in its column label")
    says("s.txt", "yes\nno\n", "give a table with the columns text and label")
    says("s.csv", "text,label\nyes,a\nno,\n", "line 3, has nothing in the column 'label'")
    says("s.csv", "text,label\nyes,a\nyes,b\n", "'yes' is 'a' in line 2 and 'b' in line 3: keep one of the two")
    says("s.csv", "text,label\nyes,a\nno,a\n", "shows one class")
    says("s.csv", "words,label\nyes,a\n", "has no column 'text' (text_column): choose one of: label, words")
    says("s.csv", b"text,label\ncaf\xe9,a\n", "is not UTF-8 (line 2)")
    says("s.txt", "\n \n", "is empty: give a text in each line")
    says("s.png", b"\x89PNG", "is no table that is read here")
    good = str(write(tmp_path / "s.csv", "text,label\nyes,a\nno,b\n"))
    assert main(["adapt", str(trained), good, "--out", str(adapted)]) == 0
    empty = {"text\n": "holds no rows", "text,label\nmaybe,c\n": "holds the label 'c'", "": "is empty"}
    for content, wanted in empty.items():
        assert wanted in refused("predict", adapted, write(tmp_path / "p.csv", content))
    assert "cannot read" in refused("predict", adapted, tmp_path / "none.txt")


def test_a_reader_that_is_damaged(trained: Path) -> None:
    reader = checkpoint.load(trained).reader
    assert reader is not None and reader.fitted is not None
    changes = {"weights": torch.zeros(3)}, {"directions": torch.zeros(3, 2)}
    for broken in ({}, *({**reader.fitted, **change} for change in changes)):
        refuses(lambda broken=broken: reader.load_fitted(broken), "missing or damaged: use the original file")
