"""Whether a calibration holds on tasks it was not learnt from: reliability, coverage and sizes of sets."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from quickstudy.core.learner import MetaLearner
from quickstudy.core.source import Source, Split
from quickstudy.questions.answers import Answers, answers
from quickstudy.questions.conformal import below_by_chance
from quickstudy.questions.setting import Setting
from quickstudy.questions.trust import Trust, settings_of
from quickstudy.scores import interval

SHOWN = (0.8, 0.9, 0.95)
"""The levels shown unless others are asked for."""


@dataclass(frozen=True)
class Covered:
    """What sets of one level gave on tasks.

    coverage, interval: the share of rows whose set (interval of values) holds the truth, the mean over tasks, and half
    its 95 % interval. below: the share of tasks where that share is less than the level; by_chance: what chance alone
    would give with so few rows, were all rows of all tasks alike.
    size: classes in a set, or the width of an interval in the unit of y, the mean over tasks.
    alone: the share of rows whose set is one class; wrong: how many of these are wrong (NaN without any); both NaN for
    regression. by_task: whether the thresholds by task were used.
    """

    level: float
    by_task: bool
    coverage: float
    interval: float
    below: float
    by_chance: float
    size: float
    alone: float
    wrong: float


@dataclass(frozen=True)
class Shown:
    """A setting on tasks it was not learnt from.

    before, after: "log_loss" (nats a row, the mean over tasks), and "ece" for classification, of the learner's own
    probabilities (or Gaussians; NaN where it states none) and of the calibrated ones.
    accuracy: the share of right rows, NaN for regression.
    """

    way: tuple[int, int]
    shot: tuple[int, int]
    tasks: int
    temperature: float
    accuracy: float
    before: dict[str, float]
    after: dict[str, float]
    levels: list[Covered]


def coverage(
    learner: MetaLearner,
    source: Source,
    trust: Trust,
    split: Split = "test",
    tasks: int = 600,
    seed: int = 0,
    shots: Sequence[int] = (),
    ways: Sequence[int] = (),
    levels: Sequence[float] = SHOWN,
    watch: Callable[[int], object] | None = None,
) -> list[Shown]:
    """How the calibration does on tasks of a split, for each way and shot given.

    Raises UserError for a level out of range, or as `evaluate` does.
    """
    for level in levels:
        trust.settings[0].threshold(level)
    made = []
    for number, one in enumerate(settings_of(source, shots, ways)):
        done = (lambda n, k=number * tasks: watch(k + n)) if watch is not None else None
        found = answers(learner, one, split, tasks, seed, done)
        made.append(shown(found, trust.setting(found.way[1], sum(found.shot) / 2), levels))
    return made


def shown(found: Answers, one: Setting, levels: Sequence[float]) -> Shown:
    """A setting on the answers to tasks."""
    scores = one.scores(found)
    sets = [covered(found, one, scores, level, by_task) for by_task in (False, True) for level in levels]
    if found.deviation is None:
        right = found.out.argmax(-1) == found.y
        accuracy = float(np.mean([row.mean() for row in found.by_task(right)]))
    else:
        accuracy = math.nan
    return Shown(
        found.way,
        found.shot,
        len(found),
        one.temperature,
        accuracy,
        _measured(found, one, calibrated=False),
        _measured(found, one, calibrated=True),
        sets,
    )


def covered(found: Answers, one: Setting, scores: np.ndarray, level: float, by_task: bool) -> Covered:
    """What the sets of a level gave."""
    limit = one.threshold(level, by_task)
    alone = wrong = math.nan
    if found.deviation is None:
        odds = found.probabilities(one.temperature)
        best = odds.argmax(-1)
        kept = (1 - odds <= limit) & np.isfinite(found.out)
        np.put_along_axis(kept, best[..., None], True, -1)  # a set is never empty
        inside = np.take_along_axis(kept, found.y[..., None], -1)[..., 0]
        sizes = kept.sum(-1).astype(float)
        single = (sizes == 1) & (found.weight > 0)
        alone = float(np.mean([row.mean() for row in found.by_task(single)]))
        wrong = float((best != found.y)[single].mean()) if single.any() else math.nan
    else:
        inside = scores <= limit
        sizes = 2 * limit * one.deviation(found.deviation).mean(-1)
    shares = [float(row.mean()) for row in found.by_task(inside)]
    mean = float(np.mean(shares))
    size = float(np.mean([row.mean() for row in found.by_task(sizes)]))
    below = float(np.mean([share < level - 1e-9 for share in shares]))
    chance = below_by_chance(found.rows, mean, level)
    return Covered(level, by_task, mean, interval(shares), below, chance, size, alone, wrong)


def _measured(found: Answers, one: Setting, calibrated: bool) -> dict[str, float]:
    """Log loss and calibration error of the learner's own answers, or of the calibrated ones."""
    if found.deviation is None:
        temperature = one.temperature if calibrated else 1.0
        odds = np.take_along_axis(found.probabilities(temperature), found.y[..., None], -1)[..., 0]
        losses = -np.log(np.maximum(odds, 1e-300))
        more = {"ece": found.reliability(temperature).ece}
    elif calibrated or found.stated:
        deviation = one.deviation(found.deviation) if calibrated else found.deviation
        z = (found.y - found.out) / deviation
        losses, more = (np.log(deviation) + 0.5 * np.square(z) + 0.5 * math.log(2 * math.pi)).mean(-1), {}
    else:
        return {"log_loss": math.nan}
    return {"log_loss": float(np.mean([row.mean() for row in found.by_task(losses)])), **more}


def as_json(found: Sequence[Shown]) -> list[dict[str, Any]]:
    """What was shown, as JSON holds it: a value that is not finite becomes null."""
    return [_finite(asdict(one)) for one in found]


def _finite(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {k: _finite(v) for k, v in tree.items()}
    if isinstance(tree, list | tuple):
        return [_finite(v) for v in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree
