"""The contract: every method, of every paradigm, is these two verbs."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar, Protocol, runtime_checkable

from torch import Tensor, nn

from quickstudy.core.errors import UserError
from quickstudy.core.objective import Classification, GaussianRegression, Objective
from quickstudy.core.source import Spec
from quickstudy.core.task import Examples, Inputs, State, Task


class MetaLearner(nn.Module, ABC):
    """A method that learns to learn. Its parameters are the meta-parameters.

    Three laws, each checked by `quickstudy.testing.check_learner`:

    1. `adapt` and `predict` change nothing: no parameter, buffer or attribute.
    2. A state is a dict of named tensors, task axis first: it can be saved, sliced and sent.
    3. Tasks never mix: a batch of tasks gives what the tasks give one by one.
    """

    net_output: ClassVar[str] = "features"
    """What its `net` ends in: "features", or "objective" for one column per prediction."""
    net_norm: ClassVar[str] = "running"
    """The statistics that `make` gives its convolutional network, unless told otherwise."""
    kinds: ClassVar[tuple[str, ...]] = ("classification", "regression")
    """The kinds of task it can take."""
    papers: ClassVar[tuple[str, ...]] = ()
    """Keys of what to cite, in the `references.bib` of its family."""
    choose: ClassVar[str] = ""
    """When to choose it, in a sentence or two for someone who does not know the paper."""
    cost: ClassVar[str] = ""
    """What adapting to a task takes, in a few words: "one pass", "5 gradient steps", "a closed form"."""
    objective: Objective
    """What a prediction means: its loss and its measures."""
    any_way: ClassVar[bool] = False
    """No weight depends on the number of classes: may be used with any way."""
    pooled: ClassVar[bool] = False
    """Trained on rows of all training tasks thrown together, not on tasks (baselines)."""
    says_deviation: ClassVar[bool] = False
    """Real values are answered with how sure it is: by default its objective is a Gaussian's likelihood."""
    trained: ClassVar[bool] = True
    """False for baselines without meta-parameters: there is nothing to train."""
    incremental: ClassVar[bool] = False
    """adapt(b, prior=adapt(a)) equals adapt(a and b together)."""
    descends: ClassVar[bool] | bool = False
    """Adapting or predicting takes gradients: it needs autograd, where others need a forward pass alone."""
    exchangeable: ClassVar[bool] = True
    """The order of the support rows does not matter."""
    exact_gradient: ClassVar[bool] | bool = True
    """The meta-gradient is the true derivative of the loss after adaptation."""

    @property
    def batch_statistics(self) -> bool:
        """Whether the rows at hand decide the statistics of a norm: features depend on which rows came together."""
        return any(getattr(m, "uses_batch_statistics", False) for m in self.modules())

    @property
    def transductive(self) -> bool:
        """Predictions may look at the other queries of the task."""
        return self.batch_statistics

    @property
    def chunk(self) -> int | None:
        """How many tasks one graph should hold when training; None for no limit."""
        limits = [getattr(m, "chunk", None) for m in self.children()]
        return min((limit for limit in limits if isinstance(limit, int)), default=None)

    @abstractmethod
    def adapt(self, support: Examples, prior: State | None = None) -> State:
        """What is learnt from the support, starting from `prior` (an earlier state) if given."""

    @abstractmethod
    def predict(self, state: State, x: Inputs, weight: Tensor | None = None) -> Tensor:
        """Predictions (task, n, objective.size) for the rows `x` of each task.

        weight: (task, n), 0 for padding. Only transductive learners need it, to keep padding out of
        what the rows say together.
        """

    def meta_loss(self, tasks: Task) -> Tensor:
        """The loss of each task, (task,), on its query after adapting to its support."""
        state = self.adapt(tasks.support)
        return self.objective.loss(self.predict(state, tasks.query.x, tasks.query.weight), tasks.query)

    def forward(self, tasks: Task) -> Tensor:
        """The scalar that the outer loop minimises: the mean over tasks of `meta_loss`."""
        return self.meta_loss(tasks).mean()

    @classmethod
    def fits(cls, spec: Spec) -> bool:
        """Whether it can take such tasks."""
        return spec.kind in cls.kinds

    @classmethod
    def objective_for(cls, spec: Spec) -> Objective:
        """The objective that suits this method on such tasks."""
        if cls.says_deviation and spec.kind == "regression":
            # a noise floor keeps the likelihood of noiseless functions bounded
            return GaussianRegression(spec.y_size, floor=0.01)
        return spec.objective()

    def for_way(self, way: int) -> MetaLearner:
        """This learner for tasks of `way` classes, sharing its weights.

        Raises UserError where the weights fix the number of classes.
        """
        objective = self.objective
        if not isinstance(objective, Classification) or objective.way == way:
            return self
        if not self.any_way and way > objective.way:
            raise UserError(
                f"{type(self).__name__} was built for at most {objective.way} classes and was given {way}: "
                f"train one with --tasks.way {way}, or use a learner that takes any way (protonet, r2d2)."
            )
        if not self.any_way:
            return self
        other = copy.copy(self)
        other.objective = Classification(way)
        return other


unless_batch_statistics: Any = property(lambda learner: not learner.batch_statistics)
"""`incremental` of a learner that keeps sums, or rows, of features: unless these depend on which came together."""


@runtime_checkable
class Stepwise(Protocol):
    """A learner that adapts in steps and can show the way there."""

    def path(self, support: Examples, steps: int) -> Iterator[State]:
        """The states after 0, 1, ..., `steps` inner steps."""
        ...
