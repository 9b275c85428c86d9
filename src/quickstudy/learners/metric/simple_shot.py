"""SimpleShot: the nearest class mean on features of an ordinary classifier."""

from __future__ import annotations

from torch import Tensor

from quickstudy.core.objective import Classification
from quickstudy.core.task import Examples, Inputs, State
from quickstudy.inner.closed import class_state, prototypes, squared_distances
from quickstudy.learners.metric.pretrained import Pretrained
from quickstudy.nets import Net


class SimpleShot(Pretrained):
    """SimpleShot (Wang, Chao, Weinberger, van der Maaten 2019, arXiv 1911.04623).

    A network is trained to tell all training classes apart, and on a task the nearest class mean answers:
    logit_k(x) = -|z(x) - c_k|^2 with c_k the mean of z over class k of the support, and z the features as they are
    (transform "none"), of unit length ("l2n"), or centred on the mean feature of the training rows first ("cl2n").

    The state holds the sum and the weight of each class, so more examples can be added exactly (`prior`).
    Departures: the mean feature is a running average over the last training steps, where the paper passes the
    training split through the finished network; before any training it is 0.

    classes: how many classes the train split holds; 0 for as many as a task has.

    >>> import torch, quickstudy as qs
    >>> simple = SimpleShot(qs.nets.MLP((4,)), qs.Classification(3), classes=20)
    >>> support = qs.examples(torch.randn(1, 6, 4), torch.tensor([[0, 0, 1, 1, 2, 2]]))
    >>> simple.predict(simple.adapt(support), torch.randn(1, 5, 4)).shape
    torch.Size([1, 5, 3])
    """

    papers = ("wang2019simpleshot",)
    choose = (
        "An ordinary classifier of many classes is at hand or quickly trained: no episodes, no gradients on a task, "
        "and a baseline that is hard to beat."
    )
    cost = "one pass"

    def __init__(self, net: Net, objective: Classification, classes: int = 0, transform: str = "cl2n"):
        super().__init__()
        self.build(net, objective, classes, transform)

    def adapt(self, support: Examples, prior: State | None = None) -> State:
        features = self.features(support.x, support.weight)
        return class_state(features, self.objective.one_hot(support), prior)

    def predict(self, state: State, x: Inputs, weight: Tensor | None = None) -> Tensor:
        centres = prototypes(state["sums"], state["counts"])
        logits = -squared_distances(self.features(x, weight), centres)
        return self.objective.hide_unseen(logits, state["counts"])
