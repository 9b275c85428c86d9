"""Where a study is kept: a journal file, or an SQL database that several machines reach."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quickstudy.core.errors import UserError

if TYPE_CHECKING:
    from optuna.storages import BaseStorage


def optuna_module() -> Any:
    """Optuna, its own log kept still.

    Raises UserError where it is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise UserError("tuning needs Optuna: install it with pip install 'quickstudy[tune]'.") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def storage(place: str) -> BaseStorage:
    """The storage at an SQL database's URL, or in a journal file of that path.

    Raises UserError where it cannot be reached or is damaged.
    """
    optuna = optuna_module()
    if "://" not in place:
        return _journal(Path(place))
    try:
        from sqlalchemy.pool import NullPool  # comes with Optuna

        # no connection outlives what it is asked for: a study that waits hours for a trial holds none
        return optuna.storages.RDBStorage(_with_driver(place), engine_kwargs={"poolclass": NullPool})
    except ImportError as error:
        raise UserError(
            f"the storage {shown(place)} needs the Python package {error.name or error}: install it, or give another."
        ) from None
    except Exception as error:  # a driver may refuse with whatever it likes
        said = " ".join(str(error.__cause__ or error).split()).split(" (Background")[0].rstrip(".")
        raise UserError(f"cannot reach the storage {shown(place)} ({said[:200]}): check the URL.") from None


@contextmanager
def reached(place: str) -> Iterator[None]:
    """Inside, a storage that is lost raises UserError."""
    try:
        yield
    except optuna_module().exceptions.StorageInternalError as error:
        said = " ".join(str(error.__cause__ or error).split()).split(" (Background")[0].rstrip(".")
        raise UserError(
            f"lost the storage {shown(place)} ({said[:200]}): what was done is kept; give the command again when it "
            "can be reached."
        ) from None


def _journal(path: Path) -> BaseStorage:
    journal = optuna_module().storages.journal
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _without_torn_end(path)
        lines = path.read_bytes().splitlines() if path.is_file() else []
        for line in (*lines[:1], *lines[-1:]):  # Optuna passes over a last line that it cannot read
            json.loads(line)
        return optuna_module().storages.JournalStorage(journal.JournalFileBackend(str(path)))
    except OSError as error:
        raise UserError(f"cannot use the storage {path}: {error.strerror or error}; choose another place.") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"the storage {path} is damaged or no journal: choose another --out or --storage.") from None


def _without_torn_end(path: Path) -> None:
    """Drop half a line that a machine which stopped in the middle of writing left behind."""
    if not path.is_file() or os.path.lexists(f"{path}.lock"):
        return
    with path.open("rb+") as file:
        content = file.read()
        if content and not content.endswith(b"\n"):
            file.truncate(content.rfind(b"\n") + 1)


def _with_driver(url: str) -> str:
    """A PostgreSQL URL that names no driver goes by psycopg 3, which the extra `postgresql` installs."""
    for plain in ("postgresql://", "postgres://"):
        if url.startswith(plain):
            return f"postgresql+psycopg://{url.removeprefix(plain)}"
    return url


def shown(url: str) -> str:
    """A URL without its password."""
    head, at, tail = url.rpartition("@")
    scheme, colon, rest = head.partition("://")
    return f"{scheme}{colon}{rest.split(':')[0]}@{tail}" if at else url
