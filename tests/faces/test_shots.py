"""`quickstudy shots`: the curve, where a target is reached, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import quickstudy as qs
from quickstudy import checkpoint
from quickstudy.cli.main import main


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty round classes of 20 rows, and a learner for them."""
    folder = tmp_path_factory.mktemp("shots")
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(40), 20)
    np.savez(folder / "rows.npz", x=rng.standard_normal((40, 6))[y] + rng.standard_normal((800, 6)), y=y)
    source = qs.tasks.Arrays(str(folder / "rows.npz"), way=3, query=5)
    checkpoint.save(qs.make("protonet", source.spec), folder / "protonet.safetensors", source)
    return folder


def test_a_baseline_and_a_target(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture, numbers = tmp_path / "curve.png", tmp_path / "curve.json"
    words = ["shots", "--learner", "centroid", "--tasks", "arrays", "--tasks.path", str(data / "rows.npz")]
    words += ["--tasks.way", "3", "--tasks.query", "5", "--test_tasks", "60", "--shots", "1,2,4,8"]
    assert main([*words, "--target", "0.7", "--plot", str(picture), "--json", str(numbers)]) == 0
    said = capsys.readouterr().out
    assert "centroid reaches 70 % accuracy with about" in said and "of 8 classes" in said
    with Image.open(picture) as opened:
        assert opened.format == "PNG"
    card = json.loads(numbers.read_text())
    assert card["shots"] == [1, 2, 4, 8] and card["means"][0] < card["means"][-1]
    reach = card["reach"]
    assert reach["low"] <= reach["median"] and reach["within"] > 0.5
    at = dict(zip(card["forecast"]["at"], card["forecast"]["median"], strict=True))
    assert at[reach["median"]] == pytest.approx(0.7, abs=0.05)
    assert main([*words, "--target", "1"]) == 0
    assert "is not forecast to reach 100 % accuracy within 100" in capsys.readouterr().out


def test_a_trained_learner_on_its_own_tasks(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["shots", str(data / "protonet.safetensors"), "--test_tasks", "40", "--shots", "1,2,5,40"]) == 0
    said = capsys.readouterr().out
    assert "examples of each class" in said and "40 examples left out" in said
    assert "reaches" not in said  # no target was given


def test_squared_errors_fall(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["shots", "--learner", "chance", "--tasks", "sinusoid", "--test_tasks", "40", "--target", "3"]) == 0
    said = capsys.readouterr().out
    assert "a squared error of 3" in said and "examples of each task" in said


SINES = ("--tasks", "sinusoid")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--learner", "chance"], "no tasks are named: name some with --tasks"),
        ([*SINES], "give the checkpoint of a trained learner, or an untrained one"),
        (["--learner", "maml", *SINES], "maml has to be trained first"),
        (["--learner", "mamm", *SINES], "did you mean 'maml'?"),
        (["nowhere.safetensors", *SINES], "no checkpoint at nowhere.safetensors"),
        (["--learner", "chance", *SINES, "--shots", "1,x"], "give whole numbers from 1 with commas"),
        (["--learner", "chance", *SINES, "--shots", "0,1,2"], "give whole numbers from 1 with commas"),
        (["--learner", "chance", *SINES, "--shots", "1,2"], "a curve needs 3 numbers of examples or more"),
        (["--learner", "chance", *SINES, "--target", "-1"], "squared error, so give one above 0"),
        (["--learner", "chance", "--tasks", "glyphs", "--target", "90"], "an accuracy between 0 and 1"),
        (["--learner", "chance", *SINES, "--most", "0"], "--most is 0"),
        (["--learner", "chance", *SINES, "--test_tasks", "1"], "--test_tasks is 1"),
        (["--learner", "chance", *SINES, "--plot", "a.jpg"], "give the name of a .png file"),
        (["--learner", "chance", *SINES, "--json", "a.safetensors"], "is the name of a checkpoint"),
        (["--learner", "logistic", *SINES], "logistic takes classification"),
    ],
)
def test_errors(words: list[str], said: str, refused: Callable[..., str], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert said in refused("shots", *words)
    assert not list(tmp_path.iterdir())


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["shots", "--help"]) == 0
    said = capsys.readouterr().out
    assert "example:" in said and "quickstudy shots --learner logistic" in said
