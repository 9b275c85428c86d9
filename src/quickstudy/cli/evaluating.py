"""`quickstudy evaluate`: scores on unseen tasks, beside plain baselines on the same tasks."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentParser, Namespace
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from quickstudy import checkpoint
from quickstudy.cli.arguments import Command, check_seed
from quickstudy.core.catalogue import build
from quickstudy.core.errors import UserError
from quickstudy.core.files import check_place, write_whole
from quickstudy.core.learner import MetaLearner, Stepwise
from quickstudy.core.source import Source, Split
from quickstudy.curves import Curve, adaptation_curve, shot_curve
from quickstudy.evaluate import evaluate, evaluating, name_of, ready
from quickstudy.fanout import Crew
from quickstudy.learners import LEARNERS, make
from quickstudy.record import read_log
from quickstudy.report import write_report
from quickstudy.scores import Evaluation
from quickstudy.shipped import located
from quickstudy.tables import curve_table, evaluation_table, shot_table, terminal
from quickstudy.tasks.pool import ClassSource

BASELINES = {
    "classification": ("chance", "centroid", "logistic"),
    "regression": ("chance", "ridge", "scratch"),
    "zero-shot": ("chance", "nearest_description"),
}
"""Without training, by kind of task; those that fit."""
TRAINED = "trained"
"""Stands for: the tasks that the checkpoint was trained on."""


def _add(parser: ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=str, help="the file that `quickstudy train` wrote")
    parser.add_argument("--split", type=Split, default="test", help="train, valid or test")
    parser.add_argument("--test_tasks", type=int, default=600, help="how many tasks; the same ones for every learner")
    parser.add_argument("--seed", type=int, default=0, help="decides which tasks")
    parser.add_argument("--baselines", type=str, default="auto", help="names with commas, auto, or none")
    parser.add_argument("--beside", type=list[str], default=[], help="more checkpoints to compare with, as A B")
    parser.add_argument("--shots", type=str, default="", help="measure a shot curve, as 1,2,5,10")
    parser.add_argument("--steps", type=int, default=0, help="measure the score after 0, 1, ... inner steps")
    parser.add_argument("--curve_tasks", type=int, default=200, help="tasks for each point of a curve")
    parser.add_argument("--device", type=str, default="cpu", help="cpu, cuda, ...")
    parser.add_argument("--processes", type=int, default=1, help="share the tasks out among so many processes")
    parser.add_argument("--json", type=str | None, default=None, help="write every number to this file")
    parser.add_argument("--report", type=str | None, default=None, help="write a page of HTML to this file")


def card_tasks(words: Sequence[str]) -> dict[str, Any]:
    """The tasks that the checkpoint among the words was trained on, as `Command.defaults` gives them."""
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word.startswith("-"):
            if "=" not in word and rest and not rest[0].startswith("--"):
                rest.pop(0)  # the value of the option
        elif (file := located(word)).is_file():
            card = checkpoint.glance(file)
            return {"tasks": card["tasks"]} if card.get("tasks") else {}
    return {}


def measure(
    learner: MetaLearner, source: Source, options: Namespace, name: str | None = None, processes: int | Crew = 1
) -> Evaluation:
    """`evaluate` with a progress bar on a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        line = bar.add_task(escape(f"evaluating {name or 'the learner'}"), total=options.test_tasks)
        watch = lambda done: bar.update(line, completed=done)  # noqa: E731
        asked = (options.split, options.test_tasks, options.seed)
        return evaluate(learner, source, *asked, name=name, watch=watch, processes=processes)


def baselines(asked: str, source: Source, seed: int) -> dict[str, MetaLearner]:
    """The baselines by name, for the tasks of a source.

    Raises UserError for one that is unknown or would have to be trained.
    """
    fitting = (name for name in BASELINES[source.spec.kind] if LEARNERS[name].fits(source.spec))
    names = tuple(fitting) if asked == "auto" else _listed(asked)
    found: dict[str, MetaLearner] = {}
    for name in names:
        if LEARNERS[name].trained:
            raise UserError(f"{name} has to be trained first: train it, and give its checkpoint with --beside.")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            found[name] = make(name, source.spec)
    return found


def _listed(asked: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in asked.split(",") if name.strip() not in ("", "none"))


def _check(options: Namespace) -> None:
    """Raise UserError for what would only be found to be wrong after long work."""
    check_seed(options.seed, "--seed")
    for name, least in (("test_tasks", 1), ("curve_tasks", 1), ("steps", 0), ("processes", 1)):
        if getattr(options, name) < least:
            raise UserError(f"--{name} is {getattr(options, name)}: give a whole number of at least {least}.")
    _shots(options.shots)
    for path in filter(None, (options.json, options.report)):
        if Path(path).suffix == ".safetensors":
            raise UserError(f"{path} is the name of a checkpoint: give another one to --json and --report.")
        check_place(path)


def run(options: Namespace) -> int:
    _check(options)
    device = device_called(options.device)
    trained = checkpoint.load(options.checkpoint)
    if options.tasks.name == TRAINED:
        raise UserError(f"{options.checkpoint} does not say which tasks it was trained on: name some with --tasks.")
    source = build(options.tasks.as_dict(), "tasks").read_by(trained.reader).to(device)
    own = name_of(trained.learner, "learner")
    learners = {own: trained.learner.to(device)}
    for path in options.beside:
        beside = checkpoint.load(path)
        label = name_of(beside.learner, "learner")
        learners[label if label not in learners else str(path)] = beside.learner.to(device)
    for name, learner in baselines(options.baselines, source, options.seed).items():
        learners.setdefault(name, learner.to(device))
    if options.shots and source.spec.kind == "zero-shot":
        raise UserError("--shots is about examples of each class, and zero-shot tasks show none: leave it out.")
    if options.steps and not isinstance(trained.learner, Stepwise):
        raise UserError(f"{own} does not adapt in steps, which --steps is about: leave it out.")
    with Crew(options.processes) as crew:
        found = [measure(learner, source, options, name, crew) for name, learner in learners.items()]
        terminal().print(evaluation_table(found))
        shots, steps = curves(options, learners, source, crew)
    if shots:
        terminal().print(shot_table(list(shots.values())))
    if steps:
        terminal().print(curve_table(steps))
    if options.json:
        numbers = {
            "evaluations": [json.loads(one.to_json()) for one in found],
            "shot_curves": [curve.card() for curve in shots.values()],
            "adaptation_curve": steps.card() if steps else None,
            "checkpoint": trained.card,
        }
        write_whole(options.json, (json.dumps(numbers, ensure_ascii=False) + "\n").encode())
        print(f"wrote {options.json}")
    if options.report:
        command = shlex.join(["quickstudy", "evaluate", *options.words])
        log = run_log(Path(options.checkpoint).parent)
        page(options.report, command, trained.learner, trained.card, source, found, log, shots, steps)
        print(f"wrote {options.report}")
    return 0


def curves(
    options: Namespace, learners: dict[str, MetaLearner], source: Source, processes: int | Crew = 1
) -> tuple[dict[str, Curve], Curve | None]:
    """The shot curves of all learners and the adaptation curve of the first, where asked for."""
    names = list(learners)
    made: dict[str, Curve] = {}
    shots = _shots(options.shots)
    if shots:
        for name in (n for n in names if n != "chance"):
            rest = (shots, options.curve_tasks, options.seed, options.split)
            made[name] = shot_curve(learners[name], source, *rest, name=name, processes=processes)
    if not options.steps:
        return made, None
    rest = (options.steps, options.curve_tasks, options.seed, options.split)
    return made, adaptation_curve(learners[names[0]], source, *rest, name=names[0])


def _shots(asked: str) -> list[int]:
    try:
        shots = [int(part) for part in asked.split(",")] if asked else []
        if min(shots, default=1) < 1:
            raise ValueError
    except ValueError:
        raise UserError(f"--shots is {asked!r}: give whole numbers from 1 with commas, as 1,2,5,10.") from None
    return shots


def page(
    path: str | Path,
    command: str,
    learner: MetaLearner,
    card: dict[str, Any],
    source: Source,
    found: Sequence[Evaluation],
    log: Sequence[dict[str, Any]],
    shots: dict[str, Curve],
    steps: Curve | None,
) -> None:
    """The report of a learner: a sample task with its answers, scores, curves, and how it was made."""
    first = found[0]
    split: Split = first.split  # type: ignore[assignment]
    rng = source.rng(first.seed, split, "sample task")
    names = None
    if isinstance(source, ClassSource):
        drawn = source.draw(split, 1, source.rng(first.seed, split, "sample task"))
        known = source.names(split) + source.names("train")  # seen classes stand behind a split's own
        names = [known[c] for c in drawn.classes[0].tolist()]
    task = source.sample(split, 1, rng)
    fitted = ready(learner, source)
    with evaluating(fitted, first.seed):
        predictions = fitted.predict(fitted.adapt(task.support), task.query.x, task.query.weight)
    write_report(
        path,
        title=f"{first.learner} on {first.source}",
        command=command,
        evaluations=found,
        log=log,
        shot_curves=shots,
        adaptation=steps if isinstance(fitted, Stepwise) else None,
        sample_task=task,
        predictions=predictions,
        names=names,
        card=card,
    )


def run_log(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run's log; none if there is no log."""
    path = folder / "log.jsonl"
    return read_log(path) if path.is_file() else []


def device_called(name: str) -> torch.device:
    """The device of that name.

    Raises UserError if there is none.
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
        return device
    except (RuntimeError, AssertionError):
        raise UserError(f"the device {name!r} is not to be had here: use --device cpu.") from None


EVALUATE = Command(
    "evaluate",
    "Score a trained learner on unseen tasks, beside plain baselines on the same tasks.",
    "quickstudy evaluate runs/maml/best.safetensors --tasks.shot 5 --shots 1,2,5,10 --report report.html\n"
    "quickstudy evaluate runs/glyphs/best.safetensors --tasks omniglot --tasks.way 20",
    _add,
    run,
    {"tasks": TRAINED},
    card_tasks,
    ("beside",),
)
