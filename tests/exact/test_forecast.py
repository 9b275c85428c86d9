"""Forecasts of learning curves: what is in a family is found again, what is not known is in the interval."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from quickstudy.core import Classification
from quickstudy.core.errors import UserError
from quickstudy.core.learner import MetaLearner
from quickstudy.core.task import Examples, Inputs, State, Task
from quickstudy.evaluate import evaluate
from quickstudy.learners import Centroid
from quickstudy.questions.forecast import _FAMILIES, forecast, power_law
from quickstudy.questions.shots import fewer, shot_scores
from quickstudy.tasks import Arrays, Prior, Sinusoid

AT = [1, 2, 3, 5, 8, 10]
TRUE = {
    "power": lambda n: 0.6 * (0.1 + 0.9 * n**-0.8),
    "exponential": lambda n: 0.6 * (0.2 + 0.8 * math.exp(-0.3 * (n - 1))),
    "log power": lambda n: 0.6 * 1.3 / (1 + 0.3 * n**1.2),
    "logarithm": lambda n: 0.6 / (1 + 0.8 * math.log(n)),
}


@pytest.mark.parametrize("name", TRUE)
def test_a_curve_of_a_family_is_forecast(name: str) -> None:
    curve, noise = TRUE[name], 0.002
    found = forecast(AT, [curve(n) for n in AT], noise**2 * np.eye(len(AT)))
    assert found.misfit < 1.5
    middle, low, high = (part.tolist() for part in found.interval([20, 50]))
    assert low[0] <= curve(20) <= high[0] and abs(middle[0] - curve(20)) < 0.04, (low, middle, high)
    assert low[1] - 0.005 <= curve(50) <= high[1] + 0.005, (low, middle, high)


def test_shapes_begin_at_one_and_fall() -> None:
    n = np.arange(1.0, 60.0)[None]
    for shape, first, second in _FAMILIES.values():
        for b in second:
            made = shape(n, np.asarray(first)[:, None], np.full((len(first), 1), b))
            np.testing.assert_allclose(made[:, 0], 1.0)
            assert (np.diff(made, axis=1) <= 1e-12).all() and made.min() >= 0


def test_less_noise_less_doubt_and_farther_is_less_sure() -> None:
    y = [TRUE["power"](n) for n in AT]

    def width(noise: float, n: int) -> float:
        _, low, high = forecast(AT, y, noise**2 * np.eye(len(AT))).interval([n])
        return float(high[0] - low[0])

    assert width(0.001, 20) < width(0.02, 20) and width(0.005, 20) < width(0.005, 100)
    found = forecast(AT, y, 1e-6 * np.eye(len(AT)))
    (_, low, high), (_, lower, higher) = found.interval([20]), found.interval([20], noise=0.05)
    assert lower < low and higher > high


def test_a_curve_that_never_moved_is_not_expected_to() -> None:
    flat = forecast(AT, [0.8] * len(AT), 0.002**2 * np.eye(len(AT)))
    middle, low, high = (float(part[0]) for part in flat.interval([20]))
    assert abs(middle - 0.8) < 0.02 and high - low < 0.08


def test_the_level_is_the_closed_form() -> None:
    # where scores are all but exact, the curve goes through them
    y = [TRUE["logarithm"](n) for n in AT]
    middle, low, high = forecast(AT, y, 1e-10 * np.eye(len(AT))).interval(AT)
    np.testing.assert_allclose(middle, y, rtol=0.02)
    assert (high - low < 0.1).all()


def test_covariance_is_heard() -> None:
    """Means that move together leave the level in doubt and the way it falls clear."""
    y = np.array([TRUE["power"](n) for n in AT])
    together = forecast(AT, y, 0.05**2 * np.ones((6, 6)) + 1e-6 * np.eye(6)).errors([10, 20])
    apart = forecast(AT, y, (0.05**2 + 1e-6) * np.eye(6)).errors([10, 20])
    steps = [np.log(drawn[:, 1] / drawn[:, 0]).std() for drawn in (together, apart)]
    assert steps[0] < steps[1]


def test_where_a_target_is_reached() -> None:
    curve = TRUE["power"]  # 0.153 at n = 9, 0.146 at n = 10
    found = forecast(AT, [curve(n) for n in AT], 1e-7 * np.eye(len(AT)))
    reach = found.reach(0.15, 100)
    assert reach.low <= 10 <= reach.high <= 12 and reach.median == 10 and reach.within > 0.99
    never = found.reach(0.01, 100)
    assert math.isinf(never.median) and math.isinf(never.high) and never.within < 0.05
    assert found.reach(0.7, 100).median == 1.0
    assert found.reach(0.15, 100_000).median == pytest.approx(reach.median, rel=0.1)


def test_what_no_family_holds_widens_the_interval() -> None:
    rising = forecast([1, 2, 4, 8], [0.2, 0.3, 0.2, 0.4], 1e-6 * np.eye(4))
    assert rising.misfit > 10
    _, low, high = rising.interval([8])
    assert high[0] - low[0] > 0.05


def test_the_plain_power_law_is_a_line_of_logarithms() -> None:
    fit = power_law([1, 2, 4, 8], [0.5 * n**-0.7 for n in (1, 2, 4, 8)])
    assert fit(100) == pytest.approx(0.5 * 100**-0.7)


@pytest.mark.parametrize(
    ("at", "errors", "said"),
    [([1, 2], [0.3, 0.2], "three different"), ([1, 2, 2], [0.3, 0.2, 0.2], "three different"),
     ([1, 2, 3], [0.3, math.nan, 0.1], "finite"), ([1, 2, 3], [0.0, 0.0, 0.0], "above 0")],
)  # fmt: skip
def test_what_cannot_be_fitted(at: list[int], errors: list[float], said: str) -> None:
    with pytest.raises(UserError, match=said):
        forecast(at, errors, np.eye(len(at)))


def arrays(**episode: object) -> Arrays:
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(40), 20)
    x = rng.standard_normal((40, 4))[y] + rng.standard_normal((800, 4))
    return Arrays.of(x, y, **{"way": 3, "shot": 1, "query": 5, **episode})  # type: ignore[arg-type]


class Sees(MetaLearner):
    """Answers with the sum of the labels it was shown, and remembers how many rows that were."""

    def __init__(self) -> None:
        super().__init__()
        self.objective = Classification(3)
        self.rows: list[int] = []

    def adapt(self, support: Examples, prior: State | None = None) -> State:
        self.rows.append(int(support.weight.sum(1)[0]))
        return {"n": support.weight.sum(1)}

    def predict(self, state: State, x: Inputs, weight: torch.Tensor | None = None) -> torch.Tensor:
        assert isinstance(x, torch.Tensor)
        return x[..., :3]


def test_the_questions_are_the_same_with_each_number() -> None:
    learner = Sees()
    found = shot_scores(learner, arrays(), (5, 1, 2), tasks=30)
    assert found.shots == [1, 2, 5] and learner.rows == [3, 6, 15, 3, 6, 15] and found.each == "class"
    assert (found.values == found.values[:, :1]).all()  # it looks at the questions alone


def test_the_largest_number_is_what_evaluate_measures() -> None:
    learner = Centroid(Classification(3))
    found = shot_scores(learner, arrays(), (1, 2, 5), tasks=50, seed=4)
    assert found.values[:, 2].tolist() == evaluate(learner, arrays(shot=5), tasks=50, seed=4).values("accuracy")
    assert found.units.name == "class" and len(found.intervals()) == 3
    own = found.values.std(0, ddof=1) / 50**0.5
    assert (np.sqrt(found.covariance().diagonal()) >= own - 1e-12).all()


def test_rows_of_a_task_where_the_source_counts_those() -> None:
    found = shot_scores(Sees(), prior := Prior.of(sides, way=3, shot=9, query=6), (3, 5, 9), tasks=10)
    assert found.each == "task" and prior.spec.way == 3
    assert shot_scores(_mean(), Sinusoid(), (1, 3, 5), tasks=10).each == "task"


def sides(rng: torch.Generator, tasks: int, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(tasks, rows, 3, generator=rng)
    return x, x.argmax(-1)


def _mean() -> MetaLearner:
    from quickstudy.core import Regression
    from quickstudy.learners import Chance

    return Chance(Regression())


def test_fewer_rows_of_each_class_and_padding() -> None:
    y = torch.tensor([[0, 0, 1, 1, 1], [0, 1, 1, 0, 0]])
    weight = torch.tensor([[1.0, 1, 1, 1, 1], [1, 1, 1, 1, 0]])
    x = torch.arange(10.0).view(2, 5, 1) + 1
    tasks = Task(Examples(x, y, weight), Examples(x, y, weight))
    cut = fewer(tasks, 1, 2).support
    assert cut.weight.tolist() == [[1, 0, 1], [1, 1, 0]] and cut.x[..., 0].tolist() == [[1, 0, 3], [6, 7, 0]]  # type: ignore
    by_task = fewer(tasks, 2, 0).support
    assert by_task.weight.tolist() == [[1, 1], [1, 1]] and by_task.y.tolist() == [[0, 0], [0, 1]]


def test_numbers_that_cannot_be_had_are_noted() -> None:
    found = shot_scores(Centroid(Classification(3)), arrays(), (1, 2, 5, 30), tasks=20)
    assert found.shots == [1, 2, 5] and "30 examples left out: class" in found.notes[0]
    with pytest.raises(UserError, match="a curve needs 3 numbers of examples"):
        shot_scores(Centroid(Classification(3)), arrays(), (1, 2, 30), tasks=20)
    with pytest.raises(UserError, match="does classification"):
        shot_scores(Centroid(Classification(3)), Sinusoid(), (1, 2, 3), tasks=20)
