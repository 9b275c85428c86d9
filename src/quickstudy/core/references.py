"""What to cite: BibTeX entries by key, in the `references.bib` beside the class that names them."""

from __future__ import annotations

import inspect
import re
from functools import cache
from pathlib import Path


def references(cls: type) -> list[str]:
    """The BibTeX entries of a class's `papers`, in order.

    A class of your own has no such file beside it: its `papers` may hold whole entries, which begin with @.
    Raises KeyError for a key that the file does not hold.

    >>> from quickstudy.learners import MAML
    >>> references(MAML)[0].splitlines()[0]
    '@inproceedings{finn2017maml,'
    """
    known = _entries(Path(inspect.getfile(cls)).parent / "references.bib")
    return [key if key.startswith("@") else known[key] for key in getattr(cls, "papers", ())]


@cache
def _entries(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    parts = re.split(r"(?m)^(?=@)", path.read_text(encoding="utf-8"))
    return {part.split("{", 1)[1].split(",", 1)[0].strip(): part.strip() for part in parts if part.startswith("@")}


def field(entry: str, name: str) -> str:
    """One field of an entry, such as its year or eprint; empty if it has none.

    >>> field("@misc{key, year = {2017}, title = {A {Title}}}", "title")
    'A Title'
    """
    found = re.search(rf"\b{name}\s*=\s*\{{((?:[^{{}}]|\{{[^{{}}]*\}})*)\}}", entry)
    return re.sub(r"[{}]", "", found.group(1)).strip() if found else ""
