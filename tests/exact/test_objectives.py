"""Objectives against torch's own losses, and objects against their JSON."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from quickstudy.core import OBJECTIVES, Classification, GaussianRegression, Objective, Regression
from quickstudy.core.catalogue import build, catalogue, describe
from quickstudy.core.errors import UserError
from quickstudy.core.objective import row_mean
from quickstudy.core.source import Source, Spec
from quickstudy.core.task import Examples, examples
from quickstudy.learners import LEARNERS, MAML, make
from quickstudy.nets import MLP, NETS
from quickstudy.tasks import TASKS, Glyphs, Mixture, Sinusoid

TASK, ROWS, WAY = 3, 6, 4


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def labelled(way: int = WAY) -> Examples:
    y = torch.randint(way, (TASK, ROWS), generator=torch.Generator().manual_seed(0))
    return examples(noise(TASK, ROWS, 2), y)


def padded(rows: Examples, y: Tensor) -> Examples:
    """Two more rows of weight 0 a task, with targets `y`."""
    zeros = torch.zeros(TASK, 2, dtype=torch.float64)
    x = torch.cat([rows.x, noise(TASK, 2, 2)], 1)  # type: ignore[list-item]
    return Examples(x, torch.cat([rows.y, y], 1), torch.cat([rows.weight, zeros], 1))


# --- classification ---


def test_classification_is_cross_entropy() -> None:
    objective, rows, logits = Classification(WAY), labelled(), noise(TASK, ROWS, WAY, seed=1)
    wanted = torch.stack([torch.nn.functional.cross_entropy(z, y) for z, y in zip(logits, rows.y, strict=True)])
    found = objective.measure(logits, rows)
    torch.testing.assert_close(objective.loss(logits, rows), wanted)
    torch.testing.assert_close(found["log_likelihood"], -wanted)
    right = [
        sum(int(z.argmax()) == int(k) for z, k in zip(a, b, strict=True)) / ROWS
        for a, b in zip(logits, rows.y, strict=True)
    ]
    assert found["accuracy"].tolist() == pytest.approx(right)
    assert torch.equal(objective.score(logits, rows), found["accuracy"])


def test_a_class_that_is_hidden_has_probability_zero() -> None:
    objective = Classification(WAY)
    support = examples(noise(1, 3, 2), torch.tensor([[0, 2, 2]]))
    assert objective.seen(support).tolist() == [[1, 0, 1, 0]]
    for dtype in (torch.float32, torch.float64):
        logits = 50 * noise(1, 5, WAY).to(dtype)
        shares = objective.hide_unseen(logits, objective.seen(support)).softmax(-1)
        assert shares[..., [1, 3]].eq(0).all()
        torch.testing.assert_close(shares[..., [0, 2]], logits[..., [0, 2]].softmax(-1))


@pytest.mark.parametrize("scale", [1.0, 1e4, 1e6, 1e12])
def test_a_hidden_class_is_below_logits_of_any_size(scale: float) -> None:
    # squared distances of raw inputs go far below any constant
    logits = -scale * (1 + noise(1, 5, WAY).abs().float())
    hidden = Classification(WAY).hide_unseen(logits, torch.tensor([[0.0, 1.0, 1.0, 0.0]]))
    assert (hidden[..., [0, 3]].amax(-1) < logits[..., [1, 2]].amin(-1)).all()
    assert hidden.softmax(-1)[..., [0, 3]].eq(0).all()
    assert torch.equal(hidden[..., [1, 2]], logits[..., [1, 2]])


def test_a_class_whose_rows_weigh_nothing_is_unseen() -> None:
    weight = torch.tensor([[1.0, 0.0, 0.3, 0.0]])
    support = Examples(torch.zeros(1, 4, 1), torch.tensor([[0, 1, 2, 2]]), weight)
    assert Classification(3).seen(support).tolist() == [[1, 0, 1]]
    torch.testing.assert_close(Classification(3).one_hot(support).sum(1), torch.tensor([[1.0, 0.0, 0.3]]))


def test_hidden_classes_leave_the_loss_of_the_others_finite_and_their_gradient_zero() -> None:
    logits = noise(1, 2, 3).requires_grad_()
    rows = examples(noise(1, 2, 1), torch.tensor([[0, 1]]))
    objective = Classification(3)
    objective.loss(objective.hide_unseen(logits, torch.tensor([[1.0, 1.0, 0.0]])), rows).sum().backward()
    assert logits.grad is not None
    assert logits.grad[..., 2].eq(0).all() and logits.grad[..., :2].ne(0).all()


# --- what all objectives share ---

CASES: dict[str, tuple[Objective, Examples]] = {
    "classification": (Classification(WAY), labelled()),
    "regression": (Regression(2), examples(noise(TASK, ROWS, 2), noise(TASK, ROWS, 2, seed=2))),
    "gaussian": (GaussianRegression(2), examples(noise(TASK, ROWS, 2), noise(TASK, ROWS, 2, seed=2))),
}


@pytest.mark.parametrize("case", CASES)
def test_padding_does_not_count(case: str) -> None:
    objective, rows = CASES[case]
    rubbish = rows.y[:, :2].clone().zero_() if case == "classification" else 1e6 * noise(TASK, 2, 2, seed=8)
    more = padded(rows, rubbish)
    prediction = noise(TASK, ROWS + 2, objective.size, seed=1)
    torch.testing.assert_close(objective.loss(prediction, more), objective.loss(prediction[:, :ROWS], rows))
    clean = objective.measure(prediction[:, :ROWS], rows)
    for name, value in objective.measure(prediction, more).items():
        torch.testing.assert_close(value, clean[name])


@pytest.mark.parametrize("case", CASES)
def test_a_weight_of_two_is_the_row_twice(case: str) -> None:
    objective, rows = CASES[case]
    prediction = noise(TASK, ROWS, objective.size, seed=1)
    weight = rows.weight.clone()
    weight[:, 0] = 2.0
    twice = Examples(*(torch.cat([f, f[:, :1]], 1) for f in rows))  # type: ignore[arg-type]
    again = torch.cat([prediction, prediction[:, :1]], 1)
    torch.testing.assert_close(
        objective.loss(prediction, rows._replace(weight=weight)), objective.loss(again, twice)
    )


@pytest.mark.parametrize("case", CASES)
def test_measures_are_those_that_are_declared(case: str) -> None:
    objective, rows = CASES[case]
    prediction = noise(TASK, ROWS, objective.size, seed=1)
    found = objective.measure(prediction, rows)
    assert list(found) == list(objective.measures)
    assert all(value.shape == (TASK,) for value in found.values())
    name, sign = next(iter(objective.measures.items()))
    assert torch.equal(objective.score(prediction, rows), sign * found[name])


def test_the_mean_over_no_rows_is_zero() -> None:
    assert row_mean(torch.ones(1, 2), torch.zeros(1, 2)).tolist() == [0.0]


# --- regression ---


def test_regression_is_the_mean_squared_error() -> None:
    objective, rows = CASES["regression"]
    prediction = noise(TASK, ROWS, 2, seed=1)
    wanted = (prediction - rows.y).square().mean((1, 2))
    torch.testing.assert_close(objective.loss(prediction, rows), wanted)
    torch.testing.assert_close(objective.score(prediction, rows), -wanted)


def test_gaussian_regression_is_the_likelihood_of_a_normal() -> None:
    objective, rows = GaussianRegression(2, floor=0.05), CASES["gaussian"][1]
    prediction = noise(TASK, ROWS, 4, seed=1)
    normal = Normal(prediction[..., :2], 0.05 + torch.nn.functional.softplus(prediction[..., 2:]))
    mean, deviation = objective.mean_and_deviation(prediction)
    torch.testing.assert_close(mean, normal.mean)
    torch.testing.assert_close(deviation, normal.stddev)
    torch.testing.assert_close(objective.row_loss(prediction, rows.y), -normal.log_prob(rows.y).mean(-1))
    found = objective.measure(prediction, rows)
    torch.testing.assert_close(found["log_likelihood"], normal.log_prob(rows.y).mean((1, 2)))
    torch.testing.assert_close(found["mse"], (normal.mean - rows.y).square().mean((1, 2)))


def test_the_deviation_never_falls_below_its_floor() -> None:
    _, deviation = GaussianRegression(1, floor=0.01).mean_and_deviation(torch.tensor([[[0.0, -1e4]]]))
    assert deviation.item() == pytest.approx(0.01)


def test_coverage_counts_what_lies_in_the_central_90_percent() -> None:
    # of the quantiles 0.0125, 0.0375, ..., 0.9875 of the prediction, 36 of 40 lie between 0.05 and 0.95
    shares = (torch.arange(40, dtype=torch.float64) + 0.5) / 40
    prediction = torch.tensor([2.0, 0.7], dtype=torch.float64).expand(1, 40, 2)
    objective = GaussianRegression(1)
    mean, deviation = objective.mean_and_deviation(prediction)
    y = Normal(mean[..., 0], deviation[..., 0]).icdf(shares).unsqueeze(-1)
    assert objective.measure(prediction, examples(y, y))["coverage_90"].item() == pytest.approx(0.9)


# --- objects and their JSON ---


def through_json(thing: object, slot: str) -> object:
    card = describe(thing, slot)
    again = build(json.loads(json.dumps(card)), slot)
    assert type(again) is type(thing) and describe(again, slot) == card
    return again


@pytest.mark.parametrize("name", LEARNERS)
def test_learners_go_through_json(name: str) -> None:
    kind = LEARNERS[name].kinds[0]
    images = Spec("classification", (1, 16, 16), way=3, train_classes=7)
    specs = [images, Spec("classification", (4,), way=3, train_classes=7)]
    other = {
        "regression": [Spec("regression", (2,), y_size=3)],
        "zero-shot": [
            Spec("zero-shot", (4,), way=3, train_classes=7, description_shape=(size,)) for size in (5, 4)
        ],
    }
    for spec in filter(LEARNERS[name].fits, other.get(kind, specs)):
        learner = make(name, spec)
        again = through_json(learner, "learner")
        shapes = [{k: v.shape for k, v in x.state_dict().items()} for x in (learner, again)]  # type: ignore
        assert shapes[0] == shapes[1]


@pytest.mark.parametrize("name", TASKS)
def test_sources_go_through_json(name: str) -> None:
    again = through_json(TASKS[name](), "tasks")
    assert isinstance(again, Source)


def test_arguments_come_back_as_they_were_given() -> None:
    source = through_json(Mixture(shot=(3, 5), noise=0.1), "tasks")
    assert isinstance(source, Mixture) and (source.shot, source.query, source.noise) == ((3, 5), 10, 0.1)
    net = MLP((2, 3), out=4, width=7, depth=1)
    maml = through_json(MAML(net, Classification(4), 3, 0.2, True, 9, "checkpoint"), "learner")
    assert isinstance(maml, MAML) and isinstance(maml.net, MLP)
    found = (maml.inner_steps, maml.inner_lr, maml.first_order, maml.eval_steps, maml.memory)
    assert found == (3, 0.2, True, 9, "checkpoint")
    assert (maml.net.x_shape, maml.net.out, maml.net.width, maml.net.depth) == ((2, 3), 4, 7, 1)


def test_each_slot_has_its_catalogue() -> None:
    for slot, known in {"learner": LEARNERS, "net": NETS, "objective": OBJECTIVES, "tasks": TASKS}.items():
        assert catalogue(slot) is known
        assert all(known.key(cls) == key for key, cls in known.items())


@pytest.mark.parametrize(
    ("card", "slot", "sentence"),
    [
        ({"name": "protnet"}, "learner", r"^unknown learner 'protnet': did you mean 'protonet'\?$"),
        ({"name": "sinus"}, "tasks", r"^unknown tasks 'sinus': did you mean 'sinusoid'\?$"),
        ({"name": "conv5"}, "net", r"^unknown net 'conv5': did you mean 'conv4'\?$"),
        ({"name": "os.system"}, "objective", "choose one of: classification, gaussian, regression"),
        (
            {"name": "sinusoid", "shots": 3},
            "tasks",
            r"tasks 'sinusoid' has no option 'shots': did you mean 'shot'\?",
        ),
        ({"name": "mlp"}, "net", "net 'mlp' needs x_shape"),
        ({"name": "centroid", "objective": {"name": "clasification", "way": 3}}, "learner", "'classification'"),
        ({}, "learner", "the description of the learner has no name"),
        ({"name": 3}, "learner", "the description of the learner has no name"),
    ],
)
def test_unknown_names_are_answered_with_the_nearest(card: dict, slot: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        build(card, slot)


def test_a_class_outside_the_catalogue_is_told_how_to_get_in() -> None:
    class Waves(Sinusoid):
        pass

    with pytest.raises(UserError, match=r"catalogue\('tasks'\)\.add\('name', Waves\)"):
        describe(Waves(), "tasks")


def test_make_refuses_what_a_method_cannot_take() -> None:
    with pytest.raises(UserError, match="protonet takes classification tasks, and these are regression: use "):
        make("protonet", Sinusoid().spec)
    with pytest.raises(UserError, match=r"did you mean 'maml'"):
        make("mamls", Glyphs().spec)
