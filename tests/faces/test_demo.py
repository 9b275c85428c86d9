"""`quickstudy demo` goes the whole way, and leaves a page that needs nothing from outside."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from quickstudy.cli import main


@pytest.mark.slow
def test_the_demo_goes_the_whole_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "report.html"
    words = [f"--out={tmp_path / 'demo'}", f"--report={report}", "--steps=60", "--test_tasks=20"]
    assert main(["demo", *words]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("Georgian", "protonet", "linear_probe", "logistic", "centroid", "chance"))
    page = report.read_text()
    assert page.count("<svg") >= 3
    outside = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?(?!#|data:)[a-z]+:[^"')\s]*""", page)
    assert not outside
    assert main(["demo", *words]) == 0  # it may be run again
