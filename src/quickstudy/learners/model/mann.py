"""MANN: a recurrent controller with an external memory."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from quickstudy.core.objective import Classification
from quickstudy.core.task import Examples, Inputs, State, examples
from quickstudy.inner.sequence import unless_padding
from quickstudy.learners.model.in_sequence import InSequence
from quickstudy.nets import Net
from quickstudy.nets.memory import LRUMemory, NoMemory


class MANN(InSequence):
    """Memory-augmented neural network (Santoro et al. 2016, arXiv 1605.06065).

    At step t an LSTM reads (f(x_t), y_{t-1}): a label comes one step after its row, so that the two must be bound
    in memory. What it puts out, h_t, writes to and reads from a memory with least recently used access
    (nets/memory.py), and the prediction for x_t is a linear map of (h_t, what was read).

    The support is read in order; then each query is asked as the next row, by itself, from the state after the
    support: memory (task, slots, width), read_weights, used, the LSTM's hidden and cell, and the last label. `prior`:
    reading goes on from there. `sequence_predictions` answers at every step of one long sequence.

    in_sequence: train as in the paper, on support and query as one sequence in random order, with the loss at every
    row; otherwise on the answers to the query. slots: 0 for no memory, the LSTM alone that the paper compares with.
    Departures: with several heads, each writes to a least used slot of its own (the paper marks as many as there are
    heads, and does not say which is whose); reading is sharpened, unless `sharpness` is 1; `net` in place of raw
    pixels.

    >>> import torch, quickstudy as qs
    >>> mann = MANN(qs.nets.MLP((4,)), qs.Classification(3), hidden=16, slots=8, width=4, heads=2)
    >>> mann.sequence_predictions(torch.randn(1, 6, 4), torch.tensor([[0, 1, 2, 2, 1, 0]])).shape
    torch.Size([1, 6, 3])
    """

    papers = ("santoro2016mann",)
    choose = (
        "Examples that come as a stream, each to be answered before its label is told: remembers what it was shown "
        "in an external memory."
    )
    cost = "one pass, row by row"
    kinds = ("classification",)
    objective: Classification

    def __init__(
        self,
        net: Net,
        objective: Classification,
        hidden: int = 200,
        slots: int = 128,
        width: int = 40,
        heads: int = 4,
        decay: float = 0.99,
        sharpness: float = 10.0,
        in_sequence: bool = False,
    ):
        super().__init__()
        self.net = net
        self.objective = objective
        self.hidden = hidden
        self.slots = slots
        self.width = width
        self.heads = heads
        self.decay = decay
        self.sharpness = sharpness
        self.in_sequence = in_sequence
        self.controller = nn.LSTMCell(net.size + objective.way, hidden)
        self.memory = LRUMemory(hidden, slots, width, heads, decay, sharpness) if slots else NoMemory()
        self.head = nn.Linear(hidden + self.memory.size, objective.size)

    def adapt(self, support: Examples, prior: State | None = None) -> State:
        before = None if prior is None else {k: v for k, v in prior.items() if k != "seen"}
        return {**self._walk(support, before)[1], **self.seen(support, prior)}

    def predict(self, state: State, x: Inputs, weight: Tensor | None = None) -> Tensor:
        rows = self.ask(x, weight, 0)
        m = rows.shape[1]
        # every query has a copy of the state for itself
        asked = {k: v.repeat_interleave(m, 0) for k, v in state.items() if k != "seen"}
        out, _ = self._step(rows.flatten(0, 1), asked)
        return self.hide(self.head(out).unflatten(0, (-1, m)), state)

    def sequence_predictions(self, x: Inputs, y: Tensor, weight: Tensor | None = None) -> Tensor:
        return self.head(self._walk(examples(x, y, weight))[0])

    def _walk(self, rows: Examples, state: State | None = None) -> tuple[Tensor, State]:
        """What comes out at every row, (task, n, hidden + read), and the state after the last."""
        features, labels, real = self.read(rows)
        if state is None:
            start = features.new_zeros(len(features), self.hidden)
            state = {"hidden": start, "cell": start, "label": labels.new_zeros(len(labels), self.objective.way)}
            state |= self.memory.start(start)
        outputs = []
        for t in range(features.shape[1]):
            out, moved = self._step(features[:, t], state)
            state = unless_padding({**moved, "label": labels[:, t]}, state, real[:, t])
            outputs.append(out)
        return torch.stack(outputs, 1), state

    def _step(self, features: Tensor, state: State) -> tuple[Tensor, State]:
        row = torch.cat([features, state["label"]], -1)
        hidden, cell = self.controller(row, (state["hidden"], state["cell"]))
        read, memory = self.memory(hidden, state)
        return torch.cat([hidden, read], -1), {"hidden": hidden, "cell": cell, **memory}
