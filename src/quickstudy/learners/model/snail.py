"""SNAIL: temporal convolutions and causal attention over the examples."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from quickstudy.core.objective import Objective
from quickstudy.core.task import Examples, Inputs, State, examples
from quickstudy.inner.sequence import label_size, packed
from quickstudy.learners.model.in_sequence import InSequence
from quickstudy.nets import Net
from quickstudy.nets.causal import CausalStack


class SNAIL(InSequence):
    """Simple neural attentive meta-learner (Mishra, Rohaninejad, Chen, Abbeel 2018, arXiv 1707.03141).

    The sequence (f(x_1), y_1), ..., (f(x_n), y_n), (f(x), no label) goes through causal blocks that each append
    columns: attention, dilated convolutions, attention, convolutions, attention. The prediction is a linear map of
    the columns of the last row. Every query is asked as the last row by itself.

    Since no row sees a later one, the support is read once; the state holds its columns, (task, n, stack.size).
    `prior`: its rows come before the support, exactly as if they had been read together.

    in_sequence: train on support and query as one sequence in random order, each row answered from those before it.
    length: the longest sequence, query included, that convolutions reach over; attention reaches further. The
    defaults are the paper's for few-shot classification. Departures: dilations 1, 2, 4, ... where the paper's listing
    begins with 2, so that neighbours meet; a regression's targets come with a column that says they are known.

    >>> import torch, quickstudy as qs
    >>> snail = SNAIL(qs.nets.MLP((4,)), qs.Classification(3), filters=8, keys=(4, 4), values=(4, 4))
    >>> support = qs.examples(torch.randn(1, 6, 4), torch.tensor([[0, 0, 1, 1, 2, 2]]))
    >>> snail.predict(snail.adapt(support), torch.randn(1, 5, 4)).shape
    torch.Size([1, 5, 3])
    """

    papers = ("mishra2018snail",)
    choose = (
        "Many training tasks and no idea of what they have in common: a general network that reads the examples in "
        "order and learns how to learn, for classes and for functions."
    )
    cost = "one pass"

    def __init__(
        self,
        net: Net,
        objective: Objective,
        length: int = 32,
        filters: int = 128,
        keys: tuple[int, ...] = (64, 256, 512),
        values: tuple[int, ...] = (32, 128, 256),
        in_sequence: bool = False,
    ):
        super().__init__()
        self.net = net
        self.objective = objective
        self.length = length
        self.filters = filters
        self.keys = tuple(keys)
        self.values = tuple(values)
        self.in_sequence = in_sequence
        self.inputs = net.size + label_size(objective)
        self.stack = CausalStack(self.inputs, length, filters, self.keys, self.values)
        self.head = nn.Linear(self.stack.size, objective.size)

    def adapt(self, support: Examples, prior: State | None = None) -> State:
        features, labels, real = self.read(support)
        rows = torch.cat([features, labels], -1)
        if prior is not None:
            rows = torch.cat([prior["columns"][..., : self.inputs], rows], 1)
            real = torch.cat([prior["real"], real], 1)
        rows, real = packed(rows, real)
        return {"columns": self.stack.read(rows, real), "real": real, **self.seen(support, prior)}

    def sequence_predictions(self, x: Inputs, y: Tensor, weight: Tensor | None = None) -> Tensor:
        features, labels, real = self.read(examples(x, y, weight))
        rows, there = packed(torch.cat([features, labels], -1), real)
        asked, _ = packed(torch.cat([features, torch.zeros_like(labels)], -1), real)
        place = torch.arange(rows.shape[1], device=rows.device)
        found = self.head(self.stack.ask(asked, self.stack.read(rows, there), there, place))
        back = real.long().argsort(dim=1, stable=True).argsort(1)
        return found.gather(1, back.unsqueeze(-1).expand_as(found))

    def predict(self, state: State, x: Inputs, weight: Tensor | None = None) -> Tensor:
        rows = self.ask(x, weight, label_size(self.objective))
        return self.hide(self.head(self.stack.ask(rows, state["columns"], state["real"])), state)
