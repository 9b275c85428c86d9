"""`quickstudy explain-plan`: how the engine would run a config, and what each memory plan would cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jsonargparse import ArgumentParser, Namespace
from rich.console import Console
from rich.table import Table

from quickstudy.cli.arguments import Command, read_config
from quickstudy.cli.training import TRAIN, learner_of, source_of
from quickstudy.compiled import quicker_without
from quickstudy.core.learner import MetaLearner
from quickstudy.core.task import Task, select
from quickstudy.evaluate import evaluating
from quickstudy.inner.memory import EXACT
from quickstudy.inner.picked import picked
from quickstudy.outer import draw_tasks, parts_at_once, tasks_of_part
from quickstudy.plan import Choice, Cost, choose, costs, in_megabytes


def _add(parser: ArgumentParser) -> None:
    parser.add_argument("config", type=str, nargs="?", default="", help="a YAML file of `quickstudy train`")
    TRAIN.add(parser)


def _before(words: Sequence[str]) -> Mapping[str, Any]:
    """The options of the config that is the first word."""
    return read_config(words[0]) if words and not words[0].startswith("-") else {}


def run(options: Namespace) -> int:
    torch.manual_seed(options.train.seed)
    source = source_of(options)
    learner = learner_of(options, source)
    given = options.train
    share = given.meta_batch // (given.devices * given.nodes)
    tasks = draw_tasks(learner, source, max(share, 1), given.pooled_rows, source.rng(given.seed, "train", 1))
    count = tasks.query.tasks
    part = tasks_of_part(learner, count, given.accumulate)
    left_alone = quicker_without(learner)
    compiles = options.compile and not left_alone
    in_turn = compiles or given.devices * given.nodes > 1 or given.precision == "bf16-mixed"
    side = 1 if in_turn else parts_at_once(learner, math.ceil(count / part), given.accumulate)
    graphs = f"{part} in one graph{_beside(side)}"
    found = costs(learner, select(tasks, slice(0, part)))
    print(f"{options.learner.name} on {options.tasks.name}: {count} tasks in an outer step, {graphs}")
    for line in formulations(learner, select(tasks, slice(0, part))):
        print(line)
    Console().print(table(found))
    print("memory and time: of one graph, forward and backward; cosine: of its gradient with the true one")
    if options.memory:
        chosen = choose(learner, tasks, options.memory)
        print(f"--memory {options.memory}: {_chosen(chosen, count)}")
    how = "as fast or faster than compiled" if left_alone else "--compile compiles it"
    how = "one compiled program a shape of tasks" if compiles else f"run as it is ({how})"
    print(f"the outer step is {how}")
    return 0


def formulations(learner: MetaLearner, tasks: Task) -> list[str]:
    """How the learner is run in training and in evaluation, a line each: heard while it runs."""
    lines = []
    with picked() as seen, torch.random.fork_rng(devices=[]):
        learner.train()(tasks)
    lines += [f"training: {words}" for words in seen]
    with picked() as seen, evaluating(learner, 0):
        learner.predict(learner.adapt(tasks.support), tasks.query.x, tasks.query.weight)
    return lines + [f"evaluation: {words}" for words in seen]


def table(found: Sequence[Cost]) -> Table:
    """What each plan costs, a row each."""
    made = Table(box=None, padding=(0, 2, 0, 0), title_justify="left")
    for column, side in (("plan", "left"), ("memory", "right"), ("time", "right"), ("cosine", "right")):
        made.add_column(column, justify=side)  # type: ignore[arg-type]
    for cost in found:
        exact = "exact" if cost.plan in EXACT else f"{cost.cosine:.3f}"
        made.add_row(cost.plan, in_megabytes(cost.bytes), f"{1e3 * cost.seconds:.1f} ms", exact)
    return made


def _beside(side: int) -> str:
    return f", {side} graphs side by side, unless the learner draws for itself" if side > 1 else ""


def _chosen(chosen: Choice, count: int) -> str:
    parts = "all tasks at once" if chosen.parts == 1 else f"the {count} tasks in {chosen.parts} parts"
    beside = f", {chosen.side} of them side by side" if (chosen.side or 1) > 1 else ""
    return f"plan {chosen.plan}, {parts}{beside}"


EXPLAIN = Command(
    "explain-plan",
    "Show how a config would be run, and what each memory plan would cost.",
    "quickstudy explain-plan runs/maml/config.yaml\n"
    "quickstudy explain-plan --learner maml --tasks sinusoid --learner.inner_steps 20 --memory 2MB",
    _add,
    run,
    TRAIN.named,
    _before,
)
