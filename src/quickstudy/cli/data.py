"""`quickstudy data check`: what is found in one's data, before anything is trained on it."""

from __future__ import annotations

import json
import shlex
import warnings
from collections.abc import Sequence

from jsonargparse import ArgumentParser, Namespace

from quickstudy.cli.arguments import Command
from quickstudy.core.catalogue import build
from quickstudy.core.errors import UserError, nearest
from quickstudy.core.files import check_place, write_whole
from quickstudy.questions.data_card import DataCard, Finding, data_card
from quickstudy.tasks.guess import guess

ACTIONS = ("check",)


def _add(parser: ArgumentParser) -> None:
    parser.add_argument("action", type=str, help="check: look through all rows and say what was found")
    parser.add_argument("path", type=str, nargs="?", default="", help="a folder or file, where --tasks does not say it")
    parser.add_argument("--json", type=str | None, default=None, help="write what was found to this file")


def run(options: Namespace) -> int:
    if options.action not in ACTIONS:
        raise UserError(f"`quickstudy data` cannot {options.action!r}: {nearest(options.action, ACTIONS)}")
    if options.json:
        check_place(options.json)
    card = options.tasks.as_dict()
    # all that is wrong is to be named, not the first of it
    card |= {option: value for option, value in (("skip_unreadable", True), ("duplicates", "keep")) if option in card}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = data_card(build(card, "tasks"))
    left = [Finding("left out", False, str(w.message).rstrip(".") + ".") for w in caught if w.category is UserWarning]
    found = DataCard(found.facts, [*left, *found.findings])
    print(_said(found, shlex.quote(options.path) if options.path else options.tasks.name))
    if options.json:
        write_whole(options.json, (json.dumps(found.card(), ensure_ascii=False, indent=1) + "\n").encode())
        print(f"wrote {options.json}")
    return 0


def _said(found: DataCard, name: str) -> str:
    width = max(map(len, found.facts))
    lines = [f"{fact:{width}}  {value}" for fact, value in found.facts.items()]
    grave = sum(finding.grave for finding in found.findings)
    lines += ["", *(f"{'!' if finding.grave else '-'} {finding.said}" for finding in found.findings)]
    if not found.findings:
        lines += ["nothing to complain about: no duplicates, no leaks between splits, nothing unreadable."]
    elif grave:
        lines += ["", f"{grave} of these (!) would make scores misleading or training fail: mend them first."]
    return "\n".join([*lines, f"next: quickstudy train --tasks {name}"])


def _given(words: Sequence[str]) -> dict[str, object]:
    """The tasks of a path that stands alone: its kind is found out."""
    rest = [word for word in words if not word.startswith("-")]
    named = any(word.split("=")[0] in ("--tasks", "--tasks.name") for word in words)
    if not named and len(rest) == 1 and not {"-h", "--help", "--print_config"} & set(words):
        raise UserError("`quickstudy data check` needs a path: give a folder or a file, or name a source with --tasks.")
    return {} if named or len(rest) < 2 else {"tasks": guess(rest[1])}


DATA = Command(
    "data",
    "Look through your data: classes, counts, duplicates, leaks between splits, unreadable files.",
    "quickstudy data check photos/\nquickstudy data check --tasks text --tasks.path tickets.csv --json card.json",
    _add,
    run,
    {"tasks": "glyphs"},
    _given,
)
