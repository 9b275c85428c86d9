"""The numbers mean what they say: intervals cover, calibration is counted right, comparisons are paired."""

from __future__ import annotations

import io
import math
from dataclasses import replace

import pytest
import torch
from rich.console import Console
from torch import nn

from quickstudy.calibration import bin_sums, reliability
from quickstudy.core.errors import UserError
from quickstudy.core.learner import MetaLearner
from quickstudy.core.objective import Classification, Regression
from quickstudy.core.source import Source, Spec
from quickstudy.core.task import Examples, Task, examples
from quickstudy.curves import adaptation_curve, shot_curve
from quickstudy.evaluate import Evaluation, compare, evaluate
from quickstudy.scores import interval
from quickstudy.tables import evaluation_table, rows


class Blobs(Source):
    """Gaussian classes; every query ends in two rows of padding that carry a wrong label."""

    def __init__(self, way: int = 4, shot: int = 2, spread: float = 1.0, most: int = 8, mapping: bool = False):
        self.way, self.shot, self.spread, self.most, self.mapping = way, shot, spread, most, mapping

    @property
    def spec(self) -> Spec:
        return Spec("classification", (3,), self.way)

    def sample(self, split, tasks, rng):
        if self.shot > self.most:
            raise UserError(f"blobs holds {self.most} rows a class: ask for shot {self.most} or less.")
        centres = torch.randn(tasks, self.way, 3, generator=rng)

        def part(n: int, padding: int) -> Examples:
            y = torch.arange(self.way).repeat_interleave(n).expand(tasks, -1)
            x = centres.repeat_interleave(n, 1)
            x = x + self.spread * torch.randn(x.shape, generator=rng)
            weight = torch.ones(y.shape)
            if padding:
                y = torch.cat([y, y[:, :padding]], 1)
                x = torch.cat([x, torch.full((tasks, padding, 3), 1e4)], 1)
                weight = torch.cat([weight, torch.zeros(tasks, padding)], 1)
            return Examples({"x": x} if self.mapping else x, y, weight)

        return Task(part(self.shot, 0), part(5, 2))

    def sample_pooled(self, split, rows, rng):
        raise NotImplementedError


class Lines(Source):
    """y = a x, a drawn anew for every task."""

    spec = Spec("regression", (1,))  # type: ignore[assignment]

    def __init__(self, shot: int = 3):
        self.shot = shot

    def sample(self, split, tasks, rng):
        slope = torch.randn(tasks, 1, 1, generator=rng)
        x, q = (torch.rand(tasks, n, 1, generator=rng) for n in (self.shot, 8))
        return Task(examples(x, slope * x), examples(q, slope * q))

    def sample_pooled(self, split, rows, rng):
        raise NotImplementedError


class Centroids(MetaLearner):
    """Nearest centroid; with `noise`, a worse one."""

    any_way = True

    def __init__(self, way: int = 4, noise: float = 0.0):
        super().__init__()
        self.objective, self.noise = Classification(way), noise
        self.inner = nn.Dropout(0.9)
        self.met: list[torch.Tensor] = []

    def adapt(self, support, prior=None):
        assert not self.inner.training and not torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
        x = support.x["x"] if isinstance(support.x, dict) else support.x
        columns = self.objective.one_hot(support)
        return {"centroid": columns.mT @ x / columns.sum(1).unsqueeze(-1)}

    def predict(self, state, x, weight=None):
        x = self.inner(x["x"] if isinstance(x, dict) else x)
        self.met.append(x)
        logits = -torch.cdist(x, state["centroid"]).square()
        return logits + self.noise * torch.randn(logits.shape)


class Slope(MetaLearner):
    """Least squares through the origin by gradient descent, one number a task."""

    def __init__(self):
        super().__init__()
        self.objective = Regression()

    def path(self, support, steps):
        slope = torch.zeros(support.tasks, 1, 1)
        yield {"slope": slope}
        for _ in range(steps):
            with torch.enable_grad():
                free = slope.detach().requires_grad_()
                loss = (free * support.x - support.y).square().sum()
                slope = (free - 0.3 * torch.autograd.grad(loss, free)[0]).detach()
            yield {"slope": slope}

    def adapt(self, support, prior=None):
        return list(self.path(support, 5))[-1]

    def predict(self, state, x, weight=None):
        return state["slope"] * x


def test_the_interval_holds_the_true_mean_95_times_in_100():
    rng = torch.Generator().manual_seed(0)
    draws = torch.rand(4000, 12, generator=rng).tolist()
    held = sum(abs(sum(row) / 12 - 0.5) <= interval(row) for row in draws) / 4000
    # The standard error of the share is 0.0034.
    assert abs(held - 0.95) < 0.012
    assert interval([0.3]) == math.inf and interval([0.3, 0.3]) == 0


def test_the_interval_of_an_evaluation_holds_its_mean_over_all_tasks():
    learner, source = Centroids(), Blobs()
    truth = evaluate(learner, source, tasks=20_000, seed=999).mean()
    runs = [evaluate(learner, source, tasks=40, seed=seed) for seed in range(150)]
    held = sum(abs(run.mean() - truth) <= run.interval() for run in runs) / len(runs)
    assert 0.89 <= held <= 0.99


def test_a_calibrated_learner_has_no_calibration_error():
    # In each of three groups of rows, exactly the stated share is right.
    logits, right = [], []
    for probability in (0.6, 0.75, 0.9):
        logits += [[math.log(probability), math.log(1 - probability)]] * 100
        right += [0] * round(100 * probability) + [1] * round(100 - 100 * probability)
    query = examples(torch.zeros(1, 300, 1), torch.tensor([right]))
    assert reliability(bin_sums(torch.tensor([logits]), query)).ece == pytest.approx(0, abs=1e-6)


def test_calibration_error_by_hand_and_without_padding():
    # Two sure rows (0.9), one of them wrong; two unsure rows (0.6), both right; one row of padding.
    logits = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4], [0.99, 0.01]]).log().unsqueeze(0)
    query = Examples(torch.zeros(1, 5, 1), torch.tensor([[0, 1, 0, 0, 1]]), torch.tensor([[1.0, 1, 1, 1, 0]]))
    bins = reliability(bin_sums(logits, query))
    assert bins.ece == pytest.approx(0.5 * abs(0.5 - 0.9) + 0.5 * abs(1 - 0.6))
    assert sum(bins.weight) == 4 and len(bins.weight) == 15


def test_calibration_sums_add_up_over_batches():
    rng = torch.Generator().manual_seed(0)
    logits, y = torch.randn(6, 9, 3, generator=rng), torch.randint(3, (6, 9), generator=rng)
    query = examples(torch.zeros(6, 9, 1), y)
    parts = [bin_sums(logits[i : i + 2], Examples(*(t[i : i + 2] for t in query))) for i in (0, 2, 4)]
    torch.testing.assert_close(bin_sums(logits, query), sum(parts))


def test_a_paired_difference_is_tighter_than_two_intervals():
    source = Blobs(shot=1)
    good = evaluate(Centroids(), source, tasks=300, name="good")
    poor = evaluate(Centroids(noise=3.0), source, tasks=300, name="poor")
    paired = compare(good, poor)
    assert paired.verdict == "better" and compare(poor, good).verdict == "worse"
    assert paired.difference == pytest.approx(good.mean() - poor.mean())
    assert paired.interval < math.hypot(good.interval(), poor.interval())
    assert str(paired).startswith("good is better than poor: accuracy +")
    assert compare(good, good).verdict == "cannot tell"


def test_under_no_difference_better_or_worse_is_said_5_times_in_100():
    rng = torch.Generator().manual_seed(0)
    one = evaluate(Centroids(), Blobs(), tasks=30)
    said = 0
    for _ in range(2000):
        a, b = (replace(one, measures={"accuracy": torch.rand(30, generator=rng).tolist()}) for _ in "ab")
        said += compare(a, b).verdict != "cannot tell"
    assert abs(said / 2000 - 0.05) < 0.015


def test_lower_is_better_where_the_measure_says_so():
    low = evaluate(Slope(), Lines(), tasks=40)
    high = replace(low, measures={"mse": [v + 1 for v in low.measures["mse"]]})
    assert compare(low, high).verdict == "better"


def test_all_learners_meet_the_same_tasks_whatever_the_batch():
    source = Blobs(spread=0.5)
    one, other = Centroids(), Centroids(noise=1.0)
    a, b = evaluate(one, source, tasks=45), evaluate(other, source, tasks=45)
    assert [len(x) for x in one.met] == [20, 20, 5]
    assert all(torch.equal(x, y) for x, y in zip(one.met, other.met, strict=True))
    assert a.fingerprint == b.fingerprint
    small = evaluate(Centroids(), source, tasks=45, batch=7)
    assert small.fingerprint == a.fingerprint
    assert small.values() == pytest.approx(a.values()) and small.ece == pytest.approx(a.ece)
    for changed in ({"seed": 1}, {"split": "valid"}, {"tasks": 44}):
        with pytest.raises(UserError, match="did not meet the same tasks"):
            compare(a, evaluate(Centroids(), source, **({"tasks": 45} | changed)))
    with pytest.raises(UserError, match="did not meet the same tasks"):
        compare(a, evaluate(Centroids(), Blobs(spread=0.6), tasks=45))


def test_evaluating_changes_nothing():
    learner = Centroids(way=2, noise=1.0)
    learner.frozen = nn.Dropout()
    learner.frozen.eval()
    random = torch.get_rng_state()
    first = evaluate(learner, Blobs(), tasks=25)
    assert learner.training and learner.inner.training and not learner.frozen.training
    assert learner.objective.way == 2
    assert torch.equal(torch.get_rng_state(), random) and torch.is_grad_enabled()
    assert evaluate(learner, Blobs(), tasks=25).measures == first.measures


def test_the_mode_is_put_back_after_a_failure():
    learner = Centroids()
    with pytest.raises(UserError):
        evaluate(learner, Blobs(shot=9), tasks=5)
    assert learner.training and learner.inner.training


def test_padding_never_counts_and_inputs_may_be_a_dict():
    # Padding lies far away and always answers wrongly for three of four classes.
    plain, mapped = (evaluate(Centroids(), Blobs(spread=1e-3, mapping=m), tasks=20) for m in (False, True))
    assert plain.mean() == 1.0 and plain.measures == mapped.measures
    assert plain.reliability is not None and sum(plain.reliability.weight) == 20 * 4 * 5


def test_facts_and_words():
    met = evaluate(Centroids(), Blobs(), "valid", tasks=30, seed=3)
    assert (met.way, met.shot, met.kind) == (4, 2, "classification")
    assert (met.split, met.seed, met.tasks) == ("valid", 3, 30)
    assert met.state_bytes == 4 * 3 * 4 and met.adapt_seconds > 0
    assert str(met) == f"accuracy {100 * met.mean():.1f} ± {100 * met.interval():.1f} (30 tasks)"
    lines = evaluate(Slope(), Lines(), tasks=1)
    assert (lines.way, lines.shot, lines.ece) == (0, 3, None)
    assert str(lines).endswith("(1 task)") and "±" not in str(lines)


def test_json_there_and_back():
    for met in (evaluate(Centroids(), Blobs(), tasks=20), evaluate(Slope(), Lines(), tasks=3)):
        assert Evaluation.from_json(met.to_json()) == met
    broken = replace(met, measures={"mse": [math.nan, math.inf, 1.0]})
    assert "NaN" not in broken.to_json() and math.isnan(Evaluation.from_json(broken.to_json()).mean())
    assert compare(broken, broken).verdict == "cannot tell"
    for text in ("", "[]", "{}", met.to_json()[:-1], met.to_json().replace('"mse"', '"x"', 1)):
        with pytest.raises(UserError, match="not an evaluation"):
            Evaluation.from_json(text)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"tasks": 0}, "at least 1 task"),
        ({"batch": 0}, "at least 1 task at once"),
        ({"split": "tset"}, "did you mean 'test'"),
        ({"source": Lines()}, "one kind"),
    ],
)
def test_mistakes_are_named(given, said):
    with pytest.raises(UserError, match=said):
        evaluate(Centroids(), **({"source": Blobs(), "tasks": 5} | given))


def test_more_shots_are_better_and_missing_ones_are_noted():
    curve = shot_curve(Centroids(), Blobs(spread=2.0), shots=(1, 4, 50), tasks=60)
    assert curve.at == [1, 4] and curve.means[1] > curve.means[0]
    assert len(curve.notes) == 1 and "shot 50" in curve.notes[0]
    with pytest.raises(UserError, match="rows a class"):
        shot_curve(Centroids(), Blobs(), shots=(50,), tasks=20)


def test_the_adaptation_curve_falls_and_ends_where_evaluation_does():
    curve = adaptation_curve(Slope(), Lines(), steps=5, tasks=45, batch=8)
    assert curve.at == list(range(6)) and curve.means == sorted(curve.means, reverse=True)
    assert curve.means[-1] == pytest.approx(evaluate(Slope(), Lines(), tasks=45).mean())
    with pytest.raises(UserError, match="in steps"):
        adaptation_curve(Centroids(), Blobs())


def test_the_table_shows_all_and_takes_names_as_they_are():
    good = evaluate(Centroids(), Blobs(), tasks=40, name="[red]good")
    poor = evaluate(Centroids(noise=9.0), Blobs(), tasks=40, name="poor")
    other = evaluate(Centroids(), Blobs(), tasks=40, seed=1, name="other")
    console = Console(file=io.StringIO(), width=140)
    console.print(evaluation_table([good, poor, other]))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for wanted in ("[red]good", "poor", "worse", "not comparable", "ECE %", "48 B", "40 test tasks of Blobs"):
        assert wanted in text
    assert [row.verdict for row in rows([good, poor, other])] == ["", "worse", "not comparable"]
