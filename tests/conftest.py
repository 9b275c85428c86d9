"""Fixtures that every test may use."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from quickstudy.cli import main


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real data sets: $QUICKSTUDY_TEST_DATA, or shared/data beside the repository."""
    default = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    folder = Path(os.environ.get("QUICKSTUDY_TEST_DATA") or default)
    if not (folder / "omniglot" / "omniglot28.npz").is_file():
        pytest.fail(
            f"the test data is not at {folder}: set QUICKSTUDY_TEST_DATA to the folder that holds "
            "omniglot/omniglot28.npz.",
            pytrace=False,
        )
    return folder


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that must be refused, and gives back the one sentence it said."""

    def run(*words: str | Path) -> str:
        capsys.readouterr()
        assert main([str(word) for word in words]) == 2
        said = capsys.readouterr().err.strip()
        assert said.startswith("quickstudy: ") and "Traceback" not in said
        assert "\n" not in said and said.endswith((".", "?")), said
        return said

    return run
