"""Whole series from files of every form that people have them in, and what can be wrong with those."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

import quickstudy as qs
from quickstudy import checkpoint
from quickstudy.cli import main
from quickstudy.core.errors import UserError
from quickstudy.tasks import SeriesClasses
from quickstudy.tasks.guess import guess
from quickstudy.tasks.series_file import as_rows, read_recordings, series_files

FAST = ("--train.steps", "4", "--train.valid_tasks", "4", "--train.valid_every", "2", "--quiet")


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def archive(folder: Path, sets: int = 4, classes: int = 3, each: int = 6) -> Path:
    """Waves whose number of periods is their class, in the layout of the archive."""
    rng = np.random.default_rng(0)
    for number in range(sets):
        for part in ("TRAIN", "TEST"):
            lines = []
            for label in range(1, classes + 1):
                for _ in range(each):
                    at = np.linspace(0, 2 * np.pi * label, 20 + number) + rng.uniform(0, 0.3)
                    lines.append("\t".join(map(str, [label, *np.sin(at).round(3)])))
            write(folder / f"set{number}" / f"set{number}_{part}.tsv", "\n".join(lines) + "\n")
    write(folder / "README.md", "not a series")
    return folder


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.tsv", "1\t0\t1\t2\n2\t5\t3\t1\n"),
        ("a.csv", "1.0,0,1,2\n2.0,5,3,1\n"),
        ("A_TRAIN.txt", "  1.0000000e+00   0.0  1.0  2.0\n  2.0   5 3 1\n"),
        ("a.ts", "@problemName a\n@data\n0,1,2:1\n5,3,1:2\n"),
    ],
    ids=["tabs", "commas", "spaces", "ts"],
)
def test_all_forms_say_the_same(tmp_path: Path, name: str, text: str) -> None:
    for path in (write(tmp_path / name, text), tmp_path / f"{name}.gz"):
        if path.suffix == ".gz":
            path.write_bytes(gzip.compress(text.encode()))
        found = read_recordings(path)
        assert found.labels == ["1", "2"]
        assert [v.tolist() for v in found.values] == [[0, 1, 2], [5, 3, 1]]
        assert guess(str(path))["name"] == "series_classes" if not name.endswith(".txt") else True


def test_padding_is_cut_off_and_gaps_are_bridged(tmp_path: Path) -> None:
    found = read_recordings(write(tmp_path / "a.tsv", "up\t0\tNaN\t2\tnan\tNaN\n?\t1\t\t3\t5\t7\n"))
    assert [v.tolist() for v in found.values] == [[0, 1, 2], [1, 2, 3, 5, 7]]
    assert found.labels == ["up", ""] and found.names == ["line 1", "line 2"]


def test_series_of_any_length_become_rows() -> None:
    up, flat = np.array([0.0, 1.0, 2.0]), np.full(7, 3.0)
    assert as_rows([up, flat], 5, False).tolist() == [[0, 0.5, 1, 1.5, 2], [3] * 5]
    rows = as_rows([up, 10 + 100 * up, flat], 9, True)
    assert np.allclose(rows[0], rows[1], atol=1e-5) and not rows[2].any()
    assert np.allclose(rows[:2].mean(1), 0, atol=1e-6) and np.allclose(rows[:2].std(1), 1, atol=1e-6)


def test_the_two_parts_of_a_set_are_one(tmp_path: Path) -> None:
    assert {name: len(files) for name, files in series_files(str(archive(tmp_path))).items()} == {
        f"set{i}": 2 for i in range(4)
    }
    source = SeriesClasses(str(tmp_path), length=16, valid_sets="set1", test_sets=["set3"])
    assert source.prepare().counts.tolist() == [12] * 12 and source.spec.x_shape == (16,)
    assert source.names("test") == ["set3/1", "set3/2", "set3/3"] and source.names("valid")[0] == "set1/1"
    assert guess(str(tmp_path))["name"] == "series_classes"


def test_the_classes_of_a_task_are_of_one_set(tmp_path: Path) -> None:
    source = SeriesClasses(str(archive(tmp_path)), 2, 2, 3, length=16, valid_fraction=0.0, test_fraction=0.0)
    names = source.names("train")
    for pair in source.draw("train", 50, source.rng(0)).classes.tolist():
        assert len({names[c].split("/")[0] for c in pair}) == 1


def test_waves_are_told_apart_and_files_read_alike(tmp_path: Path) -> None:
    source = SeriesClasses(str(archive(tmp_path)), 2, 3, 3, length=24, valid_sets="set1", test_sets="set3")
    score = qs.evaluate(qs.make("centroid", source.spec), source, tasks=40)
    assert score.mean() > 0.95
    trained = tmp_path / "a.safetensors"
    checkpoint.save(qs.make("protonet", source.spec), trained, source)
    reader = checkpoint.load(trained).reader
    assert reader is not None
    rows = reader.read(str(tmp_path / "set3" / "set3_TEST.tsv"))
    assert torch.equal(rows.x, source.prepare().gather(source.prepare().rows[-3:, :6].flatten()[None])[0])
    assert rows.labels == ["1"] * 6 + ["2"] * 6 + ["3"] * 6
    given = read_recordings(tmp_path / "set3" / "set3_TEST.tsv").values
    assert torch.equal(reader.given(np.pad(np.stack(given), ((0, 0), (0, 2)), constant_values=np.nan)), rows.x)


def test_the_whole_way_by_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = archive(tmp_path / "waves")
    words = ["--tasks", str(folder), "--tasks.shot", "2", "--tasks.query", "3", "--tasks.hold_out", "domains"]
    run = tmp_path / "run"
    fractions = ["--tasks.valid_fraction", "0.25", "--tasks.test_fraction", "0.25"]
    assert main(["train", "--learner", "protonet", *words, *fractions, *FAST, "--out", str(run)]) == 0
    lines = (folder / "set0" / "set0_TEST.tsv").read_text().splitlines()
    support = write(tmp_path / "support.tsv", "\n".join(lines) + "\n")
    asked = write(tmp_path / "asked.tsv", "\n".join("?" + line[1:] for line in lines[:4]) + "\n")
    task = str(tmp_path / "task.safetensors")
    assert main(["adapt", str(run / "best.safetensors"), str(support), "--out", task]) == 0
    assert main(["predict", task, str(asked), "--out", str(tmp_path / "answers.csv")]) == 0, capsys.readouterr().err
    answers = (tmp_path / "answers.csv").read_text().splitlines()
    assert len(answers) == 5 and ": line 1,1," in answers[1]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("class,a,b\n1,2,3\n", "line 1, holds 'a'.*take the header out"),
        ("1,2,3\n1,2,inf\n", "line 2, holds 'inf'"),
        ("1,2,NaN\n", "line 1, is a series of 1 values"),
        ("\n", "holds no series"),
        ("?,1,2\n1,2,3\n", "line 1, says no class"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, said: str) -> None:
    path = write(tmp_path / "a.csv", text)
    with pytest.raises(UserError, match=said):
        SeriesClasses(str(path)).prepare()


def test_other_mistakes_are_said(tmp_path: Path) -> None:
    good = write(tmp_path / "good" / "a.csv", "1,1,2\n1,2,2\n2,3,1\n")
    wrong = write(tmp_path / "wrong.ts", "1,2,3\n")
    beside = write(tmp_path / "beside.ts", "1,2:3,4:up\n")
    for source, said in (
        (SeriesClasses(str(wrong)), "no class behind a colon"),
        (SeriesClasses(str(beside)), "2 series beside each other"),
        (SeriesClasses(str(tmp_path / "gone")), "nothing at"),
        (SeriesClasses(""), "needs a path"),
        (SeriesClasses(str(good), length=1), "length is 1"),
        (SeriesClasses(str(good), fewest=9), "lower fewest"),
        (SeriesClasses(str(good), hold_out="rows"), "unknown hold_out"),
        (SeriesClasses(str(good.parent), test_sets="b"), "no task 'b' to hold out"),
    ):
        with pytest.raises(UserError, match=said):
            source.prepare()
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="holds no series"):
        series_files(str(tmp_path / "none"))
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe1,2,3")
    with pytest.raises(UserError, match="no UTF-8"):
        read_recordings(tmp_path / "bytes.csv")
    reader = SeriesClasses(str(good)).reader()
    some = write(tmp_path / "some.csv", "1,1,2\n?,2,2\n")
    with pytest.raises(UserError, match="line 2, says no class and other lines do"):
        reader.read(str(some))
    with pytest.raises(UserError, match="row 1 of X"):
        reader.given([[1.0, 2.0], [np.nan, np.nan]])


def test_a_table_with_a_header_is_no_series(tmp_path: Path) -> None:
    write(tmp_path / "tables" / "one_test.csv", "a,b,target\n1,2,0\n3,4,1\n")
    assert guess(str(tmp_path / "tables"))["name"] == "tables"
    write(tmp_path / "plain" / "one.csv", "1,2,3\n2,3,4\n")
    assert guess(str(tmp_path / "plain"))["name"] == "series_classes"
