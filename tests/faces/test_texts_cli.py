"""Texts by command line: train, evaluate, adapt to a table, label another one."""

from __future__ import annotations

import csv
import itertools
import random
from pathlib import Path

import pytest

import quickstudy as qs
from quickstudy import checkpoint
from quickstudy.cli import evaluating, main

VERBS = ("open", "close", "paint", "lift", "wash", "sell", "count", "break", "hide", "burn", "weigh", "trade")
NEW = ("juggle", "polish", "knock over")
THINGS = [f"the {a} {b}" for a in ("red", "old", "big", "tiny") for b in ("lamp", "door", "oven", "chair")]


def table(path: Path, verbs: tuple[str, ...], things: list[str], labelled: bool = True) -> str:
    rows = [(f"please {verb} {thing}", verb) for verb, thing in itertools.product(verbs, things)]
    random.Random(0).shuffle(rows)
    with path.open("w", newline="") as file:
        out = csv.writer(file, delimiter=";")
        out.writerow(["said", "meant"] if labelled else ["said"])
        out.writerows(rows if labelled else [(text,) for text, _ in rows])
    return str(path)


def test_from_training_to_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("QUICKSTUDY_CACHE", str(tmp_path / "cache"))
    run, adapted, labels = tmp_path / "run", str(tmp_path / "task.safetensors"), tmp_path / "labels.csv"
    columns = ["--tasks.text_column", "said", "--tasks.label_column", "meant"]
    episode = ["--tasks.way", "2", "--tasks.shot", "2", "--tasks.size", "32"]
    training = ["--train.steps", "20", "--train.valid_every", "10", "--train.valid_tasks", "20", "--quiet"]
    path = table(tmp_path / "train.csv", VERBS, THINGS)
    begin = ["train", "--tasks", "text", "--tasks.path", path, "--learner", "protonet", "--net", "projection"]
    assert main([*begin, *columns, *episode, *training, "--out", str(run)]) == 0
    best = str(run / "best.safetensors")
    assert (run / "best.safetensors").stat().st_size < 10e6
    assert main(["evaluate", best, "--test_tasks", "20"]) == 0
    assert "protonet" in capsys.readouterr().out
    other = table(tmp_path / "other.csv", NEW, THINGS)
    elsewhere = ["--tasks.path", other, "--tasks.valid_fraction", "0", "--tasks.test_fraction", "0.67"]
    assert main(["evaluate", best, *elsewhere, "--test_tasks", "20"]) == 0

    support = table(tmp_path / "support.csv", NEW, THINGS[:5])
    assert main(["adapt", best, support, "--out", adapted]) == 0
    asked = table(tmp_path / "asked.csv", NEW, THINGS[5:], labelled=False)
    assert main(["predict", adapted, asked, "--out", str(labels)]) == 0
    with labels.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 33 and "line 2, please" in rows[0]["input"]
    right = sum(f"please {row['label']} the" in row["input"] for row in rows)
    assert right >= 22  # by chance 11
    plain = tmp_path / "asked.txt"
    plain.write_text("\n".join(row["input"].split(", ", 1)[1] for row in rows))
    assert main(["predict", adapted, str(plain), "--out", str(tmp_path / "plain.csv")]) == 0
    with (tmp_path / "plain.csv").open(newline="") as file:
        assert [row["label"] for row in csv.DictReader(file)] == [row["label"] for row in rows]
    told = table(tmp_path / "told.csv", NEW, THINGS[5:])
    capsys.readouterr()
    assert main(["predict", adapted, told]) == 0
    assert f"{right} of the 33 labelled rows are right" in capsys.readouterr().out


def test_evaluating_on_another_table_uses_the_learners_own_encoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("QUICKSTUDY_CACHE", str(tmp_path / "cache"))
    a, b = (table(tmp_path / f"{i}.csv", VERBS, things) for i, things in enumerate((THINGS, THINGS[:9])))
    options = {"text_column": "said", "label_column": "meant", "way": 2, "size": 16}
    source = qs.tasks.Texts(a, **options)
    checkpoint.save(qs.make("protonet", source.spec), tmp_path / "best.safetensors", source)
    met = []

    def measure(learner: qs.MetaLearner, source: qs.Source, *_: object, **__: object) -> object:
        met.append(source)
        return qs.evaluate(learner, source, tasks=2)

    monkeypatch.setattr(evaluating, "measure", measure)
    assert main(["evaluate", str(tmp_path / "best.safetensors"), "--tasks.path", b, "--baselines", "none"]) == 0
    reader = source.reader()
    wanted = reader.read(b).x  # type: ignore[union-attr]
    assert bool((met[0].prepare().x == wanted).all())
