"""The default space fits every learner, ranges are read as written, and intervals add up as they say."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from quickstudy.core.catalogue import arguments
from quickstudy.core.errors import UserError
from quickstudy.core.source import Spec
from quickstudy.learners import LEARNERS, make
from quickstudy.tune import Confirmation, Dimension, Tuning, default_space, dimension
from quickstudy.tune.space import with_options

SPECS = {
    "classification": Spec("classification", (3,), way=3, train_classes=6),
    "regression": Spec("regression", (1,)),
    "zero-shot": Spec("zero-shot", (3,), way=3, train_classes=6, description_shape=(4,)),
}
DECIDED = ("net", "objective", "x_shape", "classes", "description_shape")


def base(name: str) -> dict[str, dict[str, object]]:
    own = {n: p.default for n, p in arguments(LEARNERS[name]).items() if n not in DECIDED}
    return {"learner": {"name": name, **own}, "train": {"lr": 1e-3, "meta_batch": 4, "pooled_rows": 256}}


@pytest.mark.parametrize("name", [name for name, cls in LEARNERS.items() if cls.trained])
def test_every_learner_takes_both_ends_of_its_default_space(name: str) -> None:
    config = base(name)
    space = default_space(config, LEARNERS[name].pooled)
    spec = next(SPECS[kind] for kind in SPECS if kind in LEARNERS[name].kinds)
    options = [d.option for d in space]
    assert options[-2] == "train.lr" and len(options) == len(set(options))
    assert options[-1] == ("train.pooled_rows" if LEARNERS[name].pooled else "train.meta_batch")
    for one in space:
        slot, _, option = one.option.partition(".")
        now = config[slot][option]
        assert one.kind == "choice" or one.holds(now), one
        for end in one.ends():
            if slot == "learner":
                with torch.random.fork_rng():
                    make(name, spec, **{option: end})


def test_maml_is_searched_as_one_would() -> None:
    found = {d.option: (d.kind, d.ends()) for d in default_space(base("maml"), pooled=False)}
    assert found == {
        "learner.inner_steps": ("int", (1, 10)),
        "learner.inner_lr": ("log", (0.01, 1.0)),
        "learner.first_order": ("choice", (False, True)),
        "train.lr": ("log", (1e-4, 1e-2)),
        "train.meta_batch": ("choice", (2, 4, 8, 16)),
    }


def test_what_is_written_is_what_is_searched() -> None:
    assert dimension("train.lr", "log:1e-4:1e-2") == Dimension("train.lr", "log", 1e-4, 1e-2)
    assert dimension("train.clip", "null,1e1,2").values == (None, 10.0, 2)
    assert dimension("learner.keys", [[1, 2], [3]]).values == ((1, 2), (3,))
    assert dimension("x.y", "true, 1").values == (True, 1)  # not one value, though True == 1
    whole = dimension("x.y", "logint:1:64")
    assert whole.ends() == (1, 64) and whole.holds(8) and not whole.holds(8.0) and not whole.holds(True)
    for odd in ("log:1", "int:1.5:3", "log:nan:1", "int:3:3", "a", "", "float:0:inf"):
        with pytest.raises(UserError):
            dimension("x.y", odd)


def test_a_dimension_is_of_its_variant_alone() -> None:
    space = [Dimension("train.lr", "log", 0.1, 1, variant="b"), Dimension("train.steps", "int", 1, 3)]
    space.append(Dimension("learner.first_order", "choice", values=(True, False)))
    bases = {"a": base("maml"), "b": base("cnp")}
    for config in bases.values():
        config["train"]["steps"] = 2
    tuning = Tuning(bases, space, Path("nowhere"))
    assert [d.option for d in tuning.concerning("a")] == ["train.steps", "learner.first_order"]
    assert [d.option for d in tuning.concerning("b")] == ["train.lr", "train.steps"]


def test_options_are_exchanged_in_a_copy() -> None:
    tree = {"train": {"lr": 0.1}, "memory": None}
    assert with_options(tree, {"train.lr": 0.2})["train"] == {"lr": 0.2}
    assert tree["train"] == {"lr": 0.1}


@pytest.mark.parametrize(
    ("sign", "gap", "verdict"), [(1, 2.1, "better"), (-1, 2.1, "worse"), (1, 1.9, "no gain shown")]
)
def test_a_gain_must_leave_both_intervals(sign: int, gap: float, verdict: str) -> None:
    made = Confirmation("mse", sign, "test", 1.0 + gap, 1.0, gap, 1.2, 1.6, 3, 600, "tasks")
    assert made.interval == pytest.approx(2.0) and made.verdict == verdict
    alone = Confirmation("mse", sign, "test", 1.0 + gap, 1.0, gap, 1.2, math.inf, 1, 600, "tasks")
    assert alone.interval == 1.2 and "these trained learners alone" in str(alone)
    assert made.card()["verdict"] == verdict and alone.card()["seeds_interval"] is None
