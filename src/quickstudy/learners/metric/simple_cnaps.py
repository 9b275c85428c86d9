"""Simple CNAPS: class means, and distances that know how each class is spread."""

from __future__ import annotations

import torch
from torch import Tensor

from quickstudy.core.errors import UserError
from quickstudy.core.learner import MetaLearner, unless_batch_statistics
from quickstudy.core.objective import Classification
from quickstudy.core.task import Examples, Inputs, State
from quickstudy.inner.apply import apply_shared
from quickstudy.inner.closed import class_sums, prototypes
from quickstudy.inner.spread import class_scatter, joined_scatter, shrunk_covariance, whitener
from quickstudy.nets import Net


class SimpleCNAPS(MetaLearner):
    """The classifier of Simple CNAPS (Bateni et al. 2020, arXiv 1912.03432): squared Mahalanobis distances.

    logit_k(x) = -(f(x) - c_k)' Q_k^-1 (f(x) - c_k) / 2 with c_k the mean of class k and

        Q_k = lambda_k S_k + (1 - lambda_k) S + beta I,   lambda_k = n_k / (n_k + 1)

    where S_k is the covariance of class k, 0 for a class of one example, and S that of all examples of the task.

    The state holds the sum, weight and scatter of each class, so more examples can be added exactly (`prior`), and
    Q_k^-1/2: way d^2 numbers for d features. Row weights are importance: a covariance is divided by
    n - sum w^2 / n, which for plain rows is n - 1. Departure: the paper adapts its features to the task by FiLM
    layers; here they are the network's.
    """

    papers = ("bateni2020simplecnaps",)
    choose = (
        "As ProtoNet where classes have several examples and clouds of different shapes. For few features (d below a "
        "few hundred): it keeps d^2 numbers a class."
    )
    cost = "one pass and a closed form"
    incremental = unless_batch_statistics
    kinds = ("classification",)
    objective: Classification
    any_way = True

    def __init__(self, net: Net, objective: Classification, beta: float = 1.0):
        super().__init__()
        if not beta > 0:
            raise UserError(f"beta is {beta}: covariances of few examples need a positive one.")
        self.net = net
        self.objective = objective
        self.beta = beta

    def adapt(self, support: Examples, prior: State | None = None) -> State:
        features, one_hot = apply_shared(self.net, support.x, support.weight), self.objective.one_hot(support)
        sums, counts = class_sums(features, one_hot)
        state = {"sums": sums, "counts": counts, "squares": one_hot.square().sum(1)}
        state["scatter"] = class_scatter(features, one_hot, prototypes(sums, counts))
        if prior is not None:
            scatter = joined_scatter(prior, state)
            state = {**{k: prior[k] + state[k] for k in ("sums", "counts", "squares")}, "scatter": scatter}
        return {**state, "whitener": whitener(shrunk_covariance(state, self.beta))}

    def predict(self, state: State, x: Inputs, weight: Tensor | None = None) -> Tensor:
        f, c = apply_shared(self.net, x, weight), prototypes(state["sums"], state["counts"])
        gaps = torch.einsum("tkde,tnke->tnkd", state["whitener"], f.unsqueeze(2) - c.unsqueeze(1))
        return self.objective.hide_unseen(-gaps.square().sum(-1) / 2, state["counts"])
