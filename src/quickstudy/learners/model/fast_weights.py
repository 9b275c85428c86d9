"""Fast weights: a recurrent network with a Hebbian memory of its recent states."""

from __future__ import annotations

import torch
from torch import Tensor

from quickstudy.core.objective import Objective
from quickstudy.core.task import Examples, Inputs, State
from quickstudy.inner.sequence import label_size, unless_padding
from quickstudy.learners.model.in_sequence import InSequence
from quickstudy.nets import MLP, Net
from quickstudy.nets.memory import FastWeightsCell


class FastWeights(InSequence):
    """Recurrent network with fast weights (Ba, Hinton, Mnih, Leibo, Ionescu 2016, arXiv 1610.06258).

    The cell (nets/memory.py) reads (f(x_t), y_t) for every row of the support and writes fast weights as it goes:
    A <- decay A + rate h h'. Then each query (f(x), no label) is read by itself as the next row, and the prediction
    is a network with one hidden layer of the state h, which A has pulled towards earlier ones that are like it.

    state: hidden (task, hidden) and fast (task, hidden, hidden). `prior`: reading goes on from there. With rate 0 it
    is a plain recurrent network. Departures: the paper reads keys and values of its associative retrieval task one
    after the other, here a row is read with its label at once; `net` in place of raw inputs.

    rate, decay, steps: eta, lambda and S of the paper; there eta is 0.5, which on toy tasks of few examples drowns
    what is new in what is past, since h h' h grows with the number of units. normalise: layer norm in the inner steps;
    without it the rate must be small, or states grow without bound.

    >>> import torch, quickstudy as qs
    >>> learner = FastWeights(qs.nets.MLP((4,)), qs.Regression(), hidden=8)
    >>> support = qs.examples(torch.randn(2, 6, 4), torch.randn(2, 6, 1))
    >>> learner.predict(learner.adapt(support), torch.randn(2, 5, 4)).shape
    torch.Size([2, 5, 1])
    """

    papers = ("ba2016fastweights",)
    choose = (
        "Short sequences whose later rows recall earlier ones, with a state of fixed size: a light alternative to "
        "attention, since nothing is kept of the examples but one matrix."
    )
    cost = "one pass, row by row"

    def __init__(
        self,
        net: Net,
        objective: Objective,
        hidden: int = 100,
        rate: float = 0.05,
        decay: float = 0.95,
        steps: int = 1,
        normalise: bool = True,
    ):
        super().__init__()
        self.net = net
        self.objective = objective
        self.hidden = hidden
        self.rate = rate
        self.decay = decay
        self.steps = steps
        self.normalise = normalise
        self.cell = FastWeightsCell(net.size + label_size(objective), hidden, rate, decay, steps, normalise)
        self.head = MLP((hidden,), out=objective.size, width=hidden, depth=1)

    def adapt(self, support: Examples, prior: State | None = None) -> State:
        features, labels, real = self.read(support)
        state = self.cell.start(len(features), features)
        if prior is not None:
            state = {k: prior[k] for k in state}
        rows = torch.cat([features, labels], -1)
        for t in range(rows.shape[1]):
            moved = self.cell.write(self.cell(rows[:, t : t + 1], state)[:, 0], state)
            state = unless_padding(moved, state, real[:, t])
        return {**state, **self.seen(support, prior)}

    def predict(self, state: State, x: Inputs, weight: Tensor | None = None) -> Tensor:
        rows = self.ask(x, weight, label_size(self.objective))
        return self.hide(self.head(self.cell(rows, state)), state)
