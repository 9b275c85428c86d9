"""VERSA, LEO, CNAPs and the prototype memory, each in a limit that is known. Nothing is trained."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.core import Classification, GaussianRegression, Regression
from quickstudy.core.errors import UserError
from quickstudy.core.learner import MetaLearner
from quickstudy.core.task import Examples, State, Task, map_tensors
from quickstudy.inner.apply import apply_per_task, task_weights
from quickstudy.inner.closed import class_sums, prototypes
from quickstudy.learners import LEO, VERSA, CNAPs, ProtoNet, PrototypeMemory
from quickstudy.nets import MLP, Conv4, Net, ResNet12, RowNet, Transformer
from quickstudy.nets.film import film_layers, modulated
from quickstudy.nets.norm import Norm
from quickstudy.nets.related_rows import RelatedRows
from quickstudy.testing import synthetic_tasks

WAY, SIZE, WIDTH = 3, (4,), 6
CLASSES = Classification(WAY)


def mlp() -> MLP:
    torch.manual_seed(0)
    return MLP(SIZE, width=WIDTH).double()


def moved(learner: MetaLearner) -> MetaLearner:
    """In float64 and eval mode, away from whatever it begins with."""
    rng = torch.Generator().manual_seed(5)
    learner = learner.double().eval()
    with torch.no_grad():
        for p in learner.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=rng, dtype=torch.float64))
    return learner


def weighted(tasks: Task) -> Task:
    """The same rows, where some count less than others and some not at all."""
    weight = 0.2 + torch.rand(tasks.support.weight.shape, generator=torch.Generator().manual_seed(1)).double()
    weight[:, 0] = 0.0
    return tasks._replace(support=tasks.support._replace(weight=weight))


def classes() -> Task:
    return weighted(synthetic_tasks(CLASSES, SIZE))


def part(rows: Examples, index: slice | Tensor) -> Examples:
    return map_tensors(rows, lambda t: t[:, index])


@torch.no_grad()
def predictions(learner: MetaLearner, tasks: Task) -> Tensor:
    return learner.predict(learner.adapt(tasks.support), tasks.query.x, tasks.query.weight)


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def apart(a: Tensor, b: Tensor) -> None:
    assert (a - b).abs().max() > 1e-3


# --- VERSA ---


def versa(objective: Classification | GaussianRegression = CLASSES, draws: int = 10, spread: float = 0.0) -> VERSA:
    """`spread` is added to the log variances."""
    learner = VERSA(mlp(), objective, width=7, draws=draws)
    moved(learner)
    with torch.no_grad():
        bias = learner.amortiser.layers[-1].bias
        bias[len(bias) // 2 :] += spread
    return learner


def features(net: nn.Module, rows: Examples) -> Tensor:
    with torch.no_grad():
        f = net(rows.x)
    return torch.cat([f, torch.ones_like(f[..., :1])], -1)


def test_versa_without_variance_is_the_point_network() -> None:
    tasks, learner = classes(), versa(spread=-500.0)
    with torch.no_grad():
        mean, _ = learner.posterior(learner.adapt(tasks.support))
    logits = features(learner.net, tasks.query) @ mean.transpose(1, 2)
    close(predictions(learner, tasks), logits.log_softmax(-1))
    apart(predictions(versa(spread=4.0), tasks), logits.log_softmax(-1))


def test_versas_mean_is_read_from_the_mean_of_each_class_alone() -> None:
    tasks, learner = classes(), versa()
    with torch.no_grad():
        mean, deviation = learner.posterior(learner.adapt(tasks.support))
        f = learner.net(tasks.support.x)
        for t in range(tasks.support.tasks):
            for k in range(WAY):
                own = tasks.support.weight[t] * (tasks.support.y[t] == k)
                read = (f[t] * own.unsqueeze(-1)).sum(0) / own.sum()
                m, v = learner.amortiser(read.view(1, 1, -1)).view(-1).chunk(2)
                close(mean[t, k], m)
                close(deviation[t, k], torch.sqrt(torch.exp(v)))


def test_many_draws_of_versa_come_to_the_integral() -> None:
    # two classes: w1.f - w2.f is normal, and p(class 1) the mean of a sigmoid of it, here by Gauss and Hermite
    pair = Classification(2)
    tasks, learner = synthetic_tasks(pair, SIZE), versa(pair, draws=40_000, spread=3.0)
    with torch.no_grad():
        learner.amortiser.layers[-1].weight[: WIDTH + 1] *= 30.0
        mean, deviation = learner.posterior(learner.adapt(tasks.support))
        f = features(learner.net, tasks.query)
        gap = f @ (mean[:, 0] - mean[:, 1]).unsqueeze(-1)
        width = (f.square() @ deviation.square().sum(1).unsqueeze(-1)).sqrt()
    at, share = (torch.from_numpy(a) for a in np.polynomial.hermite_e.hermegauss(80))
    wanted = (torch.sigmoid(gap + width * at) * share).sum(-1) / math.sqrt(2 * math.pi)
    found = predictions(learner, tasks).exp()[..., 0]
    assert width.min() > 0.3 and (torch.sigmoid(gap.squeeze(-1)) - wanted).abs().max() > 0.02
    torch.testing.assert_close(found, wanted, rtol=0.0, atol=0.01)
    with torch.random.fork_rng(devices=[]):  # and so do fresh draws in training
        torch.manual_seed(0)
        torch.testing.assert_close(predictions(learner.train(), tasks).exp()[..., 0], wanted, rtol=0.0, atol=0.01)


def test_versa_for_functions_is_what_its_draws_come_to() -> None:
    tasks, learner = synthetic_tasks(GaussianRegression(2), SIZE), versa(GaussianRegression(2, floor=0.1), spread=2.0)
    with torch.no_grad():
        state = learner.adapt(tasks.support)
        mean, deviation = learner.posterior(state)
        found = learner.predict(state, tasks.query.x)
        m, s = learner.objective.mean_and_deviation(found)  # type: ignore[attr-defined]
        noise = 0.1 + learner.log_noise.exp()
        f = features(learner.net, tasks.query)
        torch.manual_seed(0)
        e = torch.randn(100_000, *mean.shape, dtype=torch.float64)
        values = torch.einsum("tnd,stkd->stnk", f, mean + deviation * e)
    torch.testing.assert_close(values.mean(0), m, rtol=0.02, atol=0.02)
    torch.testing.assert_close((values.var(0) + noise.square()).sqrt(), s, rtol=0.02, atol=0.0)


def test_versa_does_not_know_the_names_of_classes_nor_who_came_first() -> None:
    tasks, learner, order = classes(), versa(spread=4.0), torch.tensor([2, 0, 1])
    plain = predictions(learner, tasks)
    renamed = tasks._replace(support=tasks.support._replace(y=order[tasks.support.y]))
    close(predictions(learner, renamed)[..., order], plain)
    shuffled = torch.randperm(tasks.support.weight.shape[1], generator=torch.Generator().manual_seed(0))
    close(predictions(learner, tasks._replace(support=part(tasks.support, shuffled))), plain)


# --- LEO ---


def leo(inner_steps: int = 0, finetune_steps: int = 0, **penalties: float) -> LEO:
    learner = LEO(mlp(), CLASSES, 5, inner_steps, 0.4, finetune_steps, 0.2, **penalties)
    moved(learner)
    return learner


def codes(learner: LEO, rows: Examples) -> tuple[Tensor, Tensor]:
    """Mean and log deviation of the codes, pair by pair of rows."""
    net, n = learner.relation, rows.weight.shape[1]
    e = net.encode(learner.net(rows.x))
    out = []
    for t in range(rows.tasks):
        weight, total = rows.weight[t], rows.weight[t].sum()
        read = [
            sum(weight[j] / total * net.relate(torch.cat([e[t, i], e[t, j]]).view(1, 1, -1)).view(-1) for j in range(n))
            for i in range(n)
        ]
        for k in range(WAY):
            own = weight * (rows.y[t] == k)
            out.append(sum(own[i] * read[i] for i in range(n)) / own.sum())
    mean, log_deviation = torch.stack(out).unflatten(0, (rows.tasks, WAY)).chunk(2, -1)  # type: ignore[arg-type]
    return mean, log_deviation


def logits(learner: LEO, weight: Tensor, rows: Examples) -> Tensor:
    return learner.net(rows.x) @ weight.transpose(1, 2)


def support_loss(learner: LEO, weight: Tensor, rows: Examples) -> Tensor:
    losses = F.cross_entropy(logits(learner, weight, rows).transpose(1, 2), rows.y, reduction="none")
    return ((losses * rows.weight).sum(1) / rows.weight.sum(1)).sum()


def test_leo_without_steps_is_what_is_decoded() -> None:
    tasks, learner = classes(), leo()
    with torch.no_grad():
        weight = learner.decoder(codes(learner, tasks.support)[0])[..., :WIDTH]
        close(predictions(learner, tasks), logits(learner, weight, tasks.query))


@pytest.mark.parametrize(("inner_steps", "finetune_steps"), [(2, 0), (0, 2), (2, 1)])
def test_leos_steps_are_those_of_a_loop(inner_steps: int, finetune_steps: int) -> None:
    tasks, learner = classes(), leo(inner_steps, finetune_steps)
    z = codes(learner, tasks.support)[0]
    for _ in range(inner_steps):
        loss = support_loss(learner, learner.decoder(z)[..., :WIDTH], tasks.support)
        z = z - learner.code_rate * torch.autograd.grad(loss, z)[0]
    weight = learner.decoder(z)[..., :WIDTH]
    for _ in range(finetune_steps):
        loss = support_loss(learner, weight, tasks.support)
        weight = weight - learner.weight_rate * torch.autograd.grad(loss, weight)[0]
    close(predictions(learner, tasks), logits(learner, weight, tasks.query).detach())
    apart(predictions(learner, tasks), predictions(leo(), tasks))


def test_leos_penalties_are_their_formulas() -> None:
    tasks, plain = classes(), {"kl": 0.0, "encoder": 0.0, "orthogonality": 0.0}

    def loss(**penalty: float) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return leo(2, 1, **{**plain, **penalty}).train().meta_loss(tasks).detach()

    base, learner = loss(), leo(2, 1)
    with torch.no_grad():
        mean, log_deviation = codes(learner, tasks.support)
        prior = torch.distributions.Normal(0.0, 1.0)
        kl = torch.distributions.kl_divergence(torch.distributions.Normal(mean, log_deviation.exp()), prior)
        close(loss(kl=0.7) - base, 0.7 * kl.mean((1, 2)))
        correlation = torch.tensor(
            [[F.cosine_similarity(a, b, dim=0) for a in learner.decoder.weight.T] for b in learner.decoder.weight.T]
        ).double()
        off = (correlation - torch.eye(5)).square().mean()
        torch.testing.assert_close(loss(orthogonality=0.7) - base, (0.7 * off).expand(3), rtol=1e-5, atol=1e-6)
    # the encoder is drawn to codes after their steps; without steps those are the same
    assert (loss(encoder=0.7) - base > 1e-6).all()
    assert leo(2, encoder=0.0).exact_gradient and leo(0, 2).exact_gradient and not leo(2).exact_gradient


def test_leos_draws_have_the_spread_that_it_says() -> None:
    # no steps and no penalties: in training the weights of many copies of one task scatter as N(mu, s0^2 t^2) after z
    learner = leo().train()
    rows = synthetic_tasks(CLASSES, SIZE, shot=1).support
    rows = map_tensors(rows, lambda t: t[:1].expand(20_000, *t.shape[1:]))
    with torch.no_grad():
        learner.decoder.weight[WIDTH:] *= 0.3
        learner.relation.relate.layers[-1].weight.zero_()  # type: ignore[union-attr]
        learner.relation.relate.layers[-1].bias.zero_()  # type: ignore[union-attr]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            weight = learner.adapt(rows)["weight"][:, 0]
        torch.manual_seed(1)
        z = torch.randn(200_000, 5, dtype=torch.float64)  # codes of mean 0 and deviation 1
        mu, log_t = learner.decoder(z).chunk(2, -1)
        wanted = mu.square().mean(0) + (2 * log_t).exp().mean(0) * 2 / (WIDTH + WAY)
    torch.testing.assert_close(weight.square().mean(0), wanted, rtol=0.08, atol=0.0)


def test_leo_goes_on_from_its_prior_and_decodes_new_classes() -> None:
    tasks = classes()
    first, rest = part(tasks.support, slice(0, 3)), part(tasks.support, slice(3, None))
    with torch.no_grad():
        before = leo().adapt(first)
        after = leo().adapt(rest, prior=before)
        assert torch.equal(after["weight"][:, 0], before["weight"][:, 0])
        close(after["weight"][:, 1:], leo().adapt(rest)["weight"][:, 1:])
        assert before["seen"].tolist() == [[1, 0, 0]] * 3 and after["seen"].tolist() == [[1, 1, 1]] * 3


def test_related_rows_do_not_look_at_rows_without_weight() -> None:
    torch.manual_seed(0)
    net, f = RelatedRows(4, 3).double(), torch.randn(2, 5, 4, dtype=torch.float64)
    weight = torch.tensor([1.0, 0, 2, 1, 0]).double().expand(2, -1)
    kept = [0, 2, 3]
    close(net(f, weight)[:, kept], net(f[:, kept], weight[:, kept]))


# --- CNAPs ---


def conv(norm: Norm) -> Conv4:
    torch.manual_seed(0)
    return Conv4((1, 16, 16), channels=8, norm=norm).double()


FILMED: dict[str, tuple[Net, tuple[int, ...]]] = {
    "mlp": (mlp(), SIZE),
    "conv4": (conv("running"), (1, 16, 16)),
    "resnet12": (ResNet12((1, 16, 16), widths=(2, 3, 4, 5), norm="running").double(), (1, 16, 16)),
    "transformer": (Transformer(SIZE, width=4, depth=1, heads=2).double(), SIZE),
    "rows": (RowNet(nn.Sequential(nn.Linear(4, 5), nn.Tanh()), 5).double(), SIZE),
}


@pytest.mark.parametrize("name", FILMED)
def test_cnaps_begins_with_plain_features(name: str) -> None:
    net, shape = FILMED[name]
    tasks = synthetic_tasks(CLASSES, shape, tasks=2)
    learner = CNAPs(net, CLASSES, width=5).double().eval()
    with torch.no_grad():
        state = learner.adapt(tasks.support)
        f, asked = (net.eval()(rows.x) for rows in tasks)
        close(learner.features(state, tasks.query.x, None), asked)
        centres = prototypes(*class_sums(f, CLASSES.one_hot(tasks.support)))
        close(prototypes(state["sums"], state["counts"]), centres)
        for p in learner.classifier.parameters():
            p.zero_()
        close(predictions(learner, tasks), asked @ centres.transpose(1, 2))
        learner.film[0].layers[-1].bias.add_(0.5)  # type: ignore[union-attr,operator]
        apart(learner.features(state, tasks.query.x, None), asked)


@pytest.mark.parametrize("name", FILMED)
def test_film_scales_and_shifts_what_a_layer_gives(name: str) -> None:
    net, shape = FILMED[name]
    layers, rng = film_layers(net.eval()), torch.Generator().manual_seed(0)
    x = torch.randn(3, 2, *shape, generator=rng, dtype=torch.float64)
    # some scales are negative, which the convolution's pool must mind
    scales = [torch.randn(3, c, generator=rng, dtype=torch.float64) for c in layers.values()]
    shifts = [torch.randn(3, c, generator=rng, dtype=torch.float64) for c in layers.values()]
    with torch.no_grad():
        found = apply_per_task(net, modulated(task_weights(net, 3), list(layers), scales, shifts), x)
        for t in range(3):
            held = net.state_dict()
            for layer, scale, shift in zip(layers, scales, shifts, strict=True):
                module = net.get_submodule(layer)
                of_rows = scale[t].unsqueeze(-1) if isinstance(module, nn.Linear) else scale[t]
                held[f"{layer}.weight"] = module.weight * of_rows  # type: ignore[operator]
                held[f"{layer}.bias"] = module.bias * scale[t] + shift[t]  # type: ignore[operator]
            copied = torch.func.functional_call(net, held, (x[t : t + 1],))
            close(found[t : t + 1], copied)


def test_film_of_a_linear_layer_by_hand() -> None:
    net = mlp()
    x, scale, shift = torch.randn(1, 2, 4).double(), torch.randn(1, WIDTH).double(), torch.randn(1, WIDTH).double()
    with torch.no_grad():
        weights = modulated(task_weights(net, 1), ["layers.0"], [scale], [shift])
        close(
            apply_per_task(net, weights, x), torch.relu(net.layers[1](torch.relu(scale * net.layers[0](x) + shift)))
        )


def test_cnaps_reads_the_whole_support_and_makes_a_classifier_of_each_class() -> None:
    tasks, learner = classes(), CNAPs(mlp(), CLASSES, width=5)
    moved(learner)
    with torch.no_grad():
        read, weight = learner.reader(tasks.support.x), tasks.support.weight.unsqueeze(-1)
        z = (read * weight).sum(1) / weight.sum(1)
        ab = [made(z.unsqueeze(1)).squeeze(1) for made in learner.film]

        def f(x: Tensor) -> Tensor:
            for layer, both in zip(learner.net.layers, ab, strict=True):  # type: ignore[arg-type]
                a, b = both.unsqueeze(1).chunk(2, -1)
                x = torch.relu((1 + a) * layer(x) + b)
            return x

        centres = prototypes(*class_sums(f(tasks.support.x), CLASSES.one_hot(tasks.support)))
        u = learner.classifier(centres)
        wanted = f(tasks.query.x) @ (centres + u[..., :-1]).transpose(1, 2) + u[..., -1].unsqueeze(1)
    close(predictions(learner, tasks), wanted)


def test_cnaps_prior_goes_on() -> None:
    tasks, learner = classes(), CNAPs(mlp(), CLASSES, width=5)
    moved(learner)
    a, b = part(tasks.support, slice(0, 5)), part(tasks.support, slice(5, None))
    with torch.no_grad():
        state, whole = learner.adapt(b, prior=learner.adapt(a)), learner.adapt(tasks.support)
    for name in ("read", "rows", "counts"):
        close(state[name], whole[name])
    apart(state["sums"], whole["sums"])  # the first rows keep the features that they had then


# --- prototype memory ---


def memory(**options: float | int) -> PrototypeMemory:
    return PrototypeMemory(mlp(), CLASSES, **options).double().eval()  # type: ignore[arg-type]


def table(state: State) -> dict[int, tuple[float, float]]:
    """Class -> (weight, first number of the sum) of the first task."""
    slots = zip(state["values"][0].tolist(), state["counts"][0].tolist(), state["sums"][0, :, 0].tolist(), strict=True)
    return {k: (n, s) for k, n, s in slots if k >= 0}


def test_a_memory_that_forgets_nothing_is_protonet() -> None:
    tasks, learner = classes(), memory()
    theirs = predictions(ProtoNet(mlp(), CLASSES).double().eval(), tasks)
    close(predictions(learner, tasks), theirs)
    state = None
    with torch.no_grad():
        for i in range(tasks.support.weight.shape[1]):
            state = learner.adapt(part(tasks.support, slice(i, i + 1)), prior=state)
        assert state is not None
        close(learner.predict(state, tasks.query.x), theirs)
        learner.log_temperature.fill_(math.log(2.0))
        close(predictions(learner, tasks), theirs / 2)
    assert learner.incremental and not memory(forgetting=0.1).incremental and not memory(capacity=2).incremental


def test_what_is_held_fades_before_more_is_written() -> None:
    tasks, learner = classes(), memory(forgetting=0.25)
    a, b, c = (part(tasks.support, slice(i, i + 3)) for i in (0, 3, 6))  # a class each
    again = part(tasks.support, slice(1, 2))  # a row of the first class
    with torch.no_grad():
        f = learner.net(tasks.support.x)[0, :, 0] * tasks.support.weight[0]
        state = learner.adapt(again, prior=learner.adapt(c, prior=learner.adapt(b, prior=learner.adapt(a))))
    w = tasks.support.weight[0]
    wanted = {
        0: (0.75**3 * w[:3].sum() + w[1], 0.75**3 * f[:3].sum() + f[1]),
        1: (0.75**2 * w[3:6].sum(), 0.75**2 * f[3:6].sum()),
        2: (0.75 * w[6:].sum(), 0.75 * f[6:].sum()),
    }
    found = table(state)
    assert found.keys() == wanted.keys()
    for k, (n, s) in wanted.items():
        assert found[k] == (pytest.approx(float(n)), pytest.approx(float(s)))


def test_a_full_memory_loses_the_class_of_least_weight() -> None:
    tasks = synthetic_tasks(CLASSES, SIZE)
    weight = tasks.support.weight * torch.tensor([1.0, 0.5, 2.0]).double()[tasks.support.y]
    learner = memory(capacity=2)
    with torch.no_grad():
        state = learner.adapt(tasks.support._replace(weight=weight))
        assert state["sums"].shape == (3, 2, WIDTH) and set(table(state)) == {0, 2}
        assert (learner.predict(state, tasks.query.x).argmin(-1) == 1).all()
        # in a stream, one that fades is pushed out in the end by one that keeps coming
        fading, stream = memory(capacity=2, forgetting=0.5), state
        one = tasks.support._replace(weight=(tasks.support.y == 1).double())
        held = []
        for _ in range(3):
            stream = fading.adapt(one, prior=stream)
            held.append(set(table(stream)))
    assert held[0] == {1, 2} and held[-1] == {1, 2}
    assert table(stream)[1][0] == pytest.approx(3 + 1.5 + 0.75)


def test_in_training_the_support_may_come_in_parts() -> None:
    tasks = classes()
    learner = memory(forgetting=0.3, parts=2).train()
    real = tasks.support.weight[0] > 0
    place = real.cumsum(0) - 1
    with torch.no_grad():
        state = learner.adapt(part(tasks.support, real & (place % 2 == 0)))
        state = learner.adapt(part(tasks.support, real & (place % 2 == 1)), prior=state)
        wanted = CLASSES.loss(learner.predict(state, tasks.query.x), tasks.query)
        close(learner.meta_loss(tasks), wanted)
        apart(learner.eval().meta_loss(tasks), wanted)


# --- what is refused ---


def test_what_cannot_be_is_refused_in_a_sentence() -> None:
    with pytest.raises(UserError, match="draws is 0"):
        VERSA(mlp(), CLASSES, draws=0)
    with pytest.raises(UserError, match="GaussianRegression"):
        VERSA(mlp(), Regression())
    with pytest.raises(UserError, match="inner steps is -1"):
        leo(-1).adapt(classes().support)
    with pytest.raises(UserError, match="width is 0"):
        CNAPs(mlp(), CLASSES, width=0)
    with pytest.raises(UserError, match="no norm and no linear layer"):
        CNAPs(RowNet(nn.Identity(), 4), CLASSES)
    for options in ({"forgetting": 1.0}, {"capacity": 0}, {"parts": 0}):
        with pytest.raises(UserError, match=f"{next(iter(options))} is "):
            memory(**options)
