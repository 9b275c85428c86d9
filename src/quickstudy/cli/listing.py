"""`quickstudy list`: what there is to choose from."""

from __future__ import annotations

import inspect

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console
from rich.table import Table
from rich.text import Text

from quickstudy.cli.arguments import DECIDED, Command
from quickstudy.core.catalogue import arguments, catalogue
from quickstudy.core.errors import UserError, nearest
from quickstudy.core.references import field, references

KINDS = {"learners": "learner", "tasks": "tasks", "nets": "net"}


def _add(parser: ArgumentParser) -> None:
    parser.add_argument("kind", type=str, nargs="?", default="", help="learners, tasks or nets; all if left out")
    parser.add_argument("name", type=str, nargs="?", default="", help="one of them, for its page")


def run(options: Namespace) -> int:
    if options.kind and options.kind not in KINDS:
        raise UserError(f"there is no list of {options.kind!r}: {nearest(options.kind, KINDS)}")
    console = Console(soft_wrap=True)
    if options.name:
        console.print(page(KINDS[options.kind], options.name), highlight=False, markup=False)
        return 0
    for kind in [options.kind] if options.kind else list(KINDS):
        Console().print(table(kind))
    return 0


def table(kind: str) -> Table:
    """Every entry of a catalogue, a line each."""
    made = Table(title=kind, title_justify="left", box=None, padding=(0, 2, 0, 0))
    heads = ["name", "family", "takes", "adapting costs", "paper", "what it is"]
    columns = heads if kind == "learners" else ["name", "what it is"]
    for column in columns:
        made.add_column(column, overflow="fold")
    for name, cls in catalogue(KINDS[kind]).items():
        if kind == "learners":
            family = cls.__module__.split(".")[-2]
            about = (inspect.getmodule(cls).__doc__ or "").splitlines()[0].rstrip(".")
            looks = "; looks at the other queries" if cls.transductive is True else ""
            takes = ", ".join(cls.kinds)
            made.add_row(name, family.replace("_", "-"), takes, cls.cost, paper(cls), f"{about}{looks}")
        else:
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
