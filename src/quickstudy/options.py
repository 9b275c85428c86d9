"""What is refused before training starts: options, learners and tasks that do not fit."""

from __future__ import annotations

import math
from typing import Any

from quickstudy.core.errors import UserError, nearest
from quickstudy.core.learner import MetaLearner
from quickstudy.core.objective import Classification
from quickstudy.core.source import Source
from quickstudy.evaluate import draw, ready
from quickstudy.outer import draw_tasks

AT_LEAST_1 = (
    *("steps", "meta_batch", "accumulate", "pooled_rows", "valid_tasks", "patience", "save_every"),
    *("devices", "nodes"),
)
AT_LEAST_0 = ("warmup", "valid_every")
KNOWN = {"schedule": ("constant", "cosine"), "precision": ("32-true", "64-true", "bf16-mixed")}


def check_options(options: dict[str, Any], pooled: bool) -> None:
    """Raise UserError for the first option that makes no sense."""
    for name in AT_LEAST_1 + AT_LEAST_0:
        least, value = int(name in AT_LEAST_1), options[name]
        if value is not None and value < least:
            raise UserError(f"{name} is {value} and must be at least {least}.")
    for name in ("lr", "weight_decay", "clip"):
        value = options[name]
        if value is not None and not (0 < value < math.inf) and (name, value) != ("weight_decay", 0):
            raise UserError(f"{name} is {value}: give a positive number.")
    for name, known in KNOWN.items():
        if options[name] not in known:
            raise UserError(f"unknown {name} {options[name]!r}: {nearest(str(options[name]), known)}")
    if options["patience"] is not None and not options["valid_every"]:
        raise UserError("patience counts validations and valid_every is 0: give valid_every, or no patience.")
    if pooled:
        return
    world, meta_batch = options["devices"] * options["nodes"], options["meta_batch"]
    if meta_batch % world:
        raise UserError(f"meta_batch {meta_batch} cannot be shared by {world} processes: make it a multiple.")
    if options["accumulate"] > meta_batch // world:
        raise UserError(
            f"accumulate is {options['accumulate']} and a process has only {meta_batch // world} tasks a step: "
            "accumulate over at most that many parts."
        )


def check_learner(learner: MetaLearner, source: Source, valid_source: Source | None, seed: int) -> None:
    """Raise UserError if there is nothing to train, or tasks cannot be drawn or do not suit the learner."""
    if not learner.trained or not any(p.requires_grad for p in learner.parameters()):
        raise UserError(f"{type(learner).__name__} has nothing to train: evaluate it as it is.")
    ready(learner, source)
    objective, way = learner.objective, source.spec.way
    if isinstance(objective, Classification) and not learner.pooled and way > objective.way:
        raise UserError(
            f"the learner was built for {objective.way} classes and the training tasks have "
            f"{way}: build it for {way}; it may be used with fewer."
        )
    columns, classes = getattr(getattr(learner, "head", None), "out_features", None), source.spec.train_classes
    if learner.pooled and isinstance(objective, Classification) and columns is not None and columns < classes:
        raise UserError(
            f"the learner tells {columns} training classes apart and the train split holds {classes}: build it with "
            f"classes={classes}, as `make` does."
        )
    draw_tasks(learner, source, 1, 1, source.rng(seed, "train", "check"))
    if valid_source is not None:
        ready(learner, valid_source)
        next(draw(valid_source, "valid", 1, seed))
