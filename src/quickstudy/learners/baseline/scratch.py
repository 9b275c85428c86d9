"""Training from scratch on the support."""

from __future__ import annotations

from quickstudy.core.objective import Objective
from quickstudy.core.task import Examples, State
from quickstudy.learners.gradient.fine_tuning import FineTuning
from quickstudy.nets import Net


class Scratch(FineTuning):
    """The same network, trained from its random initialisation on each task's support alone.

    What an ordinary practitioner would do without other tasks: `inner_steps` steps of gradient
    descent. Nothing is meta-trained.
    """

    choose = "The same network trained on the task alone: what the training tasks are worth."
    cost = "many gradient steps"
    net_output = "objective"
    trained = False
    first_order = True

    def __init__(self, net: Net, objective: Objective, inner_steps: int = 100, inner_lr: float = 0.05):
        super().__init__()
        self.net = net
        self.objective = objective
        self.inner_steps = inner_steps
        self.inner_lr = inner_lr

    @property
    def steps(self) -> int:
        return self.inner_steps

    def start(self, support: Examples) -> State:
        return self.shared_start(support)
