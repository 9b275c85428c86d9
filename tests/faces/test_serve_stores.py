"""Both stores keep what they are given, and no more; several processes share one."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from quickstudy.client import Client
from quickstudy.core.errors import UserError
from quickstudy.serve.store import Kept, Store, StoreError, hidden, store_at
from served import of_arrays, postgresql, running

ROWS, LABELS = [[0.0, 1.0, 2.0, 3.0], [3.0, 2.0, 1.0, 0.0]], ["a", "b"]


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with postgresql() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    made = store_at(str(tmp_path / "a.sqlite") if request.param == "sqlite" else request.getfixturevalue("database"))
    made.open()
    yield made
    made.close()


def kept(number: int, version: int = 1) -> Kept:
    return Kept(f"{number:022}", "d" * 64, version, 1.5, 2.5 + version, b"\0state%d" % version, b"rows\xff")


def test_what_is_kept_is_found(store: Store) -> None:
    assert store.find("x" * 22) is None and store.glance("x" * 22) is None and not store.remove("x" * 22)
    assert store.add(kept(1), 10) and store.find(kept(1).id) == kept(1)
    assert tuple(store.glance(kept(1).id) or ()) == (1, "d" * 64)
    assert store.replace(kept(1, 2)) and store.find(kept(1).id) == kept(1, 2)
    assert not store.replace(kept(1, 2)) and not store.replace(kept(1, 4)) and not store.replace(kept(2, 2))
    assert (store.count(), store.count("d" * 64), store.count("e" * 64)) == (1, 1, 0)
    assert store.add(kept(2), 2) and not store.add(kept(3), 2) and store.count() == 2
    assert store.remove(kept(1).id) and store.remove(kept(2).id) and store.count() == 0


def test_of_many_who_replace_one_wins(store: Store) -> None:
    store.add(kept(1), 10)
    won: list[int] = []

    def extend(worker: int) -> None:
        for version in range(2, 12):
            if store.replace(kept(1, version)):
                won.append(version)

    threads = [threading.Thread(target=extend, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == len(set(won)) and store.find(kept(1).id) == kept(1, max(won))
    added: list[bool] = []
    threads = [threading.Thread(target=lambda i=i: added.append(store.add(kept(i), 5))) for i in range(2, 14)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(added) == 4 and store.count() == 5
    for i in range(1, 14):
        store.remove(kept(i).id)


def test_a_store_outlives_its_process(tmp_path: Path) -> None:
    first, second = (store_at(str(tmp_path / "a.sqlite")) for _ in range(2))
    first.open()
    first.add(kept(1), 10)
    second.open()  # without the first being closed
    assert second.find(kept(1).id) == kept(1)
    first.close()
    second.close()
    assert second._connection().execute("PRAGMA journal_mode").fetchone() == ("wal",)  # type: ignore[attr-defined]
    second.close()
    import sqlite3

    with sqlite3.connect(tmp_path / "b.sqlite") as db:
        db.execute("CREATE TABLE other (id TEXT)")
    db.close()
    other = store_at(str(tmp_path / "b.sqlite"))
    with pytest.raises(UserError, match="a database of something else"):
        other.open()
    other.close()


def test_a_store_that_fails_is_503(tmp_path: Path) -> None:
    with running(of_arrays(tmp_path)) as server:
        task = server.client.post("/tasks", json={"rows": ROWS, "labels": LABELS}).json()

        def fail(id: str) -> None:
            raise StoreError("the tasks cannot be reached (gone)")

        server.app.app.state.desk.store.glance = fail
        answer = server.client.get(f"/tasks/{task['id']}")
        assert answer.status_code == 503
        assert answer.json() == {"error": "the tasks cannot be reached (gone): try again later."}


def test_no_password_is_shown() -> None:
    assert hidden("postgresql://a:b@c@host/d") == "postgresql://a:***@host/d"
    assert hidden("postgresql://host/d") == "postgresql://host/d"


def test_lost_connections_are_made_again(database: str) -> None:
    store = store_at(database)
    store.open()
    store.add(kept(1), 10)
    import psycopg

    with psycopg.connect(database, autocommit=True) as db:
        db.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    assert store.find(kept(1).id) == kept(1)
    store.remove(kept(1).id)
    store.close()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_two_servers_share_a_store(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    path = of_arrays(tmp_path)
    store = str(tmp_path / "tasks.sqlite") if kind == "sqlite" else request.getfixturevalue("database")
    with running(path, store) as one, running(path, store) as two, Client(one.url) as a, Client(two.url) as b:
        task = a.task(ROWS, LABELS)
        assert b.find(task.id).predict(ROWS) == task.predict(ROWS)
        b.find(task.id).extend(ROWS[:1], ["b"])  # what the first one holds ready is of before
        assert task.predict(ROWS) == b.find(task.id).predict(ROWS) and task.predict(ROWS).version == 2
        body = {"rows": ROWS, "labels": LABELS}
        threads = [
            threading.Thread(target=lambda s=server: s.client.patch(f"/tasks/{task.id}", json=body))
            for server in (one, two) for _ in range(5)
        ]  # fmt: skip
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (a.find(task.id).card["version"], a.find(task.id).card["rows"]) == (12, 23)
        b.find(task.id).forget()
        answer = one.client.post(f"/tasks/{task.id}/predict", json={"rows": ROWS})
        assert answer.status_code == 404


def test_stopping_finishes_what_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from quickstudy.serve import gathering

    begun, held, work, said = threading.Event(), threading.Event(), gathering.work_out, []

    def slowly(questions: list[gathering.Question]) -> list[object]:
        begun.set()
        held.wait(30)
        return work(questions)

    monkeypatch.setattr(gathering, "work_out", slowly)
    with running(of_arrays(tmp_path)) as server:
        url = f"{server.url}/tasks"
        ask = lambda: said.append(httpx.post(url, json={"rows": ROWS, "labels": LABELS}, timeout=60))  # noqa: E731
        thread = threading.Thread(target=ask)
        thread.start()
        begun.wait(30)
        later = threading.Timer(0.5, held.set)
        later.start()
    thread.join()
    later.join()
    assert said[0].status_code == 201
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_several_processes_share_a_store(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    path = of_arrays(tmp_path)
    store = str(tmp_path / "tasks.sqlite") if kind == "sqlite" else request.getfixturevalue("database")
    words = ["serve", str(path), f"--store={store}", "--port=0", "--workers=2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "quickstudy", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert process.stdout and process.stderr
    try:
        line = process.stdout.readline()
        found = re.search(r"http://\S+", line)
        assert found, process.stderr.read()
        with Client(found[0]) as client:
            task = client.task(ROWS, LABELS)
            for version in range(2, 8):  # each on a new connection, to whichever process takes it
                with Client(found[0]) as other:
                    extended = other.find(task.id).extend(ROWS, LABELS)
                    assert extended.card["version"] == version and extended.card["rows"] == 2 * version
                    assert other.find(task.id).predict(ROWS).version == version
            text = httpx.get(f"{found[0]}metrics").text
            assert re.search(r'quickstudy_requests_total\{path="/tasks",status="201",verb="POST"\} 1.0', text)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130, process.stderr.read()
    finally:
        process.kill()
        process.communicate()
