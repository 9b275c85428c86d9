"""ALPaCA: Bayesian linear regression on learnt features, with a learnt prior."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from quickstudy.core.errors import UserError
from quickstudy.core.learner import MetaLearner, unless_batch_statistics
from quickstudy.core.objective import GaussianRegression
from quickstudy.core.task import Examples, Inputs, State
from quickstudy.inner.apply import apply_shared
from quickstudy.inner.posterior import check_noise, gaussian_prediction, linear_posterior, linear_statistics, wide
from quickstudy.nets import Net


class ALPaCA(MetaLearner):
    """Adaptive learning for probabilistic connectionist architectures
    (Harrison, Sharma, Pavone 2018, arXiv 1807.08912).

    y = K'f(x) + e with e ~ N(0, s^2) for each target, and K ~ N(K0, s^2 P0^-1) for each of its columns. Exactly:

        P = P0 + sum_i w_i f_i f_i',   K = P^-1 (P0 K0 + sum_i w_i f_i y_i'),   y | x ~ N(K'f, s^2 (1 + f'P^-1 f))

    Learnt by the likelihood of the query: the features f, K0, P0 = L L' (L triangular, its diagonal an exponential) and
    s, one a target. The state holds sum w f f' (task, d, d) and sum w f (y - K0'f)' (task, d, k), in float64, so more
    examples can be added exactly (`prior`).

    precision, noise: where P0 = precision I and s begin. Departures: s is learnt (the paper knows it) and never falls
    under the objective's floor; a constant feature can be added (`intercept`).

    >>> import torch, quickstudy as qs
    >>> alpaca = ALPaCA(qs.nets.MLP((1,)), qs.GaussianRegression())
    >>> support = qs.examples(torch.randn(4, 10, 1), torch.randn(4, 10, 1))
    >>> alpaca.predict(alpaca.adapt(support), torch.randn(4, 7, 1)).shape
    torch.Size([4, 7, 2])
    """

    papers = ("harrison2018alpaca",)
    choose = (
        "Regression with error bars that mean what they say and examples that keep coming in: exact Bayesian updates "
        "of a linear model on learnt features."
    )
    cost = "one pass and a closed form"
    says_deviation = True
    incremental = unless_batch_statistics
    kinds = ("regression",)
    objective: GaussianRegression

    def __init__(
        self,
        net: Net,
        objective: GaussianRegression,
        precision: float = 1.0,
        noise: float = 1.0,
        intercept: bool = True,
    ):
        super().__init__()
        check_noise("ALPaCA", objective, noise)
        if not precision > 0:
            raise UserError(f"precision is {precision}: a prior needs a positive one.")
        self.net = net
        self.objective = objective
        self.precision = precision
        self.noise = noise
        self.intercept = intercept
        size = net.size + intercept
        self.prior_mean = nn.Parameter(torch.zeros(size, objective.y_size))
        self.prior_factor = nn.Parameter(math.log(precision) / 2 * torch.eye(size))
        self.log_noise = nn.Parameter(torch.full((objective.y_size,), math.log(noise)))

    def features(self, x: Inputs, weight: Tensor | None) -> Tensor:
        """f(x), with a constant 1 added if there is an intercept: (task, n, d), in float64."""
        f = wide(apply_shared(self.net, x, weight))
        return torch.cat([f, torch.ones_like(f[..., :1])], -1) if self.intercept else f

    def adapt(self, support: Examples, prior: State | None = None) -> State:
        f = self.features(support.x, support.weight)
        gram, cross = linear_statistics(f, support.y - f @ wide(self.prior_mean), support.weight)
        if prior is not None:
            gram, cross = prior["gram"] + gram, prior["cross"] + cross
        return {"gram": gram, "cross": cross}

    def predict(self, state: State, x: Inputs, weight: Tensor | None = None) -> Tensor:
        f = self.features(x, weight)
        factor = self.prior_factor.tril(-1) + self.prior_factor.diagonal().exp().diag()
        moved, spread = linear_posterior(state["gram"], state["cross"], factor, f)
        noise = self.objective.floor + self.log_noise.exp()
        deviation = noise * (1 + spread).sqrt().unsqueeze(-1)
        return gaussian_prediction(self.objective, f @ wide(self.prior_mean) + moved, deviation).to(noise.dtype)
