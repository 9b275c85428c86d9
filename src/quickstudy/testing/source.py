"""Every check that a source passes, as a list and as one call."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from quickstudy.core.catalogue import build, describe
from quickstudy.core.errors import UserError
from quickstudy.core.source import SPLITS, Source
from quickstudy.core.task import map_tensors
from quickstudy.testing.promise import broken, equal, identical, tensors

TASKS = 4
ROWS = 16


class SourceCheck(NamedTuple):
    """One promise and the function that raises ContractError where it is not kept."""

    name: str
    run: Callable[[Source], None]


def check_sampling_is_reproducible(source: Source) -> None:
    """A split and a generator say what is drawn: nothing else matters and nothing else is touched."""
    name = "sampling_is_reproducible"
    remedy = "draw every random number from the generator that is given"
    with torch.random.fork_rng(devices=[]):
        for split in SPLITS:
            torch.manual_seed(1)
            before = torch.random.get_rng_state()
            first = source.sample(split, TASKS, source.rng("check", 0))
            pooled = source.sample_pooled(split, ROWS, source.rng("check", 0))
            if not identical(before, torch.random.get_rng_state()):
                broken(name, "sampling uses torch's global random numbers", remedy)
            source.sample(split, 1, source.rng("check", 1))
            torch.manual_seed(2)
            if not equal(first, source.sample(split, TASKS, source.rng("check", 0))):
                broken(name, f"equal generators draw different {split} tasks", remedy)
            if not equal(pooled, source.sample_pooled(split, ROWS, source.rng("check", 0))):
                broken(name, f"equal generators draw different pooled {split} rows", remedy)


def check_generators_give_different_tasks(source: Source) -> None:
    """Another generator draws other tasks, and the tasks of a batch differ from each other."""
    name = "generators_give_different_tasks"
    a = source.sample("train", TASKS, source.rng("check", 0))
    b = source.sample("train", TASKS, source.rng("check", 1))
    if equal(a, b):
        broken(name, "two generators draw the same tasks", "use the generator that is given")
    if equal(map_tensors(a, lambda t: t[:1]), map_tensors(a, lambda t: t[1:2])):
        broken(name, "two tasks of a batch are the same", "draw every task of a batch anew")


def check_shapes_agree_with_spec(source: Source) -> None:
    """x is (task, n, *x_shape), y (task, n) or (task, n, y_size), weight (task, n), as the spec says."""
    name = "shapes_agree_with_spec"
    remedy = "make spec and sample agree"
    spec = source.spec
    for split in SPLITS:
        tasks = source.sample(split, TASKS, source.rng("check"))
        pooled = source.sample_pooled(split, ROWS, source.rng("check"))
        for what, part, count in (
            ("support", tasks.support, TASKS),
            ("query", tasks.query, TASKS),
            ("pooled", pooled, 1),
        ):
            n = part.weight.shape[1] if part.weight.dim() == 2 else -1
            x_wanted = (count, n, *(spec.support_shape if what == "support" else spec.x_shape))
            y_wanted = (count, n, spec.y_size) if spec.kind == "regression" else (count, n)
            for column, tensor, wanted in (("x", part.x, x_wanted), ("y", part.y, y_wanted)):
                # Inputs of several tensors (tokens and mask) each have a shape of their own.
                if isinstance(tensor, Tensor) and tuple(tensor.shape) != wanted:
                    broken(name, f"{what}.{column} of {split} is {tuple(tensor.shape)}, not {wanted}", remedy)
        if pooled.weight.shape != (1, ROWS):
            broken(name, f"{ROWS} pooled rows come as {tuple(pooled.weight.shape)}", "return (1, rows, ...)")


def check_values_are_valid(source: Source) -> None:
    """x is floating point and finite, weights lie in [0, 1], labels in [0, way), and every task has rows."""
    name = "values_are_valid"
    spec = source.spec
    for split in SPLITS:
        tasks = source.sample(split, TASKS, source.rng("check"))
        pooled = source.sample_pooled(split, ROWS, source.rng("check"))
        for what, part in (("support", tasks.support), ("query", tasks.query), ("pooled", pooled)):
            where = f"{what} of {split}"
            if isinstance(part.x, Tensor) and not part.x.is_floating_point():
                broken(name, f"x in the {where} is {part.x.dtype}", "return floating point")
            if not all(bool(torch.isfinite(t).all()) for t in tensors(part)):
                broken(name, f"the {where} holds a NaN or an infinite value", "clean the data")
            if not part.weight.is_floating_point() or bool(((part.weight < 0) | (part.weight > 1)).any()):
                broken(name, f"weights in the {where} are not numbers in [0, 1]", "scale them")
            if not bool((part.weight.sum(1) > 0).all()):
                broken(name, f"a task has no rows in the {where}", "give every task at least one row")
            if spec.kind != "regression":
                if part.y.is_floating_point():
                    broken(name, f"labels in the {where} are {part.y.dtype}", "return integers")
                top = spec.train_classes if what == "pooled" and split == "train" else spec.way
                limited = what != "pooled" or split == "train"
                if bool((part.y < 0).any()) or (limited and bool((part.y >= top).any())):
                    broken(name, f"labels in the {where} are not in [0, {top})", "number the classes from 0")
            elif not part.y.is_floating_point():
                broken(name, f"targets in the {where} are {part.y.dtype}", "return floating point")


def check_query_classes_are_in_support(source: Source) -> None:
    """No class is asked for in a query that the support does not show."""
    if source.spec.kind == "regression":
        return
    objective = source.spec.objective()
    for split in SPLITS:
        tasks = source.sample(split, TASKS, source.rng("check"))
        shown = objective.seen(tasks.support)  # type: ignore[attr-defined]
        asked = objective.seen(tasks.query)  # type: ignore[attr-defined]
        if bool((asked > shown).any()):
            broken(
                "query_classes_are_in_support",
                f"a {split} task asks for a class that its support does not show",
                "draw support and query from the same classes",
            )


def check_support_and_query_are_disjoint(source: Source) -> None:
    """No row is both learnt from and asked; says nothing of data in which rows repeat anyway."""
    if source.spec.kind == "zero-shot":  # the support holds descriptions, and no rows
        return
    for split in SPLITS:
        tasks = source.sample(split, TASKS, source.rng("check"))
        if not isinstance(tasks.support.x, Tensor) or not isinstance(tasks.query.x, Tensor):
            return
        for t in range(TASKS):
            support = tasks.support.x[t][tasks.support.weight[t] > 0].flatten(1)
            query = tasks.query.x[t][tasks.query.weight[t] > 0].flatten(1)
            if len(support.unique(dim=0)) < len(support) or len(query.unique(dim=0)) < len(query):
                continue
            both = torch.cat([support, query])
            shared = len(both) - len(both.unique(dim=0))
            if shared:
                broken(
                    "support_and_query_are_disjoint",
                    f"{shared} rows of a {split} task are in its support and in its query",
                    "draw both at once without replacement",
                )


def check_splits_share_no_class(source: Source) -> None:
    """The splits' names do not overlap, for sources that name their classes; else their tasks differ."""
    name = "splits_share_no_class"
    names = getattr(source, "names", None)
    if not callable(names):
        drawn = [source.sample(split, TASKS, source.rng("check")) for split in SPLITS]
        if any(equal(drawn[i], drawn[i - 1]) for i in range(len(drawn))):
            broken(name, "equal generators draw the same tasks from two splits", "let the split decide too")
        return
    held = {split: list(names(split)) for split in SPLITS}  # type: ignore[call-overload]
    for i, a in enumerate(SPLITS):
        for b in SPLITS[i + 1 :]:
            shared = sorted(set(held[a]) & set(held[b]))
            if shared:
                broken(name, f"{shared[0]!r} is in {a} and in {b}", "give every class to one split")
    if source.spec.kind != "regression" and len(held["train"]) != source.spec.train_classes:
        broken(
            name,
            f"train names {len(held['train'])} classes and spec.train_classes is {source.spec.train_classes}",
            "make them agree",
        )


def check_describe_and_build(source: Source) -> None:
    """A source is written down as JSON, and built again it draws the same tasks.

    Data given in memory cannot come back: such a source then raises UserError when it is sampled.
    """
    name = "describe_and_build"
    try:
        card = describe(source, "tasks")
        again = build(json.loads(json.dumps(card)), "tasks")
    except (UserError, TypeError, AttributeError) as error:
        broken(
            name,
            f"it cannot be written down and built again ({str(error).rstrip('.')})",
            "let the constructor only store what it is given, under the same names",
        )
    if describe(again, "tasks") != card:
        broken(name, "the rebuilt source describes itself otherwise", "store arguments as they are given")
    first = source.sample("train", TASKS, source.rng("check"))
    try:
        second = again.sample("train", TASKS, again.rng("check"))
    except UserError:
        return
    if not equal(first, second):
        broken(name, "the rebuilt source draws other tasks", "let the arguments alone decide")


def source_checks() -> list[SourceCheck]:
    """Every check of a source, for `pytest.mark.parametrize` or a loop.

    >>> [check.name for check in source_checks()][0]
    'sampling_is_reproducible'
    """
    functions = [
        check_sampling_is_reproducible,
        check_generators_give_different_tasks,
        check_shapes_agree_with_spec,
        check_values_are_valid,
        check_query_classes_are_in_support,
        check_support_and_query_are_disjoint,
        check_splits_share_no_class,
        check_describe_and_build,
    ]
    return [SourceCheck(f.__name__.removeprefix("check_"), f) for f in functions]


def check_source(source: Source) -> None:
    """Run every check on a source; it is sampled a few dozen times.

    Raises ContractError naming the check, what was found, and what to do.
    """
    for check in source_checks():
        check.run(source)
