"""Methods whose features come from telling all training classes apart: what they share."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.core.errors import UserError
from quickstudy.core.learner import MetaLearner, unless_batch_statistics
from quickstudy.core.objective import Classification
from quickstudy.core.task import Examples, Inputs, State, Task
from quickstudy.inner.apply import apply_shared
from quickstudy.inner.linear import class_loss
from quickstudy.inner.neighbours import kept_rows
from quickstudy.nets import Net
from quickstudy.nets.norm import RunningMean

TRANSFORMS = ("none", "l2n", "cl2n")


class Pretrained(MetaLearner):
    """A network and a last layer, trained by cross-entropy over all classes of the training split at once; on a task
    the features are taken as they are, or scaled to unit length ("l2n"), or centred first ("cl2n"):

        f,   f / |f|,   (f - m) / |f - m|   with m the mean feature of the training rows.

    m is a running average over the last steps, as the running statistics of a batch norm are. The state holds the
    support's features and labels, so that more examples can be added exactly (`prior`).

    classes: how many classes the train split holds; 0 for as many as a task has.
    """

    kinds = ("classification",)
    incremental = unless_batch_statistics
    any_way = True
    pooled = True
    net: Net
    objective: Classification
    transform: str = "l2n"

    def build(self, net: Net, objective: Classification, classes: int, transform: str = "l2n") -> None:
        """Store the arguments and make the last layer."""
        if classes < 0:
            raise UserError(f"classes is {classes}: give the number of classes to train on.")
        if transform not in TRANSFORMS:
            raise UserError(f"transform is {transform!r}: it is one of {', '.join(TRANSFORMS)}.")
        self.net = net
        self.objective = objective
        self.classes = classes
        self.transform = transform
        self.head = nn.Linear(net.size, classes or objective.way)
        if transform == "cl2n":
            self.centre = RunningMean(net.size)

    def features(self, x: Inputs, weight: Tensor | None) -> Tensor:
        """The transformed features (task, n, d)."""
        f = apply_shared(self.net, x, weight)
        if self.transform == "cl2n":
            f = f - self.centre.mean
        return f if self.transform == "none" else F.normalize(f, dim=-1)

    def adapt(self, support: Examples, prior: State | None = None) -> State:
        return kept_rows(self.features(support.x, support.weight), self.objective.one_hot(support), prior)

    def training_logits(self, features: Tensor) -> Tensor:
        """(task, n, classes) for the network's features."""
        return self.head(features)

    def meta_loss(self, tasks: Task) -> Tensor:
        """The loss of telling all training classes apart: `tasks.query` holds pooled rows."""
        query = tasks.query
        f = apply_shared(self.net, query.x, query.weight)
        if self.transform == "cl2n":
            self.centre.see(f, query.weight)
        return class_loss(self.training_logits(f), query)
