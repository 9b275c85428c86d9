"""Many clients at once, and the server killed in the middle: nothing is lost, nothing is mixed up."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def serving() -> Iterator[ModuleType]:
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        import serving

        yield serving
        for name in set(sys.modules) - before:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(str(BENCHMARKS)):
                del sys.modules[name]


@pytest.mark.slow
def test_clients_at_once_with_a_restart(serving: ModuleType) -> None:
    found = serving.run(clients=8, seconds=4.0, short=True)
    store = found["stores"]["SQLite"]
    assert store["wrong"] == 0 and store["furthest"] < 1e-4 and store["exit_code"] == 130
    assert store["answers"] > 20 and store["tasks"] >= 8 and store["unanswered"] > 0 and store["left"] > 0
    assert found["batched"]["protonet"]["furthest"] < 1e-5
