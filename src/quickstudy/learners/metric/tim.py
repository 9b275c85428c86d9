"""TIM: class means moved until the queries' labels are sure, and evenly spread."""

from __future__ import annotations

from torch import Tensor

from quickstudy.core.errors import UserError
from quickstudy.core.objective import Classification
from quickstudy.core.task import Inputs, State
from quickstudy.inner.closed import class_sums, prototypes, squared_distances
from quickstudy.inner.neighbours import real_rows
from quickstudy.learners.metric.pretrained import Pretrained
from quickstudy.nets import Net


class TIM(Pretrained):
    """Transductive information maximisation, by alternating closed forms (Boudiaf et al. 2020, arXiv 2008.11297).

    With z = f / |f| and p_ik = softmax_k (-temperature / 2 |z_i - w_k|^2), class weights w_k are sought that make

        strength CE(support) - H(mean of p over the queries) + alpha mean of H(p_i) over the queries

    small: queries are labelled surely, and evenly. From the means of the support, `steps` times (TIM-ADM, section 2.3):

        q_ik proportional to p_ik^(1 + alpha) / (sum_i p_ik^(1 + alpha))^1/2
        w_k = (a sum_S (y_ik z_i + p_ik (w_k - z_i)) + b sum_Q (q_ik z_i + p_ik (w_k - z_i)))
              / (a sum_S y_ik + b sum_Q q_ik),    a = strength / (1 + alpha),  b = |S| / |Q|

    and the logits are -temperature / 2 |z - w_k|^2. Predictions look at the other queries (transductive). Trained as in
    the paper, before any task: a network that tells all training classes apart. With 0 steps this is the nearest mean.

    The state holds the support's features and labels, so more examples can be added exactly (`prior`). Departures: no
    label smoothing in training; TIM-GD, gradient descent on the same sum, is left out. classes: how many classes
    the train split holds; 0 for as many as a task has.
    """

    papers = ("boudiaf2020tim",)
    choose = (
        "Many queries at once, about as many of each class: among the most accurate where that holds, and misled "
        "where it does not, since it spreads labels evenly."
    )
    cost = "one pass and 150 closed-form updates"
    transductive = True  # type: ignore[assignment]

    def __init__(
        self,
        net: Net,
        objective: Classification,
        classes: int = 0,
        steps: int = 150,
        strength: float = 0.1,
        alpha: float = 0.1,
        temperature: float = 15.0,
    ):
        super().__init__()
        if steps < 0 or alpha < 0 or not (strength > 0 and temperature > 0):
            raise UserError(
                f"steps is {steps}, alpha {alpha}, strength {strength} and temperature {temperature}: give steps and "
                "alpha from 0, a positive strength and temperature."
            )
        self.build(net, objective, classes)
        self.steps = steps
        self.strength = strength
        self.alpha = alpha
        self.temperature = temperature

    def predict(self, state: State, x: Inputs, weight: Tensor | None = None) -> Tensor:
        asked, seen = self.features(x, weight), state["one_hot"].sum(1)
        real = real_rows(asked, weight).to(asked.dtype).unsqueeze(-1)
        centres = prototypes(*class_sums(state["rows"], state["one_hot"]))
        for _ in range(self.steps):
            centres = self._moved(centres, state, asked, real)
        return self._logits(asked, centres, seen)

    def _logits(self, z: Tensor, centres: Tensor, seen: Tensor) -> Tensor:
        return self.objective.hide_unseen(-self.temperature / 2 * squared_distances(z, centres), seen)

    def _moved(self, centres: Tensor, state: State, asked: Tensor, real: Tensor) -> Tensor:
        """The class weights (task, way, d) after one round; real: (task, m, 1), 0 for padding."""
        rows, y = state["rows"], state["one_hot"]
        share, seen = y.sum(-1, keepdim=True), y.sum(1)
        p_rows, p = (self._logits(z, centres, seen).softmax(-1) * w for z, w in ((rows, share), (asked, real)))
        power = p ** (1 + self.alpha)
        q = power / power.sum(1, keepdim=True).clamp_min(1e-12).sqrt()
        q = q / q.sum(-1, keepdim=True).clamp_min(1e-12)
        a = self.strength / (1 + self.alpha)
        b = (share.sum(1) / real.sum(1).clamp_min(1)).unsqueeze(-1)
        sums, counts = 0.0, 0.0
        for scale, z, label, said in ((a, rows, y, p_rows), (b, asked, q, p)):
            found, mass = class_sums(z, label - said)
            sums = sums + scale * (found + said.sum(1).unsqueeze(-1) * centres)
            counts = counts + scale * (mass + said.sum(1)).unsqueeze(-1)
        return prototypes(sums, counts.squeeze(-1))  # type: ignore[union-attr]
