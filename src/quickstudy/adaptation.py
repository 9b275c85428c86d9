"""One new task, from labelled examples to predictions: what a user does with a trained learner."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from quickstudy import checkpoint as files
from quickstudy.checkpoint import Checkpoint
from quickstudy.core.errors import UserError
from quickstudy.core.learner import MetaLearner
from quickstudy.core.objective import Classification, GaussianRegression, Regression
from quickstudy.core.reader import Reader
from quickstudy.core.source import check_finite
from quickstudy.core.task import State, examples
from quickstudy.evaluate import dtype_of, evaluating
from quickstudy.left_out import spread
from quickstudy.tasks.files import Files

ROWS = 512
"""Rows predicted at once, where rows do not look at each other."""


@dataclass(frozen=True)
class AdaptedTask:
    """A learner together with what it learnt of one task.

    classes: the names of the classes, in the order of the columns of `probabilities`; empty for
    regression. card: where it came from, as JSON holds it. reader: reads the files to predict, where the source of the
    training tasks had one of its own (see `reader_for`).
    """

    learner: MetaLearner
    state: State
    classes: list[str]
    card: dict[str, Any]
    reader: Reader | None = None

    def predict(self, x: Tensor) -> Tensor:
        """The learner's raw predictions (n, size) for rows x (n, *x_shape).

        Raises UserError for rows of another shape, or not finite.
        """
        _check_rows(self.learner, self.card.get("checkpoint") or {}, x, "the input", asked=True)
        x = x.to(dtype_of(self.learner) or x.dtype)
        parts = [x] if self.learner.transductive else x.split(ROWS)
        with evaluating(self.learner, seed=0):
            return torch.cat([self.learner.predict(self.state, part.unsqueeze(0))[0] for part in parts])

    def probabilities(self, x: Tensor) -> Tensor:
        """The probability of every class, (n, class), for rows x (n, *x_shape).

        Raises UserError for a regression task.
        """
        if not isinstance(self.learner.objective, Classification):
            raise UserError("a regression task has no classes: ask for `values`.")
        return self.predict(x).softmax(-1)[:, : len(self.classes)]

    def labels(self, x: Tensor) -> list[str]:
        """The most probable class of every row."""
        return [self.classes[i] for i in self.probabilities(x).argmax(-1).tolist()]

    def values(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """The predicted values and their standard deviations (None where the learner gives none), both (n, y_size).

        Raises UserError for a classification task.
        """
        objective = self.learner.objective
        if isinstance(objective, Classification):
            raise UserError("a classification task has no values: ask for `labels` or `probabilities`.")
        out = self.predict(x).unsqueeze(0)
        if isinstance(objective, GaussianRegression):
            mean, deviation = objective.mean_and_deviation(out)
            return mean[0], deviation[0]
        return out[0], None

    def save(self, path: str | Path) -> None:
        """Save the state alone: small, since the learner stays in its own checkpoint.

        Raises UserError if the file cannot be written.
        """
        files.save_adapted(path, self.state, **self.card)


def adapt(trained: Checkpoint, x: Tensor, y: Sequence[str] | Tensor, where: str = "the support") -> AdaptedTask:
    """Adapt a trained learner to one task, from labelled rows x (n, *x_shape).

    y: a class name for every row, or for regression the values (n, y_size).
    Raises UserError if rows and labels do not fit the learner.

    >>> import quickstudy as qs
    >>> learner = qs.make("protonet", qs.Spec("classification", (4,), way=5))
    >>> task = adapt(Checkpoint(learner, {}), torch.eye(4), ["cat", "dog", "cat", "dog"])
    >>> task.classes, task.probabilities(torch.eye(4)).shape
    (['cat', 'dog'], torch.Size([4, 2]))
    """
    learner = trained.learner
    _check_rows(learner, trained.card, x, where)
    x = x.to(dtype_of(learner) or x.dtype)
    if len(x) != len(y) or not len(x):
        raise UserError(f"{where} has {len(x)} rows and {len(y)} labels: give a label for each of at least one row.")
    classes: list[str] = []
    if isinstance(learner.objective, Classification):
        if isinstance(y, Tensor):
            y = [str(v) for v in y.tolist()]
        classes = sorted(set(y))
        if len(classes) < 2:
            raise UserError(f"{where} shows one class, {classes[0]!r}, and nothing to tell it from: give two or more.")
        learner = learner.for_way(len(classes))
        target = torch.tensor([classes.index(label) for label in y])
    else:
        size = learner.objective.y_size  # type: ignore[attr-defined]
        if not isinstance(y, Tensor) or y.shape != (len(x), size):
            raise UserError(f"{where}: the learner predicts {size} number(s) a row: give y with that many columns.")
        check_finite(y, f"{where}, y")
        target = y.to(x)
    with evaluating(learner, seed=0):
        support = examples(x.unsqueeze(0), target.unsqueeze(0))
        state = learner.adapt(support)
        # how sure to be of values that come without a deviation: asked now, for the support is not kept
        plain = isinstance(learner.objective, Regression)
        off = float(spread(learner, support)) if plain else math.nan
    counts = {name: list(y).count(name) for name in classes}
    origin = {k: trained.card.get(k) for k in ("digest", "path", "learner", "spec")}
    card: dict[str, Any] = {"checkpoint": origin, "classes": classes, "counts": counts, "rows": len(x)}
    if plain:
        card["spread"] = off if math.isfinite(off) else None
    return AdaptedTask(learner, state, classes, card, trained.reader)


def _check_rows(learner: MetaLearner, card: Mapping[str, Any], x: Tensor, where: str, asked: bool = False) -> None:
    """Raise UserError for rows that are not of the shape that the learner was trained on, or not finite.

    asked: the rows to predict, which for zero-shot learners are no descriptions.
    """
    spec = card.get("spec") or {}
    shape = spec.get("x_shape") or getattr(getattr(learner, "net", learner), "x_shape", None)
    if not asked and "zero-shot" in learner.kinds:
        shape = spec.get("description_shape") or getattr(learner, "description_shape", shape)
    if shape is not None and tuple(x.shape[1:]) != tuple(shape):
        raise UserError(
            f"{where} has rows of shape {tuple(x.shape[1:])} and the learner takes {tuple(shape)}: give such rows."
        )
    check_finite(x, where)


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
    classes = [str(name) for name in found.card.get("classes", [])]
    learner = learnt.learner.for_way(len(classes)) if classes else learnt.learner
    return AdaptedTask(learner, found.state, classes, found.card, learnt.reader)
