"""`quickstudy tune`: trials that can be killed, shared and stopped early, and a best.yaml that `train` takes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import quickstudy as qs
from quickstudy.cli import main
from quickstudy.configuration import valid_source_in
from quickstudy.tune import Tuning, confirm, dimension, ledger, outcome
from quickstudy.tune.outcome import Outcome, Trial
from quickstudy.tune.storages import optuna_module
from quickstudy.tune.storages import storage as storage_at
from served import postgresql

pytest.importorskip("optuna")
SHORT = (
    *("tune", "--learner", "maml", "--tasks", "sinusoid", "--net.width", "8", "--train.steps", "16", "--trials", "7"),
    *("--train.valid_tasks", "10", "--score_tasks", "20", "--quiet"),
)
DEFAULTS = ("--learner.inner_lr", "0.05", "--train.lr", "1e-7")
SEARCH = (
    *("--search", "learner.inner_lr=log:0.001:0.05", "learner.first_order=true,false", "train.lr=log:0.003:0.1"),
    *DEFAULTS,
)
LINGERS = """
import time, optuna
from quickstudy.cli.main import program

def report(trial, *found, plain=optuna.Trial.report):
    plain(trial, *found)
    time.sleep(2 if trial.number == 2 else 0)

optuna.Trial.report = report
program()
"""
"""`quickstudy` whose third trial takes its time: a trial is over sooner than a signal comes."""
HYPERBAND = ("--confirm", "0", "--pruner", "hyperband")


def study(folder: Path, *words: str, confirm: int = 0) -> int:
    return main([*SHORT, *SEARCH, "--out", str(folder), "--confirm", str(confirm), *words])


def trials(folder: Path, storage: str | None = None) -> Sequence[Any]:
    """The trials that count, by place."""
    where = storage_at(storage or f"{folder}/study.journal")
    made = optuna_module().load_study(study_name="tune", storage=where)
    return sorted(ledger.counted(made), key=lambda t: ledger.place_of(made, t))


def told(folder: Path, storage: str | None = None) -> list[tuple[Any, ...]]:
    """All that a study has to have found, but how long it took."""
    return [
        (t.user_attrs["place"], t.state.name, t.params, t.value, t.intermediate_values, t.user_attrs["chosen"])
        for t in trials(folder, storage)
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unbroken study of one process."""
    folder = tmp_path_factory.mktemp("whole")
    assert study(folder) == 0
    return folder


def test_trial_0_is_the_defaults_and_the_best_is_written(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = told(whole)
    assert [place for place, *_ in found] == list(range(7))
    assert found[0][1:3] == ("COMPLETE", {}) and found[0][5] == {}
    assert study(whole) == 0  # nothing is left to be done: what was found is said again
    said = capsys.readouterr().out
    assert "7 done already" in said and "the defaults" in said and f"train --config {whole}/best.yaml" in said
    card = json.loads((whole / "tuning.json").read_text())
    values = [t["mse"] for t in card["trials"] if t["state"] == "complete"]
    assert card["trials"][card["best"]]["mse"] == min(values)
    assert all(0.001 <= t["chosen"]["learner.inner_lr"] <= 0.05 for t in card["trials"][1:])


def test_train_takes_the_best_as_it_is_and_finds_the_same(whole: Path, tmp_path: Path) -> None:
    config = whole / "best.yaml"
    assert main(["train", "--config", str(config), "--out", str(tmp_path), "--quiet"]) == 0
    tree = yaml.safe_load(config.read_text())
    source = qs.tasks.Sinusoid()
    learner = qs.load(tmp_path / "best.safetensors").learner
    card = json.loads((whole / "tuning.json").read_text())
    best = trials(whole)[card["best"]]
    scores = qs.evaluate(learner, valid_source_in(tree, source) or source, "valid", 20, ledger.seed_of(0, "score"))
    assert -scores.mean() == pytest.approx(best.value)
    # all trials share the tasks that halving goes by; what they are trained on is each one's own
    assert tree["train"]["valid_seed"] == 0 and tree["train"]["seed"] == ledger.seed_of(0, card["best"])
    assert tree["train"]["lr"] == best.user_attrs["chosen"]["train.lr"]


def test_halving_stops_trials_early_and_never_the_defaults(whole: Path) -> None:
    found = trials(whole)
    pruned = [t for t in found if t.state.name == "PRUNED"]
    assert pruned and all(max(t.intermediate_values) < 8 for t in pruned)
    assert all(max(t.intermediate_values) == 8 for t in found if t.state.name == "COMPLETE")
    for trial in pruned:  # at 1, 2 or 4, and with half of those before at least as good
        at = max(trial.intermediate_values)
        before = [t.intermediate_values[at] for t in found if t.number < trial.number and at in t.intermediate_values]
        assert at in (1, 2, 4) and max(before) > trial.intermediate_values[at]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_a_study_that_was_broken_off_goes_on_to_the_same_trials(
    whole: Path, tmp_path: Path, number: int, code: int
) -> None:
    command = [sys.executable, "-c", LINGERS, *SHORT, *SEARCH, "--confirm", "0", "--out", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    journal = tmp_path / "study.journal"
    # the third trial is at work as soon as it has reported once (operation 7 of Optuna's journal)
    while process.poll() is None and not (journal.exists() and '"trial_id":2,"step"' in journal.read_text()):
        time.sleep(0.005)
    process.send_signal(number)
    assert process.wait() == code
    assert study(tmp_path) == 0
    assert told(tmp_path) == told(whole)
    assert len(trials(tmp_path)) == 7
    assert ledger.voids(optuna_module().load_study(study_name="tune", storage=storage_at(str(journal))))


@pytest.mark.slow
def test_a_trial_whose_process_died_before_it_gave_its_name_is_done_again(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "NAMELESS", 0.1)
    assert study(tmp_path, "--trials", "3") == 0
    optuna_module().load_study(study_name="tune", storage=storage_at(f"{tmp_path}/study.journal")).ask()
    assert study(tmp_path) == 0
    assert told(tmp_path) == told(whole)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database that is empty."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/studies.db"
        return
    with postgresql() as found:
        yield found


@pytest.mark.slow
def test_two_processes_share_a_database(tmp_path: Path, whole: Path, url: str) -> None:
    assert study(tmp_path, "--storage", url, "--processes", "2") == 0
    found = trials(tmp_path, url)
    assert [t.user_attrs["place"] for t in found] == list(range(7))
    assert len({t.user_attrs["who"]["process"] for t in found}) == 2
    assert told(tmp_path, url)[0] == told(whole)[0]  # the defaults do not depend on who does them
    assert not (tmp_path / "study.journal").exists()


def test_the_test_split_is_met_by_the_confirmation_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    met: list[str] = []
    draw = qs.tasks.Sinusoid.sample

    def sample(self: Any, split: Any, *rest: Any) -> Any:
        met.append(split)
        return draw(self, split, *rest)

    monkeypatch.setattr(qs.tasks.Sinusoid, "sample", sample)
    assert study(tmp_path, "--trials", "3") == 0
    assert {"train", "valid"} == set(met)
    base = yaml.safe_load((tmp_path / "best.yaml").read_text())
    tuning = Tuning({"": base}, [dimension("train.lr", "log:0.001:0.1")], tmp_path / "other")
    plain, best = (Trial(place, "complete", "", {"train.lr": 0.01} if place else {}, float(place)) for place in (0, 1))
    found = Outcome(tuning, "mse", -1, [plain, best])
    held = confirm(found, seeds=2, tasks=20)
    assert held and held.split == "test" and "on 20 unseen test tasks" in str(held)
    assert held.interval > held.tasks_interval > 0 and held.difference == pytest.approx(held.best - held.defaults)
    met.clear()
    assert confirm(found, seeds=2, tasks=20) == held  # what was trained is not trained again
    assert "train" not in met
    assert confirm(Outcome(tuning, "mse", -1, [plain]), seeds=2) is None
    wild = Outcome(tuning, "mse", -1, [plain, Trial(2, "complete", "", {"learner.inner_lr": 900.0}, 1.0)])
    failed = confirm(wild, seeds=2, tasks=20)
    assert failed and failed.seeds == 0 and failed.verdict == "no gain shown"
    assert "2 of 2 trainings with the best failed: " in str(failed) and failed.card()["difference"] is None


def test_a_trial_that_fails_is_a_row_and_the_study_goes_on(tmp_path: Path) -> None:
    words = [*SHORT, "--search", "learner.inner_lr=0.001,900.0", "--out", str(tmp_path), "--confirm", "0"]
    assert main([*words, "--learner.inner_lr", "0.01"]) == 0
    failed = [t for t in trials(tmp_path) if t.state.name == "FAIL"]
    assert failed and all("is not finite" in t.user_attrs["failed"] for t in failed)
    assert any(t.state.name == "COMPLETE" and t.number > failed[0].number for t in trials(tmp_path))


def test_learners_are_searched_each_with_its_own_options(tmp_path: Path) -> None:
    words = [*SHORT, "--search", "learner=cnp,maml", "learner.width=int:4:8", "learner.inner_lr=log:0.001:0.02"]
    words = [word for word in words if word not in ("--net.width", "8")]
    assert main([*words, "--out", str(tmp_path), "--confirm", "0", "--pruner", "none"]) == 0
    tried = {t.user_attrs["variant"]: set(t.user_attrs["chosen"]) for t in trials(tmp_path)[1:]}
    assert tried == {"cnp": {"learner.width"}, "maml": {"learner.inner_lr"}}
    assert json.loads((tmp_path / "tuning.json").read_text())["measure"] == "mse"  # what both can be judged by


def test_a_space_in_a_file(tmp_path: Path) -> None:
    space = tmp_path / "space.yaml"
    space.write_text("learner:\n  inner_lr: log:0.001:0.02\n  inner_steps: [1, 3]\ntrain.clip: [null, 10.0]\n")
    out = tmp_path / "out"
    assert main([*SHORT, "--trials", "4", "--search", str(space), "--out", str(out), *HYPERBAND]) == 0
    chosen = [t.user_attrs["chosen"] for t in trials(out)[1:]]
    assert all(set(c) == {"learner.inner_lr", "learner.inner_steps", "train.clip"} for c in chosen)
    assert all(c["learner.inner_steps"] in (1, 3) and c["train.clip"] in (None, 10.0) for c in chosen)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--search", "learner.inner_lrr=log:0.1:1"), "did you mean 'learner.inner_lr'"),
        (("--search", "learner.inner_lr=log:0.5:0.001"), "reversed: write log:0.001:0.5"),
        (("--search", "learner.inner_lr=log:0:1"), "begins above 0"),
        (("--search", "learner.inner_lr=lag:0.1:1"), "did you mean 'log'?"),
        (("--search", "learner.inner_lr=log:0.1"), "give two numbers"),
        (("--search", "learner.inner_lr=log:0.1:5000"), "inner_lr is 5000.0: give a number from 0 to 1000"),
        (("--search", "learner.inner_steps=float:1.5:2.5"), "--learner.inner_steps is '1.5': give a whole number"),
        (("--search", "learner.inner_steps=3"), "names 1 value"),
        (("--search", "train.seed=int:1:5"), "decides how trials are measured"),
        (("--search", "nothing"), "--search is 'nothing'"),
        (("--search", "learner=maml,mamml"), "did you mean 'maml'?"),
        (("--search", "learner=maml,protonet"), "protonet takes classification tasks"),
        (("--learner", "scratch"), "nothing to train"),
        (("--storage", "sqlite:////nowhere/at/all.db"), "cannot reach the storage sqlite:////nowhere/at/all.db"),
        (("--storage", "postgresql://me:secret@127.0.0.1:1/x"), "cannot reach the storage postgresql://me@127.0.0.1:1/x"),
        (("--storage", "oddsql://x"), "check the URL"),
        (("--trials", "0"), "trials is 0"),
        (("--train.valid_every", "0"), "valid_every is 0"),
        (("--train.devices", "2"), "give --processes"),
    ],
)
def test_what_a_user_can_put_right(
    refused: Callable[..., str], tmp_path: Path, words: tuple[str, ...], sentence: str
) -> None:
    said = refused(*SHORT, "--out", tmp_path, *words)
    assert sentence in said
    assert "secret" not in said


def test_a_study_of_something_else_is_refused(refused: Callable[..., str], whole: Path) -> None:
    again = (*SHORT, *SEARCH, "--out", whole, "--confirm", "0")
    assert "tasks noise 0.0, and now 0.5" in refused(*again, "--tasks.noise", "0.5")
    assert "seed 0, and now 1" in refused(*again, "--seed", "1")
    assert "learner" in refused(*again, "--learner", "anil")
    assert len(trials(whole)) == 7


def test_a_damaged_journal_and_no_optuna(
    refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "study.journal").write_text("no journal\n")
    assert "damaged or no journal" in refused(*SHORT, "--out", tmp_path)
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert "pip install 'quickstudy[tune]'" in refused(*SHORT, "--out", tmp_path / "other")


def test_a_trial_that_is_validated_once_cannot_be_stopped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SHORT, "--trials", "1", "--train.valid_every", "16", "--out", str(tmp_path)]) == 0
    assert "none can be stopped early" in capsys.readouterr().err


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", "--help"]) == 0
    said = capsys.readouterr().out
    assert "quickstudy tune --learner maml --tasks sinusoid" in said and "--learner.turns" in said


def test_half_a_line_of_a_journal_is_dropped(whole: Path, tmp_path: Path) -> None:
    whole_text = (whole / "study.journal").read_text()
    (tmp_path / "study.journal").write_text(whole_text + '{"op_code":4,"wor')
    assert told(tmp_path) == told(whole)
    assert (tmp_path / "study.journal").read_text() == whole_text


def test_a_trial_too_many_does_not_count(tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = yaml.safe_load((whole / "best.yaml").read_text())
    tuning = Tuning({"": base}, [dimension("train.lr", "log:0.001:1")], tmp_path, trials=1)
    made = tuning.open()
    made.tell(made.ask().number, 1.0)
    monkeypatch.setattr(Tuning, "_wanted", lambda *_: True)  # as for two processes that look at the same moment
    assert tuning.work() == 0
    assert [t.number for t in ledger.counted(made)] == [0] and ledger.voids(made) == {1}


def test_training_can_be_watched_and_halted() -> None:
    source, seen = qs.tasks.Sinusoid(), []

    def run(seed: int, stop: int) -> Any:
        torch.manual_seed(0)
        learner = qs.make("cnp", source.spec, width=8)
        watch = lambda step, found: seen.append((seed, found.fingerprint)) or step >= stop  # noqa: E731
        rest = {"valid_every": 2, "valid_tasks": 5, "valid_seed": 3, "progress": False}
        return qs.train(learner, source, steps=8, seed=seed, watch=watch, **rest)

    done = run(0, 4)
    assert (done.stopped, done.steps, len(seen)) == ("halted", 4, 2)
    assert run(1, 99).stopped == "finished"
    assert len({fingerprint for _, fingerprint in seen}) == 1  # the same validation tasks, whatever the seed


def test_what_mattered_is_told_where_there_are_enough_trials(tmp_path: Path, whole: Path) -> None:
    card = trials(whole)
    base = yaml.safe_load((whole / "best.yaml").read_text())
    space = [dimension("learner.inner_lr", "log:0.001:1"), dimension("train.lr", "log:0.001:1")]
    tuning = Tuning({"": base}, space, tmp_path)
    made, scores = tuning.open(), card[0].user_attrs["scores"]
    for number in range(20):
        trial = made.ask()
        a, b = (trial.suggest_float(name, 0.001, 1, log=True) for name in ("learner.inner_lr", "train.lr"))
        assert b
        trial.set_user_attr("place", number)
        trial.set_user_attr("chosen", {"learner.inner_lr": a} if number else {})
        trial.set_user_attr("scores", scores)
        made.tell(trial.number, a)
    found: Outcome = outcome(tuning)
    shares = found.importance()
    assert shares["learner.inner_lr"] > 0.9 > shares["train.lr"]
    assert found.gain() is not None
