"""ABML and PLATIPUS, Gaussians over weights: without variance they are MAML, with it their formulas hold."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from quickstudy.core import Classification, Objective, Regression
from quickstudy.core.errors import UserError
from quickstudy.core.learner import MetaLearner
from quickstudy.core.task import State, Task, join_rows
from quickstudy.inner.weight_gaussian import divergence, drawn, fixed_noise, fresh_noise
from quickstudy.learners import ABML, MAML, PLATIPUS
from quickstudy.nets import MLP
from quickstudy.testing import synthetic_tasks

CLASSES, SIZE = Classification(3), (5,)
OBJECTIVES = pytest.mark.parametrize("objective", [CLASSES, Regression()], ids=["classes", "waves"])
NEARLY_NONE = {"deviation": 1e-13, "kl_weight": 0.0}


def mlp(objective: Objective, depth: int = 2) -> MLP:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MLP(SIZE, out=objective.size, width=8, depth=depth).double()


def maml(objective: Objective, steps: int) -> MAML:
    return MAML(mlp(objective), objective, inner_steps=steps, inner_lr=0.1)


def predictions(learner: MetaLearner, tasks: Task) -> Tensor:
    with torch.no_grad():
        found = learner.predict(learner.adapt(tasks.support), tasks.query.x, tasks.query.weight)
    return found.log_softmax(-1) if learner.objective.kind == "classification" else found


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def set_to(values: torch.nn.ParameterList, value: float) -> None:
    with torch.no_grad():
        for v in values:
            v.fill_(value)


def same_gradient(ours: Tensor, theirs: Tensor, learner: MetaLearner, other: MetaLearner) -> None:
    close(ours, theirs)
    slopes = [
        torch.autograd.grad(loss.sum(), list(one.net.parameters()))  # type: ignore[union-attr]
        for loss, one in ((ours, learner), (theirs, other))
    ]
    for a, b in zip(*slopes, strict=True):
        close(a, b)


def gaussian(shape: tuple[int, ...], seed: int) -> tuple[State, State]:
    rng = torch.Generator().manual_seed(seed)
    mean, spread = (
        {k: torch.randn(3, *s, generator=rng, dtype=torch.float64) for k, s in (("w", shape), ("b", ()))} for _ in "ab"
    )
    return mean, spread


# --- Gaussians over weights ---


def test_the_divergence_is_that_of_torch() -> None:
    q, p = gaussian((2, 4), 0), gaussian((2, 4), 1)
    wanted = torch.zeros(3, dtype=torch.float64)
    for k in ("w", "b"):
        each = kl_divergence(*(Normal(mean[k], spread[k].exp()) for mean, spread in (q, p)))
        wanted += each.reshape(3, -1).sum(1)
    close(divergence(*q, *p), wanted)


def test_draws_have_their_mean_and_deviation() -> None:
    mean, spread = gaussian((2, 3), 0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        draws = drawn(mean, spread, fresh_noise(mean, 20_000))
    for k, w in draws.items():
        torch.testing.assert_close(w.mean(1), mean[k], rtol=0.0, atol=float(0.05 * spread[k].exp().max()))
        torch.testing.assert_close(w.std(1).log(), spread[k], rtol=0.0, atol=0.03)


def test_fixed_draws_depend_on_no_order_and_no_precision() -> None:
    mean, _ = gaussian((2, 3), 0)
    one = fixed_noise(mean, 6, "word")
    turned = fixed_noise({k: mean[k].float() for k in ("b", "w")}, 6, "word")
    for k in mean:
        close(one[k], turned[k].double())
        close(one[k].mean(1), torch.zeros_like(one[k][:, 0]))
    assert not torch.equal(one["w"], fixed_noise(mean, 6, "other")["w"])


# --- ABML ---


def abml(objective: Objective, depth: int = 2, **options) -> ABML:
    return ABML(mlp(objective, depth), objective, inner_lr=0.1, **options).double()


@OBJECTIVES
def test_abml_without_variance_takes_the_steps_of_maml(objective: Objective) -> None:
    tasks = synthetic_tasks(objective, SIZE, ragged=True)
    ours, theirs = abml(objective, inner_steps=3, **NEARLY_NONE), maml(objective, 3)
    close(predictions(ours, tasks), predictions(theirs, tasks))
    spread = abml(objective, inner_steps=3, deviation=0.3, kl_weight=0.0)
    assert (predictions(spread, tasks) - predictions(theirs, tasks)).abs().max() > 1e-3
    # its outer loss is over support and query together
    both = tasks._replace(query=join_rows(*tasks))
    same_gradient(ours.train().meta_loss(tasks), theirs.train().meta_loss(both), ours, theirs)


def test_two_steps_of_abml_on_a_linear_model_worked_out_by_hand() -> None:
    tasks = synthetic_tasks(Regression(), SIZE, ragged=True)
    learner = abml(Regression(), depth=0, inner_steps=2, deviation=0.2, kl_weight=0.03, draws=4).eval()
    w, b = "layers.0.weight", "layers.0.bias"
    with torch.no_grad():
        state = learner.adapt(tasks.support)
        theta = {k: v.detach() for k, v in learner.shared_start(tasks.support).items()}
        noise = fixed_noise(theta, 4, "adapt")
    z = np.concatenate([noise[w][0, :, 0].numpy(), noise[b][0].numpy()], 1)
    m0 = np.concatenate([theta[w][0, 0].numpy(), theta[b][0].numpy()])
    rho0 = np.full(6, np.log(0.2))
    for t in range(3):
        kept = tasks.support.weight[t].numpy() > 0
        x = np.concatenate([tasks.support.x[t].numpy(), np.ones((len(kept), 1))], 1)[kept]
        y = tasks.support.y[t, :, 0].numpy()[kept]
        m, rho = m0, rho0
        for _ in range(2):
            slopes = np.stack([2 * x.T @ (x @ (m + np.exp(rho) * e) - y) / len(x) for e in z])
            toward_m = slopes.mean(0) + 0.03 * (m - m0) / np.exp(2 * rho0)
            toward_rho = (slopes * z * np.exp(rho)).mean(0) + 0.03 * (np.exp(2 * (rho - rho0)) - 1)
            m, rho = m - 0.1 * toward_m, rho - 0.1 * toward_rho
        for part, value in (("mean", m), ("log_deviation", rho)):
            found = np.concatenate([state[f"{part}.{w}"][t, 0].numpy(), state[f"{part}.{b}"][t].numpy()])
            np.testing.assert_allclose(found, value, rtol=1e-9)


def test_the_prior_of_abml_is_the_earlier_posterior() -> None:
    tasks = synthetic_tasks(Regression(), SIZE)
    learner = abml(Regression(), inner_steps=2, deviation=0.2, kl_weight=0.0).eval()
    with torch.no_grad():
        before = learner.adapt(tasks.support)
        free = learner.adapt(tasks.query, prior=before)
        learner.kl_weight = 0.05
        held = learner.adapt(tasks.query, prior=before)

    def far(state: State) -> float:
        return float(divergence(*(part(s, p) for s in (state, before) for p in ("mean", "log_deviation"))).sum())

    assert 0 < far(held) < 0.9 * far(free)
    with torch.no_grad():  # from the earlier posterior itself there is no pull in the first step
        learner.inner_steps = 1
        one = learner.adapt(tasks.query, prior=before)
        learner.kl_weight = 0.0
        for k, w in learner.adapt(tasks.query, prior=before).items():
            close(one[k], w)


def part(state: State, name: str) -> State:
    return {k.removeprefix(f"{name}."): v for k, v in state.items() if k.startswith(f"{name}.")}


# --- PLATIPUS ---


def platipus(objective: Objective, depth: int = 2, **options) -> PLATIPUS:
    return PLATIPUS(mlp(objective, depth), objective, inner_lr=0.1, **options).double()


@OBJECTIVES
def test_platipus_without_variance_is_maml(objective: Objective) -> None:
    tasks = synthetic_tasks(objective, SIZE, ragged=True)
    learner = platipus(objective, inner_steps=2, **NEARLY_NONE)
    set_to(learner.p_rate, 0.1)
    close(predictions(learner, tasks), predictions(maml(objective, 3), tasks))  # its mean is one step further
    set_to(learner.p_rate, 0.0)
    set_to(learner.q_rate, 0.0)
    theirs = maml(objective, 2)
    close(predictions(learner, tasks), predictions(theirs, tasks))
    same_gradient(learner.train().meta_loss(tasks), theirs.train().meta_loss(tasks), learner, theirs)
    spread = platipus(objective, inner_steps=2, deviation=0.3, kl_weight=0.0)
    assert (predictions(spread, tasks) - predictions(theirs, tasks)).abs().max() > 1e-3


def test_the_bound_of_platipus_worked_out_by_hand() -> None:
    # with no inner step and hardly any variance in q, the data term is the loss at the mean of q
    tasks = synthetic_tasks(Regression(), SIZE, ragged=True)
    learner = platipus(Regression(), depth=0, inner_steps=0, kl_weight=0.02).train()
    set_to(learner.p_rate, 0.05)
    set_to(learner.q_rate, 0.2)
    set_to(learner.p_log_deviation, -1.0)
    set_to(learner.q_log_deviation, -30.0)
    found = learner.meta_loss(tasks).detach().numpy()
    theta = np.concatenate([p.detach().numpy().ravel() for p in learner.net.parameters()])

    def rows(part, t):
        kept = part.weight[t].numpy() > 0
        x = np.concatenate([part.x[t].numpy(), np.ones((len(kept), 1))], 1)[kept]
        return x, part.y[t, :, 0].numpy()[kept]

    def moved(part, t, rate):
        x, y = rows(part, t)
        return theta - rate * 2 * x.T @ (x @ theta - y) / len(x)

    for t in range(3):
        p, q = moved(tasks.support, t, 0.05), moved(join_rows(*tasks), t, 0.2)
        x, y = rows(tasks.query, t)
        variance = np.exp(2 * -30.0 - 2 * -1.0)
        apart = (29.0 + (variance + (q - p) ** 2 / np.exp(-2.0)) / 2 - 0.5).sum()
        np.testing.assert_allclose(found[t], ((x @ q - y) ** 2).mean() + 0.02 * apart, rtol=1e-9)


def test_every_draw_of_platipus_is_a_maml_from_its_own_start() -> None:
    tasks = synthetic_tasks(CLASSES, SIZE, ragged=True)
    learner = platipus(CLASSES, inner_steps=2, deviation=0.2, eval_draws=3).eval()
    with torch.no_grad():
        starts = learner.start(tasks.support)
        state = learner.adapt(tasks.support)
        chances = []
        for draw in range(3):
            alone = maml(CLASSES, 2)
            start = {k: w[:, draw] for k, w in starts.items()}
            one = alone.adapt(tasks.support, prior={**start, "seen": state["seen"]})
            for k, w in one.items():
                close(state[k] if k == "seen" else state[k][:, draw], w)
            chances.append(alone.predict(one, tasks.query.x).softmax(-1))
        close(predictions(learner, tasks).exp(), torch.stack(chances).mean(0))
    assert not torch.allclose(chances[0], chances[1])


# --- both ---


@pytest.mark.parametrize("cls", [ABML, PLATIPUS])
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"deviation": 0.0}, "deviation is 0.0"),
        ({"kl_weight": -1.0}, "kl_weight -1.0"),
        ({"draws": 0}, "draws is 0"),
        ({"eval_draws": 0}, "eval_draws 0"),
    ],
)
def test_bad_arguments_are_refused(cls: type, options: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        cls(mlp(CLASSES), CLASSES, **options)
