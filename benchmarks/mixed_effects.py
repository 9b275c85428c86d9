"""Mixed-effects regression: what a statistician would do for a new patient before any meta-learning.

    y = b0 + x b + z u_i + e,   u_i ~ N(0, G),   e ~ N(0, s^2)

b, G and s are fitted by statsmodels (MixedLM, REML) to the groups of training; of a new group only its random effects
are found, by the best linear unbiased prediction from its own rows (Henderson 1975, Biometrics 31(2)):

    u = G Z' (Z G Z' + s^2 I)^-1 (y - b0 - X b)
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from quickstudy.core.errors import UserError
from quickstudy.core.task import Task
from quickstudy.tasks.grouped import GroupedSource

LEAST = 1e-9
"""Share of its mean size below which a column is taken not to vary."""
WINDOWS = 400
"""Training tasks that are taken for groups, where these are windows and not whole patients."""
Answer = Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray | None]]
"""From the rows x (row, column) and readings y (row,) of a patient, and what is asked, to means and deviations."""


@dataclass(frozen=True)
class MixedEffects:
    """A fitted model, in standard units of x and y.

    x_mean, x_scale: (column,); y_mean, y_scale; fixed: (1 + column,), the intercept first; slopes: the columns whose
    slope is random beside the intercept; cov: G, (1 + slopes, 1 + slopes); noise: s^2.
    """

    x_mean: np.ndarray
    x_scale: np.ndarray
    y_mean: float
    y_scale: float
    fixed: np.ndarray
    slopes: tuple[int, ...]
    cov: np.ndarray
    noise: float

    def effects(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """The random effects of a group with rows x (row, column) and values y (row,): (1 + slopes,)."""
        whole, part = self._designs(x)
        left = (y - self.y_mean) / self.y_scale - whole @ self.fixed
        spread = part @ self.cov @ part.T + self.noise * np.eye(len(y))
        return self.cov @ part.T @ np.linalg.solve(spread, left)

    def predict(self, x: np.ndarray, y: np.ndarray, asked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation (row,) at `asked` (row, column), of the group with rows x, y; none will do."""
        whole, part = self._designs(asked)
        _, known = self._designs(x)
        mean = whole @ self.fixed + part @ self.effects(x, y)
        spread = known @ self.cov @ known.T + self.noise * np.eye(len(y))
        left = self.cov - self.cov @ known.T @ np.linalg.solve(spread, known @ self.cov)
        variance = np.einsum("ri,ij,rj->r", part, left, part) + self.noise
        return self.y_mean + self.y_scale * mean, self.y_scale * np.sqrt(variance)

    def _designs(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The rows that meet the fixed effects, and those that meet the random ones."""
        whole = np.column_stack([np.ones(len(x)), (x - self.x_mean) / self.x_scale])
        return whole, whole[:, [0, *(1 + j for j in self.slopes)]]


def fit_mixed(groups: Sequence[tuple[np.ndarray, np.ndarray]], slopes: tuple[int, ...] = ()) -> MixedEffects:
    """The model fitted to groups of rows x (row, column) and values y (row,), with random `slopes` of those columns.

    Raises UserError if statsmodels is not there.
    """
    try:
        from statsmodels.regression.mixed_linear_model import MixedLM
    except ImportError:
        raise UserError("mixed-effects regression needs statsmodels: install quickstudy[examples].") from None
    x, y = (np.concatenate(part) for part in zip(*groups, strict=True))
    owner = np.repeat(np.arange(len(groups)), [len(rows) for rows, _ in groups])
    centre, size = x.mean(0), x.std(0)
    size = np.where(size > LEAST * np.abs(centre).clip(1e-30), size, 1.0)
    level, unit = float(y.mean()), float(y.std()) or 1.0
    model = MixedEffects(centre, size, level, unit, np.zeros(1 + x.shape[1]), slopes, np.eye(1 + len(slopes)), 1.0)
    whole, part = model._designs(x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a covariance on the edge of what is allowed is an answer too
        found = MixedLM((y - level) / unit, whole, owner, exog_re=part).fit(reml=True, method=["lbfgs", "powell"])
    return MixedEffects(
        centre, size, level, unit, np.asarray(found.fe_params), slopes, np.asarray(found.cov_re), float(found.scale)
    )


def rows_of(block: Task) -> list[tuple[np.ndarray, ...]]:
    """The rows and readings of every task, to learn from and to be asked, without padding."""
    found = []
    for t in range(block.support.tasks):
        parts = []
        for part in block:
            assert isinstance(part.x, torch.Tensor)
            real = part.weight[t] > 0
            parts += [part.x[t][real].double().numpy(), part.y[t, real, 0].double().numpy()]
        found.append(tuple(parts))
    return found


def fitted(source: GroupedSource, windows: bool, slope: bool, alone: bool, seed: int) -> Answer:
    """The model fitted to the training patients, or to windows of their readings.

    slope: that of time is random beside the intercept. alone: no column but time is looked at.
    """
    kept = slice(0, 1) if alone else slice(None)
    if windows:
        found = rows_of(source.sample("train", WINDOWS, source.rng(seed, "windows")))
        groups = [(since(np.concatenate([x, q]), x), np.concatenate([y, z])) for x, y, q, z in found]
    else:
        held = source.prepare()
        rows, values = held.x.double().numpy(), held.y[:, 0].double().numpy()
        groups = [(rows[a:b], values[a:b]) for _, a, b in held.spans["train"].each() if b > a]
    model = fit_mixed([(x[:, kept], y) for x, y in groups], (0,) if slope else ())

    def answer(x: np.ndarray, y: np.ndarray, asked: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        known, new = (since(x, x), since(asked, x)) if windows else (x, asked)
        return model.predict(known[:, kept], y, new[:, kept])

    return answer


def since(x: np.ndarray, support: np.ndarray) -> np.ndarray:
    """Rows whose time, the first column, is counted from the last one of the support."""
    return np.column_stack([x[:, 0] - support[:, 0].max(), x[:, 1:]])
