"""`quickstudy list`: what there is to choose from."""

from __future__ import annotations

import inspect
from importlib import import_module

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from quickstudy.cli.arguments import DECIDED, Command
from quickstudy.core.catalogue import arguments, catalogue
from quickstudy.core.errors import UserError, nearest
from quickstudy.core.learner import MetaLearner
from quickstudy.core.references import field, references
from quickstudy.learners import FAMILIES
from quickstudy.tables import terminal

KINDS = {"learners": "learner", "tasks": "tasks", "nets": "net"}
LEGEND = "takes: C classification, R regression, Z zero-shot; T: looks at the other queries (transductive)"
TAKES = {"classification": "C", "regression": "R", "zero-shot": "Z"}


def _add(parser: ArgumentParser) -> None:
    parser.add_argument("kind", type=str, nargs="?", default="", help="learners, tasks or nets; all if left out")
    parser.add_argument("name", type=str, nargs="?", default="", help="one of them, for its page")


def run(options: Namespace) -> int:
    if options.kind and options.kind not in KINDS:
        raise UserError(f"there is no list of {options.kind!r}: {nearest(options.kind, KINDS)}")
    if options.name:
        Console(soft_wrap=True).print(page(KINDS[options.kind], options.name), highlight=False, markup=False)
        return 0
    for kind in [options.kind] if options.kind else list(KINDS):
        terminal().print(learners() if kind == "learners" else table(kind))
    return 0


def learners() -> Group:
    """Every learner, a line each, under the name of its family."""
    made = Table(title="learners", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for column in ("name", "takes", "adapting costs", "paper", "what it is"):
        made.add_column(column, overflow="fold")
    for family, members in FAMILIES.items():
        made.add_row(Text(family.replace("_", "-"), style="bold"))
        for name, cls in members.items():
            about = (inspect.getmodule(cls).__doc__ or "").splitlines()[0].rstrip(".")
            made.add_row(f"  {name}", takes(cls), cls.cost, paper(cls), about)
    return Group(made, Text(LEGEND, style="dim"))


def markdown() -> str:
    """The learners as a page of the documentation: what each is for, by family."""
    lines = [
        "# The learners", "",
        "Written by `python benchmarks/tables.py` from the catalogue. `quickstudy list learners NAME` prints all of "
        "one: formula, options, citation. `quickstudy recommend` names those to try on tasks like yours.", "",
        f"In the tables, {LEGEND}.",
    ]  # fmt: skip
    for family, members in FAMILIES.items():
        about = inspect.getdoc(import_module(f"quickstudy.learners.{family}")) or ""
        lines += ["", f"## {family.replace('_', '-').capitalize()}", "", about, ""]
        lines += ["| name | takes | adapting costs | when to choose it | paper |", "| --- | --- | --- | --- | --- |"]
        for name, cls in members.items():
            entries = references(cls)
            at = f"https://arxiv.org/abs/{paper(cls)}" if entries and field(entries[0], "eprint") else ""
            link = f"[{paper(cls)}]({at})" if at else paper(cls)
            lines.append(f"| `{name}` | {takes(cls)} | {cls.cost} | {cls.choose} | {link} |")
    return "\n".join(lines) + "\n"


def takes(cls: type[MetaLearner]) -> str:
    """The kinds of task that a learner takes, as letters, and T if it is transductive whatever its network."""
    return " ".join(TAKES[kind] for kind in cls.kinds) + (" T" if cls.transductive is True else "")


def table(kind: str) -> Table:
    """Every entry of a catalogue, a line each."""
    made = Table(title=kind, title_justify="left", box=None, padding=(0, 2, 0, 0))
    for column in ("name", "what it is"):
        made.add_column(column, overflow="fold")
    for name, cls in catalogue(KINDS[kind]).items():
        made.add_row(name, Text(" ".join((inspect.getdoc(cls) or "").split("\n\n")[0].split())))
    return made


def paper(cls: type) -> str:
    """The arXiv id of what a class is from, or the year; empty for what has no paper."""
    entries = references(cls)
    return field(entries[0], "eprint") or field(entries[0], "year") if entries else ""


def page(slot: str, name: str) -> str:
    """The page of one entry: what it is, when to choose it, its options with their defaults, and what to cite.

    Raises UserError for an unknown name.
    """
    cls = catalogue(slot)[name]
    lines = [name, "=" * len(name), inspect.getdoc(cls) or "", ""]
    if getattr(cls, "choose", ""):
        lines += ["when to choose it:", f"  {cls.choose}", f"  adapting costs {cls.cost}", ""]
    own = [p for p in arguments(cls).values() if p.name not in DECIDED[slot]]
    if own:
        lines.append("options:")
    for p in own:
        kind = p.annotation if isinstance(p.annotation, str) else getattr(p.annotation, "__name__", "")
        default = "" if p.default is p.empty else f" = {p.default!r}"
        lines.append(f"  --{slot}.{p.name}{default}  ({kind})")
    if references(cls):
        lines += ["", "citation:", *references(cls)]
    return "\n".join(lines)


LIST = Command(
    "list",
    "Show the learners, the sources of tasks and the nets there are.",
    "quickstudy list learners\nquickstudy list learners maml",
    _add,
    run,
)
