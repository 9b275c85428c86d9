"""`quickstudy verdict`: an answer with its ground, resumable, on test tasks that nothing was chosen on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import quickstudy as qs
from quickstudy.cli.main import main
from quickstudy.core.errors import UserError
from quickstudy.questions import verdict as module
from quickstudy.questions.verdict import Case, Trial
from quickstudy.scores import Evaluation

SHORT = ("--seconds", "1", "--test_tasks", "40")
TASKS = ("--tasks", "sinusoid", "--tasks.shot", "5")


def test_the_answer_and_its_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, numbers = tmp_path / "out", tmp_path / "verdict.json"
    words = ["verdict", *TASKS, *SHORT, "--learners", "r2d2", "--out", str(out), "--json", str(numbers)]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "r2d2: mse" in said and "the best plain baseline" in said and "Cost: r2d2 takes" in said
    card = json.loads(numbers.read_text())
    assert card["answer"] in ("pays", "does not pay", "cannot tell") and card["text"] in said
    assert card["learner"] == "r2d2" and card["plain"] in module.PLAIN["regression"] and card["tasks"] == 40
    assert set(card["tried"]) == {"r2d2", *module.PLAIN["regression"]}
    assert (out / "r2d2.safetensors").is_file() and (out / "verdict.json").read_text() == numbers.read_text()
    # a second time nothing is trained, and the answer is the same; another worth is another question of the same case
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*.safetensors")}
    assert main([*words, "--worth", "200"]) == 0
    again = json.loads(numbers.read_text())
    assert again["answer"] == "does not pay" and again["scores"] == card["scores"] and again["worth"] == 200
    assert before == {path.name: path.stat().st_mtime_ns for path in out.glob("*.safetensors")}
    assert main(["evaluate", str(out / "r2d2.safetensors"), "--test_tasks", "5"]) == 0


def blobs() -> qs.tasks.Arrays:
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(60), 12)
    return qs.tasks.Arrays.of(rng.standard_normal((60, 3))[y] + rng.standard_normal((720, 3)), y, way=3, query=5)


def test_a_learner_and_a_baseline_are_chosen_on_valid_and_met_once_on_test(monkeypatch: pytest.MonkeyPatch) -> None:
    met: list[tuple[str, str]] = []

    def spy(learner: object, source: object, split: str, *rest: object, name: str) -> Evaluation:
        met.append((split, name))
        return evaluate(learner, source, split, *rest, name=name)

    evaluate = module.evaluate
    monkeypatch.setattr(module, "evaluate", spy)
    tried: list[Trial] = []
    found = Case(blobs(), seconds=1.0, test_tasks=40, learners=["protonet"]).run(watch=tried.append)
    assert [pair for pair in met if pair[0] == "test"] == [("test", found.learner), ("test", found.plain)]
    plain = [trial for trial in tried if trial.plain]
    assert found.plain == max(plain, key=lambda trial: trial.valid.mean()).name  # type: ignore[union-attr]
    assert found.units == "class" and found.unit_count == 12
    assert {name for split, name in met if split == "valid"} == set(found.tried)
    assert met.count(("valid", "protonet")) == 2  # early and late: what it still gains


def test_seconds_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, list[int]] = {}
    real = module.train

    def spy(learner: object, source: object, steps: int, **rest: object) -> object:
        asked.setdefault(type(learner).__name__, []).append(steps)
        return real(learner, source, steps=2, **rest)

    monkeypatch.setattr(module, "train", spy)
    monkeypatch.setattr(module, "step_seconds", lambda *_: 0.01)
    Case(blobs(), seconds=8.0, test_tasks=10, learners=["protonet"]).run()
    # two are trained: 4 seconds, 400 steps each, of which a quarter beforehand (the baseline does without it)
    assert asked == {"ProtoNet": [100, 300], "LinearProbe": [300]}


def test_a_failure_is_said_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_: object) -> float:
        raise RuntimeError("the matrix is singular\nand more")

    monkeypatch.setattr(module, "step_seconds", breaks)
    with pytest.raises(UserError, match=r"no learner could be tried \(protonet: RuntimeError: the matrix"):
        Case(blobs(), seconds=1.0, test_tasks=10, learners=["protonet"]).run()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--learners", "mamm"], "unknown learner 'mamm': did you mean 'maml'?"),
        (["--learners", "protonet"], "protonet takes classification"),
        (["--seconds", "0"], "give more than 0 seconds"),
        (["--test_tasks", "1"], "at least 2 tasks"),
        (["--worth", "-1"], "a worth of at least 0"),
        (["--worth", "much"], "--worth is 'much'"),
    ],
)
def test_errors(words: list[str], said: str, tmp_path: Path, refused: Callable[..., str]) -> None:
    assert said in refused("verdict", *TASKS, *words, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_of_another_case_is_refused(tmp_path: Path, refused: Callable[..., str]) -> None:
    words = ["verdict", *TASKS, "--seconds", "0.5", "--test_tasks", "10", "--learners", "r2d2"]
    assert main([*words, "--out", str(tmp_path)]) == 0
    assert "holds a verdict on other tasks or settings" in refused("verdict", *TASKS, *SHORT, "--out", tmp_path)
    (tmp_path / "file").write_text("")
    assert "is a file: give a folder" in refused("verdict", *TASKS, "--out", tmp_path / "file")


def test_classes_that_do_not_suffice_are_said_before_training() -> None:
    few = qs.tasks.Arrays.of(np.zeros((40, 2)), [i % 4 for i in range(40)], way=2, query=3)
    with pytest.raises(UserError, match=r"the valid split has 1 class and way is 2"):
        Case(few).run()


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verdict", "--help"]) == 0
    said = capsys.readouterr().out
    assert "example:" in said and "quickstudy verdict --tasks" in said and "--worth" in said
