"""Hierarchical soft clustering: a representation climbs through levels of fewer and fewer learnt clusters."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quickstudy.core.errors import UserError


class SoftTree(nn.Module):
    """(task, size) -> (task, size), through `levels` of clusters, one node of representation a cluster.

    The node below level l + 1 belongs to its cluster k with
        p_k = softmax_k(-|(h - c_k) / sharpness|^2 / 2),
    and the cluster's node is sum over nodes below of p_k tanh(W_k h + b_k). The first level has the representation
    itself below it; the last has one cluster, whose node comes out (Yao et al. 2019, arXiv 1905.05301, section 4.2).

    Raises UserError unless the levels end in 1.

    >>> SoftTree(8, (4, 2, 1))(torch.zeros(3, 8)).shape
    torch.Size([3, 8])
    """

    def __init__(self, size: int, levels: tuple[int, ...], sharpness: float = 2.0):
        super().__init__()
        if not levels or min(levels) < 1 or levels[-1] != 1:
            raise UserError(f"the levels of clusters are {tuple(levels)}: give counts that end in 1, as in (4, 2, 1).")
        self.sharpness = sharpness
        self.centres = nn.ParameterList(torch.randn(k, size) for k in levels)
        self.maps = nn.ModuleList(nn.Linear(size, k * size) for k in levels)

    def forward(self, h: Float[Tensor, "task size"]) -> Float[Tensor, "task size"]:
        nodes = h.unsqueeze(1)
        for centres, step in zip(self.centres, self.maps, strict=True):
            share = self._share(nodes, centres)  # (task, below, clusters)
            moved = torch.tanh(step(nodes)).unflatten(-1, centres.shape)  # (task, below, clusters, size)
            nodes = (share.unsqueeze(-1) * moved).sum(1)
        return nodes.squeeze(1)

    def leaves(self, h: Float[Tensor, "task size"]) -> Float[Tensor, "task clusters"]:
        """How far each representation belongs to each cluster of the first level."""
        return self._share(h.unsqueeze(1), self.centres[0]).squeeze(1)

    def _share(self, nodes: Tensor, centres: Tensor) -> Tensor:
        gaps = (nodes.unsqueeze(2) - centres) / self.sharpness
        return (-gaps.square().sum(-1) / 2).softmax(-1)
