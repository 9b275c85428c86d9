"""What the learners that read the support in one pass must equal: CNP, torch's own transformer, formulas by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from quickstudy.core import Classification, GaussianRegression, Objective
from quickstudy.core.errors import UserError
from quickstudy.core.learner import MetaLearner
from quickstudy.core.task import Examples, Task, join_rows, map_tensors
from quickstudy.inner.members import combined
from quickstudy.learners import ANP, CNP, TNP, ConvCNP, InContext
from quickstudy.nets import MLP
from quickstudy.nets.attention import Attention, RowTransformer, attend
from quickstudy.nets.set_conv import GridCNN, SetConv
from quickstudy.testing import synthetic_tasks

LINE, PLANE = (1,), (2,)
GAUSSIAN = GaussianRegression(1)


def seeded(make):
    """A learner of float64 whose weights are always the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make().double().eval()


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def predictions(learner: MetaLearner, tasks: Task) -> Tensor:
    with torch.no_grad():
        return learner.predict(learner.adapt(tasks.support), tasks.query.x)


def waves(x_shape: tuple[int, ...] = LINE, objective: Objective = GAUSSIAN) -> Task:
    return synthetic_tasks(objective, x_shape, shot=4, ragged=True)


def weighted(tasks: Task) -> Task:
    weight = 0.2 + random(*tasks.support.weight.shape).abs()
    weight[:, 0] = 0.0
    return tasks._replace(support=tasks.support._replace(weight=weight))


def close(a: Tensor, b: Tensor, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


# --- attention ---


def test_attention_to_one_row_is_that_row() -> None:
    query, key, value = random(2, 3, 4), random(2, 5, 4, seed=1), random(2, 5, 4, seed=2)
    weight = torch.zeros(2, 5)
    weight[:, 3] = 0.7
    close(attend(query, key, value, weight, heads=2), value[:, 3:4].expand(-1, 3, -1))
    layer = seeded(lambda: Attention(4, 2))
    close(layer(query, key, value, weight), layer.merge(layer.value(value[:, 3:4])).expand(-1, 3, -1))
    assert not attend(query, key, value, torch.zeros(2, 5)).any()


def test_a_row_of_weight_three_is_three_rows() -> None:
    query, key, value = random(2, 3, 4), random(2, 3, 4, seed=1), random(2, 3, 4, seed=2)
    counts = torch.tensor([3, 1, 2])
    many = [t.repeat_interleave(counts, 1) for t in (key, value)]
    found = attend(query, key, value, counts.double().expand(2, -1), heads=2)
    close(found, attend(query, *many, heads=2))
    assert (found - attend(query, key, value, heads=2)).abs().max() > 1e-2


def test_weights_of_its_own_for_every_query() -> None:
    query, key, value = random(2, 3, 4), random(2, 5, 4, seed=1), random(2, 5, 4, seed=2)
    own = random(2, 3, 5, seed=3).clamp_min(0)
    own[1, 2] = 0
    found = attend(query, key, value, own, heads=2)
    close(found, torch.cat([attend(query[:, i : i + 1], key, value, own[:, i], heads=2) for i in range(3)], 1))
    assert not found[1, 2].any()


def test_attention_is_torchs_multi_head_attention() -> None:
    ours = seeded(lambda: Attention(6, 3))
    theirs = nn.MultiheadAttention(6, 3, batch_first=True).double()
    copy_attention(ours, theirs)
    query, key, value = random(2, 3, 6), random(2, 5, 6, seed=1), random(2, 5, 6, seed=2)
    gone = torch.tensor([[False, True, False, False, True], [False] * 5])
    close(ours(query, key, value, (~gone).double()), theirs(query, key, value, key_padding_mask=gone)[0])


def copy_attention(ours: Attention, theirs: nn.MultiheadAttention) -> None:
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key.weight, ours.value.weight]))
        nothing = torch.zeros_like(ours.query.bias)
        theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, nothing, ours.value.bias]))
        theirs.out_proj.load_state_dict(ours.merge.state_dict())


def test_attention_has_both_derivatives_also_by_the_weights_of_rows() -> None:
    weight = torch.tensor([[0.5, 0.0, 2.0]], dtype=torch.float64)
    some = weight[:, [0, 2]].clone().requires_grad_()
    parts = [random(1, 2, 2).requires_grad_(), *(random(1, 3, 2, seed=s).requires_grad_() for s in (1, 2))]

    def read(some: Tensor, *parts: Tensor) -> Tensor:
        return attend(*parts, torch.cat([some[:, :1], weight[:, 1:2], some[:, 1:]], 1))

    torch.autograd.gradcheck(read, (some, *parts))
    with sdpa_kernel(SDPBackend.MATH):
        torch.autograd.gradgradcheck(read, (some, *parts))


# --- transformers that read the support ---


def torchs(ours: RowTransformer, width: int, heads: int) -> nn.TransformerEncoder:
    """The same network out of torch's own layers."""
    layer = nn.TransformerEncoderLayer(width, heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
    encoder = nn.TransformerEncoder(layer, len(ours.blocks), nn.LayerNorm(width), enable_nested_tensor=False).double()
    for block, theirs in zip(ours.blocks, encoder.layers, strict=True):
        copy_attention(block.attention, theirs.self_attn)
        pairs = zip((*block.before, block.up, block.down), ("norm1", "norm2", "linear1", "linear2"), strict=True)
        for part, name in pairs:
            getattr(theirs, name).load_state_dict(part.state_dict())
    encoder.norm.load_state_dict(ours.last.state_dict())
    return encoder


def masked(learner: TNP | InContext, shown: Tensor, asked: Tensor, weight: Tensor) -> Tensor:
    """Support and queries as one sequence of which all may look at the support alone, as in TNP-D's code."""
    encoder = torchs(learner.transformer, learner.width, learner.heads)
    n, both = shown.shape[1], torch.cat([shown, asked], 1)
    mask = torch.full((both.shape[1],) * 2, -torch.inf, dtype=torch.float64)
    mask[:, :n] = 0.0
    rows = []
    for t in range(len(both)):
        gone = torch.cat([weight[t] == 0, torch.zeros(asked.shape[1], dtype=torch.bool)])
        hidden = mask.masked_fill(gone, -torch.inf)
        rows.append(encoder(both[t : t + 1], hidden)[:, n:])
    return learner.head(torch.cat(rows))


def test_tnp_is_a_masked_transformer_over_support_and_queries() -> None:
    tasks = waves()
    learner = seeded(lambda: TNP(GAUSSIAN, LINE, 8, 3, heads=2, embed_depth=1))
    shown = learner.embed(torch.cat([tasks.support.x, tasks.support.y], -1))
    asked = learner.embed(torch.cat([tasks.query.x, torch.zeros_like(tasks.query.y)], -1))
    close(predictions(learner, tasks), masked(learner, shown, asked, tasks.support.weight))


@pytest.mark.parametrize("objective", [GAUSSIAN, Classification(3)], ids=["regression", "classification"])
def test_in_context_is_a_masked_transformer_over_support_and_queries(objective: Objective) -> None:
    tasks = waves(PLANE, objective)
    net = MLP(PLANE, width=5, depth=1)
    learner = seeded(lambda: InContext(net, objective, 8, 3, heads=2))
    y = tasks.support.y
    if isinstance(objective, Classification):
        y = nn.functional.one_hot(y, 3).double()
    shown, asked = learner.embed(net(tasks.support.x)) + learner.label(y), learner.embed(net(tasks.query.x))
    wanted = masked(learner, shown, asked, tasks.support.weight)
    found = predictions(learner, tasks)
    if isinstance(objective, Classification):
        assert (found[1, :, 2] < -1e3).all()  # task 1 shows two classes
        found, wanted = found[[0, 2]], wanted[[0, 2]]
    close(found, wanted)


@pytest.mark.parametrize("name", ["tnp", "anp", "in_context"])
def test_the_support_twice_says_what_it_says_once(name: str) -> None:
    # softmax sees shares: what such a learner knows of the number of rows, it knows by their places
    tasks = weighted(waves())
    learner = seeded(
        {
            "tnp": lambda: TNP(GAUSSIAN, LINE, 8, 2, heads=2),
            "anp": lambda: ANP(GAUSSIAN, LINE, 8, 1, heads=2, latent=True),
            "in_context": lambda: InContext(MLP(LINE, width=5), GAUSSIAN, 8, 2, heads=2),
        }[name]
    )
    once = predictions(learner, tasks)
    close(predictions(learner, tasks._replace(support=join_rows(tasks.support, tasks.support))), once)
    heavier = tasks.support._replace(weight=3 * tasks.support.weight)
    close(predictions(learner, tasks._replace(support=heavier)), once)


# --- ANP ---


def test_anp_with_uniform_attention_is_cnp() -> None:
    tasks = weighted(waves())
    learner = seeded(lambda: ANP(GAUSSIAN, LINE, 6, 2, attention=0, heads=2))
    peer = CNP(GAUSSIAN, LINE, 6, 2).double()
    peer.encoder.load_state_dict(learner.encoder.rows.state_dict())
    peer.decoder.load_state_dict(learner.decoder.state_dict())
    assert (predictions(learner, tasks) - predictions(peer, tasks)).abs().max() > 1e-3
    with torch.no_grad():
        for part in (learner.cross.query, learner.cross.value, learner.cross.merge):
            part.bias.zero_()
        learner.cross.query.weight.zero_()
        learner.cross.value.weight.copy_(torch.eye(6))
        learner.cross.merge.weight.copy_(torch.eye(6))
    close(predictions(learner, tasks), predictions(peer, tasks))


def test_anp_trains_on_the_evidence_bound() -> None:
    tasks = weighted(waves())
    learner = seeded(lambda: ANP(GAUSSIAN, LINE, 4, 1, heads=2, latent=True)).train()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(3)
        found = learner.meta_loss(tasks)
        torch.manual_seed(3)
        noise = torch.randn(3, 4, dtype=torch.float64)
        rows = join_rows(tasks.support, tasks.query)
        moments = []
        for part in (tasks.support, rows):
            s = learner.beliefs(torch.cat([part.x, part.y], -1), part.weight)
            raw = learner.moments((s * part.weight[..., None]).sum(1) / part.weight.sum(1)[:, None])
            moments.append((raw[:, :4], 0.1 + 0.9 / (1 + (-raw[:, 4:]).exp())))
        (m0, s0), (m1, s1) = moments
        z = (m1 + s1 * noise).unsqueeze(1).expand(-1, rows.x.shape[1], -1)
        state = learner.adapt(tasks.support)
        read = learner.cross(learner.place(rows.x), state["keys"], state["values"], tasks.support.weight)
        prediction = learner.decoder(torch.cat([read, rows.x, z], -1))
    gap = (s0 / s1).log() + (s1.square() + (m1 - m0).square()) / (2 * s0.square()) - 0.5
    close(found, GAUSSIAN.loss(prediction, rows) + gap.sum(1) / rows.weight.sum(1))


def test_anp_predicts_the_moments_of_its_mixture() -> None:
    tasks = waves()
    learner = seeded(lambda: ANP(GAUSSIAN, LINE, 4, 1, heads=2, latent=True, draws=6))
    with torch.no_grad():
        state = learner.adapt(tasks.support)
        belief = learner.belief(state["rows"], state["weight"])
        mean, deviation = GAUSSIAN.mean_and_deviation(learner.predict(state, tasks.query.x))
        # a few values of z put in by hand have those moments too
        z = belief.mean.unsqueeze(1) + torch.tensor([-1.0, 0.5, 2.0]).view(1, 3, 1) * belief.stddev.unsqueeze(1)
        each = learner.answer(state, tasks.query.x, z)
        m, s = GAUSSIAN.mean_and_deviation(combined(GAUSSIAN, each, None))
        ms, ss = GAUSSIAN.mean_and_deviation(each)
    close(m, ms.mean(1))
    close(s.square(), (ss.square() + ms.square()).mean(1) - ms.mean(1).square())
    close(combined(GAUSSIAN, each[:, :1], None), each[:, 0])
    assert mean.shape == deviation.shape == tasks.query.y.shape and (deviation > GAUSSIAN.floor).all()
    few = ANP(GAUSSIAN, LINE, 4, 1, heads=2, latent=True, draws=0).double().eval()
    few.load_state_dict(learner.state_dict())
    close(few.predict(state, tasks.query.x), learner.answer(state, tasks.query.x, belief.mean.unsqueeze(1))[:, 0])


# --- ConvCNP ---


def conv(x_shape: tuple[int, ...], points: int = 0, density: float = 5.0) -> ConvCNP:
    return seeded(lambda: ConvCNP(GAUSSIAN, x_shape, 6, 2, 5, points, density))


@pytest.mark.parametrize("x_shape", [LINE, PLANE], ids=["line", "plane"])
@pytest.mark.parametrize("shift", [0.731, -20.0])
def test_conv_cnp_moves_with_its_data(x_shape: tuple[int, ...], shift: float) -> None:
    tasks, learner = weighted(waves(x_shape)), conv(x_shape)
    moved = Task(*(part._replace(x=part.x + shift) for part in tasks))
    close(predictions(learner, moved), predictions(learner, tasks))
    other = tasks._replace(query=tasks.query._replace(x=tasks.query.x + 0.3))
    assert (predictions(learner, other) - predictions(learner, tasks)).abs().max() > 1e-4


def test_rows_on_the_grid_are_what_the_formula_says() -> None:
    for axes, points in ((1, 6), (2, 5)):
        smooth = seeded(lambda axes=axes, points=points: SetConv(axes, points, 2.0))
        with torch.no_grad():
            smooth.log_scale.copy_(torch.tensor([0.3, 0.6]).log())
        x, y, weight = random(2, 4, axes), random(2, 4, 1, seed=1), random(2, 4, seed=2).abs()
        at = torch.cartesian_prod(*[(torch.arange(points) - (points - 1) / 2) / 2.0] * axes).view(-1, axes).double()
        near = (-(at[None, :, None] - x[:, None]).square().sum(-1) / (2 * 0.3**2)).exp() * weight.unsqueeze(1)
        found = smooth.onto(x, y, weight).flatten(2)
        close(found[:, 0], near.sum(-1), 1e-6)
        close(found[:, 1], (near * y.mT).sum(-1) / (near.sum(-1) + 1e-8), 1e-6)
        grid = random(2, 3, *[points] * axes)
        back = (-(at[None, None] - x[:, :, None]).square().sum(-1) / (2 * 0.6**2)).exp()
        total = (2.0 * 0.6 * math.sqrt(2 * math.pi)) ** axes
        close(smooth.back(grid, x), back @ grid.flatten(2).mT / total, 1e-6)
        wide = seeded(lambda axes=axes: SetConv(axes, 60, 2.0))  # a constant on a wide grid is read as it is
        close(wide.back(torch.ones(2, 1, *[60] * axes, dtype=torch.float64), x), torch.ones_like(y), 1e-3)


def test_conv_cnp_looks_no_further_than_its_kernels() -> None:
    learner = conv(LINE, points=200, density=5.0)
    x = torch.tensor([[[-10.0], [0.0], [0.4], [10.0]]], dtype=torch.float64)
    support = Examples(x, random(1, 4, 1), torch.ones(1, 4, dtype=torch.float64))
    far = support._replace(y=support.y + torch.tensor([5.0, 0.0, 0.0, -5.0]).view(1, 4, 1))
    asked = Examples(torch.tensor([[[0.1], [9.0]]], dtype=torch.float64), random(1, 2, 1), torch.ones(1, 2))
    before, after = (predictions(learner, Task(part, asked)) for part in (support, far))
    close(before[:, 0], after[:, 0])
    assert (before[:, 1] - after[:, 1]).abs().max() > 1e-3


def test_one_end_of_the_grid_does_not_see_the_other() -> None:
    cnn = seeded(lambda: GridCNN(1, 1, 3, 2, 5))
    grid = random(1, 1, 12)
    other = grid.clone()
    other[..., 0] += 1.0
    with torch.no_grad():
        change = (cnn(other) - cnn(grid)).abs().amax((0, 1))
    assert change[0] > 0 and change[5:7].any() and not change[7:].any()  # three kernels, two places to either side


# --- what they refuse, and what they have in common ---


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TNP(GAUSSIAN, LINE, width=10, heads=4), "width that heads divides"),
        (lambda: TNP(GAUSSIAN, LINE, depth=0), "depth 0"),
        (lambda: ANP(GAUSSIAN, LINE, draws=-1), "draws is -1"),
        (lambda: ANP(GAUSSIAN, LINE, attention=-1), "give 0 or more"),
        (lambda: ConvCNP(GAUSSIAN, (3,)), "one or two axes"),
        (lambda: ConvCNP(GAUSSIAN, LINE, kernel=4), "odd kernel"),
        (lambda: ConvCNP(GAUSSIAN, LINE, density=0.0), "density above 0"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()


@pytest.mark.parametrize("make", [
    lambda: ANP(GAUSSIAN, LINE, 8, 1, heads=2, latent=True),
    lambda: TNP(GAUSSIAN, LINE, 8, 2, heads=2),
    lambda: ConvCNP(GAUSSIAN, LINE, 4, 1, 3),
], ids=["anp", "tnp", "conv_cnp"])  # fmt: skip
def test_a_stream_of_rows_is_all_of_them(make) -> None:
    tasks, learner = weighted(waves()), seeded(make)
    state = None
    with torch.no_grad():
        for i in range(tasks.support.weight.shape[1]):  # one row at a time, the first of weight 0
            state = learner.adapt(map_tensors(tasks.support, lambda f, i=i: f[:, i : i + 1]), prior=state)
        assert state is not None
        close(learner.predict(state, tasks.query.x), predictions(learner, tasks))
        # nothing at all is known: every row has weight 0
        nothing = learner.adapt(tasks.support._replace(weight=torch.zeros_like(tasks.support.weight)))
        found = learner.predict(nothing, tasks.query.x)
    assert torch.isfinite(found).all() and math.isfinite(float(found.sum()))
