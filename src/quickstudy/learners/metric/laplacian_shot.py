"""LaplacianShot: the nearest class mean, where queries that lie close together want the same label."""

from __future__ import annotations

import torch
from torch import Tensor

from quickstudy.core.errors import UserError
from quickstudy.core.objective import Classification
from quickstudy.core.task import Inputs, State
from quickstudy.inner.closed import class_sums, prototypes, squared_distances
from quickstudy.inner.neighbours import nearest, real_rows
from quickstudy.inner.rectified import rectified, shifted
from quickstudy.learners.metric.pretrained import Pretrained
from quickstudy.nets import Net

SHARPNESS = 10.0
"""How much more a row counts in a rectified mean as it is more alike."""


class LaplacianShot(Pretrained):
    """LaplacianShot (Ziko, Dolz, Granger, Ben Ayed 2020, arXiv 2006.15486).

    Labels y_i of the queries, each a distribution over classes, that make

        sum_i y_i . a_i + strength / 2 sum_ij w_ij |y_i - y_j|^2,    a_ik = |z_i - c_k|^2

    small, with c_k the class means of the support and w_ij = 1 where j is among the `neighbours` nearest queries of i.
    From y_i = softmax(-a_i), `steps` bound updates:  y_i = softmax(-a_i + strength sum_j w_ij y_j);  what is inside
    the last one are the logits. With strength 0 this is the nearest mean.

    `rectify`: as in the authors' code, queries first move by mean(support) - mean(queries), and the means take in the
    queries that look like them; here in the way of BD-CSPN, with all queries. Features are those of SimpleShot, in
    training and in what is made of them (`transform`). Predictions look at the other queries (transductive).

    The state holds the support's features and labels, so more examples can be added exactly (`prior`). Departures:
    `strength` is given, where the paper picks it on validation tasks; a fixed number of steps; no label smoothing.
    classes: how many classes the train split holds; 0 for as many as a task has.
    """

    papers = ("ziko2020laplacianshot", "liu2020rectification")
    choose = (
        "As SimpleShot where many queries are asked at once and classes form clusters: cheap, and it does not assume "
        "as many queries of each class if `rectify` is off."
    )
    cost = "one pass and 20 closed-form updates"
    transductive = True  # type: ignore[assignment]

    def __init__(
        self,
        net: Net,
        objective: Classification,
        classes: int = 0,
        strength: float = 0.7,
        neighbours: int = 3,
        steps: int = 20,
        rectify: bool = True,
        transform: str = "cl2n",
    ):
        super().__init__()
        if not strength >= 0 or neighbours < 1 or steps < 1:
            raise UserError(
                f"strength is {strength}, neighbours {neighbours} and steps {steps}: give a strength from 0, at least "
                "1 neighbour and 1 step."
            )
        self.build(net, objective, classes, transform)
        self.strength = strength
        self.neighbours = neighbours
        self.steps = steps
        self.rectify = rectify

    def predict(self, state: State, x: Inputs, weight: Tensor | None = None) -> Tensor:
        rows, one_hot, asked = state["rows"], state["one_hot"], self.features(x, weight)
        real, seen = real_rows(asked, weight), one_hot.sum(1)
        if self.rectify:
            asked = shifted(rows, one_hot.sum(-1), asked, real)
            centres = rectified(rows, one_hot, asked, real, asked.shape[1], SHARPNESS, SHARPNESS)
        else:
            centres = prototypes(*class_sums(rows, one_hot))
        others = ~torch.eye(asked.shape[1], dtype=torch.bool, device=asked.device)
        near = nearest(squared_distances(asked, asked), real.unsqueeze(1) & others, self.neighbours)
        pull = self.strength * near.to(asked.dtype)
        alone = self.objective.hide_unseen(-squared_distances(asked, centres), seen)
        logits = alone
        for _ in range(self.steps):
            logits = alone + pull @ logits.softmax(-1)
        return logits
