"""FEAT: class means that see each other before a query is compared with them."""

from __future__ import annotations

from torch import Tensor

from quickstudy.core.errors import UserError
from quickstudy.core.learner import MetaLearner, unless_batch_statistics
from quickstudy.core.objective import Classification
from quickstudy.core.task import Examples, Inputs, State, Task, join_rows
from quickstudy.inner.apply import apply_shared
from quickstudy.inner.closed import class_state, class_sums, prototypes, squared_distances
from quickstudy.nets import Net
from quickstudy.nets.attention import SetAttention


class FEAT(MetaLearner):
    """Few-shot embedding adaptation with a transformer (Ye, Hu, Zhan, Sha 2020, arXiv 1812.03664).

    c_k = mean of f(x) over class k of the support;  (c'_1, ..., c'_way) = attention over the set of them;
    logit_k(x) = -|f(x) - c'_k|^2 / temperature.

    In training `balance` times a contrastive term is added: the same attention over all rows of a class, support and
    query, gives each class a centre, the mean of what comes out; and every row, as it was before, must find
    its own: cross-entropy of -|f(x) - centre_k|^2 / contrast_temperature.

    As in the paper the attention has one head, a residual connection, dropout and a layer norm (`normalise`).
    The state holds the sum and the weight of each class as well, so more examples can be added exactly (`prior`).
    Departure: the paper starts from a network trained to classify, which is not asked for here.

    >>> import torch, quickstudy as qs
    >>> feat = FEAT(qs.nets.MLP((4,)), qs.Classification(3))
    >>> support = qs.examples(torch.randn(1, 6, 4), torch.tensor([[0, 0, 1, 1, 2, 2]]))
    >>> feat.predict(feat.adapt(support), torch.randn(1, 5, 4)).shape
    torch.Size([1, 5, 3])
    """

    papers = ("ye2020feat",)
    choose = (
        "As ProtoNet where what tells classes apart depends on which classes there are: the means move away from "
        "each other before a query is compared. Best from features that are good already."
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
        temperature: float = 64.0,
        contrast_temperature: float = 64.0,
        balance: float = 0.1,
        heads: int = 1,
        dropout: float = 0.5,
        normalise: bool = True,
    ):
        super().__init__()
        if not (temperature > 0 and contrast_temperature > 0):
            raise UserError(f"temperatures are {temperature} and {contrast_temperature}: give positive ones.")
        if balance < 0 or not 0 <= dropout < 1:
            raise UserError(f"balance is {balance} and dropout {dropout}: give a balance from 0, a dropout below 1.")
        self.net = net
        self.objective = objective
        self.temperature = temperature
        self.contrast_temperature = contrast_temperature
        self.balance = balance
        self.heads = heads
        self.dropout = dropout
        self.normalise = normalise
        self.attention = SetAttention(net.size, heads, normalise, dropout)

    def adapt(self, support: Examples, prior: State | None = None) -> State:
        return self._learnt(apply_shared(self.net, support.x, support.weight), support, prior)

    def predict(self, state: State, x: Inputs, weight: Tensor | None = None) -> Tensor:
        return self._compared(apply_shared(self.net, x, weight), state)

    def meta_loss(self, tasks: Task) -> Tensor:
        if not (self.training and self.balance):
            return super().meta_loss(tasks)
        # as in the authors' code, support and query pass the network together
        rows, n = join_rows(tasks.support, tasks.query), tasks.support.y.shape[1]
        features = apply_shared(self.net, rows.x, rows.weight)
        logits = self._compared(features[:, n:], self._learnt(features[:, :n], tasks.support))
        return self.objective.loss(logits, tasks.query) + self.balance * self._contrast(features, rows)

    def _learnt(self, features: Tensor, support: Examples, prior: State | None = None) -> State:
        state = class_state(features, self.objective.one_hot(support), prior)
        means = prototypes(state["sums"], state["counts"])
        return {**state, "centres": self.attention(means, state["counts"].unsqueeze(1) > 0)}

    def _compared(self, features: Tensor, state: State) -> Tensor:
        logits = -squared_distances(features, state["centres"]) / self.temperature
        return self.objective.hide_unseen(logits, state["counts"])

    def _contrast(self, features: Tensor, rows: Examples) -> Tensor:
        same = (rows.y.unsqueeze(2) == rows.y.unsqueeze(1)) & (rows.weight > 0).unsqueeze(1)
        sums, counts = class_sums(self.attention(features, same), self.objective.one_hot(rows))
        logits = -squared_distances(features, prototypes(sums, counts)) / self.contrast_temperature
        return self.objective.loss(self.objective.hide_unseen(logits, counts), rows)
