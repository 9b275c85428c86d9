"""What a user can get wrong with a table, each with one clear sentence; and the way through with one that is right."""

from __future__ import annotations

import csv
import gzip
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from quickstudy.cli import main
from quickstudy.core.errors import UserError
from quickstudy.tasks.table import Table, TableReader
from quickstudy.tasks.tables import Tables

FAST = ("--train.steps", "4", "--train.valid_tasks", "4", "--train.valid_every", "2", "--quiet")
HEAD = "site,age,sex,dose,ill,score"


def lines(sites: int = 8, each: int = 16) -> list[str]:
    """A clean table: the score of a site is its own line in the age."""
    rng = np.random.default_rng(0)
    out = [HEAD]
    for s in range(sites):
        slope, level = rng.normal(), 100 * rng.normal()
        for i in range(each):
            age, dose = 20 + int(rng.integers(60)), "" if i % 5 == 0 else f"{rng.normal():.3f}"
            score = level + slope * age + rng.normal()
            out.append(f"site{s},{age},{'fm'[i % 2]},{dose},{'yes' if i % 3 else 'no'},{score:.4f}")
    return out


def write(path: Path, rows: list[str], encoding: str = "utf-8") -> Path:
    path.write_text("\n".join(rows) + "\n", encoding)
    return path


def put(row: str, column: str, cell: str) -> str:
    cells = row.split(",")
    cells[HEAD.split(",").index(column)] = cell
    return ",".join(cells)


def broken(what: str) -> list[str]:
    """The clean table with one thing wrong."""
    rows = lines()
    if what == "delimiter":
        return [row.replace(",", ";") for row in rows]
    if what == "mixed":
        return [*rows[:5], put(rows[5], "age", "forty"), *rows[6:]]
    if what == "one example":
        return [*rows[:7], put(rows[7], "ill", "perhaps"), *rows[8:]]
    if what == "nan column":
        return [rows[0], *(put(row, "dose", "NaN") for row in rows[1:])]
    if what == "constant target":
        return [rows[0], *(put(row, "score", "1.5") for row in rows[1:])]
    if what == "no target":
        return [rows[0], *(put(row, "score", "") for row in rows[1:])]
    if what == "no task":
        return [*rows[:9], put(rows[9], "site", ""), *rows[10:]]
    if what == "ragged":
        return [*rows[:3], rows[3] + ",1", *rows[4:]]
    if what == "twice":
        return [rows[0].replace("dose", "age"), *rows[1:]]
    if what == "header":
        return rows[:1]
    return [] if what == "empty" else rows


SENTENCES = {
    "delimiter": (("--tasks.target", "score"), "one column if commas stand between columns"),
    "mixed": (("--tasks.target", "score"), "the column 'age' of .* holds .* numbers and 'forty' in line 6"),
    "one example": (("--tasks.target", "ill"), "the class 'perhaps' of the target 'ill' has one row"),
    "nan column": (("--tasks.target", "score"), "the column 'dose' of .* has no value in the training tasks"),
    "constant target": (("--tasks.target", "score"), "is 1.5 in every row"),
    "no target": (("--tasks.target", "score"), "is empty in every row"),
    "no task": (("--tasks.target", "score"), "line 10 of .* says no task"),
    "ragged": (("--tasks.target", "score"), "line 4, has 7 cells and the header 6"),
    "twice": (("--tasks.target", "score"), "two columns called 'age'"),
    "header": (("--tasks.target", "score"), "a header and no rows"),
    "empty": (("--tasks.target", "score"), "is empty: give a header"),
    "target": (("--tasks.target", "scor"), "no column 'scor', which target names: did you mean 'score'"),
    "kind": (("--tasks.target", "ill", "--tasks.kind", "regression"), "holds words and kind is regression"),
    "held out": (("--tasks.target", "score", "--tasks.test_tasks", "site9"), "no task 'site9' to hold out"),
    "too short": (("--tasks.target", "score", "--tasks.shot", "20"), "no train task of .* has the 30 rows"),
    "ignored": (("--tasks.target", "score", "--tasks.ignore", "agee"), "'agee', which ignore names"),
    "no option": ((), "table needs target"),
    "scheme": (("--tasks.target", "ill", "--tasks.scheme", "both"), "unknown scheme 'both'"),
}


@pytest.mark.parametrize("what", SENTENCES)
def test_one_sentence(what: str, tmp_path: Path, refused: Callable[..., str]) -> None:
    words, sentence = SENTENCES[what]
    path = write(tmp_path / "t.csv", broken(what))
    learner = "protonet" if "ill" in words else "cnp"
    given = ("--tasks", "table", "--tasks.path", path, "--tasks.task_column", "site", *words)
    said = refused("train", "--learner", learner, *given, *FAST, "--out", tmp_path / "run")
    assert re.search(sentence, said), said


def test_files_that_are_no_table(tmp_path: Path) -> None:
    write(tmp_path / "latin.csv", [HEAD.replace("age", "âge"), *lines()[1:]], "latin-1")
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress("\n".join(lines()).encode())[:200])
    (tmp_path / "plain.csv.gz").write_text("\n".join(lines()))
    for name, word in {
        "latin.csv": "no UTF-8", "cut.csv.gz": "cannot be read as a table", "plain.csv.gz": "cannot be read",
        "none.csv": "check the path", ".": "is a folder",
    }.items():  # fmt: skip
        with pytest.raises(UserError, match=word):
            Table(str(tmp_path / name), "site", "score").spec  # noqa: B018


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    rows = lines()
    few = write(tmp_path / "few.csv", [*rows, *(r.replace("site0", "small") for r in rows[1:4])])
    source = Table(str(few), "site", "score", shot=6, query=6, test_tasks="site0", valid_tasks="site1")
    with pytest.warns(UserWarning, match=r"1 of 7 train tasks .*the first is 'small'"):
        source.sample("train", 2, source.rng(0))
    write(tmp_path / "gone.csv", [*rows[:4], put(rows[4], "score", "?"), *rows[5:]])
    with pytest.warns(UserWarning, match=r"1 rows of .* have no score"):
        Table(str(tmp_path / "gone.csv"), "site", "score").spec  # noqa: B018


def test_a_reader_says_what_does_not_fit(tmp_path: Path) -> None:
    source = Table(str(write(tmp_path / "t.csv", lines())), "site", "ill", ignore="score")
    reader = source.reader()
    assert isinstance(reader, TableReader)
    for what, rows, word in (
        ("two.csv", lines(2), "holds rows of 2 tasks"),
        ("lacks.csv", ["age,sex", "30,f"], "has no column 'dose'"),
        ("class.csv", [HEAD, "new,30,f,1.0,perhaps,1"], "the class 'perhaps', unknown in training"),
        ("words.csv", [HEAD, "new,old,f,1.0,yes,1"], "'age' .* holds words"),
        ("part.csv", [HEAD, "new,30,f,1.0,yes,1", "new,31,f,1.0,,1"], "line 3 .* has no 'ill' and other rows have"),
    ):
        with pytest.raises(UserError, match=word):
            reader.read(str(write(tmp_path / what, rows)))
    # in any order, with words that were never seen and with nothing to learn from
    rows = reader.read(str(write(tmp_path / "new.csv", ["more,dose,sex,age", "1,?,x,40"])))
    assert rows.labels is None and rows.names == ["line 2"] and rows.x.shape[1] == source.spec.x_shape[0]


def test_tables_of_other_columns(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs a folder"):
        Tables(str(tmp_path / "none")).spec  # noqa: B018
    with pytest.raises(UserError, match="holds no tables"):
        Tables(str(tmp_path)).spec  # noqa: B018
    write(tmp_path / "a.csv", ["x,target", "red,1", "blue,0", "red,0"])
    with pytest.raises(UserError, match="holds words, which mean nothing in other tables"):
        Tables(str(tmp_path)).spec  # noqa: B018
    write(tmp_path / "a.csv", ["x,target", "1,1", "2,0", "3,0"])
    write(tmp_path / "a.tsv", ["x\ttarget", "1\t1", "2\t0", "3\t0"])
    with pytest.raises(UserError, match="two tables called 'a'"):
        Tables(str(tmp_path)).spec  # noqa: B018


@pytest.mark.parametrize(("learner", "target", "ignore"), [("cnp", "score", "ill"), ("protonet", "ill", "score")])
def test_from_a_table_to_predictions(
    learner: str, target: str, ignore: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = lines()
    write(tmp_path / "all.csv", rows)
    out, task = tmp_path / "run", tmp_path / "site.safetensors"
    given = ["--tasks", "table", "--tasks.path", str(tmp_path / "all.csv"), "--tasks.task_column", "site"]
    given += ["--tasks.target", target, "--tasks.ignore", ignore, "--tasks.shot", "6", "--tasks.query", "4"]
    assert main(["train", "--learner", learner, *given, *FAST, "--out", str(out)]) == 0
    assert main(["evaluate", str(out / "best.safetensors"), "--test_tasks", "4", "--baselines", "chance"]) == 0
    assert learner in capsys.readouterr().out
    own = [row for row in rows if row.startswith("site3,")]
    write(tmp_path / "support.csv", [HEAD, *own[:6]])
    # to predict: other order, no target, no task
    cells = [dict(zip(HEAD.split(","), row.split(","), strict=True)) for row in own[6:9]]
    write(tmp_path / "new.csv", ["dose,sex,age", *(f"{c['dose']},{c['sex']},{c['age']}" for c in cells)])
    assert main(["adapt", str(out / "best.safetensors"), str(tmp_path / "support.csv"), "--out", str(task)]) == 0
    assert main(["predict", str(task), str(tmp_path / "new.csv"), "--out", str(tmp_path / "said.csv")]) == 0
    with open(tmp_path / "said.csv", newline="") as file:
        said = list(csv.DictReader(file))
    assert len(said) == 3
    if target == "score":  # in the units of the table: within what that site shows
        known = [float(row.split(",")[5]) for row in own]
        assert all(abs(float(row["value"]) - np.mean(known)) < 20 * np.std(known) for row in said)
    assert main(["adapt", str(out / "best.safetensors"), str(tmp_path / "new.csv"), "--out", str(task)]) == 2
    assert f"add the column '{target}'" in capsys.readouterr().err


def test_nothing_is_warned_of_where_nothing_is_wrong(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        source = Table(str(write(tmp_path / "t.csv", lines())), "site", "score", 6, 4)
        source.sample("train", 3, source.rng(0))
