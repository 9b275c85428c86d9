"""Is a gradient the true derivative? Central differences in float64 decide."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from quickstudy.core.task import Task
from quickstudy.testing.promise import ContractError, broken

STEPS = (1e-5, 1e-6, 1e-4, 1e-5, 1e-6)


def check_meta_gradient(
    loss: Callable[[], Tensor],
    parameters: Iterable[Tensor],
    names: Sequence[str] | None = None,
    rtol: float = 1e-5,
) -> None:
    """Compare the gradient of `loss()` with central differences, for every parameter tensor.

    g . d = (loss(p + e d) - loss(p - e d)) / 2e along random unit directions d, one tensor at a time.
    A direction that crosses a kink (ReLU, max-pool) tells nothing, so a tensor is right as soon as one of
    five directions agrees; a wrong gradient agrees by luck with a chance of about `rtol` each.

    loss: a scalar as a function of the parameters' values, deterministic, float64.
    parameters: leaf tensors, float64; they come back as they were.
    Raises ContractError where they differ, or where `loss` overwrites its own parameters.

    >>> w = torch.tensor([3.0], dtype=torch.float64, requires_grad=True)
    >>> check_meta_gradient(lambda: w.square().sum(), [w])
    >>> check_meta_gradient(lambda: (w * w.detach()).sum(), [w])
    Traceback (most recent call last):
    ...
    quickstudy.testing.promise.ContractError: meta_gradient: the gradient of parameter 0 is 50% off its \
central difference; keep the whole path from parameter to loss in the graph (no detach, no .data), or \
declare exact_gradient = False.
    """
    tensors = list(parameters)
    labels = list(names) if names is not None else [f"parameter {i}" for i in range(len(tensors))]
    if not tensors:
        broken("meta_gradient", "there are no parameters", "pass the tensors that the outer loop trains")
    if any(p.dtype != torch.float64 for p in tensors):
        broken("meta_gradient", "the parameters are not float64", "call .double() on the module and its data")
    start = [p.detach().clone() for p in tensors]
    try:
        value = loss()
        analytic = torch.autograd.grad(value, tensors, allow_unused=True)
        overwritten = [
            label for label, p, s in zip(labels, tensors, start, strict=True) if not torch.equal(p.detach(), s)
        ]
        _restore(tensors, start)
        rng = torch.Generator().manual_seed(0)
        floor = 1e-14 * (1 + abs(float(value.detach())))
        worst, where = 0.0, ""
        for i, gradient in enumerate(analytic):
            g = torch.zeros_like(start[i]) if gradient is None else gradient.detach()
            off = _off(lambda: _value(loss), tensors, start, i, g, floor, rtol, rng)
            if off > worst:
                worst, where = off, labels[i]
    finally:
        _restore(tensors, start)
    also = f", and the loss overwrites {overwritten[0]} with the adapted value" if overwritten else ""
    if worst > rtol:
        broken(
            "meta_gradient",
            f"the gradient of {where} is {_percent(worst)} off its central difference{also}",
            "keep the whole path from parameter to loss in the graph (no detach, no .data), "
            "or declare exact_gradient = False",
        )
    if overwritten:
        broken("meta_gradient", also.removeprefix(", and "), "return adapted values, never store them")


def gradient_is_exact(loss: Callable[[], Tensor], parameters: Iterable[Tensor]) -> bool:
    """Whether `check_meta_gradient` passes."""
    try:
        check_meta_gradient(loss, parameters)
    except ContractError:
        return False
    return True


def _off(
    value: Callable[[], float],
    tensors: list[Tensor],
    start: list[Tensor],
    i: int,
    g: Tensor,
    floor: float,
    rtol: float,
    rng: torch.Generator,
) -> float:
    """How far `g` is from central differences of tensor `i`: the least over directions, relative."""
    least = float("inf")
    for step in STEPS:
        d = torch.randn(start[i].shape, generator=rng, dtype=torch.float64).to(start[i].device)
        d = d / d.norm().clamp_min(1e-300)
        sides = []
        for sign in (1, -1):
            _restore(tensors, start)
            with torch.no_grad():
                tensors[i].add_(d, alpha=sign * step)
            sides.append(value())
        numeric = (sides[0] - sides[1]) / (2 * step)
        along = float((g * d).sum())
        # A random direction may be nearly orthogonal to the gradient; its usual share sets the scale.
        usual = float(g.norm()) / max(g.numel(), 1) ** 0.5
        gap = max(abs(along - numeric) - floor / step, 0.0)
        least = min(least, gap / max(usual, abs(numeric), 1e-12))
        if least <= rtol:
            break
    return least


def _value(loss: Callable[[], Tensor]) -> float:
    return float(loss().detach())


def _restore(tensors: list[Tensor], start: list[Tensor]) -> None:
    with torch.no_grad():
        for p, s in zip(tensors, start, strict=True):
            p.copy_(s)


def _percent(part: float) -> str:
    return f"{part:.0%}" if part >= 0.01 else f"{part:.1e} of its size"


def deterministic(
    loss: Callable[[Task], Tensor], tasks: Task, buffers: Iterable[Tensor]
) -> Callable[[], Tensor]:
    """`loss(tasks)` with the same random numbers and the same buffers at every call."""
    held = list(buffers)
    start = [b.detach().clone() for b in held]

    def again() -> Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            value = loss(tasks)
        with torch.no_grad():
            for b, s in zip(held, start, strict=True):
                b.copy_(s)
        return value

    return again
