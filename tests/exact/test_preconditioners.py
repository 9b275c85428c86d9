"""Meta-Curvature and WarpGrad: MAML where nothing bends the gradient, and how it is bent, by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from exact.test_maml_kin import IDS, OBJECTIVES, close, conv4, images, mlp, predictions, rows, same
from quickstudy.core import Classification, Objective, Regression
from quickstudy.core.errors import UserError
from quickstudy.core.learner import MetaLearner
from quickstudy.core.task import Task
from quickstudy.learners import MAML, MetaCurvature, WarpGrad
from quickstudy.learners.gradient.meta_curvature import curved, modes
from quickstudy.nets import Projection, RowNet


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def jitter(module: nn.Module, size: float = 0.1) -> None:
    with torch.no_grad():
        for i, p in enumerate(module.parameters()):
            p.add_(size * noise(*p.shape, seed=i))


def map_x(tasks: Task, change: Callable[[Tensor], Tensor]) -> Task:
    """The tasks with other rows."""
    support, query = (part._replace(x=change(part.x)) for part in tasks)  # type: ignore[arg-type]
    return Task(support, query)


def slopes(learner: MetaLearner, tasks: Task, module: nn.Module) -> list[Tensor]:
    return list(torch.autograd.grad(learner.train()(tasks), list(module.parameters())))


# --- Meta-Curvature ---


@pytest.mark.parametrize("options", [{}, {"first_order": True}, {"memory": "sweep"}, {"memory": "implicit"}], ids=str)
@pytest.mark.parametrize("objective", OBJECTIVES, ids=IDS)
def test_meta_curvature_with_identities_is_maml(objective: Objective, options: dict[str, object]) -> None:
    found = MetaCurvature(mlp(objective.size), objective, 3, 0.2, **options).double()  # type: ignore[arg-type]
    same(found, MAML(mlp(objective.size), objective, 3, 0.2, **options), rows(objective))  # type: ignore[arg-type]


def test_meta_curvature_with_identities_is_maml_on_images() -> None:
    found = MetaCurvature(conv4(2), Classification(2), 1, 0.1).double()
    same(found, MAML(conv4(2), Classification(2), 1, 0.1), images())


@pytest.mark.parametrize("shape", [(5,), (4, 3), (3, 2, 2, 3), (2, 3, 4)], ids=str)
def test_mode_products_are_a_kronecker_product(shape: tuple[int, ...]) -> None:
    g = noise(2, *shape)
    matrices = [noise(size, size, seed=i + 1) for i, size in enumerate(modes(shape))]
    assert len(matrices) == min(len(shape), 3)
    whole = matrices[0]
    for matrix in matrices[1:]:
        whole = torch.kron(whole, matrix)
    found = curved(g, matrices)
    assert found.shape == g.shape
    for t in range(2):
        close(found[t].flatten(), whole @ g[t].flatten())


def test_every_weight_moves_along_its_curved_gradient() -> None:
    tasks, objective = images(), Classification(2)
    learner = MetaCurvature(conv4(2), objective, 1, 0.3).double()
    jitter(learner.matrices)
    plain = MAML(conv4(2), objective, 1, 1.0)
    with torch.no_grad():
        state, whole = learner.adapt(tasks.support), plain.adapt(tasks.support)
    left = iter(learner.matrices)
    for name, start in learner.net.named_parameters():
        g = start.detach() - whole[name]
        kernel = [next(left) for _ in modes(start.shape)]
        if start.dim() == 4:
            o, i, f = kernel
            wanted = torch.einsum("ab,cd,ef,tbdf->tace", o, i, f, g.flatten(3)).reshape(g.shape)
        elif start.dim() == 2:
            wanted = kernel[0] @ g @ kernel[1].T
        else:
            wanted = g @ kernel[0].T
        close(state[name], (start - 0.3 * wanted).detach())


# --- WarpGrad ---


def warped(objective: Objective, steps: int = 3, **options: object) -> WarpGrad:
    return WarpGrad(mlp(objective.size), objective, steps, 0.2, **options).double()  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{}, {"first_order": True}, {"memory": "sweep"}], ids=str)
@pytest.mark.parametrize("objective", OBJECTIVES, ids=IDS)
def test_warp_grad_with_identities_is_maml(objective: Objective, options: dict[str, object]) -> None:
    found = MAML(mlp(objective.size), objective, 3, 0.2, **options)  # type: ignore[arg-type]
    same(warped(objective, 3, **options), found, rows(objective))


@pytest.mark.parametrize("pool", ["max", "stride"])
def test_warp_grad_with_identities_is_maml_on_images(pool: str) -> None:
    nets = [conv4(2, pool) for _ in range(2)]
    found = WarpGrad(nets[0], Classification(2), 2, 0.1).double()
    same(found, MAML(nets[1], Classification(2), 2, 0.1), images())


def test_warp_layers_stand_behind_the_hidden_layers() -> None:
    """By hand: one task, a network written out, and steps on the weights between the warp layers."""
    objective = Regression(2)
    learner, tasks = warped(objective, 2), rows(objective)
    jitter(learner.warps)
    found = predictions(learner, tasks)
    layers, warps = learner.net.layers, learner.warps  # type: ignore[union-attr]
    fixed = [(w.weight.detach(), w.bias.detach()) for w in warps]  # type: ignore
    for t in range(3):
        own = [p.detach().requires_grad_() for layer in layers for p in (layer.weight, layer.bias)]  # type: ignore

        def answer(x: Tensor, own: list[Tensor]) -> Tensor:
            for i in range(len(own) // 2):
                x = x @ own[2 * i].T + own[2 * i + 1]
                if i < len(fixed):
                    x = torch.relu(x) @ fixed[i][0].T + fixed[i][1]
            return x

        part, kept = tasks.support, tasks.support.weight[t] > 0
        for _ in range(2):
            value = (answer(part.x[t][kept], own) - part.y[t][kept]).square().mean()  # type: ignore[index]
            grads = torch.autograd.grad(value, own)
            own = [(p - 0.2 * g).detach().requires_grad_() for p, g in zip(own, grads, strict=True)]
        close(found[t], answer(tasks.query.x[t], own).detach())  # type: ignore[index]


def projection(objective: Objective) -> Projection:
    torch.manual_seed(0)
    net = Projection((5,), objective.size, width=6).double()
    jitter(net, 0.4)
    return net


@pytest.mark.parametrize("objective", OBJECTIVES, ids=IDS)
def test_warp_grad_with_identities_is_maml_on_a_projection(objective: Objective) -> None:
    nets = [projection(objective) for _ in range(2)]
    same(WarpGrad(nets[0], objective, 3, 0.2).double(), MAML(nets[1], objective, 3, 0.2), rows(objective))


@pytest.mark.parametrize("out", [2, None])
def test_warp_layers_of_a_projection_stand_behind_its_units_and_its_sum(out: int | None) -> None:
    """By hand, one task: a step on the weights between the warp layers, and what comes out after it."""
    objective, net = Regression(2), projection(Regression(2))
    if out is None:  # the sum itself is the answer, and nothing comes after it
        net = Projection((2,), None, width=6).double()
        jitter(net, 0.4)
    learner, tasks = WarpGrad(net, objective, 1, 0.2).double(), rows(objective)
    jitter(learner.warps)
    if out is None:
        tasks = map_x(tasks, lambda x: x[..., :2])
    found = predictions(learner, tasks)
    warps = [(w.weight.detach(), w.bias.detach()) for w in learner.warps]  # type: ignore
    assert len(warps) == (2 if out else 1)
    for t in range(3):
        own = [p.detach().clone().requires_grad_() for p in net.parameters()]

        def answer(x: Tensor, own: list[Tensor]) -> Tensor:
            h = torch.relu(x @ own[0].T + own[1]) @ warps[0][0].T + warps[0][1]
            h = x + h @ own[2].T + own[3]
            return (h @ warps[1][0].T + warps[1][1]) @ own[4].T + own[5] if out else h

        part, kept = tasks.support, tasks.support.weight[t] > 0
        value = (answer(part.x[t][kept], own) - part.y[t][kept]).square().mean()  # type: ignore[index]
        grads = torch.autograd.grad(value, own)
        moved = [(p - 0.2 * g).detach() for p, g in zip(own, grads, strict=True)]
        close(found[t], answer(tasks.query.x[t], moved))  # type: ignore[index]


def test_a_warp_layer_of_an_image_network_is_a_convolution_behind_a_block() -> None:
    learner = WarpGrad(conv4(2), Classification(2), inner_steps=0).double()
    jitter(learner.warps)
    tasks, net = images(), conv4(2)
    found = predictions(learner, tasks)
    for t in range(2):
        with torch.no_grad():
            h = tasks.query.x[t]  # type: ignore[index]
            for kernel, norm, warp in zip(net.kernels, net.norms, learner.warps, strict=True):
                h = nn.functional.conv2d(h, kernel, padding=1)
                h = nn.functional.max_pool2d(norm(h), 2).relu()
                h = nn.functional.conv2d(h, warp.weight, warp.bias, padding=1)  # type: ignore[arg-type]
            close(found[t], net.head(h.flatten(1)))  # type: ignore[misc]


def trajectory(learner: WarpGrad, tasks: Task) -> Tensor:
    """sum_k L_query(theta_k - lr grad L_support(theta_k; omega); omega) / K, to the letter; theta_k constants."""
    with torch.no_grad():
        states = list(learner.path(tasks.support, learner.inner_steps))
    warps = dict(learner.warps.named_parameters())
    total = torch.zeros((), dtype=torch.float64)
    for state in states[:-1]:
        theta = {k: w.detach().requires_grad_() for k, w in state.items() if k != "seen"}
        still = {f"warps.{k}": w.expand(3, *w.shape) for k, w in warps.items()}
        extra = {k: w for k, w in state.items() if k == "seen"}
        loss = learner.inner_loss(extra)
        value = loss({**theta, **still}, tasks.support).sum()
        grads = torch.autograd.grad(value, list(theta.values()), create_graph=not learner.first_order)
        end = {k: w.detach() - 0.2 * g for (k, w), g in zip(theta.items(), grads, strict=True)}
        total = total + loss({**end, **still}, tasks.query).mean() / learner.inner_steps
    return total


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("objective", OBJECTIVES, ids=IDS)
def test_warp_layers_learn_from_every_step(objective: Objective, first_order: bool) -> None:
    learner, tasks = warped(objective, first_order=first_order), rows(objective)
    jitter(learner.warps)
    found = slopes(learner, tasks, learner.warps)
    wanted = torch.autograd.grad(trajectory(learner, tasks), list(learner.warps.parameters()))
    for a, b in zip(found, wanted, strict=True):
        close(a, b)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=IDS)
def test_the_start_learns_as_in_maml_with_the_warp_layers_as_constants(objective: Objective) -> None:
    learner, tasks = warped(objective), rows(objective)
    jitter(learner.warps)
    found = slopes(learner, tasks, learner.net)
    whole = learner.eval()(tasks)  # outside training: plain derivatives through everything
    wanted = torch.autograd.grad(whole, list(learner.net.parameters()))
    for a, b in zip(found, wanted, strict=True):
        close(a, b)
    close(learner.train()(tasks).detach(), whole.detach())
    through = torch.autograd.grad(learner.eval()(tasks), list(learner.warps.parameters()))
    assert (through[0] - slopes(learner, tasks, learner.warps)[0]).norm() > 1e-6


def test_warp_grad_says_what_it_cannot_take() -> None:
    with pytest.raises(UserError, match=r"RowNet.*mlp, a projection or a conv4"):
        WarpGrad(RowNet(nn.Linear(3, 2), 2), Regression(2))
