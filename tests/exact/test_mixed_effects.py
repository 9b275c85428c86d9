"""Mixed-effects regression for a new patient: beside statsmodels' own effects and conditioning."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy.stats import multivariate_normal

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def mixed() -> Iterator[ModuleType]:
    pytest.importorskip("statsmodels", reason="mixed-effects regression needs statsmodels")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        import mixed_effects

        yield mixed_effects
        sys.modules.pop("mixed_effects")


def groups(count: int, rows: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Patients with a level and a slope of their own: y = 30 + 2 t + 5 z + u0 + u1 t + e."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        x = np.column_stack([np.sort(rng.uniform(0, 4, rows)), rng.normal(7, 3, rows)])
        u0, u1 = rng.normal(0, 6), rng.normal(0, 2)
        found.append((x, 30 + (2 + u1) * x[:, 0] + 5 * x[:, 1] + u0 + rng.normal(0, 1, rows)))
    return found


def test_the_effects_of_training_groups_are_those_of_statsmodels(mixed: ModuleType) -> None:
    from statsmodels.regression.mixed_linear_model import MixedLM

    data = groups(12, 9, 0)
    model = mixed.fit_mixed(data, (0,))
    x, y = (np.concatenate(part) for part in zip(*data, strict=True))
    whole = np.column_stack([np.ones(len(x)), (x - x.mean(0)) / x.std(0)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = MixedLM((y - y.mean()) / y.std(), whole, np.repeat(np.arange(12), 9), whole[:, :2]).fit()
    for number, (rows, values) in enumerate(data):
        theirs = np.asarray(found.random_effects[number])
        np.testing.assert_allclose(model.effects(rows, values), theirs, rtol=1e-4, atol=1e-5)


def test_a_new_group_is_predicted_as_a_gaussian_conditioned_on_its_rows(mixed: ModuleType) -> None:
    model = mixed.fit_mixed(groups(20, 12, 1), (0,))
    ((x, y),) = groups(1, 7, 2)
    mean, deviation = model.predict(x[:5], y[:5], x[5:])
    design = np.column_stack([np.ones(7), (x - model.x_mean) / model.x_scale])
    part = design[:, :2]
    joint = part @ model.cov @ part.T + model.noise * np.eye(7)
    prior = design @ model.fixed
    gain = joint[5:, :5] @ np.linalg.inv(joint[:5, :5])
    left = (y - model.y_mean) / model.y_scale - prior
    wanted = model.y_mean + model.y_scale * (prior[5:] + gain @ left[:5])
    spread = model.y_scale**2 * (joint[5:, 5:] - gain @ joint[:5, 5:])
    np.testing.assert_allclose(mean, wanted)
    np.testing.assert_allclose(deviation**2, np.diag(spread))
    assert multivariate_normal(mean=wanted, cov=spread).pdf(wanted) > 0  # a covariance that is one


def test_without_rows_the_prediction_is_that_of_the_population(mixed: ModuleType) -> None:
    model = mixed.fit_mixed(groups(40, 10, 3))
    nothing = np.zeros((0, 2)), np.zeros(0)
    mean, deviation = model.predict(*nothing, np.array([[2.0, 7.0], [2.0, 8.0]]))
    assert abs(mean[0] - (30 + 4 + 35)) < 4 and abs(mean[1] - mean[0] - 5) < 0.2
    known, sure = model.predict(*groups(1, 10, 4)[0], np.array([[2.0, 7.0]]))
    assert sure[0] < deviation[0] and abs(known[0] - mean[0]) > 0.1


def test_new_groups_lie_within_their_intervals(mixed: ModuleType) -> None:
    model = mixed.fit_mixed(groups(60, 12, 5), (0,))
    inside, gaps = [], []
    for x, y in groups(200, 12, 6):
        mean, deviation = model.predict(x[:6], y[:6], x[6:])
        inside.append(np.abs(mean - y[6:]) <= 1.6448536 * deviation)
        gaps.append(np.square(mean - y[6:]).mean() < np.square(y[:6].mean() - y[6:]).mean())
    assert 0.87 < np.mean(inside) < 0.93 and np.mean(gaps) > 0.9

