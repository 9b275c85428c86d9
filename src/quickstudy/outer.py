"""One step of the outer loop: its rate, its tasks, the gradient, and what to say if that is not finite."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from quickstudy.compiled import Compiled, laid_out_as
from quickstudy.core.device import on_processor
from quickstudy.core.errors import UserError
from quickstudy.core.learner import MetaLearner
from quickstudy.core.source import Source
from quickstudy.core.task import Task, map_tensors, select
from quickstudy.nets.norm import Seen, average, collect, fold_in
from quickstudy.side_by_side import SideBySide, at_once

LinAlgError: type[Exception] = torch.linalg.LinAlgError  # pyright: ignore[reportPrivateImportUsage]


@dataclass
class Found:
    """What one pass over the tasks of a step gave, beside the gradients in the parameters.

    loss: the mean over the tasks of all processes; norm: of the whole gradient, before clipping;
    statistics: what running norms saw; stop: whether any process was asked to stop.
    """

    loss: float
    norm: float
    statistics: list[tuple[nn.Module, Tensor]]
    stop: bool

    @property
    def finite(self) -> bool:
        return math.isfinite(self.loss) and math.isfinite(self.norm)


class Outer:
    """The outer steps of one learner, on this process's share of the tasks.

    model: the learner as Fabric wraps it; the learner itself is called where the wrapping does nothing.
    accumulate: at least so many parts, one after the other, for less memory. side: so many of them side by side.
    compile: run each part as one compiled program where that can be; processes then share gradients here.
    """

    def __init__(
        self,
        fabric: Fabric,
        model: Any,
        learner: MetaLearner,
        clip: float | None,
        accumulate: int,
        mixed: bool,
        compile: bool = False,
        side: int | None = None,
    ):
        self.fabric = fabric
        self.learner = learner
        self.clip = clip
        self.accumulate = accumulate
        self.parameters = [p for p in learner.parameters() if p.requires_grad]
        self.dtype = self.parameters[0].dtype
        self.shared = fabric.world_size > 1
        self.context: Any = fabric.autocast if mixed else nullcontext
        self.compiled = Compiled(learner, self.context, fabric.is_global_zero) if compile else None
        self.wrapped = self.compiled is None and (self.shared or mixed)
        self.model: Any = model if self.wrapped else learner
        self.side = side
        self.side_by_side = SideBySide(learner, self.parameters)

    def tasks(self, source: Source, meta_batch: int, pooled_rows: int, rng: torch.Generator) -> Task:
        """This process's tasks of the meta-batch that `rng` draws; pooled rows are not shared out."""
        tasks = draw_tasks(self.learner, source, meta_batch, pooled_rows, rng)
        if self.shared and not self.learner.pooled:
            tasks = select(tasks, slice(self.fabric.global_rank, None, self.fabric.world_size))
        return map_tensors(tasks, lambda t: t.to(self.dtype) if t.is_floating_point() else t)

    def seed(self, number: int) -> None:
        """Seed what a learner draws for itself (dropout, say), and no device that is not used."""
        number = (number + self.fabric.global_rank) % 2**63
        torch.default_generator.manual_seed(number)
        if self.fabric.device.type == "cuda":
            torch.cuda.manual_seed(number)
        elif self.fabric.device.type == "mps":
            torch.mps.manual_seed(number)

    def gradient(self, tasks: Task, stop: bool, meanwhile: Callable[[], object] | None = None) -> Found:
        """Put the gradient of the mean loss into the parameters, part by part, and clip it.

        meanwhile: what can be done beside a GPU that is at work.
        """
        count = tasks.query.tasks
        size = tasks_of_part(self.learner, count, self.accumulate)
        parts = [tasks] if size >= count else [select(tasks, slice(i, i + size)) for i in range(0, count, size)]
        try:
            total, norm, seen = self._side_by_side(parts) or self._in_turn(parts)
        except LinAlgError:
            if self.shared:  # the other processes wait in this step: it cannot be ended in order
                raise
            return Found(math.nan, math.nan, [], stop)
        statistics = average(seen)
        if self.shared:
            if self.compiled is not None:
                for p in self.parameters:
                    p.grad = None if p.grad is None else self._mean(p.grad)
            both = self._mean(torch.stack([total, total.new_tensor(float(stop))]))
            total, stop = both[0], bool(both[1] > 0)
            statistics = [(layer, self._mean(values)) for layer, values in statistics]
        norm = self._clipped(None if self.shared else norm)
        if on_processor(total):
            return Found(float(total), float(norm), statistics, stop)
        if meanwhile is not None:
            meanwhile()
        loss, length = torch.stack([total, norm.to(total)]).tolist()  # at once: each look waits for the device
        return Found(loss, length, statistics, stop)

    def _side_by_side(self, parts: list[Task]) -> tuple[Tensor, None, Seen] | None:
        """What `_in_turn` does, several parts at a time; None where they have to go one after the other."""
        compiles = self.compiled is not None and not self.compiled.refused
        lanes = 1 if self.wrapped or compiles else parts_at_once(self.learner, len(parts), self.accumulate, self.side)
        done = None if lanes == 1 else self.side_by_side.of(parts, lanes)
        if done is None:
            return None
        pairs = zip(done.grads, self.parameters, strict=True)
        self._put([None if g is None else laid_out_as(g, p) for g, p in pairs])
        return done.loss, None, done.seen

    def _in_turn(self, parts: list[Task]) -> tuple[Tensor, Tensor | None, Seen]:
        """Add the gradient of the parts' mean loss to that in the parameters; the loss, the norm of the gradient if
        the program that made it says so, and what running norms saw."""
        count, total, norm = sum(part.query.tasks for part in parts), self.parameters[0].new_zeros(()), None
        with collect() as seen:
            for part in parts:
                share = part.query.tasks / count if len(parts) > 1 else None
                loss, norm = self._add(part, share, seen, last=part is parts[-1])
                total += loss
        return total, norm if len(parts) == 1 else None, seen

    def _add(self, part: Task, share: float | None, seen: Seen, last: bool) -> tuple[Tensor, Tensor | None]:
        """Add the gradient of a part's mean loss to that in the parameters; its loss. Both times `share`.

        And the norm of the part's gradient, where the program that made it says so.
        """
        done = self.compiled.of(part) if self.compiled else None
        if done is None:
            with self._sync(last), self.context():
                loss = self.model(part)
                loss = loss if share is None else loss * share
                self.fabric.backward(loss) if self.wrapped else loss.backward()
            return loss.detach(), None
        loss, norm, grads, statistics = done
        if share is not None:
            loss, grads = loss * share, [g * share for g in grads]
        self._put(grads)
        for layer, values in statistics:
            seen.setdefault(layer, []).append(values)
        return loss, norm

    def _put(self, grads: Sequence[Tensor | None]) -> None:
        """Add gradients to those in the parameters; None adds nothing."""
        for p, g in zip(self.parameters, grads, strict=True):
            if g is not None:
                p.grad = g if p.grad is None else p.grad + g

    def fold_in(self, found: Found) -> None:
        """Move running norms towards what a step saw: only after it proved finite."""
        for layer, values in found.statistics:
            fold_in(layer, values)

    def explain(self, tasks: Task, found: Found, step: int, seed: int) -> UserError:
        """The sentence that names the step and the task of a loss or gradient that is not finite.

        Every process calls this together, and all come to the same sentence.
        """
        world, rank = (self.fabric.world_size, self.fabric.global_rank) if not self.learner.pooled else (1, 0)
        codes = (2 * (t * world + rank) + kind for t, kind in self._bad(tasks))
        none = 2**30
        first = torch.tensor(next(codes, none), device=self.fabric.device)
        if self.shared:
            first = cast(Tensor, self.fabric.all_reduce(first, reduce_op="min"))
        number, kind = divmod(int(first), 2)
        what = f"the {'gradient' if kind else 'loss'} of task {number} (counted from 0) is not finite"
        if int(first) == none:
            what = f"the loss is {found.loss} and the gradient's norm {found.norm} over the tasks together"
        elif self.learner.pooled:
            what = f"the {'gradient' if kind else 'loss'} of the pooled rows is not finite"
        return UserError(
            f"training stopped at step {step}: {what} (seed {seed}); the weights of step {step - 1} are kept; "
            "start again with a smaller lr or inner_lr, or with --train.clip 10."
        )

    def _bad(self, tasks: Task) -> Any:
        """The number of every task that is not finite by itself, with 0 for its loss or 1 for its gradient."""
        for t in range(tasks.query.tasks):
            try:
                with self.fabric.autocast():
                    loss = self.learner(select(tasks, slice(t, t + 1)))
            except LinAlgError:
                yield t, 0
                continue
            # not backward(): other processes would wait for these gradients
            grads = torch.autograd.grad(loss, self.parameters, allow_unused=True)
            if not torch.isfinite(loss):
                yield t, 0
            elif not all(bool(torch.isfinite(g).all()) for g in grads if g is not None):
                yield t, 1

    def _sync(self, last: bool) -> Any:
        if not (self.shared and self.wrapped):
            return nullcontext()
        return self.fabric.no_backward_sync(self.model, enabled=not last)

    def _mean(self, values: Tensor) -> Tensor:
        return cast(Tensor, self.fabric.all_reduce(values, reduce_op="mean"))

    def _clipped(self, norm: Tensor | None) -> Tensor:
        """The norm of the whole gradient, before it is clipped here; None: still to be found."""
        if norm is None:
            norm = torch.nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        if self.clip is not None:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self.clip, norm)
        return norm


def tasks_of_part(learner: MetaLearner, tasks: int, accumulate: int) -> int:
    """How many of so many tasks are in one graph."""
    return min(math.ceil(tasks / accumulate), learner.chunk or tasks)


def parts_at_once(learner: MetaLearner, parts: int, accumulate: int, side: int | None = None) -> int:
    """How many of so many parts go side by side, where one process runs them as they are, not compiled and not in mixed
    precision: `side` at most, and one where parts are there to save memory (`accumulate`) and no `side` is given."""
    if not on_processor(next(learner.parameters())) or (accumulate > 1 and side is None):
        return 1
    return at_once(parts, side)


def rate(step: int, steps: int, warmup: int, schedule: str) -> float:
    """The share of the full rate at a step, counted from 1.

    step / warmup while warming up; then 1, or (1 + cos(pi (step - 1 - warmup) / (steps - warmup))) / 2.
    """
    if step <= warmup:
        return step / warmup
    if schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - 1 - warmup) / (steps - warmup)))


def draw_tasks(learner: MetaLearner, source: Source, meta_batch: int, rows: int, rng: torch.Generator) -> Task:
    """A meta-batch; for pooled learners one task that has `rows` pooled rows as its query and no support."""
    if learner.pooled:
        query = source.sample_pooled("train", rows, rng)
        return Task(map_tensors(query, lambda t: t[:, :0]), query)
    return source.sample("train", meta_batch, rng)
