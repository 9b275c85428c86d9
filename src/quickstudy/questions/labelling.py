"""Which example to label next: strategies that rank the unlabelled rows of a task, on a learner's own cheap adaptation.

A strategy sees the labelled rows, the unlabelled ones, and what the learner adapted to the former says of the latter.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from quickstudy.core.errors import UserError, nearest
from quickstudy.core.learner import MetaLearner
from quickstudy.core.objective import Classification, GaussianRegression
from quickstudy.core.source import generator
from quickstudy.core.task import Examples, State, examples, join_rows, map_tensors
from quickstudy.evaluate import evaluating
from quickstudy.questions.row_features import behind_network, row_features

DEFAULT = "auto"
"""Stands for the strategy that suits the task: `suited`."""
AHEAD = 40
"""Candidates that `lookahead` tries, at most: those whose label is least sure."""
SEEN = 100
"""Unlabelled rows that `lookahead` judges each of them by, at most."""
TOGETHER = 64
"""Tasks that `lookahead` adapts to at once."""


@dataclass(frozen=True)
class Asked:
    """One question: which of the rows of `pool` to label next.

    state: what the learner learnt of the task. pool: (m, *x_shape). support: the labelled rows, one task; None where
    only the state is left of them. classes: how many of the learner's columns are in use (0 for regression).
    """

    learner: MetaLearner
    state: State
    pool: Tensor
    support: Examples | None = None
    classes: int = 0

    def predictions(self) -> Tensor:
        """What the learner says of the pool, (m, size)."""
        return self.learner.predict(self.state, self.pool.unsqueeze(0))[0]

    def probabilities(self) -> Tensor:
        """The probability of every class in use, (m, class).

        Raises UserError for a regression task.
        """
        if not isinstance(self.learner.objective, Classification):
            raise UserError("this strategy is about classes, and the task has values: choose random or k-centre.")
        return self.predictions().double().softmax(-1)[:, : self.classes]

    def features(self, x: Tensor) -> Tensor:
        """What the learner sees in rows, (n, d)."""
        parts = [x] if self.learner.batch_statistics else x.split(256)
        return torch.cat([row_features(self.learner, part.unsqueeze(0))[0] for part in parts]).double()


Strategy = Callable[[Asked, int, torch.Generator], list[int]]
"""(what is asked, how many rows, generator) -> the numbers of the rows to label, the first one first."""


def by_chance(asked: Asked, count: int, rng: torch.Generator) -> list[int]:
    """Any rows, each equally likely."""
    return torch.randperm(len(asked.pool), generator=rng)[:count].tolist()


def entropy(asked: Asked, count: int, rng: torch.Generator) -> list[int]:
    """The rows whose answer is least sure: of most entropy (Lewis and Gale 1994; Settles 2009, section 3.1).

    For regression, of the largest deviation. Raises UserError where the learner says none.
    """
    return _most(_unsure(asked), count, rng)


def margin(asked: Asked, count: int, rng: torch.Generator) -> list[int]:
    """The rows whose two most probable classes are nearest to each other (Scheffer and others 2001)."""
    return _most(_close(asked), count, rng)


def k_centre(asked: Asked, count: int, rng: torch.Generator) -> list[int]:
    """The rows farthest from all that are labelled or were picked (Sener and Savarese 2018, arXiv 1708.00489).

    Greedy, in the learner's features. Where no labelled rows are at hand the first is the one nearest to the mean.
    """
    return _spread_out(asked, count, None)


def diverse(asked: Asked, count: int, rng: torch.Generator) -> list[int]:
    """Rows whose margin is small and that are far from all that are labelled or were picked.

    Greedy, by the product of 1 - (p1 - p2) and of the distance to the nearest of those.
    """
    return _spread_out(asked, count, _close(asked))


def lookahead(asked: Asked, count: int, rng: torch.Generator) -> list[int]:
    """The rows after whose label the learner would be least unsure of the others (Roy and McCallum 2001).

    For each of up to 40 candidates (of the smallest margins) and each label it may get: the learner adapts to it, and
    the error it then expects, the mean of 1 - max p over up to 100 rows of the pool, is weighed by the label's
    probability. `count` rows are the `count` best taken singly.
    Raises UserError where the labelled rows are not at hand and the learner cannot add to a state.
    """
    odds = asked.probabilities()
    candidates = _most(_close(asked), min(AHEAD, len(odds)), rng)
    judged = torch.randperm(len(odds), generator=rng)[:SEEN]
    if asked.support is None and not asked.learner.incremental:
        raise UserError(
            "lookahead adapts again with each label that could come, and the examples are not kept in this file: give "
            "them with --support, or choose another strategy."
        )
    learner, rows = _on_features(asked)
    pairs = [(row, label) for row in candidates for label in range(asked.classes)]
    errors: list[Tensor] = []
    for start in range(0, len(pairs), TOGETHER):
        some = pairs[start : start + TOGETHER]
        n = len(some)
        x = rows.pool[[row for row, _ in some]].unsqueeze(1)
        new = examples(x, torch.tensor([[label] for _, label in some]))
        if rows.support is not None:
            before = map_tensors(rows.support, lambda t, n=n: t.expand(n, *t.shape[1:]))
            state = learner.adapt(join_rows(before, new))
        else:
            state = learner.adapt(new, map_tensors(rows.state, lambda t, n=n: t.expand(n, *t.shape[1:])))
        seen = rows.pool[judged].unsqueeze(0)
        out = learner.predict(state, seen.expand(n, *seen.shape[1:])).double()
        errors.append(1 - out.softmax(-1)[..., : asked.classes].amax(-1).mean(1))
    expected = (torch.cat(errors).view(len(candidates), -1) * odds[candidates]).sum(1)
    return [candidates[i] for i in expected.argsort(stable=True)[:count].tolist()]


STRATEGIES: dict[str, Strategy] = {
    "random": by_chance,
    "entropy": entropy,
    "margin": margin,
    "k-centre": k_centre,
    "diverse": diverse,
    "lookahead": lookahead,
}


def suited(asked: Asked) -> str:
    """The strategy taken unless one is named: for classes that which is best on validation tasks
    (benchmarks/labelling.py), for values the learner's own deviations, or distances where it says none."""
    if isinstance(asked.learner.objective, Classification):
        return "diverse"
    return "entropy" if isinstance(asked.learner.objective, GaussianRegression) else "k-centre"


def label_next(asked: Asked, strategy: str = DEFAULT, count: int = 1, seed: int = 0) -> list[int]:
    """The numbers of the rows of the pool to label next, the first one first.

    Raises UserError for an unknown strategy, a count below 1, an empty pool, or a strategy that does not fit the task.

    >>> import quickstudy as qs
    >>> learner = qs.make("centroid", qs.Spec("classification", (1,), way=2))
    >>> known = qs.examples(torch.tensor([[[0.0], [4.0]]]), torch.tensor([[0, 1]]))
    >>> pool = torch.tensor([[0.5], [2.1], [4.5]])
    >>> label_next(Asked(learner, learner.adapt(known), pool, known, 2), "margin")
    [1]
    """
    strategy = suited(asked) if strategy == DEFAULT else strategy
    if strategy not in STRATEGIES:
        raise UserError(f"unknown strategy {strategy!r}: {nearest(strategy, STRATEGIES)}")
    if count < 1 or not len(asked.pool):
        raise UserError(f"{count} of {len(asked.pool)} rows to label: give at least one row, and ask for at least one.")
    with evaluating(asked.learner, seed):
        return STRATEGIES[strategy](asked, min(count, len(asked.pool)), generator(seed, "label next"))


def _most(values: Tensor, count: int, rng: torch.Generator) -> list[int]:
    """The rows of the largest values; equal ones in random order."""
    order = torch.randperm(len(values), generator=rng)
    return order[values[order].argsort(descending=True, stable=True)][:count].tolist()  # type: ignore[call-overload]


def _unsure(asked: Asked) -> Tensor:
    if isinstance(asked.learner.objective, Classification):
        odds = asked.probabilities()
        return -(odds * odds.clamp_min(1e-300).log()).sum(-1)
    if isinstance(asked.learner.objective, GaussianRegression):
        deviation = asked.learner.objective.mean_and_deviation(asked.predictions().unsqueeze(0))[1][0]
        return deviation.log().sum(-1)
    raise UserError("this learner does not say how sure of a value it is: take k-centre or random, or one that does.")


def _close(asked: Asked) -> Tensor:
    """1 - (p1 - p2) of every row of the pool: 1 where two classes are equally probable."""
    top = asked.probabilities().topk(min(2, asked.classes), -1).values
    return 1 - (top[:, 0] - top[:, -1])


def _spread_out(asked: Asked, count: int, worth: Tensor | None) -> list[int]:
    """Greedily the rows of the largest distance to the nearest labelled or picked one, times what they are worth."""
    pool = asked.features(asked.pool)
    far = torch.full((len(pool),), math.inf, dtype=pool.dtype)
    if asked.support is not None:
        assert isinstance(asked.support.x, Tensor)
        known = asked.features(asked.support.x[0][asked.support.weight[0] > 0])
        far = torch.cdist(pool, known).amin(1)
    picked: list[int] = []
    for _ in range(count):
        if math.isinf(float(far.max())):  # nothing to be far from
            value = -(pool - pool.mean(0)).norm(dim=1) if worth is None else worth
        else:
            value = far if worth is None else far * worth
        best = int(value.index_fill(0, torch.tensor(picked, dtype=torch.long), -math.inf).argmax())
        picked.append(best)
        far = torch.minimum(far, torch.cdist(pool, pool[best : best + 1])[:, 0])
    return picked


def _on_features(asked: Asked) -> tuple[MetaLearner, Asked]:
    """The learner behind its network with the rows' features in their place, where that says the same.

    Looking ahead then passes every row through the network once, not once a label. Whether it says the same is found
    out, not assumed: else learner and rows stay as they are.
    """
    learner = asked.learner
    behind = behind_network(learner)
    if behind is None:
        return learner, asked
    support = None
    if asked.support is not None:
        support = asked.support._replace(x=row_features(learner, asked.support.x))
    pool = torch.cat([row_features(learner, part.unsqueeze(0))[0] for part in asked.pool.split(256)])
    made = Asked(behind, asked.state, pool, support, asked.classes)
    try:
        state = behind.adapt(support) if support is not None else asked.state
        mine = behind.predict(state, pool[:8].unsqueeze(0))
    except (RuntimeError, AttributeError, TypeError, AssertionError):  # its network was more than that to it
        return learner, asked
    its = learner.predict(asked.state, asked.pool[:8].unsqueeze(0))
    same = mine.shape == its.shape and torch.allclose(mine, its, rtol=1e-3, atol=1e-3)
    return (behind, made) if same else (learner, asked)
