"""What an outer step costs under each memory plan, and the fastest exact one that fits a budget."""

from __future__ import annotations

import math
import re
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from quickstudy.core.catalogue import arguments
from quickstudy.core.errors import UserError
from quickstudy.core.learner import MetaLearner
from quickstudy.core.task import Task, map_tensors, select
from quickstudy.inner.memory import EXACT, Plan
from quickstudy.peak import peak_bytes
from quickstudy.side_by_side import at_once

APPROXIMATE = ("truncated", "first_order", "implicit")
UNITS = {"KB": 1e3, "MB": 1e6, "GB": 1e9}


@dataclass(frozen=True)
class Cost:
    """What one part of an outer step costs under a plan.

    tasks: in the part; bytes: the most that the tensors made in it hold at once; seconds: for forward
    and backward; cosine: of its gradient with the true one, 1 for the exact plans.
    """

    plan: str
    tasks: int
    bytes: int
    seconds: float
    cosine: float


@dataclass(frozen=True)
class Choice:
    """A plan, in how many parts the tasks of an outer step are worked through, and how many of them side by side.

    side: None leaves that to the number of parts and of threads.
    """

    plan: str
    parts: int
    side: int | None = None

    def give(self, learner: MetaLearner) -> None:
        """Let a learner that descends keep to the plan."""
        if is_planned(learner):
            learner.memory = self.plan  # type: ignore[assignment]


def is_planned(learner: MetaLearner) -> bool:
    """Whether the learner descends, so that there is something to plan."""
    return "memory" in arguments(type(learner)) and not getattr(learner, "first_order", False)


def budget_of(text: str) -> int | None:
    """A budget such as "500MB" or "1.5 GB" in bytes; None for the name of a plan.

    Raises UserError for anything else.

    >>> budget_of("500MB")
    500000000
    """
    found = re.fullmatch(r"\s*([0-9.]+)\s*([a-zA-Z]*)\s*", text)
    if not found:
        Plan.of(text)
        return None
    number, unit = found.groups()
    try:
        return int(float(number) * UNITS[unit.upper()])
    except (KeyError, ValueError, OverflowError):
        raise UserError(f"memory is {text!r}: give a budget such as 500MB or 2GB, or {', '.join(EXACT)}.") from None


def choose(learner: MetaLearner, tasks: Task, memory: str) -> Choice:
    """The plan of that name; or for a budget the fastest exact plan that keeps to it, measured on one task.

    tasks: this process's share of a meta-batch. Raises UserError where nothing fits, and says what would.
    """
    count = tasks.query.tasks
    budget = budget_of(memory)
    if budget is None:
        if not is_planned(learner):
            raise UserError(
                f"{type(learner).__name__} has no inner steps to plan: leave out --memory {memory}, or give a "
                "budget such as 500MB."
            )
        return Choice(memory, 1)
    best, least = None, math.inf
    for plan in EXACT if is_planned(learner) else ("store",):
        one = cost(learner, select(tasks, slice(0, 1)), plan)
        least = min(least, one.bytes)
        size = min(count, learner.chunk or count, int(budget // max(one.bytes, 1)))
        while size > 1:  # what many tasks hold is not exactly a multiple
            whole = cost(learner, select(tasks, slice(0, size)), plan)
            if whole.bytes <= budget:
                break
            size = min(size - 1, int(size * budget / whole.bytes))
        else:
            whole = one
        if size < 1 or whole.bytes > budget:
            continue
        parts = math.ceil(count / size)
        side = at_once(parts, int(budget // max(whole.bytes, 1)))
        if best is None or parts * whole.seconds < best[0]:
            best = parts * whole.seconds, Choice(plan, parts, side)
    if best is None:
        raise UserError(f"no exact plan keeps to {memory}: one task needs {in_megabytes(least)}{_instead(learner)}.")
    return best[1]


def costs(learner: MetaLearner, tasks: Task) -> list[Cost]:
    """What each plan costs on these tasks, exact ones first."""
    if not is_planned(learner):
        return [cost(learner, tasks, "store")]
    true = _gradient(learner, tasks)
    return [cost(learner, tasks, plan, true) for plan in (*EXACT, *APPROXIMATE)]


def cost(learner: MetaLearner, tasks: Task, plan: str, true: Tensor | None = None) -> Cost:
    """What a plan costs on these tasks; with the true gradient given, also the cosine with it."""
    with planned(learner, plan):
        cosine = 1.0
        found = _gradient(learner, tasks)  # also warms up
        if true is not None:
            cosine = float(torch.cosine_similarity(found.double(), true.double(), 0))
        held = peak_bytes(lambda: _gradient(learner, tasks))
        seconds = statistics.median(_seconds(lambda: _gradient(learner, tasks)) for _ in range(3))
    return Cost(plan, tasks.query.tasks, held, seconds, cosine)


@contextmanager
def planned(learner: MetaLearner, plan: str) -> Iterator[None]:
    """The learner under another plan for a while."""
    if not is_planned(learner):
        yield
        return
    before = {name: getattr(learner, name) for name in ("memory", "first_order") if hasattr(learner, name)}
    try:
        option, value = ("first_order", True) if plan == "first_order" else ("memory", plan)
        setattr(learner, option, value)
        yield
    finally:
        for name, value in before.items():
            setattr(learner, name, value)


def in_megabytes(size: float) -> str:
    """A number of bytes for people.

    >>> in_megabytes(2_340_000)
    '2.3 MB'
    """
    return f"{size / 1e6:.1f} MB" if size < 1e8 else f"{size / 1e6:,.0f} MB"


def _instead(learner: MetaLearner) -> str:
    if not is_planned(learner):
        return "; give more, or smaller tasks (fewer queries, smaller images)"
    return "; give more, smaller tasks, or fewer inner steps, or a plan that approximates (--memory truncated)"


def _gradient(learner: MetaLearner, tasks: Task) -> Tensor:
    """The meta-gradient of the mean loss as one vector; nothing is left behind in the parameters."""
    parameters = [p for p in learner.parameters() if p.requires_grad]
    dtype = parameters[0].dtype
    tasks = map_tensors(tasks, lambda t: t.to(dtype) if t.is_floating_point() else t)
    with torch.random.fork_rng(devices=[]):
        grads = torch.autograd.grad(learner(tasks), parameters, allow_unused=True)
    both = zip(parameters, grads, strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for p, g in both])


def _seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begin
