"""Fast weights: a recurrent network with a Hebbian memory of its recent states."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from quickstudy.core.objective import Objective
from quickstudy.core.task import Examples, Inputs, State, examples
from quickstudy.inner.descent import last
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

    in_sequence: train on support and query as one sequence in random order, each row answered from those before it.
    rate, decay, steps: eta, lambda and S of the paper. h h' h grows with the number of units, and with the paper's eta
    of 0.5 the past drowns what is new: with 100 units and ten rows already at 0.05, where nothing is learnt. Keep
    rate * hidden near 0.5. normalise: layer norm in the inner steps; without it states grow where the rate is large.

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
        rate: float = 0.005,
        decay: float = 0.95,
        steps: int = 1,
        normalise: bool = True,
        in_sequence: bool = False,
    ):
        super().__init__()
        self.net = net
        self.objective = objective
        self.hidden = hidden
        self.rate = rate
        self.decay = decay
        self.steps = steps
        self.normalise = normalise
        self.in_sequence = in_sequence
        self.cell = FastWeightsCell(net.size + label_size(objective), hidden, rate, decay, steps, normalise)
        self.head = MLP((hidden,), out=objective.size, width=hidden, depth=1)

    def adapt(self, support: Examples, prior: State | None = None) -> State:
        features, labels, real = self.read(support)
        rows = torch.cat([features, labels], -1)
        start = self.cell.start(len(rows), rows)
        if prior is not None:
            start = {k: prior[k] for k in start}
        return {**last(self._states(rows, real, start)), **self.seen(support, prior)}

    def sequence_predictions(self, x: Inputs, y: Tensor, weight: Tensor | None = None) -> Tensor:
        features, labels, real = self.read(examples(x, y, weight))
        rows, asked = (torch.cat([features, shown], -1) for shown in (labels, torch.zeros_like(labels)))
        states = self._states(rows, real, self.cell.start(len(rows), rows))
        told = [self.cell(asked[:, t : t + 1], state) for t, state in zip(range(rows.shape[1]), states, strict=False)]
        return self.head(torch.cat(told, 1))

    def _states(self, rows: Tensor, real: Tensor, state: State) -> Iterator[State]:
        """The states after 0, 1, ... rows."""
        yield state
        for t in range(rows.shape[1]):
            moved = self.cell.write(self.cell(rows[:, t : t + 1], state)[:, 0], state)
            state = unless_padding(moved, state, real[:, t])
            yield state

    def predict(self, state: State, x: Inputs, weight: Tensor | None = None) -> Tensor:
        rows = self.ask(x, weight, label_size(self.objective))
        return self.hide(self.head(self.cell(rows, state)), state)
