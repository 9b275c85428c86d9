"""`quickstudy label-next`: which of the unlabelled files of a task to label first."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import torch
from jsonargparse import ArgumentParser, Namespace

from quickstudy import checkpoint
from quickstudy.adaptation import AdaptedTask, adapt, load_task, reader_for
from quickstudy.checkpoint import Checkpoint
from quickstudy.cli.arguments import Command, check_seed
from quickstudy.cli.task import names_of
from quickstudy.cli.trained import check_least
from quickstudy.core.errors import UserError, nearest
from quickstudy.core.files import check_place, write_whole
from quickstudy.core.task import Examples, examples
from quickstudy.evaluate import dtype_of
from quickstudy.questions.labelling import DEFAULT, STRATEGIES, Asked, label_next, suited


def _add(parser: ArgumentParser) -> None:
    parser.add_argument("task", type=str, help="what `quickstudy adapt` wrote, or a checkpoint together with --support")
    parser.add_argument("inputs", type=str, nargs="+", help="what is not labelled yet, as `predict` takes it")
    parser.add_argument("--support", type=str | None, default=None, help="the examples labelled so far")
    parser.add_argument("--strategy", type=str, default=DEFAULT, help=f"{DEFAULT}, or one of: {', '.join(STRATEGIES)}")
    parser.add_argument("--count", type=int, default=5, help="how many to name")
    parser.add_argument("--seed", type=int, default=0, help="decides among equals")
    parser.add_argument("--checkpoint", type=str | None, default=None, help="the learner, if it was moved")
    parser.add_argument("--out", type=str | None, default=None, help="write the names to this CSV file")
    parser.add_argument("--invert", action="store_true", help="the images show dark ink on white")


def run(options: Namespace) -> int:
    check_seed(options.seed, "--seed")
    check_least(options, count=1)
    if options.strategy not in (DEFAULT, *STRATEGIES):
        raise UserError(f"unknown --strategy {options.strategy!r}: {nearest(options.strategy, STRATEGIES)}")
    if options.out:
        if not options.out.endswith(".csv"):
            raise UserError(f"--out is {options.out!r} and is written as CSV: give a name that ends in .csv.")
        if Path(options.out).resolve() in {Path(given).resolve() for given in options.inputs}:
            raise UserError(f"--out is {options.out}, which is read here and would be lost: give another name.")
        check_place(options.out)
    task, support = begun(options)
    reader = reader_for(task.card["checkpoint"], task.reader, options.task, invert=options.invert)
    read = {path: reader.read(path) for path in options.inputs}
    pool = torch.cat([rows.x for rows in read.values()])
    pool = pool.to(dtype_of(task.learner) or pool.dtype)
    asked = Asked(task.learner, task.state, pool, support, len(task.classes))
    strategy = suited(asked) if options.strategy == DEFAULT else options.strategy
    chosen = label_next(asked, strategy, options.count, options.seed)
    names = names_of(read)
    if task.classes:
        guesses = task.labels(pool[chosen])
    else:
        guesses = [", ".join(f"{v:.4g}" for v in row) for row in task.values(pool[chosen])[0].tolist()]
    rows = [[names[i], guess] for i, guess in zip(chosen, guesses, strict=True)]
    if options.out:
        text = io.StringIO()
        csv.writer(text).writerows([["input", "guess"], *rows])
        write_whole(options.out, text.getvalue().encode())
    for number, (name, guess) in enumerate(rows, 1):
        print(f"{number}. {name} (now taken for {guess})")
    print(f"{strategy}: label these {len(rows)} of {len(pool)} first, then adapt to all that are labelled")
    if options.out:
        print(f"wrote {options.out}")
    return 0


def begun(options: Namespace) -> tuple[AdaptedTask, Examples | None]:
    """The task as far as it is labelled, and its labelled rows where they are at hand.

    Raises UserError if it cannot be read.
    """
    if not options.support:
        try:
            return load_task(options.task, options.checkpoint), None
        except UserError as error:
            if "'learner'" in str(error):
                raise UserError(
                    f"{options.task} is a learner that has seen nothing of the task: give some labelled examples with "
                    "--support, or what `quickstudy adapt` wrote."
                ) from None
            raise
    trained = _learner(options)
    reader = reader_for(trained.card, trained.reader, options.task, support=True, invert=options.invert)
    rows = reader.read(options.support)
    known = rows.values if trained.learner.objective.kind == "regression" else rows.labels
    if known is None:
        raise UserError(f"{options.support} says no labels: {reader.unlabelled(options.support)}.")
    task = adapt(trained, rows.x, known, options.support)
    x = rows.x.to(dtype_of(task.learner) or rows.x.dtype).unsqueeze(0)
    if rows.values is not None and not task.classes:
        return task, examples(x, rows.values.to(x).unsqueeze(0))
    y = [task.classes.index(str(label)) for label in rows.labels or []]
    return task, examples(x, torch.tensor([y]))


def _learner(options: Namespace) -> Checkpoint:
    """The learner of a checkpoint, or that of an adapted task."""
    try:
        return checkpoint.load(options.task)
    except UserError as error:
        if "'adapted'" not in str(error):
            raise
    task = load_task(options.task, options.checkpoint)
    where = options.checkpoint or str(task.card["checkpoint"]["path"])
    if not Path(where).is_file():
        where = str(Path(options.task).parent / Path(where).name)
    return checkpoint.load(where)


LABEL_NEXT = Command(
    "label-next",
    "Name the unlabelled files of a task that are most worth labelling.",
    "quickstudy label-next letters.safetensors unlabelled/ --count 5\n"
    "quickstudy label-next runs/glyphs/best.safetensors unlabelled/ --support my_letters/ --strategy lookahead",
    _add,
    run,
)
