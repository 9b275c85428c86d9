"""Labels that spread along a graph of rows, in closed form."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from quickstudy.inner.closed import full_precision, squared_distances
from quickstudy.inner.neighbours import nearest

SMALLEST = 1e-12
"""Added to the row sums of a graph: that of padding is 0."""


@full_precision
def neighbour_graph(
    rows: Float[Tensor, "task n d"], real: Bool[Tensor, "task n"], k: int
) -> Float[Tensor, "task n n"]:
    """W_ij = exp(-mean_d (x_i - x_j)^2 / 2) where i is among the k nearest of j or j among those of i, else 0.

    A row is the nearest to itself, so that one far from all others takes little from them. Padding (rows that are not
    `real`) is near nobody.
    """
    distances = squared_distances(rows, rows) / rows.shape[-1]
    near = nearest(distances, real.unsqueeze(1) & real.unsqueeze(2), k)
    return torch.where(near | near.transpose(1, 2), (-distances / 2).exp(), 0)


@full_precision
def propagated(
    graph: Float[Tensor, "task n n"], labels: Float[Tensor, "task n way"], alpha: float
) -> Float[Tensor, "task n way"]:
    """F = (I - alpha S)^-1 Y with S = D^-1/2 W D^-1/2 and D the row sums of W (Zhou et al. 2004).

    The end of F <- alpha S F + Y. A row without neighbours keeps its label. 0 <= alpha < 1, W symmetric.

    >>> propagated(torch.tensor([[[0.0, 2.0], [2.0, 0.0]]]), torch.tensor([[[1.0], [0.0]]]), 0.5)
    tensor([[[1.3333],
             [0.6667]]])
    """
    degree = graph.sum(-1)
    root = (degree + SMALLEST).rsqrt()
    spread = root.unsqueeze(-1) * graph * root.unsqueeze(1)
    one = torch.eye(graph.shape[1], dtype=graph.dtype, device=graph.device)
    return torch.linalg.solve(one - alpha * spread, labels)
