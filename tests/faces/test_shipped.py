"""Weights that come with the package are adapted by their name, on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from quickstudy.cli.main import main


def test_a_table_without_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = ["age,dose,target", "20,1,well", "25,2,well", "60,1,ill", "70,3,ill", "22,,well", "66,2,ill"]
    (tmp_path / "known.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "asked.csv").write_text("age,dose\n23,1\n68,2\n")
    task = str(tmp_path / "task.safetensors")
    assert main(["adapt", "tabular", str(tmp_path / "known.csv"), "--out", task]) == 0
    assert main(["predict", task, str(tmp_path / "asked.csv"), "--out", str(tmp_path / "answers.csv")]) == 0
    answers = (tmp_path / "answers.csv").read_text().splitlines()
    assert [line.split(",")[1] for line in answers[1:]] == ["well", "ill"], capsys.readouterr().out
