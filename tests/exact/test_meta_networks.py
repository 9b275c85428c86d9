"""Meta networks: slow alone without fast weights, and the paper's algorithm in loops with torch's gradients."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from quickstudy.core import Classification
from quickstudy.core.errors import UserError
from quickstudy.core.task import Task, map_tensors
from quickstudy.inner.generated import log_and_sign
from quickstudy.learners import MetaNetworks
from quickstudy.nets import MLP
from quickstudy.testing import synthetic_tasks

CLASSES = Classification(3)


def learner(first_order: bool = True) -> MetaNetworks:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = MetaNetworks(MLP((5,), width=6), CLASSES, width=4, units=3, first_order=first_order).double().eval()
        for weight in (made.first_weights.layers[4].weight, made.second_weights.layers[4].weight):
            torch.nn.init.normal_(weight, std=2.0)  # fast weights that matter
        return made


def classes() -> Task:
    return synthetic_tasks(CLASSES, (5,), shot=2)


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def predictions(made: MetaNetworks, tasks: Task) -> Tensor:
    with torch.no_grad():
        return made.predict(made.adapt(tasks.support), tasks.query.x)


def test_without_fast_weights_it_is_the_slow_network() -> None:
    made, tasks = learner(), classes()
    moved = predictions(made, tasks)
    with torch.no_grad():
        for generator in (made.first_weights, made.second_weights):
            generator.layers[4].weight.zero_()
            generator.layers[4].bias.zero_()
        slow = made.second(made.first(made.net(tasks.query.x)).relu())
    close(predictions(made, tasks), slow)
    assert (moved - slow).abs().max() > 1e-3


def test_it_is_the_papers_algorithm() -> None:
    # algorithm 1, an example and a query at a time, the gradients by autograd
    made, tasks = learner(), classes()
    found = predictions(made, tasks)

    def gradients(weights: tuple[Tensor, Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        first, second = (w.detach().requires_grad_() for w in weights)
        loss = F.cross_entropy((second @ (first @ x).relu()).unsqueeze(0), y.view(1))
        return torch.autograd.grad(loss, (first, second))

    features, asked = made.net(tasks.support.x).detach(), made.net(tasks.query.x).detach()
    embed = (made.embedding.weight, made.classifier.weight)
    base = (made.first.weight, made.second.weight)
    lstm = made.embedding_weights.cell
    for t in range(len(features)):
        rows = list(zip(features[t], tasks.support.y[t], strict=True))
        hidden = cell = torch.zeros(4 * 6, 3).double()
        for x, y in rows:
            hidden, cell = lstm(log_and_sign(gradients(embed, x, y)[0].flatten()), (hidden, cell))
        whole = made.embedding.weight + made.embedding_weights.out(hidden).view(4, 6)
        keys, firsts, seconds = [], [], []
        for x, y in rows:
            first, second = gradients(base, x, y)
            firsts.append(made.first_weights.layers(log_and_sign(first)).squeeze(-1))
            seconds.append(made.second_weights.layers(log_and_sign(second)).squeeze(-1))
            keys.append(whole @ x)
        for i, x in enumerate(asked[t]):
            share = torch.stack([F.cosine_similarity(whole @ x, key, dim=0) for key in keys]).softmax(0)
            first, second = (sum(a * w for a, w in zip(share, ws, strict=True)) for ws in (firsts, seconds))
            h = (made.first.weight @ x).relu() + (first @ x).relu()
            close(found[t, i], (made.second.weight @ h + second @ h).detach())


def test_gradients_are_written_by_size_and_sign() -> None:
    g = torch.tensor([math.e**2, -math.exp(-3), math.exp(-7), -0.5 * math.exp(-7), 0.0], dtype=torch.float64)
    wanted = torch.tensor([[2 / 7, 1], [-3 / 7, -1], [-1, 1], [-1, -0.5], [-1, 0]], dtype=torch.float64)
    close(log_and_sign(g), wanted)


def test_gradients_as_constants_change_the_meta_gradient_alone() -> None:
    tasks = classes()
    constant, exact = learner(True), learner(False)
    close(predictions(constant, tasks), predictions(exact, tasks))
    assert not constant.exact_gradient and exact.exact_gradient
    weights = [(made(tasks), made.classifier.weight) for made in (constant, exact)]
    a, b = (torch.autograd.grad(loss, weight, allow_unused=True)[0] for loss, weight in weights)
    assert a is None and b.abs().max() > 0  # the embedding's classifier is seen through its gradients only


def test_rows_of_no_weight_are_as_if_not_there() -> None:
    made, tasks = learner(), classes()
    weight = tasks.support.weight.clone()
    weight[:, [0, 3]] = 0.0
    kept = tasks._replace(support=map_tensors(tasks.support, lambda t: t[:, [1, 2, 4, 5]]))
    close(predictions(made, tasks._replace(support=tasks.support._replace(weight=weight))), predictions(made, kept))


def test_bad_arguments_are_refused() -> None:
    for options in ({"width": 0}, {"units": 0}):
        with pytest.raises(UserError):
            MetaNetworks(MLP((5,), width=6), CLASSES, **options)
