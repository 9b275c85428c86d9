"""The weights that come with the package: there, small, honest about themselves, and of use on files."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import quickstudy as qs
from quickstudy import checkpoint, shipped
from quickstudy.cli.main import main
from quickstudy.core.catalogue import build
from quickstudy.core.errors import UserError
from quickstudy.evaluate import evaluate
from quickstudy.learners import Tabular
from quickstudy.pretrained import pretrained

WEIGHTS = shipped.FOLDER / "tabular.safetensors"


def sheet(path: Path, rows: int, seed: int, target: bool = True) -> list[str]:
    """A table of three columns, one of them with empty cells, whose first says the class; the classes."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, 3))
    names = ["yes" if value > 0 else "no" for value in x[:, 0]]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["age", "height", "weight", *(["target"] if target else [])])
        for values, name in zip(x, names, strict=True):
            cells = [f"{40 + 10 * values[0]:.2f}", f"{values[1]:.3f}" if values[1] < 1 else "", f"{values[2]:.3f}"]
            writer.writerow([*cells, *([name] if target else [])])
    return names


def test_they_are_small_and_say_where_they_come_from() -> None:
    assert WEIGHTS.stat().st_size < 2**21
    trained = pretrained("tabular")
    assert isinstance(trained.learner, Tabular) and trained.card["tasks"]["name"] == "table_prior"
    assert {"seed", "options", "step", "scores"} <= set(trained.card)


def test_other_names_are_refused() -> None:
    with pytest.raises(UserError, match="no weights of 'tabluar' are shipped: did you mean 'tabular'"):
        pretrained("tabluar")


def test_a_file_of_ones_own_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert shipped.located("tabular") == WEIGHTS and shipped.located("other") == Path("other")
    Path("tabular").write_text("mine")
    assert shipped.located("tabular") == Path("tabular")


def test_they_learn_from_a_table_of_any_width() -> None:
    rng = torch.Generator().manual_seed(0)
    for columns in (1, 3, 70):
        x = torch.randn(120, columns, generator=rng)
        names = ["high" if value > 0 else "low" for value in x[:, 0].tolist()]
        task = qs.adapt(pretrained(), x[:20], names[:20])
        right = np.mean([a == b for a, b in zip(task.labels(x[20:]), names[20:], strict=True)])
        assert right > (0.85 if columns < 4 else 0.5), columns


def test_twelve_classes() -> None:
    noise = torch.randn(60, 1, generator=torch.Generator().manual_seed(1))
    x = torch.arange(12.0).repeat(5).unsqueeze(1) + 0.01 * noise
    names = [f"class {i % 12:02}" for i in range(60)]
    task = qs.adapt(pretrained(), x[:36], names[:36])
    assert task.probabilities(x[36:]).shape == (24, 12)
    assert np.mean([a == b for a, b in zip(task.labels(x[36:]), names[36:], strict=True)]) > 0.5


def test_from_files_to_predictions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet(tmp_path / "learn.csv", 30, 0)
    names = sheet(tmp_path / "ask.csv", 60, 1, target=False)
    adapted = tmp_path / "adapted.safetensors"
    assert main(["adapt", str(WEIGHTS), str(tmp_path / "learn.csv"), "--out", str(adapted)]) == 0
    assert main(["predict", str(adapted), str(tmp_path / "ask.csv"), "--out", str(tmp_path / "said.csv")]) == 0
    capsys.readouterr()
    said = list(csv.DictReader((tmp_path / "said.csv").read_text().splitlines()))
    column = next(name for name, value in said[0].items() if value in ("yes", "no"))
    assert np.mean([row[column] == name for row, name in zip(said, names, strict=True)]) > 0.8


def test_other_columns_are_refused(tmp_path: Path, refused: Callable[..., str]) -> None:
    (tmp_path / "words.csv").write_text("a,b,target\n1,red,x\n2,blue,y\n")
    said = refused("adapt", WEIGHTS, tmp_path / "words.csv", "--out", tmp_path / "a.safetensors")
    assert "'b'" in said and "words" in said


@pytest.mark.slow
def test_they_score_what_their_card_says() -> None:
    """On the validation tasks of the training, drawn again."""
    trained = checkpoint.load(WEIGHTS)
    told = trained.card["scores"]["valid"]["accuracy"]
    options = trained.card["options"]
    source = build(trained.card["tasks"], "tasks")
    found = evaluate(trained.learner, source, "valid", options["valid_tasks"], trained.card["seed"])
    assert found.mean("accuracy") == pytest.approx(told["mean"], abs=0.005)
