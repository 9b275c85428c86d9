"""Convolutional conditional neural process: what holds at one place holds at every other."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from quickstudy.core.learner import MetaLearner
from quickstudy.core.objective import GaussianRegression
from quickstudy.core.task import Examples, Inputs, State
from quickstudy.nets.attention import scaled
from quickstudy.nets.set_conv import GridCNN, SetConv


class ConvCNP(MetaLearner):
    """Convolutional conditional neural process (Gordon et al. 2020, arXiv 1910.13556), for one or two coordinates.

    The support is smoothed onto a grid, as a density and signals divided by it; a CNN goes over the grid; the result
    is smoothed back to where it is asked, and a linear layer makes the mean and the raw scale of a Gaussian of it.

    The middle of the grid is the middle of the support, so that shifting all x shifts the prediction, exactly. It
    has `points` places along an axis (0: 128 for one coordinate, 48 for two), `density` to a unit of x: scale x such
    that a task fits in points / density units round its middle; far from the grid nothing is known.

    The state holds the rows, the grid's middle and the CNN's map. `prior`: the rows of both together, exactly.
    Departures: one smoothing length for all channels, and what is read back divided by a constant; a grid of fixed
    size, where the paper's reaches as far as the queries do, so that no query's answer depends on another; a plain
    residual CNN.
    """

    papers = ("gordon2020convcnp",)
    choose = "Series and images with gaps, and functions that behave alike everywhere: holds beyond the places seen."
    cost = "one pass"
    says_deviation = True
    kinds = ("regression",)
    incremental = True
    objective: GaussianRegression

    def __init__(
        self,
        objective: GaussianRegression,
        x_shape: tuple[int, ...],
        channels: int = 32,
        depth: int = 4,
        kernel: int = 9,
        points: int = 0,
        density: float = 16.0,
    ):
        super().__init__()
        self.objective = objective
        self.x_shape = x_shape
        self.channels = channels
        self.depth = depth
        self.kernel = kernel
        self.points = points
        self.density = density
        axes = math.prod(x_shape)
        self.smooth = SetConv(axes, points or (128 if axes == 1 else 48), density)
        self.cnn = GridCNN(axes, 1 + objective.y_size, channels, depth, kernel)
        self.head = scaled(nn.Linear(channels, objective.size), 0.1)

    def adapt(self, support: Examples, prior: State | None = None) -> State:
        assert isinstance(support.x, Tensor)
        state = {"x": support.x.flatten(2), "y": support.y, "weight": support.weight}
        if prior is not None:
            state = {k: torch.cat([prior[k], v], 1) for k, v in state.items()}
        x, counts = state["x"], (state["weight"] > 0).unsqueeze(-1)
        first, last = x.masked_fill(~counts, torch.inf).amin(1), x.masked_fill(~counts, -torch.inf).amax(1)
        middle = torch.where(counts.any(1), (first + last) / 2, 0)
        grid = self.smooth.onto(x - middle.unsqueeze(1), state["y"], state["weight"])
        return {**state, "middle": middle, "map": self.cnn(grid)}

    def predict(self, state: State, x: Inputs, weight: Tensor | None = None) -> Tensor:
        assert isinstance(x, Tensor)
        return self.head(self.smooth.back(state["map"], x.flatten(2) - state["middle"].unsqueeze(1)))
