"""The language example in short: its pieces against scikit-learn, and all its parts on real sentences."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import quickstudy as qs
from quickstudy.core.task import Task

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The example's modules, whose folder is on the path meanwhile."""
    monkeypatch.setattr(sys, "path", [str(EXAMPLES), *sys.path])
    return tuple(importlib.import_module(name) for name in ("language", "language_scope", "language_tasks"))


def test_the_area_is_scikit_learns(example: Any) -> None:
    _, scope, _ = example
    rng = torch.Generator().manual_seed(0)
    inside, outside = (torch.randn(3, n, 4, generator=rng).round() for n in (7, 9))  # rounded: some are equal
    for score in scope.SCORES.values():
        wanted = [
            roc_auc_score(np.repeat([0, 1], [7, 9]), torch.cat([score(inside[t]), score(outside[t])]).numpy())
            for t in range(3)
        ]
        np.testing.assert_allclose(scope.areas(score, inside, outside), wanted)


def test_what_lies_outside_is_hidden_from_the_support(example: Any) -> None:
    _, scope, _ = example
    way = 2 * scope.WAY
    support = qs.examples(torch.randn(2, way, 3), torch.arange(way).expand(2, way))
    query = qs.examples(torch.randn(2, 2 * way, 3), torch.arange(way).repeat_interleave(2).expand(2, 2 * way))
    task, others = scope._shown(Task(support, query))
    assert torch.equal(task.support.weight, (support.y < scope.WAY).float())
    both = torch.cat([task.query.x, others], 1)
    assert bool((task.query.y < scope.WAY).all()) and torch.equal(both, query.x)  # type: ignore[arg-type]


def test_differences_are_paired(example: Any) -> None:
    _, _, tasks = example
    values = {"centroid": [0.1, 0.9, 0.5], "logistic": [0.2, 0.8, 0.5], "protonet": [0.3, 1.0, 0.6]}
    row = tasks.compared_by(values, "accuracy")
    difference, half, verdict = row["protonet"]["than"]["centroid"]
    assert difference == pytest.approx(0.4 / 3) and half < row["protonet"]["interval"] and verdict == "cannot tell"
    assert row["centroid"]["than"].keys() == {"logistic"}


def test_every_domain_is_unseen_once(example: Any, test_data: Path) -> None:
    _, _, tasks = example
    unseen: list[str] = []
    for rotation in range(tasks.ROTATIONS):
        source = tasks.unseen_domains(test_data, "hashed", rotation)
        parts: dict[str, set[str]] = {}
        assert len(source._given.names) == 22_500
        for domain, split in zip(source._given.columns["domain"], source._given.columns["split"], strict=True):
            parts.setdefault(split, set()).add(domain)
        assert [len(parts[split]) for split in ("train", "valid", "test")] == [6, 2, 2]
        assert not parts["train"] & (parts["valid"] | parts["test"])
        unseen += sorted(parts["test"])
    assert len(set(unseen)) == len(unseen) == 10


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the frame. texts that repeat another of their class")
def test_all_parts_in_short(example: Any, test_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    language, _, tasks = example
    monkeypatch.setenv("QUICKSTUDY_CACHE", str(tmp_path / "cache"))
    found = language.run([*language.PARTS], test_data, "hashed", tmp_path, short=True)["encoders"]["hashed"]
    names = {*tasks.PLAIN, "protonet"}
    five, everything = found["five"]["rows"]["clinc150/5/1"]["learners"], found["all"]["rows"]["clinc150/50/1"]
    assert five.keys() == names and all(0.6 < row["mean"] < 0.9 for row in five.values())
    assert all(0.3 < row["mean"] < 0.6 for row in everything["learners"].values())
    domains = found["domains"]["rows"]["clinc150/5/1"]
    assert (domains["tasks"], domains["domains"]) == (20, 2)
    scope = found["scope"]["rows"]["hwu64/other intents, 1-shot"]["learners"]
    assert scope.keys() == names and all(row["auroc"]["mean"] > 0.6 for row in scope.values())
    assert all(row["alarms"]["mean"] < 0.2 and row["caught"]["mean"] < 0.9 for row in scope.values())
