"""Which learner an estimator was given: a file, a name, or the learner itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import torch

from quickstudy import checkpoint as files
from quickstudy.checkpoint import Checkpoint
from quickstudy.core.errors import UserError, nearest
from quickstudy.core.learner import MetaLearner
from quickstudy.core.source import Spec
from quickstudy.learners import LEARNERS, make
from quickstudy.shipped import located, names
from quickstudy.tasks.reading import READERS

Choice: TypeAlias = "str | Path | Checkpoint | MetaLearner"
"""A learner's file, the name of shipped weights or of a learner that needs no training, or a learner."""


def untrained(kind: str) -> list[str]:
    """The names of the learners that need no training."""
    return [name for name, cls in LEARNERS.items() if not cls.trained and kind in cls.kinds]


def known(choice: Choice, kind: str) -> Checkpoint | None:
    """The learner; None for the name of one that needs no training, which is made once the rows are seen.

    Raises UserError if there is no such learner, it has to be trained, or its tasks are of another kind.
    """
    if isinstance(choice, Checkpoint):
        trained = choice
    elif isinstance(choice, MetaLearner):
        trained = Checkpoint(choice, {})
    elif _is_name(choice):
        name = str(choice)
        if LEARNERS[name].trained:
            raise UserError(
                f"{name} has to be trained first: give the file that `quickstudy train --learner {name}` wrote, or one "
                f"of these, which need no training: {', '.join(untrained(kind))}."
            )
        return None
    elif isinstance(choice, str | Path):
        bare = Path(choice).suffix == "" and len(Path(choice).parts) == 1
        if bare and not located(choice).exists():
            raise UserError(
                f"checkpoint is {str(choice)!r}, and there is no such file: "
                f"{nearest(str(choice), [*names(), *untrained(kind)])}"
            )
        trained = files.load(choice)
    else:
        raise UserError(f"checkpoint is a {type(choice).__name__}: give a file, a name, or a learner.")
    spec = trained.card.get("spec") or {}
    if (spec.get("kind") or trained.learner.objective.kind) != kind:
        other = {"regression": "use FewShotRegressor", "classification": "use FewShotClassifier"}
        found = spec.get("kind") or trained.learner.objective.kind
        raise UserError(f"the learner does {found}: {other.get(found, 'adapt it with `quickstudy.adapt`')}.")
    return trained


def made(choice: Choice, options: Mapping[str, Any] | None, spec: Spec) -> Checkpoint:
    """The learner of that name for rows and labels of these shapes; `options` are its constructor's arguments."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Checkpoint(make(str(choice), spec, **(options or {})), {})


def given_as(choice: Choice) -> str:
    """What rows in memory are (see `Reader.given_as`), from what a file's header says; arrays where it says nothing."""
    if isinstance(choice, Checkpoint):
        return choice.reader.given_as if choice.reader is not None else "arrays"
    if isinstance(choice, MetaLearner) or _is_name(choice):
        return "arrays"
    try:
        card = files.glance(located(choice)).get("reader") or {}
        return READERS[card["name"]].given_as if card else "arrays"
    except (UserError, TypeError):
        return "arrays"  # fit will say what is wrong


def _is_name(choice: object) -> bool:
    """Whether this names a learner of the catalogue, and no file or shipped weights."""
    return isinstance(choice, str) and choice in LEARNERS and choice not in names() and not Path(choice).exists()
