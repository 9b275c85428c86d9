"""Covariances of Gaussian processes as modules: k(a, b) for rows a and b of many tasks, with learnt scales."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from quickstudy.inner.closed import squared_distances

MIXTURES = 4
"""Components of the spectral mixture."""


class Kernel(nn.Module, ABC):
    """k(a, b), (task, n, m), for rows a (task, n, d) and b (task, m, d); `log_variance` scales it."""

    def __init__(self, size: int):
        super().__init__()
        self.log_variance = nn.Parameter(torch.zeros(()))

    @abstractmethod
    def forward(self, a: Float[Tensor, "task n d"], b: Float[Tensor, "task m d"]) -> Float[Tensor, "task n m"]: ...

    def own(self, a: Float[Tensor, "task n d"]) -> Float[Tensor, "task n"]:
        """k(a_i, a_i), the variance before anything was seen."""
        return self.log_variance.exp().expand(a.shape[:2])


class RBF(Kernel):
    """v exp(-|a - b|^2 / (2 s^2)); s starts at sqrt(d), the distance of rows of d numbers of order 1."""

    def __init__(self, size: int):
        super().__init__(size)
        self.log_length = nn.Parameter(torch.tensor(math.log(size) / 2))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        scale = (-self.log_length).exp()
        return (self.log_variance - squared_distances(a * scale, b * scale).clamp_min(0) / 2).exp()


class Linear(Kernel):
    """v a.b"""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.log_variance.exp() * (a @ b.transpose(1, 2))

    def own(self, a: Tensor) -> Tensor:
        return self.log_variance.exp() * a.square().sum(-1)


class Cosine(Kernel):
    """v a.b / (|a| |b|)"""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.log_variance.exp() * (F.normalize(a, dim=-1) @ F.normalize(b, dim=-1).transpose(1, 2))

    def own(self, a: Tensor) -> Tensor:
        # rows of zeros (no feature is alight) have no direction, and no variance either
        return self.log_variance.exp() * F.normalize(a, dim=-1).square().sum(-1)


class SpectralMixture(Kernel):
    """v sum_q p_q exp(-2 pi^2 sum_j s_qj^2 t_j^2) cos(2 pi m_q.t), t = a - b: frequencies ~ sum_q p_q N(+-m_q, s_q^2)
    (Wilson and Adams 2013, arXiv 1302.4245); p is a softmax.
    """

    def __init__(self, size: int):
        super().__init__(size)
        self.log_share = nn.Parameter(torch.zeros(MIXTURES))
        self.frequency = nn.Parameter(torch.randn(MIXTURES, size) / (2 * math.pi * math.sqrt(size)))
        self.log_width = nn.Parameter(torch.full((MIXTURES, size), -math.log(2 * math.pi * math.sqrt(size))))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        total, shares = torch.zeros((), dtype=a.dtype, device=a.device), self.log_share.softmax(0)
        for share, frequency, log_width in zip(shares, self.frequency, self.log_width, strict=True):
            width = 2 * math.pi * log_width.exp()
            turns = 2 * math.pi * ((a * frequency).sum(-1).unsqueeze(2) - (b * frequency).sum(-1).unsqueeze(1))
            total = total + share * (-squared_distances(a * width, b * width).clamp_min(0) / 2).exp() * turns.cos()
        return self.log_variance.exp() * total


KERNELS: dict[str, type[Kernel]] = {"rbf": RBF, "linear": Linear, "cosine": Cosine, "spectral": SpectralMixture}
