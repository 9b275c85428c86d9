"""The plain baselines are what they are called: scikit-learn's models, class means, the labels alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge, RidgeCV
from sklearn.neighbors import NearestCentroid
from torch import Tensor

from quickstudy import learners
from quickstudy.core import Classification, GaussianRegression, Regression
from quickstudy.core.learner import MetaLearner
from quickstudy.core.task import Examples, Task
from quickstudy.learners import LEARNERS, Centroid, Chance, LinearProbe, Logistic
from quickstudy.nets import MLP
from quickstudy.testing import synthetic_tasks

WAY, SIZE = 3, (5,)
CLASSES = Classification(WAY)


def mlp() -> MLP:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MLP(SIZE, width=8).double()


def classes(shot: int = 3) -> Task:
    return synthetic_tasks(CLASSES, SIZE, shot=shot)


def waves() -> Task:
    return synthetic_tasks(Regression(), SIZE)


def weighted(tasks: Task) -> Task:
    """The same rows, where some count less than others and some not at all."""
    rng = torch.Generator().manual_seed(1)
    weight = 0.2 + torch.rand(tasks.support.weight.shape, generator=rng, dtype=torch.float64)
    weight[:, 0] = 0.0
    return tasks._replace(support=tasks.support._replace(weight=weight))


def predictions(learner: MetaLearner, tasks: Task) -> Tensor:
    with torch.no_grad():
        return learner.predict(learner.adapt(tasks.support), tasks.query.x, tasks.query.weight)


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("way", [2, 3])
def test_logistic_is_that_of_scikit_learn(way: int) -> None:
    tasks = weighted(synthetic_tasks(Classification(way), SIZE, shot=4))
    found = predictions(Logistic(Classification(way), strength=0.8), tasks).softmax(-1)
    for t in range(tasks.support.tasks):
        kept = tasks.support.weight[t] > 0
        x, y, weight = (f[t][kept].numpy() for f in tasks.support)
        model = LogisticRegression(C=0.8, max_iter=1000).fit(x, y, sample_weight=weight)
        close(found[t], torch.from_numpy(model.predict_proba(tasks.query.x[t])))


def test_centroid_is_that_of_scikit_learn() -> None:
    tasks = classes(shot=4)
    found = predictions(Centroid(CLASSES), tasks).argmax(-1)
    asked = 3 * torch.randn(3, 200, *SIZE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    many = Centroid(CLASSES).predict(Centroid(CLASSES).adapt(tasks.support), asked).argmax(-1)
    for t in range(tasks.support.tasks):
        model = NearestCentroid().fit(tasks.support.x[t], tasks.support.y[t])
        assert found[t].tolist() == model.predict(tasks.query.x[t]).tolist()
        assert many[t].tolist() == model.predict(asked[t]).tolist()


def test_chance_gives_the_shares_of_the_labels() -> None:
    tasks = classes(shot=2)
    weight = tasks.support.weight.clone()
    weight[:, 0] = 3.0  # class 0 weighs 4 of 8
    tasks = tasks._replace(support=tasks.support._replace(weight=weight))
    found = predictions(Chance(CLASSES), tasks).softmax(-1)
    close(found, torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64).expand_as(found))


def test_chance_gives_the_mean_of_the_targets() -> None:
    tasks = weighted(waves())
    found = predictions(Chance(Regression()), tasks)
    support = tasks.support
    for t in range(support.tasks):
        mean = np.average(support.y[t, :, 0], weights=support.weight[t])
        close(found[t, :, 0], torch.full_like(found[t, :, 0], float(mean)))
    objective = GaussianRegression(1)
    mean, deviation = objective.mean_and_deviation(predictions(Chance(objective), tasks))
    close(mean, found)
    torch.testing.assert_close(deviation, torch.full_like(mean, 1.0 + objective.floor), rtol=1e-4, atol=0.0)


def test_many_classes_of_one_row_are_no_warning() -> None:
    x = torch.randn(1, 25, 3)
    support = Examples(x, torch.arange(25).unsqueeze(0), torch.ones(1, 25))
    learner = Logistic(Classification(25))
    assert learner.predict(learner.adapt(support), x).shape == (1, 25, 25)


def test_linear_probe_is_logistic_regression_on_unit_features() -> None:
    tasks, net = classes(), mlp()
    found = predictions(LinearProbe(net, CLASSES, classes=9, strength=2.0), tasks).softmax(-1)
    with torch.no_grad():
        f, asked = (torch.nn.functional.normalize(net(part.x), dim=-1) for part in tasks)
    for t in range(tasks.support.tasks):
        model = LogisticRegression(C=2.0, max_iter=1000).fit(f[t], tasks.support.y[t])
        close(found[t], torch.from_numpy(model.predict_proba(asked[t])))


def test_linear_probe_regression_is_ridge_on_features() -> None:
    tasks, net = waves(), mlp()
    found = predictions(LinearProbe(net, Regression(), strength=2.0), tasks)
    with torch.no_grad():
        f, asked = (torch.cat([net(part.x), torch.ones(3, part.x.shape[1], 1)], -1) for part in tasks)  # type: ignore
    for t in range(tasks.support.tasks):
        model = Ridge(alpha=0.5, fit_intercept=False).fit(f[t], tasks.support.y[t])
        close(found[t, :, 0], torch.from_numpy(model.predict(asked[t])).flatten())


def test_ridge_is_that_of_scikit_learn_with_its_choice_of_penalty() -> None:
    tasks = synthetic_tasks(Regression(2), SIZE, 12, shot=4)
    found = predictions(learners.Ridge(Regression(2)), tasks)
    chosen = set()
    for t in range(tasks.support.tasks):
        model = RidgeCV(alphas=learners.Ridge(Regression(2)).penalties).fit(tasks.support.x[t], tasks.support.y[t])
        close(found[t], torch.from_numpy(model.predict(tasks.query.x[t])))
        chosen.add(float(model.alpha_))
    assert len(chosen) > 1


def test_ridge_leaves_out_one_row_of_its_own_weight() -> None:
    tasks, penalties = weighted(waves()), (0.1, 3.0)
    found = predictions(learners.Ridge(Regression(), penalties), tasks)
    for t in range(tasks.support.tasks):
        kept = (tasks.support.weight[t] > 0).nonzero().flatten()
        x, y, weight = (part[t][kept].numpy() for part in tasks.support)
        errors = []
        for penalty in penalties:
            others = [np.arange(len(y)) != i for i in range(len(y))]
            fits = [Ridge(alpha=penalty).fit(x[o], y[o], sample_weight=weight[o]) for o in others]
            gaps = [float(fit.predict(x[i : i + 1]).item() - y[i].item()) for i, fit in enumerate(fits)]
            errors.append(float(weight @ np.square(gaps)))
        model = Ridge(alpha=penalties[int(np.argmin(errors))]).fit(x, y, sample_weight=weight)
        close(found[t].flatten(), torch.from_numpy(model.predict(tasks.query.x[t])).flatten())


def test_linear_probe_trains_to_tell_all_classes_apart() -> None:
    learner = LinearProbe(mlp(), CLASSES, classes=9).double()
    x, y = classes().query.x, torch.tensor([[0, 8, 3, 4, 7, 1]]).expand(3, -1)
    rows = Examples(x, y, torch.ones(3, 6, dtype=torch.float64))
    wanted = torch.nn.functional.cross_entropy(learner.head(learner.net(x)).flatten(0, 1), y.flatten())
    close(learner(Task(rows, rows)), wanted)


def test_every_baseline_without_parameters_says_so() -> None:
    assert {name for name, cls in LEARNERS.items() if not cls.trained} == {
        "chance",
        "centroid",
        "logistic",
        "ridge",
        "nearest_description",
        "scratch",
    }
