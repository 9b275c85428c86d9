"""What several commands begin with: a checkpoint, the tasks it was trained on, and a bar while they work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from jsonargparse import Namespace
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from quickstudy import checkpoint
from quickstudy.checkpoint import Checkpoint
from quickstudy.cli.evaluating import TRAINED
from quickstudy.core.catalogue import build
from quickstudy.core.errors import UserError
from quickstudy.core.source import Source
from quickstudy.tasks.sampling import count_range


def trained_on(options: Namespace) -> tuple[Checkpoint, Source]:
    """The learner of a command's checkpoint, and the tasks that its options describe.

    Raises UserError if either cannot be had.
    """
    trained = checkpoint.load(options.checkpoint)
    if options.tasks.name == TRAINED:
        raise UserError(f"{options.checkpoint} does not say which tasks it was trained on: name some with --tasks.")
    return trained, build(options.tasks.as_dict(), "tasks").read_by(trained.reader)


def check_least(options: Namespace, **least: int) -> None:
    """Raise UserError for an option below its least value."""
    for name, value in least.items():
        if getattr(options, name) < value:
            raise UserError(f"--{name} is {getattr(options, name)}: give a whole number of at least {value}.")


def counts(asked: str, option: str) -> list[int]:
    """Whole numbers with commas.

    Raises UserError for anything else.
    """
    return [count_range(int(part) if part.strip().isdigit() else part, option)[0] for part in asked.split(",") if asked]


def shares(asked: str, option: str) -> list[float]:
    """Shares between 0 and 1 with commas.

    Raises UserError for anything else.
    """
    try:
        found = [float(part) for part in asked.split(",")]
        if not found or not all(0 < share < 1 for share in found):
            raise ValueError
    except ValueError:
        raise UserError(f"{option} is {asked!r}: give shares between 0 and 1 with commas, as 0.8,0.9.") from None
    return found


@contextmanager
def watched(label: str, total: int) -> Iterator[Callable[[int], object]]:
    """A bar on a terminal; what it gives is to be called with the number that is done."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        line = bar.add_task(escape(label), total=total)
        yield lambda done: bar.update(line, completed=done)
