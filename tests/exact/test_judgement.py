"""One answer from a gain, its interval and what is worth having."""

from __future__ import annotations

import json

import numpy as np
import pytest

from quickstudy.core.errors import UserError
from quickstudy.questions.judgement import Effect, Verdict, decide, effect
from quickstudy.questions.units import Units
from quickstudy.scores import Evaluation, compare


def met(name: str, values: list[float], measure: str = "accuracy", sign: int = 1, tasks: str = "a") -> Evaluation:
    facts = ("arrays", "test", 0, "classification", 5, 1)
    return Evaluation(name, *facts, {measure: sign}, {measure: values}, None, 0.001, 100.0, tasks)


def points(mean: float, half: float) -> Effect:
    return Effect(mean, half, "points")


@pytest.mark.parametrize(
    ("mean", "half", "growth", "answer"),
    [
        (3.0, 1.9, 0.0, "pays"), (3.0, 2.1, 0.0, "cannot tell"), (-1.0, 1.9, 0.0, "does not pay"),
        (-1.0, 2.1, 0.0, "cannot tell"), (-1.0, 1.0, 3.0, "cannot tell"), (-9.0, 1.0, 3.0, "does not pay"),
        (-1.0, 1.9, -5.0, "does not pay"), (0.0, 0.0, 0.0, "does not pay"), (float("nan"), 1.0, 0.0, "cannot tell"),
    ],
)  # fmt: skip
def test_the_answer(mean: float, half: float, growth: float, answer: str) -> None:
    assert decide(points(mean, half), 1.0, growth, 0.0) == answer


def test_growth_is_as_unsure_as_it_was_measured() -> None:
    assert decide(points(-3.0, 1.0), 1.0, 1.0, 0.5) == "does not pay"
    assert decide(points(-3.0, 1.0), 1.0, 1.0, 4.0) == "cannot tell"


def test_points_of_accuracy_are_the_paired_difference() -> None:
    rng = np.random.default_rng(0)
    a, b = met("a", rng.random(50).tolist()), met("b", rng.random(50).tolist())
    found, pair = effect(a, b, "accuracy", Units("task")), compare(a, b)
    assert (found.mean, found.half) == pytest.approx((100 * pair.difference, 100 * pair.interval))
    assert found.unit == "points" and found.own == pytest.approx(1.0)


def test_the_share_of_an_error_that_is_saved_covers() -> None:
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(300):
        error = rng.gamma(2.0, size=80)
        ours = 0.7 * error + rng.normal(0, 0.2, 80)
        found = effect(met("a", ours.tolist(), "mse", -1), met("b", error.tolist(), "mse", -1), "mse", Units("task"))
        covered.append(abs(found.mean - 30) <= found.half)
    assert 0.91 <= np.mean(covered) <= 0.985 and found.unit == "%"
    exact = effect(met("a", [1.0, 3.0], "mse", -1), met("b", [2.0, 6.0], "mse", -1), "mse", Units("task"))
    assert (exact.mean, exact.half) == (50.0, 0.0)
    assert effect(met("a", [1.0, 3.0], "mse", -1), met("b", [0.0, 0.0], "mse", -1), "mse", Units("task")).mean == 0
    with pytest.raises(UserError, match="did not meet the same tasks"):
        effect(met("a", [1.0, 3.0]), met("b", [1.0, 3.0], tasks="b"), "accuracy", Units("task"))


def verdict(answer: str, found: Effect, growth: float = 0.0, units: str = "task", count: int | None = None) -> Verdict:
    spent = {"protonet": 18.0, "ridge": 0.0}
    costs = {name: {"train_seconds": s, "adapt_ms": 1.3, "state_bytes": 1300.0} for name, s in spent.items()}
    return Verdict(
        answer, "protonet", "ridge", "accuracy", {"protonet": 0.842, "ridge": 0.71}, found, 1.0, growth, 0.1,  # type: ignore
        600, units, count, 60.0, 40.0, costs, {"protonet": "accuracy 84", "ridge": "accuracy 70"}, ["a note"],
    )  # fmt: skip


def test_the_paragraph_says_gain_interval_cost_and_ground() -> None:
    said = str(verdict("pays", points(13.2, 1.3), units="class", count=30))
    for part in (
        "Meta-learning pays here: protonet has accuracy 84.2 % on unseen tasks",
        "and ridge, the best plain baseline, 71.0 %: ",
        "+13.2 points of accuracy (95 % interval +11.9 to +14.5; 1 or more is worth having)",
        "compared once, on the same 600 test tasks, of 30 classes, which the interval counts",
        "protonet takes 18 s of training, 1.3 ms to adapt to a task and 1.3 kB a task; ridge takes no training",
        "Note: a note.",
    ):
        assert part in said, said
    assert "To tell" not in said
    card = json.loads(verdict("pays", points(13.2, 1.3)).to_json())
    assert card["answer"] == "pays" and card["effect"]["mean"] == 13.2 and card["text"].startswith("Meta-learning pays")


def test_what_would_help_to_tell() -> None:
    # a half of 2 must become 1: four times the tasks, where it is the tasks' noise
    assert "about 2,400 test tasks" in verdict("cannot tell", points(2.0, 2.0)).advice()
    classes = verdict("cannot tell", Effect(2.0, 2.0, "points", own=0.1), units="class", count=30)
    assert "about 120 test classes" in classes.advice()  # more tasks shrink a tenth of the variance alone
    assert "--seconds 180" in verdict("cannot tell", points(-1.0, 0.5), growth=3.0).advice()
    assert "choose by what the two cost" in verdict("cannot tell", points(1.01, 2.0)).advice()
    assert verdict("does not pay", points(-5.0, 1.0)).advice() == ""
    assert "is better here, but whether by as much" in str(verdict("cannot tell", points(1.5, 1.0)))
