"""Tasks in a file of SQLite: nothing to set up, for one machine."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from quickstudy.core.errors import UserError
from quickstudy.serve.store import COLUMNS, FORMAT, TABLE, Kept, Store, StoreError

T = TypeVar("T")
SECONDS = 10.0
"""How long one process waits for another that writes."""
MARK = 0x71737479
"""Tells the file from others of SQLite ("qsty")."""


class SQLite(Store):
    """A file with a write-ahead log: those who read do not wait for those who write, and what was answered is on the
    disk. Several processes of one machine may share it; on a network drive it must not lie.
    """

    def __init__(self, path: str):
        self.path = path
        self._own = threading.local()
        self._all: list[sqlite3.Connection] = []
        self._turn = threading.Lock()

    def open(self) -> None:
        where = Path(self.path)
        try:
            if not where.exists():
                os.close(os.open(where, os.O_CREAT | os.O_RDWR, 0o600))  # examples may be private
            with self._turn:
                self._prepare(self._connection())
        except (OSError, sqlite3.Error) as error:
            self.close()
            said = getattr(error, "strerror", None) or error
            raise UserError(f"cannot keep tasks in {self.path} ({said}): give another file with --store.") from None

    def _prepare(self, db: sqlite3.Connection) -> None:
        found = db.execute("PRAGMA application_id").fetchone()[0]
        tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if found != MARK and (found or tables):
            raise UserError(f"{self.path} is a database of something else: give another file with --store.")
        if db.execute("PRAGMA user_version").fetchone()[0] > FORMAT:
            raise UserError(f"{self.path} was written by a newer quickstudy: upgrade, or give another --store.")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("BEGIN IMMEDIATE")
        db.execute(
            f"CREATE TABLE IF NOT EXISTS {TABLE} (id TEXT PRIMARY KEY, digest TEXT NOT NULL, version INTEGER NOT NULL, "
            "made REAL NOT NULL, changed REAL NOT NULL, state BLOB NOT NULL, support BLOB NOT NULL)"
        )
        db.execute(f"PRAGMA application_id = {MARK}")
        db.execute(f"PRAGMA user_version = {FORMAT}")
        db.execute("COMMIT")

    def close(self) -> None:
        with self._turn:
            for db in self._all:
                db.close()
            self._all.clear()
            self._own = threading.local()

    def _connection(self) -> sqlite3.Connection:
        found = getattr(self._own, "db", None)
        if found is None:
            found = sqlite3.connect(self.path, timeout=SECONDS, isolation_level=None, check_same_thread=False)
            found.execute("PRAGMA synchronous = FULL")
            self._own.db = found
            self._all.append(found)
        return found

    def _do(self, work: Callable[[sqlite3.Connection], T], write: bool = False) -> T:
        try:
            if not write:
                return work(self._connection())
            with self._turn:
                return work(self._connection())
        except sqlite3.Error as error:
            raise StoreError(f"the tasks cannot be reached ({error})") from None

    def add(self, task: Kept, most: int) -> bool:
        marks = ", ".join("?" * len(task))
        order = f"INSERT INTO {TABLE} ({COLUMNS}) SELECT {marks} WHERE (SELECT count(*) FROM {TABLE}) < ?"
        return self._do(lambda db: db.execute(order, (*task, most)).rowcount == 1, write=True)

    def glance(self, id: str) -> tuple[int, str] | None:
        return self._do(lambda db: db.execute(f"SELECT version, digest FROM {TABLE} WHERE id = ?", (id,)).fetchone())

    def find(self, id: str) -> Kept | None:
        row = self._do(lambda db: db.execute(f"SELECT {COLUMNS} FROM {TABLE} WHERE id = ?", (id,)).fetchone())
        return Kept(*row) if row else None

    def replace(self, task: Kept) -> bool:
        order = f"UPDATE {TABLE} SET version = ?, changed = ?, state = ?, support = ? WHERE id = ? AND version = ?"
        given = (task.version, task.changed, task.state, task.support, task.id, task.version - 1)
        return self._do(lambda db: db.execute(order, given).rowcount == 1, write=True)

    def remove(self, id: str) -> bool:
        return self._do(lambda db: db.execute(f"DELETE FROM {TABLE} WHERE id = ?", (id,)).rowcount == 1, write=True)

    def count(self, digest: str | None = None) -> int:
        where, given = ("", ()) if digest is None else (" WHERE digest = ?", (digest,))
        return self._do(lambda db: db.execute(f"SELECT count(*) FROM {TABLE}{where}", given).fetchone()[0])
