"""TPN, BD-CSPN, TIM and LaplacianShot: by hand with numpy, scikit-learn's label spreading, and the nearest centroid."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn.metrics.pairwise import cosine_similarity, euclidean_distances
from sklearn.neighbors import NearestCentroid
from sklearn.semi_supervised import LabelSpreading
from torch import Tensor

from quickstudy.core import Classification
from quickstudy.core.errors import UserError
from quickstudy.core.learner import MetaLearner
from quickstudy.core.task import Task, join_rows, map_tensors, select
from quickstudy.inner.propagation import propagated
from quickstudy.learners import BDCSPN, TIM, TPN, LaplacianShot, SimpleShot
from quickstudy.nets import MLP
from quickstudy.testing import synthetic_tasks

WAY, SIZE, CLASSES = 3, (5,), Classification(3)


def mlp() -> MLP:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MLP(SIZE, out=8, width=8).double()


def tasks() -> Task:
    return synthetic_tasks(CLASSES, SIZE, shot=2, query=6)


def weighted(given: Task) -> Task:
    """The same rows, where those of the support count by different weights."""
    weight = 0.2 + torch.rand(given.support.weight.shape, generator=torch.Generator().manual_seed(1)).double()
    return given._replace(support=given.support._replace(weight=weight))


def predictions(learner: MetaLearner, given: Task) -> Tensor:
    learner = learner.double().eval()
    with torch.no_grad():
        return learner.predict(learner.adapt(given.support), given.query.x, given.query.weight)


def parts(net: MLP, given: Task, t: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of one task, as arrays: unit-length features of support and query, one-hot labels and weights of the support."""
    with torch.no_grad():
        f, asked = (net(part.x)[t].numpy() for part in given)
    return unit(f), unit(asked), np.eye(WAY)[given.support.y[t]], given.support.weight[t].numpy()


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def close(a: Tensor, b: np.ndarray | Tensor) -> None:
    torch.testing.assert_close(a, torch.as_tensor(b), rtol=1e-9, atol=1e-9)


# --- what all of them keep ---

ALL: dict[str, Callable[[], MetaLearner]] = {
    "label_propagation": lambda: TPN(mlp(), CLASSES, neighbours=4),
    "bd_cspn": lambda: BDCSPN(mlp(), CLASSES, pseudo=2),
    "bd_cspn-no-shift": lambda: BDCSPN(mlp(), CLASSES, pseudo=2, shift=False),
    "tim": lambda: TIM(mlp(), CLASSES, steps=20),
    "laplacian_shot": lambda: LaplacianShot(mlp(), CLASSES),
    "laplacian_shot-plain": lambda: LaplacianShot(mlp(), CLASSES, rectify=False),
}


@pytest.mark.parametrize("name", ALL)
def test_queries_of_weight_0_say_nothing_to_the_others(name: str) -> None:
    given, learner = tasks(), ALL[name]()
    rows = map_tensors(given.query, lambda f: f[:, 5:9])
    noise = torch.randn(rows.x.shape, generator=torch.Generator().manual_seed(2)).double()
    rows = rows._replace(x=rows.x + 0.3 * noise, weight=torch.zeros_like(rows.weight))
    padded = given._replace(query=join_rows(join_rows(rows, given.query), rows))
    close(predictions(learner, padded)[:, 4:-4], predictions(learner, given))
    # and the same rows with weight do say something
    loud = given._replace(query=padded.query._replace(weight=torch.ones_like(padded.query.weight)))
    assert (predictions(learner, loud)[:, 4:-4] - predictions(learner, given)).abs().max() > 1e-3


@pytest.mark.parametrize("name", ALL)
def test_the_order_of_queries_moves_their_predictions_along_and_the_state_is_the_supports(name: str) -> None:
    given, learner = tasks(), ALL[name]()
    order = torch.randperm(18, generator=torch.Generator().manual_seed(3))
    other = given._replace(query=map_tensors(given.query, lambda f: f[:, order]))
    close(predictions(learner, other), predictions(learner, given)[:, order])
    assert {k: v.shape[:2] for k, v in learner.adapt(given.support).items()} == {"rows": (3, 6), "one_hot": (3, 6)}


# --- label propagation ---


def graph_by_hand(learner: TPN, net: MLP, given: Task, t: int, k: int) -> np.ndarray:
    """The graph of support and query, entry by entry."""
    with torch.no_grad():
        f = net(join_rows(*given).x)
        scale = (torch.nn.functional.softplus(learner.length(f)) + 1e-3)[t].numpy()
    rows = f[t].numpy() / scale
    n = len(rows)
    gaps = np.array([[np.mean((rows[i] - rows[j]) ** 2) for j in range(n)] for i in range(n)])
    near = [set(sorted(range(n), key=lambda j, i=i: gaps[i, j])[:k]) for i in range(n)]
    return np.array([[np.exp(-gaps[i, j] / 2) * (j in near[i] or i in near[j]) for j in range(n)] for i in range(n)])


@pytest.mark.parametrize(("alpha", "k"), [(0.5, 4), (0.9, 20)])
def test_label_propagation_is_scikit_learns_label_spreading(alpha: float, k: int) -> None:
    # on the same graph but for its diagonal, which scikit-learn leaves out
    given, net = tasks(), mlp()
    learner = TPN(net, CLASSES, alpha, k).double()
    for t in range(3):
        graph = graph_by_hand(learner, net, given, t, k)
        np.fill_diagonal(graph, 0)
        model = LabelSpreading(kernel=lambda a, b, g=graph: g, alpha=alpha, max_iter=2000, tol=1e-14)
        model.fit(np.zeros((24, 1)), np.concatenate([given.support.y[t], np.full(18, -1)]))
        labels = torch.cat([CLASSES.one_hot(select(given.support, slice(t, t + 1))), torch.zeros(1, 18, 3)], 1)
        found = propagated(torch.from_numpy(graph).unsqueeze(0), labels, alpha)[0]
        close(found / found.sum(-1, keepdim=True), model.label_distributions_)


def test_label_propagation_is_the_inverse_and_is_trained_on_all_rows() -> None:
    given, net = weighted(tasks()), mlp()
    learner = TPN(net, CLASSES, 0.9, 4).double()
    found, losses = predictions(learner, given), learner.train().meta_loss(given)
    for t in range(3):
        graph = graph_by_hand(learner, net, given, t, 4)
        root = np.diag(1 / np.sqrt(graph.sum(1)))
        y, w = np.eye(WAY)[given.support.y[t]], given.support.weight[t].numpy()
        start = np.concatenate([w[:, None] * y, np.zeros((18, 3))])
        spread = np.linalg.inv(np.eye(24) - 0.9 * root @ graph @ root) @ start
        close(found[t], spread[6:])
        labels, share = np.concatenate([given.support.y[t], given.query.y[t]]), np.concatenate([w, np.ones(18)])
        close(losses[t].detach(), np.average(-np.log(softmax(spread, 1))[np.arange(24), labels], weights=share))


# --- BD-CSPN ---


def rectified_by_hand(
    z: np.ndarray, asked: np.ndarray, y: np.ndarray, w: np.ndarray, pseudo: int, sharpness: float, scale: float
) -> np.ndarray:
    p = np.stack([np.average(z, 0, w * y[:, k]) for k in range(WAY)])
    sure = softmax(scale * cosine_similarity(asked, p), 1)
    centres = []
    for k in range(WAY):
        mine = [i for i in range(len(asked)) if sure[i].argmax() == k]
        mine = sorted(mine, key=lambda i, k=k: -sure[i, k])[:pseudo]
        rows = np.concatenate([z[y[:, k] == 1], asked[mine]])
        weight = np.concatenate([w[y[:, k] == 1], np.ones(len(mine))])
        like = weight * np.exp(sharpness * cosine_similarity(rows, p[k : k + 1])[:, 0])
        centres.append((like[:, None] * rows).sum(0) / like.sum())
    return np.stack(centres)


def test_bd_cspn_without_queries_is_the_nearest_centroid_by_cosine() -> None:
    given, net = tasks(), mlp()
    found = predictions(BDCSPN(net, CLASSES, 7, pseudo=0, sharpness=0.0, shift=False, temperature=4.0), given)
    for t in range(3):
        z, asked, _, _ = parts(net, given, t)
        centroids = NearestCentroid().fit(z, given.support.y[t].numpy()).centroids_
        close(found[t], 4.0 * cosine_similarity(asked, centroids))


@pytest.mark.parametrize("shift", [True, False])
@pytest.mark.parametrize("pseudo", [1, 3, 100])
def test_bd_cspn_is_its_formula(shift: bool, pseudo: int) -> None:
    given, net = weighted(tasks()), mlp()
    found = predictions(BDCSPN(net, CLASSES, 7, pseudo, 5.0, shift, temperature=4.0), given)
    for t in range(3):
        z, asked, y, w = parts(net, given, t)
        if shift:
            asked = asked + np.average(z, 0, w) - asked.mean(0)
        centres = rectified_by_hand(z, asked, y, w, pseudo, 5.0, 4.0)
        close(found[t], 4.0 * cosine_similarity(asked, centres))


# --- TIM ---


def test_tim_without_steps_is_the_nearest_centroid() -> None:
    given, net = tasks(), mlp()
    found = predictions(TIM(net, CLASSES, 7, steps=0, temperature=3.0), given)
    for t in range(3):
        z, asked, _, _ = parts(net, given, t)
        model = NearestCentroid().fit(z, given.support.y[t].numpy())
        close(found[t], -1.5 * np.square(euclidean_distances(asked, model.centroids_)))
        assert found[t].argmax(-1).tolist() == model.predict(asked).tolist()


@pytest.mark.parametrize("steps", [1, 4])
def test_tim_is_its_alternating_formulas(steps: int) -> None:
    given, net, alpha, strength = weighted(tasks()), mlp(), 0.3, 0.5
    found = predictions(TIM(net, CLASSES, 7, steps, strength, alpha, temperature=3.0), given)
    for t in range(3):
        z, asked, y, w = parts(net, given, t)
        centres = np.stack([np.average(z, 0, w * y[:, k]) for k in range(WAY)])
        a, b = strength / (1 + alpha), w.sum() / len(asked)
        for _ in range(steps):
            p, p_asked = (softmax(-1.5 * np.square(euclidean_distances(rows, centres)), 1) for rows in (z, asked))
            q = p_asked ** (1 + alpha) / np.sqrt((p_asked ** (1 + alpha)).sum(0))
            q /= q.sum(1, keepdims=True)
            moved = []
            for k in range(WAY):
                top = sum(a * w[i] * (y[i, k] * z[i] + p[i, k] * (centres[k] - z[i])) for i in range(len(z)))
                for i in range(len(asked)):
                    top = top + b * (q[i, k] * asked[i] + p_asked[i, k] * (centres[k] - asked[i]))
                moved.append(top / (a * (w * y[:, k]).sum() + b * q[:, k].sum()))
            centres = np.stack(moved)
        close(found[t], -1.5 * np.square(euclidean_distances(asked, centres)))


def test_tim_without_a_query_term_descends_the_loss_of_the_support() -> None:
    # then a round is w_k - |S| / (temperature n_k) times the slope of the cross-entropy, n_k the weight of class k
    given, net = weighted(tasks()), mlp()
    found = predictions(TIM(net, CLASSES, 7, steps=1, strength=1e14, temperature=3.0), given)
    support, state = given.support, TIM(net, CLASSES, 7).adapt(given.support)
    counts = state["one_hot"].sum(1).unsqueeze(-1)
    w = (state["one_hot"].transpose(1, 2) @ state["rows"] / counts).detach().requires_grad_()
    logits = -1.5 * (state["rows"].detach().unsqueeze(2) - w.unsqueeze(1)).square().sum(-1)
    (slope,) = torch.autograd.grad(CLASSES.loss(logits, support).sum(), w)
    moved = (w - support.weight.sum(1).view(-1, 1, 1) / (3.0 * counts) * slope).detach()
    with torch.no_grad():
        asked = torch.nn.functional.normalize(net(given.query.x), dim=-1)
    close(found, -1.5 * (asked.unsqueeze(2) - moved.unsqueeze(1)).square().sum(-1))
    assert (moved - w).abs().max() > 1e-2


# --- LaplacianShot ---


def test_laplacian_shot_without_its_pairs_is_simple_shot() -> None:
    given, net = weighted(tasks()), mlp()
    ours = LaplacianShot(net, CLASSES, 7, strength=0.0, rectify=False).double()
    theirs = SimpleShot(net, CLASSES, 7).double()
    for learner in (ours, theirs):
        learner.centre.mean.copy_(torch.linspace(-1, 1, 8))
    close(predictions(ours, given), predictions(theirs, given))
    found = [predictions(LaplacianShot(net, CLASSES, 7, s, rectify=False), given) for s in (0.0, 0.7)]
    assert (found[0] - found[1]).abs().max() > 1e-3


@pytest.mark.parametrize(("rectify", "steps"), [(False, 1), (False, 5), (True, 5)])
def test_laplacian_shot_is_its_bound_updates(rectify: bool, steps: int) -> None:
    given, net, k, strength = weighted(tasks()), mlp(), 2, 0.6
    found = predictions(LaplacianShot(net, CLASSES, 7, strength, k, steps, rectify, transform="l2n"), given)
    for t in range(3):
        z, asked, y, w = parts(net, given, t)
        centres = np.stack([np.average(z, 0, w * y[:, c]) for c in range(WAY)])
        if rectify:
            asked = asked + np.average(z, 0, w) - asked.mean(0)
            centres = rectified_by_hand(z, asked, y, w, 100, 10.0, 10.0)
        a, gaps = np.square(euclidean_distances(asked, centres)), euclidean_distances(asked)
        labels = softmax(-a, 1)
        for _ in range(steps):
            pull = np.zeros_like(a)
            for i in range(len(asked)):
                others = sorted((j for j in range(len(asked)) if j != i), key=lambda j, i=i: gaps[i, j])
                pull[i] = sum(labels[j] for j in others[:k])
            logits = -a + strength * pull
            labels = softmax(logits, 1)
        close(found[t], logits)


def test_a_single_query_has_no_neighbours() -> None:
    given = tasks()
    one = given._replace(query=map_tensors(given.query, lambda f: f[:, :1]))
    for strength in (0.0, 5.0):
        found = predictions(LaplacianShot(mlp(), CLASSES, strength=strength, rectify=False), one)
        close(found, predictions(SimpleShot(mlp(), CLASSES), one))
    assert torch.isfinite(predictions(TPN(mlp(), CLASSES), select(one, slice(0, 1)))).all()


def test_bad_arguments_are_told() -> None:
    for make, words in (
        (lambda: TPN(mlp(), CLASSES, alpha=1.0), "alpha is 1.0: what a row takes from its neighbours"),
        (lambda: TPN(mlp(), CLASSES, neighbours=0), "neighbours is 0 and hidden 8: give 1 or more"),
        (lambda: BDCSPN(mlp(), CLASSES, pseudo=-1), "pseudo is -1, sharpness 10.0"),
        (lambda: TIM(mlp(), CLASSES, strength=0.0), "strength 0.0 and temperature 15.0: give"),
        (lambda: LaplacianShot(mlp(), CLASSES, neighbours=0), "neighbours 0 and steps 20: give a strength from 0"),
    ):
        with pytest.raises(UserError, match=words):
            make()
