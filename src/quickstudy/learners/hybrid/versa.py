"""VERSA: a network reads the examples of a class and answers with a distribution over its weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from quickstudy.core.errors import UserError
from quickstudy.core.learner import MetaLearner, unless_batch_statistics
from quickstudy.core.objective import Classification, GaussianRegression, Objective
from quickstudy.core.source import generator
from quickstudy.core.task import Examples, Inputs, State
from quickstudy.inner.apply import apply_shared
from quickstudy.inner.closed import class_state, prototypes
from quickstudy.inner.posterior import check_noise, gaussian_prediction
from quickstudy.nets import MLP, Net


class VERSA(MetaLearner):
    """Versatile and efficient amortisation of few-shot learning (Gordon and others 2019, arXiv 1805.09921).

    q(w_c) = N(m_c, diag s_c^2), (m_c, log s_c^2) = g(mean of f(x) over class c), each class without a look at the
    others; p(y | x) = mean over draws of softmax_c(w_c . [f(x), 1]). The loss is -log p(y | x) of the query: with
    `draws` fresh draws, through m + s e, in training; afterwards with fixed ones, which the seen classes take in the
    order of what g reads, summed, so that a class's name does not matter.

    Regression: g reads the mean of h(f(x), y) and there is one w a target; the mean over draws is then known exactly,
    N(m . f, s^2 . f^2 + noise^2), and is what is used. Sums are kept, so more examples can be added exactly (`prior`).

    width: of g and h. Departures: one network gives weights and bias; ReLU in place of ELU; log s^2 begins near -4.
    """

    papers = ("gordon2019versa",)
    choose = (
        "Classes or functions from very few rows, with probabilities that know how little was seen: one pass and no "
        "gradients, any number of classes, examples can be added later."
    )
    cost = "one pass"
    says_deviation = True
    incremental = unless_batch_statistics
    any_way = True

    def __init__(self, net: Net, objective: Objective, width: int = 128, draws: int = 10, noise: float = 0.1):
        super().__init__()
        check_noise("VERSA", objective, noise)
        if draws < 1:
            raise UserError(f"draws is {draws}: VERSA needs at least one draw of its weights.")
        self.net = net
        self.objective = objective
        self.width = width
        self.draws = draws
        self.noise = noise
        read, size = net.size, 2 * (net.size + 1)
        if isinstance(objective, GaussianRegression):
            read, size = width, size * objective.y_size
            self.encoder = MLP((net.size + objective.y_size,), out=width, width=width)
            self.log_noise = nn.Parameter(torch.tensor(math.log(noise)))
        self.amortiser = MLP((read,), out=size, width=width)
        with torch.no_grad():
            self.amortiser.layers[-1].bias[size // 2 :] -= 4.0  # type: ignore[index]

    def adapt(self, support: Examples, prior: State | None = None) -> State:
        f = apply_shared(self.net, support.x, support.weight)
        if isinstance(self.objective, Classification):
            return class_state(f, self.objective.one_hot(support), prior)
        rows = self.encoder(torch.cat([f, support.y], -1))
        return class_state(rows, support.weight.to(rows.dtype).unsqueeze(-1), prior)

    def posterior(self, state: State) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the weights, each (task, way or targets, d + 1)."""
        mean, log_variance = self.amortiser(prototypes(state["sums"], state["counts"])).chunk(2, -1)
        if isinstance(self.objective, GaussianRegression):
            targets = (self.objective.y_size, -1)
            mean, log_variance = mean.squeeze(1).unflatten(-1, targets), log_variance.squeeze(1).unflatten(-1, targets)
        return mean, (log_variance / 2).exp()

    def normal(self, mean: Tensor, state: State) -> Tensor:
        """Standard normal numbers, (draws, *mean.shape)."""
        shape = self.draws, *mean.shape
        if self.training:
            return torch.randn(shape, dtype=mean.dtype, device=mean.device)
        fixed = torch.randn(shape[2], self.draws, shape[3], generator=generator("versa")).to(mean)
        read = prototypes(state["sums"], state["counts"]).sum(-1)
        order = torch.where(state["counts"] > 0, read, torch.inf).argsort(-1)
        return fixed[order.argsort(-1)].movedim(2, 0)

    def predict(self, state: State, x: Inputs, weight: Tensor | None = None) -> Tensor:
        f = apply_shared(self.net, x, weight)
        f = torch.cat([f, torch.ones_like(f[..., :1])], -1)
        mean, deviation = self.posterior(state)
        if isinstance(self.objective, GaussianRegression):
            noise = self.objective.floor + self.log_noise.exp()
            spread = f.square() @ deviation.square().transpose(1, 2) + noise.square()
            return gaussian_prediction(self.objective, f @ mean.transpose(1, 2), spread.sqrt())
        assert isinstance(self.objective, Classification)
        drawn = mean + deviation * self.normal(mean, state)
        logits = self.objective.hide_unseen(f @ drawn.transpose(2, 3), state["counts"])
        return logits.log_softmax(-1).logsumexp(0) - math.log(self.draws)
