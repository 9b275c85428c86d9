"""What the speed benchmark measures: tasks and starting weights that every implementation is given alike.

W1 is the sinusoid with a small MLP, W2 to W4 and W6 are of Omniglot's shape with the usual four-block network, W5 is
implicit. Images are noise around one pattern a class: the arithmetic does not depend on what they show, and without
flat areas no two implementations can break a tie of the max-pool differently.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

Method = Literal["maml", "anil", "protonet", "imaml", "evaluate"]


class Batch(NamedTuple):
    """The tasks of one outer step: inputs (task, n, ...) and labels (task, n), or targets (task, n, 1)."""

    support_x: Tensor
    support_y: Tensor
    query_x: Tensor
    query_y: Tensor


@dataclass(frozen=True)
class Workload:
    """One row. All but "evaluate" are outer steps: adapt every task, meta-gradient, Adam step.

    way: 0 for regression of sinusoids; shot and query count rows of a class (of a task for regression).
    strength, cg_steps: the proximal term and the conjugate gradient steps of iMAML; strong enough a pull that the
        system of every task is positive definite, without which nobody's conjugate gradients mean anything.
    mark, mark_compiled: quickstudy's time over that of the fastest torch peer is to stay below this.
    device: where batch and weights are.
    """

    key: str
    title: str
    method: Method
    tasks: int
    way: int
    shot: int
    query: int
    steps: int = 0
    lr: float = 0.1
    first_order: bool = False
    strength: float = 20.0
    cg_steps: int = 10
    channels: int = 64
    pixels: int = 28
    width: int = 40
    mark: float | None = None
    mark_compiled: float | None = None
    device: str = "cpu"

    @property
    def images(self) -> bool:
        return self.way > 0

    @property
    def small(self) -> Workload:
        """The same in miniature: every path of the code, next to no arithmetic."""
        return replace(self, tasks=min(self.tasks, 3), query=min(self.query, 2), channels=4, pixels=16, width=5)

    def batch(self, dtype: torch.dtype) -> Batch:
        """Always the same numbers; each can be held in float32, so that every type starts from the same."""
        rng = np.random.default_rng(7)
        if not self.images:
            amplitude, phase = rng.uniform(0.1, 5.0, (self.tasks, 1, 1)), rng.uniform(0, math.pi, (self.tasks, 1, 1))
            x = _rounded(rng.uniform(-5.0, 5.0, (self.tasks, self.shot + self.query, 1)))
            y = _rounded(amplitude * np.sin(x - phase))
            parts = (x[:, : self.shot], y[:, : self.shot], x[:, self.shot :], y[:, self.shot :])
            return Batch(*(torch.from_numpy(part).to(self.device, dtype).contiguous() for part in parts))
        patterns = rng.normal(size=(self.tasks, self.way, 1, self.pixels, self.pixels))
        found = []
        for rows in (self.shot, self.query):
            labels = np.tile(np.repeat(np.arange(self.way), rows), (self.tasks, 1))
            x = patterns[np.arange(self.tasks)[:, None], labels]
            x = _rounded(x + rng.normal(size=x.shape))
            found += [torch.from_numpy(x).to(self.device, dtype), torch.from_numpy(labels).to(self.device)]
        return Batch(*found)

    def weights(self) -> dict[str, Tensor]:
        """The starting weights in float64, by name, in the order of the layers."""
        rng, found = np.random.default_rng(11), {}
        if not self.images:
            for i, (inputs, outputs) in enumerate(((1, self.width), (self.width, self.width), (self.width, 1))):
                found |= _linear(rng, f"layers.{i}", inputs, outputs)
        for i in range(4 if self.images else 0):
            inputs = self.channels if i else 1
            scale = math.sqrt(2 / (9 * inputs))
            found[f"kernels.{i}"] = rng.normal(scale=scale, size=(self.channels, inputs, 3, 3))
            found[f"norms.{i}.weight"] = np.ones(self.channels)
            found[f"norms.{i}.bias"] = np.zeros(self.channels)
        if self.images and self.method != "protonet":
            found |= _linear(rng, "head", self.channels * (self.pixels // 16) ** 2, self.way)
        return {name: torch.from_numpy(_rounded(value)).to(self.device) for name, value in found.items()}


def _linear(rng: np.random.Generator, name: str, inputs: int, outputs: int) -> dict[str, np.ndarray]:
    edge = 1 / math.sqrt(inputs)
    return {
        f"{name}.weight": rng.uniform(-edge, edge, (outputs, inputs)),
        f"{name}.bias": rng.uniform(-edge, edge, outputs),
    }


def _rounded(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32).astype(np.float64)


_SINUSOID = {"way": 0, "shot": 10, "query": 10, "tasks": 25, "lr": 0.01}
_OMNIGLOT = {"way": 5, "shot": 1, "query": 15, "tasks": 8}

WORKLOADS: dict[str, Workload] = {
    one.key: one
    for one in (
        Workload("W1", "sinusoid, MAML, 1 step", "maml", steps=1, mark=0.12, mark_compiled=0.05, **_SINUSOID),
        Workload("W1s5", "sinusoid, MAML, 5 steps", "maml", steps=5, mark=0.10, mark_compiled=0.04, **_SINUSOID),
        Workload("W2", "Omniglot, MAML, 1 step", "maml", steps=1, mark=0.85, mark_compiled=0.85, **_OMNIGLOT),
        Workload("W2s5", "Omniglot, MAML, 5 steps", "maml", steps=5, mark=0.90, mark_compiled=0.80, **_OMNIGLOT),
        Workload(
            "W2s5fo", "Omniglot, MAML first order, 5 steps", "maml", steps=5, first_order=True, mark=0.80, **_OMNIGLOT
        ),
        Workload(
            "W2q1", "Omniglot, MAML, 1 step, 32 tasks, 1 query", "maml", 32, way=5, shot=1, query=1, steps=1
        ),
        Workload("W3", "Omniglot, ANIL, 5 steps", "anil", steps=5, mark=0.60, **_OMNIGLOT),
        Workload("W4a", "Omniglot, ProtoNet, 60-way 5-shot", "protonet", 1, way=60, shot=5, query=5, mark=0.50),
        Workload("W4b", "Omniglot, ProtoNet, 16 tasks", "protonet", 16, way=5, shot=1, query=15, mark=0.50),
        Workload("W5", "sinusoid, iMAML, 10 steps", "imaml", steps=10, mark=0.06, mark_compiled=0.03, **_SINUSOID),
        Workload(
            "W6", "Omniglot, evaluation of 40 tasks, 5 steps", "evaluate", 40, way=5, shot=1, query=15, steps=5,
            mark=0.60, mark_compiled=0.45,
        ),
    )
}  # fmt: skip
