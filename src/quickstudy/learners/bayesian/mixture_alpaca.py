"""A mixture of ALPaCAs: which family of functions a task belongs to, by the evidence of its support."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from quickstudy.core.errors import UserError
from quickstudy.core.learner import MetaLearner, unless_batch_statistics
from quickstudy.core.objective import GaussianRegression
from quickstudy.core.task import Examples, Inputs, State, Task, join_rows
from quickstudy.inner.apply import apply_per_task
from quickstudy.inner.members import combined, fold, others, repeat, starts, unfold
from quickstudy.inner.posterior import check_noise, gaussian_prediction, wide
from quickstudy.nets import Net


class MixtureALPaCA(MetaLearner):
    """A mixture of priors over functions: Jerfel et al. 2019 (arXiv 1812.06080) with ALPaCA's (arXiv 1807.08912) exact
    posteriors in place of gradient steps.

    Component k has features f, a prior K ~ N(K0, s^2 P0^-1) and a noise s of its own (ALPaCA); a task is of k with
        r_k ~ pi_k p(y | x, k),   p the marginal likelihood of the support;
    the prediction is the mixture's mean and variance. Trained by -log sum_k pi_k p(y, y_query | k) a row, of support
    and query together: by the query alone, one component came to serve all families. A start (mixture_maml) says where
    functions lie; a prior also says which a family has not, and the evidence takes the narrowest that has this one.

    components: more than there may be families; those that win nothing end unused, and found the rest more often.
    floor: in training each also learns from every task, with this share over K. A row of weight w counts as w rows.
    `prior`: rows are added to the earlier state's, exactly.
    state: gram (task, K, d, d), cross (task, K, d, y), square (task, K, y), rows (task,), responsibility (task, K).
    Departures: K is given (Jerfel et al. spawn components); gradients alone, where they alternate E and M.

    >>> import quickstudy as qs
    >>> mixture = MixtureALPaCA(qs.nets.MLP((1,)), qs.GaussianRegression(), components=3)
    >>> support = qs.examples(torch.randn(2, 10, 1), torch.randn(2, 10, 1))
    >>> mixture.adapt(support)["responsibility"].shape
    torch.Size([2, 3])
    """

    papers = ("jerfel2019mixtures", "harrison2018alpaca")
    choose = "Regression where tasks come from families of functions that no one names: finds which, with error bars."
    cost = "one pass and a closed form a component"
    kinds = ("regression",)
    net_norm = "batch"
    says_deviation = True
    incremental = unless_batch_statistics
    objective: GaussianRegression

    def __init__(
        self, net: Net, objective: GaussianRegression, components: int = 6, noise: float = 1.0, floor: float = 0.0
    ):
        super().__init__()
        check_noise("MixtureALPaCA", objective, noise)
        if components < 1 or not 0 <= floor <= 1:
            raise UserError(f"{components} components with a floor of {floor}: give 1 or more, and a share of 0 to 1.")
        self.net = net
        self.objective = objective
        self.components = components
        self.noise = noise
        self.floor = floor
        self.more = others(net, components)
        size = net.size + 1  # a constant feature
        self.prior_mean = nn.Parameter(torch.zeros(components, size, objective.y_size))
        self.prior_factor = nn.Parameter(torch.zeros(components, size, size))
        self.log_noise = nn.Parameter(torch.full((components, 1, objective.y_size), math.log(noise)))
        self.log_share = nn.Parameter(torch.zeros(components))

    def features(self, x: Inputs, weight: Tensor | None, tasks: int) -> Tensor:
        """The features of every component, a constant 1 the last: (task, K, n, d), in float64."""
        k = self.components
        weights, rows = fold(starts(self.net, self.more, tasks)), repeat(x, k)
        f = wide(unfold(apply_per_task(self.net, weights, rows, None if weight is None else repeat(weight, k)), k))
        return torch.cat([f, torch.ones_like(f[..., :1])], -1)

    def adapt(self, support: Examples, prior: State | None = None) -> State:
        f, w = self.features(support.x, support.weight, support.tasks), wide(support.weight)
        left = wide(support.y).unsqueeze(1) - f @ wide(self.prior_mean)
        scaled = f * w[:, None, :, None]
        square = (w[:, None, :, None] * left.square()).sum(2)
        state = {"gram": scaled.mT @ f, "cross": scaled.mT @ left, "square": square, "rows": w.sum(1)}
        if prior is not None:
            state = {name: prior[name] + part for name, part in state.items()}
        return {**state, "responsibility": self.evidence(state).softmax(1)}

    def deviation(self) -> Tensor:
        """s, (K, 1, y)."""
        return self.objective.floor + wide(self.log_noise).exp()

    def precision(self, state: State) -> tuple[Tensor, Tensor]:
        """Cholesky factors of P0, (K, d, d), and of the posterior's P = P0 + gram, (task, K, d, d)."""
        raw = wide(self.prior_factor)
        root = raw.tril(-1) + torch.diag_embed(raw.diagonal(dim1=1, dim2=2).exp())
        return root, torch.linalg.cholesky(root @ root.mT + state["gram"])

    def evidence(self, state: State) -> Tensor:
        """log pi_k + log p(y | x, k) of the rows of a state: (task, K), in nats."""
        root, factor = self.precision(state)
        half = torch.linalg.solve_triangular(factor, state["cross"], upper=False)
        s, n = self.deviation().squeeze(1), state["rows"][:, None, None]
        fit = (state["square"] - half.square().sum(2)) / s.square() + n * (2 * math.pi * s.square()).log()
        # half of log |P| / |P0|, for each target
        volume = (factor.diagonal(0, -2, -1).log() - root.diagonal(0, -2, -1).log()).sum(-1)
        return self.log_share.log_softmax(0) - fit.sum(-1) / 2 - volume * s.shape[-1]

    def predict(self, state: State, x: Inputs, weight: Tensor | None = None) -> Tensor:
        f, (_, factor) = self.features(x, weight, len(state["rows"])), self.precision(state)
        mean = f @ (wide(self.prior_mean) + torch.cholesky_solve(state["cross"], factor))
        spread = torch.linalg.solve_triangular(factor, f.mT, upper=False).square().sum(2).unsqueeze(-1)
        answers = gaussian_prediction(self.objective, mean, self.deviation() * (1 + spread).sqrt())
        return combined(self.objective, answers, state["responsibility"]).to(self.log_noise.dtype)

    def meta_loss(self, tasks: Task) -> Tensor:
        if not self.training:
            return super().meta_loss(tasks)
        state = self.adapt(join_rows(*tasks))
        won = (1 - self.floor) * (evidence := self.evidence(state)).logsumexp(1) + self.floor * evidence.mean(1)
        return -(won / state["rows"].clamp_min(1e-12)).to(self.log_noise.dtype)
