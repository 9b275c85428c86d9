"""Memories that a recurrent network writes to and reads from; each task has its own."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from quickstudy.core.errors import UserError
from quickstudy.core.task import State


def cosine(a: Float[Tensor, "*batch m d"], b: Float[Tensor, "*batch n d"]) -> Float[Tensor, "*batch m n"]:
    """The cosine of the angle between every two rows; 0 with a row of zeros."""
    a, b = (t / (t.square().sum(-1, keepdim=True) + 1e-12).sqrt() for t in (a, b))
    return a @ b.transpose(-1, -2)


class LRUMemory(nn.Module):
    """A memory written at the place just read or at the least used one, and read by likeness
    (least recently used access: Santoro et al. 2016, arXiv 1605.06065, section 3.2).

    Each of `heads` heads gets from the controller's output h a key k, a gate g in (0, 1) and a sharpness s:

        w_write = g w_read + (1 - g) w_least            w_least: 1 at this head's least used slot
        M       = M emptied at the least used slots, + sum over heads of w_write k
        w_read  = softmax_i(s cos(k, M_i)),  r = sum_i w_read_i M_i
        used    = decay used + sum over heads of (w_read + w_write)

    with w_read and `used` on the right those of the step before. Memory starts empty, and ties in use are broken by
    the order of slots. sharpness: s = 1 is the paper's, and then s is fixed. From a larger one it is learnt, as in
    neural Turing machines (arXiv 1410.5401): s = 1 + softplus(a linear map of h), about `sharpness` to begin with.
    Cosines alone differ too little to pick one of many slots.

    Raises UserError for fewer slots than heads, a decay outside [0, 1], or a sharpness below 1.
    """

    def __init__(self, inputs: int, slots: int, width: int, heads: int, decay: float = 0.99, sharpness: float = 10.0):
        super().__init__()
        if heads < 1 or width < 1 or slots < heads:
            raise UserError(f"a memory of {slots} slots of {width} for {heads} heads: give each head a slot at least.")
        if not 0 <= decay <= 1:
            raise UserError(f"decay is {decay}: the use of a slot is forgotten at a rate between 0 and 1.")
        if sharpness < 1:
            raise UserError(f"sharpness is {sharpness}: give 1 for the paper's, or more.")
        self.slots = slots
        self.width = width
        self.heads = heads
        self.decay = decay
        self.key = nn.Linear(inputs, heads * width)
        self.gate = nn.Linear(inputs, heads)
        self.sharpness = nn.Linear(inputs, heads) if sharpness > 1 else None
        if self.sharpness is not None:  # the bias whose softplus is sharpness - 1
            nn.init.constant_(self.sharpness.bias, sharpness - 1 + math.log(-math.expm1(1 - sharpness)))

    @property
    def size(self) -> int:
        """The number of columns that a step reads."""
        return self.heads * self.width

    def start(self, like: Float[Tensor, "task inputs"]) -> State:
        """An empty memory for every task."""
        tasks = len(like)
        return {
            "memory": like.new_zeros(tasks, self.slots, self.width),
            "read_weights": like.new_zeros(tasks, self.heads, self.slots),
            "used": like.new_zeros(tasks, self.slots),
        }

    def forward(self, h: Float[Tensor, "task inputs"], state: State) -> tuple[Float[Tensor, "task size"], State]:
        """What is read, head by head, and the memory afterwards."""
        key = self.key(h).tanh().unflatten(-1, (self.heads, self.width))
        gate = self.gate(h).sigmoid().unsqueeze(-1)
        sharpness = 1 if self.sharpness is None else 1 + F.softplus(self.sharpness(h)).unsqueeze(-1)
        return self.step(key, gate, sharpness, state)

    def step(
        self, key: Float[Tensor, "task heads width"], gate: Tensor, sharpness: Tensor | float, state: State
    ) -> tuple[Float[Tensor, "task size"], State]:
        """One write and one read with keys, gates (task, heads, 1) and sharpness given."""
        least = state["used"].argsort(dim=-1, stable=True)[:, : self.heads]
        least = (least.unsqueeze(-1) == torch.arange(self.slots, device=key.device)).to(key.dtype)
        write = gate * state["read_weights"] + (1 - gate) * least
        kept = 1 - least.sum(1).unsqueeze(-1)
        memory = torch.baddbmm(kept * state["memory"], write.transpose(1, 2), key)
        read = (sharpness * cosine(key, memory)).softmax(-1)
        used = self.decay * state["used"] + (read + write).sum(1)
        return (read @ memory).flatten(1), {"memory": memory, "read_weights": read, "used": used}


class NoMemory(nn.Module):
    """In the place of a memory: nothing is kept and nothing is read, which leaves the controller by itself."""

    size = 0

    def start(self, like: Float[Tensor, "task inputs"]) -> State:
        return {}

    def forward(self, h: Float[Tensor, "task inputs"], state: State) -> tuple[Float[Tensor, "task 0"], State]:
        return h[:, :0], {}


class FastWeightsCell(nn.Module):
    """A recurrent cell whose recent states attract new ones, by a matrix that is written as it runs
    (Ba et al. 2016, arXiv 1610.06258).

        z = W h(t-1) + C x(t)
        h_0 = relu(z),  h_{s+1} = relu(LN(z + A(t-1) h_s)) for s = 0, ..., steps - 1,  h(t) = h_steps
        A(t) = decay A(t-1) + rate h(t) h(t)'

    with A(0) = 0, h(0) = 0, and W = I / 20 to begin with. So A(t) h = rate sum_s decay^(t-s) h(s) (h(s) . h): attention
    to what is past, the sooner the more. LN, layer norm, is left out unless `normalise`.

    Raises UserError for a negative number of steps, or a decay outside [0, 1].
    """

    def __init__(self, inputs: int, hidden: int, rate: float, decay: float, steps: int, normalise: bool):
        super().__init__()
        if hidden < 1 or steps < 0:
            raise UserError(f"hidden is {hidden} and steps is {steps}: give at least 1 unit, and 0 steps or more.")
        if not 0 <= decay <= 1:
            raise UserError(f"decay is {decay}: fast weights fade at a rate between 0 and 1.")
        self.hidden = hidden
        self.rate = rate
        self.decay = decay
        self.steps = steps
        self.input = nn.Linear(inputs, hidden)
        self.recurrent = nn.Linear(hidden, hidden, bias=False)
        self.norm = nn.LayerNorm(hidden) if normalise else nn.Identity()
        with torch.no_grad():
            self.recurrent.weight.copy_(0.05 * torch.eye(hidden))

    def start(self, tasks: int, like: Tensor) -> State:
        """No state, and no fast weights."""
        hidden = like.new_zeros(tasks, self.hidden)
        return {"hidden": hidden, "fast": like.new_zeros(tasks, self.hidden, self.hidden)}

    def forward(self, rows: Float[Tensor, "task m inputs"], state: State) -> Float[Tensor, "task m hidden"]:
        """h after each of m rows, each of which comes next by itself."""
        z = self.input(rows) + self.recurrent(state["hidden"]).unsqueeze(1)
        h = z.relu()
        for _ in range(self.steps):
            h = self.norm(torch.baddbmm(z, h, state["fast"])).relu()  # A is symmetric
        return h

    def write(self, h: Float[Tensor, "task hidden"], state: State) -> State:
        """The state after h."""
        outer = h.unsqueeze(2) * h.unsqueeze(1)
        return {"hidden": h, "fast": self.decay * state["fast"] + self.rate * outer}
