"""The outer loop: the same for every learner, which it only asks for one scalar."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from torch import Tensor

from quickstudy import checkpoint
from quickstudy.core.errors import UserError
from quickstudy.core.learner import MetaLearner
from quickstudy.core.source import Source
from quickstudy.core.task import Task, select
from quickstudy.evaluate import evaluate
from quickstudy.nets.norm import average, collect, fold_in
from quickstudy.record import Bar, Record


@dataclass
class Run:
    """What training gives back. The learner is changed in place and holds the best weights.

    best_score: on the validation tasks, higher is better (None if there was no validation).
    stopped: "finished", "early" (no better for `patience` validations) or "interrupted".
    """

    learner: MetaLearner
    log: list[dict[str, Any]]
    steps: int
    seconds: float
    stopped: str
    best_step: int
    best_score: float | None
    folder: Path | None = None


@dataclass
class _Progress:
    """What is needed beside weights and optimiser to go on exactly."""

    step: int = 0
    best_step: int = 0
    best_score: float | None = None
    since_best: int = 0
    seconds: float = 0.0
    best: dict[str, Tensor] = field(default_factory=dict)


def train(
    learner: MetaLearner,
    source: Source,
    steps: int = 1000,
    meta_batch: int = 4,
    lr: float = 1e-3,
    weight_decay: float = 0.0,
    warmup: int = 0,
    schedule: Literal["constant", "cosine"] = "cosine",
    clip: float | None = None,
    accumulate: int = 1,
    pooled_rows: int = 256,
    valid_every: int = 250,
    valid_tasks: int = 100,
    patience: int | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    resume: bool = False,
    save_every: int = 250,
    tensorboard: bool = False,
    progress: bool = True,
    accelerator: str = "cpu",
    devices: int = 1,
    nodes: int = 1,
    precision: Literal["32-true", "64-true", "bf16-mixed"] = "32-true",
    valid_source: Source | None = None,
) -> Run:
    """Train a learner over many tasks with Adam; the best weights on the validation tasks are kept.

    The tasks of step t come from (seed, t) alone: resuming is exact, and the same tasks are used
    however many processes share them.

    Args:
        learner: the method; changed in place.
        source: where tasks come from.
        steps: outer steps.
        meta_batch: tasks in an outer step, over all processes.
        lr: rate of the outer optimiser.
        weight_decay: decoupled weight decay (AdamW).
        warmup: steps over which the rate rises from 0.
        schedule: the rate after that: constant, or falling to 0 along a cosine.
        clip: largest norm of the outer gradient; none if not given.
        accumulate: work the meta-batch through in this many parts, for less memory.
        pooled_rows: rows in a step of a pooled baseline.
        valid_every: steps between validations; 0 for none.
        valid_tasks: tasks in a validation.
        patience: stop after this many validations without a better score.
        seed: decides the tasks and whatever else is random.
        out: folder for best.safetensors, last.safetensors and log.jsonl.
        resume: go on from last.safetensors in that folder.
        save_every: steps between saves of last.safetensors.
        tensorboard: also write TensorBoard events.
        progress: show a progress bar on a terminal.
        accelerator: cpu, cuda, mps or auto.
        devices: processes on each machine.
        nodes: machines; start the same command on each with the variables of torchrun.
        precision: 32-true, 64-true, or bf16-mixed for autocast.
        valid_source: other tasks to validate on (fewer classes, say); `source` if not given.

    Raises:
        UserError: nothing to train, options that do not fit, or a loss or gradient that is not
            finite; the last good weights are then kept.
    """
    if not learner.trained:
        raise UserError(f"{type(learner).__name__} has nothing to train: evaluate it as it is.")
    for name, value in {"steps": steps, "meta_batch": meta_batch, "accumulate": accumulate, "devices": devices}.items():
        if value < 1:
            raise UserError(f"{name} is {value} and must be at least 1.")
    folder = Path(out) if out is not None else None
    if resume and not (folder and (folder / "last.safetensors").exists()):
        raise UserError(f"nothing to resume in {folder}: there is no last.safetensors; start without resume.")
    world = devices * nodes
    if meta_batch % world and not learner.pooled:
        raise UserError(f"meta_batch {meta_batch} cannot be shared by {world} processes: make it a multiple.")

    strategy = DDPStrategy(find_unused_parameters=True) if world > 1 else "auto"
    fabric = Fabric(accelerator=accelerator, devices=devices, num_nodes=nodes, precision=precision, strategy=strategy)
    fabric.launch()
    if precision == "64-true":
        learner.double()
    optimizer = torch.optim.AdamW(learner.parameters(), lr=lr, weight_decay=weight_decay, fused=True)
    model, optimizer = fabric.setup(learner, optimizer)
    source = source.to(fabric.device)
    valid_source = (valid_source or source).to(fabric.device)
    place = _Progress()
    if resume and folder:
        _load_last(folder, learner, optimizer, place)
    if folder and fabric.is_global_zero:
        folder.mkdir(parents=True, exist_ok=True)
    quiet = None if not fabric.is_global_zero else folder
    record = Record(quiet, tensorboard, place.step)
    facts = {"seed": seed, "options": {"steps": steps, "meta_batch": meta_batch, "lr": lr, "precision": precision}}
    stopped, shown = "finished", ""
    start = time.perf_counter() - place.seconds

    def save_last() -> None:
        if folder and fabric.is_global_zero:
            place.seconds = time.perf_counter() - start
            _save_last(folder, learner, optimizer, place, source, facts)

    def validate(step: int) -> bool:
        """Score the validation tasks; whether to go on."""
        nonlocal shown
        with fabric.autocast():
            found = evaluate(learner, valid_source, "valid", tasks=valid_tasks, seed=seed)
        score = found.signs[found.headline] * found.mean()
        shown = f"valid {found.headline} {found.mean(found.headline):.3f}"
        record.add(step=step, valid=found.mean(found.headline), measure=found.headline)
        place.since_best += 1
        if place.best_score is None or score > place.best_score:
            place.best_score, place.best_step, place.since_best = score, step, 0
            place.best = {k: v.detach().cpu().clone() for k, v in learner.state_dict().items()}
            if folder and fabric.is_global_zero:
                scores = {"valid": json_scores(found)}
                checkpoint.save(learner, folder / "best.safetensors", source, step=step, scores=scores, **facts)
        return patience is None or place.since_best < patience

    with _interruptible() as interrupted, torch.random.fork_rng(), Bar(steps, place.step, progress) as bar:
        learner.train()
        for step in range(place.step + 1, steps + 1):
            rate = lr * _rate(step, steps, warmup, schedule)
            for group in optimizer.param_groups:
                group["lr"] = rate
            # whatever a learner draws for itself (dropout, say) also depends on (seed, step) alone
            torch.manual_seed((seed * 1_000_003 + step) * 997 + fabric.global_rank)
            tasks = _tasks(learner, source, meta_batch, pooled_rows, source.rng(seed, "train", step))
            mine = select(tasks, slice(fabric.global_rank, None, world)) if not learner.pooled else tasks
            optimizer.zero_grad()
            try:
                loss = _gradient(fabric, model, learner, mine, accumulate)
                norm = _gradient_norm(learner, clip)
                if not math.isfinite(loss) or not math.isfinite(norm):
                    _explain(learner, mine, loss, step, seed)
            except UserError:
                place.step = step - 1
                save_last()
                raise
            optimizer.step()
            place.step = step
            bar.advance(meta_batch if not learner.pooled else 1, loss, shown)
            if step % 10 == 0 or step == 1:
                seconds = round(time.perf_counter() - start, 3)
                record.add(step=step, loss=loss, gradient_norm=norm, lr=rate, seconds=seconds)
            if valid_every and (step % valid_every == 0 or step == steps) and not validate(step):
                stopped = "early"
            if interrupted():
                stopped = "interrupted"
            if step % save_every == 0 or step == steps or stopped != "finished":
                save_last()
            if stopped != "finished":
                break
    record.close()
    if place.best and stopped != "interrupted":
        learner.load_state_dict(place.best)
    elif folder and fabric.is_global_zero and not place.best:
        checkpoint.save(learner, folder / "best.safetensors", source, step=place.step, scores={}, **facts)
    learner.eval()
    seconds = time.perf_counter() - start
    return Run(learner, record.rows, place.step, seconds, stopped, place.best_step, place.best_score, folder)


def json_scores(found: Any) -> dict[str, Any]:
    """Mean and 95 % interval of every measure of an evaluation, for a card."""
    return {name: {"mean": found.mean(name), "interval": found.interval(name)} for name in found.signs}


def _rate(step: int, steps: int, warmup: int, schedule: str) -> float:
    if step <= warmup:
        return step / warmup
    if schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - 1 - warmup) / max(1, steps - warmup)))


def _tasks(learner: MetaLearner, source: Source, meta_batch: int, rows: int, rng: torch.Generator) -> Task:
    if learner.pooled:
        query = source.sample_pooled("train", rows, rng)
        return Task(support=select_rows(query, 0), query=query)
    return source.sample("train", meta_batch, rng)


def select_rows(rows: Any, n: int) -> Any:
    """The first n rows of each task of some Examples."""
    return type(rows)(*(t[:, :n] for t in rows))


def _gradient(fabric: Fabric, model: Any, learner: MetaLearner, tasks: Task, accumulate: int) -> float:
    """Add the gradient of the mean loss over `tasks` to the parameters, part by part; the mean loss."""
    count = tasks.query.tasks
    size = min(math.ceil(count / accumulate), learner.chunk or count)
    total = 0.0
    with collect() as seen:
        for first in range(0, count, size):
            part = select(tasks, slice(first, first + size))
            last = first + size >= count
            with fabric.no_backward_sync(model, enabled=not last) if fabric.world_size > 1 else nullcontext():
                loss = model(part) * (part.query.tasks / count)
                fabric.backward(loss)
            total += float(loss.detach())
    for layer, statistics in average(seen):
        fold_in(layer, cast(Tensor, fabric.all_reduce(statistics, reduce_op="mean")))
    return float(cast(Tensor, fabric.all_reduce(torch.tensor(total, device=fabric.device), reduce_op="mean")))


def _gradient_norm(learner: MetaLearner, clip: float | None) -> float:
    parameters = [p for p in learner.parameters() if p.grad is not None]
    if clip is not None:
        return float(torch.nn.utils.clip_grad_norm_(parameters, clip))
    return float(torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]))


def _explain(learner: MetaLearner, tasks: Task, loss: float, step: int, seed: int) -> None:
    """Raise the sentence that names the step and the task of a loss or gradient that is not finite."""
    for t in range(tasks.query.tasks):
        learner.zero_grad()
        one = learner(select(tasks, slice(t, t + 1)))
        one.backward()
        grads = [p.grad for p in learner.parameters() if p.grad is not None]
        what = "loss" if not torch.isfinite(one) else "gradient"
        if what == "loss" or not all(bool(torch.isfinite(g).all()) for g in grads):
            raise UserError(
                f"training stopped at step {step}: the {what} of task {t} (seed {seed}) is not finite; the weights "
                f"of step {step - 1} are kept; try a smaller lr or inner_lr, or --train.clip 10."
            )
    raise UserError(
        f"training stopped at step {step}: the loss is {loss} over the tasks together (seed {seed}); the weights "
        f"of step {step - 1} are kept; try a smaller lr, or --train.clip 10."
    )


@contextmanager
def _interruptible() -> Iterator[Any]:
    """Let the first Ctrl-C end the step at hand in order; a second one ends at once."""
    hit: list[int] = []

    def note(number: int, frame: Any) -> None:
        if hit:
            raise KeyboardInterrupt
        hit.append(number)

    try:
        before = signal.signal(signal.SIGINT, note)
    except ValueError:  # not in the main thread: whoever started us handles Ctrl-C
        yield lambda: False
        return
    try:
        yield lambda: bool(hit)
    finally:
        signal.signal(signal.SIGINT, before)


def _save_last(
    folder: Path, learner: MetaLearner, optimizer: Any, place: _Progress, source: Source, facts: dict[str, Any]
) -> None:
    tensors = {f"learner/{k}": v for k, v in learner.state_dict().items()}
    tensors |= {f"best/{k}": v for k, v in place.best.items()}
    for i, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{i}/{k}": v for k, v in state.items()}
    kept = {k: getattr(place, k) for k in ("step", "best_step", "best_score", "since_best", "seconds")}
    card = {**checkpoint.learner_facts(learner, source), "progress": kept, **facts}
    checkpoint.write(folder / "last.safetensors", "training", tensors, card)


def _load_last(folder: Path, learner: MetaLearner, optimizer: Any, place: _Progress) -> None:
    tensors, card, _ = checkpoint.read(folder / "last.safetensors", "training")
    parts: dict[str, dict[str, Tensor]] = {"learner": {}, "best": {}, "optimizer": {}}
    for name, tensor in tensors.items():
        part, rest = name.split("/", 1)
        parts[part][rest] = tensor
    try:
        learner.load_state_dict(parts["learner"])
    except RuntimeError:
        raise UserError(f"{folder}/last.safetensors is of another learner: resume with the options it had.") from None
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in parts["optimizer"].items():
        i, key = name.split("/")
        state.setdefault(int(i), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    place.best = parts["best"]
    for key, value in card["progress"].items():
        setattr(place, key, value)
