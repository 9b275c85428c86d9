"""SimpleShot, Baseline++ and Meta-Baseline against scikit-learn's nearest centroid and cosines, and steps by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import cosine_similarity, euclidean_distances
from sklearn.neighbors import NearestCentroid
from torch import Tensor

from quickstudy.core import Classification
from quickstudy.core.errors import UserError
from quickstudy.core.learner import MetaLearner
from quickstudy.core.task import Task
from quickstudy.learners import BaselinePlusPlus, MetaBaseline, SimpleShot
from quickstudy.nets import MLP
from quickstudy.nets.norm import average, collect, fold_in
from quickstudy.testing import synthetic_tasks
from quickstudy.testing.synthetic import pooled_rows

WAY, SIZE, CLASSES = 3, (5,), Classification(3)


def mlp() -> MLP:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MLP(SIZE, out=6, width=8).double()  # no unit that is 0 for all rows


def tasks(shot: int = 3) -> Task:
    return synthetic_tasks(CLASSES, SIZE, shot=shot)


def weighted(given: Task) -> Task:
    """The same rows, where some count less than others and some not at all."""
    weight = 0.2 + torch.rand(given.support.weight.shape, generator=torch.Generator().manual_seed(1)).double()
    weight[:, 0] = 0.0
    return given._replace(support=given.support._replace(weight=weight))


def predictions(learner: MetaLearner, given: Task) -> Tensor:
    learner = learner.double().eval()
    with torch.no_grad():
        return learner.predict(learner.adapt(given.support), given.query.x, given.query.weight)


def features(net: MLP, given: Task) -> tuple[np.ndarray, np.ndarray]:
    with torch.no_grad():
        return net(given.support.x).numpy(), net(given.query.x).numpy()


def close(a: Tensor, b: np.ndarray | Tensor) -> None:
    torch.testing.assert_close(a, torch.as_tensor(b), rtol=1e-9, atol=1e-9)


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@pytest.mark.parametrize("transform", ["none", "l2n", "cl2n"])
def test_simple_shot_is_scikit_learns_nearest_centroid(transform: str) -> None:
    given, net = tasks(), mlp()
    learner, middle = SimpleShot(net, CLASSES, 7, transform).double(), np.zeros(6)
    if transform == "cl2n":
        middle = np.linspace(-1, 1, 6)
        learner.centre.mean.copy_(torch.from_numpy(middle))
    found, (f, asked) = predictions(learner, given), features(net, given)
    if transform != "none":
        f, asked = unit(f - middle), unit(asked - middle)
    for t in range(len(f)):
        model = NearestCentroid().fit(f[t], given.support.y[t].numpy())
        close(found[t], -np.square(euclidean_distances(asked[t], model.centroids_)))
        assert found[t].argmax(-1).tolist() == model.predict(asked[t]).tolist()


def test_simple_shot_keeps_the_mean_feature_of_what_it_is_trained_on() -> None:
    pooled, net = pooled_rows(tasks()), mlp()
    weight = pooled.query.weight.clone()
    weight[:, ::3] = 0.0
    pooled = pooled._replace(query=pooled.query._replace(weight=weight))
    learner, mean = SimpleShot(net, CLASSES, 7).double(), torch.zeros(6, dtype=torch.float64)
    with torch.no_grad():
        wanted = net(pooled.query.x)[0][weight[0] > 0].mean(0)
    for _ in range(2):
        with collect() as seen:
            learner.train()(pooled)
            assert learner.centre.mean.equal(mean)  # the pass itself writes nothing
        ((layer, values),) = average(seen)
        fold_in(layer, values)
        mean = mean + 0.1 * (wanted - mean)
        close(learner.centre.mean, mean)
        mean = learner.centre.mean.clone()
    with collect() as seen:
        learner.eval()(pooled)
        learner.predict(learner.adapt(pooled.support), pooled.query.x)
    assert not seen


def test_simple_shot_is_trained_by_cross_entropy_over_all_classes() -> None:
    pooled, net = pooled_rows(tasks()), mlp()
    learner = SimpleShot(net, CLASSES, 7).double()
    logits = learner.head(net(pooled.query.x))[0]
    close(learner.meta_loss(pooled)[0], torch.nn.functional.cross_entropy(logits, pooled.query.y[0]))


def test_meta_baseline_is_the_nearest_centroid_by_cosine() -> None:
    given, net = tasks(), mlp()
    learner = MetaBaseline(net, CLASSES, temperature=4.0)
    found, (f, asked) = predictions(learner, given), features(net, given)
    for t in range(len(f)):
        centroids = NearestCentroid().fit(f[t], given.support.y[t].numpy()).centroids_
        close(found[t], 4.0 * cosine_similarity(asked[t], centroids))
    assert [n for n, _ in learner.named_parameters() if not n.startswith("net.")] == ["scale"]


def test_baseline_plus_plus_starts_as_the_nearest_centroid_by_cosine() -> None:
    given, net = tasks(shot=1), mlp()
    close(
        predictions(BaselinePlusPlus(net, CLASSES, 7, inner_steps=0, scale=4.0), given),
        predictions(MetaBaseline(net, CLASSES, temperature=4.0), given),
    )
    given = weighted(tasks())
    found, (f, asked) = predictions(BaselinePlusPlus(net, CLASSES, 7, inner_steps=0), given), features(net, given)
    for t in range(len(f)):  # of more examples, the weighted mean of unit vectors
        y, w = given.support.y[t].numpy(), given.support.weight[t].numpy()
        centroids = np.stack([np.average(unit(f[t])[y == k], 0, w[y == k]) for k in range(WAY)])
        close(found[t], 10.0 * cosine_similarity(asked[t], centroids))


def test_baseline_plus_plus_takes_the_steps_of_its_formula() -> None:
    # d cos(z, w) / dw = (z - cos(z, w) w / |w|) / |w| for unit z
    given, net, scale, lr = weighted(tasks()), mlp(), 6.0, 0.3
    learner = BaselinePlusPlus(net, CLASSES, 7, inner_steps=3, inner_lr=lr, scale=scale).double()
    path = list(learner.path(given.support, 3))
    f, _ = features(net, given)
    for t in range(len(f)):
        z, y, share = unit(f[t]), np.eye(WAY)[given.support.y[t]], given.support.weight[t].numpy()
        w = unit(np.stack([np.average(z, 0, share * y[:, k]) for k in range(WAY)]))
        close(path[0]["weight"][t], w)
        for step in (1, 2, 3):
            cos, size = cosine_similarity(z, w), np.linalg.norm(w, axis=1, keepdims=True)
            p = np.exp(scale * cos) / np.exp(scale * cos).sum(1, keepdims=True)
            r = (p - y) * (share / share.sum())[:, None]
            w = w - lr * scale * (r.T @ z - (r * cos).sum(0)[:, None] * w / size) / size
            close(path[step]["weight"][t], w)
    close(learner.adapt(given.support)["weight"], path[3]["weight"])


def test_baseline_plus_plus_goes_on_from_its_prior() -> None:
    given, net = tasks(), mlp()
    two, five = (BaselinePlusPlus(net, CLASSES, 7, n, 0.3).double() for n in (2, 5))
    three = BaselinePlusPlus(net, CLASSES, 7, 3, 0.3).double()
    close(three.adapt(given.support, prior=two.adapt(given.support))["weight"], five.adapt(given.support)["weight"])
    # a class that the prior has not seen starts at its mean
    few = given.support._replace(weight=given.support.weight * (given.support.y != 2))
    before = two.adapt(few)
    assert before["seen"].tolist() == [[1, 1, 0]] * 3
    start = next(iter(three.path(given.support, 0, prior=before)))
    close(start["weight"][:, :2], before["weight"][:, :2])
    close(start["weight"][:, 2], next(iter(three.path(given.support, 0)))["weight"][:, 2])


def test_baseline_plus_plus_is_trained_by_cosines() -> None:
    pooled, net = pooled_rows(tasks()), mlp()
    learner = BaselinePlusPlus(net, CLASSES, 7, scale=6.0).double()
    with torch.no_grad():
        logits = 6.0 * cosine_similarity(net(pooled.query.x)[0].numpy(), learner.head.weight.numpy())
    wanted = torch.nn.functional.cross_entropy(torch.from_numpy(logits), pooled.query.y[0])
    close(learner.meta_loss(pooled)[0].detach(), wanted)


def test_bad_arguments_are_told() -> None:
    with pytest.raises(UserError, match="transform is 'l2': it is one of none, l2n, cl2n"):
        SimpleShot(mlp(), CLASSES, transform="l2")
    with pytest.raises(UserError, match="classes is -1"):
        SimpleShot(mlp(), CLASSES, classes=-1)
    with pytest.raises(UserError, match="inner_steps is -1"):
        BaselinePlusPlus(mlp(), CLASSES, inner_steps=-1)
    with pytest.raises(UserError, match="temperature is 0: give a positive one"):
        MetaBaseline(mlp(), CLASSES, temperature=0)
