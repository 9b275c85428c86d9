"""What a user can get wrong with a learner, for every learner of the catalogue: one sentence each, or it works."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import quickstudy as qs
from quickstudy.checkpoint import Checkpoint
from quickstudy.core.catalogue import arguments
from quickstudy.core.learner import MetaLearner
from quickstudy.core.source import Source, Spec
from quickstudy.core.task import Task, map_tensors
from quickstudy.evaluate import ready
from quickstudy.learners import LEARNERS, make
from quickstudy.options import check_learner
from quickstudy.tasks.arrays import Arrays
from quickstudy.testing import synthetic_tasks
from quickstudy.testing.synthetic import pooled_rows

SPECS = {
    "classification": Spec("classification", (4,), way=3, train_classes=7),
    "regression": Spec("regression", (2,), y_size=1),
    "zero-shot": Spec("zero-shot", (4,), way=3, train_classes=7, description_shape=(4,)),
}
IMAGES = {
    "classification": Spec("classification", (1, 28, 28), way=2, train_classes=3),
    "regression": Spec("regression", (1, 28, 28), y_size=1),
    "zero-shot": Spec("zero-shot", (1, 28, 28), way=2, train_classes=3, description_shape=(5,)),
}
DECIDED = ("net", "objective", "x_shape", "classes", "description_shape")
SIZES = ("width", "hidden", "channels", "latents", "context", "filters", "slots", "size", "units", "depth", "attention")
"""Options of which a senseless number would have to be built; others only take long."""


def kind_of(name: str) -> str:
    return LEARNERS[name].kinds[0]


def refused(action: Callable[[], object]) -> str:
    """The one sentence with which it is refused."""
    with pytest.raises(qs.UserError) as caught:
        action()
    said = str(caught.value)
    assert "\n" not in said and said.endswith((".", "?")) and said.count(". ") == 0, said
    return said


def tasks_for(learner: MetaLearner, spec: Spec) -> Task:
    made = synthetic_tasks(learner.objective, spec.x_shape, 2, 2, 2, description_shape=spec.description_shape)
    return map_tensors(made, lambda t: t.float() if t.is_floating_point() else t)


def works(learner: MetaLearner, spec: Spec) -> bool:
    """Whether it trains on, adapts to and predicts a small task with finite numbers."""
    tasks = tasks_for(learner, spec)
    loss = learner.meta_loss(pooled_rows(tasks) if learner.pooled else tasks)
    learner.eval()
    with torch.no_grad():
        found = learner.predict(learner.adapt(tasks.support), tasks.query.x, tasks.query.weight)
    return bool(torch.isfinite(found).all() and torch.isfinite(loss).all())


def numbers() -> Iterator[Any]:
    """Every numeric option of every learner, with what no method could mean."""
    for name, cls in LEARNERS.items():
        for option, parameter in arguments(cls).items():
            kind = str(parameter.annotation)
            if option in DECIDED or "bool" in kind or "str" in kind or "Literal" in kind:
                continue
            values: list[Any] = [-1.0, math.nan, math.inf, 0.0, 1e30] if "float" in kind else [-1, 0]
            if "tuple" in kind:
                values = [(-1,), (0,), ()]
            elif option in SIZES:
                values.append(10**15)
            for value in values:
                yield pytest.param(name, option, value, id=f"{name}-{option}-{value}")


@pytest.mark.parametrize("name, option, value", list(numbers()))
def test_a_number_out_of_range_is_refused_or_works(name: str, option: str, value: Any) -> None:
    spec = SPECS[kind_of(name)]
    torch.manual_seed(0)
    try:
        learner = make(name, spec, **{option: value})
        fine = works(learner, spec)
    except qs.UserError as error:
        said = str(error)
        assert "\n" not in said and said.endswith("."), said
        return
    first = value[0] if isinstance(value, tuple) and value else value
    senseless = first != first or first in (-1, -1.0, math.inf, 10**15)
    assert fine and (not senseless or option == "others"), "taken without a word"


@pytest.mark.parametrize("name", LEARNERS)
def test_an_unknown_option_is_named(name: str) -> None:
    said = refused(lambda: make(name, SPECS[kind_of(name)], inner_step=3))
    assert "'inner_step'" in said and name in said and "objective" not in said


def test_an_unknown_option_of_a_network_is_named() -> None:
    said = refused(lambda: make("protonet", SPECS["classification"], net_options={"widht": 3}))
    assert "'widht'" in said and "'width'" in said


@pytest.mark.parametrize("kind", SPECS)
@pytest.mark.parametrize("name", LEARNERS)
def test_tasks_of_a_kind_that_it_cannot_take(name: str, kind: str) -> None:
    if kind in LEARNERS[name].kinds:
        assert make(name, SPECS[kind]).objective.kind == SPECS[kind].objective().kind
        return
    said = refused(lambda: make(name, SPECS[kind]))
    assert name in said and kind in said
    own = make(name, SPECS[kind_of(name)])
    assert kind in refused(lambda: ready(own, Made(SPECS[kind])))


@pytest.mark.parametrize("name", LEARNERS)
def test_images_work_or_are_refused(name: str) -> None:
    spec = IMAGES[kind_of(name)]
    torch.manual_seed(0)
    few = {option: 1 for option in ("inner_steps", "steps", "eval_steps") if option in arguments(LEARNERS[name])}
    try:
        fine = works(make(name, spec, **few), spec)  # what is asked is whether it runs
    except qs.UserError as error:
        said = str(error)
        assert "\n" not in said and said.endswith("."), said
        assert name in ("conv_cnp", "tabular", "nearest_description"), said
        return
    assert fine


class Made(Source):
    """Tasks of a kind, of which nothing is asked but their facts."""

    def __init__(self, spec: Spec):
        self._spec = spec

    @property
    def spec(self) -> Spec:
        return self._spec

    sample = sample_pooled = None  # type: ignore[assignment]


@pytest.mark.parametrize("name", [n for n, cls in LEARNERS.items() if "regression" not in cls.kinds[:1]])
def test_more_classes_than_it_was_trained_for(name: str) -> None:
    learner = make(name, SPECS[kind_of(name)])
    wider = Spec(**{**SPECS[kind_of(name)].__dict__, "way": 9})
    if learner.any_way:
        assert ready(learner, Made(wider)).objective.size == 9
        return
    said = refused(lambda: ready(learner, Made(wider)))
    assert "3 classes" in said and "9" in said


@pytest.mark.parametrize("name", LEARNERS)
def test_a_support_that_does_not_fit(name: str) -> None:
    spec = SPECS[kind_of(name)]
    facts = {"x_shape": list(spec.x_shape), "description_shape": list(spec.description_shape), "kind": spec.kind}
    trained = Checkpoint(make(name, spec).eval(), {"spec": facts})
    x = torch.randn(6, *spec.support_shape)
    y: Any = torch.randn(6, 1) if spec.kind == "regression" else ["a", "b", "c"] * 2
    assert "(3,)" in refused(lambda: qs.adapt(trained, torch.zeros(6, 3), y))
    broken = x.clone()
    broken[2, 0] = math.nan
    assert "row 2" in refused(lambda: qs.adapt(trained, broken, y))
    task = qs.adapt(trained, x, y)
    assert "(7,)" in refused(lambda: task.predict(torch.zeros(1, 7)))
    assert torch.isfinite(task.predict(torch.zeros(2, *spec.x_shape))).all()
    if spec.kind == "regression":
        assert "row 0" in refused(lambda: qs.adapt(trained, x, torch.full((6, 1), math.inf)))
    else:
        assert "'a'" in refused(lambda: qs.adapt(trained, x, ["a"] * 6))


def test_fewer_columns_than_training_classes_are_told_before_training() -> None:
    source = Arrays.of(torch.randn(60, 4), [i % 10 for i in range(60)], way=2, shot=1, query=2)
    for name in ("linear_probe", "tim"):
        learner = make(name, source.spec, classes=3)
        said = refused(lambda learner=learner: check_learner(learner, source, None, 0))
        assert "3 training classes" in said and "classes=6" in said
        rows = source.sample_pooled("train", 200, source.rng(0))
        said = refused(lambda learner=learner, rows=rows: learner.meta_loss(Task(rows, rows)))
        assert "3 training classes" in said and "class 5" in said
    assert "classes is -1" in refused(lambda: make("linear_probe", source.spec, classes=-1))
