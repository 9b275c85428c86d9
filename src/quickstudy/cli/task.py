"""`quickstudy adapt` and `quickstudy predict`: one new task, from files to a small file to predictions."""

from __future__ import annotations

import csv
import io
import shlex
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from jsonargparse import ArgumentParser, Namespace
from rich.table import Table
from rich.text import Text
from torch import Tensor

from quickstudy import checkpoint
from quickstudy.adaptation import AdaptedTask, adapt, load_task, reader_for
from quickstudy.cli.arguments import Command
from quickstudy.cli.trusting import asked_for, believed
from quickstudy.core.errors import UserError, nearest
from quickstudy.core.files import check_place, write_whole
from quickstudy.core.reader import Rows
from quickstudy.tables import terminal
from quickstudy.tasks.files import Files
from quickstudy.tasks.images import SUFFIXES

LEFT = 40
"""Columns of the terminal left to a row's name and label."""
COLUMNS = 5
"""Classes with a column of their own on the terminal; the file holds all of them."""
NAMED = 10
"""Classes named after adapting."""
SHOWN = 20
"""Rows shown on the terminal; the file holds all of them."""


def _add_adapt(parser: ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=str, help="the file that `quickstudy train` wrote")
    parser.add_argument("support", type=str, help="a folder of class folders, or an .npz with x and y")
    parser.add_argument("--out", type=str, default="adapted.safetensors", help="where to write the adapted task")
    parser.add_argument("--invert", action="store_true", help="the images show dark ink on white")


def _check_out(out: str | None, inputs: Sequence[str]) -> None:
    """Raise UserError where an output could not be written, or would take the place of what it is made from."""
    if not out:
        return
    if any(Path(given).exists() and Path(out).exists() and Path(given).samefile(out) for given in inputs):
        raise UserError(f"--out is {out}, which is read here and would be lost: give another name.")
    check_place(out)


def run_adapt(options: Namespace) -> int:
    _check_out(options.out, [options.checkpoint, options.support])
    if not options.out.endswith(".safetensors"):
        raise UserError(f"--out is {options.out!r}: give a name that ends in .safetensors.")
    if Path(options.out).exists():
        try:
            checkpoint.load_adapted(options.out)
        except UserError:
            raise UserError(f"{options.out} is no adapted task and would be lost: give another --out.") from None
    trained = checkpoint.load(options.checkpoint)
    reader = reader_for(trained.card, trained.reader, options.checkpoint, support=True, invert=options.invert)
    rows = reader.read(options.support)
    known = rows.values if trained.learner.objective.kind == "regression" else rows.labels
    if known is None:
        lacks = "y" if trained.learner.objective.kind == "regression" else "labels"
        raise UserError(f"{options.support} has no {lacks} to adapt to: {reader.unlabelled(options.support)}.")
    dark = isinstance(reader, Files) and (trained.card.get("tasks") or {}).get("invert")
    if dark and not (options.invert or options.support.endswith(".npz")):
        warnings.warn("the learner was trained on inverted images; add --invert if these are alike", stacklevel=2)
    task = adapt(trained, rows.x, known, options.support)
    task.card["invert"] = options.invert
    task.save(options.out)
    size = Path(options.out).stat().st_size
    what = f"{len(rows.x)} rows"
    if task.classes:
        few = list(task.card["counts"].items())[:NAMED]
        counts = ", ".join(f"{name} ({n})" for name, n in few)
        counts += f" and {len(task.classes) - len(few)} more" if len(few) < len(task.classes) else ""
        what = f"{len(rows.x)} examples of {len(task.classes)} classes: {counts}"
    print(f"adapted to {what}\nsaved {options.out} ({size / 1000:.1f} kB)")
    print(f"next: quickstudy predict {shlex.quote(options.out)} FILES" + " --invert" * options.invert)
    return 0


def _add_predict(parser: ArgumentParser) -> None:
    parser.add_argument("task", type=str, help="the file that `quickstudy adapt` wrote")
    parser.add_argument("inputs", type=str, nargs="+", help="images, folders of images, or .npz files with x")
    parser.add_argument("--checkpoint", type=str | None, default=None, help="the learner, if it was moved")
    parser.add_argument("--out", type=str | None, default=None, help="write all predictions to this CSV file")
    parser.add_argument("--coverage", type=float | None, default=None, help="add what holds the truth so often, as 0.9")
    parser.add_argument("--trust", type=str | None, default=None, help="what `quickstudy calibrate` wrote, if moved")
    parser.add_argument("--invert", action="store_true", help="the images show dark ink on white")


def run_predict(options: Namespace) -> int:
    _check_out(options.out, [options.task, *options.inputs])
    if options.out and Path(options.out).suffix in (".safetensors", ".npz", *SUFFIXES):
        raise UserError(f"--out is {options.out!r} and is written as CSV: give a name that ends in .csv.")
    task = load_task(options.task, options.checkpoint)
    if task.card.get("invert") and not options.invert and not all(p.endswith(".npz") for p in options.inputs):
        warnings.warn(f"{options.task} was made with --invert; add it here if these images are alike", stacklevel=2)
    reader = reader_for(task.card["checkpoint"], task.reader, options.task, invert=options.invert)
    read = {path: reader.read(path) for path in options.inputs}
    header, rows, said = _classes(task, read, options.task) if task.classes else _values(task, read)
    more, ends = [], [[]] * len(rows)
    if asked_for(options):
        more, ends = believed(options, task, torch.cat([one.x for one in read.values()]), rows)
    if options.out:
        text = io.StringIO()
        csv.writer(text).writerows([[*header, *more], *([*row, *end] for row, end in zip(rows, ends, strict=True))])
        write_whole(options.out, text.getvalue().encode())
    if len(options.inputs) == 1:  # whose name need not stand in every line
        alone = f"{options.inputs[0]}: "
        rows = [[str(row[0]).removeprefix(alone), *row[1:]] for row in rows]
    console = terminal()
    room = console.width - LEFT - sum(2 + max(len(name), 6) for name in header[2:])
    if task.classes and (len(task.classes) > COLUMNS or room < 0):  # the file holds them all
        short = [[*row[:2], max(row[2:]), *end] for row, end in zip(rows, ends, strict=True)]
        console.print(_table([*header[:2], "p(label)", *more], short))
    else:
        console.print(_table([*header, *more], [[*row, *end] for row, end in zip(rows, ends, strict=True)]))
    if len(rows) > SHOWN:
        more = f"; all are in {options.out}" if options.out else ": give --out FILE.csv for all"
        print(f"{SHOWN} of {len(rows)} rows shown{more}")
    if said:
        print(said)
    return 0


def _classes(task: AdaptedTask, read: Mapping[str, Rows], where: str) -> tuple[list[str], list[list], str]:
    """The header, a row for every input, and how many were right if the inputs bear labels."""
    given: list[str | None] = []
    for path, rows in read.items():
        for label in dict.fromkeys(rows.labels or []):
            if Path(path).is_dir() and set(task.classes).isdisjoint(rows.labels or []):
                raise UserError(
                    f"{path} has the sub-folder {label!r}, which is no class of {where} ({_some(task.classes)}): name "
                    f"sub-folders after classes, or give the folder of images itself, {Path(path) / label}."
                )
            if label not in task.classes:
                raise UserError(
                    f"{path} holds the label {label!r}, which the support of {where} did not show: "
                    f"{nearest(label, task.classes)}"
                )
        given += rows.labels or [None] * len(rows.x)
    probabilities = task.probabilities(torch.cat([rows.x for rows in read.values()]))
    best = probabilities.argmax(-1).tolist()
    table = [
        [name, task.classes[k], *(f"{p:.4f}" for p in row)]
        for name, k, row in zip(names_of(read), best, probabilities.tolist(), strict=True)
    ]
    known = [(task.classes[k], label) for k, label in zip(best, given, strict=True) if label is not None]
    right = sum(a == b for a, b in known)
    said = f"{right} of the {len(known)} labelled rows are right ({100 * right / len(known):.1f} %)" if known else ""
    return ["input", "label", *(f"p({name})" for name in task.classes)], table, said


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _values(task: AdaptedTask, read: Mapping[str, Rows]) -> tuple[list[str], list[list], str]:
    mean, deviation = task.values(torch.cat([rows.x for rows in read.values()]))
    header = ["input", *_columns("value", mean)] + (_columns("deviation", mean) if deviation is not None else [])
    both = mean if deviation is None else torch.cat([mean, deviation], -1)
    table = [[name, *(f"{v:.6g}" for v in row)] for name, row in zip(names_of(read), both.tolist(), strict=True)]
    parts = zip(mean.split([len(rows.x) for rows in read.values()]), read.values(), strict=True)
    known = [(m - rows.values).square().flatten() for m, rows in parts if rows.values is not None]
    if not known:
        return header, table, ""
    return header, table, f"mean squared error on the rows that bear values: {float(torch.cat(known).mean()):.4g}"


def names_of(read: Mapping[str, Rows]) -> list[str]:
    """What to call every row: an image by its path, what lies in a folder or a file by both names."""
    names = []
    for path, rows in read.items():
        if Path(path).suffix.lower() in SUFFIXES:
            names.append(path)
        else:
            names += [f"{path}/{name}" if Path(path).is_dir() else f"{path}: {name}" for name in rows.names]
    return names


def _columns(name: str, values: Tensor) -> list[str]:
    return [name] if values.shape[1] == 1 else [f"{name} {j}" for j in range(values.shape[1])]


def _table(header: list[str], rows: list[list]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for i, name in enumerate(header):
        table.add_column(Text(name), justify="left" if i < 2 else "right", overflow="fold", no_wrap=i >= 2)
    for row in rows[:SHOWN]:
        table.add_row(*(Text(str(cell)) for cell in row))
    return table


ADAPT = Command(
    "adapt",
    "Adapt a trained learner to a new task, from a handful of labelled examples.",
    "quickstudy adapt runs/glyphs/best.safetensors my_letters/ --invert --out letters.safetensors",
    _add_adapt,
    run_adapt,
)
PREDICT = Command(
    "predict",
    "Label new files with an adapted task, with probabilities.",
    "quickstudy predict letters.safetensors new/*.png --invert --out labels.csv",
    _add_predict,
    run_predict,
)
