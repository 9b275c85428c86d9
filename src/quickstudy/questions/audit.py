"""Whether a new task is like those that a learner was trained on: told from its support alone.

A task is described by a few signals, each larger the less it is like the training tasks. The largest of them, in units
of what validation tasks show, is its score; what share of validation tasks scores as high is the p-value.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.covariance import LedoitWolf
from torch import Tensor

from quickstudy.core.errors import UserError
from quickstudy.core.learner import MetaLearner
from quickstudy.core.objective import Classification, values_of
from quickstudy.core.source import Source, Split
from quickstudy.core.task import Examples, State
from quickstudy.evaluate import cut, device_of, draw, dtype_of, evaluating, ready
from quickstudy.inner.closed import class_sums, prototypes
from quickstudy.left_out import left_out_loss
from quickstudy.questions.row_features import row_features

BANK = 2000
"""Rows of the training tasks that those of a new one are compared with."""
NEAREST = 3
"""Neighbours that a distance is the mean over."""
PROBES = 32
"""Inputs at which the functions that tasks were adapted to are compared."""
MEANING = {
    "inputs": "rows unlike those of the training tasks",
    "features": "rows in which the learner sees what it saw in no training task",
    "task": "a task that is far, as a whole, from the nearest training tasks",
    "fit": "examples that the learner cannot predict from one another",
    "classes": "classes that look alike to the learner",
}


@dataclass(frozen=True)
class Profile:
    """What the supports of tasks say. embedding: (task, e); signals: name to (task,), NaN where it does not apply."""

    embedding: np.ndarray
    signals: dict[str, np.ndarray]


class Auditor:
    """Compares tasks with `tasks` training tasks and `tasks` validation tasks, of the way and shot of the source.

    `prepare` draws those, which takes as long as adapting to them: it is done on first use. Embedding of a task: for
    classification the mean and the spread of its class means in the learner's features; for regression what the adapted
    learner predicts at inputs fixed once. Distances are Mahalanobis, by the training tasks' shrunk covariance.

    Raises UserError for zero-shot tasks and for fewer than 20 tasks.
    """

    def __init__(self, learner: MetaLearner, source: Source, tasks: int = 300, seed: int = 0):
        if source.spec.kind == "zero-shot":
            raise UserError("the support of zero-shot tasks holds no examples to audit: choose tasks with examples.")
        if tasks < 20:
            raise UserError(f"{tasks} tasks to compare with: give at least 20.")
        self.learner = ready(learner, source)
        self.source = source
        self.tasks = tasks
        self.seed = seed
        self.bank: dict[str, Tensor] = {}
        self.probes = torch.zeros(0)
        self.train = np.zeros((0, 0))
        self.whiten = np.zeros((0, 0))
        self.middle: dict[str, tuple[float, float]] = {}
        self.reference = np.zeros(0)

    def prepare(self, watch: Callable[[int], object] | None = None) -> Auditor:
        """Draw the tasks to compare with; `watch` is called with how many of twice `tasks` are done. Returns itself."""
        rng = self.source.rng(self.seed, "audit rows")
        rows = self.source.sample_pooled("train", BANK, rng).x
        assert isinstance(rows, Tensor)
        rows = rows.to(device_of(self.learner), dtype_of(self.learner) or rows.dtype)
        self.probes = rows[0, :PROBES]
        flat = rows[0].flatten(1)
        scale = flat.std(0).clamp_min(1e-3 * float(flat.std().clamp_min(1e-9)))
        with evaluating(self.learner, self.seed):
            seen = torch.cat([self._features(part) for part in rows[0].split(100)]) if self._classes else flat
        self.bank = {"inputs": flat / scale, "scale": scale, "features": seen}
        train = self.profiles("train", watch)
        self.train = train.embedding
        values, vectors = np.linalg.eigh(np.asarray(LedoitWolf().fit(self.train).get_precision()))
        self.whiten = vectors * np.sqrt(np.maximum(values, 0))
        held = self.profiles("valid", None if watch is None else lambda n: watch(self.tasks + n))
        signals = self._with_distance(held)
        first, rest = slice(0, self.tasks // 2), slice(self.tasks // 2, None)
        for name, values in signals.items():
            known = values[first][np.isfinite(values[first])]
            if len(known):
                self.middle[name] = float(known.mean()), float(max(known.std(), 1e-9))
        self.reference = np.sort(self._score({name: values[rest] for name, values in signals.items()}))
        return self

    @property
    def _classes(self) -> bool:
        return isinstance(self.learner.objective, Classification)

    def _features(self, rows: Tensor) -> Tensor:
        return row_features(self.learner, rows.unsqueeze(0))[0]

    def profiles(self, split: Split, watch: Callable[[int], object] | None = None) -> Profile:
        """Profiles of the tasks of a split that `evaluate` meets first."""
        parts = []
        place = device_of(self.learner), dtype_of(self.learner)
        for block in draw(self.source, split, self.tasks, self.seed):
            (part,) = cut(block, None, *place)
            parts.append(self.profile(part.support))
            if watch is not None:
                watch(sum(len(one.embedding) for one in parts))
        signals = {name: np.concatenate([one.signals[name] for one in parts]) for name in parts[0].signals}
        return Profile(np.concatenate([one.embedding for one in parts]), signals)

    def profile(self, support: Examples) -> Profile:
        """The profile of each task of a batch, from its support; `prepare` must have been called."""
        learner = self.learner
        assert isinstance(support.x, Tensor)
        with evaluating(learner, self.seed):
            signals = {"inputs": self._far(support.x.flatten(2) / self.bank["scale"], "inputs", support)}
            if isinstance(learner.objective, Classification):
                features = row_features(learner, support.x)
                signals["features"] = self._far(features, "features", support)
                centres = prototypes(*class_sums(features, learner.objective.one_hot(support)))
                seen = learner.objective.seen(support)
                embedding = _placed(centres, seen)
                signals["classes"] = _alike(centres, seen)
            else:
                embedding = self._function(learner.adapt(support))
            signals["fit"] = left_out_loss(learner, support)
        return Profile(
            embedding.double().cpu().numpy(), {name: v.double().cpu().numpy() for name, v in signals.items()}
        )

    def _function(self, state: State) -> Tensor:
        """The adapted learner's values at the probes, (task, probe * y_size)."""
        tasks = len(next(iter(state.values())))
        out = self.learner.predict(state, self.probes.unsqueeze(0).expand(tasks, *self.probes.shape))
        return values_of(self.learner.objective, out)[0].flatten(1)

    def _far(self, rows: Tensor, bank: str, support: Examples) -> Tensor:
        """The mean over a task's rows of the mean distance to the nearest rows of the bank."""
        known = self.bank[bank]
        near = torch.cdist(rows.flatten(0, 1), known).topk(min(NEAREST, len(known)), largest=False).values.mean(-1)
        real = (support.weight > 0).to(near.dtype)
        return (near.view(real.shape) * real).sum(1) / real.sum(1).clamp_min(1)

    def distances(self, embedding: np.ndarray) -> np.ndarray:
        """From tasks to the training tasks, (task, training task); 1 is a deviation among the latter."""
        a, b = (torch.from_numpy(one @ self.whiten) for one in (embedding, self.train))
        return torch.cdist(a, b).numpy() / np.sqrt(self.train.shape[1])

    def _with_distance(self, found: Profile) -> dict[str, np.ndarray]:
        near = np.sort(self.distances(found.embedding), 1)[:, :NEAREST].mean(1)
        return {**found.signals, "task": near}

    def _parts(self, signals: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Signals in deviations above what validation tasks show; 0 where one does not apply."""
        return {
            name: np.nan_to_num((values - self.middle[name][0]) / self.middle[name][1], nan=0.0, posinf=1e9)
            for name, values in signals.items()
            if name in self.middle
        }

    def _score(self, signals: dict[str, np.ndarray]) -> np.ndarray:
        return np.max(list(self._parts(signals).values()), 0)

    def verdicts(self, found: Profile) -> list[Verdict]:
        """How much like the training tasks each task is."""
        parts = self._parts(self._with_distance(found))
        near = self.distances(found.embedding)
        made = []
        for t in range(len(found.embedding)):
            own = {name: float(values[t]) for name, values in parts.items()}
            score = max(own.values())
            above = len(self.reference) - int(np.searchsorted(self.reference, score))
            p = (1 + above) / (1 + len(self.reference))
            made.append(Verdict(score, p, own, near[t].argsort()[:NEAREST].tolist(), float(near[t].min())))
        return made


@dataclass(frozen=True)
class Verdict:
    """How much like the training tasks a task is.

    score: the largest of `parts`, the signals in deviations above the mean of validation tasks. p: the conformal
    p-value: a task drawn like the validation tasks has p <= a with probability of at most a. nearest: the numbers of
    the nearest training tasks; distance: to the first of them.
    """

    score: float
    p: float
    parts: dict[str, float]
    nearest: list[int]
    distance: float

    @property
    def why(self) -> str:
        """The signal that says most."""
        return max(self.parts, key=lambda name: self.parts[name])


def _placed(centres: Tensor, seen: Tensor) -> Tensor:
    """Mean, and logarithm of the spread, of the class means that are there: (task, 2 d)."""
    share = (seen / seen.sum(1, keepdim=True)).unsqueeze(-1)
    mean = (centres * share).sum(1)
    spread = ((centres - mean.unsqueeze(1)).square() * share).sum(1).sqrt()
    return torch.cat([mean, (spread + 1e-3 * spread.mean(1, keepdim=True) + 1e-9).log()], 1)


def _alike(centres: Tensor, seen: Tensor) -> Tensor:
    """Minus the logarithm of the distance between the two nearest class means, beside their typical size: (task,)."""
    apart = torch.cdist(centres, centres)
    there = (seen.unsqueeze(1) * seen.unsqueeze(2)).bool() & ~torch.eye(seen.shape[1], dtype=torch.bool)
    return -apart.masked_fill(~there, torch.inf).amin((1, 2)).clamp_min(1e-9).log()
