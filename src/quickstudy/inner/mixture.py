"""Predictions that average over draws: draws that are always the same, and one Gaussian for a mixture of them."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from quickstudy.core.objective import GaussianRegression
from quickstudy.core.source import generator


def fixed_normal(draws: int, size: int, like: Tensor) -> Float[Tensor, "draws size"]:
    """Standard normal draws in pairs z, -z, the same at every call; for 0 draws their mean, one row of zeros.

    >>> bool(fixed_normal(4, 3, torch.zeros(())).sum(0).abs().max() < 1e-6)
    True
    """
    half = torch.randn((draws + 1) // 2, size, generator=generator("fixed draws"), dtype=torch.float64)
    both = torch.cat([half, -half])[:draws] if draws else half.new_zeros(1, size)
    return both.to(like)


def mixed(
    objective: GaussianRegression, predictions: Float[Tensor, "task draws n size"]
) -> Float[Tensor, "task n size"]:
    """The Gaussian with the mean and the variance of an equal mixture of Gaussian predictions.

    m = mean_k m_k; s^2 = mean_k s_k^2 + variance_k m_k, never below the floor of the objective.
    """
    means, deviations = objective.mean_and_deviation(predictions)
    mean = means.mean(1)
    variance = deviations.square().mean(1) + (means - mean.unsqueeze(1)).square().mean(1)
    above = (variance.sqrt() - objective.floor).clamp_min(1e-6)
    # the inverse of softplus, log(e^a - 1), without the overflow
    return torch.cat([mean, above + torch.log(-torch.expm1(-above))], -1)
