"""BD-CSPN: class means by cosine, moved towards the queries that look like them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from quickstudy.core.errors import UserError
from quickstudy.core.objective import Classification
from quickstudy.core.task import Inputs, State
from quickstudy.inner.neighbours import cosines, real_rows
from quickstudy.inner.rectified import rectified, shifted
from quickstudy.learners.metric.pretrained import Pretrained
from quickstudy.nets import Net


class BDCSPN(Pretrained):
    """Bias-diminishing cosine-similarity prototypical network (Liu, Song, Qin 2020, arXiv 1911.10713).

    With z = f / |f|, P_k the mean of z over class k of the support:
        queries move by xi = mean of z over the support - mean of z over the queries (`shift`);
        each class takes the `pseudo` queries that are surest to be its own, and becomes
        P'_k = sum_i w_ik z_i over its support and those, w_ik proportional to exp(sharpness cos(z_i, P_k));
        logit_k(x) = temperature cos(z, P'_k).

    Predictions look at the other queries (transductive). Trained as in the paper, before any task: a network that tells
    all training classes apart by cosines, with a learnt temperature. With no `pseudo`, no `shift` and sharpness 0 this
    is the nearest mean by cosine.

    The state holds the support's features and labels, so more examples can be added exactly (`prior`). classes: how
    many classes the train split holds; 0 for as many as a task has.
    """

    papers = ("liu2020rectification",)
    choose = (
        "One or few examples a class and many queries at once: the means move to where the queries lie. Cheap, and "
        "safer than spreading labels further; not for queries that come one by one."
    )
    cost = "one pass and a closed form"
    transductive = True  # type: ignore[assignment]

    def __init__(
        self,
        net: Net,
        objective: Classification,
        classes: int = 0,
        pseudo: int = 8,
        sharpness: float = 10.0,
        shift: bool = True,
        temperature: float = 10.0,
    ):
        super().__init__()
        if pseudo < 0 or sharpness < 0 or not temperature > 0:
            raise UserError(
                f"pseudo is {pseudo}, sharpness {sharpness} and temperature {temperature}: give counts and sharpness "
                "from 0, a positive temperature."
            )
        self.build(net, objective, classes)
        self.pseudo = pseudo
        self.sharpness = sharpness
        self.shift = shift
        self.temperature = temperature
        self.scale = nn.Parameter(torch.tensor(float(temperature)))

    def training_logits(self, features: Tensor) -> Tensor:
        return self.scale * cosines(features, self.head.weight)

    def predict(self, state: State, x: Inputs, weight: Tensor | None = None) -> Tensor:
        rows, one_hot, asked = state["rows"], state["one_hot"], self.features(x, weight)
        real = real_rows(asked, weight)
        if self.shift:
            asked = shifted(rows, one_hot.sum(-1), asked, real)
        centres = rectified(rows, one_hot, asked, real, self.pseudo, self.sharpness, self.scale)
        return self.objective.hide_unseen(self.scale * cosines(asked, centres), one_hot.sum(1))
