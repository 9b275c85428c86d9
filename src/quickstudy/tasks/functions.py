"""Families of functions to regress from a few points: sinusoids, harmonics, and a mixture of families."""

from __future__ import annotations

import math
from abc import abstractmethod
from functools import lru_cache

import torch
from torch import Tensor

from quickstudy.core.errors import UserError
from quickstudy.core.source import SPLITS, Source, Spec, Split
from quickstudy.core.task import Examples, Task
from quickstudy.tasks.sampling import Count, branch, count_range, whole


class FunctionSource(Source):
    """A source whose tasks are functions with random parameters, seen at random points.

    y = f(parameters, x) + noise * N(0, 1), for support and query alike. x and y are (task, n, 1).
    shot and query count rows; with a range of shots the rows beyond a task's own have weight 0.
    The splits draw from one distribution with independent random streams.
    """

    shot: Count
    query: Count
    noise: float

    @abstractmethod
    def draw(self, tasks: int, rng: torch.Generator) -> Tensor:
        """The parameters of `tasks` functions, (task, p)."""

    @abstractmethod
    def evaluate(self, parameters: Tensor, x: Tensor) -> Tensor:
        """The functions' values (task, n, 1) at the points x (task, n, 1), without noise."""

    def points(self, parameters: Tensor, n: int, rng: torch.Generator) -> Tensor:
        """Points at which the functions are seen, (task, n, 1)."""
        return uniform((len(parameters), n, 1), -5.0, 5.0, rng)

    @property
    def spec(self) -> Spec:
        return Spec("regression", x_shape=(1,), y_size=1)

    def parameters(self, split: Split, tasks: int, rng: torch.Generator) -> Tensor:
        """The parameters (task, p) of the tasks that `sample` draws with the same generator."""
        return self.draw(tasks, self._stream(split, rng))

    def sample(self, split: Split, tasks: int, rng: torch.Generator) -> Task:
        rng = self._stream(split, rng)
        (fewest, most), (_, asked) = count_range(self.shot, "shot"), count_range(self.query, "query")
        x, y = self._rows(tasks, most + asked, rng)
        x, asked_x = x.split_with_sizes((most, asked), 1)
        y, asked_y = y.split_with_sizes((most, asked), 1)
        query = Examples(asked_x, asked_y, torch.ones(tasks, asked, device=rng.device))
        if fewest == most:
            return Task(Examples(x, y, torch.ones(tasks, most, device=rng.device)), query)
        shots = whole(fewest, most, (tasks, 1), rng)
        weight = (torch.arange(most, device=rng.device) < shots).to(x.dtype)
        return Task(Examples(x * weight.unsqueeze(-1), y * weight.unsqueeze(-1), weight), query)

    def sample_pooled(self, split: Split, rows: int, rng: torch.Generator) -> Examples:
        rng = self._stream(split, rng)
        x, y = self._rows(rows, 1, rng)
        return Examples(x.transpose(0, 1), y.transpose(0, 1), torch.ones(1, rows, device=rng.device))

    def functions(self, tasks: int, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """x and y (task, n, 1), without noise, of n points of each of `tasks` functions."""
        parameters = self.draw(tasks, rng)
        x = self.points(parameters, n, rng)
        return x, self.evaluate(parameters, x)

    def _rows(self, tasks: int, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        x, y = self.functions(tasks, n, rng)
        if self.noise < 0:
            raise UserError(f"noise is {self.noise}: give a standard deviation of at least 0.")
        if self.noise > 0:
            y = y + self.noise * torch.randn(y.shape, generator=rng, device=rng.device)
        return x, y

    def _stream(self, split: Split, rng: torch.Generator) -> torch.Generator:
        """A random stream of its own for each split, on the device of this source."""
        if split not in SPLITS:
            raise UserError(f"unknown split {split!r}: choose train, valid or test.")
        return branch(rng, split, device=self.device)


def uniform(shape: tuple[int, ...], low: float, high: float, rng: torch.Generator) -> Tensor:
    """Numbers uniform between low and high."""
    return torch.rand(shape, generator=rng, device=rng.device).mul_(high - low).add_(low)


class Sinusoid(FunctionSource):
    """Sine waves of random amplitude and phase: y = a sin(x - p), a ~ U[0.1, 5], p ~ U[0, pi], x ~ U[-5, 5].

    The regression tasks of MAML (arXiv 1703.03400, section 5.1). Parameters: (a, p), p in radians.

    >>> source = Sinusoid()
    >>> source.sample("train", 25, source.rng(0)).support.x.shape
    torch.Size([25, 10, 1])
    """

    papers = ("finn2017maml",)

    def __init__(self, shot: Count = 10, query: Count = 10, noise: float = 0.0):
        self.shot = shot
        self.query = query
        self.noise = noise

    def draw(self, tasks: int, rng: torch.Generator) -> Tensor:
        return torch.cat([uniform((tasks, 1), 0.1, 5.0, rng), uniform((tasks, 1), 0.0, math.pi, rng)], 1)

    def evaluate(self, parameters: Tensor, x: Tensor) -> Tensor:
        amplitude, phase = _columns(parameters)
        return amplitude * torch.sin(x - phase)

    def functions(self, tasks: int, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """The same numbers as by `draw`, `points` and `evaluate`, drawn at once: networks are so small here that
        every operation counts."""
        width, low = _sinusoid_ranges(tasks, n, rng.device, torch.get_default_dtype())
        drawn = torch.rand(len(low), generator=rng, device=rng.device).mul_(width).add_(low)
        amplitude, phase, x = drawn.split_with_sizes((tasks, tasks, tasks * n))
        x = x.view(tasks, n, 1)
        return x, (x - phase.view(tasks, 1, 1)).sin_().mul_(amplitude.view(tasks, 1, 1))


@lru_cache(maxsize=16)
def _sinusoid_ranges(tasks: int, n: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Width and lower end of the range of every number that sinusoids are drawn with: amplitudes, phases, points."""
    counts = torch.tensor([tasks, tasks, tasks * n])
    ends = torch.tensor([[5.0 - 0.1, math.pi, 5.0 - -5.0], [0.1, 0.0, -5.0]], dtype=dtype)
    width, low = ends.repeat_interleave(counts, 1).to(device)
    return width, low


class Harmonics(FunctionSource):
    """Sums of two sine waves, one of twice the frequency: y = a1 sin(w x + b1) + a2 sin(2 w x + b2).

    a1, a2 ~ N(0, 1), b1, b2 ~ U[0, 2 pi], w ~ U[5, 7], and the points of a task lie round a place of its
    own: x ~ N(m, 1), m ~ U[-4, 4] (Lacoste and others, arXiv 1806.07528). `fastest` and `slowest` bound w:
    lower them for an easier family. Parameters: (a1, a2, b1, b2, w, m).
    """

    papers = ("lacoste2018uncertainty",)

    def __init__(
        self,
        shot: Count = 10,
        query: Count = 10,
        noise: float = 0.0,
        slowest: float = 5.0,
        fastest: float = 7.0,
    ):
        self.shot = shot
        self.query = query
        self.noise = noise
        self.slowest = slowest
        self.fastest = fastest

    def draw(self, tasks: int, rng: torch.Generator) -> Tensor:
        amplitudes = torch.randn(tasks, 2, generator=rng, device=rng.device)
        phases = uniform((tasks, 2), 0.0, 2 * math.pi, rng)
        frequency = uniform((tasks, 1), self.slowest, self.fastest, rng)
        return torch.cat([amplitudes, phases, frequency, uniform((tasks, 1), -4.0, 4.0, rng)], 1)

    def points(self, parameters: Tensor, n: int, rng: torch.Generator) -> Tensor:
        spread = torch.randn(len(parameters), n, 1, generator=rng, device=rng.device)
        return parameters[:, -1].view(-1, 1, 1) + spread

    def evaluate(self, parameters: Tensor, x: Tensor) -> Tensor:
        a1, a2, b1, b2, w, _ = _columns(parameters)
        return a1 * torch.sin(w * x + b1) + a2 * torch.sin(2 * w * x + b2)


class Mixture(FunctionSource):
    """Functions of four families, each equally likely: sinusoids, lines, quadratics and cubics, x ~ U[-5, 5].

    sinusoid: a sin(w x) + b, a ~ U[0.1, 5], w ~ U[0.8, 1.2], b ~ U[0, 2 pi]; line: a x + b, a, b ~ U[-3, 3];
    quadratic: a x^2 + b x + c, a ~ U[-0.2, 0.2], b ~ U[-2, 2], c ~ U[-3, 3];
    cubic: a x^3 + b x^2 + c x + d, a ~ U[-0.1, 0.1], b ~ U[-0.2, 0.2], c ~ U[-2, 2], d ~ U[-3, 3].
    The toy regression of HSML (arXiv 1905.05301, section 5.1; there with noise 0.3).
    Parameters: (family, then four coefficients).
    """

    papers = ("yao2019hsml",)
    family_names = ("sinusoid", "line", "quadratic", "cubic")

    def __init__(self, shot: Count = 10, query: Count = 10, noise: float = 0.3):
        self.shot = shot
        self.query = query
        self.noise = noise

    def families(self, split: Split, tasks: int, rng: torch.Generator) -> Tensor:
        """The family (task,) of each task that `sample` draws with the same generator: see `family_names`."""
        return self.parameters(split, tasks, rng)[:, 0].long()

    def draw(self, tasks: int, rng: torch.Generator) -> Tensor:
        family = torch.randint(4, (tasks,), generator=rng, device=rng.device)
        low, high = torch.tensor(_BOUNDS, device=rng.device)[family].unbind(1)
        coefficients = low + (high - low) * torch.rand(tasks, 4, generator=rng, device=rng.device)
        return torch.cat([family.unsqueeze(1).to(coefficients.dtype), coefficients], 1)

    def evaluate(self, parameters: Tensor, x: Tensor) -> Tensor:
        family, a, b, c, d = _columns(parameters)
        # A polynomial's unused leading coefficients have the bounds (0, 0).
        polynomial = ((a * x + b) * x + c) * x + d
        return torch.where(family == 0, a * torch.sin(b * x) + d, polynomial)


_BOUNDS = (
    ((0.1, 0.8, 0.0, 0.0), (5.0, 1.2, 0.0, 2 * math.pi)),
    ((0.0, 0.0, -3.0, -3.0), (0.0, 0.0, 3.0, 3.0)),
    ((0.0, -0.2, -2.0, -3.0), (0.0, 0.2, 2.0, 3.0)),
    ((-0.1, -0.2, -2.0, -3.0), (0.1, 0.2, 2.0, 3.0)),
)


def _columns(parameters: Tensor) -> tuple[Tensor, ...]:
    """The columns of (task, p), each (task, 1, 1)."""
    return parameters.view(len(parameters), 1, 1, -1).unbind(-1)
