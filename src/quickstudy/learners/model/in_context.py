"""In-context learning: a transformer, fitted to a prior over tasks, that reads the support and answers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from quickstudy.core.learner import MetaLearner, unless_batch_statistics
from quickstudy.core.objective import Classification, Objective
from quickstudy.core.task import Examples, Inputs, State
from quickstudy.inner.apply import apply_shared
from quickstudy.nets import MLP, Net
from quickstudy.nets.attention import RowTransformer, scaled


class InContext(MetaLearner):
    """In-context learner, a prior-fitted network (Mueller et al. 2022, arXiv 2112.10510; for tables Hollmann et al.
    2023, arXiv 2207.01848; for images Fifty et al. 2024, arXiv 2310.10971).

    A row of the support is the token A f(x_i) + B y_i, with y one-hot for classes, a query A f(x). In each of `depth`
    layers the support looks at itself and queries at the support alone; g of a query's last token is the prediction:
    logits, or the mean and the raw scale of a Gaussian. Trained by likelihood on tasks drawn from a prior (the source
    `prior`), it comes to answer with the posterior under that prior.

    The state holds the tokens of the support, and what each layer shows of them. `prior`: the rows of both are read
    together, exactly. Departures: normalised before each layer; a Gaussian where 2112.10510 has a histogram; in
    2310.10971 the support sees the query as well, and the image encoder is a frozen pretrained one.
    """

    papers = ("muller2022pfn", "hollmann2023tabpfn", "fifty2024caml")
    choose = (
        "Small tables and feature vectors where tasks can be drawn from a prior, and a probability is wanted that is "
        "near the Bayesian one, in one pass."
    )
    cost = "one pass"
    says_deviation = True
    incremental = unless_batch_statistics

    def __init__(self, net: Net, objective: Objective, width: int = 64, depth: int = 3, heads: int = 4):
        super().__init__()
        self.net = net
        self.objective = objective
        self.width = width
        self.depth = depth
        self.heads = heads
        targets = objective.way if isinstance(objective, Classification) else getattr(objective, "y_size", 1)
        self.embed = scaled(nn.Linear(net.size, width))
        self.label = scaled(nn.Linear(targets, width))
        self.transformer = RowTransformer(width, depth, heads)
        self.head = MLP((width,), out=objective.size, width=width, depth=1)

    def tokens(self, x: Inputs, weight: Tensor | None) -> Tensor:
        """A f(x), (task, n, width)."""
        return self.embed(apply_shared(self.net, x, weight))

    def adapt(self, support: Examples, prior: State | None = None) -> State:
        y = support.y
        if isinstance(self.objective, Classification):
            y = self.objective.indicators(y)
        tokens = self.tokens(support.x, support.weight)
        state = {"tokens": tokens + self.label(y.to(tokens.dtype)), "weight": support.weight}
        if prior is not None:
            state = {k: torch.cat([prior[k], v], 1) for k, v in state.items()}
        if isinstance(self.objective, Classification):
            seen = self.objective.seen(support)
            state["seen"] = seen if prior is None else torch.maximum(seen, prior["seen"])
        return {**state, "shown": self.transformer.read(state["tokens"], state["weight"])}

    def predict(self, state: State, x: Inputs, weight: Tensor | None = None) -> Tensor:
        answer = self.transformer.answer(self.tokens(x, weight), state["shown"], state["weight"])
        if isinstance(self.objective, Classification):
            return self.objective.hide_unseen(self.head(answer), state["seen"])
        return self.head(answer)
