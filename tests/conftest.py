"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


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
