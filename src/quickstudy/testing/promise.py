"""How a broken promise is told, and what is compared to find it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from quickstudy.core.learner import MetaLearner
from quickstudy.core.task import Task, map_tensors, select

SCALARS = (bool, int, float, complex, str, bytes, type(None))


class ContractError(AssertionError):
    """A promise of the contract that is not kept: the check, what was found, what to do."""


def broken(check: str, found: str, remedy: str) -> NoReturn:
    """Raise ContractError with the three things one wants to know."""
    raise ContractError(f"{check}: {found}; {remedy}.")


def prepared(learner: MetaLearner, tasks: Task) -> tuple[MetaLearner, Task]:
    """A float64 copy of the learner on the CPU in eval mode, and so the tasks."""
    doubled = map_tensors(tasks, lambda t: t.cpu().double() if t.is_floating_point() else t.cpu().clone())
    return copy.deepcopy(learner).cpu().double().eval(), doubled


def answer(learner: MetaLearner, tasks: Task) -> Tensor:
    """Predictions for the query after adapting to the support, without history."""
    with torch.no_grad():
        return learner.predict(learner.adapt(tasks.support), tasks.query.x, tasks.query.weight)


def one(tree: Any, i: int) -> Any:
    """Task `i` of a batch, as a batch of size one."""
    return select(tree, slice(i, i + 1))


def difference(a: Tensor, b: Tensor, rtol: float = 1e-6) -> str | None:
    """None where `a` equals `b` up to `rtol` of the largest value, else what differs, in words."""
    if a.shape != b.shape:
        return f"shapes {tuple(a.shape)} and {tuple(b.shape)}"
    if a.numel() == 0:
        return None
    finite = torch.isfinite(a) & torch.isfinite(b)
    if not torch.equal(a[~finite].isnan(), b[~finite].isnan()) or not finite.any():
        return "values that are not finite"
    # The lowest logit is far below all others: it must not set the scale that the rest is held to.
    ordinary = finite & (a.abs() < 5e3)
    scale = 1.0 if not ordinary.any() else max(float(a[ordinary].abs().max()), 1e-3)
    far = float(((a - b).abs() / (scale + b.abs()))[finite].max())
    return None if far <= rtol else f"values up to {far:.1e} of their size apart"


def fingerprint(module: nn.Module) -> dict[str, Any]:
    """Everything a module holds, by path: tensors by value, the rest by identity."""
    found: dict[str, Any] = {}
    visited: set[int] = set()
    for path, value in _leaves(module, "", visited):
        found[path] = value
    return found


def _leaves(thing: Any, path: str, visited: set[int]) -> Iterator[tuple[str, Any]]:
    if isinstance(thing, SCALARS):
        yield path, ("value", thing)
    elif isinstance(thing, Tensor):
        yield path, ("tensor", thing, thing.detach().clone())
        if thing.is_leaf and thing.requires_grad:
            grad = thing.grad
            yield f"{path}.grad", ("value", None) if grad is None else ("tensor", grad, grad.clone())
    elif isinstance(thing, torch.Generator):
        yield path, ("tensor", thing, thing.get_state())
    else:
        # The object itself is kept too, so that its id cannot be given to another one meanwhile.
        yield path, ("object", thing)
        if id(thing) in visited:
            return
        visited.add(id(thing))
        if isinstance(thing, dict):
            inside: Any = thing.items()
        elif isinstance(thing, list | tuple | set | frozenset):
            inside = enumerate(thing)
        elif isinstance(thing, type) or (callable(thing) and not isinstance(thing, nn.Module)):
            inside = ()
        else:
            inside = vars(thing).items() if hasattr(thing, "__dict__") else ()
        for name, value in inside:
            yield from _leaves(value, f"{path}.{name}", visited)


def changed(before: dict[str, Any], after: dict[str, Any]) -> str | None:
    """The first path at which two fingerprints differ, in words; None if they agree."""
    for path in [*before, *(p for p in after if p not in before)]:
        # `_parameters`, `_buffers` and `_modules` are how torch files things; people know them without.
        name = ".".join(w for w in path.split(".") if w and w not in ("_parameters", "_buffers", "_modules"))
        if path not in after:
            return f"{name!r} was removed"
        if path not in before:
            return f"{name!r} was added"
        if not _same(before[path], after[path]):
            return f"{name!r} was changed"
    return None


def _same(a: tuple[Any, ...], b: tuple[Any, ...]) -> bool:
    if a[0] != b[0]:
        return False
    if a[0] == "value":
        return type(a[1]) is type(b[1]) and (a[1] == b[1] or a[1] != a[1])
    if a[1] is not b[1]:
        return False
    return a[0] == "object" or identical(a[2], b[2])


def identical(a: Tensor, b: Tensor) -> bool:
    """Equal in shape, type and every value, NaN included."""
    return a.dtype == b.dtype and a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())


def tensors(tree: Any) -> list[Tensor]:
    """The tensors of a task, examples, state, dict or tuple, in order."""
    found: list[Tensor] = []
    map_tensors(tree, lambda t: (found.append(t.detach()), t)[1])
    return found


def equal(a: Any, b: Any) -> bool:
    """Whether two such trees hold identical tensors."""
    left, right = tensors(a), tensors(b)
    return len(left) == len(right) and all(identical(x, y) for x, y in zip(left, right, strict=True))
