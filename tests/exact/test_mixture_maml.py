"""A mixture of initialisations: one component is MAML, each of several is, and the shares are those of the formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, Normal

from quickstudy.core import Classification, GaussianRegression, Objective, Regression
from quickstudy.core.errors import UserError
from quickstudy.core.learner import MetaLearner
from quickstudy.core.task import Task, map_tensors
from quickstudy.inner.members import combined
from quickstudy.learners import MAML
from quickstudy.learners.bayesian.mixture_maml import MixtureMAML
from quickstudy.nets import MLP
from quickstudy.testing import synthetic_tasks

CLASSES, SIZE = Classification(3), (5,)
OBJECTIVES = pytest.mark.parametrize("objective", [CLASSES, Regression(), GaussianRegression()], ids=lambda o: o.kind)


def mlp(objective: Objective) -> MLP:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MLP(SIZE, out=objective.size, width=8).double()


def mixture(objective: Objective, components: int, **options) -> MixtureMAML:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return MixtureMAML(mlp(objective), objective, components, inner_steps=2, inner_lr=0.1, **options).double()


def component(learner: MixtureMAML, k: int) -> MAML:
    """MAML that starts from component k."""
    net = mlp(learner.objective)
    starts = learner.start(synthetic_tasks(learner.objective, SIZE).support)
    net.load_state_dict({name: w[0, k].detach() for name, w in starts.items()})
    return MAML(net, learner.objective, inner_steps=2, inner_lr=0.1)


def predictions(learner: MetaLearner, tasks: Task) -> Tensor:
    with torch.no_grad():
        found = learner.predict(learner.adapt(tasks.support), tasks.query.x, tasks.query.weight)
    return found.log_softmax(-1) if learner.objective.kind == "classification" else found


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@OBJECTIVES
def test_one_component_is_maml(objective: Objective) -> None:
    tasks = synthetic_tasks(objective, SIZE, ragged=True)
    ours, theirs = mixture(objective, 1), MAML(mlp(objective), objective, inner_steps=2, inner_lr=0.1)
    close(predictions(ours, tasks), predictions(theirs, tasks))
    for mode in (True, False):
        losses = [learner.train(mode).meta_loss(tasks) for learner in (ours, theirs)]
        close(*losses)
        grads = [
            torch.autograd.grad(loss.sum(), list(learner.net.parameters()))
            for loss, learner in zip(losses, (ours, theirs), strict=True)
        ]
        for a, b in zip(*grads, strict=True):
            close(a, b)


def test_components_begin_apart_with_the_numbers_of_the_network() -> None:
    learner = mixture(CLASSES, 3)
    for p, more in zip(learner.net.parameters(), learner.more, strict=True):
        for other in more:
            assert torch.equal(other.flatten().sort().values, p.flatten().sort().values)
            assert not torch.equal(other, p)


@OBJECTIVES
@pytest.mark.parametrize("judge", ["after", "before"])
def test_every_component_is_a_maml_and_counts_by_its_support_loss(objective: Objective, judge: str) -> None:
    tasks = synthetic_tasks(objective, SIZE, ragged=True)
    learner = mixture(objective, 3, temperature=0.2, judge=judge).eval()
    alone = [component(learner, k) for k in range(3)]
    support, losses, answers = tasks.support, [], []
    with torch.no_grad():
        state = learner.adapt(support)
        for maml in alone:
            path = list(maml.path(support, 2))
            judged = path[2 if judge == "after" else 0]
            losses.append(objective.loss(maml.predict(judged, support.x, support.weight), support))
            answers.append(maml.predict(path[2], tasks.query.x))
    close(learner.answers(state, tasks.query.x, None), torch.stack(answers, 1))
    odds = np.exp(-torch.stack(losses, 1).numpy() / 0.2)
    share = odds / odds.sum(1, keepdims=True)
    close(state["responsibility"], torch.from_numpy(share))
    found, members = predictions(learner, tasks), [a.numpy() for a in answers]
    if isinstance(objective, Classification):
        chances = [np.exp(m - m.max(-1, keepdims=True)) for m in members]
        mean = sum(share[:, k, None, None] * c / c.sum(-1, keepdims=True) for k, c in enumerate(chances))
        np.testing.assert_allclose(found.exp().numpy(), mean, rtol=1e-9, atol=1e-12)
    elif not isinstance(objective, GaussianRegression):
        mean = sum(share[:, k, None, None] * m for k, m in enumerate(members))
        np.testing.assert_allclose(found.numpy(), mean, rtol=1e-9)
    # in training every component learns with its share, and with floor / K of the rest
    queries = [maml.meta_loss(tasks).detach() for maml in alone]
    wanted = sum((0.9 * share[:, k] + 0.1 / 3) * q.numpy() for k, q in enumerate(queries))
    np.testing.assert_allclose(learner.train().meta_loss(tasks).detach().numpy(), wanted, rtol=1e-9)


def test_gaussians_combine_to_the_mean_and_variance_of_their_mixture() -> None:
    objective, rng = GaussianRegression(2), torch.Generator().manual_seed(0)
    answers = torch.randn(3, 4, 5, 4, generator=rng, dtype=torch.float64)
    share = torch.rand(3, 4, generator=rng, dtype=torch.float64).softmax(1)
    mean, deviation = objective.mean_and_deviation(combined(objective, answers, share))
    means, deviations = (t.permute(0, 2, 3, 1) for t in objective.mean_and_deviation(answers))
    weights = Categorical(share[:, None, None].expand_as(means))
    mixed = MixtureSameFamily(weights, Normal(means, deviations))
    close(mean, mixed.mean)
    close(deviation.square(), mixed.variance)


def test_a_component_that_wins_nothing_still_learns() -> None:
    tasks = synthetic_tasks(CLASSES, SIZE)
    for floor in (0.0, 0.1):
        learner = mixture(CLASSES, 2, temperature=0.0, floor=floor)
        with torch.no_grad():
            learner.more[-1].add_(torch.tensor([[50.0, 0.0, -50.0]]))  # a head that is sure and wrong
        assert learner.adapt(tasks.support)["responsibility"].tolist() == [[1, 0]] * 3
        grads = torch.autograd.grad(learner.train()(tasks), list(learner.more))
        assert any(bool(g.ne(0).any()) for g in grads) == (floor > 0)


def test_evidence_adds_up() -> None:
    # without inner steps the components are hypotheses, and r(b, prior=r(a)) is Bayes' rule
    tasks = synthetic_tasks(CLASSES, SIZE)
    learner = mixture(CLASSES, 3, temperature=0.5).eval()
    learner.inner_steps = 0
    a, b = (map_tensors(tasks.support, lambda t, r=r: t[:, r]) for r in (slice(0, None, 2), slice(1, None, 2)))
    with torch.no_grad():
        one, two, both = learner.adapt(a), learner.adapt(b), learner.adapt(b, prior=learner.adapt(a))
    product = one["responsibility"] * two["responsibility"]
    # the classes of `a` are all seen in `b` too
    close(both["responsibility"], product / product.sum(1, keepdim=True))
    assert (both["responsibility"] - two["responsibility"]).abs().max() > 1e-3


def test_bad_arguments_are_refused() -> None:
    for options, said in [
        ({"components": 0}, "0 components"),
        ({"temperature": -1.0}, "temperature -1.0"),
        ({"floor": 2.0}, "floor is 2.0"),
        ({"judge": "never"}, "judge is 'never'"),
    ]:
        with pytest.raises(UserError, match=said):
            MixtureMAML(mlp(CLASSES), CLASSES, **options)
