"""Weights that come with the package: where they lie."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent / "weights"
SUFFIX = ".safetensors"


def names() -> list[str]:
    """The names of the learners whose weights are shipped.

    >>> "tabular" in names()
    True
    """
    return sorted(file.name.removesuffix(SUFFIX) for file in FOLDER.glob(f"*{SUFFIX}"))


def located(path: str | Path) -> Path:
    """The file at `path`; where there is none and `path` is the name of shipped weights, the file of those.

    >>> located("tabular").name, str(located("runs/best.safetensors"))
    ('tabular.safetensors', 'runs/best.safetensors')
    """
    given = Path(path)
    return FOLDER / f"{path}{SUFFIX}" if str(path) in names() and not given.exists() else given
