"""Learners trained for a minute each, which the benchmarks of trust, audits and labelling are about.

They are kept in a folder and made once; `python benchmarks/trust.py` and its kin make what is not there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from results import data_folder

import quickstudy as qs
from quickstudy.core.learner import MetaLearner
from quickstudy.core.source import Source


def omniglot(**episode: Any) -> Source:
    path = str(data_folder() / "omniglot" / "omniglot28.npz")
    return qs.tasks.Omniglot(path, **{"way": 5, "shot": 1, "query": 5, **episode})


def clinc(**episode: Any) -> Source:
    path = str(data_folder() / "intents" / "clinc150.tsv")
    return qs.tasks.Intents(path, **{"way": 5, "shot": 1, "query": 5, **episode})


@dataclass(frozen=True)
class Recipe:
    """How a learner is made. trained_on: episodes of the training tasks where they differ."""

    learner: str
    source: Callable[..., Source]
    steps: int
    meta_batch: int
    options: dict[str, Any] = field(default_factory=dict)
    trained_on: dict[str, Any] = field(default_factory=dict)
    net: dict[str, Any] = field(default_factory=dict)

    def words(self) -> str:
        other = ", ".join(f"{k} {v}" for k, v in self.trained_on.items())
        return f"{self.learner}, {self.steps:,} steps of {self.meta_batch} task(s)" + (f" ({other})" if other else "")


RECIPES: dict[str, Recipe] = {
    "omniglot protonet": Recipe("protonet", omniglot, 500, 1, trained_on={"way": 20, "shot": 1, "query": 5}),
    "omniglot maml": Recipe(
        "maml", omniglot, 400, 4, {"inner_steps": 1, "inner_lr": 0.4, "eval_steps": 3}, net={"pool": "stride"}
    ),
    "clinc150 protonet": Recipe("protonet", clinc, 600, 4, trained_on={"way": 10}),
    "sinusoid maml": Recipe("maml", qs.tasks.Sinusoid, 4000, 16, {"inner_steps": 1, "inner_lr": 0.01}),
    "gp cnp": Recipe("cnp", qs.tasks.GaussianProcess, 3000, 16),
}


def trained(name: str, folder: Path, fewer: int = 1) -> tuple[MetaLearner, Source]:
    """The learner of a recipe, from its file or made now, and its source. fewer: divides the steps, to try it out."""
    recipe = RECIPES[name]
    source = recipe.source()
    path = folder / name.replace(" ", "_") / "best.safetensors"
    if not path.is_file():
        tasks = recipe.source(**recipe.trained_on)
        torch.manual_seed(0)
        learner = qs.make(recipe.learner, source.spec, net_options=recipe.net, **recipe.options)
        learner = learner if source.spec.kind == "regression" else learner.for_way(tasks.spec.way)
        steps = max(recipe.steps // fewer, 2)
        rest = {"valid_every": 0, "progress": False, "overwrite": True, "save_every": steps, "clip": 10.0}
        qs.train(learner, tasks, steps, recipe.meta_batch, lr=2e-3, out=path.parent, **rest)
    return qs.load(path).learner, source
