"""The outer loop: the same for every learner, which it only asks for one scalar."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from lightning_fabric import Fabric

from quickstudy import checkpoint
from quickstudy.ahead import Ahead
from quickstudy.core.catalogue import describe
from quickstudy.core.errors import UserError
from quickstudy.core.learner import MetaLearner
from quickstudy.core.source import Source
from quickstudy.evaluate import Evaluation, evaluate
from quickstudy.interrupt import interruptible
from quickstudy.launch import launched
from quickstudy.options import check_learner, check_options
from quickstudy.outer import Outer, draw_tasks, rate
from quickstudy.plan import Choice, choose
from quickstudy.record import Bar, Record, summary_writer
from quickstudy.resume import BEST, Place, Saved, clear, refuse_to_overwrite, save_last


@dataclass
class Run:
    """What training gives back. The learner is changed in place and holds the best weights.

    best_score: on the validation tasks, higher is better (None if there was no validation: the best
    weights are then the last).
    stopped: "finished", "early" (no better for `patience` validations), "halted" (by `watch`) or "interrupted".
    """

    learner: MetaLearner
    log: list[dict[str, Any]]
    steps: int
    seconds: float
    stopped: str
    best_step: int
    best_score: float | None
    folder: Path | None = None


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
    memory: str | None = None,
    compile: bool = False,
    pooled_rows: int = 256,
    valid_every: int = 250,
    valid_tasks: int = 100,
    patience: int | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    save_every: int = 250,
    tensorboard: bool = False,
    progress: bool = True,
    accelerator: str = "cpu",
    devices: int = 1,
    nodes: int = 1,
    precision: Literal["32-true", "64-true", "bf16-mixed"] = "32-true",
    valid_source: Source | None = None,
    valid_seed: int | None = None,
    started: Callable[[], object] | None = None,
    watch: Callable[[int, Evaluation], object] | None = None,
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
        warmup: steps over which the rate rises from 0 (if it is more than `steps`, it only rises).
        schedule: the rate after that: constant, or falling to 0 along a cosine.
        clip: largest norm of the outer gradient; none if not given.
        accumulate: work the meta-batch through in this many parts, one after the other, for less memory.
        memory: the plan for the inner steps by name (inner/memory.py), or a budget such as "500MB" for what
            the tensors of an outer step may hold at once: the fastest exact plan and the fewest parts that keep
            to it, measured on the first tasks.
        compile: run the outer step as one compiled program; it takes seconds to minutes before the first
            step, and where it cannot be, training goes on without, after a warning.
        pooled_rows: rows in a step of a pooled baseline; several processes all work on the same rows.
        valid_every: steps between validations; 0 for none.
        valid_tasks: tasks in a validation.
        patience: stop after this many validations without a better score.
        seed: decides the tasks and whatever else is random.
        out: folder for best.safetensors, last.safetensors and log.jsonl; one that all machines see.
        resume: go on from last.safetensors in that folder, with the options that the run had: to the very
            same weights as an unbroken run (up to rounding on other devices or another number of them).
            A finished run is given back as it is; at a constant rate it may be given more steps.
        overwrite: start again in a folder that holds a run.
        save_every: steps between saves of last.safetensors.
        tensorboard: also write TensorBoard events.
        progress: show a progress bar on a terminal.
        accelerator: cpu, cuda, mps or auto.
        devices: processes on each machine.
        nodes: machines; start the same command on each with the variables of torchrun.
        precision: 32-true, 64-true, or bf16-mixed for autocast.
        valid_source: other tasks to validate on (fewer classes, say); `source` if not given.
        valid_seed: decides the validation tasks alone, so that runs of several seeds can share them; `seed` if not
            given.
        started: called once, by the first process, when all was found to fit and before the first step.
        watch: called after every validation with the step and what was found; a true answer stops the run there.

    Raises:
        UserError: nothing to train, options or tasks that do not fit (before anything is written), or a
            loss or gradient that is not finite; the last good weights are then kept.
    """
    options = {
        "steps": steps, "meta_batch": meta_batch, "lr": lr, "weight_decay": weight_decay, "warmup": warmup,
        "schedule": schedule, "clip": clip, "accumulate": accumulate, "pooled_rows": pooled_rows,
        "valid_every": valid_every, "valid_tasks": valid_tasks, "patience": patience, "precision": precision,
        "memory": memory, "compile": compile,
    }  # fmt: skip
    if resume and overwrite:
        raise UserError("resume goes on with a run and overwrite starts it again: give one of them.")
    check_options(options | {"save_every": save_every, "devices": devices, "nodes": nodes}, learner.pooled)
    folder = Path(out) if out is not None else None
    valid_source = valid_source or source
    check_learner(learner, source, valid_source if valid_every else None, seed)
    facts: dict[str, Any] = {"seed": seed, "options": options}
    if valid_seed is not None:
        facts["valid_seed"] = valid_seed
    saved, side = Saved.read(folder) if resume else None, None
    if memory:
        tasks = draw_tasks(learner, source, meta_batch // (devices * nodes), pooled_rows, source.rng(seed, "train", 1))
        # a run that goes on keeps the plan that was measured for it
        plan = Choice(**saved.card["plan"]) if saved and "plan" in saved.card else choose(learner, tasks, memory)
        facts["plan"] = asdict(plan)
        accumulate, side = max(accumulate, plan.parts), plan.side
        plan.give(learner)
    card = facts
    if folder:
        facts["valid_source"] = describe(valid_source, "tasks")
        card = {**facts, **checkpoint.learner_facts(learner, source)}
    if saved:
        saved.check(card)
    elif folder and not overwrite:
        refuse_to_overwrite(folder)
    if tensorboard and folder:
        summary_writer()

    fabric = launched(accelerator, devices, nodes, precision)
    if precision == "64-true":
        learner.double()
    model = fabric.setup_module(learner)
    outer = Outer(fabric, model, learner, clip, accumulate, precision == "bf16-mixed", compile, side)
    optimizer = torch.optim.AdamW(outer.parameters, lr=lr, weight_decay=weight_decay, fused=True)
    source, valid_source = source.to(fabric.device), valid_source.to(fabric.device)
    place = saved.load(learner, optimizer) if saved else Place()
    del saved
    ours = folder if fabric.is_global_zero else None
    if ours and not resume:
        clear(ours)
    if started and fabric.is_global_zero:
        started()
    shown, start = "", time.perf_counter() - place.seconds

    def save() -> None:
        place.seconds = time.perf_counter() - start
        if ours:
            save_last(ours, learner, optimizer, place, card)

    def save_best(step: int, scores: dict[str, Any]) -> None:
        if ours:
            spent = round(time.perf_counter() - start, 3)
            summary = {**record.summary(), "seconds": spent}
            checkpoint.save(learner, ours / BEST, source, step=step, scores=scores, log=summary, **facts)

    def validate(step: int) -> bool:
        """Score the validation tasks; whether to go on."""
        nonlocal shown
        with fabric.autocast():
            found = evaluate(learner, valid_source, "valid", tasks=valid_tasks, seed=facts.get("valid_seed", seed))
        score = found.signs[found.headline] * found.mean()
        if fabric.world_size > 1:  # all decide alike, whatever their processors round
            score = fabric.broadcast(score)
        shown = f"valid {found.headline} {found.mean():.3f}"
        record.add(step=step, valid=found.mean(), measure=found.headline)
        place.since_best += 1
        if math.isfinite(score) and (place.best_score is None or score > place.best_score):
            place.best_score, place.best_step, place.since_best = score, step, 0
            place.best = {k: v.detach().cpu().clone() for k, v in learner.state_dict().items()}
            save_best(step, {"valid": json_scores(found)})
        if watch and fabric.broadcast(bool(watch(step, found))):
            place.stopped = "halted"
        elif patience is not None and place.since_best >= patience:
            place.stopped = "early"
        return not place.stopped

    todo = range(place.step + 1, steps + 1) if place.stopped != "early" else range(0)
    if resume and not todo:
        _say(fabric, f"the run in {folder} is finished ({place.step} steps): its best weights are loaded.")
    place.stopped = "" if todo else place.stopped if place.stopped == "early" else "finished"
    drawn = Ahead(lambda step: outer.tasks(source, meta_batch, pooled_rows, source.rng(seed, "train", step)), todo)
    unit = "rows" if learner.pooled else "tasks"
    with (
        interruptible(fabric.is_global_zero) as interrupted,
        _own_randomness(fabric.device),
        Record(ours, tensorboard, place.step) as record,
        Bar(steps, place.step, progress and fabric.is_global_zero, unit) as bar,
    ):
        learner.train()
        for step, tasks in zip(todo, drawn, strict=True):
            now = lr * rate(step, steps, warmup, schedule)
            for group in optimizer.param_groups:
                group["lr"] = now
            # whatever a learner draws for itself (dropout, say) also depends on (seed, step) alone
            outer.seed((seed * 1_000_003 + step) * 997)
            optimizer.zero_grad()
            found = outer.gradient(tasks, interrupted(), drawn.look)
            if not found.finite:
                outer.seed((seed * 1_000_003 + step) * 997)
                error = outer.explain(tasks, found, step, seed)
                optimizer.zero_grad()
                save()
                if not place.best:
                    save_best(place.step, {})
                raise error
            optimizer.step()
            outer.fold_in(found)
            place.step = step
            bar.advance(pooled_rows if learner.pooled else meta_batch, found.loss, shown)
            if step % 10 == 0 or step == 1:
                seconds = round(time.perf_counter() - start, 3)
                record.add(step=step, loss=found.loss, gradient_norm=found.norm, lr=now, seconds=seconds)
            if valid_every and (step % valid_every == 0 or step == steps) and not validate(step):
                pass  # it says itself why not to go on
            elif step == steps:
                place.stopped = "finished"
            elif found.stop or (fabric.world_size == 1 and interrupted()):
                place.stopped = "interrupted"
            if step % save_every == 0 or place.stopped:
                save()
            if place.stopped:
                break
        if place.best:
            learner.load_state_dict(place.best)
        else:
            place.best_step = place.step
        if not place.best or (ours and not (ours / BEST).exists()):
            save_best(place.best_step, {})
    optimizer.zero_grad()
    learner.eval()
    if fabric.world_size > 1:
        fabric.barrier()  # whoever reads the folder next finds it complete
    if place.stopped == "interrupted":
        how = f"saved in {folder}; go on with resume" if folder else "not saved, since no folder was given"
        _say(fabric, f"stopped at step {place.step} of {steps}: {how}.")
    best = place.best_step, place.best_score
    return Run(learner, record.rows, place.step, place.seconds, place.stopped, *best, folder)


def json_scores(found: Evaluation) -> dict[str, Any]:
    """Mean and 95 % interval of every measure of an evaluation, for a card."""
    return {name: {"mean": found.mean(name), "interval": found.interval(name)} for name in found.signs}


def _say(fabric: Fabric, sentence: str) -> None:
    if fabric.is_global_zero:
        print(sentence, file=sys.stderr)


@contextmanager
def _own_randomness(device: torch.device) -> Iterator[None]:
    """Put the global random state of the CPU, and of the device if another one is used, back afterwards."""
    with torch.random.fork_rng(devices=[device.index or 0] if device.type == "cuda" else []):
        yield
