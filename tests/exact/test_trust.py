"""Thresholds by hand, temperatures against optima, and coverage where tasks are exchangeable."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

import quickstudy as qs
from quickstudy.checkpoint import Checkpoint
from quickstudy.left_out import left_out, spread
from quickstudy.questions.answers import Answers, answers
from quickstudy.questions.conformal import LEVELS, row_threshold, task_threshold
from quickstudy.questions.coverage import coverage, shown
from quickstudy.questions.setting import Setting, learnt, temperature
from quickstudy.questions.trust import Trust, abstain, calibrate, intervals, probabilities, sets


def classes(out: np.ndarray, y: np.ndarray) -> Answers:
    ends = (out.shape[-1], out.shape[-1])
    return Answers("classification", out, None, False, y, np.ones(y.shape), ends, (1, 1))


def test_row_threshold_by_hand() -> None:
    # 4 tasks of 1 / 5 each: 0.4 of the weight lies at or below 2, 0.6 at or below 3, and 0.2 at infinity
    scores = [np.array([1.0]), np.array([2.0, 2.0]), np.array([3.0]), np.array([4.0])]
    assert [row_threshold(scores, level) for level in (0.2, 0.4, 0.41, 0.6, 0.8, 0.81)] == [1, 2, 3, 3, 4, math.inf]
    # with one row a task it is split conformal prediction: the ceil((K + 1) level)-th smallest
    one = np.random.default_rng(0).random(99)
    assert row_threshold(list(one[:, None]), 0.9) == np.sort(one)[89]
    assert row_threshold([np.array([])], 0.5) == math.inf


def test_task_threshold_by_hand() -> None:
    scores = [np.array([k + 0.1, k + 0.2, k + 0.3, k + 0.4]) for k in range(9)]
    assert task_threshold(scores, 0.5, 0.9) == 8.2  # the largest of 9 medians: ceil(0.9 * 10) = 9
    assert task_threshold(scores, 0.75, 0.5) == 4.3
    assert task_threshold(scores, 0.5, 0.95) == math.inf


def test_coverage_of_exchangeable_tasks() -> None:
    rng = np.random.default_rng(0)
    rows, tasks = [], []
    for _ in range(2000):
        scores = rng.normal(size=(21, 1)) * 2 + rng.normal(size=(21, 8))
        known, new = list(scores[:20]), scores[20]
        rows.append((new <= row_threshold(known, 0.8)).mean())
        tasks.append((new <= task_threshold(known, 0.75, 0.8)).mean() >= 0.75)
    assert 0.79 < np.mean(rows) < 0.86  # at least 0.8, at most 1 / (K + 1) more
    assert 0.78 < np.mean(tasks) < 0.86


def test_temperature_in_closed_form() -> None:
    # two classes, a gap of 3, right in 4 of 5 rows: the optimum has odds of 4, so T = 3 / log 4
    out = np.tile(np.array([3.0, 0.0]), (2, 5, 1))
    y = np.tile(np.array([0, 0, 0, 0, 1]), (2, 1))
    assert temperature(classes(out, y)) == pytest.approx(3 / math.log(4), rel=1e-4)


def test_temperature_is_the_optimum_of_the_mean_over_tasks() -> None:
    rng = np.random.default_rng(0)
    out, y = 4 * rng.normal(size=(6, 9, 4)), rng.integers(0, 3, (6, 9))
    np.put_along_axis(out, y[..., None], np.take_along_axis(out, y[..., None], -1) + 4, -1)
    out[..., 3] = -np.inf  # a class that the support does not show
    weight = (np.arange(9) < np.array([9, 3, 5, 9, 2, 7])[:, None]).astype(float)
    found = replace(classes(out, y), weight=weight)

    def loss(log_t: np.ndarray) -> float:
        z = torch.from_numpy(out / math.exp(float(log_t[0])))
        log_p = z.log_softmax(-1).gather(-1, torch.from_numpy(y)[..., None])[..., 0].numpy()
        return float(np.mean(-(log_p * weight).sum(1) / weight.sum(1)))

    best = minimize(loss, [0.0], method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-12})
    assert temperature(found) == pytest.approx(math.exp(best.x[0]), rel=1e-4)


def test_the_factor_of_deviations_makes_residuals_standard() -> None:
    rng = np.random.default_rng(0)
    deviation = rng.uniform(0.5, 2, (300, 20, 1))
    y = 3 * deviation * rng.normal(size=deviation.shape)
    found = Answers("regression", 0 * y, deviation, True, y, np.ones(y.shape[:2]), (0, 0), (5, 5))
    one = learnt(found)
    assert one.temperature == pytest.approx(3, rel=0.03)
    assert one.threshold(0.9) == pytest.approx(1.645, abs=0.08)  # the residual in deviations of a normal
    (sets_90,) = [s for s in shown(found, one, [0.9]).levels if not s.by_task]
    assert abs(sets_90.coverage - 0.9) < 0.02


def test_left_out_rows_come_from_the_others() -> None:
    learner = qs.make("centroid", qs.Spec("classification", (1,), way=2))
    x = torch.tensor([[[0.0], [10.0], [2.0], [8.0], [9.0], [5.0]]])
    support = qs.Examples(x, torch.tensor([[0, 1, 0, 1, 1, 0]]), torch.tensor([[1.0, 1, 1, 1, 1, 0]]))
    found, asked = left_out(learner, support)
    assert asked.tolist() == [[1, 1, 1, 1, 1, 0]]
    for i, together in enumerate([[0, 1], [0, 1], [2, 3], [2, 3], [4]]):  # the first of each class, the second, ...
        weight = support.weight.clone()
        weight[0, together] = 0
        alone = learner.predict(learner.adapt(support._replace(weight=weight)), x)[0, i]
        assert torch.allclose(found[0, i], alone)


def test_spread_is_the_error_of_the_mean_of_the_others() -> None:
    learner = qs.make("chance", qs.Spec("regression", (1,)))  # predicts the support's mean
    rows = qs.examples(torch.zeros(1, 3, 1), torch.tensor([[[0.0], [3.0], [6.0]]]))
    assert float(spread(learner, rows)) == pytest.approx(math.sqrt((4.5**2 + 0 + 4.5**2) / 3))
    assert math.isnan(float(spread(learner, qs.examples(torch.zeros(1, 1, 1), torch.ones(1, 1, 1)))))


def fixed(q: float, warm: float = 1.0) -> Setting:
    return Setting((2, 3), (1, 2), 10, warm, None, [q] * len(LEVELS), [1.0] * len(LEVELS))


def test_sets_and_abstaining() -> None:
    learner = qs.make("centroid", qs.Spec("classification", (1,), way=3))
    task = qs.adapt(Checkpoint(learner, {}), torch.tensor([[0.0], [1.0], [9.0]]), ["a", "b", "c"])
    x = torch.tensor([[0.0], [0.5], [9.0]])
    trust = Trust("classification", "", "valid", 0, 0.9, [fixed(0.6, warm=2.0)])
    odds = (task.predict(x).double() / 2).softmax(-1)
    assert torch.allclose(probabilities(task, x, trust), odds)
    for one, p in zip(sets(task, x, trust), odds, strict=True):
        inside = {name for name, value in zip("abc", p.tolist(), strict=True) if value >= 0.4}
        assert set(one) == inside | {"abc"[int(p.argmax())]} and one[0] == "abc"[int(p.argmax())]
    assert abstain(task, x, trust)[1] == "?" and abstain(task, x, trust)[2] == "c"
    # a threshold that nothing passes still leaves the most probable class
    assert abstain(task, x, replace(trust, settings=[fixed(0.0)])) == task.labels(x)
    assert [len(one) for one in sets(task, x, trust, by_task=True)] == [3, 3, 3]


def test_settings_are_looked_up_by_way_and_shot() -> None:
    few, many = fixed(0.1), replace(fixed(0.2), way=(5, 5), shot=(5, 5))
    trust = Trust("classification", "", "valid", 0, 0.9, [few, many])
    assert trust.setting(3, 2) is few and trust.setting(5, 5) is many and trust.setting(20, 1) is many
    assert few.threshold(0.801) == 0.1 and many.away(5, 5) == (0, 0)
    with pytest.raises(qs.UserError, match=r"0\.5 to 0\.99"):
        few.threshold(0.3)


def test_a_file_of_trust_comes_back(tmp_path: Path) -> None:
    one = replace(fixed(0.25), typical=0.5, by_task=[math.inf] * len(LEVELS))
    trust = Trust("regression", "abc", "valid", 3, 0.8, [one])
    trust.write(tmp_path / "trust.json")
    assert Trust.read(tmp_path / "trust.json") == trust
    (tmp_path / "bad.json").write_text('{"format": 1, "settings": []}')
    with pytest.raises(qs.UserError, match="calibrate"):
        Trust.read(tmp_path / "bad.json")
    with pytest.raises(qs.UserError, match="check the path"):
        Trust.read(tmp_path / "none.json")


def test_calibrating_covers_unseen_tasks_of_values() -> None:
    source = qs.tasks.Sinusoid(shot=5, query=5)
    learner = qs.make("chance", source.spec)  # no training: the support's mean, whose error differs from task to task
    trust = calibrate(learner, source, tasks=300)
    (found,) = coverage(learner, source, trust, tasks=200)
    for level in found.levels:
        least = level.level if not level.by_task else 0.85
        assert least - 0.03 < level.coverage, level
        assert level.by_task or level.coverage < level.level + 0.04, level
    assert trust.settings[0].typical is not None
    x, y = torch.linspace(-1, 1, 5).unsqueeze(1), torch.linspace(0, 2, 5).unsqueeze(1)
    task = qs.adapt(Checkpoint(learner, {}), x, y)
    low, high = intervals(task, x, trust, 0.9)
    one = trust.settings[0]
    wide = 2 * one.threshold(0.9) * one.temperature * (task.card["spread"] + 0.1 * (one.typical or 0))
    assert torch.allclose(high - low, torch.full_like(low, wide).to(low))


def test_answers_hide_what_the_support_does_not_show() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(90, 4)).astype(np.float32), np.arange(90) % 9
    source = qs.tasks.Arrays.of(x, y, way="2-3", shot="1-2", query=2, valid_fraction=1 / 3, test_fraction=1 / 3)
    learner = qs.make("centroid", source.spec)
    found = answers(learner, source, "valid", 25)
    assert found.way == (2, 3) and found.shot == (1, 2) and len(found) == 25
    hidden = ~np.isfinite(found.out)
    assert hidden.any() and not hidden.all(-1).any()
    truth = np.take_along_axis(found.out, found.y[..., None], -1)[..., 0]
    assert np.isfinite(truth[found.weight > 0]).all()
    accuracy = qs.evaluate(learner, source, "valid", 25).mean("accuracy")
    assert shown(found, fixed(0.5), [0.9]).accuracy == pytest.approx(accuracy)
