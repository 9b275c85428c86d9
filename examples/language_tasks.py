"""What the parts of language.py share: tasks of intents, and who answers them.

Plain methods see one new task alone: nearest centroid and logistic regression on the vectors of an encoder that nothing
here trains. Learners were trained on tasks of other intents, through the same vectors.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import torch

import quickstudy as qs
from quickstudy import checkpoint
from quickstudy.core.learner import MetaLearner
from quickstudy.core.source import Source
from quickstudy.scores import Comparison, Evaluation, compare, interval
from quickstudy.tasks import Intents, Texts
from quickstudy.tasks.intents import OUT_OF_SCOPE

SETS = ("clinc150", "hwu64")
SHOTS = (1, 5, 10)
QUERY = 5
PLAIN = ("centroid", "logistic")
META = ("protonet", "r2d2", "simple_shot")
STRENGTHS = (0.001, 0.01, 0.1, 1.0)
"""Of logistic regression; one is chosen on validation tasks."""
RATES = (1e-3, 1e-4)
"""Of training; one is chosen on validation tasks, as is the step."""
ROTATIONS = 5
"""Every domain of CLINC150 is unseen once: two of its ten at a time."""


def unseen_intents(data: Path, name: str, encoder: str) -> Intents:
    """Tasks of intents that training does not show: fold 1 of ProtAugment's class splits."""
    return Intents(str(data / "intents" / f"{name}.tsv"), query=QUERY, encoder=encoder)


def rows_of(data: Path, name: str) -> list[dict[str, str]]:
    """The rows of a table."""
    with open(data / "intents" / f"{name}.tsv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def unseen_domains(data: Path, encoder: str, rotation: int) -> Texts:
    """Tasks whose intents come from one domain of CLINC150, none of whose intents training shows."""
    rows = [row for row in rows_of(data, "clinc150") if row["label"] != OUT_OF_SCOPE]
    domains = sorted({row["domain"] for row in rows})
    turned = domains[2 * rotation :] + domains[: 2 * rotation]
    part = {domain: "test" if i < 2 else "valid" if i < 4 else "train" for i, domain in enumerate(turned)}
    table = [{**row, "split": part[row["domain"]]} for row in rows]
    options: dict[str, Any] = {"split_column": "split", "domain_column": "domain", "hold_out": "domains"}
    return Texts.of(table, query=QUERY, encoder=encoder, **options)


def learners(
    source: Source, folder: Path, steps: int, valid_tasks: int, names: tuple[str, ...] = META
) -> dict[str, MetaLearner]:
    """The learners by name, each trained once at every rate and kept in the folder with the best of these.

    What is best on 5-way 1-shot validation tasks is kept; the test split has no say.
    """
    return {name: _learner(name, source, folder / f"{name}.safetensors", steps, valid_tasks) for name in names}


def _learner(name: str, source: Source, path: Path, steps: int, valid_tasks: int) -> MetaLearner:
    if path.is_file():
        return checkpoint.load(path).learner
    easy = source.reshaped(way=5, shot=1)
    hard = source.reshaped(way=10, shot="1-5")
    best: tuple[float, MetaLearner] | None = None
    for rate in RATES:
        torch.manual_seed(0)
        learner = qs.make(name, hard.spec, "projection")
        options = {"steps": steps, "valid_every": max(steps // 4, 1), "valid_tasks": valid_tasks, "progress": False}
        run = qs.train(learner, hard, lr=rate, valid_source=easy, **options)
        if best is None or (run.best_score or 0.0) > best[0]:
            best = run.best_score or 0.0, run.learner
    assert best is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.save(best[1], path, source)
    return checkpoint.load(path).learner


def plain(source: Source, valid_tasks: int) -> dict[str, MetaLearner]:
    """The plain methods, logistic regression with the strength that does best on validation tasks of these sizes."""
    made = {s: qs.make("logistic", source.spec, strength=s) for s in STRENGTHS}
    best = max(STRENGTHS, key=lambda s: qs.evaluate(made[s], source, "valid", valid_tasks).mean())
    return {"centroid": qs.make("centroid", source.spec), "logistic": made[best]}


def compared(found: dict[str, Evaluation]) -> dict[str, Any]:
    """Each method's mean accuracy, and its paired differences from the plain ones; the task is the unit."""
    row: dict[str, Any] = {}
    for name, one in found.items():
        pairs = {base: compare(one, found[base]) for base in PLAIN if base != name}
        than = {base: [pair.difference, pair.interval, pair.verdict] for base, pair in pairs.items()}
        row[name] = {"mean": one.mean(), "interval": one.interval(), "than": than}
    return row


def compared_by(values: dict[str, list[float]], measure: str) -> dict[str, Any]:
    """The same for a value a unit, higher being better: of a task, or of a domain."""
    row: dict[str, Any] = {}
    for name, own in values.items():
        than = {}
        for base in (one for one in PLAIN if one != name):
            gap = [a - b for a, b in zip(own, values[base], strict=True)]
            pair = Comparison(name, base, measure, 1, sum(gap) / len(gap), interval(gap), len(gap))
            than[base] = [pair.difference, pair.interval, pair.verdict]
        row[name] = {"mean": sum(own) / len(own), "interval": interval(own), "than": than}
    return row
