"""The example that goes the whole way runs on data of each kind, command after command, in its shortest form."""

from __future__ import annotations

import csv
import runpy
from pathlib import Path

import pytest

from quickstudy.cli.main import main

EXAMPLE = Path(__file__).parents[2] / "examples" / "whole_way.py"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["images", "text", "table", "series"])
@pytest.mark.filterwarnings("ignore::UserWarning")  # a calibration from so few tasks says so
def test_the_whole_way(kind: str, test_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example = runpy.run_path(str(EXAMPLE))
    seen: list[str] = []

    def say(*words: str) -> None:
        seen.append(words[0])
        assert main(list(words)) == 0, f"{words}: {capsys.readouterr().err}"

    example["way"].__globals__["say"] = say
    example["way"](kind, test_data, tmp_path, 1.0, 20)
    out = capsys.readouterr().out
    assert seen == [
        "data", "recommend", "train", "evaluate", "verdict", "shots", "audit", "audit", "calibrate", "adapt", "predict",
        "label-next",
    ]  # fmt: skip
    assert "meta-learning" in out and "Traceback" not in out
    with open(tmp_path / "answers.csv", newline="") as file:
        header, *rows = csv.reader(file)
    assert header[0] == "input" and len(rows) > 5
