"""What the server does not take: each is refused with its status and one sentence of JSON, and it goes on serving."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import struct
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import torch

import quickstudy as qs
from quickstudy.serve.limits import Limits
from quickstudy.serve.store import store_at
from served import Server, of_arrays, of_images, of_values, running

GIGABYTE = 10**9
TOKEN = "a-token-of-some-length"
ROWS, LABELS = [[0.0, 1.0, 2.0, 3.0], [3.0, 2.0, 1.0, 0.0]], ["a", "b"]
SMALL = Limits(body=100_000, rows=50, classes=4, tasks=5, seconds=1.0, connections=30)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(of_arrays(tmp_path_factory.mktemp("served")), limits=SMALL, token=TOKEN) as server:
        yield server
        assert server.client.get("/healthz").json() == {"status": "ok"}  # whatever was sent


@pytest.fixture(scope="module")
def task(server: Server) -> str:
    return server.client.post("/tasks", json={"rows": ROWS, "labels": LABELS}).json()["id"]


def sentence(answer: httpx.Response, status: int) -> str:
    """The sentence of a refusal of that status."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    said = answer.json()
    assert list(said) == ["error"] and said["error"].endswith((".", "?")) and "\n" not in said["error"]
    return said["error"]


def raw(server: Server, sent: bytes, close: bool = False, seconds: float = 10) -> bytes:
    """What is answered to bytes on a new connection; close: cut it instead of waiting."""
    place = urlsplit(server.url)
    with socket.create_connection((place.hostname, place.port), timeout=seconds) as line:
        line.sendall(sent)
        if close:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # as if the cable were cut
            return b""
        found = b""
        while part := line.recv(65536):
            found += part
        return found


def head(path: str, more: str = "", verb: str = "POST", token: str = TOKEN) -> bytes:
    lines = [f"{verb} {path} HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Bearer {token}"]
    return "\r\n".join([*lines, "Content-Type: application/json", *([more] if more else []), "", ""]).encode()


def test_a_gigabyte(server: Server) -> None:
    read = 0

    def body() -> Iterator[bytes]:
        nonlocal read
        for _ in range(GIGABYTE // 2**16):
            read += 2**16
            yield b"[" * 2**16

    # it says how long it is, and is refused before it is sent; or comes in pieces, and is cut off
    said = sentence(server.client.post("/tasks", content=body(), headers=json_of(length=GIGABYTE)), 413)
    assert said == "the body is larger than 100000 bytes: send fewer rows at once." and read < GIGABYTE / 4
    read = 0
    with contextlib.suppress(httpx.TransportError):  # where it went on sending when all was said
        sentence(server.client.post("/tasks", content=body(), headers=json_of()), 413)
    assert read < GIGABYTE / 4
    assert b" 413 " in raw(server, head("/tasks", f"Content-Length: {GIGABYTE}")).split(b"\r\n")[0]
    chunk = b"186a1\r\n" + b" " * 100_001 + b"\r\n"
    sent = head("/tasks", "Transfer-Encoding: chunked") + chunk + b"0\r\n\r\n"
    assert b" 413 " in raw(server, sent).split(b"\r\n")[0]


def json_of(length: int = 0) -> dict[str, str]:
    return {"Content-Type": "application/json"} | ({"Content-Length": str(length)} if length else {})


def test_a_million_classes(server: Server, tmp_path: Path) -> None:
    said = sentence(server.client.post("/tasks", json={"rows": [ROWS[0]] * 5, "labels": list("abcde")}), 422)
    assert said == "the task would have 5 classes and 4 are the most."
    million = json.dumps({"rows": [[0] * 4] * 10**6, "labels": list(range(10**6))}).encode()
    assert "body is larger" in sentence(server.client.post("/tasks", content=million, headers=json_of()), 413)
    with running(of_arrays(tmp_path), limits=Limits(body=2**26)) as wide:
        assert "rows does not fit" in sentence(wide.client.post("/tasks", content=million, headers=json_of()), 422)


def test_too_many_rows(server: Server, task: str) -> None:
    many = {"rows": ROWS[:1] * 51, "labels": ["a"] * 51}
    assert "rows does not fit" in sentence(server.client.post("/tasks", json=many), 422)
    asked = server.client.post(f"/tasks/{task}/predict", json={"rows": many["rows"]})
    assert "rows does not fit" in sentence(asked, 422)
    more = {"rows": ROWS[:1] * 49, "labels": ["a"] * 49}
    assert "51 rows and 50 are the most" in sentence(server.client.patch(f"/tasks/{task}", json=more), 422)
    new = {"rows": ROWS + ROWS[:1], "labels": ["c", "d", "e"]}
    assert "5 classes and 4" in sentence(server.client.patch(f"/tasks/{task}", json=new), 422)


BAD = {
    "NaN": ('{"rows": [[0, 1, 2, NaN]]}', 400, "NaN, which is no JSON"),
    "infinity": ('{"rows": [[0, 1, 2, -Infinity]]}', 400, "-Infinity, which is no JSON"),
    "beyond float64": ('{"rows": [[0, 1, 2, 1e999]]}', 422, "rows.0.3 does not fit"),
    "beyond float32": ('{"rows": [[0, 1, 2, 1e200]]}', 422, "row 0 holds a value that is not finite"),
    "a huge number": ('{"rows": [[0, 1, 2, 1%s]]}' % ("0" * 400), 422, "does not fit"),
    "digits without end": ('{"rows": [[0, 1, 2, 1%s]]}' % ("0" * 9000), 400, "no JSON"),
    "a nest": ("[" * 50_000, 400, "no JSON"),
    "a closed nest": ('{"rows": ' + "[" * 40_000 + "]" * 40_000 + "}", 400, "no JSON"),
    "half a body": ('{"rows": [[0, 1', 400, "no JSON"),
    "nothing": ("", 422, "does not fit"),
    "no UTF-8": (b'{"rows": "\xff\xfe"}', 400, "no JSON"),
    "words": ('{"rows": [["a", "b", "c", "d"]]}', 422, "rows.0.0 does not fit"),
    "truths": ('{"rows": [[true, false, 1, 1]]}', 422, "rows.0.0 does not fit"),
    "short rows": ('{"rows": [[0, 1, 2]]}', 422, "rows.0 does not fit"),
    "no rows": ('{"rows": []}', 422, "rows does not fit"),
    "an unknown field": ('{"rows": [[0, 1, 2, 3]], "temperature": 2}', 422, "temperature does not fit"),
    "no calibration": ('{"rows": [[0, 1, 2, 3]], "coverage": 0.9}', 422, "not calibrated"),
    "half a letter": ('{"rows": [[0, 1, 2, "\\ud800"]]}', 422, "does not fit"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bodies(server: Server, task: str, name: str) -> None:
    body, status, part = BAD[name]
    answer = server.client.post(f"/tasks/{task}/predict", content=body, headers=json_of())
    assert part in sentence(answer, status)


def test_labels_and_values(server: Server, tmp_path: Path) -> None:
    for labels, part in (
        (["a"], "2 rows and 1 labels"), (["a", "a"], "shows one class"), (["a", ""], "labels.1"),
        (["a", "b" * 201], "labels.1"), (["a", "\ud800"], "labels.1"), (["a", 0.5], "labels.1"),
        (["a", None], "labels.1"),
    ):  # fmt: skip
        answer = server.client.post("/tasks", content=json.dumps({"rows": ROWS, "labels": labels}), headers=json_of())
        assert part in sentence(answer, 422)
    with running(of_values(tmp_path)) as values:
        for given, status in (([[1.0], [float("nan")]], 400), ([[1.0], [1e99]], 422), ([1.0, 2.0], 422)):
            sent = json.dumps({"rows": [[0.0], [1.0]], "values": given})
            sentence(values.client.post("/tasks", content=sent, headers=json_of()), status)


def test_who_may_ask(server: Server, task: str) -> None:
    with httpx.Client(base_url=server.url, trust_env=False) as stranger:
        for path in ("/card", f"/tasks/{task}", "/metrics", "/openapi.json", "/nowhere"):
            assert "token" in sentence(stranger.get(path), 401)
            for given in ("Bearer wrong", f"Bearer {TOKEN}x", f"Basic {TOKEN}", TOKEN):
                answer = stranger.get(path, headers={"Authorization": given})
                assert "token" in sentence(answer, 401) and answer.headers["www-authenticate"] == "Bearer"
        assert "token" in sentence(stranger.request("DELETE", f"/tasks/{task}"), 401)
        # the body of a stranger is not even read
        assert b" 401 " in raw(server, head("/tasks", f"Content-Length: {GIGABYTE}", token="x")).split(b"\r\n")[0]
        for path in ("/", "/docs", "/healthz"):
            assert stranger.get(path).status_code == 200
    assert server.client.get(f"/tasks/{task}").status_code == 200


def test_pages_of_others_cannot_ask(server: Server) -> None:
    said = sentence(server.client.get("/healthz", headers={"Host": "evil.example"}), 400)
    assert said == "the Host header names another machine: use localhost or 127.0.0.1 in the address."
    assert server.client.get("/healthz", headers={"Host": "localhost:1234"}).status_code == 200
    answer = server.client.options("/tasks", headers={"Origin": "http://evil.example"})
    assert not [name for name in answer.headers if name.startswith("access-control")]
    plain = server.client.post("/tasks", content="{}", headers={"Content-Type": "text/plain"})
    assert "Content-Type: application/json" in sentence(plain, 415)


def test_what_is_not_there(server: Server) -> None:
    assert sentence(server.client.get("/nowhere"), 404) == "there is nothing at this address: see /docs."
    assert "is not for this address" in sentence(server.client.put("/tasks", json={}), 405)
    for id in ("x" * 22, "x", "../../etc", "%00", "x" * 5000):
        sentence(server.client.get(f"/tasks/{id}"), 404)
    assert b" 400 " in raw(server, b"nonsense\r\n\r\n").split(b"\r\n")[0]
    answer = raw(server, b"\x16\x03\x01 nonsense\r\n\r\n")
    assert json.loads(answer.split(b"\r\n\r\n")[1])["error"].startswith("this is no HTTP request")
    assert b" 400 " in raw(server, b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nx: " + b"y" * 10**6).split(b"\r\n")[0]


def test_a_cut_connection(server: Server, task: str) -> None:
    for sent in (b"", b"POST /tas", head("/tasks"), head("/tasks", "Content-Length: 1000") + b'{"rows": [[1'):
        raw(server, sent, close=True)
    for _ in range(20):
        body = json.dumps({"rows": ROWS}).encode()
        raw(server, head(f"/tasks/{task}/predict", f"Content-Length: {len(body)}") + body, close=True)
    assert server.client.post(f"/tasks/{task}/predict", json={"rows": ROWS}).status_code == 200


def test_what_comes_too_slowly(server: Server) -> None:
    begun = time.monotonic()
    for sent in (b"", head("/tasks")[:30], head("/tasks", "Content-Length: 1000") + b'{"rows"'):
        answer = raw(server, sent)
        assert b" 408 " in answer.split(b"\r\n")[0]
        assert "did not arrive within 1 seconds" in json.loads(answer.split(b"\r\n\r\n")[1])["error"]
    assert time.monotonic() - begun >= 2.5  # not before its time


def test_too_many_connections(server: Server) -> None:
    place = urlsplit(server.url)
    lines = [socket.create_connection((place.hostname, place.port), timeout=10) for _ in range(SMALL.connections + 3)]
    try:
        answer = lines[-1].recv(65536)
        assert b" 503 " in answer.split(b"\r\n")[0] and b"connections are open" in answer
    finally:
        for line in lines:
            line.close()
    wait_until(lambda: server.client.get("/healthz").status_code == 200)


def wait_until(true: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            if true():
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise AssertionError("it never came true")


def test_too_many_tasks_and_requests(tmp_path: Path) -> None:
    with running(of_arrays(tmp_path), limits=Limits(tasks=2)) as server:
        answers = [server.client.post("/tasks", json={"rows": ROWS, "labels": LABELS}) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [201, 201, 503]
        assert sentence(answers[2], 503) == "2 tasks are kept, which is the most: delete one first."
    with running(of_arrays(tmp_path), limits=Limits(rate=0.2)) as server:
        said = [server.client.get("/healthz") for _ in range(5)]
        slowed = [answer for answer in said if answer.status_code == 429]
        assert slowed and sentence(slowed[0], 429).startswith("there were more than 0.2 requests a second")
        assert slowed[0].headers["retry-after"] == "1"
        wait_until(lambda: server.client.get("/healthz").status_code == 200)


def bomb(width: int, height: int, data: bytes = zlib.compress(b"\0" * 1000)) -> str:
    """A PNG that says it has so many pixels, in base64."""

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    size = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    whole = b"\x89PNG\r\n\x1a\n" + part(b"IHDR", size) + part(b"IDAT", data) + part(b"IEND", b"")
    return base64.b64encode(whole).decode()


def test_image_bombs(tmp_path: Path) -> None:
    with running(of_images(tmp_path), limits=Limits(pixels=10**6)) as server:
        for rows, part in (
            ([bomb(2000, 1000), bomb(8, 8)], "more than 1000000 pixels together"),
            ([bomb(10**6, 10**6)] * 2, "far too large"),
            ([bomb(900, 900)] * 2, "more than 1000000 pixels together (at row 1)"),
            ([bomb(9, 9, b"nonsense")] * 2, "damaged or no image"), (["aGVsbG8="] * 2, "row 0 is no image"),
            (["!"] * 2, "no base64"),
            ([base64.b64encode(b"%!PS-Adobe-3.0 EPSF-3.0").decode()] * 2, "row 0 is no image"),
        ):  # fmt: skip
            assert part in sentence(server.client.post("/tasks", json={"rows": rows, "labels": ["a", "b"]}), 422)


def test_a_call_that_takes_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from quickstudy.serve import gathering

    held, work = threading.Event(), gathering.work_out
    monkeypatch.setattr(gathering, "work_out", lambda questions: (held.wait(30), work(questions))[1])
    with running(of_arrays(tmp_path), limits=Limits(seconds=0.5)) as server:
        answer = server.client.post("/tasks", json={"rows": ROWS, "labels": LABELS})
        assert "takes longer than 0.5 seconds" in sentence(answer, 503)
        held.set()
        wait_until(lambda: server.client.post("/tasks", json={"rows": ROWS, "labels": LABELS}).status_code == 201)


def test_one_of_a_batch_that_fails_spoils_no_other(tmp_path: Path) -> None:
    from quickstudy.adaptation import Support
    from quickstudy.serve.gathering import Asked, work_out

    trained = qs.load(of_arrays(tmp_path))
    good = Support.of(trained, torch.tensor(ROWS), LABELS)
    task = qs.adapt(trained, torch.tensor(ROWS), LABELS)
    found = work_out([Asked(task, torch.zeros(2, 3)), good, Asked(task, torch.zeros(2, 4)), lambda: 1 / 0])
    assert isinstance(found[0], Exception) and isinstance(found[3], ZeroDivisionError)
    assert found[1].classes == LABELS and found[2].shape == (2, 2)


def test_the_command_refuses(refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, store = of_arrays(tmp_path), f"--store={tmp_path / 'tasks.sqlite'}"
    monkeypatch.delenv("QUICKSTUDY_TOKEN", raising=False)
    assert "no checkpoint at" in refused("serve", tmp_path / "none.safetensors", store, "--port=0")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert refused("serve", path, store, f"--port={port}").startswith(f"quickstudy: cannot listen at port {port}")
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "uvicorn", None)
        assert "needs the package uvicorn: pip install 'quickstudy[serve]'" in refused("serve", path, store, "--port=0")
        without.setitem(sys.modules, "psycopg", None)
        with pytest.raises(qs.UserError, match=r"quickstudy\[postgresql\]"):
            store_at("postgresql://host/x").open()
    assert "--host is 0.0.0.0" in refused("serve", path, store, "--host=0.0.0.0")
    assert "cannot read the token" in refused("serve", path, store, f"--token_file={tmp_path / 'none'}")
    (tmp_path / "short").write_text("abc\n")
    assert "16 letters" in refused("serve", path, store, f"--token_file={tmp_path / 'short'}")
    gone = "postgresql://someone:secret@127.0.0.1:9/tasks"
    said = refused("serve", path, f"--store={gone}", "--port=0")
    assert "cannot keep tasks in postgresql://someone:***@127.0.0.1:9/tasks" in said and "secret" not in said
    assert "begins with postgresql://" in refused("serve", path, "--store=mysql://host/x", "--port=0")
    assert "cannot keep tasks in" in refused("serve", path, f"--store={tmp_path / 'none' / 'x.sqlite'}", "--port=0")
    (tmp_path / "text.sqlite").write_text("something else " * 50)
    assert "cannot keep tasks in" in refused("serve", path, f"--store={tmp_path / 'text.sqlite'}", "--port=0")
    assert "the limit rows is 0" in refused("serve", path, store, "--max_rows=0")
    assert "--workers is 0" in refused("serve", path, store, "--workers=0")
    assert "--port is 70000" in refused("serve", path, store, "--port=70000")
