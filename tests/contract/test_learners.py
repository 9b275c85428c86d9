"""Every learner of the catalogue against every check: one row a learner, with the variants that matter."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch

from quickstudy.core import Classification, GaussianRegression, Objective, Regression
from quickstudy.core.learner import MetaLearner
from quickstudy.core.source import Spec
from quickstudy.learners import (
    ANIL,
    CNP,
    IMAML,
    LEARNERS,
    MAML,
    R2D2,
    Centroid,
    Chance,
    LinearProbe,
    Logistic,
    Pooled,
    ProtoMAML,
    ProtoNet,
    Reptile,
    Scratch,
    make,
)
from quickstudy.nets import MLP, Conv4
from quickstudy.nets.norm import Norm
from quickstudy.testing import Check, ContractError, check_learner, learner_checks, synthetic_tasks

VECTOR, POINT, IMAGE = (3,), (1,), (1, 16, 16)


class Row(NamedTuple):
    """A learner, the shape of the rows it takes, and whether its tasks are padded."""

    make: Callable[[], MetaLearner]
    x_shape: tuple[int, ...] = VECTOR
    ragged: bool = False


def blobs() -> Classification:
    return Classification(3)


def pairs() -> Classification:
    return Classification(2)


def waves() -> Regression:
    return Regression(1)


def mlp(objective: Objective | None = None, x_shape: tuple[int, ...] = VECTOR) -> MLP:
    return MLP(x_shape, out=objective.size if objective else None, width=6, depth=2)


def conv(norm: Norm, objective: Objective | None = None) -> Conv4:
    return Conv4(IMAGE, out=objective.size if objective else None, channels=8, norm=norm)


def maml(objective: Objective, x_shape: tuple[int, ...] = VECTOR, **options) -> MAML:
    return MAML(mlp(objective, x_shape), objective, inner_lr=0.1, **options)


def anil(objective: Objective, x_shape: tuple[int, ...] = VECTOR, **options) -> ANIL:
    return ANIL(mlp(None, x_shape), objective, **options)


def imaml(objective: Objective, x_shape: tuple[int, ...] = VECTOR, **options) -> IMAML:
    return IMAML(mlp(objective, x_shape), objective, inner_lr=0.1, **options)


def conv_maml(norm: Norm, **options) -> MAML:
    return MAML(conv(norm, pairs()), pairs(), inner_lr=0.05, **options)


ROWS: dict[str, Row] = {
    "maml": Row(lambda: maml(blobs(), inner_steps=1)),
    "maml-5-steps": Row(lambda: maml(blobs(), inner_steps=5)),
    "maml-checkpoint": Row(lambda: maml(blobs(), inner_steps=5, memory="checkpoint")),
    "maml-sweep": Row(lambda: maml(blobs(), inner_steps=5, memory="sweep")),
    "maml-sweep-ragged": Row(lambda: maml(waves(), POINT, inner_steps=3, memory="sweep"), POINT, ragged=True),
    "maml-truncated": Row(lambda: maml(blobs(), inner_steps=5, memory="truncated:2")),
    "maml-implicit": Row(lambda: maml(blobs(), inner_steps=5, memory="implicit")),
    "maml-eval-steps": Row(lambda: maml(blobs(), inner_steps=1, eval_steps=3)),
    "maml-first-order": Row(lambda: maml(blobs(), inner_steps=1, first_order=True)),
    "maml-first-order-5-steps": Row(lambda: maml(blobs(), inner_steps=5, first_order=True)),
    "maml-ragged": Row(lambda: maml(blobs(), inner_steps=2), ragged=True),
    "maml-regression": Row(lambda: maml(waves(), POINT, inner_steps=1), POINT),
    "maml-regression-ragged": Row(lambda: maml(waves(), POINT, inner_steps=5), POINT, ragged=True),
    "maml-gaussian": Row(lambda: maml(GaussianRegression(1), POINT, inner_steps=1), POINT),
    "maml-conv-batch": Row(lambda: conv_maml("batch", inner_steps=1), IMAGE),
    "maml-conv-batch-ragged": Row(lambda: conv_maml("batch", inner_steps=1), IMAGE, ragged=True),
    "maml-conv-batch-checkpoint": Row(lambda: conv_maml("batch", inner_steps=2, memory="checkpoint"), IMAGE),
    "maml-conv-batch-sweep": Row(lambda: conv_maml("batch", inner_steps=2, memory="sweep"), IMAGE, ragged=True),
    "maml-conv-running": Row(lambda: conv_maml("running", inner_steps=1), IMAGE),
    "maml-conv-group": Row(lambda: conv_maml("group", inner_steps=1), IMAGE),
    "anil": Row(lambda: anil(blobs(), inner_steps=1)),
    "anil-5-steps": Row(lambda: anil(blobs(), inner_steps=5)),
    "anil-eval-steps": Row(lambda: anil(blobs(), inner_steps=1, eval_steps=3)),
    "anil-first-order": Row(lambda: anil(blobs(), inner_steps=3, first_order=True)),
    "anil-ragged": Row(lambda: anil(blobs(), inner_steps=3), ragged=True),
    "anil-regression": Row(lambda: anil(waves(), POINT, inner_steps=1), POINT),
    "anil-regression-ragged": Row(lambda: anil(waves(), POINT, inner_steps=5), POINT, ragged=True),
    "anil-regression-first-order": Row(lambda: anil(waves(), POINT, inner_steps=5, first_order=True), POINT),
    "anil-gaussian-ragged": Row(lambda: anil(GaussianRegression(1), POINT, inner_steps=2), POINT, ragged=True),
    "anil-conv-batch": Row(lambda: ANIL(conv("batch"), pairs(), inner_steps=2), IMAGE, ragged=True),
    "anil-conv-running": Row(lambda: ANIL(conv("running"), pairs(), inner_steps=2), IMAGE),
    "anil-conv-running-ragged": Row(lambda: ANIL(conv("running"), pairs(), inner_steps=2), IMAGE, ragged=True),
    "anil-conv-group": Row(lambda: ANIL(conv("group"), pairs(), inner_steps=2), IMAGE),
    "imaml": Row(lambda: imaml(blobs(), inner_steps=4)),
    "imaml-eval-steps": Row(lambda: imaml(blobs(), inner_steps=2, eval_steps=5)),
    "imaml-ragged": Row(lambda: imaml(blobs(), inner_steps=4), ragged=True),
    "imaml-regression": Row(lambda: imaml(waves(), POINT, inner_steps=4), POINT),
    "imaml-regression-ragged": Row(lambda: imaml(waves(), POINT, inner_steps=4, cg_steps=2), POINT, ragged=True),
    "imaml-gaussian": Row(lambda: imaml(GaussianRegression(1), POINT, inner_steps=3), POINT),
    "imaml-conv-batch": Row(lambda: IMAML(conv("batch", pairs()), pairs(), 2, cg_steps=2), IMAGE, ragged=True),
    "imaml-conv-group": Row(lambda: IMAML(conv("group", pairs()), pairs(), 2, cg_steps=2), IMAGE),
    "reptile": Row(lambda: Reptile(mlp(blobs()), blobs(), inner_steps=3, eval_steps=4)),
    "reptile-regression": Row(
        lambda: Reptile(mlp(waves(), POINT), waves(), 3, eval_steps=4), POINT, ragged=True
    ),
    "reptile-conv-batch": Row(lambda: Reptile(conv("batch", pairs()), pairs(), 2, eval_steps=2), IMAGE),
    "protonet": Row(lambda: ProtoNet(mlp(), blobs())),
    "protonet-ragged": Row(lambda: ProtoNet(mlp(), blobs()), ragged=True),
    "protonet-turns": Row(lambda: ProtoNet(mlp(), blobs(), turns=True)),
    "protonet-turns-ragged": Row(lambda: ProtoNet(mlp(), blobs(), turns=True), ragged=True),
    "protonet-conv-batch": Row(lambda: ProtoNet(conv("batch"), pairs()), IMAGE),
    "protonet-conv-batch-ragged": Row(lambda: ProtoNet(conv("batch"), pairs()), IMAGE, ragged=True),
    "protonet-turns-conv-running": Row(lambda: ProtoNet(conv("running"), pairs(), turns=True), IMAGE),
    "protonet-conv-running": Row(lambda: ProtoNet(conv("running"), pairs()), IMAGE),
    "protonet-conv-group": Row(lambda: ProtoNet(conv("group"), pairs()), IMAGE),
    "r2d2": Row(lambda: R2D2(mlp(), blobs())),
    "r2d2-ragged": Row(lambda: R2D2(mlp(), blobs()), ragged=True),
    "r2d2-regression": Row(lambda: R2D2(mlp(None, POINT), waves()), POINT),
    "r2d2-no-intercept": Row(lambda: R2D2(mlp(None, POINT), waves(), 0.3, intercept=False), POINT, ragged=True),
    "r2d2-conv-batch": Row(lambda: R2D2(conv("batch"), pairs()), IMAGE),
    "r2d2-conv-running": Row(lambda: R2D2(conv("running"), pairs()), IMAGE),
    "cnp": Row(lambda: CNP(GaussianRegression(1), POINT, width=8, depth=2), POINT),
    "cnp-ragged": Row(lambda: CNP(GaussianRegression(1), POINT, width=8, depth=2), POINT, ragged=True),
    "cnp-vectors": Row(lambda: CNP(GaussianRegression(2), VECTOR, width=8, depth=1)),
    "proto_maml": Row(lambda: ProtoMAML(mlp(), blobs(), inner_steps=1)),
    "proto_maml-5-steps": Row(lambda: ProtoMAML(mlp(), blobs(), inner_steps=5)),
    "proto_maml-no-steps": Row(lambda: ProtoMAML(mlp(), blobs(), inner_steps=0)),
    "proto_maml-checkpoint": Row(lambda: ProtoMAML(mlp(), blobs(), inner_steps=3, memory="checkpoint")),
    "proto_maml-sweep": Row(lambda: ProtoMAML(mlp(), blobs(), inner_steps=3, memory="sweep")),
    "proto_maml-first-order": Row(lambda: ProtoMAML(mlp(), blobs(), inner_steps=2, first_order=True)),
    "proto_maml-ragged": Row(lambda: ProtoMAML(mlp(), blobs(), inner_steps=2), ragged=True),
    "proto_maml-conv-batch": Row(lambda: ProtoMAML(conv("batch"), pairs(), inner_steps=1), IMAGE, ragged=True),
    "chance": Row(lambda: Chance(blobs())),
    "chance-ragged": Row(lambda: Chance(blobs()), ragged=True),
    "chance-regression": Row(lambda: Chance(waves()), POINT),
    "chance-gaussian": Row(lambda: Chance(GaussianRegression(1)), POINT, ragged=True),
    "centroid": Row(lambda: Centroid(blobs())),
    "centroid-images-ragged": Row(lambda: Centroid(blobs()), IMAGE, ragged=True),
    "logistic": Row(lambda: Logistic(blobs())),
    "logistic-pairs": Row(lambda: Logistic(pairs())),
    "logistic-ragged": Row(lambda: Logistic(blobs()), ragged=True),
    "scratch": Row(lambda: Scratch(mlp(blobs()), blobs(), inner_steps=10), ragged=True),
    "scratch-regression": Row(lambda: Scratch(mlp(waves(), POINT), waves(), inner_steps=10), POINT),
    "pooled": Row(lambda: Pooled(mlp(waves(), POINT), waves()), POINT),
    "pooled-ragged": Row(lambda: Pooled(mlp(waves(), POINT), waves()), POINT, ragged=True),
    "linear_probe": Row(lambda: LinearProbe(mlp(), blobs(), classes=7)),
    "linear_probe-ragged": Row(lambda: LinearProbe(mlp(), blobs(), classes=7), ragged=True),
    "linear_probe-regression": Row(lambda: LinearProbe(mlp(None, POINT), waves()), POINT),
    "linear_probe-conv-running": Row(lambda: LinearProbe(conv("running"), pairs(), classes=5), IMAGE),
}


@pytest.mark.parametrize("check", learner_checks(), ids=lambda check: check.name)
@pytest.mark.parametrize("row", ROWS)
def test_learner(row: str, check: Check) -> None:
    make, x_shape, ragged = ROWS[row]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        learner = make()
    images = x_shape == IMAGE
    shot, query = (2, 2) if images else (3, 2)
    tasks = synthetic_tasks(learner.objective, x_shape, 2 if images else 3, shot, query, ragged)
    check.run(learner, tasks)


def test_every_learner_has_a_row() -> None:
    assert {row.split("-")[0] for row in ROWS} == set(LEARNERS)
    for name, row in ROWS.items():
        assert type(row.make()) is LEARNERS[name.split("-")[0]], name


def test_check_learner_makes_its_own_tasks() -> None:
    check_learner(ProtoNet(mlp(), blobs()))


class SaysExact(MAML):
    """First-order MAML that claims the true gradient."""

    exact_gradient = True  # type: ignore[assignment]


@pytest.mark.parametrize("norm", ["mlp", "batch", "group"])
def test_first_order_is_told_from_second(norm: Norm) -> None:
    torch.manual_seed(0)
    net, x_shape = (mlp(pairs()), VECTOR) if norm == "mlp" else (conv(norm, pairs()), IMAGE)
    learner = SaysExact(net, pairs(), inner_steps=1, inner_lr=0.1, first_order=True)
    check = {c.name: c.run for c in learner_checks()}["meta_gradient_is_declared"]
    with pytest.raises(ContractError, match=r"^meta_gradient: the gradient of net\..* is \d+% off"):
        check(learner, synthetic_tasks(pairs(), x_shape, 2, 2))


def test_make_gives_the_network_the_statistics_that_suit_the_method() -> None:
    spec = Spec("classification", IMAGE, way=3)
    names = ("protonet", "r2d2", "anil", "maml", "imaml", "proto_maml")
    assert {name: make(name, spec).net.norm for name in names} == {
        "protonet": "running",
        "r2d2": "running",
        "anil": "running",
        "maml": "batch",
        "imaml": "batch",
        "proto_maml": "batch",
    }
    assert make("protonet", spec, net_options={"norm": "group"}).net.norm == "group"
    assert not make("protonet", spec).eval().transductive and make("maml", spec).eval().transductive
