"""The speed benchmark compares like with like: in float64 quickstudy gives the very gradients of a plain torch loop."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
ROWS = ("W1", "W1s5", "W2", "W2s5", "W2s5fo", "W2q1", "W3", "W4a", "W4b", "W5", "W6")


class Benchmark(NamedTuple):
    workloads: ModuleType
    peers: ModuleType
    loop: ModuleType
    ours: ModuleType


@pytest.fixture(scope="module")
def benchmark() -> Iterator[Benchmark]:
    """The benchmark's modules; they find each other as scripts beside each other do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        before = set(sys.modules)
        import ours
        import peers
        import workloads
        from peers import plain_loop

        yield Benchmark(workloads, peers, plain_loop, ours)
        for name in set(sys.modules) - before:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(str(BENCHMARKS)):
                del sys.modules[name]


def test_every_workload_is_checked(benchmark: Benchmark) -> None:
    assert tuple(benchmark.workloads.WORKLOADS) == ROWS


@pytest.mark.parametrize("row", ROWS)
def test_the_same_gradient_as_a_plain_loop(benchmark: Benchmark, row: str) -> None:
    work = benchmark.workloads.WORKLOADS[row].small
    reference = benchmark.loop.METHODS[work.method](work, torch.float64).result()
    assert benchmark.peers.distance(benchmark.ours.build(work, torch.float64).result(), reference) < 1e-9


def test_the_check_tells_first_order_from_second(benchmark: Benchmark) -> None:
    second, first = (benchmark.workloads.WORKLOADS[row].small for row in ("W2s5", "W2s5fo"))
    exact, rough = (benchmark.loop.maml(work, torch.float64).result() for work in (second, first))
    assert benchmark.peers.distance(rough, exact) > 1e-3
