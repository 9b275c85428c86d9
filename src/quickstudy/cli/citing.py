"""`quickstudy cite`: the BibTeX of what a checkpoint was made with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from quickstudy import checkpoint
from quickstudy.cli.arguments import Command
from quickstudy.core.catalogue import catalogue
from quickstudy.core.references import references


def _add(parser: ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=str, help="the file that `quickstudy train` wrote")


def run(options: Namespace) -> int:
    print("\n\n".join(entries_of(checkpoint.read(options.checkpoint, "learner")[1])))
    return 0


def entries_of(card: Mapping[str, Any]) -> list[str]:
    """The BibTeX entries of what a card names, each once."""
    parts = {slot: card[slot] for slot in ("learner", "tasks") if card.get(slot)}
    return list(dict.fromkeys(entry for part in _parts(parts) for entry in references(part)))


def _parts(tree: Mapping[str, Any]) -> Iterator[type]:
    """The classes that a card names, those inside others too."""
    for slot, value in tree.items():
        if isinstance(value, Mapping) and value.get("name") is not None and slot in ("learner", "net", "tasks"):
            known = catalogue(slot)
            if value["name"] in known:
                yield known[value["name"]]
            yield from _parts(value)


CITE = Command(
    "cite",
    "Print the BibTeX of the method, the network and the tasks that a checkpoint was made with.",
    "quickstudy cite run/best.safetensors > references.bib",
    _add,
    run,
)
