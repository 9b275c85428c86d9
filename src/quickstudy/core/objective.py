"""What a prediction means: its loss and what is measured of it.

Losses come back per task, `(task,)`, lower is better. Rows of weight 0 never count.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from quickstudy.core.task import Examples

LOWEST = -1e4
"""The logit of a class that the support does not show, or less: its probability is exactly 0 in float32."""


def row_mean(values: Float[Tensor, "task n"], weight: Float[Tensor, "task n"]) -> Float[Tensor, " task"]:
    """The weighted mean over the rows of each task; 0 for a task without rows."""
    weight = weight.to(values.dtype)
    return (values * weight).sum(1) / weight.sum(1).clamp_min(1e-12)


class Objective(ABC):
    """How predictions are judged. `size` is the number of columns of a prediction."""

    kind: ClassVar[str]
    measures: ClassVar[dict[str, int]]
    """Name of each measure, the headline first: +1 if higher is better, -1 if lower is."""

    @property
    @abstractmethod
    def size(self) -> int: ...

    @abstractmethod
    def row_loss(self, prediction: Float[Tensor, "task n size"], y: Tensor) -> Float[Tensor, "task n"]:
        """The loss of every row."""

    @abstractmethod
    def measure(self, prediction: Float[Tensor, "task n size"], query: Examples) -> dict[str, Tensor]:
        """Every measure of `measures`, each `(task,)`."""

    def loss(self, prediction: Float[Tensor, "task n size"], query: Examples) -> Float[Tensor, " task"]:
        """The weighted mean loss over the rows of each task."""
        return row_mean(self.row_loss(prediction, query.y), query.weight)

    def score(self, prediction: Float[Tensor, "task n size"], query: Examples) -> Float[Tensor, " task"]:
        """The headline measure with the sign that makes higher better."""
        name, sign = next(iter(self.measures.items()))
        return sign * self.measure(prediction, query)[name]


class Classification(Objective):
    """Softmax cross-entropy over `way` classes; tasks may show fewer (variable way).

    loss = -log softmax(logits)[y]. Padding rows may carry any y in [0, way).

    >>> Classification(3).loss(torch.zeros(1, 2, 3), Examples(torch.zeros(1, 2, 1),
    ...     torch.tensor([[0, 1]]), torch.ones(1, 2))).item().__round__(4)
    1.0986
    """

    kind = "classification"
    measures = {"accuracy": 1, "log_likelihood": 1}

    def __init__(self, way: int):
        self.way = way

    @property
    def size(self) -> int:
        return self.way

    def one_hot(self, support: Examples) -> Float[Tensor, "task n way"]:
        """Labels as indicator columns, each row scaled by its weight."""
        return self.indicators(support.y).to(support.weight.dtype) * support.weight.unsqueeze(-1)

    def indicators(self, y: Int[Tensor, "task n"]) -> Bool[Tensor, "task n way"]:
        """Which class each label is; nothing here looks at a value, so that a step can be compiled."""
        return y.unsqueeze(-1) == torch.arange(self.way, device=y.device)

    def seen(self, support: Examples) -> Float[Tensor, "task way"]:
        """1 for every class that has weight in the support, else 0."""
        return (self.one_hot(support).sum(1) > 0).to(support.weight.dtype)

    def hide_unseen(
        self, logits: Float[Tensor, "task n way"], seen: Float[Tensor, "task way"]
    ) -> Float[Tensor, "task n way"]:
        """Give classes that the support does not show the lowest logit."""
        # logits of raw inputs can be far below any constant: go below those too
        lowest = (2 * logits.detach().amin(-1, keepdim=True)).clamp_max(LOWEST)
        return torch.where(seen.unsqueeze(1) == 0, lowest, logits)

    def row_loss(self, prediction: Float[Tensor, "task n way"], y: Int[Tensor, "task n"]) -> Float[Tensor, "task n"]:
        return -self._log_probability(prediction, y)

    @staticmethod
    def _log_probability(logits: Tensor, y: Tensor) -> Tensor:
        return F.log_softmax(logits, -1).gather(-1, y.unsqueeze(-1)).squeeze(-1)

    def measure(self, prediction: Float[Tensor, "task n way"], query: Examples) -> dict[str, Tensor]:
        right = (prediction.argmax(-1) == query.y).to(prediction.dtype)
        return {
            "accuracy": row_mean(right, query.weight),
            "log_likelihood": row_mean(self._log_probability(prediction, query.y), query.weight),
        }


class Regression(Objective):
    """Squared error, averaged over the `y_size` targets of a row.

    loss = mean_j (prediction_j - y_j)^2, in the square of the unit of y.
    """

    kind = "regression"
    measures = {"mse": -1}

    def __init__(self, y_size: int = 1):
        self.y_size = y_size

    @property
    def size(self) -> int:
        return self.y_size

    def row_loss(self, prediction: Float[Tensor, "task n size"], y: Tensor) -> Float[Tensor, "task n"]:
        return (prediction - y).square().mean(-1)

    def measure(self, prediction: Float[Tensor, "task n size"], query: Examples) -> dict[str, Tensor]:
        return {"mse": self.loss(prediction, query)}


class GaussianRegression(Objective):
    """Negative log likelihood of a Gaussian: the first half of a prediction is the mean,
    the second half the raw scale, with standard deviation `floor` + softplus(raw).

    loss = mean_j [ log s_j + (y_j - m_j)^2 / (2 s_j^2) + log(2 pi) / 2 ], in nats.
    """

    kind = "regression"
    measures = {"log_likelihood": 1, "mse": -1, "coverage_90": 1}

    def __init__(self, y_size: int = 1, floor: float = 1e-3):
        self.y_size = y_size
        self.floor = floor

    @property
    def size(self) -> int:
        return 2 * self.y_size

    def mean_and_deviation(self, prediction: Float[Tensor, "task n size"]) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each target, both (task, n, y_size)."""
        mean, raw = prediction.chunk(2, -1)
        return mean, self.floor + F.softplus(raw)

    def row_loss(self, prediction: Float[Tensor, "task n size"], y: Tensor) -> Float[Tensor, "task n"]:
        mean, deviation = self.mean_and_deviation(prediction)
        z = (y - mean) / deviation
        return (deviation.log() + 0.5 * z.square() + 0.5 * math.log(2 * math.pi)).mean(-1)

    def measure(self, prediction: Float[Tensor, "task n size"], query: Examples) -> dict[str, Tensor]:
        mean, deviation = self.mean_and_deviation(prediction)
        inside = ((query.y - mean).abs() <= 1.6448536 * deviation).to(mean.dtype).mean(-1)
        return {
            "log_likelihood": -self.loss(prediction, query),
            "mse": row_mean((mean - query.y).square().mean(-1), query.weight),
            "coverage_90": row_mean(inside, query.weight),
        }


def values_of(objective: Objective, prediction: Tensor) -> tuple[Tensor, Tensor | None]:
    """The values of a regression's predictions and, where it states them, their deviations; both (task, n, y_size)."""
    if isinstance(objective, GaussianRegression):
        return objective.mean_and_deviation(prediction)
    return prediction, None
