"""`quickstudy audit`: how wide the training tasks are, what the splits share, and whether a new task is like them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from jsonargparse import ArgumentParser, Namespace
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from quickstudy.adaptation import reader_for
from quickstudy.checkpoint import Checkpoint
from quickstudy.cli.arguments import Command, check_seed
from quickstudy.cli.evaluating import TRAINED, card_tasks
from quickstudy.cli.trained import check_least, trained_on, watched
from quickstudy.core.errors import UserError
from quickstudy.core.files import check_place, write_whole
from quickstudy.core.source import SPLITS, Source
from quickstudy.core.task import Examples, examples
from quickstudy.evaluate import dtype_of
from quickstudy.questions.audit import MEANING, Auditor, Verdict
from quickstudy.questions.data_card import data_card
from quickstudy.questions.diversity import Twins, Width, twins, width
from quickstudy.tables import terminal
from quickstudy.tasks.pool import ClassSource

SHOWN = 5
"""Pairs of classes, and training classes of a nearest task, that are named."""


def _add(parser: ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=str, help="the file that `quickstudy train` wrote")
    parser.add_argument("--support", type=str | None, default=None, help="a new task's examples, as `adapt` takes them")
    parser.add_argument("--invert", action="store_true", help="the images of --support show dark ink on white")
    parser.add_argument("--alarm", type=float, default=0.05, help="share of tasks like those of training to ring for")
    parser.add_argument("--audit_tasks", type=int, default=300, help="training and validation tasks to compare with")
    parser.add_argument("--seed", type=int, default=0, help="decides which tasks")
    parser.add_argument("--json", type=str | None, default=None, help="write every number to this file")


def run(options: Namespace) -> int:
    check_seed(options.seed, "--seed")
    check_least(options, audit_tasks=20)
    if not 0 < options.alarm < 1:
        raise UserError(f"--alarm is {options.alarm}: give a share between 0 and 1, as 0.05.")
    if options.invert and not options.support:
        raise UserError("--invert is about the images of --support, and none are given: leave it out.")
    if options.json:
        check_place(options.json)
    trained, source = trained_on(options)
    numbers = one_task(options, trained, source) if options.support else whole(options, trained, source)
    if options.json:
        write_whole(options.json, (json.dumps(_finite(numbers), ensure_ascii=False) + "\n").encode())
        print(f"wrote {options.json}")
    return 0


def prepared(options: Namespace, trained: Checkpoint, source: Source) -> Auditor:
    """The auditor of a command, with a bar while tasks are drawn."""
    auditor = Auditor(trained.learner, source, options.audit_tasks, options.seed)
    with watched("adapting to known tasks", 2 * options.audit_tasks) as watch:
        return auditor.prepare(watch)


def whole(options: Namespace, trained: Checkpoint, source: Source) -> dict[str, Any]:
    """How wide the training tasks are and what the splits share, printed and as JSON holds it."""
    auditor = prepared(options, trained, source)
    found = width(auditor)
    held = [one.p <= options.alarm for one in auditor.verdicts(auditor.profiles("test"))]
    pairs: list[Twins] = []
    count: dict[str, int] = {}
    leaks = [finding.said for finding in data_card(source).findings if finding.about == "leak"]
    if isinstance(source, ClassSource):
        classes = sum(len(source.names(split)) for split in SPLITS)
        with watched("comparing classes", classes) as watch:
            pairs, count = twins(auditor.learner, source, seed=options.seed, watch=watch)
    console = terminal()
    console.print(width_table(found, options.alarm, sum(held) / len(held)))
    _say(console, twin_lines(pairs, count, source) + leaks)
    return {
        "width": asdict(found),
        "alarms_on_test": sum(held) / len(held),
        "alarm": options.alarm,
        "twins": [asdict(pair) for pair in pairs],
        "leaks": leaks,
        "checkpoint": trained.card,
    }


def width_table(found: Width, alarm: float, rung: float) -> Table:
    """What is known of the tasks as a whole."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name in ("of the tasks", "found", "how to read it"):
        table.add_column(Text(name), overflow="fold")
    more = found.effective / found.of_half if found.of_half else math.nan
    table.add_row(
        "training tasks that differ",
        f"{found.effective:.1f} of {found.drawn} drawn",
        f"twice as many tasks made it {more:.2f} times as large: "
        + ("more tasks would add more" if more > 1.5 else "more of the same would add little"),
    )
    for split, share in found.covered.items():
        table.add_row(f"{split} tasks covered", f"{100 * share:.1f} %", "95 % if they were like the training tasks")
    table.add_row("alarms on test tasks", f"{100 * rung:.1f} %", f"{100 * alarm:.0f} % if they are like the valid ones")
    return table


def twin_lines(pairs: Sequence[Twins], count: dict[str, int], source: Source) -> list[str]:
    """What is to be said of classes that stand in two splits."""
    lines = []
    for split, number in count.items():
        total = len(source.names(split)) if isinstance(source, ClassSource) else 0  # type: ignore[arg-type]
        some = [f"{p.other} = {p.train}" for p in pairs if p.split == split][:SHOWN]
        named = f": {', '.join(some)}" + (" ..." if number > len(some) else "") if some else ""
        lines.append(f"{number} of the {total} {split} classes look like a training class to the learner{named}")
    return lines


def one_task(options: Namespace, trained: Checkpoint, source: Source) -> dict[str, Any]:
    """Whether a new task is like the training tasks, printed and as JSON holds it."""
    support, shape = read_support(options, trained)
    try:
        source = source.reshaped(**shape)
        auditor = prepared(options, trained, source)
    except UserError as error:
        what = ", ".join(f"{name} {value}" for name, value in shape.items())
        raise UserError(f"no known tasks of {what}, as {options.support} is, can be drawn: {error}") from None
    (verdict,) = auditor.verdicts(auditor.profile(support))
    console = terminal()
    console.print(signal_table(verdict))
    rings = verdict.p <= options.alarm
    line = f"no alarm (p = {verdict.p:.3f}): {100 * verdict.p:.0f} % of validation tasks are as unusual or more"
    if rings:
        line = f"ALARM (p = {verdict.p:.3f}), unlike the training tasks: {MEANING[verdict.why]}; trust it less"
    lines = [line, f"the nearest training task is {verdict.distance:.2f} away, in deviations among training tasks"]
    lines += nearest_lines(verdict, auditor)
    _say(console, lines)
    return {"support": options.support, "alarm": rings, **asdict(verdict), "why": verdict.why, "like": shape}


def signal_table(verdict: Verdict) -> Table:
    """Every signal of a task."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name in ("signal", "deviations", "a large one means"):
        table.add_column(Text(name), justify="right" if name == "deviations" else "left", overflow="fold")
    for name, value in verdict.parts.items():
        table.add_row(name, f"{value:+.2f}", MEANING[name])
    return table


def nearest_lines(verdict: Verdict, auditor: Auditor) -> list[str]:
    """The classes of the nearest training task, by name, where there are any."""
    source = auditor.source
    if not isinstance(source, ClassSource):
        return []
    block, place = divmod(verdict.nearest[0], 20)
    size = min(20, auditor.tasks - 20 * block)
    drawn = source.draw("train", size, source.rng(auditor.seed, "train", "evaluate", block))
    names = source.names("train")
    way = int(drawn.way[place])
    classes = [names[int(c)] for c in drawn.classes[place][:way]]
    more = f" and {len(classes) - SHOWN} more" if len(classes) > SHOWN else ""
    return [f"it was of {', '.join(classes[:SHOWN])}{more}"]


def read_support(options: Namespace, trained: Checkpoint) -> tuple[Examples, dict[str, int]]:
    """A new task as `quickstudy adapt` reads it, and the way and shot of known tasks to compare it with.

    Raises UserError as adapting does.
    """
    path = options.support
    reader = reader_for(trained.card, trained.reader, options.checkpoint, support=True, invert=options.invert)
    rows = reader.read(path)
    x = rows.x.to(dtype_of(trained.learner) or rows.x.dtype).unsqueeze(0)
    if trained.learner.objective.kind == "regression":
        if rows.values is None:
            raise UserError(f"{path} has no y to go by: {reader.unlabelled(path)}.")
        return examples(x, rows.values.to(x).unsqueeze(0)), {"shot": len(rows.x)}
    if rows.labels is None:
        raise UserError(f"{path} has no labels to go by: {reader.unlabelled(path)}.")
    classes = sorted(set(rows.labels))
    if len(classes) < 2:
        raise UserError(f"{path} shows one class, {classes[0]!r}, and nothing to tell it from: give two or more.")
    y = torch.tensor([[classes.index(label) for label in rows.labels]])
    shot = max(round(len(rows.labels) / len(classes)), 1)
    return examples(x, y), {"way": len(classes), "shot": shot}


def _say(console: Console, lines: Sequence[str]) -> None:
    for line in lines:
        console.print(Text(line), soft_wrap=True)


def _finite(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {k: _finite(v) for k, v in tree.items()}
    if isinstance(tree, list | tuple):
        return [_finite(v) for v in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree


AUDIT = Command(
    "audit",
    "See how wide the training tasks are and what the splits share; or whether a new task is like them.",
    "quickstudy audit runs/glyphs/best.safetensors\n"
    "quickstudy audit runs/glyphs/best.safetensors --support my_letters/ --invert",
    _add,
    run,
    {"tasks": TRAINED},
    card_tasks,
)
