"""Verdicts on families of tasks in which it is planted whether they share anything; and forecasts of hidden scores."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from quickstudy.questions import verdict as module
from quickstudy.questions.verdict import Case

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PAYS = {"sides in 2 of 20 directions, 2 classes, 10 rows": "pays", "linear in 2 of 10 directions, 6 rows": "pays"}
NOT = {"labels without meaning in 5, 1-shot": "cannot tell", "values without meaning, 20 rows": "does not pay"}
"""The truth, or what an honest answer may be as well: thirty classes leave a point of accuracy open."""


@pytest.fixture(scope="module")
def planted() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        import planted

        yield planted
        del sys.modules["planted"]


def test_half_of_the_families_share_something(planted: ModuleType) -> None:
    every = planted.families()
    assert len(every) >= 40 and sum(family.shared for family in every) == len(every) / 2
    assert len({family.name for family in every}) == len(every)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "truth"), (PAYS | NOT).items())
def test_a_verdict_is_the_planted_truth(
    name: str, truth: str, planted: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    # so many steps, however fast the machine is
    monkeypatch.setattr(module, "step_seconds", lambda *_: 0.002)
    family = next(family for family in planted.families() if family.name == name)
    found = Case(family.make(False), seconds=4.0, test_tasks=400).run()
    assert found.answer in (truth, "does not pay" if truth == "cannot tell" else truth), str(found)
    assert found.units == ("class" if "labels" in name else "task")


def test_the_population_shares_what_was_planted_and_no_class(planted: ModuleType) -> None:
    """A subspace found in the user's rows is that of the population's, whose class means are others."""
    import numpy as np

    family = next(family for family in planted.families() if family.name == "subspace of 3 in 20, 1-shot")
    means = []
    for population in (False, True):
        pool = family.make(population).prepare()
        means.append(pool.x[pool.rows].mean(1).numpy())
    spread = [np.linalg.svd(m - m.mean(0), full_matrices=False)[2][:3] for m in means]
    angles = np.linalg.svd(spread[0] @ spread[1].T, compute_uv=False)
    assert angles.min() > 0.95
    apart = np.linalg.norm(means[0][:50, None] - means[1][None], axis=-1)
    assert apart.min() > 0.5
