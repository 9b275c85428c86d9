"""A PostgreSQL server of its own, for as long as it is needed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NEEDED = ("postgres", "initdb", "pg_ctl")
PLACES = [Path("/usr/local/bin"), *sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
"""Where systems lay these programs, which are not for users; the newest first."""
PROGRAMS = next((place for place in PLACES if all((place / name).exists() for name in NEEDED)), None)
USER = "postgres"


def there() -> bool:
    """Whether the programs of PostgreSQL are."""
    return PROGRAMS is not None


@contextmanager
def database() -> Iterator[str]:
    """A server whose files lie in a new temporary folder, at a free port of 127.0.0.1; gives its URL."""
    place = Path(tempfile.mkdtemp(prefix="quickstudy-postgresql-"))
    if os.geteuid() == 0:  # which PostgreSQL refuses to be
        shutil.chown(place, USER)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    cluster = place / "data"
    try:
        _run("initdb", "-D", str(cluster), "-A", "trust", "-U", USER, "--no-sync", "-E", "UTF8", "--no-locale")
        options = f"-p {port} -k {place} -c listen_addresses=127.0.0.1"
        _run("pg_ctl", "-D", str(cluster), "-w", "-t", "300", "-l", str(place / "log"), "-o", options, "start")
        try:
            yield f"postgresql://{USER}@127.0.0.1:{port}/postgres"
        finally:
            _run("pg_ctl", "-D", str(cluster), "-m", "immediate", "-w", "-t", "300", "stop")
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _run(program: str, *words: str) -> None:
    assert PROGRAMS is not None
    command = [str(PROGRAMS / program), *words]
    if os.geteuid() == 0:
        command = ["runuser", "-u", USER, "--", *command]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, cwd="/")
