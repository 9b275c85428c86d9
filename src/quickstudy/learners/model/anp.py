"""Attentive neural process: every query reads the support for itself."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from quickstudy.core.errors import UserError
from quickstudy.core.learner import MetaLearner
from quickstudy.core.objective import GaussianRegression
from quickstudy.core.task import Examples, Inputs, State, Task, join_rows
from quickstudy.inner.draws import fixed_normal
from quickstudy.inner.members import combined
from quickstudy.nets import MLP
from quickstudy.nets.attention import RELU, Attention, SetEncoder, scaled


class ANP(MetaLearner):
    """Attentive neural process (Kim et al. 2019, arXiv 1901.05761).

    r_i = self-attention over h(x_i, y_i); r(x) = attention from k(x) over the keys k(x_i) and values r_i; prediction at
    x = g(r(x), x): the mean and the raw scale of a Gaussian, trained on the query's likelihood as CNP, which it is with
    uniform attention. With `latent` also z ~ q(z | support), normal, its moments from the mean of s_i = self-attention
    over h'(x_i, y_i); prediction g(r(x), x, z). The loss, a row of all = support and query, is then

        E_q(z | all) [-log p(y_all | r, z)] + KL(q(z | all) | q(z | support)),

    and a prediction has the mean and variance of the mixture over `draws` fixed draws of z (0: z is its mean).
    `prior`: the rows of both are read together, exactly. Departure: self-attention in pre-normalised residual blocks.
    """

    papers = ("kim2019anp",)
    choose = "Functions with uncertainty where CNP underfits: each query looks at the examples near it."
    cost = "one pass"
    says_deviation = True
    kinds = ("regression",)
    incremental = True
    objective: GaussianRegression

    def __init__(
        self,
        objective: GaussianRegression,
        x_shape: tuple[int, ...],
        width: int = 64,
        depth: int = 2,
        attention: int = 1,
        heads: int = 4,
        latent: bool = False,
        draws: int = 16,
    ):
        super().__init__()
        if draws < 0:
            raise UserError(f"draws is {draws}: give how many draws of z to average, or 0 for its mean.")
        self.objective = objective
        self.x_shape = x_shape
        self.width, self.depth, self.attention, self.heads = width, depth, attention, heads
        self.latent, self.draws = latent, draws
        x_size = math.prod(x_shape)
        sizes = (x_size + objective.y_size, width, depth, attention, heads)
        self.encoder = SetEncoder(*sizes)
        self.place = scaled(MLP((x_size,), out=width, width=width, depth=2), RELU)
        self.cross = Attention(width, heads)
        self.decoder = MLP((width * (2 if latent else 1) + x_size,), out=objective.size, width=width, depth=depth)
        if latent:
            self.beliefs = SetEncoder(*sizes)
            self.moments = nn.Linear(width, 2 * width)

    def adapt(self, support: Examples, prior: State | None = None) -> State:
        assert isinstance(support.x, Tensor)
        state = {"rows": torch.cat([support.x.flatten(2), support.y], -1), "weight": support.weight}
        if prior is not None:
            state = {k: torch.cat([prior[k], v], 1) for k, v in state.items()}
        state["keys"] = self.place(state["rows"][..., : -self.objective.y_size])
        return {**state, "values": self.encoder(state["rows"], state["weight"])}

    def belief(self, rows: Tensor, weight: Tensor) -> Normal:
        """q(z | rows), (task, width), for rows (task, n, x and y)."""
        share = weight / weight.sum(1, keepdim=True).clamp_min(1e-12)
        mean = (self.beliefs(rows, weight) * share.unsqueeze(-1)).sum(1)
        mean, raw = self.moments(mean).chunk(2, -1)
        return Normal(mean, 0.1 + 0.9 * raw.sigmoid(), validate_args=False)

    def answer(self, state: State, x: Tensor, z: Tensor | None) -> Tensor:
        """g at x (task, n, x), for each z (task, draws, width) if given: (task, draws, n, size)."""
        read = self.cross(self.place(x), state["keys"], state["values"], state["weight"])
        known = torch.cat([read, x], -1).unsqueeze(1)
        if z is not None:
            wide = z.unsqueeze(2).expand(-1, -1, x.shape[1], -1)
            known = torch.cat([known.expand(-1, z.shape[1], -1, -1), wide], -1)
        return self.decoder(known.flatten(1, 2)).unflatten(1, known.shape[1:3])

    def predict(self, state: State, x: Inputs, weight: Tensor | None = None) -> Tensor:
        assert isinstance(x, Tensor)
        if not self.latent:
            return self.answer(state, x.flatten(2), None).squeeze(1)
        belief = self.belief(state["rows"], state["weight"])
        z = belief.mean.unsqueeze(1) + belief.stddev.unsqueeze(1) * fixed_normal(self.draws, self.width, belief.mean)
        return combined(self.objective, self.answer(state, x.flatten(2), z), None)

    def meta_loss(self, tasks: Task) -> Tensor:
        if not (self.latent and self.training):
            return super().meta_loss(tasks)
        rows = join_rows(tasks.support, tasks.query)
        assert isinstance(rows.x, Tensor)
        state, x = self.adapt(tasks.support), rows.x.flatten(2)
        before = self.belief(state["rows"], state["weight"])
        after = self.belief(torch.cat([x, rows.y], -1), rows.weight)
        prediction = self.answer(state, x, after.rsample().unsqueeze(1)).squeeze(1)
        gap = kl_divergence(after, before).sum(-1) / (rows.weight.sum(1) * self.objective.y_size).clamp_min(1e-12)
        return self.objective.loss(prediction, rows) + gap
