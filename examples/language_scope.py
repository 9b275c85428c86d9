"""Sentences that ask for none of the intents: how well they are told from the others, from a handful of examples.

A task knows five unseen intents from k examples each. It is asked sentences of those, and as many others: of five
further intents, or (CLINC150) of those that were collected to be out of scope. A sentence's score is how little it
looks like the five; alarms are raised above a threshold that validation tasks set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from language_tasks import META, QUERY, SHOTS, compared_by, learners, plain, rows_of, unseen_intents
from torch import Tensor

from quickstudy.core.learner import MetaLearner
from quickstudy.core.source import Source, Split, generator
from quickstudy.core.task import Task
from quickstudy.evaluate import draw, evaluating, ready
from quickstudy.questions.conformal import row_threshold
from quickstudy.scores import interval
from quickstudy.tasks.intents import OUT_OF_SCOPE

WAY = 5
ALARMS = 0.05
"""The share of sentences within the scope that may raise an alarm."""
SCORES: dict[str, Callable[[Tensor], Tensor]] = {
    "probability": lambda logits: -logits.softmax(-1).amax(-1),
    "logit": lambda logits: -logits.amax(-1),
}
"""How little a row looks like the classes shown: by the largest probability, or the largest logit (for methods that
measure distances, the distance to the nearest class). One is chosen for each method on validation tasks."""
Outside = dict[Split, Tensor]


def scope(name: str, data: Path, encoder: str, folder: Path, short: bool) -> dict[str, Any]:
    """Rows by kind of outside and shot, each with the methods' AUROC, false alarms and what is caught."""
    steps, tasks, valid_tasks = (20, 20, 20) if short else (600, 600, 200)
    source = unseen_intents(data, name, encoder)
    found: dict[str, Any] = {}
    for kind in ("other intents", "out of scope") if name == "clinc150" else ("other intents",):
        outside = _outside(source, data, name) if kind == "out of scope" else {}
        for shot in (1,) if short else SHOTS:
            asked = source.reshaped(way=2 * WAY, shot=shot)
            plainly = plain(source.reshaped(way=WAY, shot=shot), valid_tasks)
            known = {**plainly, **learners(source, folder, steps, valid_tasks, META[:1] if short else META)}
            found[f"{kind}, {shot}-shot"] = {"learners": measured(known, asked, outside, tasks, valid_tasks)}
    return found


def measured(
    known: dict[str, MetaLearner], source: Source, outside: Outside, tasks: int, valid_tasks: int
) -> dict[str, Any]:
    """AUROC (paired), false alarms and the share caught at the threshold of each method."""
    auroc: dict[str, list[float]] = {}
    row: dict[str, Any] = {}
    for name, learner in known.items():
        valid = list(_logits(learner, source, "valid", valid_tasks, outside))
        score = max(SCORES, key=lambda one: np.mean([areas(SCORES[one], *pair) for pair in valid]))
        within = [SCORES[score](inside).flatten(1) for inside, _ in valid]
        threshold = row_threshold([task.numpy() for part in within for task in part], 1 - ALARMS)
        test = list(_logits(learner, source, "test", tasks, outside))
        auroc[name] = [area for pair in test for area in areas(SCORES[score], *pair)]
        raised = [[(SCORES[score](part) > threshold).double().mean(1) for part in pair] for pair in test]
        alarms, caught = (torch.cat(column).tolist() for column in zip(*raised, strict=True))
        row[name] = {"score": score}
        for what, values in (("alarms", alarms), ("caught", caught)):
            row[name][what] = {"mean": float(np.mean(values)), "interval": interval(values)}
    for name, one in compared_by(auroc, "AUROC").items():
        row[name]["auroc"] = one
    return row


def areas(score: Callable[[Tensor], Tensor], inside: Tensor, outside: Tensor) -> list[float]:
    """The AUROC of each task: how often a row outside (task, m, way) scores above one inside (task, n, way).

    >>> logits = torch.tensor([[[3.0, 0.0], [1.0, 0.0]]])
    >>> areas(SCORES["logit"], logits, torch.tensor([[[2.0, 0.0], [0.0, 0.0]]]))
    [0.75]
    """
    a, b = score(inside).unsqueeze(2), score(outside).unsqueeze(1)
    return ((b > a).double() + (b == a).double() / 2).mean((1, 2)).tolist()


def _logits(
    learner: MetaLearner, source: Source, split: Split, tasks: int, outside: Outside
) -> Iterator[tuple[Tensor, Tensor]]:
    """What a learner that was shown the first classes of each task says of rows of these, and of rows outside.

    Outside are rows of the other classes of the task; or some of `outside`, where that is given.
    """
    learner = ready(learner, source)
    for index, block in enumerate(draw(source, split, tasks, 0)):
        task, others = _shown(block)
        if outside:
            chosen = torch.randint(
                len(outside[split]), (block.query.tasks, WAY * QUERY), generator=generator("outside", split, index)
            )
            others = outside[split][chosen]
        with evaluating(learner, index):
            state = learner.adapt(task.support)
            yield learner.predict(state, task.query.x)[..., :WAY], learner.predict(state, others)[..., :WAY]


def _shown(block: Task) -> tuple[Task, Tensor]:
    """Each task with its first classes alone, and the queries of the others; rows are in the order of their labels."""
    support, query = block
    assert isinstance(query.x, Tensor)
    half = query.y.shape[1] // 2
    hidden = support._replace(weight=support.weight * (support.y < WAY))
    first = query._replace(x=query.x[:, :half], y=query.y[:, :half], weight=query.weight[:, :half])
    return Task(hidden, first), query.x[:, half:]


def _outside(source: Source, data: Path, name: str) -> Outside:
    """The vectors of the sentences out of scope: those collected for testing, and the others to set thresholds by."""
    rows = [row for row in rows_of(data, name) if row["label"] == OUT_OF_SCOPE]
    encoder = source.reader().made()  # type: ignore[union-attr]
    texts = {part: [row["text"] for row in rows if (row["split"] == "oos_test") == (part == "test")] for part in
             ("valid", "test")}  # fmt: skip
    return {"valid": encoder.encode(texts["valid"], keep=True), "test": encoder.encode(texts["test"], keep=True)}
