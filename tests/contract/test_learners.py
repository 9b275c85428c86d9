"""Every learner of the catalogue against every check; the rows are in `rows/`, a file a family."""

from __future__ import annotations

import pytest
import torch

from contract.rows import ROWS
from contract.rows.made import IMAGE, VECTOR, blobs, conv, mlp, pairs
from quickstudy.core.source import Spec
from quickstudy.learners import LEARNERS, MAML, ProtoNet, make
from quickstudy.nets.norm import Norm
from quickstudy.testing import Check, ContractError, check_learner, learner_checks, synthetic_tasks


@pytest.mark.parametrize("check", learner_checks(), ids=lambda check: check.name)
@pytest.mark.parametrize("row", ROWS)
def test_learner(row: str, check: Check) -> None:
    made = ROWS[row]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        learner = made.make()
    count, shot = (2, 2) if made.x_shape == IMAGE else (3, 3)
    shape = made.description_shape
    tasks = synthetic_tasks(learner.objective, made.x_shape, count, shot, 2, made.ragged, description_shape=shape)
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
