"""A memory of prototypes that is written along a stream and read by attention."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from quickstudy.core.errors import UserError
from quickstudy.core.learner import MetaLearner
from quickstudy.core.objective import Classification
from quickstudy.core.task import Examples, Inputs, State, Task
from quickstudy.inner.apply import apply_shared
from quickstudy.inner.closed import class_sums, prototypes, squared_distances
from quickstudy.nets import Net


class PrototypeMemory(MetaLearner):
    """Key-value memory of class prototypes, after Kaiser and others 2017 (arXiv 1703.03129: keys are running means, a
    slot of little use is written over) and Ren and others 2021 (arXiv 2007.04546: online prototypes).

    A slot is a key c (the weighted mean of the features of a class), a value (that class) and a weight n. Each call of
    `adapt` with a `prior` first lets all slots fade, n <- (1 - forgetting) n, and then writes: rows of a class that
    has a slot join its mean, c <- (n c + sum f) / (n + rows), other classes take a slot of their own. Of more classes
    than `capacity`, those of least weight are lost. Read:

        p(class | x) = sum over its slots of softmax over slots of -|f(x) - c|^2 / temperature

    with a learnt temperature. Without forgetting and with enough slots it is ProtoNet at that temperature, and exact
    in a stream. State: keys as sums (task, slots, d), values and weights (task, slots); an empty slot has the value -1.

    parts: in training the support comes in that many parts, one after the other, so that features are learnt for what
    the memory will hold. Among slots of equal weight the one whose sum is least goes, whatever the class's name.

    Departures from both: one slot a class; slots compete by weight, not by age; no learnt gates or context.
    """

    papers = ("kaiser2017rare", "ren2021wandering", "snell2017prototypical")
    choose = (
        "Classification of a stream: classes come, go and drift, and the state may not grow. One pass, no gradients; "
        "for a task that stands still use protonet."
    )
    cost = "one pass"
    kinds = ("classification",)
    objective: Classification
    any_way = True

    def __init__(
        self,
        net: Net,
        objective: Classification,
        forgetting: float = 0.0,
        capacity: int | None = None,
        parts: int = 1,
    ):
        super().__init__()
        if not 0 <= forgetting < 1:
            raise UserError(f"forgetting is {forgetting}: give the share that fades in a step, from 0 to below 1.")
        if parts < 1 or (capacity is not None and capacity < 1):
            raise UserError(f"capacity is {capacity} and parts is {parts}: give at least 1 of each.")
        self.net = net
        self.objective = objective
        self.forgetting = forgetting
        self.capacity = capacity
        self.parts = parts
        self.log_temperature = nn.Parameter(torch.zeros(()))

    @property
    def slots(self) -> int:
        """How many prototypes are kept."""
        return min(self.objective.way, self.capacity or self.objective.way)

    @property
    def incremental(self) -> bool:  # type: ignore[override]
        return self.forgetting == 0 and self.slots == self.objective.way and not self.transductive

    def adapt(self, support: Examples, prior: State | None = None) -> State:
        features = apply_shared(self.net, support.x, support.weight)
        sums, counts = class_sums(features, self.objective.one_hot(support))
        if prior is not None:
            held = self.objective.indicators(prior["values"]).to(sums.dtype)  # an empty slot is of no class
            faded = (1 - self.forgetting) * held.transpose(1, 2)
            sums = sums + faded @ prior["sums"].to(sums.dtype)
            counts = counts + (faded @ prior["counts"].to(sums.dtype).unsqueeze(-1)).squeeze(-1)
        # the heaviest first; among equals by what they hold, so that a class's name does not matter
        order = sums.sum(-1).argsort(dim=-1, descending=True)
        heaviest = counts.gather(1, order).argsort(dim=-1, descending=True, stable=True)
        kept = order.gather(1, heaviest)[:, : self.slots]
        counts = counts.gather(1, kept)
        sums = sums.gather(1, kept.unsqueeze(-1).expand(-1, -1, sums.shape[-1]))
        return {"sums": sums, "counts": counts, "values": torch.where(counts > 0, kept, -1)}

    def meta_loss(self, tasks: Task) -> Tensor:
        if not self.training or self.parts == 1:
            return super().meta_loss(tasks)
        state, weight = None, tasks.support.weight
        part = ((weight > 0).cumsum(1) - 1) % self.parts
        for number in range(self.parts):
            state = self.adapt(tasks.support._replace(weight=weight * (part == number)), state)
        assert state is not None
        return self.objective.loss(self.predict(state, tasks.query.x, tasks.query.weight), tasks.query)

    def predict(self, state: State, x: Inputs, weight: Tensor | None = None) -> Tensor:
        keys, values = prototypes(state["sums"], state["counts"]), self.objective.indicators(state["values"])
        near = -squared_distances(apply_shared(self.net, x, weight), keys) * (-self.log_temperature).exp()
        # one slot a class: the sum over a class's slots is that slot
        logits = near @ values.to(near.dtype)
        return self.objective.hide_unseen(logits, values.any(1).to(near.dtype))
