"""MAML: an initialisation from which a few gradient steps do well."""

from __future__ import annotations

from quickstudy.core.objective import Objective
from quickstudy.core.task import Examples, State
from quickstudy.learners.gradient.fine_tuning import FineTuning
from quickstudy.nets import Net


class MAML(FineTuning):
    """Model-agnostic meta-learning (Finn, Abbeel, Levine 2017, arXiv 1703.03400).

    phi = theta - inner_lr * grad L_support(theta), `inner_steps` times; the outer loss is
    L_query(phi), differentiated through those steps (second order), or with the inner gradients
    taken as constants (`first_order`, the paper's section 5.2).

    net: any network whose outputs are the predictions; with batch statistics MAML is transductive,
        as published. eval_steps: inner steps when not training (the paper trains Omniglot with 1 and
        tests with 3); None for `inner_steps`. memory: "checkpoint" trades a second pass for the
        memory of one step, exactly.

    >>> import torch, quickstudy as qs
    >>> maml = MAML(qs.nets.MLP((1,), out=1), qs.Regression(), inner_steps=1, inner_lr=0.01)
    >>> support = qs.examples(torch.randn(4, 10, 1), torch.randn(4, 10, 1))
    >>> maml.predict(maml.adapt(support), torch.randn(4, 7, 1)).shape
    torch.Size([4, 7, 1])
    """

    papers = ("finn2017maml",)
    choose = (
        "A first method to try where a few gradient steps may change the whole network: new classes or functions "
        "that need features of their own. Needs gradients when it adapts."
    )
    cost = "a few gradient steps"
    net_output = "objective"

    def __init__(
        self,
        net: Net,
        objective: Objective,
        inner_steps: int = 5,
        inner_lr: float = 0.1,
        first_order: bool = False,
        eval_steps: int | None = None,
        memory: str = "store",
    ):
        super().__init__()
        self.net = net
        self.objective = objective
        self.inner_steps = inner_steps
        self.inner_lr = inner_lr
        self.first_order = first_order
        self.eval_steps = eval_steps
        self.memory = memory

    def start(self, support: Examples) -> State:
        return self.shared_start(support)
