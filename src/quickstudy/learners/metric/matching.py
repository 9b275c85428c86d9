"""Matching networks: the labels of the support, each as far as its row resembles the query."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.core.errors import UserError
from quickstudy.core.learner import unless_batch_statistics
from quickstudy.core.objective import LOWEST, Classification
from quickstudy.core.task import Examples, Inputs, State
from quickstudy.inner.apply import apply_shared
from quickstudy.inner.shared_pass import SharedPass
from quickstudy.nets import Net
from quickstudy.nets.context import FullContext


class MatchingNet(SharedPass):
    """Matching network (Vinyals et al. 2016, arXiv 1606.04080).

    a_i = softmax_i(scale cos(f(x), g(x_i))) over the support;  P(y = k | x) = sum of a_i over class k.

    logit_k = log sum_{i in k} w_i exp(scale cos(f(x), g(x_i))): their softmax is that P, row weights included.
    f and g are one network. With `full_context` each support row is read together with the others (a bidirectional
    LSTM in their order) and each query row attends to the support `context_steps` times (an LSTM): then the order of
    the support matters.

    `prior`: the earlier rows come before the new ones, as if all had come together. Departure: the paper's cosine has
    no `scale` (learnt, starting at the one given); with 1, five classes cannot be told with more than 0.65.

    >>> import torch, quickstudy as qs
    >>> matching = MatchingNet(qs.nets.MLP((4,)), qs.Classification(3), full_context=True)
    >>> support = qs.examples(torch.randn(1, 6, 4), torch.tensor([[0, 0, 1, 1, 2, 2]]))
    >>> matching.predict(matching.adapt(support), torch.randn(1, 5, 4)).shape
    torch.Size([1, 5, 3])
    """

    papers = ("vinyals2016matching",)
    choose = (
        "Classification where a class is no single cloud: every example speaks for itself, more can be added later. "
        "Full context lets the support decide how its rows are read, at the price of an order."
    )
    cost = "one pass"
    incremental = unless_batch_statistics
    kinds = ("classification",)
    objective: Classification
    any_way = True

    def __init__(
        self,
        net: Net,
        objective: Classification,
        scale: float = 10.0,
        full_context: bool = False,
        context_steps: int = 5,
    ):
        super().__init__()
        if not scale > 0:
            raise UserError(f"scale is {scale}: attention to what is alike needs a positive one.")
        if context_steps < 1:
            raise UserError(f"context_steps is {context_steps}: give 1 or more, or leave full_context off.")
        self.net = net
        self.objective = objective
        self.scale = scale
        self.full_context = full_context
        self.context_steps = context_steps
        self.log_scale = nn.Parameter(torch.tensor(scale).log())
        if full_context:
            self.context = FullContext(net.size, context_steps)

    @property
    def exchangeable(self) -> bool:  # type: ignore[override]
        return not self.full_context

    def adapt(self, support: Examples, prior: State | None = None) -> State:
        rows, one_hot = apply_shared(self.net, support.x, support.weight), self.objective.one_hot(support)
        if prior is not None:
            rows, one_hot = torch.cat([prior["rows"], rows], 1), torch.cat([prior["one_hot"], one_hot], 1)
        state = {"rows": rows, "one_hot": one_hot}
        return {**state, "context": self.context.support(rows, one_hot.sum(-1))} if self.full_context else state

    def predict(self, state: State, x: Inputs, weight: Tensor | None = None) -> Tensor:
        asked, one_hot = apply_shared(self.net, x, weight), state["one_hot"]
        keys = state["context"] if self.full_context else state["rows"]
        if self.full_context:
            asked = self.context.query(asked, keys, one_hot.sum(-1))
        scale, seen = self.log_scale.exp(), one_hot.sum(1, keepdim=True)
        alike = scale * F.normalize(asked, dim=-1) @ F.normalize(keys, dim=-1).transpose(1, 2)
        # below all else and yet finite, since the derivative of a logsumexp over nothing is none
        nothing = (LOWEST - 2 * scale.detach()) * (seen > 0)
        share = torch.where(one_hot > 0, torch.where(one_hot > 0, one_hot, 1).log(), nothing)
        logits = (alike.unsqueeze(-1) + share.unsqueeze(1)).logsumexp(2)
        return self.objective.hide_unseen(logits, seen.squeeze(1))
