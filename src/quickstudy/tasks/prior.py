"""Tasks drawn from a prior: a function of your own, or one of two whose exact answer is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self, TypeAlias

import torch
from torch import Tensor

from quickstudy.core.errors import UserError, nearest
from quickstudy.core.source import SPLITS, Source, Spec, Split, check_finite, generator
from quickstudy.core.task import Examples, Task
from quickstudy.tasks.functions import uniform
from quickstudy.tasks.sampling import Count, branch, count_range, whole

PriorFunction: TypeAlias = Callable[[torch.Generator, int, int], tuple[Tensor, Tensor]]
"""(rng, tasks, rows) -> x (tasks, rows, *x_shape) and y, class numbers (tasks, rows) or real values (tasks, rows[, k]).

Every random number comes from `rng`; the rows of a task are exchangeable, so that any of them may be asked.
"""
SHIPPED = ("linear", "gp")
JITTER = 1e-8


class Prior(Source):
    """Tasks drawn from a prior over data sets, for learners that are fitted to one (arXiv 2112.10510).

    `Prior.of(function)` takes the prior as a Python function `(rng, tasks, rows) -> (x, y)`. By name there are, for d
    `features` and y = f(x) + noise * N(0, 1):
    linear: f(x) = w'x, w ~ N(0, I / d), x ~ N(0, I), which is Bayesian linear regression;
    gp: f ~ GP(0, exp(-|x - x'|^2 / 2 length_scale^2)), x ~ U[-2, 2]^d.

    way: 0 for regression, else the largest number of classes of the function's tasks. With classes the first row of
    each comes to the front of the support, so that no class is asked that was not shown. shot and query count rows.

    >>> def coins(rng, tasks, rows):
    ...     x = torch.randn(tasks, rows, 2, generator=rng)
    ...     side = torch.randn(tasks, 1, 2, generator=rng)
    ...     return x, ((x * side).sum(-1) > 0).long()
    >>> source = Prior.of(coins, way=2, shot=5, query=7)
    >>> source.spec.kind, source.spec.x_shape, source.sample("train", 3, source.rng(0)).query.y.shape
    ('classification', (2,), torch.Size([3, 7]))
    """

    papers = ("muller2022pfn",)
    _function: PriorFunction | None = None
    _shapes: tuple[tuple[int, ...], int] | None = None

    def __init__(
        self,
        prior: str = "linear",
        shot: Count = "2-20",
        query: Count = 20,
        features: int = 3,
        noise: float = 0.3,
        length_scale: float = 1.0,
        way: int = 0,
    ):
        self.prior = prior
        self.shot = shot
        self.query = query
        self.features = features
        self.noise = noise
        self.length_scale = length_scale
        self.way = way

    @classmethod
    def of(cls, function: PriorFunction, way: int = 0, shot: Count = 10, query: Count = 10) -> Self:
        """A source of the function's tasks.

        Its description names the function and can be saved, but not rebuilt: no code is loaded by name.
        """
        source = cls(f"function:{getattr(function, '__name__', 'unnamed')}", shot, query, way=way)
        source._function = function
        return source

    @property
    def spec(self) -> Spec:
        if self._function is None:
            x_shape, y_size = (self.features,), 1
        else:
            if self._shapes is None:  # what one row looks like
                x, y = self._rows(1, 1, generator("prior", device=self.device))
                self._shapes = tuple(x.shape[2:]), int(y[0, 0].numel())
            x_shape, y_size = self._shapes
        if self.way:
            return Spec("classification", x_shape, way=self.way, train_classes=self.way)
        return Spec("regression", x_shape, y_size=y_size)

    def covariance(self, a: Tensor, b: Tensor) -> Tensor:
        """k(a, b), (task, n, m), of the values f at a (task, n, d) and b (task, m, d).

        Raises UserError for a prior that is not one of those shipped.
        """
        if self.prior == "linear":
            return a @ b.transpose(1, 2) / self.features
        if self.prior == "gp":
            if not self.length_scale > 0:
                raise UserError(f"length_scale is {self.length_scale}: give a positive number.")
            apart = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
            return (-0.5 * (apart / self.length_scale).square()).exp()
        raise self._unknown()

    def _unknown(self) -> UserError:
        if self.prior.startswith("function:"):
            return UserError(
                f"the prior {self.prior!r} was given as a Python function and is not stored, nor is its posterior "
                "known: make the source again with Prior.of(function)."
            )
        return UserError(f"unknown prior {self.prior!r}: {nearest(self.prior, SHIPPED)}")

    def sample(self, split: Split, tasks: int, rng: torch.Generator) -> Task:
        rng = self._stream(split, rng)
        (fewest, most), (_, asked) = count_range(self.shot, "shot"), count_range(self.query, "query")
        x, y = self._rows(tasks, most + asked, rng)
        if self.way:
            if fewest < self.way:
                raise UserError(f"shot is {self.shot} rows and way is {self.way}: give a row for every class, or more.")
            order = _first_of_each(y, self.way)
            each = torch.arange(tasks, device=y.device).unsqueeze(1)
            x, y = x[each, order], y[each, order]
        shots = whole(fewest, most, (tasks, 1), rng)
        weight = (torch.arange(most, device=x.device) < shots).to(x.dtype)
        support = Examples(_kept(x[:, :most], weight), _kept(y[:, :most], weight), weight)
        return Task(support, Examples(x[:, most:], y[:, most:], torch.ones(tasks, asked, device=x.device)))

    def sample_pooled(self, split: Split, rows: int, rng: torch.Generator) -> Examples:
        """One row of each of `rows` tasks, as (1, rows, ...)."""
        x, y = self._rows(rows, 1, self._stream(split, rng))
        return Examples(x.transpose(0, 1), y.transpose(0, 1), torch.ones(1, rows, device=x.device))

    def posterior(self, support: Examples, x: Tensor) -> tuple[Tensor, Tensor]:
        """The exact posterior mean and standard deviation of f at x (task, m, d), both (task, m, 1).

        m = k(x, X) (K + noise^2 I)^-1 y; s^2 = k(x, x) - k(x, X) (K + noise^2 I)^-1 k(X, x): for `linear` the same as
        the posterior of the weights. Rows of weight 0 do not count. A new observation has the variance s^2 + noise^2.
        Computed in float64.
        """
        assert isinstance(support.x, Tensor)
        at, points, real = x.double(), support.x.double(), (support.weight > 0).double()
        # a row of weight 0 becomes an unrelated variable of value 0: it says nothing
        gram = self.covariance(points, points) * real.unsqueeze(1) * real.unsqueeze(2)
        factor = torch.linalg.cholesky(gram + torch.diag_embed(self.noise**2 + JITTER + 1 - real))
        cross = self.covariance(at, points) * real.unsqueeze(1)
        mean = cross @ torch.cholesky_solve(support.y.double() * real.unsqueeze(-1), factor)
        half = torch.linalg.solve_triangular(factor, cross.transpose(1, 2), upper=False)
        own = self.covariance(at.flatten(0, 1).unsqueeze(1), at.flatten(0, 1).unsqueeze(1)).view(*at.shape[:2])
        variance = (own - half.square().sum(1)).clamp_min(0).unsqueeze(-1)
        return mean.to(x.dtype), variance.sqrt().to(x.dtype)

    def _rows(self, tasks: int, rows: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        if self._function is not None:
            return self._checked(self._function(rng, tasks, rows), tasks, rows)
        if self.prior not in SHIPPED:
            raise self._unknown()
        if self.noise < 0 or self.features < 1 or self.way:
            raise UserError(
                f"noise is {self.noise}, features is {self.features} and way is {self.way}: give a noise of at least "
                "0, one feature or more, and no way, since these tasks are regression."
            )
        shape = (tasks, rows, self.features)
        if self.prior == "linear":
            x = torch.randn(shape, generator=rng, device=rng.device)
            y = x @ (torch.randn(tasks, self.features, 1, generator=rng, device=rng.device) / self.features**0.5)
        else:
            x = uniform(shape, -2.0, 2.0, rng)
            gram = self.covariance(x.double(), x.double())
            factor = torch.linalg.cholesky(gram + JITTER * torch.eye(rows, dtype=gram.dtype, device=x.device))
            normal = torch.randn(tasks, rows, 1, generator=rng, device=rng.device, dtype=torch.float64)
            y = (factor @ normal).to(x.dtype)
        return x, y + self.noise * torch.randn(y.shape, generator=rng, device=rng.device)

    def _checked(self, drawn: tuple[Tensor, Tensor], tasks: int, rows: int) -> tuple[Tensor, Tensor]:
        """What the user's function gave, on this device, as a learner takes it."""
        x, y = (part.to(self.device) for part in drawn)
        if x.shape[:2] != (tasks, rows) or y.shape[:2] != (tasks, rows) or not x.is_floating_point():
            raise UserError(
                f"{self.prior} gave x {tuple(x.shape)} {x.dtype} and y {tuple(y.shape)} for {tasks} tasks of {rows} "
                "rows: both need the axes (tasks, rows) in front, and x floating point."
            )
        check_finite(x.flatten(0, 1), f"x from {self.prior}")
        if self.way:
            y = y.long() if y.dim() == 2 and not y.is_floating_point() else y
            if y.dtype != torch.long or bool(((y < 0) | (y >= self.way)).any()):
                raise UserError(f"y from {self.prior} must be whole numbers from 0 to {self.way - 1}, one a row.")
            return x, y
        if not y.is_floating_point():
            raise UserError(f"y from {self.prior} is {y.dtype}: give real values, or say how many classes with way.")
        check_finite(y.flatten(0, 1), f"y from {self.prior}")
        return x, y.unsqueeze(-1) if y.dim() == 2 else y

    def _stream(self, split: Split, rng: torch.Generator) -> torch.Generator:
        if split not in SPLITS:
            raise UserError(f"unknown split {split!r}: choose train, valid or test.")
        return branch(rng, split, device=self.device)


def _kept(values: Tensor, weight: Tensor) -> Tensor:
    """The values with zeros where the weight is 0."""
    return values * (weight > 0).view(*weight.shape, *[1] * (values.dim() - 2)).to(values.dtype)


def _first_of_each(y: Tensor, way: int) -> Tensor:
    """An order of the rows (task, n) in which the first row of every class comes before all others."""
    indicators = y.unsqueeze(-1) == torch.arange(way, device=y.device)
    place = (indicators.cumsum(1) * indicators).sum(-1)
    return (place > 1).to(torch.uint8).argsort(dim=1, stable=True)
