"""Functions drawn from a Gaussian process, whose best possible prediction is known exactly."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from quickstudy.core.errors import UserError, nearest
from quickstudy.core.source import SPLITS, Source, Spec, Split
from quickstudy.core.task import Examples, Task
from quickstudy.tasks.functions import uniform
from quickstudy.tasks.sampling import Count, branch, count_range, whole

JITTER = 1e-8
KERNELS = ("rbf", "matern52", "periodic")


class GaussianProcess(Source):
    """Regression tasks y = f(x) + noise * N(0, 1), f ~ GP(0, k), x ~ U[low, high].

    With r = |x - x'|, s = length_scale, v = variance (p = period):
    rbf: v exp(-r^2 / 2 s^2); matern52: v (1 + a + a^2 / 3) exp(-a), a = sqrt(5) r / s;
    periodic: v exp(-2 sin^2(pi r / p) / s^2)   (Rasmussen and Williams 2006, chapter 4).
    A task has between 3 and 50 context points (`shot`), the tasks of neural processes (arXiv 1807.01613);
    rows beyond a task's own have weight 0. Values are drawn jointly and exactly, in float64.
    """

    papers = ("garnelo2018cnp",)

    def __init__(
        self,
        shot: Count = "3-50",
        query: Count = 50,
        kernel: str = "rbf",
        length_scale: float = 0.4,
        variance: float = 1.0,
        noise: float = 0.02,
        period: float = 1.0,
        low: float = -2.0,
        high: float = 2.0,
    ):
        self.shot = shot
        self.query = query
        self.kernel = kernel
        self.length_scale = length_scale
        self.variance = variance
        self.noise = noise
        self.period = period
        self.low = low
        self.high = high

    @property
    def spec(self) -> Spec:
        return Spec("regression", x_shape=(1,), y_size=1)

    def covariance(self, a: Tensor, b: Tensor) -> Tensor:
        """k(a, b), (task, n, m), for points a (task, n, 1) and b (task, m, 1).

        Raises UserError for a kernel that is not known or a scale that is not positive.
        """
        for name in ("length_scale", "variance", "period"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name} is {getattr(self, name)}: give a positive number.")
        r = (a - b.transpose(1, 2)).abs()
        if self.kernel == "rbf":
            return self.variance * (-0.5 * (r / self.length_scale).square()).exp()
        if self.kernel == "matern52":
            d = math.sqrt(5) * r / self.length_scale
            return self.variance * (1 + d + d.square() / 3) * (-d).exp()
        if self.kernel == "periodic":
            turn = torch.sin(math.pi * r / self.period) / self.length_scale
            return self.variance * (-2 * turn.square()).exp()
        raise UserError(f"unknown kernel {self.kernel!r}: {nearest(self.kernel, KERNELS)}")

    def sample(self, split: Split, tasks: int, rng: torch.Generator) -> Task:
        rng = self._stream(split, rng)
        (fewest, most), (_, asked) = count_range(self.shot, "shot"), count_range(self.query, "query")
        x = uniform((tasks, most + asked, 1), self.low, self.high, rng)
        y = self._values(x, rng)
        shots = whole(fewest, most, (tasks, 1), rng)
        weight = (torch.arange(most, device=x.device) < shots).to(x.dtype)
        mask = weight.unsqueeze(-1)
        support = Examples(x[:, :most] * mask, y[:, :most] * mask, weight)
        return Task(support, Examples(x[:, most:], y[:, most:], torch.ones(tasks, asked, device=x.device)))

    def sample_pooled(self, split: Split, rows: int, rng: torch.Generator) -> Examples:
        """One row of each of `rows` functions, as (1, rows, 1)."""
        rng = self._stream(split, rng)
        x = uniform((rows, 1, 1), self.low, self.high, rng)
        y = self._values(x, rng)
        return Examples(x.transpose(0, 1), y.transpose(0, 1), torch.ones(1, rows, device=x.device))

    def posterior(self, support: Examples, x: Tensor) -> tuple[Tensor, Tensor]:
        """The exact posterior mean and standard deviation of f at x (task, m, 1), both (task, m, 1).

        m = k(x, X) (K + noise^2 I)^-1 y; s^2 = k(x, x) - k(x, X) (K + noise^2 I)^-1 k(X, x).
        Support rows of weight 0 do not count; any other weight w divides the noise variance of its row.
        A new observation has the variance s^2 + noise^2. Computed in float64.
        """
        assert isinstance(support.x, Tensor)
        at, points, y = x.double(), support.x.double(), support.y.double()
        weight = support.weight.double()
        real = (weight > 0).double()
        # A row of weight 0 becomes an unrelated variable of variance 1 and value 0: it says nothing.
        both = real.unsqueeze(1) * real.unsqueeze(2)
        own = torch.where(weight > 0, self.noise**2 / weight.clamp_min(1e-12) + JITTER * self.variance, 1.0)
        gram = self.covariance(points, points) * both + torch.diag_embed(own)
        cross = self.covariance(at, points) * real.unsqueeze(1)
        factor = torch.linalg.cholesky(gram)
        weights = torch.cholesky_solve(y * real.unsqueeze(-1), factor)
        half = torch.linalg.solve_triangular(factor, cross.transpose(1, 2), upper=False)
        variance = (self.variance - half.square().sum(1)).clamp_min(0).unsqueeze(-1)
        return (cross @ weights).to(x.dtype), variance.sqrt().to(x.dtype)

    def _values(self, x: Tensor, rng: torch.Generator) -> Tensor:
        """Noisy values of one function a task at x (task, n, 1)."""
        if self.noise < 0:
            raise UserError(f"noise is {self.noise}: give a standard deviation of at least 0.")
        n = x.shape[1]
        gram = self.covariance(x.double(), x.double())
        gram = gram + (self.noise**2 + JITTER * self.variance) * torch.eye(n, dtype=gram.dtype, device=x.device)
        normal = torch.randn(len(x), n, 1, generator=rng, device=x.device, dtype=torch.float64)
        return (torch.linalg.cholesky(gram) @ normal).to(x.dtype)

    def _stream(self, split: Split, rng: torch.Generator) -> torch.Generator:
        if split not in SPLITS:
            raise UserError(f"unknown split {split!r}: choose train, valid or test.")
        return branch(rng, split, device=self.device)
