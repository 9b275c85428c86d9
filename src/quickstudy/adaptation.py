"""One new task, from labelled examples to predictions: what a user does with a trained learner."""

from __future__ import annotations

import math
import os
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from quickstudy import checkpoint as files
from quickstudy.adapted import AdaptedTask, check_rows
from quickstudy.checkpoint import Checkpoint
from quickstudy.core.errors import UserError, nearest
from quickstudy.core.learner import MetaLearner
from quickstudy.core.objective import Classification, Regression
from quickstudy.core.reader import Reader
from quickstudy.core.source import check_finite
from quickstudy.core.task import Examples, State, concatenate, examples
from quickstudy.evaluate import dtype_of, evaluating, name_of
from quickstudy.left_out import spread
from quickstudy.tasks.files import Files
from quickstudy.together import alike, bucket, each, filled_examples, shapes


def adapt(
    trained: Checkpoint,
    x: Tensor,
    y: Sequence[str] | Tensor,
    where: str = "the support",
    weight: Tensor | None = None,
    classes: Sequence[str] = (),
    before: AdaptedTask | None = None,
) -> AdaptedTask:
    """Adapt a trained learner to one task, from labelled rows x (n, *x_shape).

    y: a class name for every row, or for regression the values (n, y_size). weight: (n,), how much each row counts,
    1 unless given. classes: all classes, in the order of the columns of probabilities, of which y may show some; unless
    given, those of training where classes mean the same in every task (a table's), else those of y by alphabet.
    before: what was learnt of this task from earlier rows, which then count as well.

    Raises UserError if rows and labels do not fit the learner, or `before` is not its own or it is not incremental.

    >>> import quickstudy as qs
    >>> learner = qs.make("protonet", qs.Spec("classification", (4,), way=5))
    >>> task = adapt(Checkpoint(learner, {}), torch.eye(4), ["cat", "dog", "cat", "dog"])
    >>> task.classes, task.probabilities(torch.eye(4)).shape
    (['cat', 'dog'], torch.Size([4, 2]))
    """
    return adapt_all([Support.of(trained, x, y, where, weight, classes, before)])[0]


@dataclass(frozen=True)
class Support:
    """What `adapt` is given, checked: `rows` of one task, the learner for its classes, and what was learnt before."""

    trained: Checkpoint
    learner: MetaLearner
    rows: Examples
    classes: list[str]
    counts: dict[str, int]
    before: AdaptedTask | None = None

    @classmethod
    def of(
        cls,
        trained: Checkpoint,
        x: Tensor,
        y: Sequence[str] | Tensor,
        where: str = "the support",
        weight: Tensor | None = None,
        classes: Sequence[str] = (),
        before: AdaptedTask | None = None,
    ) -> Support:
        """See `adapt`. Raises UserError as it does."""
        return _checked(trained, x, y, where, weight, classes, before)

    @property
    def kin(self) -> Hashable:
        """What must be equal for supports to be learnt from in one call."""
        rows = self.rows
        assert isinstance(rows.x, Tensor)
        size = bucket(rows.x.shape[1])
        before = None if self.before is None else shapes(self.before.state)
        return id(self.trained), self.learner.objective.size, size, rows.x.shape[2:], rows.weight.dtype, before


def _checked(
    trained: Checkpoint,
    x: Tensor,
    y: Sequence[str] | Tensor,
    where: str,
    weight: Tensor | None,
    classes: Sequence[str],
    before: AdaptedTask | None,
) -> Support:
    learner = trained.learner
    check_rows(learner, trained.card, x, where)
    x = x.to(dtype_of(learner) or x.dtype)
    if len(x) != len(y) or not len(x):
        raise UserError(f"{where} has {len(x)} rows and {len(y)} labels: give a label for each of at least one row.")
    if weight is not None:
        _check_weight(weight, len(x), where)
    if before is not None:
        _check_continues(trained, before)
    names: list[str] = []
    if isinstance(learner.objective, Classification):
        if isinstance(y, Tensor):
            y = [str(v) for v in y.tolist()]
        names = list(before.classes if before is not None else classes) or _names(y, trained.reader)
        if len(names) < 2:
            raise UserError(f"{where} shows one class, {names[0]!r}, and nothing to tell it from: give two or more.")
        learner = learner.for_way(len(names))
        place = {name: i for i, name in enumerate(names)}
        new = next((label for label in y if label not in place), None)
        if new is not None:
            raise UserError(f"{where} shows the class {new!r}, which is none of the task's: {nearest(new, names)}")
        target = torch.tensor([place[label] for label in y])
    else:
        size = learner.objective.y_size  # type: ignore[attr-defined]
        if not isinstance(y, Tensor) or y.shape != (len(x), size):
            raise UserError(f"{where}: the learner predicts {size} number(s) a row: give y with that many columns.")
        check_finite(y, f"{where}, y")
        target = y.to(x)
    support = examples(x.unsqueeze(0), target.unsqueeze(0), None if weight is None else weight.unsqueeze(0).to(x))
    counts = {name: list(y).count(name) for name in names}
    return Support(trained, learner, support, names, counts, before)


def adapt_all(supports: Sequence[Support]) -> list[AdaptedTask]:
    """Adapt to many tasks at once, as `adapt` does to each of them.

    Tasks of as many classes and about as many rows are learnt from in one call, filled up with padding. What is learnt
    is then equal to rounding; of a task without others like it, to the last bit.
    """
    made: dict[int, AdaptedTask] = {}
    for at in alike([support.kin for support in supports]):
        made |= zip(at, _adapted([supports[i] for i in at]), strict=True)
    return [made[i] for i in range(len(supports))]


def _adapted(supports: Sequence[Support]) -> list[AdaptedTask]:
    learner, rows = supports[0].learner, filled_examples([support.rows for support in supports])
    past = [support.before for support in supports if support.before is not None]
    before = concatenate([task.state for task in past]) if past else None
    off = None
    with evaluating(learner, seed=0):
        state = learner.adapt(rows, before)
        # how sure to be of values that come without a deviation: asked now, for the support is not kept
        if isinstance(learner.objective, Regression):
            off = _spread(learner, rows, before, past)
    found = each(state, len(supports))
    return [_task(*one) for one in zip(supports, found, off or [None] * len(found), strict=True)]


def _task(support: Support, state: State, off: float | None) -> AdaptedTask:
    past: Mapping[str, Any] = support.before.card if support.before is not None else {}
    counts = {name: n + past.get("counts", {}).get(name, 0) for name, n in support.counts.items()}
    origin = {k: support.trained.card.get(k) for k in ("digest", "path", "learner", "spec")}
    rows = support.rows.weight.shape[1] + past.get("rows", 0)
    card: dict[str, Any] = {"checkpoint": origin, "classes": support.classes, "counts": counts, "rows": rows}
    if off is not None:
        card["spread"] = off if math.isfinite(off) else None
    return AdaptedTask(support.learner, state, support.classes, card, support.trained.reader)


def _names(y: Sequence[str], reader: Reader | None) -> list[str]:
    """The classes of a task: numbered as in training where they mean the same in every task, else those that it shows,
    by alphabet."""
    shown = sorted(set(y))
    known = list(reader.classes) if reader is not None else []
    return known if len(shown) > 1 and set(shown) <= set(known) else shown


def _check_weight(weight: Tensor, rows: int, where: str) -> None:
    """Raise UserError for weights that say nothing, or are negative, not finite, or not one a row."""
    if weight.shape != (rows,) or not bool(torch.isfinite(weight).all()) or bool((weight < 0).any()):
        raise UserError(f"{where}: give a weight of 0 or more for each of the {rows} rows.")
    if not bool((weight > 0).any()):
        raise UserError(f"{where}: the weight of every row is zero, so that there is nothing to learn: give one more.")


def _check_continues(trained: Checkpoint, before: AdaptedTask) -> None:
    """Raise UserError unless the learner can go on from what was learnt before."""
    if not trained.learner.incremental:
        name = name_of(trained.learner, "learner")
        raise UserError(f"{name} does not learn bit by bit: adapt it to all rows of the task at once.")
    if (before.card.get("checkpoint") or {}).get("digest") != trained.card.get("digest"):
        raise UserError("the task was adapted to with another learner: go on with the one it was made with.")


def _spread(
    learner: MetaLearner, support: Examples, before: State | None, past: Sequence[AdaptedTask]
) -> list[float]:
    """How far off values are, of rows that were not learnt from when they were asked (in the unit of y); maybe NaN.

    Rows that come later are asked before they are learnt from, since the earlier ones are not kept.
    """
    if before is None:
        return spread(learner, support).tolist()
    errors = (learner.predict(before, support.x, support.weight) - support.y).square().mean(-1) * support.weight
    found = []
    for task, error, new in zip(past, errors.sum(1).tolist(), support.weight.sum(1).tolist(), strict=True):
        known, rows = task.card.get("spread"), task.card["rows"]
        found.append(math.sqrt(error / new if known is None else (rows * known**2 + error) / (rows + new)))
    return found


def reader_for(
    card: Mapping[str, Any], reader: Reader | None, where: str, support: bool = False, invert: bool = False
) -> Reader:
    """What reads the files of a task: the learner's own reader, else one for images and arrays of its rows' shape.

    card: of the learner, or what an adapted task keeps of it. support: the files to adapt to, which for zero-shot
    learners hold descriptions. invert: the images show dark ink on white.
    Raises UserError if the card does not say what the rows look like, or there are no images to invert.
    """
    if reader is not None:
        if invert:
            raise UserError(f"{where} was not trained on plain images, which --invert is about: leave it out.")
        return reader
    spec = card.get("spec") or {}
    if "x_shape" not in spec:
        raise UserError(f"{where} does not say what its inputs look like: save it together with its source.")
    shape = spec["description_shape" if support and spec.get("kind") == "zero-shot" else "x_shape"]
    return Files(tuple(shape), spec.get("kind") == "regression", invert)


def load_task(path: str | Path, trained: str | Path | None = None) -> AdaptedTask:
    """An adapted task from its file, with its learner.

    trained: the learner's checkpoint, if it is no longer where it was when the task was adapted to.
    Raises UserError if either file is missing or damaged, or they do not belong together.
    """
    found = files.load_adapted(path)
    origin = found.card.get("checkpoint") or {}
    at = trained or origin.get("path")
    if at is None:
        raise UserError(f"{path} does not say where its learner is: give it with --checkpoint.")
    if trained is None and not Path(at).is_file():
        beside = Path(path).parent / Path(at).name
        if not beside.is_file():
            raise UserError(f"the learner that {path} needs is not at {at} any more: give it with --checkpoint.")
        at = beside
    learnt = files.load(at)
    if learnt.card["digest"] != origin.get("digest"):
        raise UserError(f"{path} was adapted with another learner than {os.fspath(at)}: give the one it was made with.")
    return AdaptedTask.of(learnt, found.state, found.card)
