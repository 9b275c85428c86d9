"""`quickstudy benchmark`: many learners on the same tasks with the same time to train, in one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console
from rich.table import Table

from quickstudy.benchmark import Contest, Entry, against_baseline, common_measure, fitting, pays
from quickstudy.cli.arguments import Command, check_seed
from quickstudy.core.catalogue import build
from quickstudy.core.errors import UserError, nearest
from quickstudy.core.files import write_whole
from quickstudy.scores import in_words
from quickstudy.suites import SUITES, Suite
from quickstudy.tables import heading, in_bytes, terminal

HEADS = ("learner", "family", "against", "steps", "train s", "adapt ms", "state", "published")


def _add(parser: ArgumentParser) -> None:
    parser.add_argument("suite", type=str, nargs="?", default="", help=f"{', '.join(SUITES)}; or --tasks of your own")
    parser.add_argument("--learners", type=list[str], default=[], help="names, as A B; all that fit if left out")
    parser.add_argument("--seconds", type=float, default=60.0, help="of training for each learner")
    parser.add_argument("--test_tasks", type=int, default=600, help="how many; the same ones for every learner")
    parser.add_argument("--seed", type=int, default=0, help="decides tasks and weights")
    parser.add_argument("--processes", type=int, default=1, help="learners trained at once, sharing the threads")
    parser.add_argument("--out", type=str | None, default=None, help="folder (default: runs/benchmark-SUITE)")


def _tasks(words: Sequence[str]) -> Mapping[str, Any]:
    """The tasks of the suite among the words."""
    named = next((word for word in words if word in SUITES), None)
    return {"tasks": dict(SUITES[named].tasks)} if named else {}


def suite_of(options: Namespace) -> tuple[str, Suite]:
    """The suite that is meant, by name, or one made of the tasks that are given.

    Raises UserError for an unknown one, or one whose tasks were exchanged for others.
    """
    tasks = options.tasks.as_dict()
    if not options.suite:
        return tasks["name"], Suite(tasks, f"tasks of {tasks['name']}")
    if options.suite not in SUITES:
        raise UserError(f"there is no suite {options.suite!r}: {nearest(options.suite, SUITES)}")
    suite = SUITES[options.suite]
    if suite.tasks["name"] != tasks["name"]:
        raise UserError(f"{options.suite} is a suite of {suite.tasks['name']}: leave its name out to compare on "
                        f"{tasks['name']}.")  # fmt: skip
    return options.suite, suite


def run(options: Namespace) -> int:
    check_seed(options.seed, "--seed")
    name, suite = suite_of(options)
    source = build(options.tasks.as_dict(), "tasks")
    learners = options.learners or fitting(source)
    out = Path(options.out or f"runs/benchmark-{name}")
    settings = (options.seconds, options.test_tasks, options.seed, suite.options, suite.training)
    contest = Contest(source, learners, *settings, out)
    print(f"{name}: {suite.about}; {len(learners)} learners, {options.seconds:g} seconds of training each")
    found = contest.run(options.processes, watch=lambda entry: print(f"  {in_one_line(entry)}", flush=True))
    terminal().print(table(found, suite))
    said = [pays(found), *failures(found), *([suite.differences] if suite.differences else [])]
    Console(soft_wrap=True).print("\n".join(said), highlight=False, markup=False)
    write_whole(out / "table.md", markdown(found, suite, said).encode())
    print(f"wrote {out / 'table.md'}; one .json a learner beside it")
    return 0


def in_one_line(entry: Entry) -> str:
    """What a learner came to, while the rest is still at work."""
    return f"{entry.learner}: {entry.scores or entry.failed}"


def failures(found: Sequence[Entry]) -> list[str]:
    """One sentence for each learner that has no scores."""
    return [f"{entry.learner}: {entry.failed}" for entry in found if not entry.scores]


def cells(found: Sequence[Entry], suite: Suite) -> tuple[list[str], list[list[str]]]:
    """The table: its heads, and a row of text a learner, the best first."""
    plain, pairs = against_baseline(found)
    scored = [entry.scores for entry in found if entry.scores]
    measure = common_measure(scored[0]) if scored else ""
    rows = []
    for entry in found:
        if not entry.scores:
            rows.append([entry.learner, "failed", entry.family, *[""] * 6])
            continue
        pair = pairs.get(entry.learner)
        words = in_words(pair.measure, pair.difference, pair.interval, signed=True) if pair else ""
        rows.append([
            entry.learner,
            in_words(measure, entry.scores.mean(measure), entry.scores.interval(measure)),
            entry.family,
            f"{words} {pair.verdict}" if pair else "",
            f"{entry.steps:,}" if entry.steps else "",
            f"{entry.seconds:.0f}" if entry.steps else "",
            f"{1000 * entry.scores.adapt_seconds:.2g}",
            in_bytes(entry.scores.state_bytes),
            suite.published.get(entry.learner, ""),
        ])  # fmt: skip
    heads = [HEADS[0], heading(measure) if measure else "score", *HEADS[1:]]
    heads[3] = f"against {plain}" if plain else "against"
    return heads, rows


def table(found: Sequence[Entry], suite: Suite) -> Table:
    """The table for the terminal."""
    heads, rows = cells(found, suite)
    made = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for i, head in enumerate(heads):
        made.add_column(head, justify="left" if i in (0, 2) else "right", overflow="fold")
    for row in rows:
        made.add_row(*row)
    return made


def markdown(found: Sequence[Entry], suite: Suite, said: Sequence[str]) -> str:
    """The table as Markdown, with what is to be said of it."""
    heads, rows = cells(found, suite)
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join([*(f"| {' | '.join(line)} |" for line in lines), "", *(f"{s}\n" for s in said)])


BENCHMARK = Command(
    "benchmark",
    "Train many learners for the same time on the same tasks, score them on the same unseen tasks, and compare.",
    "quickstudy benchmark sinusoid --seconds 30\n"
    "quickstudy benchmark --tasks folder --tasks.path photos --learners protonet linear_probe\n"
    "quickstudy benchmark omniglot --tasks.path omniglot28.npz --learners protonet maml linear_probe logistic",
    _add,
    run,
    {"tasks": "glyphs"},
    _tasks,
    ("learners",),
)
