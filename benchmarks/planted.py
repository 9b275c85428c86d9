"""Families of tasks in which it is planted whether the tasks share anything that is worth learning.

Half of the families share something: a subspace or a scale that tells signal from noise, a nonlinear feature, few
directions in which all functions vary. The other half share nothing that a fit to the task alone could use: isotropic
classes, labels without meaning, functions of an isotropic prior, for which the plain fit is about the best there is.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from quickstudy.core.source import Source
from quickstudy.tasks import Arrays, Harmonics, Prior, Sinusoid

ROWS = 25
TRAINING, HELD_OUT, POPULATION = 200, 30, 400
"""Classes to train on, held out for valid and for test each, and of the population that tells the truth."""


@dataclass(frozen=True)
class Family:
    """name: of the family; shared: what was planted; make: the source as its user has it, or (True) one whose test
    tasks come from the whole population."""

    name: str
    shared: bool
    make: Callable[[bool], Source]


Rows = Callable[[np.random.Generator, np.random.Generator, int], np.ndarray]
"""(what plants, what draws, how many classes) -> (classes, ROWS, d)."""


def classes(name: str, shared: bool, draw: Rows, way: int = 5, shot: int = 1) -> Family:
    """A family of classes; what they share is planted alike for those of the user and of the population."""

    def make(population: bool) -> Source:
        count = POPULATION + 20 if population else TRAINING + 2 * HELD_OUT
        seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")
        x = draw(np.random.default_rng(seed), np.random.default_rng([seed, int(population)]), count)
        fractions = (10 / count, POPULATION / count) if population else (HELD_OUT / count, HELD_OUT / count)
        y = np.repeat(np.arange(count), ROWS)
        return Arrays.of(x.reshape(len(y), -1).astype(np.float32), y, way, shot, 10, 0.0, "fixed", *fractions)

    return Family(name, shared, make)


def subspace(d: int, k: int, signal: float, noise: float) -> Rows:
    """Class means in k of d directions (of a random rotation); the other directions only add noise."""

    def draw(planted: np.random.Generator, rng: np.random.Generator, count: int) -> np.ndarray:
        basis = np.linalg.qr(planted.standard_normal((d, d)))[0]
        means = signal * rng.standard_normal((count, 1, k))
        inside = means + rng.standard_normal((count, ROWS, k))
        outside = noise * rng.standard_normal((count, ROWS, d - k))
        return np.concatenate([inside, outside], -1) @ basis

    return draw


def scaled(d: int, widest: float) -> Rows:
    """Means equal in all directions of a rotation, while the noise grows from 0.3 to `widest` over them."""

    def draw(planted: np.random.Generator, rng: np.random.Generator, count: int) -> np.ndarray:
        basis = np.linalg.qr(planted.standard_normal((d, d)))[0]
        noise = np.geomspace(0.3, widest, d)
        return (rng.standard_normal((count, 1, d)) + noise * rng.standard_normal((count, ROWS, d))) @ basis

    return draw


def mirrored(d: int, noise: float) -> Rows:
    """A class is a mean whose coordinates bear random signs in every row: only their sizes say which it is."""

    def draw(planted: np.random.Generator, rng: np.random.Generator, count: int) -> np.ndarray:
        means = 2 * np.abs(rng.standard_normal((count, 1, d)))
        signs = rng.choice([-1.0, 1.0], (count, ROWS, d))
        return signs * means + noise * rng.standard_normal((count, ROWS, d))

    return draw


def isotropic(d: int, signal: float) -> Rows:
    """Round classes round means of equal length in no direction before another: the nearest mean is the best rule."""

    def draw(planted: np.random.Generator, rng: np.random.Generator, count: int) -> np.ndarray:
        means = rng.standard_normal((count, 1, d))
        means *= signal * math.sqrt(d) / np.linalg.norm(means, axis=-1, keepdims=True)
        return means + rng.standard_normal((count, ROWS, d))

    return draw


def meaningless(d: int) -> Rows:
    """Rows that their class says nothing about."""
    return lambda planted, rng, count: rng.standard_normal((count, ROWS, d))


Function = Callable[[torch.Generator, int, int], tuple[Tensor, Tensor]]


def functions(name: str, shared: bool, function: Function, shot: int, way: int = 0) -> Family:
    """A family of functions (or of `way` classes): every task is new, so that the population is the source itself."""
    return Family(name, shared, lambda population: Prior.of(function, way, shot, 20))


def linear(d: int, k: int, noise: float, centre: float = 0.0) -> Function:
    """y = w'x + noise, w in a fixed k-dimensional subspace (k = d: isotropic), round a fixed mean of that length."""
    rng = torch.Generator().manual_seed(d * 100 + k)
    basis = torch.linalg.qr(torch.randn(d, d, generator=rng))[0][:, :k]
    mean = centre * torch.nn.functional.normalize(torch.randn(d, 1, generator=rng), dim=0)

    def draw(rng: torch.Generator, tasks: int, rows: int) -> tuple[Tensor, Tensor]:
        w = basis @ torch.randn(tasks, k, 1, generator=rng) + mean
        x = torch.randn(tasks, rows, d, generator=rng)
        return x, x @ w + noise * torch.randn(tasks, rows, 1, generator=rng)

    return draw


def sides(d: int, k: int, way: int) -> Function:
    """Which of `way` directions of the task a row lies along most, all in a fixed k-dimensional subspace (k = d: in any
    direction): labels mean something else in every task."""
    rng = torch.Generator().manual_seed(d * 100 + k)
    basis = torch.linalg.qr(torch.randn(d, d, generator=rng))[0][:, :k]

    def draw(rng: torch.Generator, tasks: int, rows: int) -> tuple[Tensor, Tensor]:
        x = torch.randn(tasks, rows, d, generator=rng)
        return x, (x @ basis @ torch.randn(tasks, k, way, generator=rng)).argmax(-1)

    return draw


def featured(d: int, k: int, noise: float) -> Function:
    """y = a'f(x) + noise with k fixed features f_i(x) = cos(3 v_i'x), a isotropic."""
    rng = torch.Generator().manual_seed(d * 100 + k)
    v = torch.nn.functional.normalize(torch.randn(d, k, generator=rng), dim=0)

    def draw(rng: torch.Generator, tasks: int, rows: int) -> tuple[Tensor, Tensor]:
        x = 2 * torch.rand(tasks, rows, d, generator=rng) - 1
        y = (3 * x @ v).cos() @ torch.randn(tasks, k, 1, generator=rng)
        return x, y + noise * torch.randn(y.shape, generator=rng)

    return draw


def level(noise: float) -> Function:
    """Constants with much spread: the mean of the task is the best there is."""

    def draw(rng: torch.Generator, tasks: int, rows: int) -> tuple[Tensor, Tensor]:
        y = 3 * torch.randn(tasks, 1, 1, generator=rng) + noise * torch.randn(tasks, rows, 1, generator=rng)
        return torch.randn(tasks, rows, 4, generator=rng), y

    return draw


def white() -> Function:
    """Values that the rows say nothing about."""

    def draw(rng: torch.Generator, tasks: int, rows: int) -> tuple[Tensor, Tensor]:
        return torch.randn(tasks, rows, 4, generator=rng), torch.randn(tasks, rows, 1, generator=rng)

    return draw


def families() -> list[Family]:
    """All families; every other one shares something, so that a short form is balanced too."""
    shared = [
        *(classes(f"subspace of {k} in {d}, {shot}-shot", True, subspace(d, k, 2.0, 2.0), 5, shot)
          for d, k, shot in ((20, 3, 1), (40, 3, 1), (40, 3, 5), (60, 4, 5), (80, 5, 5))),
        classes("noise growing over the directions of 10, 1-shot", True, scaled(10, 5.0), 5, 1),
        *(classes(f"mirrored classes in {d}, {shot}-shot", True, mirrored(d, 0.3), 5, shot)
          for d, shot in ((4, 1), (6, 5), (8, 5))),
        *(functions(f"sides in {k} of {d} directions, {way} classes, {n} rows", True, sides(d, k, way), n, way)
          for d, k, way, n in ((20, 2, 2, 10), (40, 2, 2, 10), (20, 2, 3, 15))),
        *(functions(f"linear in {k} of {d} directions, {n} rows", True, linear(d, k, 0.3), n)
          for d, k, n in ((10, 2, 6), (20, 2, 10), (20, 4, 10), (40, 3, 15))),
        *(functions(f"linear round a common slope, {d} directions, {n} rows", True, linear(d, d, 0.5, 4.0), n)
          for d, n in ((5, 5), (10, 6))),
        *(functions(f"{k} cosine features of {d} numbers, {n} rows", True, featured(d, k, 0.1), n)
          for d, k, n in ((2, 3, 8), (3, 4, 10))),
        Family("sinusoids, 10 rows", True, lambda population: Sinusoid(shot=10, query=20)),
        Family("slow harmonics, 10 rows", True, lambda population: Harmonics(10, 20, slowest=0.5, fastest=1.0)),
    ]  # fmt: skip
    nothing = [
        *(classes(f"round classes in {d}, signal {s:g}, {shot}-shot", False, isotropic(d, s), way, shot)
          for d, s, way, shot in ((3, 1.5, 3, 5), (5, 1.0, 5, 5), (10, 1.0, 5, 5), (20, 0.7, 5, 5), (20, 1.0, 5, 1),
                                  (40, 0.6, 5, 5))),
        *(classes(f"labels without meaning in {d}, {shot}-shot", False, meaningless(d), way, shot)
          for d, way, shot in ((5, 5, 1), (20, 5, 5), (10, 3, 1))),
        *(functions(f"sides in any direction of {d}, {way} classes, {n} rows", False, sides(d, d, way), n, way)
          for d, way, n in ((3, 2, 20), (5, 2, 20), (4, 3, 40))),
        *(functions(f"linear, isotropic, {d} directions, noise {s:g}, {n} rows", False, linear(d, d, s), n)
          for d, s, n in ((1, 0.5, 10), (2, 0.5, 20), (3, 1.0, 30), (4, 0.5, 40), (5, 1.0, 60))),
        *(functions(f"constants, noise {s:g}, {n} rows", False, level(s), n)
          for s, n in ((1.0, 20), (0.5, 10), (2.0, 40))),
        *(functions(f"values without meaning, {n} rows", False, white(), n) for n in (20, 50)),
    ]  # fmt: skip
    return [family for pair in zip(shared, nothing, strict=True) for family in pair]
