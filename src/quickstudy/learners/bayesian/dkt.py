"""Deep kernel transfer: a Gaussian process on learnt features, trained by its marginal likelihood."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.core.errors import UserError, nearest
from quickstudy.core.learner import MetaLearner, unless_batch_statistics
from quickstudy.core.objective import Classification, GaussianRegression, Objective
from quickstudy.core.task import Examples, Inputs, State, Task, join_rows
from quickstudy.inner import posterior
from quickstudy.inner.apply import apply_shared
from quickstudy.inner.kernels import KERNELS
from quickstudy.inner.posterior import check_noise, gaussian_prediction, wide
from quickstudy.nets import Net


class DKT(MetaLearner):
    """Deep kernel transfer (Patacchiola and others 2020, arXiv 1910.05199).

    y ~ N(m, k(f(x), f(x')) + s^2 I) for every task; prediction is the exact posterior given the support. Trained on
    -log p(y) of all rows of a task, support and query together: there is no inner loop to learn through. Classes are
    +-1 columns, one against the rest, that share the kernel; class c has the logit log sigmoid(mean_c).

    kernel: "rbf", "linear", "cosine" or "spectral" (inner/kernels.py). noise: where s begins, which never falls under
    the floor of the objective. The state keeps the rows, (task, n, d), so more can be added exactly (`prior`); adapting
    takes n^3. A row of weight w has the noise s^2 / w.

    Departures: the loss is divided by rows and columns, so that tasks of any size count alike (as the paper's code
    does by gpytorch); no column for a class that a task does not show.

    >>> import torch, quickstudy as qs
    >>> dkt = DKT(qs.nets.MLP((1,)), qs.GaussianRegression())
    >>> support = qs.examples(torch.randn(4, 10, 1), torch.randn(4, 10, 1))
    >>> dkt.predict(dkt.adapt(support), torch.randn(4, 7, 1)).shape
    torch.Size([4, 7, 2])
    """

    papers = ("patacchiola2020dkt",)
    choose = (
        "Few rows and error bars that can be trusted, above all for regression: a Gaussian process on learnt features. "
        "Nothing to tune when it adapts, but a task of thousands of rows is too much."
    )
    cost = "one pass and a closed form (cubic in the rows)"
    says_deviation = True
    incremental = unless_batch_statistics
    any_way = True

    def __init__(self, net: Net, objective: Objective, kernel: str = "rbf", noise: float = 0.3):
        super().__init__()
        check_noise("DKT", objective, noise)
        if kernel not in KERNELS:
            raise UserError(f"unknown kernel {kernel!r}: {nearest(kernel, KERNELS)}")
        self.net = net
        self.objective = objective
        self.kernel = kernel
        self.noise = noise
        self.covariance = KERNELS[kernel](net.size)
        self.mean = nn.Parameter(torch.zeros(()))
        self.log_noise = nn.Parameter(torch.tensor(math.log(noise)))

    def deviation(self) -> Tensor:
        """The standard deviation of the noise."""
        return getattr(self.objective, "floor", 0.0) + self.log_noise.exp()

    def targets(self, rows: Examples) -> Tensor:
        """What the process takes: y, or +-1 columns, without the mean: (task, n, k)."""
        y = rows.y
        if isinstance(self.objective, Classification):
            y = 2 * self.objective.indicators(y).to(rows.weight.dtype) - 1
        return y - self.mean

    def adapt(self, support: Examples, prior: State | None = None) -> State:
        f = apply_shared(self.net, support.x, support.weight)
        rows = {"features": f, "targets": self.targets(support), "weight": support.weight}
        if prior is not None:
            rows = {name: torch.cat([prior[name], new], 1) for name, new in rows.items()}
        f = wide(rows["features"])
        factor = posterior.process_factor(self.covariance(f, f), self.deviation().square(), rows["weight"])
        if not isinstance(self.objective, Classification):
            return {**rows, "factor": factor}
        seen = self.objective.seen(support)
        return {**rows, "factor": factor, "seen": seen if prior is None else torch.maximum(seen, prior["seen"])}

    def meta_loss(self, tasks: Task) -> Tensor:
        if not self.training:
            return super().meta_loss(tasks)
        state = self.adapt(join_rows(tasks.support, tasks.query))
        columns = posterior.log_marginal_likelihood(state["factor"], state["targets"], state["weight"])
        counted = state.get("seen", torch.ones_like(columns))
        rows = (state["weight"] > 0).sum(1) * counted.sum(1)
        return (-(columns * counted).sum(1) / rows.clamp_min(1)).to(self.mean.dtype)

    def predict(self, state: State, x: Inputs, weight: Tensor | None = None) -> Tensor:
        f = apply_shared(self.net, x, weight)
        cross, own = self.covariance(wide(f), wide(state["features"])), self.covariance.own(wide(f))
        mean, variance = posterior.process_posterior(state["factor"], state["targets"], state["weight"], cross, own)
        mean = mean + self.mean
        if isinstance(self.objective, GaussianRegression):
            deviation = (variance + self.deviation().square()).sqrt().unsqueeze(-1).expand_as(mean)
            return gaussian_prediction(self.objective, mean, deviation).to(self.mean.dtype)
        assert isinstance(self.objective, Classification)
        return self.objective.hide_unseen(F.logsigmoid(mean).to(self.mean.dtype), state["seen"])
