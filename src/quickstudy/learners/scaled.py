"""Tasks in units of their own: a learner that works in those of the support, around another one."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from quickstudy.core.errors import UserError
from quickstudy.core.learner import MetaLearner
from quickstudy.core.objective import GaussianRegression
from quickstudy.core.source import Scaling
from quickstudy.core.task import Examples, Inputs, State, Task
from quickstudy.inner.posterior import gaussian_prediction
from quickstudy.inner.scale import Scale


def _of_the_inner(name: str) -> Any:
    return property(lambda self: getattr(self.learner, name))


class Scaled(MetaLearner):
    """Standardises every task by its own support, lets `learner` learn and predict, and turns predictions back.

    m, s = mean and deviation of the support's rows (by weight) and of `rows` pseudo-rows that have the given mean and
    deviation (x_mean, x_deviation, y_mean, y_deviation, from the training tasks), for every entry of x and of y:

        m = m0 + a (m1 - m0),   s^2 = (1 - a) s0^2 + a s1^2 + a (1 - a) (m1 - m0)^2,   a = w / (w + rows)

    with m1, s1 of the support and w its weight. rows = 0: the support alone; inf: the same m, s in all tasks. An entry
    that does not vary is divided by the given deviation. relative: entries of x that are taken from their mean in the
    support, in units of the given deviation: times, of which only the distance matters. Without x_mean, x stays as it
    is; labels of classes always do. A learner that is trained on pooled rows is given m0, s0 alone.

    The state is the inner learner's, and m, s beside it under names that begin with "scaled."; a `prior` keeps its
    scale, so that adapting bit by bit is not adapting at once. Predictions are in the units of y, with no floor under
    their deviation but the inner objective's (in standard units). `meta_loss` is the inner learner's loss in standard
    units, which is well conditioned whatever the units of y, and weighs tasks of large and small values alike.
    """

    choose = "Values in units of their own, whose level and spread change from task to task: put around a learner."
    kinds = _of_the_inner("kinds")
    any_way = _of_the_inner("any_way")
    pooled = _of_the_inner("pooled")
    trained = _of_the_inner("trained")
    descends = _of_the_inner("descends")
    exchangeable = _of_the_inner("exchangeable")
    exact_gradient = _of_the_inner("exact_gradient")
    transductive = _of_the_inner("transductive")
    says_deviation = _of_the_inner("says_deviation")
    cost = _of_the_inner("cost")
    net = _of_the_inner("net")
    x_shape = _of_the_inner("x_shape")

    def __init__(
        self,
        learner: MetaLearner,
        x_mean: tuple[float, ...] = (),
        x_deviation: tuple[float, ...] = (),
        y_mean: tuple[float, ...] = (),
        y_deviation: tuple[float, ...] = (),
        rows: float = 10.0,
        relative: tuple[int, ...] = (),
    ):
        super().__init__()
        if len(x_mean) != len(x_deviation) or len(y_mean) != len(y_deviation):
            raise UserError("Scaled needs a deviation for every mean: give as many of one as of the other.")
        if not all(math.isfinite(v) and v > 0 for v in (*x_deviation, *y_deviation)):
            raise UserError("Scaled divides by its deviations: give positive ones.")
        if not rows >= 0:
            raise UserError(f"rows is {rows}: give for how many rows of a task the given scale counts, 0 or more.")
        self.learner = learner
        self.x_mean, self.x_deviation = x_mean, x_deviation
        self.y_mean, self.y_deviation = y_mean, y_deviation
        self.rows = rows
        self.relative = relative
        self.objective = learner.objective
        if isinstance(learner.objective, GaussianRegression) and y_mean:
            # the floor under a deviation is in standard units: outside there is none
            self.objective = GaussianRegression(learner.objective.y_size, 0.0)

    @property
    def given(self) -> Scaling:
        """What the training tasks say of the scale."""
        return Scaling(self.x_mean, self.x_deviation, self.y_mean, self.y_deviation, self.rows, self.relative)

    def scale(self, support: Examples) -> Scale:
        """The scale of every task."""
        return Scale.of(support, self.given, fixed=self.pooled)

    def adapt(self, support: Examples, prior: State | None = None) -> State:
        scale, before = (self.scale(support), None) if prior is None else Scale.found(prior)
        return {**self.learner.adapt(scale.standard(support), before), **scale.kept()}

    def predict(self, state: State, x: Inputs, weight: Tensor | None = None) -> Tensor:
        scale, inside = Scale.found(state)
        out, inner = self.learner.predict(inside, scale.standard_x(x), weight), self.learner.objective
        if not self.y_mean or inner.kind != "regression":
            return out
        if not (isinstance(self.objective, GaussianRegression) and isinstance(inner, GaussianRegression)):
            return scale.y_mean + scale.y_deviation * out
        mean, deviation = inner.mean_and_deviation(out)
        mean, deviation = scale.y_mean + scale.y_deviation * mean, scale.y_deviation * deviation
        return gaussian_prediction(self.objective, mean, deviation)

    def meta_loss(self, tasks: Task) -> Tensor:
        """The inner learner's loss of each task, (task,), in the standard units of that task."""
        scale = self.scale(tasks.support)
        return self.learner.meta_loss(Task(scale.standard(tasks.support), scale.standard(tasks.query)))

    def for_way(self, way: int) -> MetaLearner:
        inner = self.learner.for_way(way)
        return self if inner is self.learner else Scaled(inner, *self.given).train(self.training)
