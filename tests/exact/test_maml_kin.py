"""Methods that are MAML in a limit, and what they are beyond it; by hand where there is a formula."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from quickstudy.core import Classification, Objective, Regression
from quickstudy.core.errors import UserError
from quickstudy.core.learner import MetaLearner
from quickstudy.core.task import Task
from quickstudy.inner.descent import descend
from quickstudy.learners import BOIL, CAVIA, MAML, MetaSGD
from quickstudy.nets import MLP, Conv4, Projection, RowNet
from quickstudy.testing import synthetic_tasks

WAY, SIZE = 3, (5,)
OBJECTIVES = [Classification(WAY), Regression(2)]
IDS = ["classes", "waves"]


def mlp(out: int | None = None, size: tuple[int, ...] = SIZE) -> MLP:
    torch.manual_seed(0)
    return MLP(size, out=out, width=8).double()


def conv4(out: int | None = None, pool: str = "max") -> Conv4:
    torch.manual_seed(0)
    return Conv4((1, 16, 16), out=out, channels=4, pool=pool).double()  # type: ignore[arg-type]


def rows(objective: Objective) -> Task:
    return synthetic_tasks(objective, SIZE, ragged=True)


def images() -> Task:
    return synthetic_tasks(Classification(2), (1, 16, 16), tasks=2, shot=2, ragged=True)


def predictions(learner: MetaLearner, tasks: Task) -> Tensor:
    with torch.no_grad():
        return learner.predict(learner.adapt(tasks.support), tasks.query.x, tasks.query.weight)


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def same(found: MetaLearner, maml: MetaLearner, tasks: Task) -> None:
    """The same predictions, the same loss in training, and the same gradient of the network."""
    close(predictions(found, tasks), predictions(maml, tasks))
    grads = []
    for learner in (found.train(), maml.train()):
        net: torch.nn.Module = learner.net  # type: ignore[assignment]
        loss = learner(tasks)
        grads.append([loss, *torch.autograd.grad(loss, list(net.parameters()))])
    for a, b in zip(*grads, strict=True):
        close(a, b)


# --- Meta-SGD ---


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("objective", OBJECTIVES, ids=IDS)
def test_meta_sgd_with_equal_rates_is_maml(objective: Objective, first_order: bool) -> None:
    options = {"inner_steps": 3, "inner_lr": 0.2, "first_order": first_order}
    found = MetaSGD(mlp(objective.size), objective, **options).double()
    same(found, MAML(mlp(objective.size), objective, **options), rows(objective))


def test_meta_sgd_with_equal_rates_is_maml_on_images() -> None:
    objective = Classification(2)
    found = MetaSGD(conv4(2), objective, inner_lr=0.1).double()
    same(found, MAML(conv4(2), objective, inner_steps=1, inner_lr=0.1), images())


def test_meta_sgd_moves_every_entry_at_its_rate() -> None:
    objective = OBJECTIVES[0]
    tasks, learner = rows(objective), MetaSGD(mlp(WAY), objective).double()
    slow = MAML(mlp(WAY), objective, inner_steps=1, inner_lr=1.0)
    with torch.no_grad():
        for rate in learner.rates:
            rate.normal_()
        found, slope = learner.adapt(tasks.support), slow.adapt(tasks.support)
    for (name, start), rate in zip(learner.net.named_parameters(), learner.rates, strict=True):
        close(found[name], start + rate * (slope[name] - start))


def test_the_gradient_of_a_rate_is_the_product_of_two_slopes() -> None:
    # d L_query(theta - alpha g) / d alpha = -g * grad L_query(phi)
    objective = OBJECTIVES[1]
    tasks, learner = rows(objective), MetaSGD(mlp(2), objective, inner_lr=0.1).double()
    found = torch.autograd.grad(learner(tasks), list(learner.rates))
    state = learner.adapt(tasks.support)
    phi = {k: w.detach().requires_grad_() for k, w in state.items()}
    loss = objective.loss(learner.predict(phi, tasks.query.x), tasks.query).mean()
    down = torch.autograd.grad(loss, list(phi.values()))
    for rate, (name, start), d in zip(found, learner.net.named_parameters(), down, strict=True):
        slope = (start - state[name]).detach() / 0.1
        close(rate, -(slope * d).sum(0))


# --- BOIL ---


@pytest.mark.parametrize("objective", OBJECTIVES, ids=IDS)
def test_boil_is_maml_with_a_rate_of_0_for_the_head(objective: Objective) -> None:
    tasks, whole = rows(objective), mlp(objective.size)
    boil = BOIL(mlp(), objective, inner_steps=3, inner_lr=0.3).double()
    head = len(whole.layers) - 1
    with torch.no_grad():
        for i in range(head):
            for name in ("weight", "bias"):
                getattr(boil.net.layers[i], name).copy_(getattr(whole.layers[i], name))  # type: ignore[index]
        boil.head.load_state_dict(whole.layers[head].state_dict())
    # one network, head and all, by the same descent: the rate of each weight is given by name
    maml = MAML(whole, objective)
    start, extra = maml.begin(tasks.support, None)
    rate = {name: 0.0 if name.startswith(f"layers.{head}.") else 0.3 for name in start}
    ends = descend(maml.inner_loss(extra), start, tasks.support, 3, rate)
    for name in ("weight", "bias"):
        assert torch.equal(ends[f"layers.{head}.{name}"], start[f"layers.{head}.{name}"])
    prediction = maml.predict({**ends, **extra}, tasks.query.x, tasks.query.weight)
    close(predictions(boil, tasks), prediction.detach())
    wanted = torch.autograd.grad(objective.loss(prediction, tasks.query).mean(), list(whole.parameters()))
    found = torch.autograd.grad(boil(tasks), [*boil.net.parameters(), *boil.head.parameters()])
    for a, b in zip(found, wanted, strict=True):
        close(a, b)


def test_boil_keeps_its_head_apart_from_that_of_the_network() -> None:
    objective = Classification(2)
    boil = BOIL(conv4(3), objective, inner_lr=0.1).double()
    state = boil.adapt(images().support)
    assert set(state) == {"seen", *(n for n, _ in boil.net.named_parameters())}
    assert not torch.equal(state["head.weight"][0], boil.net.head.weight)  # type: ignore[union-attr]


# --- CAVIA ---


@pytest.mark.parametrize("objective", OBJECTIVES, ids=IDS)
def test_cavia_without_context_is_the_network(objective: Objective) -> None:
    tasks = rows(objective)
    cavia = CAVIA(mlp(objective.size), objective, context=0).double()
    state = cavia.adapt(tasks.support)
    assert state["context"].shape == (3, 0)
    plain = MAML(mlp(objective.size), objective, inner_steps=0)
    close(predictions(cavia, tasks), predictions(plain, tasks))
    moved = predictions(CAVIA(mlp(objective.size), objective, context=2).double(), tasks)
    assert (moved - predictions(plain, tasks)).abs().max() > 1e-3


def test_cavia_without_context_is_the_network_on_images() -> None:
    tasks = images()
    for learner in (CAVIA(conv4(2), Classification(2), 0), CAVIA(conv4(2), Classification(2), 3, inner_steps=0)):
        plain = MAML(conv4(2), Classification(2), inner_steps=0)
        close(predictions(learner.double(), tasks), predictions(plain, tasks))


def test_cavia_joins_its_context_to_the_inputs() -> None:
    """By hand: a network with inputs [x, phi], and one gradient step on phi alone."""
    objective = OBJECTIVES[1]
    tasks = synthetic_tasks(objective, SIZE)
    cavia = CAVIA(mlp(2), objective, context=4, inner_steps=2, inner_lr=0.7).double()
    joined = mlp(2, (SIZE[0] + 4,))
    with torch.no_grad():
        joined.load_state_dict(
            {**cavia.net.state_dict(), "layers.0.weight": torch.cat([cavia.net.layers[0].weight, cavia.entry], 1)}  # type: ignore
        )
    found, state = predictions(cavia, tasks), cavia.adapt(tasks.support)
    for t in range(3):
        phi = torch.zeros(4, dtype=torch.float64, requires_grad=True)

        def answer(x: Tensor, phi: Tensor) -> Tensor:
            return joined(torch.cat([x, phi.expand(len(x), -1)], -1).unsqueeze(0))[0]

        for _ in range(2):
            value = (answer(tasks.support.x[t], phi) - tasks.support.y[t]).square().mean()  # type: ignore[index]
            phi = (phi - 0.7 * torch.autograd.grad(value, phi)[0]).detach().requires_grad_()
        close(state["context"][t], phi)
        close(found[t], answer(tasks.query.x[t], phi).detach())  # type: ignore[index]


def test_cavia_scales_and_shifts_what_the_last_layer_of_a_projection_reads() -> None:
    """By hand, one gradient step on phi alone."""
    objective = OBJECTIVES[1]
    tasks = synthetic_tasks(objective, SIZE)
    torch.manual_seed(0)
    net = Projection(SIZE, 2, width=6)
    torch.nn.init.normal_(net.up.weight)
    cavia = CAVIA(net, objective, context=4, inner_steps=1, inner_lr=0.7).double()
    found, state = predictions(cavia, tasks), cavia.adapt(tasks.support)

    def answer(x: Tensor, phi: Tensor) -> Tensor:
        h, (gain, shift) = x.flatten(1), (cavia.entry @ phi).chunk(2)
        assert net.last is not None
        return net.last((1 + gain) * (h + net.up(torch.relu(net.down(h)))) + shift)

    for t in range(3):
        phi = torch.zeros(4, dtype=torch.float64, requires_grad=True)
        value = (answer(tasks.support.x[t], phi) - tasks.support.y[t]).square().mean()  # type: ignore[index]
        phi = -0.7 * torch.autograd.grad(value, phi)[0]
        close(state["context"][t], phi)
        assert phi.abs().max() > 1e-3
        close(found[t], answer(tasks.query.x[t], phi).detach())  # type: ignore[index]


def test_cavia_scales_and_shifts_the_third_block() -> None:
    """By hand: (1 + G phi) z + B phi on what the norm of the third block gives."""
    tasks = images()
    cavia = CAVIA(conv4(2), Classification(2), context=3, inner_lr=0.3).double()
    with torch.no_grad():
        cavia.net.norms[2].bias.add_(0.3)  # type: ignore[union-attr]
        cavia.net.norms[2].weight.add_(0.2)  # type: ignore[union-attr]
        found = cavia.predict(state := cavia.adapt(tasks.support), tasks.query.x, tasks.query.weight)
        for t in range(2):
            gain, shift = (cavia.entry @ state["context"][t]).chunk(2)
            net = conv4(2)
            net.load_state_dict(cavia.net.state_dict())
            norm = net.norms[2]
            plain = norm.normalised  # type: ignore[union-attr]

            def film(x: Tensor, weight: Tensor, bias: Tensor, plain=plain, gain=gain, shift=shift) -> Tensor:
                return (1 + gain).view(-1, 1, 1) * plain(x, weight, bias) + shift.view(-1, 1, 1)  # type: ignore

            norm.normalised = film  # type: ignore[union-attr]
            norm.pooled = lambda x, kernel, weight, bias, *_, film=film: torch.nn.functional.max_pool2d(  # type: ignore
                film(torch.nn.functional.conv2d(x, kernel, padding=1), weight, bias).relu(), 2
            )
            close(found[t], net(tasks.query.x[t : t + 1])[0])  # type: ignore[index]
    assert state["context"].abs().max() > 1e-3


def test_cavia_says_what_it_cannot_take() -> None:
    net = RowNet(torch.nn.Linear(3, 2), 2)
    with pytest.raises(UserError, match=r"RowNet.*mlp, a projection or a conv4"):
        CAVIA(net, Regression(2))
    with pytest.raises(UserError, match="context is -1"):
        CAVIA(mlp(2), Regression(2), context=-1)
