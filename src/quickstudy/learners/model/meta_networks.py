"""Meta networks: fast weights made from loss gradients, kept example by example in a memory."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from quickstudy.core.errors import UserError
from quickstudy.core.objective import Classification
from quickstudy.core.task import Examples, Inputs, State
from quickstudy.inner.apply import apply_shared
from quickstudy.inner.generated import PerExample, PerTask
from quickstudy.learners.model.in_sequence import InSequence
from quickstudy.nets import Net
from quickstudy.nets.memory import cosine


class MetaNetworks(InSequence):
    """Meta network (Munkhdalai and Yu 2017, arXiv 1703.00837), on features f(x) of `net`.

    Embedding u and base learner b each have slow weights, and fast weights that are made of the gradients of their
    losses on the support with slow weights alone; a layer applies both and adds what comes out:

        Q* = d(gradients of Q, example after example)      u(x) = Q f(x) + Q* f(x)
        W*_i = m(gradients of W at example i)              kept in a memory under the key u(x_i)
        W*   = sum_i softmax_i(cos(u(x), u(x_i))) W*_i     b(x) = W2 h + W2* h,  h = relu(W1 f) + relu(W1* f)

    d is an LSTM, m a network, both with `units` units and the same for every coordinate. In the embedding's loss a
    linear classifier follows relu(Q f). state: the rows of the memory: features (task, n, d), labels, real, keys (task,
    n, width), and fast weights first (task, n, width, d), second (task, n, way, width); embed, Q* (task, width, d).
    `prior`: its rows come before the support, exactly as if they had been given together.

    first_order: gradients are constants of the outer loss, as in the authors' code. Departures: the layers with
    fast weights come after `net`, whose own weights are slow; d reads every example, not a sample.

    >>> import torch, quickstudy as qs
    >>> learner = MetaNetworks(qs.nets.MLP((4,)), qs.Classification(3), width=8)
    >>> support = qs.examples(torch.randn(1, 6, 4), torch.tensor([[0, 0, 1, 1, 2, 2]]))
    >>> learner.predict(learner.adapt(support), torch.randn(1, 5, 4)).shape
    torch.Size([1, 5, 3])
    """

    papers = ("munkhdalai2017metanetworks",)
    choose = (
        "A few examples a class where weights of the classifier should be made for each query from the examples "
        "that are most like it. Heavy: a set of weights is kept for every example."
    )
    cost = "one pass and a gradient an example"
    kinds = ("classification",)
    objective: Classification

    def __init__(
        self, net: Net, objective: Classification, width: int = 64, units: int = 20, first_order: bool = True
    ):
        super().__init__()
        if width < 1 or units < 1:
            raise UserError(f"width is {width} and units is {units}: give at least 1 of each.")
        self.net = net
        self.objective = objective
        self.width = width
        self.units = units
        self.first_order = first_order
        self.embedding = nn.Linear(net.size, width, bias=False)
        self.classifier = nn.Linear(width, objective.way, bias=False)
        self.first = nn.Linear(net.size, width, bias=False)
        self.second = nn.Linear(width, objective.way, bias=False)
        self.embedding_weights = PerTask(units)
        self.first_weights = PerExample(units)
        self.second_weights = PerExample(units)

    @property
    def exact_gradient(self) -> bool:  # type: ignore[override]
        return not self.first_order

    def adapt(self, support: Examples, prior: State | None = None) -> State:
        features, labels, real = self.read(support)
        if prior is not None:
            given = (features, labels, real)
            rows = zip(("features", "labels", "real"), given, strict=True)
            features, labels, real = (torch.cat([prior[k], v], 1) for k, v in rows)
        embed = self.embedding_weights(self._gradients(self.embedding, self.classifier, features, labels)[0], real)
        first, second = self._gradients(self.first, self.second, features, labels)
        return {
            "features": features, "labels": labels, "real": real, "embed": embed,
            "keys": self._embed(features, embed),
            "first": self.first_weights(first),
            "second": self.second_weights(second),
            **self.seen(support, prior),
        }

    def predict(self, state: State, x: Inputs, weight: Tensor | None = None) -> Tensor:
        features = apply_shared(self.net, x, weight)
        likeness = cosine(self._embed(features, state["embed"]), state["keys"])
        share = likeness.masked_fill(~state["real"].unsqueeze(1), -torch.inf).softmax(-1)
        fast = torch.einsum("tqn,tnwd,tqd->tqw", share, state["first"], features)
        h = self.first(features).relu() + fast.relu()
        fast = torch.einsum("tqn,tnkw,tqw->tqk", share, state["second"], h)
        return self.hide(self.second(h) + fast, state)

    def _embed(self, features: Tensor, fast: Tensor) -> Tensor:
        return torch.baddbmm(self.embedding(features), features, fast.transpose(1, 2))

    def _gradients(self, first: nn.Linear, second: nn.Linear, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Of the cross-entropy of second(relu(first(x))) for each example: (task, n, *weight) for both weights."""
        z = first(x)
        h = z.relu()
        error = second(h).softmax(-1) - labels
        back = (error @ second.weight) * (z > 0)
        found = back.unsqueeze(-1) * x.unsqueeze(-2), error.unsqueeze(-1) * h.unsqueeze(-2)
        return (found[0].detach(), found[1].detach()) if self.first_order else found
