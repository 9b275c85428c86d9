"""Rows at any places, smoothed onto a regular grid and read back from it; and a convolutional network for the grid."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from quickstudy.core.errors import UserError

SMALLEST = 1e-8
"""Added to a density before it is divided by: where there is no row, the signal is 0."""
ONTO = {1: "tan,tnc->tca", 2: "tan,tbn,tnc->tcab"}
BACK = {1: "tan,tca->tnc", 2: "tan,tbn,tcab->tnc"}


class SetConv(nn.Module):
    """Convolutions between a set of rows and a grid of `points` places an axis, `density` of them a unit
    (Gordon et al. 2020, arXiv 1910.13556), for rows of one or two coordinates.

    psi(d) = exp(-|d|^2 / 2 s^2), with a learnt s for the way onto the grid and one for the way back; both start at two
    steps of the grid. Onto: the density sum_i w_i psi(t - x_i), and the signals sum_i w_i psi(t - x_i) y_i divided
    by it. Back: sum_t psi(x - t) f(t) / c with c = density s sqrt(2 pi) an axis, the sum of psi over an endless grid
    (a constant, so that what is read starts at the size of f). The grid's middle is at 0.

    Raises UserError for rows of more coordinates, or a grid without extent.
    """

    def __init__(self, axes: int, points: int, density: float):
        super().__init__()
        if axes not in ONTO:
            raise UserError(f"a grid has one or two axes, and rows have {axes} coordinates: use anp, tnp or cnp.")
        if points < 2 or not 0 < density < math.inf:
            raise UserError(f"a grid of {points} points, {density} a unit: give at least 2 points, a density above 0.")
        self.axes = axes
        self.points = points
        self.density = density
        self.log_scale = nn.Parameter(torch.full((2,), math.log(2 / density)))

    def near(self, x: Tensor, scale: Tensor) -> list[Tensor]:
        """psi between the grid and the rows x (task, n, axes), along each axis: (task, points, n)."""
        # the middle is exactly 0, and no tensor is stored, so that a learner can be built without memory
        grid = (torch.arange(self.points, dtype=x.dtype, device=x.device) - (self.points - 1) / 2) / self.density
        return [(-0.5 * ((grid.unsqueeze(-1) - at.unsqueeze(1)) / scale).square()).exp() for at in x.unbind(-1)]

    def onto(self, x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        """Density and signals on the grid, (task, 1 + y, points) or (task, 1 + y, points, points)."""
        columns = torch.cat([torch.ones_like(y[..., :1]), y], -1) * weight.to(y.dtype).unsqueeze(-1)
        sums = torch.einsum(ONTO[self.axes], *self.near(x, self.log_scale[0].exp()), columns)
        density = sums[:, :1]
        return torch.cat([density, sums[:, 1:] / (density + SMALLEST)], 1)

    def back(self, grid: Tensor, x: Tensor) -> Tensor:
        """What the grid (task, c, points[, points]) says at the rows x (task, n, axes): (task, n, c)."""
        scale = self.log_scale[1].exp()
        total = (self.density * scale * math.sqrt(2 * math.pi)) ** self.axes
        return torch.einsum(BACK[self.axes], *self.near(x, scale), grid) / total


class GridCNN(nn.Module):
    """A convolution, then `depth` residual ones, h + conv(relu(h)), on a grid of one or two axes.

    (task, inputs, points[, points]) -> (task, channels, points[, points]); beyond the grid there are zeros.
    """

    def __init__(self, axes: int, inputs: int, channels: int, depth: int, kernel: int):
        super().__init__()
        if kernel < 1 or kernel % 2 == 0 or depth < 0:
            raise UserError(f"a kernel of {kernel} and a depth of {depth}: give an odd kernel, a depth from 0.")
        conv = nn.Conv1d if axes == 1 else nn.Conv2d
        sizes = [inputs] + [channels] * depth
        self.layers = nn.ModuleList(conv(size, channels, kernel, padding=kernel // 2) for size in sizes)

    def forward(self, grid: Tensor) -> Tensor:
        h = self.layers[0](grid)
        for layer in list(self.layers)[1:]:
            h = h + layer(torch.relu(h))
        return h
