"""Where adapted tasks are kept, so that they outlive a restart and may be shared by several processes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

from quickstudy.core.errors import UserError

FORMAT = 1
"""Raised when a store written now could not be read by the code of before."""
TABLE = "quickstudy_tasks"
COLUMNS = "id, digest, version, made, changed, state, support"
POSTGRESQL = ("postgresql://", "postgres://")


class Kept(NamedTuple):
    """A task as it is kept.

    digest: of the checkpoint it was adapted with. version: 1 when made, one more whenever it is extended. made,
    changed: seconds since 1970. state, support: bytes of `checkpoint.packed`, of kinds "adapted" and "support".
    """

    id: str
    digest: str
    version: int
    made: float
    changed: float
    state: bytes
    support: bytes


class StoreError(Exception):
    """The store cannot be reached, or is full; nothing was changed."""


class Store(ABC):
    """Tasks by their id. Every method may be called from several threads at once, and raises StoreError."""

    @abstractmethod
    def open(self) -> None:
        """Make the store ready, and what is missing of it.

        Raises UserError if that cannot be.
        """

    @abstractmethod
    def close(self) -> None: ...

    @abstractmethod
    def add(self, task: Kept, most: int) -> bool:
        """Keep a new task; False, and nothing kept, if `most` are kept already."""

    @abstractmethod
    def glance(self, id: str) -> tuple[int, str] | None:
        """Version and digest of a task; None if there is none."""

    @abstractmethod
    def find(self, id: str) -> Kept | None:
        """A task whole; None if there is none."""

    @abstractmethod
    def replace(self, task: Kept) -> bool:
        """Put a task in the place of itself one version before; False if that is not what is kept."""

    @abstractmethod
    def remove(self, id: str) -> bool:
        """Forget a task; False if there was none."""

    @abstractmethod
    def count(self, digest: str | None = None) -> int:
        """How many tasks are kept: all of them, or those of one checkpoint."""


def store_at(place: str) -> Store:
    """The store at a place: a file of SQLite, or a PostgreSQL database by its URL. It is not opened yet.

    Raises UserError for a URL of something else.
    """
    if place.startswith(POSTGRESQL):
        from quickstudy.serve.postgresql import PostgreSQL

        return PostgreSQL(place)
    if "://" in place:
        raise UserError(f"--store is {hidden(place)!r}: give a file, or a URL that begins with {POSTGRESQL[0]}.")
    from quickstudy.serve.sqlite import SQLite

    return SQLite(place)


def hidden(place: str) -> str:
    """A place as it may be shown: without the password of a URL.

    >>> hidden("postgresql://me:secret@host/tasks"), hidden("tasks.sqlite")
    ('postgresql://me:***@host/tasks', 'tasks.sqlite')
    """
    scheme, between, rest = place.partition("://")
    if not between or "@" not in rest:
        return place
    who, _, where = rest.rpartition("@")
    return f"{scheme}://{who.split(':')[0]}{':***' if ':' in who else ''}@{where}"
