"""The implementations beside quickstudy, one file each, written as the documentation of each writes it.

A file has METHODS: for every method it offers, a function (workload, dtype) -> Built.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import NamedTuple

import torch
from workloads import Workload

Numbers = dict[str, torch.Tensor]


class Built(NamedTuple):
    """An implementation of a workload, ready to run.

    step: one outer step, or one evaluation; sampling is not in it.
    result: the meta-gradient by the names of `Workload.weights`, or for an evaluation the query loss of each task,
        {"loss": (task,)}; at the starting weights as long as no step was made.
    """

    step: Callable[[], object]
    result: Callable[[], Numbers]


class Missing(Exception):
    """An implementation has no figure for a workload; the sentence says why."""


Builder = Callable[[Workload, torch.dtype], Built]

TORCH = ("plain loop", "learn2learn", "higher", "torchopt", "easyfsl")
PEERS = (*TORCH, "jax")
REASONS = {
    "learn2learn": "pip does not build it: the C sources of its last release (0.2.0) need longintrepr.h, which Python "
    "has not had since 3.11 (benchmarks/peers/learn2learn.sh makes them anew)",
}
"""Why a peer that is not there cannot be: what its failed import does not say."""


def load(name: str) -> dict[str, Builder] | str:
    """The methods that a peer offers, or one sentence on why it is not there."""
    try:
        return importlib.import_module(f"peers.{name.replace(' ', '_')}").METHODS
    except Exception as error:  # old libraries fail on import in ways of their own
        reason = REASONS.get(name, "") if isinstance(error, ImportError) else ""
        return reason or f"cannot be imported: {type(error).__name__}: {str(error).splitlines()[0]}"


def distance(found: Numbers, reference: Numbers) -> float:
    """|found - reference| / |reference| over all numbers together.

    Raises ValueError if the two do not hold the same names and shapes.
    """
    shapes = [{name: tuple(value.shape) for name, value in one.items()} for one in (found, reference)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"other numbers than the reference: {shapes[0].items() ^ shapes[1].items()}")
    a, b = (torch.cat([one[name].double().cpu().flatten() for name in reference]) for one in (found, reference))
    return float((a - b).norm() / b.norm())
