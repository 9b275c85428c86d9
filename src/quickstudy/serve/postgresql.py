"""Tasks in a PostgreSQL database, for several processes or machines."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, TypeVar

from quickstudy.core.errors import UserError
from quickstudy.serve.store import COLUMNS, FORMAT, TABLE, Kept, Store, StoreError, hidden

T = TypeVar("T")
CONNECTIONS = 8
SECONDS = 10.0
"""How long to wait for a connection, and for an answer."""
LOCK = 0x71737479
"""The number of the lock under which tasks are counted and added."""


class PostgreSQL(Store):
    """A table in the database that the URL names; it is made if it is missing. Lost connections are made again."""

    def __init__(self, url: str):
        self.url = url
        self._pool: Any = None
        self._errors: tuple[type[Exception], ...] = ()

    def open(self) -> None:
        try:
            psycopg: Any = importlib.import_module("psycopg")
            pools: Any = importlib.import_module("psycopg_pool")
        except ImportError:
            raise UserError(
                "a PostgreSQL store needs psycopg: pip install 'quickstudy[postgresql]', or give a file."
            ) from None
        self._errors = (psycopg.Error, pools.PoolTimeout, pools.PoolClosed, OSError)
        options = {"connect_timeout": 5, "options": f"-c statement_timeout={round(1000 * SECONDS)}"}
        try:
            psycopg.connect(self.url, **options).close()  # a pool would try again and again, and not say why
            self._pool = pools.ConnectionPool(
                self.url, kwargs=options, min_size=1, max_size=CONNECTIONS, timeout=SECONDS, open=True,
                check=pools.ConnectionPool.check_connection,
            )  # fmt: skip
            self._prepare()
        except self._errors as error:
            self.close()
            first = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
            raise UserError(
                f"cannot keep tasks in {hidden(self.url)} ({first}): check that the database runs, and the URL."
            ) from None

    def _prepare(self) -> None:
        with self._pool.connection() as db:
            db.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
            db.execute(
                f"CREATE TABLE IF NOT EXISTS {TABLE} (id TEXT PRIMARY KEY, digest TEXT NOT NULL, "
                "version INTEGER NOT NULL, made DOUBLE PRECISION NOT NULL, changed DOUBLE PRECISION NOT NULL, "
                "state BYTEA NOT NULL, support BYTEA NOT NULL)"
            )
            db.execute("CREATE TABLE IF NOT EXISTS quickstudy_format (format INTEGER PRIMARY KEY)")
            found = db.execute("SELECT max(format) FROM quickstudy_format").fetchone()[0]
            if found is None:
                db.execute("INSERT INTO quickstudy_format VALUES (%s)", (FORMAT,))
        if found is not None and found > FORMAT:
            self.close()
            raise UserError(f"{hidden(self.url)} was written by a newer quickstudy: upgrade, or give another --store.")

    def close(self) -> None:
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def _do(self, work: Callable[[Any], T]) -> T:
        try:
            with self._pool.connection() as db:
                return work(db)
        except self._errors as error:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
            raise StoreError(f"the tasks cannot be reached ({first})") from None

    def add(self, task: Kept, most: int) -> bool:
        marks = ", ".join(["%s"] * len(task))
        order = f"INSERT INTO {TABLE} ({COLUMNS}) SELECT {marks} WHERE (SELECT count(*) FROM {TABLE}) < %s"

        def work(db: Any) -> bool:
            db.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))  # else two could both count one too few
            return db.execute(order, (*task, most)).rowcount == 1

        return self._do(work)

    def glance(self, id: str) -> tuple[int, str] | None:
        order = f"SELECT version, digest FROM {TABLE} WHERE id = %s"
        return self._do(lambda db: db.execute(order, (id,)).fetchone())

    def find(self, id: str) -> Kept | None:
        row = self._do(lambda db: db.execute(f"SELECT {COLUMNS} FROM {TABLE} WHERE id = %s", (id,)).fetchone())
        return Kept(*row) if row else None

    def replace(self, task: Kept) -> bool:
        values = "version = %s, changed = %s, state = %s, support = %s"
        order = f"UPDATE {TABLE} SET {values} WHERE id = %s AND version = %s"
        given = (task.version, task.changed, task.state, task.support, task.id, task.version - 1)
        return self._do(lambda db: db.execute(order, given).rowcount == 1)

    def remove(self, id: str) -> bool:
        return self._do(lambda db: db.execute(f"DELETE FROM {TABLE} WHERE id = %s", (id,)).rowcount == 1)

    def count(self, digest: str | None = None) -> int:
        where, given = ("", ()) if digest is None else (" WHERE digest = %s", (digest,))
        return self._do(lambda db: db.execute(f"SELECT count(*) FROM {TABLE}{where}", given).fetchone()[0])
