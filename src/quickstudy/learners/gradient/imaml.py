"""iMAML: MAML whose gradient is that of the inner problem's solution, not of the way there."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from quickstudy.core.errors import UserError
from quickstudy.core.objective import Objective
from quickstudy.core.task import Examples, State
from quickstudy.inner.descent import Loss, last
from quickstudy.inner.implicit import implicit, proximal_path
from quickstudy.inner.picked import tell
from quickstudy.learners.gradient.fine_tuning import FineTuning
from quickstudy.nets import Net


class IMAML(FineTuning):
    """Meta-learning with implicit gradients (Rajeswaran, Finn, Kakade, Levine 2019, arXiv 1909.04630).

    phi = argmin L_support(phi) + strength / 2 |phi - theta|^2, by `inner_steps` gradient steps from theta;
    the outer gradient is (I + H / strength)^-1 grad L_query(phi) with H the Hessian of L_support at phi, by
    `cg_steps` conjugate gradient steps. It does not see the way to phi: memory is flat in the inner steps.

    The gradient is the true derivative where the inner problem is solved, and an approximation before
    (`exact_gradient` is False). Steps settle if inner_lr * (strength + largest eigenvalue of H) < 2.
    `prior`: the pull is then towards the earlier weights. eval_steps: as in MAML.
    Departures: gradient steps alone, without the paper's Hessian-free inner solver; a task whose
    I + H / strength proves not positive definite ends its conjugate gradients there.

    >>> import quickstudy as qs
    >>> imaml = IMAML(qs.nets.MLP((1,), out=1), qs.Regression(), inner_lr=0.01)
    >>> support = qs.examples(torch.randn(4, 10, 1), torch.randn(4, 10, 1))
    >>> imaml.predict(imaml.adapt(support), torch.randn(4, 7, 1)).shape
    torch.Size([4, 7, 1])
    """

    papers = ("rajeswaran2019imaml",)
    choose = "As MAML with many inner steps: memory does not grow with them."
    cost = "many gradient steps"
    net_output = "objective"
    exact_gradient = False  # type: ignore[assignment]

    def __init__(
        self,
        net: Net,
        objective: Objective,
        inner_steps: int = 16,
        inner_lr: float = 0.1,
        strength: float = 2.0,
        cg_steps: int = 5,
        eval_steps: int | None = None,
    ):
        super().__init__()
        if not strength > 0:
            raise UserError(f"strength is {strength}: the pull towards the start needs a positive one.")
        if cg_steps < 1:
            raise UserError(f"cg_steps is {cg_steps}: give 1 or more.")
        self.net = net
        self.objective = objective
        self.inner_steps = inner_steps
        self.inner_lr = inner_lr
        self.strength = strength
        self.cg_steps = cg_steps
        self.eval_steps = eval_steps

    def start(self, support: Examples) -> State:
        return self.shared_start(support)

    def adapt(self, support: Examples, prior: State | None = None) -> State:
        loss, theta, extra = self._problem(support, prior)
        phi = last(proximal_path(loss, theta, support, self.strength, self.steps, self.inner_lr))
        return {**self._solved(self.steps, loss, phi, theta, support), **extra}

    def path(self, support: Examples, steps: int, prior: State | None = None) -> Iterator[State]:
        """The states after 0, 1, ..., `steps` inner steps, each with the gradient of a solution."""
        loss, theta, extra = self._problem(support, prior)
        way = proximal_path(loss, theta, support, self.strength, steps, self.inner_lr)
        for number, phi in enumerate(way):
            yield {**self._solved(number, loss, phi, theta, support), **extra}

    def _problem(self, support: Examples, prior: State | None) -> tuple[Loss, State, State]:
        """The inner loss, where the pull leads, and what the state holds beside weights."""
        theta, extra = self.begin(support, prior)
        return self.inner_loss(extra), theta, extra

    def _solved(self, steps: int, loss: Loss, phi: State, theta: State, support: Examples) -> State:
        if not steps and torch.is_grad_enabled():
            return theta  # no step was taken: this is no solution, and its derivative is the identity
        tell(f"inner steps: no graph, an implicit gradient by {self.cg_steps} conjugate gradient steps")
        return implicit(loss, phi, theta, support, self.strength, self.cg_steps)
