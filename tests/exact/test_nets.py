"""Backbones against plain torch: the same function, the same statistics, the right second derivatives."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from quickstudy.core import Classification, Regression
from quickstudy.core.errors import UserError
from quickstudy.core.task import State
from quickstudy.inner.apply import apply_per_task, apply_shared, task_weights
from quickstudy.learners import MAML, ProtoNet
from quickstudy.nets import MLP, Conv4, RowNet, default_net
from quickstudy.nets.norm import ChannelNorm, Norm, average, collect, fold_in
from quickstudy.testing import check_meta_gradient, synthetic_tasks

TASKS, ROWS, IMAGE = 3, 5, (2, 20, 17)
NORMS: tuple[Norm, ...] = ("batch", "running", "group")


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def jittered(net: nn.Module) -> nn.Module:
    """In float64, with every parameter and running average away from the zeros and ones of the start."""
    net = net.double()
    with torch.no_grad():
        for i, p in enumerate(net.parameters()):
            p.add_(0.3 * noise(*p.shape, seed=i))
        for m in net.modules():
            if isinstance(m, ChannelNorm) and m.norm == "running":
                m.mean.copy_(0.5 * noise(len(m.mean), seed=50))
                m.variance.copy_(0.5 + noise(len(m.mean), seed=51).square())
    return net


def own_weights(net: nn.Module, tasks: int = TASKS) -> State:
    """Weights of each task's own, near those of the network."""
    shared = task_weights(net, tasks)
    return {k: w.detach() + 0.3 * noise(*w.shape, seed=i) for i, (k, w) in enumerate(shared.items())}


# --- MLP ---


@pytest.mark.parametrize(("out", "depth"), [(2, 2), (None, 2), (1, 1), (2, 0)])
def test_mlp_is_the_plain_network(out: int | None, depth: int) -> None:
    net = MLP((2, 3), out=out, width=4, depth=depth).double()
    layers: list[nn.Module] = []
    for i, layer in enumerate(net.layers):
        layers += [layer, nn.ReLU()] if i < depth else [layer]
    x = noise(TASKS, ROWS, 2, 3)
    torch.testing.assert_close(net(x), nn.Sequential(*layers)(x.flatten(2)), rtol=1e-13, atol=1e-14)
    assert net(x).shape == (TASKS, ROWS, net.size)


@pytest.mark.parametrize(("out", "depth"), [(2, 2), (None, 2), (1, 1), (2, 0)])
def test_mlp_per_task_is_one_call_a_task(out: int | None, depth: int) -> None:
    net, x = MLP((3,), out=out, width=4, depth=depth).double(), noise(TASKS, ROWS, 3)
    weights = own_weights(net)
    together = net.per_task(weights, x)
    for t in range(TASKS):
        alone = functional_call(net, {k: w[t] for k, w in weights.items()}, (x[t : t + 1],))
        torch.testing.assert_close(together[t : t + 1], alone, rtol=1e-13, atol=1e-14)
    assert torch.equal(apply_per_task(net, weights, x), together)


# --- Conv4 ---


class Plain(nn.Module):
    """Conv4 out of torch's own layers, in the order of the papers: convolution, norm, ReLU, pool."""

    def __init__(self, net: Conv4):
        super().__init__()
        blocks: list[nn.Module] = []
        for kernel, ours in zip(net.kernels, net.norms, strict=True):
            channels, stride = kernel.shape[0], 1 if net.pool == "max" else 2
            conv = nn.Conv2d(kernel.shape[1], channels, 3, stride, padding=1, bias=False)
            conv.weight = nn.Parameter(kernel.detach().clone())
            norm = nn.GroupNorm(8, channels) if net.norm == "group" else nn.BatchNorm2d(channels)
            state = {"weight": ours.weight, "bias": ours.bias}
            if net.norm == "running":
                state |= {"running_mean": ours.mean, "running_var": ours.variance}
            norm.double().load_state_dict(state, strict=False)
            norm.train(net.norm == "batch" or net.training)
            blocks += [conv.double(), norm.double(), nn.ReLU()] + (
                [nn.MaxPool2d(2)] if net.pool == "max" else []
            )
        end: list[nn.Module] = [nn.Flatten()] if net.pool == "max" else [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        self.layers = nn.Sequential(*blocks, *end, *([net.head] if net.head is not None else []))

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.layers(rows) for rows in x])  # statistics task by task


def conv4(norm: Norm, out: int | None = 3, **options) -> Conv4:
    return jittered(Conv4(IMAGE, out=out, channels=8, norm=norm, **options))  # type: ignore[return-value]


@pytest.mark.parametrize("out", [None, 3])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("pool", ["max", "stride"])
@pytest.mark.parametrize("norm", NORMS)
def test_conv4_is_the_plain_network(norm: Norm, pool: str, training: bool, out: int | None) -> None:
    net = conv4(norm, out, pool=pool).train(training)
    x = noise(TASKS, ROWS, *IMAGE, seed=9)
    buffers = [b.clone() for b in net.buffers()]
    found = net(x)
    assert found.shape == (TASKS, ROWS, net.size)
    torch.testing.assert_close(found, Plain(net)(x), rtol=1e-10, atol=1e-11)
    weights = own_weights(net)
    found = apply_per_task(net, weights, x)
    for t in range(TASKS):
        one = copy.deepcopy(net)
        one.load_state_dict({k: w[t] for k, w in weights.items()}, strict=False)
        torch.testing.assert_close(found[t], Plain(one)(x[t : t + 1])[0], rtol=1e-10, atol=1e-11)
    assert all(torch.equal(a, b) for a, b in zip(net.buffers(), buffers, strict=True))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("pool", ["max", "stride"])
@pytest.mark.parametrize("training", [True, False])
def test_conv4_of_sets_is_that_of_each(norm: Norm, pool: str, training: bool) -> None:
    net = conv4(norm, pool=pool).train(training)
    sets = [noise(TASKS, n, *IMAGE, seed=n) for n in (2, ROWS)]
    leaves = list(net.parameters())
    with collect() as seen:
        found = net.apart(sets)
    with collect() as expected_seen:
        expected = [net(x) for x in sets]
    grads = [torch.autograd.grad(sum(out.square().sum() for out in outs), leaves) for outs in (found, expected)]
    for a, b in zip([*found, *grads[0]], [*expected, *grads[1]], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)
    for (_, a), (_, b) in zip(average(seen), average(expected_seen), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)


def test_conv4_features_have_the_declared_size() -> None:
    assert Conv4(IMAGE, channels=8).size == 8 * 1 * 1  # 20 x 17 halves to 10 x 8, 5 x 4, 2 x 2, 1 x 1
    assert Conv4((1, 28, 28), channels=8).size == 8
    assert Conv4((1, 84, 84), channels=8).size == 8 * 5 * 5
    assert Conv4((1, 84, 84), channels=8, pool="stride").size == 8  # the mean over the last map
    with pytest.raises(UserError, match="at least 16 x 16"):
        Conv4((1, 15, 28))


def test_conv4_says_where_predictions_look_at_each_other() -> None:
    for norm, training, declared in [
        ("batch", True, True),
        ("batch", False, True),
        ("running", True, True),
        ("running", False, False),
        ("group", True, False),
    ]:
        learner = ProtoNet(conv4(norm, None), Classification(2)).train(training)  # type: ignore[arg-type]
        x = noise(1, ROWS, *IMAGE)
        apart = torch.cat([learner.net(x[:, i : i + 1]) for i in range(ROWS)], 1)
        together = learner.net(x)
        assert learner.transductive is declared
        assert torch.allclose(apart, together, rtol=1e-9, atol=1e-10) is not declared


@pytest.mark.parametrize("pool", ["max", "stride"])
@pytest.mark.parametrize("norm", NORMS)
def test_conv4_has_right_second_derivatives(norm: Norm, pool: str) -> None:
    # d/dw of a function of dL/dw, scales and shifts of the norm included, three tasks at once
    net = conv4(norm, pool=pool).train()
    x, ask = noise(TASKS, ROWS, *IMAGE, seed=9), noise(TASKS, ROWS, 3, seed=10)
    weights = {k: w.requires_grad_() for k, w in own_weights(net).items()}

    def loss() -> Tensor:
        value = ((apply_per_task(net, weights, x) - ask).square()).sum()
        grads = torch.autograd.grad(value, list(weights.values()), create_graph=True)
        return sum((g * noise(*g.shape, seed=20 + i)).sum() for i, g in enumerate(grads))  # type: ignore

    check_meta_gradient(loss, weights.values(), list(weights))


# --- statistics ---


def test_collected_statistics_give_the_running_averages_of_batch_norm() -> None:
    ours, plain = ChannelNorm(4, "running").double(), nn.BatchNorm2d(4, momentum=0.1).double()
    for step in range(5):
        x = 2 + 3 * noise(6, 4, 3, 3, seed=step)
        with collect() as seen:
            out = ours(x)
        torch.testing.assert_close(out, plain(x), rtol=1e-12, atol=1e-13)
        for layer, statistics in average(seen):
            fold_in(layer, statistics)
    torch.testing.assert_close(ours.mean, plain.running_mean, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(ours.variance, plain.running_var, rtol=1e-12, atol=1e-13)
    x = noise(6, 4, 3, 3, seed=9)
    torch.testing.assert_close(ours.eval()(x), plain.eval()(x), rtol=1e-12, atol=1e-13)


def test_the_tasks_of_a_step_are_averaged() -> None:
    layer = ChannelNorm(4, "running").double()
    x = [1 + noise(6, 4, 3, 3, seed=t) for t in range(3)]
    with collect() as seen:
        for rows in x:
            layer(rows)
    ((found, statistics),) = average(seen)
    assert found is layer
    means = torch.stack([rows.mean((0, 2, 3)) for rows in x]).mean(0)
    variances = torch.stack([rows.transpose(0, 1).flatten(1).var(1) for rows in x]).mean(0)
    torch.testing.assert_close(statistics, torch.stack([means, variances]), rtol=1e-12, atol=1e-13)


def test_statistics_are_gathered_inside_collect_only() -> None:
    layer, x = ChannelNorm(4, "running").double(), noise(6, 4, 3, 3)
    layer(x)
    with collect() as seen:
        ChannelNorm(4, "batch").double()(x)
        layer.eval()(x)
    layer.train()(x)
    assert not seen and layer.mean.eq(0).all() and layer.variance.eq(1).all()


def test_collecting_changes_no_gradient() -> None:
    x = noise(6, 4, 3, 3).requires_grad_()
    layer = jittered(ChannelNorm(4, "running"))
    plain = torch.autograd.grad(layer(x).pow(3).sum(), [x, *layer.parameters()])
    with collect():
        gathered = torch.autograd.grad(layer(x).pow(3).sum(), [x, *layer.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(gathered, plain, strict=True))


# --- padding ---


def padded(x: Tensor) -> tuple[Tensor, Tensor]:
    """Two rows of rubbish among the rows of task 1; and the weights."""
    weight = torch.ones(x.shape[:2], dtype=torch.float64)
    weight[1, [1, 4]] = 0.0
    rubbish = x.clone()
    rubbish[1, [1, 4]] = 100.0
    return rubbish, weight


@pytest.mark.parametrize("norm", NORMS)
def test_padding_stays_out_of_the_statistics(norm: Norm) -> None:
    net = conv4(norm).train()
    x, weight = padded(noise(TASKS, ROWS, *IMAGE, seed=9))
    real = weight > 0
    weights = own_weights(net)
    shared, per_task = apply_shared(net, x, weight), apply_per_task(net, weights, x, weight)
    for found, adapted in [(shared, False), (per_task, True)]:
        for t in range(TASKS):
            kept = x[t : t + 1, real[t]]
            own = {k: w[t] for k, w in weights.items()}
            alone = functional_call(net, own, (kept,)) if adapted else net(kept)
            torch.testing.assert_close(found[t, real[t]], alone[0], rtol=1e-10, atol=1e-11)
    if norm != "group":
        assert shared[1, [1, 4]].eq(0).all() and per_task[1, [1, 4]].eq(0).all()
        assert not torch.allclose(net(x)[1, real[1]], shared[1, real[1]])  # the rubbish would have counted


def test_padding_stays_out_of_the_running_averages() -> None:
    net = conv4("running").train()
    x, weight = padded(noise(TASKS, ROWS, *IMAGE, seed=9))
    with collect() as seen:
        apply_shared(net, x, weight)
    with collect() as clean:
        for t in range(TASKS):
            net(x[t : t + 1, weight[t] > 0])
    for (_, a), (_, b) in zip(average(seen), average(clean), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)


# --- any module of torch ---


class Reader(nn.Module):
    """A small transformer over a row of 4 tokens of 6 numbers: (n, 24) -> (n, 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.TransformerEncoderLayer(6, nhead=2, dim_feedforward=8, dropout=0.0, batch_first=True)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(x.unflatten(1, (4, 6))).mean(1))


@pytest.mark.parametrize(
    ("training", "memory"), [(True, "store"), (False, "store"), (True, "checkpoint"), (True, "sweep")]
)
def test_maml_of_a_transformer_has_the_right_gradient(training: bool, memory: str) -> None:
    torch.manual_seed(0)
    objective, net = Classification(2), RowNet(Reader(), 2)
    learner = MAML(net, objective, inner_steps=2, inner_lr=0.1, memory=memory).double().train(training)
    tasks = synthetic_tasks(objective, (24,), tasks=2)
    check_meta_gradient(
        lambda: learner(tasks), learner.parameters(), [n for n, _ in learner.named_parameters()]
    )


def test_row_net_is_the_module_task_by_task() -> None:
    module = nn.Sequential(
        nn.Linear(3, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 1)
    ).double()
    net, x = RowNet(module, 1), noise(TASKS, ROWS, 3)
    for t in range(TASKS):
        torch.testing.assert_close(net(x)[t], module(x[t]), rtol=1e-12, atol=1e-13)
    assert MAML(net, Regression()).transductive


def test_images_get_conv4_and_the_rest_an_mlp() -> None:
    shapes = [(1, 28, 28), (3, 16, 16), (1, 15, 28), (7,), (28, 28)]
    assert [default_net(s) for s in shapes] == ["conv4", "conv4", "mlp", "mlp", "mlp"]
