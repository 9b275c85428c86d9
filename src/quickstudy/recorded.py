"""A program recorded as one CUDA graph: its hundreds of kernels are started by the GPU, not one by one from Python."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Program = Callable[..., list[Tensor]]
"""(*weights, *leaves of the tasks) -> what it gives."""

WARMING = 3
"""Runs before the recording, in which libraries choose their kernels and take the memory they work in."""


def recorded(program: Program, weights: list[Tensor], leaves: list[Tensor]) -> Program:
    """`program` as a graph for tasks of these shapes, which reads the weights where they are now.

    What it gives is written over by its next run. Raises RuntimeError for a program that looks at numbers on its way.
    """
    held = [leaf.clone() for leaf in leaves]
    graph, aside = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.no_grad(), torch.cuda.stream(aside):
        for _ in range(WARMING):
            program(*weights, *held)
    torch.cuda.current_stream().wait_stream(aside)
    with torch.no_grad(), torch.cuda.graph(graph):
        given = program(*weights, *held)

    def again(*now: Tensor) -> list[Tensor]:
        for place, leaf in zip(held, now[len(weights) :], strict=True):
            place.copy_(leaf)
        graph.replay()
        return given

    return again
