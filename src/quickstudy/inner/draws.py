"""Draws that are always the same, for predictions that average over them."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from quickstudy.core.source import generator


def fixed_normal(draws: int, size: int, like: Tensor) -> Float[Tensor, "draws size"]:
    """Standard normal draws in pairs z, -z, the same at every call; for 0 draws their mean, one row of zeros.

    >>> bool(fixed_normal(4, 3, torch.zeros(())).sum(0).abs().max() < 1e-6)
    True
    """
    half = torch.randn((draws + 1) // 2, size, generator=generator("fixed draws"), dtype=torch.float64)
    both = torch.cat([half, -half])[:draws] if draws else half.new_zeros(1, size)
    return both.to(like)
