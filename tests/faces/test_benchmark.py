"""`quickstudy benchmark`: one table, the same tasks and time for all, resumable; a failure is a row."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

import quickstudy as qs
from quickstudy.benchmark import Contest, Entry, against_baseline, fitting, pays
from quickstudy.cli.main import main
from quickstudy.core.errors import UserError
from quickstudy.core.task import Inputs, State
from quickstudy.learners import Chance

SHORT = ("--seconds", "0.3", "--test_tasks", "20")
NAMES = ("maml", "chance", "scratch")


@pytest.fixture
def source() -> qs.Source:
    return qs.tasks.Sinusoid(shot=5, query=5)


def test_the_table_and_its_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "sinusoid", "--learners", *NAMES, *SHORT, "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "The best plain baseline is" in said and "0.85 ± 0.14" in said
    assert {p.name for p in tmp_path.iterdir()} == {"benchmark.json", "table.md", *(f"{n}.json" for n in NAMES)}
    card = json.loads((tmp_path / "maml.json").read_text())
    assert card["steps"] >= 1 and card["seconds"] > 0 and card["scores"]["tasks"] == 20
    assert json.loads((tmp_path / "chance.json").read_text())["steps"] == 0


def test_the_suite_may_stand_anywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", *SHORT, "--learners", "chance", "--out", str(tmp_path), "sinusoid"]) == 0
    assert '"sinusoid"' in (tmp_path / "benchmark.json").read_text()


def test_what_is_there_is_not_done_again(tmp_path: Path, source: qs.Source) -> None:
    first = Contest(source, ["maml"], seconds=0.2, test_tasks=20, out=tmp_path).run()
    again = Contest(source, ["maml", "chance"], seconds=0.2, test_tasks=20, out=tmp_path).run()
    assert next(e for e in again if e.learner == "maml").to_json() == first[0].to_json()
    with pytest.raises(UserError, match=r"holds a benchmark of other tasks or settings"):
        Contest(source, ["maml"], seconds=0.3, test_tasks=20, out=tmp_path).run()


def test_processes_change_nothing_that_does_not_depend_on_time(source: qs.Source) -> None:
    names = ["chance", "scratch"]
    one, two = (Contest(source, names, test_tasks=20).run(processes=n) for n in (1, 2))
    for a, b in zip(one, two, strict=True):
        assert a.scores is not None and b.scores is not None
        assert a.learner == b.learner and a.scores.measures == b.scores.measures


class Breaks(Chance):
    """Fails as a method may."""

    def predict(self, state: State, x: Inputs, weight: Tensor | None = None) -> Tensor:
        raise RuntimeError("the matrix is singular\nand more")


def test_a_failure_is_a_row(source: qs.Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(qs.catalogue("learner").classes, "breaks", Breaks)
    found = Contest(source, ["breaks", "protonet", "chance"], test_tasks=20).run()
    assert found[0].learner == "chance"
    failed = {e.learner: e.failed for e in found if not e.scores}
    assert failed["breaks"] == "RuntimeError: the matrix is singular"
    assert failed["protonet"].startswith("protonet takes classification tasks")


def test_every_learner_met_the_same_tasks_and_the_pair_is_right(source: qs.Source) -> None:
    found = Contest(source, ["chance", "scratch"], test_tasks=200).run()
    plain, pairs = against_baseline(found)
    other = "chance" if plain == "scratch" else "scratch"
    by = {e.learner: e.scores for e in found}
    gap = torch.tensor(by[other].values()) - torch.tensor(by[plain].values())  # type: ignore[union-attr]
    assert pairs[other].difference == pytest.approx(float(gap.mean()))
    assert pairs[other].verdict == "worse"  # the best baseline stands first
    assert "No method is shown to be better" in pays(found)
    assert "is not said" in pays([Entry("maml", failed="x")])


def test_what_fits(source: qs.Source) -> None:
    names = fitting(source)
    assert {"maml", "cnp", "chance"} <= set(names) and "protonet" not in names


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sinusoi"], "there is no suite 'sinusoi': did you mean 'sinusoid'?"),
        (["sinusoid", "--learners", "mamm"], "unknown learner 'mamm': did you mean 'maml'?"),
        (["sinusoid", "--seconds", "0"], "give more than 0 seconds"),
        (["sinusoid", "--tasks", "glyphs"], "sinusoid is a suite of sinusoid: leave its name out"),
    ],
)
def test_errors(words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", *words, "--out", str(tmp_path / "out")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
