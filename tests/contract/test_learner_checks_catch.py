"""Every check catches a learner that is wrong in just that respect, and passes the right one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from quickstudy import core
from quickstudy.core import Classification, Objective
from quickstudy.core.catalogue import Catalogue
from quickstudy.core.learner import MetaLearner
from quickstudy.core.task import Examples, Inputs, State, Task
from quickstudy.tasks.arrays import Arrays
from quickstudy.testing import (
    ContractError,
    check_learner,
    learner_checks,
    synthetic_tasks,
)

LEARNER_CHECKS = {check.name: check.run for check in learner_checks()}


class Right(MetaLearner):
    """Prototypes of linear features, kept as sums: a learner with nothing wrong."""

    kinds = ("classification",)
    any_way = True
    incremental = True
    objective: Classification

    def __init__(self, objective: Objective, width: int = 4):
        super().__init__()
        self.objective = objective
        self.width = width
        self.matrix = nn.Parameter(torch.randn(3, width, generator=torch.Generator().manual_seed(0)))
        self.register_buffer("calls", torch.zeros(()))

    def features(self, x: Inputs) -> Tensor:
        assert isinstance(x, Tensor)
        return x @ self.matrix

    def adapt(self, support: Examples, prior: State | None = None) -> State:
        columns = self.objective.one_hot(support)
        sums, counts = columns.transpose(1, 2) @ self.features(support.x), columns.sum(1)
        if prior is not None:
            sums, counts = sums + prior["sums"], counts + prior["counts"]
        return {"sums": sums, "counts": counts}

    def logits(self, state: State, x: Inputs) -> Tensor:
        centres = state["sums"] / state["counts"].clamp_min(1e-12).unsqueeze(-1)
        return -(self.features(x).unsqueeze(2) - centres.unsqueeze(1)).square().sum(-1)

    def predict(self, state: State, x: Inputs, weight: Tensor | None = None) -> Tensor:
        return self.objective.hide_unseen(self.logits(state, x), state["counts"])


class WrongKinds(Right):
    kinds = ("regression",)


class WrongShape(Right):
    def predict(self, state, x, weight=None):
        return super().predict(state, x).transpose(1, 2)


class NotFinite(Right):
    def predict(self, state, x, weight=None):
        return super().predict(state, x) / 0


class StoresState(Right):
    def adapt(self, support, prior=None):
        self.state = super().adapt(support, prior)
        return self.state


class CountsCalls(Right):
    def adapt(self, support, prior=None):
        if self.training:
            self.calls += 1
        return super().adapt(support, prior)


class DescendsInPlace(Right):
    def adapt(self, support, prior=None):
        self.matrix.data -= 0.1
        return super().adapt(support, prior)


class LeavesGradients(Right):
    def adapt(self, support, prior=None):
        with torch.enable_grad():
            self.features(support.x).sum().backward()
        return super().adapt(support, prior)


class KeepsNotesInObjective(Right):
    def adapt(self, support, prior=None):
        self.objective.last = support.y  # type: ignore[attr-defined]
        return super().adapt(support, prior)


class WritesSupport(Right):
    def adapt(self, support, prior=None):
        support.x.sub_(support.x.mean(1, keepdim=True))
        return super().adapt(support, prior)


class StoresAnswer(Right):
    def predict(self, state, x, weight=None):
        self.answer = super().predict(state, x)
        return self.answer


class WritesState(Right):
    def predict(self, state, x, weight=None):
        state["counts"] += 1
        return super().predict(state, x)


class Random(Right):
    def predict(self, state, x, weight=None):
        prediction = super().predict(state, x)
        return prediction + torch.randn_like(prediction)


class ObjectInState(Right):
    def adapt(self, support, prior=None):
        return {**super().adapt(support, prior), "scale": 1.0}


class StateIsTuple(Right):
    def adapt(self, support, prior=None):
        return tuple(super().adapt(support, prior).values())

    def predict(self, state, x, weight=None):
        return super().predict(dict(zip(("sums", "counts"), state, strict=True)), x)


class NoTaskAxis(Right):
    def adapt(self, support, prior=None):
        return {**super().adapt(support, prior), "scale": torch.ones(())}


class HistoryUnderNoGrad(Right):
    def adapt(self, support, prior=None):
        with torch.enable_grad():
            return super().adapt(support, prior)


class HiddenAttribute(Right):
    """Something rides on a tensor that no file keeps."""

    def adapt(self, support, prior=None):
        state = super().adapt(support, prior)
        state["sums"].shift = 1.0  # type: ignore[attr-defined]
        return state

    def predict(self, state, x, weight=None):
        return super().predict(state, x) + getattr(state["sums"], "shift", 0.0)


class CentresOverTasks(Right):
    def features(self, x):
        rows = super().features(x)
        return rows / rows.square().mean((0, 1), keepdim=True)


class LossOverTasks(Right):
    def meta_loss(self, tasks):
        losses = super().meta_loss(tasks)
        return losses / losses.sum()


class CentresOverTasksInTraining(Right):
    def features(self, x):
        rows = super().features(x)
        return rows / rows.square().mean((0, 1), keepdim=True) if self.training else rows


class CountsPaddingInTraining(Right):
    def adapt(self, support, prior=None):
        weight = torch.ones_like(support.weight) if self.training else support.weight
        return super().adapt(support._replace(weight=weight), prior)


class NeedsGradMode(Right):
    def adapt(self, support, prior=None):
        torch.autograd.grad(self.features(support.x).sum(), self.matrix)
        return super().adapt(support, prior)


class OtherUnderNoGrad(Right):
    def features(self, x):
        return super().features(x) * (1 if torch.is_grad_enabled() else 2)


class CountsPadding(Right):
    def adapt(self, support, prior=None):
        return super().adapt(support._replace(weight=torch.ones_like(support.weight)), prior)


class CountsQueryPadding(Right):
    def meta_loss(self, tasks):
        prediction = self.predict(self.adapt(tasks.support), tasks.query.x)
        return self.objective.row_loss(prediction, tasks.query.y).mean(1)


class ShowsUnseen(Right):
    def predict(self, state, x, weight=None):
        return self.logits(state, x)


class LooksAtOtherQueries(Right):
    def logits(self, state, x):
        logits = super().logits(state, x)
        return logits - logits.mean(1, keepdim=True)


class SaysTransductive(Right):
    transductive = True  # type: ignore[assignment]


class OrderMatters(Right):
    def adapt(self, support, prior=None):
        place = torch.arange(1, support.weight.shape[1] + 1, dtype=support.weight.dtype)
        return super().adapt(support._replace(weight=support.weight * place), prior)


class SaysOrderMatters(Right):
    exchangeable = False


class ForgetsPrior(Right):
    def adapt(self, support, prior=None):
        return super().adapt(support)


class WeightPerClass(Right):
    def __init__(self, objective: Objective, width: int = 4):
        super().__init__(objective, width)
        self.bias = nn.Parameter(torch.zeros(self.objective.way))

    def logits(self, state, x):
        return super().logits(state, x) + self.bias


class PrefersFirstClass(Right):
    def logits(self, state, x):
        logits = super().logits(state, x)
        return logits - torch.arange(logits.shape[-1], dtype=logits.dtype)


class LossIsScalar(Right):
    def meta_loss(self, tasks):
        return super().meta_loss(tasks).mean()


class ForwardIsSum(Right):
    def forward(self, tasks):
        return self.meta_loss(tasks).sum()


class NoGradient(Right):
    def features(self, x):
        return super().features(x).detach()


class Detaches(Right):
    """As if the prototypes did not depend on the features."""

    def adapt(self, support, prior=None):
        return {k: v.detach() for k, v in super().adapt(support, prior).items()}


class SaysInexact(Right):
    exact_gradient = False


class ChangesArguments(Right):
    def __init__(self, objective: Objective, width: int = 4):
        super().__init__(objective, width)
        self.width = width * 2


class LearntOutsideWeights(Right):
    def __init__(self, objective: Objective, width: int = 4):
        super().__init__(objective, width)
        self.scale = torch.rand(()).item()

    def features(self, x):
        return super().features(x) * self.scale


class KeepsObject(Right):
    def __init__(self, objective: Objective, width: int = 4, device: object = torch.device("cpu")):
        super().__init__(objective, width)
        self.device = device


class DescendsUnsaid(Right):
    def adapt(self, support, prior=None):
        with torch.enable_grad():
            torch.autograd.grad(self.features(support.x).sum(), self.matrix)
        return super().adapt(support, prior)


class SaysItDescends(Right):
    descends = True


WRONG_LEARNERS = [
    ("kinds_are_declared", WrongKinds),
    ("prediction_has_shape", WrongShape),
    ("prediction_has_shape", NotFinite),
    ("adapt_changes_nothing", StoresState),
    ("adapt_changes_nothing", CountsCalls),
    ("adapt_changes_nothing", DescendsInPlace),
    ("adapt_changes_nothing", LeavesGradients),
    ("adapt_changes_nothing", KeepsNotesInObjective),
    ("adapt_changes_nothing", WritesSupport),
    ("predict_changes_nothing", StoresAnswer),
    ("predict_changes_nothing", WritesState),
    ("predict_twice_is_same", Random),
    ("state_is_tensors", ObjectInState),
    ("state_is_tensors", StateIsTuple),
    ("state_is_tensors", NoTaskAxis),
    ("state_is_tensors", HistoryUnderNoGrad),
    ("state_is_tensors", HiddenAttribute),
    ("tasks_never_mix", CentresOverTasks),
    ("tasks_never_mix", LossOverTasks),
    ("tasks_never_mix", CentresOverTasksInTraining),
    ("works_under_no_grad", NeedsGradMode),
    ("works_under_no_grad", OtherUnderNoGrad),
    ("padding_never_counts", CountsPadding),
    ("padding_never_counts", CountsQueryPadding),
    ("padding_never_counts", CountsPaddingInTraining),
    ("unseen_class_is_lowest", ShowsUnseen),
    ("transductive_is_declared", LooksAtOtherQueries),
    ("transductive_is_declared", SaysTransductive),
    ("exchangeable_is_declared", OrderMatters),
    ("exchangeable_is_declared", SaysOrderMatters),
    ("incremental_is_declared", ForgetsPrior),
    ("any_way_is_declared", WeightPerClass),
    ("label_permutation", PrefersFirstClass),
    ("descends_is_declared", DescendsUnsaid),
    ("descends_is_declared", SaysItDescends),
    ("loss_is_per_task", LossIsScalar),
    ("loss_is_per_task", ForwardIsSum),
    ("loss_is_per_task", NoGradient),
    ("meta_gradient_is_declared", Detaches),
    ("meta_gradient_is_declared", SaysInexact),
    ("describe_and_build", ChangesArguments),
    ("describe_and_build", LearntOutsideWeights),
    ("describe_and_build", KeepsObject),
]


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A catalogue in which the classes above can be found, for the length of a test."""
    monkeypatch.setattr(core.catalogue, "_EVERY", dict(core.catalogue._EVERY))
    Catalogue("learner", {c.__name__: c for c in (Right, *(c for _, c in WRONG_LEARNERS))})
    yield


def tasks() -> Task:
    return synthetic_tasks(Classification(3), (3,))


def test_right_learner_passes_everything() -> None:
    check_learner(Right(Classification(3)), x_shape=(3,))
    check_learner(Right(Classification(3)), tasks())
    check_learner(Right(Classification(3)), synthetic_tasks(Classification(3), (3,), ragged=True))


@pytest.mark.parametrize(("check", "wrong"), WRONG_LEARNERS, ids=lambda p: getattr(p, "__name__", p))
def test_wrong_learner_is_caught(check: str, wrong: type[MetaLearner]) -> None:
    with pytest.raises(ContractError, match=rf"^{check.removesuffix('_is_declared')}.*; .*\.$"):
        LEARNER_CHECKS[check](wrong(Classification(3)), tasks())


@pytest.mark.parametrize("wrong", sorted({w for _, w in WRONG_LEARNERS}, key=lambda c: c.__name__))
def test_check_learner_catches_it_too(wrong: type[MetaLearner]) -> None:
    with pytest.raises((ContractError, RuntimeError, AttributeError, TypeError)):
        check_learner(wrong(Classification(3)), tasks())


class DropsFeatures(Right):
    """Random in training, which is allowed there."""

    def features(self, x):
        return nn.functional.dropout(super().features(x), 0.3, self.training)


def test_dropout_in_training_passes() -> None:
    Catalogue("learner", {"drops": DropsFeatures})
    check_learner(DropsFeatures(Classification(3)), tasks())


def test_every_learner_check_has_a_wrong_learner() -> None:
    assert {name for name, _ in WRONG_LEARNERS} == set(LEARNER_CHECKS)


def test_checking_leaves_the_learner_alone() -> None:
    learner = Right(Classification(3)).train()
    before = {k: v.clone() for k, v in learner.state_dict().items()}
    check_learner(learner, tasks())
    assert learner.training and all(torch.equal(v, before[k]) for k, v in learner.state_dict().items())
    assert learner.matrix.dtype == torch.float32


def test_a_source_can_lend_its_tasks() -> None:
    source = Arrays.of(torch.arange(120.0).sin().view(60, 2), torch.arange(12).repeat(5), way=3, shot=1, query=2)

    class TwoNumbers(Right):
        def __init__(self, objective: Objective, width: int = 4):
            super().__init__(objective, width)
            self.matrix = nn.Parameter(self.matrix.detach()[:2].clone())

    Catalogue("learner", {"two": TwoNumbers})
    check_learner(TwoNumbers(source.spec.objective()), source=source)
