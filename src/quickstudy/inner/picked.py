"""Which formulation the engine picked: told while it runs, for whoever asks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_told: ContextVar[list[str] | None] = ContextVar("told", default=None)


def tell(words: str) -> None:
    """Say what was picked; heard inside `picked` and nowhere else."""
    told = _told.get()
    if told is not None and words not in told:
        told.append(words)


@contextmanager
def picked() -> Iterator[list[str]]:
    """The formulations picked inside the block, each once, in order."""
    told: list[str] = []
    token = _told.set(told)
    try:
        yield told
    finally:
        _told.reset(token)
