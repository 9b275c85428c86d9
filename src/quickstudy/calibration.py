"""Whether stated probabilities can be believed: reliability bins and their expected error."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from quickstudy.core.task import Examples

BINS = 15


@dataclass(frozen=True)
class Reliability:
    """Query rows in equal-width bins of confidence (k/n, (k+1)/n].

    weight: the summed weight of the rows in each bin.
    confidence, accuracy: their weighted means in each bin; 0 where a bin is empty.
    """

    weight: list[float]
    confidence: list[float]
    accuracy: list[float]

    @property
    def ece(self) -> float:
        """Expected calibration error (arXiv 1706.04599), NaN without rows.

        ece = sum_b weight_b / sum(weight) * |accuracy_b - confidence_b|

        >>> Reliability([3.0, 1.0], [0.4, 0.9], [0.5, 0.5]).ece.__round__(3)
        0.175
        """
        total = sum(self.weight)
        rows = zip(self.weight, self.confidence, self.accuracy, strict=True)
        return sum(w * abs(a - c) for w, c, a in rows) / total if total else math.nan


def bin_sums(logits: Float[Tensor, "task n way"], query: Examples, bins: int = BINS) -> Float[Tensor, "3 bins"]:
    """Summed weight, confidence and correctness of the query rows in each bin; add these over batches.

    A row's confidence is the probability of its most probable class. Rows of weight 0 never count.
    """
    confidence, label = logits.detach().double().softmax(-1).max(-1)
    weight = query.weight.double().flatten().cpu()
    real = weight > 0
    weight, confidence = weight[real], confidence.flatten().cpu()[real]
    right = (label == query.y).double().flatten().cpu()[real]
    index = (confidence * bins).ceil().long().sub(1).clamp(0, bins - 1)
    parts = (weight, weight * confidence, weight * right)
    return torch.stack([torch.bincount(index, part, minlength=bins) for part in parts])


def reliability(sums: Float[Tensor, "3 bins"]) -> Reliability:
    """The bins that summed `bin_sums` describe."""
    weight, confidence, accuracy = sums
    safe = torch.where(weight > 0, weight, 1.0)
    return Reliability(weight.tolist(), (confidence / safe).tolist(), (accuracy / safe).tolist())
