"""Zero-shot tasks from the command line: trained, evaluated, adapted to, and refused in a sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from quickstudy.cli import main


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """d.npz: thirty classes of ten rows, described by six attributes; s.npz describes three of them, q.npz asks."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    s = (rng.random((30, 6)) < 0.5).astype(np.float32)
    y = np.arange(300) % 30
    x = (s[y] @ rng.standard_normal((6, 10)) + 0.5 * rng.standard_normal((300, 10))).astype(np.float32)
    np.savez(tmp_path / "d.npz", x=x, y=y, descriptions=s)
    np.savez(tmp_path / "e.npz", x=x, y=y, descriptions=s[:, :4])
    np.savez(tmp_path / "s.npz", x=s[:3], y=np.array(["ant", "bee", "cat"]))
    np.savez(tmp_path / "q.npz", x=x[:3], y=np.array(["ant", "bee", "cat"]))
    return tmp_path


def test_zero_shot_from_training_to_labels(
    data: Path, refused: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    shape = ["--tasks", "described", "--tasks.path", "d.npz", "--tasks.way", "4", "--tasks.query", "3"]
    train = ["train", "--learner", "semantic_protonet", *shape, "--out", "run", "--train.steps", "2", "--quiet"]
    assert main([*train, "--train.valid_tasks", "2"]) == 0
    best, few = "run/best.safetensors", ["--test_tasks", "2"]
    assert main(["evaluate", best, *few, "--report", "page.html"]) == 0
    assert "From a description of each of 4 classes and no example:" in (data / "page.html").read_text("utf-8")
    general = ["--tasks.seen", "2", "--tasks.kept_back", "0.3", "--tasks.asked", "unseen"]
    assert main(["evaluate", best, *few, *general, "--report", "seen.html"]) == 0
    assert main(["adapt", best, "s.npz", "--out", "task.safetensors"]) == 0
    capsys.readouterr()
    assert main(["predict", "task.safetensors", "q.npz"]) == 0
    assert "of the 3 labelled rows are right" in capsys.readouterr().out
    assert main(["evaluate", best, *few]) == 0
    assert "nearest_description" not in capsys.readouterr().out  # rows of 10 numbers, descriptions of 6
    assert "nearest_description compares rows" in refused("evaluate", best, *few, "--baselines", "nearest_description")
    assert "zero-shot tasks show none" in refused("evaluate", best, "--shots", "1,2")
    assert "holds rows of shape (10,)" in refused("adapt", best, "q.npz", "--out", "other.safetensors")
    other = ["--tasks", "described", "--tasks.path", "e.npz", "--tasks.query", "3"]
    assert "descriptions of shape (6,) and those of described are (4,)" in refused("evaluate", best, *other)


def test_what_does_not_fit_is_refused(data: Path, refused: Callable[..., str]) -> None:
    shape = ["--tasks", "described", "--tasks.path", "d.npz", "--tasks.query", "3", "--out", "x"]
    assert "these are zero-shot: use semantic_protonet" in refused("train", "--learner", "protonet", *shape)
    assert "these are classification: use" in refused("train", "--learner", "dap", "--tasks", "glyphs", "--out", "x")
    learner = ["train", "--learner", "dap"]
    assert "described needs a path" in refused(*learner, "--tasks", "described", "--out", "x")
    assert "has no option --tasks.shot" in refused(*learner, *shape, "--tasks.shot", "3")
    assert "has no option 'shot'" in refused(*learner, *shape, "--valid.shot", "3")


def test_where_rows_and_descriptions_are_alike_the_nearest_is_a_baseline(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")  # a narrow table folds the name
    held = np.load(data / "d.npz")
    np.savez(data / "a.npz", x=held["x"][:, :6], y=held["y"], descriptions=held["descriptions"])
    shape = ["--tasks", "described", "--tasks.path", "a.npz", "--tasks.way", "3", "--tasks.query", "2"]
    train = ["train", "--learner", "semantic_protonet", *shape, "--out", "run", "--train.steps", "2", "--quiet"]
    assert main([*train, "--train.valid_tasks", "2"]) == 0
    capsys.readouterr()
    assert main(["evaluate", "run/best.safetensors", "--test_tasks", "2"]) == 0
    assert "nearest_description" in capsys.readouterr().out
    words = ["verdict", *shape, "--seconds", "0.5", "--test_tasks", "4", "--learners", "eszsl", "--json", "v.json"]
    assert main(words) == 0
    card = json.loads((data / "v.json").read_text())
    assert set(card["tried"]) == {"eszsl", "chance", "nearest_description"}
    assert not [note for note in card["notes"] if "but chance" in note]
