"""How wide a distribution of tasks is: how many of them differ, what they cover, and what two splits share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from quickstudy.core.learner import MetaLearner
from quickstudy.core.objective import Classification
from quickstudy.core.source import Split
from quickstudy.evaluate import cut, device_of, draw, dtype_of, evaluating
from quickstudy.questions.audit import Auditor
from quickstudy.questions.row_features import row_features
from quickstudy.tasks.pool import ClassSource

ROWS = 6
"""Rows of a class that its mean is taken of."""
CLASSES = 5000
"""Classes of a split that are compared, at most."""


def effective_number(similarity: np.ndarray) -> float:
    """How many different things a symmetric matrix of similarities, 1 on its diagonal, describes (the Vendi score).

    exp(-sum_i l_i log l_i), l the eigenvalues of similarity / n (Friedman and Dieng, arXiv 2210.02410): k for k groups
    of equal size that are alike inside and unlike between.

    >>> round(effective_number(np.kron(np.eye(3), np.ones((4, 4)))), 6)
    3.0
    """
    values = np.linalg.eigvalsh(similarity / len(similarity))
    values = values[values > 1e-12]
    return float(np.exp(-(values * np.log(values)).sum()))


def similarity(distances: np.ndarray, same: float) -> np.ndarray:
    """Similarities of distances: 1 at 0, and one half at `same`, the distance of what is the same but for chance.

    >>> similarity(np.array([0.0, 2.0]), 2.0).tolist()
    [1.0, 0.5]
    """
    return np.exp2(-np.square(distances / max(same, 1e-12)))


@dataclass(frozen=True)
class Width:
    """How wide the training tasks are.

    same: the median distance of two supports of one task. drawn: how many training tasks were; effective: how many
    different ones they amount to; of_half: half of them. covered: for each other split the share of its tasks that are
    no farther from their nearest training task than 95 % of the training tasks are from theirs.
    """

    same: float
    drawn: int
    effective: float
    of_half: float
    covered: dict[str, float]


def width(auditor: Auditor, splits: Sequence[Split] = ("valid", "test")) -> Width:
    """How wide the training tasks of an auditor are, and how much of other splits they cover."""
    train = auditor.train
    apart = auditor.distances(train)
    np.fill_diagonal(apart, math.inf)
    limit = float(np.quantile(apart.min(1), 0.95))
    np.fill_diagonal(apart, 0.0)
    same = _same(auditor)
    alike = similarity(apart, same)
    half = len(train) // 2
    covered = {}
    for split in splits:
        near = auditor.distances(auditor.profiles(split).embedding).min(1)
        covered[split] = float((near <= limit).mean())
    return Width(same, len(train), effective_number(alike), effective_number(alike[:half, :half]), covered)


def _same(auditor: Auditor) -> float:
    """The median distance between two supports of one task: its own, and as many rows of its query."""
    place = device_of(auditor.learner), dtype_of(auditor.learner)
    objective = auditor.learner.objective
    found: list[float] = []
    for block in draw(auditor.source, "train", min(auditor.tasks, 100), auditor.seed + 1):
        (part,) = cut(block, None, *place)
        query = part.query
        if isinstance(objective, Classification):
            kin = query.y.unsqueeze(1) == query.y.unsqueeze(2)
            shots = (objective.indicators(part.support.y) & (part.support.weight > 0).unsqueeze(-1)).sum(1)
            taken = kin.tril(-1).sum(-1) < shots.gather(1, query.y)
        else:
            taken = (query.weight > 0).cumsum(1) <= (part.support.weight > 0).sum(1, keepdim=True)
        other = query._replace(weight=query.weight * taken)
        a, b = (auditor.profile(one).embedding @ auditor.whiten for one in (part.support, other))
        found += np.linalg.norm(a - b, axis=1).tolist()
    return float(np.median(found)) / math.sqrt(auditor.train.shape[1])


@dataclass(frozen=True)
class Twins:
    """A class of the train split and one of another that the learner sees as one: nearer than two halves of a class.

    apart: their distance, 1 being the median distance of two halves of one class.
    """

    train: str
    other: str
    split: str
    apart: float


def twins(
    learner: MetaLearner,
    source: ClassSource,
    splits: Sequence[Split] = ("valid", "test"),
    seed: int = 0,
    watch: Callable[[int], object] | None = None,
) -> tuple[list[Twins], dict[str, int]]:
    """Classes that stand in train and in another split nearly alike, the nearest first; and how many of each split.

    Each class is the mean of two halves of up to 6 of its rows, in the learner's features. `watch` is called with the
    number of classes done. Left out: of a split with more than 5,000 classes those beyond.
    """
    sums = {}
    for split in ("train", *splits):
        sums[split] = _halves(learner, source, split, seed)
        if watch is not None:
            watch(sum(len(first) for first, _ in sums.values()))
    one, two = sums["train"]
    noise = float((one - two).norm(dim=1).median())
    # the mean of both halves is nearer to the truth than either by the root of two
    typical = max(noise / math.sqrt(2), 1e-12)
    names = source.names("train")
    found: list[Twins] = []
    count: dict[str, int] = {}
    for split in splits:
        if not len(sums[split][0]):
            count[split] = 0
            continue
        apart = torch.cdist((sums[split][0] + sums[split][1]) / 2, (one + two) / 2) / typical
        near, which = apart.min(1)
        close = (near < 1).nonzero().flatten().tolist()
        count[split] = len(close)
        other = source.names(split)
        found += [Twins(names[int(which[i])], other[i], split, float(near[i])) for i in close]
    return sorted(found, key=lambda pair: pair.apart), count


def _halves(learner: MetaLearner, source: ClassSource, split: Split, seed: int) -> tuple[Tensor, Tensor]:
    """The means (class, d) of the first and of the second half of some rows of every class of a split."""
    pool = source.prepare()
    chosen = pool.splits[split][:CLASSES]
    if not len(chosen):
        return torch.zeros(0, 1), torch.zeros(0, 1)
    rng = source.rng(seed, "audit classes", split)
    noise = torch.rand(len(chosen), pool.rows.shape[1], generator=rng, device=rng.device)
    noise[torch.arange(pool.rows.shape[1], device=rng.device) >= pool.counts[chosen].unsqueeze(1)] = -1
    place = noise.topk(min(ROWS, pool.rows.shape[1]), 1).indices
    # a class with few rows repeats them: row numbers are filled up with valid ones
    rows = pool.rows[chosen].gather(1, place)
    parts = []
    with evaluating(learner, seed):
        for some in rows.split(50):
            x = pool.gather(some).to(device_of(learner))
            parts.append(row_features(learner, x.to(dtype_of(learner) or x.dtype)).cpu())
    features = torch.cat(parts)
    half = max(features.shape[1] // 2, 1)
    return features[:, :half].mean(1), features[:, half:].mean(1) if features.shape[1] > 1 else features[:, 0]
