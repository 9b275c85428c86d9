"""Recommendations follow from the measured table by rule, and say what they rest on."""

from __future__ import annotations

from typing import Any

import pytest

from quickstudy import recommend as module
from quickstudy.core.errors import UserError
from quickstudy.core.source import Spec
from quickstudy.recommend import nearest_suite, recommend

SPEC = Spec("classification", (1, 28, 28), way=5, train_classes=50)


def row(mean: float, interval: float = 0.01, adapt_ms: float = 1.0) -> dict[str, float]:
    return {"mean": mean, "interval": interval, "seconds": 20, "steps": 9, "adapt_ms": adapt_ms, "state_bytes": 8}


def suite(rows: dict[str, Any], **facts: Any) -> dict[str, Any]:
    fixed = {
        "kind": "classification", "about": "characters", "way": 5, "shot": 1, "x_shape": [1, 28, 28], "seconds": 20,
        "test_tasks": 600, "hardware": "a machine", "measure": "accuracy", "sign": 1,
    }  # fmt: skip
    return {**fixed, "rows": rows, **facts}


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    made: dict[str, Any] = {
        "glyphs": suite({
            "maml": row(0.900, adapt_ms=50), "protonet": row(0.895, adapt_ms=2), "r2d2": row(0.80, adapt_ms=3),
            "logistic": row(0.60), "chance": row(0.2),
        })
    }  # fmt: skip
    monkeypatch.setattr(module, "tables", lambda: made)
    return made


def test_equals_of_the_best_stand_by_what_adapting_costs(tables: dict[str, Any]) -> None:
    found, grounds = recommend(SPEC, shot=1, top=3)
    assert [advice.learner for advice in found] == ["protonet", "maml", "r2d2", "logistic"]
    assert "its interval reaches that of the best, maml" in found[0].reasons
    assert "clearly better than the plain baseline logistic" in found[2].reasons
    assert "the best plain baseline: what the others have to beat" in found[3].reasons
    assert "20 seconds of training each, 600 unseen tasks, a machine" in grounds[0] and len(grounds) == 1


def test_a_wide_interval_makes_nothing_as_good_as_the_best(tables: dict[str, Any]) -> None:
    tables["glyphs"]["rows"]["anil"] = row(0.4, interval=5.0, adapt_ms=0.1)
    assert recommend(SPEC, shot=1)[0][0].learner == "protonet"


def test_conditions_leave_out_and_say_so(tables: dict[str, Any]) -> None:
    found, grounds = recommend(SPEC, shot=1, gradients=False)
    assert "maml" not in [advice.learner for advice in found]
    assert "left out since adapting takes gradients: maml" in grounds
    assert [a.learner for a in recommend(SPEC, varying_way=True)[0]][:2] == ["protonet", "r2d2"]
    assert recommend(SPEC, adapt_ms=1.5)[0][0].learner == "logistic"
    with pytest.raises(UserError, match="drop one of them"):
        recommend(SPEC, adapt_ms=0.1)


def test_what_differs_from_the_measured_tasks_is_said(tables: dict[str, Any]) -> None:
    grounds = recommend(Spec("classification", (3, 32, 32), way=20), shot=5)[1]
    assert "20 (5 there) classes" in grounds[1] and "5 (1 there) examples of each" in grounds[1]


def test_the_nearest_suite(tables: dict[str, Any]) -> None:
    tables["five"] = suite({"chance": row(0.2)}, shot=5)
    tables["vectors"] = suite({"chance": row(0.2)}, x_shape=[4])
    assert nearest_suite(SPEC, 1)[0] == "glyphs"
    assert nearest_suite(SPEC, 4)[0] == "five"
    assert nearest_suite(Spec("classification", (7,), way=5), 1)[0] == "vectors"
    with pytest.raises(UserError, match="nothing was measured on zero-shot tasks"):
        nearest_suite(Spec("zero-shot", (7,), way=5), 1)


def test_lower_is_better_where_the_measure_says_so(tables: dict[str, Any]) -> None:
    rows = {"maml": row(0.5, 0.01), "cnp": row(0.9, 0.01), "chance": row(4.0, 0.1)}
    tables["sines"] = suite(rows, kind="regression", measure="mse", sign=-1, way=0, x_shape=[1])
    found, _ = recommend(Spec("regression", (1,)), shot=10)
    assert [advice.learner for advice in found] == ["maml", "cnp", "chance"]
