"""The README's ten lines of Python run, and do what they say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"


@pytest.mark.slow
def test_the_ten_lines_run(capsys: pytest.CaptureFixture[str]) -> None:
    found = re.search(r"## Ten lines of Python\n\n```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert found
    code = found.group(1)
    assert len([line for line in code.splitlines() if line.strip() and not line.startswith("import")]) <= 10
    exec(compile(code.replace("tasks=600", "tasks=60"), str(README), "exec"), {})
    ours, plain, verdict = capsys.readouterr().out.strip().splitlines()
    assert ours.startswith("accuracy") and plain.startswith("accuracy")
    assert verdict.startswith("protonet is better than centroid")
