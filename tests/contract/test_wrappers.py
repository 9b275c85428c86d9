"""Learners that go around another one, against every check of a learner; they are not among those to choose from."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from contract.rows.made import IMAGE, POINT, VECTOR, blobs, conv, mlp, pairs, waves
from quickstudy.core.learner import MetaLearner
from quickstudy.core.objective import GaussianRegression, Objective
from quickstudy.learners import (
    ANIL,
    CNP,
    DKT,
    LEARNERS,
    MAML,
    R2D2,
    SNAIL,
    TNP,
    ALPaCA,
    Chance,
    LinearProbe,
    Pooled,
    ProtoNet,
    Scratch,
)
from quickstudy.learners.scaled import Scaled
from quickstudy.testing import Check, learner_checks, synthetic_tasks


def scaled(learner: MetaLearner, x_size: int = 3, y_size: int = 0, rows: float = 2.0, **options) -> Scaled:
    """Around a learner, with a scale that is not the standard one."""
    x = tuple(0.3 * j for j in range(x_size)), tuple(1.5 + j for j in range(x_size))
    y = (0.5,) * y_size, (2.0,) * y_size
    return Scaled(learner, *x, *y, rows, **options)


def gauss(size: int = 1) -> GaussianRegression:
    return GaussianRegression(size, floor=0.01)


def maml(objective: Objective, x_shape=VECTOR, **options) -> MAML:
    return MAML(mlp(objective, x_shape), objective, inner_steps=2, **options)


ROWS: dict[str, tuple[Callable[[], Scaled], tuple[int, ...], bool]] = {
    "cnp-ragged": (lambda: scaled(CNP(gauss(), POINT, 8, 1), 1, 1), POINT, True),
    "cnp-alone": (lambda: scaled(CNP(gauss(2), VECTOR, 8, 1), 3, 2, rows=0.0), VECTOR, False),
    "cnp-fixed-ragged": (lambda: scaled(CNP(gauss(2), VECTOR, 8, 1), 3, 2, rows=math.inf), VECTOR, True),
    "tnp-relative-ragged": (lambda: scaled(TNP(gauss(), VECTOR, 8, 1, 2, 1), 3, 1, relative=(1,)), VECTOR, True),
    "alpaca-ragged": (lambda: scaled(ALPaCA(mlp(), gauss()), 3, 1), VECTOR, True),
    "dkt-ragged": (lambda: scaled(DKT(mlp(), gauss(2)), 3, 2), VECTOR, True),
    "maml-ragged": (lambda: scaled(maml(waves(), POINT), 1, 1), POINT, True),
    "maml-first-order": (lambda: scaled(maml(waves(), POINT, first_order=True), 1, 1), POINT, False),
    "maml-conv-batch": (lambda: scaled(MAML(conv("batch", pairs()), pairs(), 1), 256, 0, rows=9.0), IMAGE, False),
    "anil": (lambda: scaled(ANIL(mlp(), waves(), inner_steps=2), 3, 1), VECTOR, False),
    "r2d2-y-alone-ragged": (lambda: scaled(R2D2(mlp(), waves()), 0, 1), VECTOR, True),
    "snail": (lambda: scaled(SNAIL(mlp(), blobs(), 10, 2, (3, 2), (2, 3))), VECTOR, False),
    "protonet-ragged": (lambda: scaled(ProtoNet(mlp(), blobs())), VECTOR, True),
    "scratch-ragged": (lambda: scaled(Scratch(mlp(waves(), POINT), waves(), 10), 1, 1), POINT, True),
    "chance-ragged": (lambda: scaled(Chance(gauss()), 1, 1), POINT, True),
    "pooled-ragged": (lambda: scaled(Pooled(mlp(waves(), POINT), waves()), 1, 1), POINT, True),
    "linear_probe": (lambda: scaled(LinearProbe(mlp(), blobs(), classes=7)), VECTOR, False),
}


@pytest.mark.parametrize("check", learner_checks(), ids=lambda check: check.name)
@pytest.mark.parametrize("row", ROWS)
def test_scaled(row: str, check: Check) -> None:
    make, x_shape, ragged = ROWS[row]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        learner = make()
    count, shot = (2, 2) if x_shape == IMAGE else (3, 3)
    check.run(learner, synthetic_tasks(learner.objective, x_shape, count, shot, 2, ragged))


def test_every_row_is_named_after_what_is_inside() -> None:
    for row, (make, _, _) in ROWS.items():
        assert type(make().learner) is LEARNERS[row.split("-")[0]], row
    assert "scaled" in LEARNERS.wrappers and "scaled" not in list(LEARNERS)
