"""A learning curve beyond what was measured: several families of curves, each as likely as it fits, and an interval
that holds what is not known of family, parameters and scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from quickstudy.core.errors import UserError

DISCREPANCY = 0.02
"""How far a true curve may be from the best curve of the families at each measured point, as a share of the error."""
DRIFT = 0.1
"""The same beyond the largest point, for the first doubling; it grows with the root of the doublings. It is a share of
the error, or of what it has fallen by where that is less: a curve that never moved will hardly begin to."""
DRAWS = 4000
FEWEST = 3
"""Points that a fit needs at least."""

_Shape = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
# g(n; a, b) with g(1) = 1, falling to 0; n (1, point), a and b (curve, 1)
_FAMILIES: dict[str, tuple[_Shape, np.ndarray, Sequence[float]]] = {
    "power": (lambda n, a, b: ((n + b) / (1 + b)) ** -a, np.geomspace(0.05, 5, 36), (0.0, 0.5, 1.0, 3.0, 10.0)),
    "exponential": (lambda n, a, b: np.exp(-a * (n**b - 1)), np.geomspace(0.005, 3, 36), (0.5, 1.0)),
    "log power": (lambda n, a, b: (1 + b) / (1 + b * n**a), np.geomspace(0.1, 4, 24), (0.03, 0.1, 0.3, 1.0, 3.0)),
    "logarithm": (lambda n, a, b: 1 / (1 + a * np.log(n)), np.geomspace(0.05, 10, 36), (0.0,)),
}
_FLOORS = np.unique(np.concatenate([np.linspace(0, 0.98, 30), np.geomspace(1e-4, 0.3, 15)]))
"""What the error falls to with ever more examples, as a share of the error with one."""


class Reach(NamedTuple):
    """With how many examples a target is reached: the median and the 90 % interval, math.inf for not within the most
    that was looked at, and the probability that it is within it."""

    median: float
    low: float
    high: float
    within: float


@dataclass(frozen=True)
class Forecast:
    """Curves that may be the true one, drawn from their posterior.

    error(n) = level * (floor + (1 - floor) * g(n)), of a family of shapes g with g(1) = 1.

    at: the numbers of examples that were measured; family, first, second, floor, level, drift: (draw,) each. weights:
    of the families. misfit: chi-square per degree of freedom of the best curve; above 1 all intervals were widened by
    its root.
    """

    at: np.ndarray
    family: np.ndarray
    first: np.ndarray
    second: np.ndarray
    floor: np.ndarray
    level: np.ndarray
    drift: np.ndarray
    weights: dict[str, float]
    misfit: float

    def errors(self, at: Sequence[float] | np.ndarray) -> np.ndarray:
        """The error of every draw with `at` examples, (draw, point)."""
        n = np.asarray(at, dtype=float)
        shapes = _shapes(np.append(self.at.min(), n), self.family, self.first, self.second, self.floor)
        begun, found = self.level[:, None] * shapes[:, :1], self.level[:, None] * shapes[:, 1:]
        beyond = np.sqrt(np.log2(np.maximum(n / self.at.max(), 1.0)))
        return found + DRIFT * beyond * self.drift[:, None] * np.clip(begun - found, 0, found)

    def interval(
        self, at: Sequence[float] | np.ndarray, noise: float = 0.0, share: float = 0.9
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Median, lower and upper end of the interval of the error that holds it with probability `share`, (point,).

        noise: the standard error with which the error will be measured; 0 for the true one.
        """
        drawn = self.errors(at)
        if noise > 0:
            drawn = drawn + noise * np.random.default_rng(1).standard_normal((len(drawn), 1))
        low, middle, high = np.quantile(np.maximum(drawn, 0.0), [(1 - share) / 2, 0.5, (1 + share) / 2], axis=0)
        return middle, low, high

    def reach(self, target: float, most: int) -> Reach:
        """With how many examples, at most `most`, the error falls to `target` or below."""
        counts = np.unique(np.geomspace(1, most, 400).round()) if most > 400 else np.arange(1, most + 1)
        there = self.errors(counts) <= target
        first = np.where(there.any(1), counts[there.argmax(1)].astype(float), math.inf)
        low, median, high = np.quantile(first, [0.05, 0.5, 0.95], method="inverted_cdf").tolist()
        return Reach(median, low, high, float(np.isfinite(first).mean()))


def forecast(
    at: Sequence[int] | np.ndarray, errors: Sequence[float] | np.ndarray, covariance: np.ndarray, seed: int = 0
) -> Forecast:
    """The posterior of the curve behind mean errors (point,) measured `at` numbers of examples.

    Families: power laws (n + b)^-a, exponentials exp(-a n^b), log powers 1 / (1 + b n^a) and logarithms
    1 / (1 + a log n), each with a floor of its own (Viering and Loog 2021, arXiv 2103.10948, table 1; mixed as in
    Domhan and others, IJCAI 2015, here on a grid in place of a Markov chain). All families are equally likely at first,
    and so are the points of a family's grid. The level is integrated out in closed form under a flat prior. Measured
    means are normal with this covariance (point, point) and a `DISCREPANCY` of the families at each point; where even
    the best curve fits badly, the covariance is scaled up by its chi-square per degree of freedom (Birge's ratio).
    Beyond the largest point a curve may drift off (`DRIFT`). Curves that rise with more examples are in no family.

    Raises UserError for fewer than three points, or errors that are negative or not finite.
    """
    n, y = np.asarray(at, dtype=float), np.asarray(errors, dtype=float)
    if len(n) < FEWEST or len(set(n.tolist())) < len(n):
        raise UserError(f"a forecast from {len(n)} numbers of examples: give three different ones or more.")
    if not np.isfinite(y).all() or y.min() < 0 or not y.max() > 0:
        raise UserError("a forecast needs scores that are finite, with an error above 0 somewhere: nothing is to fall.")
    family, first, second, floor = _grid()
    h = _shapes(n, family, first, second, floor)
    v = np.asarray(covariance, dtype=float) + np.diag(np.square(DISCREPANCY * np.maximum(y, 1e-3 * y.max())))
    unit = np.sqrt(np.outer(v.diagonal(), v.diagonal()))  # errors may differ by orders of magnitude
    inverse = np.linalg.inv(v / unit) / unit
    hv = h @ inverse
    precision = (hv * h).sum(1)
    mean = hv @ y / precision
    chi = float(y @ inverse @ y) - np.square(hv @ y) / precision
    misfit = float(chi.min()) / max(len(n) - 3, 1)
    scale = max(misfit, 1.0)
    log = -0.5 * chi / scale - 0.5 * np.log(precision) + _log_prior(family)
    weight = np.exp(log - log.max())
    weight /= weight.sum()
    rng = np.random.default_rng(seed)
    drawn = rng.choice(len(weight), DRAWS, p=weight)
    level = mean[drawn] + np.sqrt(scale / precision[drawn]) * rng.standard_normal(DRAWS)
    weights = {name: float(weight[family == i].sum()) for i, name in enumerate(_FAMILIES)}
    parts = family[drawn], first[drawn], second[drawn], floor[drawn]
    return Forecast(n, *parts, np.maximum(level, 0.0), rng.standard_normal(DRAWS), weights, misfit)


def power_law(
    at: Sequence[int] | np.ndarray, errors: Sequence[float] | np.ndarray
) -> Callable[[float], float]:
    """The plain fit that a forecast is measured against: error = a n^-b by least squares of the logarithms.

    >>> round(power_law([1, 2, 4], [0.8, 0.4, 0.2])(8), 3)
    0.1
    """
    logs = np.log(np.maximum(np.asarray(errors, dtype=float), 1e-12))
    slope, intercept = np.polyfit(np.log(np.asarray(at, dtype=float)), logs, 1)
    return lambda n: math.exp(intercept + slope * math.log(n))


def _grid() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    parts = []
    for i, (_, first, second) in enumerate(_FAMILIES.values()):
        meshed = np.meshgrid([i], first, np.asarray(second), _FLOORS, indexing="ij")
        parts.append([part.ravel() for part in meshed])
    family, a, b, floor = (np.concatenate(column) for column in zip(*parts, strict=True))
    return family.astype(int), a, b, floor


def _shapes(
    n: np.ndarray, family: np.ndarray, first: np.ndarray, second: np.ndarray, floor: np.ndarray
) -> np.ndarray:
    """floor + (1 - floor) g(n) of each curve, (curve, point)."""
    made = np.empty((len(family), len(n)))
    for i, (shape, _, _) in enumerate(_FAMILIES.values()):
        own = family == i
        made[own] = shape(n[None], first[own, None], second[own, None])
    return floor[:, None] + (1 - floor[:, None]) * made


def _log_prior(family: np.ndarray) -> np.ndarray:
    return -np.log(np.bincount(family)[family])
