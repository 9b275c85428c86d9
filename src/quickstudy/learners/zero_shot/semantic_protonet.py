"""Semantic prototypical network: a description becomes the class's prototype."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from quickstudy.core.learner import MetaLearner
from quickstudy.core.objective import Classification
from quickstudy.core.task import Examples, Inputs, State
from quickstudy.inner.apply import apply_shared
from quickstudy.inner.closed import class_state, prototypes, squared_distances
from quickstudy.nets import MLP, Net
from quickstudy.nets.projection import unchanged


class SemanticProtoNet(MetaLearner):
    """Prototypical network for zero-shot tasks (Snell, Swersky, Zemel 2017, arXiv 1703.05175, section 2.7).

    c_k = g(v_k) / |g(v_k)| for the description v_k of class k; logit_k(x) = -|f(x) - c_k|^2.

    f is `net`, g a linear map (`depth` hidden layers of `width` before it) of the flattened description, (a,) -> (d,).
    As in the paper the prototypes have unit length and the features have not; `unit=False` leaves both as they are.
    Departures: f is a network of the tasks' own; the paper's is linear on features trained elsewhere (MLP of depth 0).
    A linear g with as many outputs as inputs starts as no change: of sentences encoded as their classes' descriptions
    are, the nearest description is then where training begins.

    Several descriptions of a class: c_k is the mean of g over them, before it is scaled. `prior`: classes and
    descriptions are added to those of the earlier state, exactly.

    >>> import torch, quickstudy as qs
    >>> learner = SemanticProtoNet(qs.nets.MLP((4,)), qs.Classification(3), description_shape=(7,))
    >>> descriptions = qs.examples(torch.randn(1, 3, 7), torch.tensor([[0, 1, 2]]))
    >>> learner.predict(learner.adapt(descriptions), torch.randn(1, 5, 4)).shape
    torch.Size([1, 5, 3])
    """

    papers = ("snell2017prototypical",)
    choose = "The first zero-shot method to try: features of any network, any number of classes, one description each."
    cost = "one pass"
    kinds = ("zero-shot",)
    objective: Classification
    any_way = True
    incremental = True

    def __init__(
        self,
        net: Net,
        objective: Classification,
        description_shape: tuple[int, ...],
        unit: bool = True,
        depth: int = 0,
        width: int = 128,
    ):
        super().__init__()
        self.net = net
        self.objective = objective
        self.description_shape = description_shape
        self.unit = unit
        self.depth = depth
        self.width = width
        self.describe = MLP(description_shape, out=net.size, width=width, depth=depth)
        if depth == 0:
            unchanged(**dict(self.describe.layers[0].named_parameters()))

    def adapt(self, support: Examples, prior: State | None = None) -> State:
        return class_state(apply_shared(self.describe, support.x), self.objective.one_hot(support), prior)

    def predict(self, state: State, x: Inputs, weight: Tensor | None = None) -> Tensor:
        centres = prototypes(state["sums"], state["counts"])
        if self.unit:
            centres = F.normalize(centres, dim=-1)
        logits = -squared_distances(apply_shared(self.net, x, weight), centres)
        return self.objective.hide_unseen(logits, state["counts"])
