"""Nearest description: a row is of the class whose description looks most like it."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional as F

from quickstudy.core.errors import UserError
from quickstudy.core.learner import MetaLearner
from quickstudy.core.objective import Classification
from quickstudy.core.source import Spec
from quickstudy.core.task import Examples, Inputs, State
from quickstudy.inner.bilinear import description_sums
from quickstudy.inner.closed import prototypes


class NearestDescription(MetaLearner):
    """The class whose description has the smallest angle to the row: logit_k(x) = scale * cos(x, v_k), both flattened
    (dataless classification: Chang, Ratinov, Roth, Srikumar, AAAI 2008).

    Nothing is learnt, so rows and descriptions have to be of one space: sentences and the names of their classes, both
    encoded in the same way. `scale` turns cosines into logits and says nothing of which class is first.
    Departure: any vectors, where the paper's are of explicit semantic analysis.

    Several descriptions of a class: v_k is their mean. `prior`: classes and descriptions are added to those of the
    earlier state, exactly. A row or a description of zeros is at a right angle to everything.

    Raises UserError where rows and descriptions are of different shapes.

    >>> import torch, quickstudy as qs
    >>> learner = NearestDescription(qs.Classification(2), x_shape=(2,), description_shape=(2,))
    >>> descriptions = qs.examples(torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]), torch.tensor([[0, 1]]))
    >>> learner.predict(learner.adapt(descriptions), torch.tensor([[[3.0, 4.0]]])).round()
    tensor([[[6., 8.]]])
    """

    papers = ("chang2008dataless",)
    choose = "Zero-shot without training, where rows and descriptions are encoded alike: what training has to beat."
    cost = "one pass"
    kinds = ("zero-shot",)
    objective: Classification
    any_way = True
    trained = False
    incremental = True

    def __init__(
        self,
        objective: Classification,
        x_shape: tuple[int, ...],
        description_shape: tuple[int, ...],
        scale: float = 10.0,
    ):
        super().__init__()
        if tuple(x_shape) != tuple(description_shape):
            raise UserError(
                f"nearest_description compares rows with descriptions as they are, and rows are of shape "
                f"{tuple(x_shape)}, descriptions of {tuple(description_shape)}: encode both alike, or train "
                "semantic_protonet."
            )
        if not 0 < scale < math.inf:
            raise UserError(f"scale is {scale}: cosines become logits times a positive number.")
        self.objective = objective
        self.x_shape = x_shape
        self.description_shape = description_shape
        self.scale = scale

    @classmethod
    def fits(cls, spec: Spec) -> bool:
        return super().fits(spec) and tuple(spec.x_shape) == tuple(spec.description_shape)

    def adapt(self, support: Examples, prior: State | None = None) -> State:
        return description_sums(self.objective, support, prior)

    def predict(self, state: State, x: Inputs, weight: Tensor | None = None) -> Tensor:
        assert isinstance(x, Tensor)
        towards = F.normalize(prototypes(state["sums"], state["counts"]), dim=-1)
        logits = self.scale * F.normalize(x.flatten(2), dim=-1) @ towards.transpose(1, 2)
        return self.objective.hide_unseen(logits, state["counts"])
