"""What a user can get wrong with series, each with one clear sentence; and the way through with some that are right."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from quickstudy.cli import main
from quickstudy.core.errors import UserError
from quickstudy.tasks.series import Series

FAST = ("--train.steps", "4", "--train.valid_tasks", "4", "--train.valid_every", "2", "--quiet")
HEAD = "id,time,gl,meal"
BEGIN = datetime(2024, 5, 31, 8)


def lines(patients: int = 6, each: int = 24) -> list[str]:
    rng = np.random.default_rng(0)
    out = [HEAD]
    for p in range(patients):
        level = 80 + 20 * rng.random()
        for i in range(each):
            out.append(f"p{p},{BEGIN + timedelta(minutes=5 * i)},{level + np.sin(i):.3f},{i % 2}")
    return out


def put(row: str, column: str, cell: str) -> str:
    cells = row.split(",")
    cells[HEAD.split(",").index(column)] = cell
    return ",".join(cells)


def write(path: Path, rows: list[str]) -> Path:
    path.write_text("\n".join(rows) + "\n")
    return path


def broken(what: str) -> list[str]:
    rows = lines()
    if what == "twice":
        return [*rows[:4], put(rows[4], "time", rows[2].split(",")[1]), *rows[5:]]
    if what == "date":
        return [*rows[:4], put(rows[4], "time", "yesterday"), *rows[5:]]
    if what == "no date":
        return [*rows[:4], put(rows[4], "time", ""), *rows[5:]]
    if what == "constant":
        return [rows[0], *(put(row, "gl", "5") for row in rows[1:])]
    if what == "nan":
        return [rows[0], *(put(row, "gl", "NaN") for row in rows[1:])]
    if what == "mixed":
        return [*rows[:4], put(rows[4], "gl", "high"), *rows[5:]]
    if what == "no covariate":
        return [rows[0], *(put(row, "meal", "?") for row in rows[1:])]
    return [] if what == "empty" else rows


GIVEN = ("--tasks.task_column", "id", "--tasks.value_column", "gl", "--tasks.shot", "6", "--tasks.query", "4")
SENTENCES: dict[str, tuple[tuple[str, ...], str]] = {
    "twice": ((), "two readings of 'p0' at one time .lines 3 and 5.: keep one"),
    "date": ((), "the time in line 5 of .* is 'yesterday': give a date"),
    "no date": ((), "the time in line 5 of .* is nothing"),
    "constant": ((), "'gl' of .* is 5 in every row"),
    "nan": ((), "'gl' of .* are all missing"),
    "mixed": ((), "'gl' of .* holds .* numbers and 'high' in line 5"),
    "no covariate": (("--tasks.covariates", "meal"), "'meal' of .* has no value in the training tasks"),
    "empty": ((), "is empty"),
    "column": (("--tasks.time_column", "tim"), "no column 'tim', which time_column names: did you mean 'time'"),
    "kind": (("--tasks.kind", "forcast"), "kind is 'forcast': did you mean 'forecast'"),
    "hold out": (("--tasks.hold_out", "rows"), "hold_out is 'rows'"),
    "too short": (("--tasks.shot", "30"), "no train task of .* has the 34 rows one after the other in time"),
    "all held": (("--tasks.hold_out", "time", "--tasks.test_fraction", "1.0"), "leave no time to train on"),
    "past": (("--tasks.past", "-1"), "neither may be below 0"),
}


@pytest.mark.parametrize("what", SENTENCES)
def test_one_sentence(what: str, tmp_path: Path, refused: Callable[..., str]) -> None:
    words, sentence = SENTENCES[what]
    path = write(tmp_path / "s.csv", broken(what))
    said = refused("train", "--learner", "cnp", "--tasks", "series", "--tasks.path", path, *GIVEN, *words, *FAST,
                   "--out", tmp_path / "run")  # fmt: skip
    assert re.search(sentence, said), said


def test_a_reader_does_not_let_the_future_in(tmp_path: Path) -> None:
    options = {"task_column": "id", "value_column": "gl", "shot": 6, "query": 4}
    path = str(write(tmp_path / "s.csv", lines()))
    own = lines()[1:9]
    gap = write(tmp_path / "gap.csv", [HEAD, *own[:3], put(own[3], "gl", ""), *own[4:]])
    with pytest.raises(UserError, match="later time than line 5, which is asked: a forecast may not know the future"):
        Series(path, **options).reader().read(str(gap))
    with pytest.raises(UserError, match=r"line 5 of .* has no 'gl' and other rows have"):
        Series(path, kind="interpolate", **options).reader().read(str(gap))
    later = write(tmp_path / "later.csv", [HEAD, *own[:5], *(put(row, "gl", "") for row in own[5:])])
    with pytest.raises(UserError, match="in one file, and those to predict in another"):
        Series(path, **options).reader().read(str(later))
    with pytest.raises(UserError, match=r"two readings of .* at one time"):
        Series(path, **options).reader().read(str(write(tmp_path / "twice.csv", [HEAD, *own, own[0]])))
    with pytest.raises(UserError, match="holds rows of 2 tasks"):
        Series(path, **options).reader().read(str(write(tmp_path / "two.csv", lines(2))))
    with pytest.raises(UserError, match=r"is 3: give a date|no dates"):
        Series(path, **options).reader().read(str(write(tmp_path / "number.csv", ["time,gl", "3,1"])))


def test_readings_without_a_value_are_said(tmp_path: Path) -> None:
    rows = lines()
    write(tmp_path / "s.csv", [*rows[:4], put(rows[4], "gl", ""), *rows[5:]])
    with pytest.warns(UserWarning, match=r"1 readings of .* have no value"):
        Series(str(tmp_path / "s.csv"), "id", "time", "gl").spec  # noqa: B018


@pytest.mark.parametrize("words", [(), ("--tasks.hold_out", "time", "--tasks.covariates", "meal")])
def test_from_series_to_a_forecast(
    words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = lines(each=40)
    path, out, task = write(tmp_path / "all.csv", rows), tmp_path / "run", tmp_path / "p.safetensors"
    given = ["--tasks", "series", "--tasks.path", str(path), *GIVEN, *words]
    assert main(["train", "--learner", "alpaca", *given, *FAST, "--out", str(out)]) == 0
    assert main(["evaluate", str(out / "best.safetensors"), "--test_tasks", "4", "--baselines", "chance"]) == 0
    own = [row for row in rows if row.startswith("p2,")]
    write(tmp_path / "past.csv", [HEAD, *own[:8]])
    write(tmp_path / "next.csv", ["time,meal", *(",".join(row.split(",")[1::2]) for row in own[8:11])])
    assert main(["adapt", str(out / "best.safetensors"), str(tmp_path / "past.csv"), "--out", str(task)]) == 0
    assert main(["predict", str(task), str(tmp_path / "next.csv"), "--out", str(tmp_path / "said.csv")]) == 0
    with open(tmp_path / "said.csv", newline="") as file:
        said = list(csv.DictReader(file))
    level = np.mean([float(row.split(",")[2]) for row in own])
    assert [row["input"].split(": ", 1)[1] for row in said] == [row.split(",")[1] for row in own[8:11]]
    assert all(abs(float(row["value"]) - level) < 30 and float(row["deviation"]) > 0 for row in said)
