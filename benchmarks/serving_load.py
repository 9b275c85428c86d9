"""Clients that make, extend, ask and delete tasks all the time, and remember what each task must say."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch

import quickstudy as qs
from quickstudy.checkpoint import Checkpoint

FEATURES = 64
AT_ONCE = 4
"""Tasks of one client at the same time."""
PAUSE = 0.1
"""Seconds before a request is sent again that was not answered."""
TOLERANCE = 1e-4
"""By how much a probability may differ from that of the library, which adapts to all examples at once."""


class Program:
    """The server as a program of its own, which is killed and started again at the same port."""

    def __init__(self, checkpoint: Path, store: str, workers: int = 1, batch: int = 64, port: int = 0):
        self.words = [str(checkpoint), f"--store={store}", f"--workers={workers}", f"--batch={batch}"]
        self.port = port
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [sys.executable, "-m", "quickstudy", "serve", *self.words, f"--port={self.port}"]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert self.process.stdout
        line = self.process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)/", line)
        if not found:
            raise SystemExit(f"the server did not start: {line}")
        self.port = int(found[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def kill(self) -> None:
        """End it at once, as a failing machine would."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """End it as Ctrl-C does; its exit code."""
        return self._end(signal.SIGINT)

    def _end(self, by: int) -> int:
        self.process.send_signal(by)
        code = self.process.wait()
        assert self.process.stdout
        self.process.stdout.close()
        return code


@dataclass
class Known:
    """What a client knows of a task of its own. sizes: how many examples it has at each version."""

    id: str
    x: np.ndarray
    y: list[str]
    sizes: dict[int, int]
    said: list[tuple[int, np.ndarray, Any]] = field(default_factory=list)
    gone: bool = False

    @property
    def version(self) -> int:
        return max(self.sizes)


class Client:
    """One client, which does one thing after the other until it is told to stop."""

    def __init__(self, number: int, http: httpx.AsyncClient):
        self.rng = np.random.default_rng([7, number])
        self.number = number
        self.http = http
        self.tasks: list[Known] = []
        self.seconds: dict[str, list[float]] = {}
        self.unanswered = 0
        self.lost_creations = 0
        self.wrong: list[str] = []

    async def run(self, until: asyncio.Event) -> None:
        while not until.is_set():
            live = [task for task in self.tasks if not task.gone]
            kind = self.rng.choice(["create", "extend", "predict", "delete"], p=[0.15, 0.2, 0.55, 0.1])
            if not live or (kind == "create" and len(live) < AT_ONCE):
                await self.create()
            else:
                task = live[self.rng.integers(len(live))]
                await {"extend": self.extend, "delete": self.delete}.get(kind, self.predict)(task)

    def examples(self, classes: int) -> tuple[np.ndarray, list[str]]:
        """Examples of so many classes of this client, whose names no other has."""
        label = np.arange(classes * int(self.rng.integers(1, 4))) % classes
        x = self.rng.standard_normal((len(label), FEATURES)).astype(np.float32) + label[:, None]
        return x, [f"client {self.number} class {k}" for k in label]

    async def ask(
        self, kind: str, verb: str, path: str, body: Any = None, good: tuple[int, ...] = ()
    ) -> httpx.Response:
        """The answer, however often the request must be sent; the seconds are those of the one that was answered."""
        while True:
            begin = time.perf_counter()
            try:
                answer = await self.http.request(verb, path, json=body)
                if answer.status_code != 503:
                    self.seconds.setdefault(kind, []).append(time.perf_counter() - begin)
                    if not answer.is_success and answer.status_code not in good:
                        self.wrong.append(f"{verb} {path} gave {answer.status_code}: {answer.text}")
                    return answer
            except httpx.TransportError:
                self.unanswered += 1
                self.lost_creations += kind == "create"
            await asyncio.sleep(PAUSE)

    async def create(self) -> None:
        x, y = self.examples(int(self.rng.integers(2, 6)))
        answer = await self.ask("create", "POST", "/tasks", {"rows": x.tolist(), "labels": y})
        if answer.is_success:
            card = answer.json()
            self.tasks.append(Known(card["id"], x, y, {1: len(y)}))
            self.check_card(self.tasks[-1], card)

    async def extend(self, task: Known) -> None:
        x, y = self.examples(len(set(task.y)) + int(self.rng.random() < 0.3))
        body = {"rows": x.tolist(), "labels": y, "version": task.version}
        answer = await self.ask("extend", "PATCH", f"/tasks/{task.id}", body, good=(409,))
        if answer.status_code == 409:  # it was made, and the answer was lost
            answer = await self.ask("describe", "GET", f"/tasks/{task.id}")
        if answer.is_success:
            task.x, task.y = np.concatenate([task.x, x]), [*task.y, *y]
            task.sizes[task.version + 1] = len(task.y)
            self.check_card(task, answer.json())

    async def predict(self, task: Known) -> None:
        x = self.rng.standard_normal((int(self.rng.integers(1, 9)), FEATURES)).astype(np.float32) + 1
        answer = await self.ask("predict", "POST", f"/tasks/{task.id}/predict", {"rows": x.tolist()})
        if answer.is_success:
            task.said.append((answer.json()["version"], x, answer.json()))

    async def delete(self, task: Known) -> None:
        await self.ask("delete", "DELETE", f"/tasks/{task.id}", good=(404,))
        task.gone = True

    async def look_again(self) -> None:
        """Every task must be there as it was left, and what was deleted must not."""
        for task in self.tasks:
            answer = await self.ask("look", "GET", f"/tasks/{task.id}", good=(404,))
            if task.gone != (answer.status_code == 404):
                self.wrong.append(f"task {task.id} is {'there again' if task.gone else 'lost'}")
            elif not task.gone:
                self.check_card(task, answer.json())
                await self.predict(task)

    def check_card(self, task: Known, card: dict[str, Any]) -> None:
        counts = dict(zip(card["classes"], card["counts"], strict=True))
        wanted = {name: task.y.count(name) for name in set(task.y)}
        if (card["version"], card["rows"], counts) != (task.version, len(task.y), wanted):
            self.wrong.append(f"task {task.id} is {card}, and must be at {task.version} with {wanted}")


def checked(clients: list[Client], trained: Checkpoint) -> dict[str, float]:
    """Every answer beside that of the library, which adapts to the examples of that version at once."""
    torch.set_num_threads(1)
    answers, furthest = 0, 0.0
    for client in clients:
        for task in client.tasks:
            adapted: dict[int, Any] = {}
            for version, x, said in task.said:
                if version not in adapted:
                    n = task.sizes[version]
                    adapted[version] = qs.adapt(trained, torch.from_numpy(task.x[:n]), task.y[:n])
                wanted = adapted[version]
                answers += 1
                if said["classes"] != wanted.classes:
                    client.wrong.append(f"task {task.id} knows {said['classes']}, and must know {wanted.classes}")
                    continue
                gap = np.abs(np.array(said["probabilities"]) - wanted.probabilities(torch.from_numpy(x)).numpy()).max()
                furthest = max(furthest, float(gap))
                if gap > TOLERANCE:
                    client.wrong.append(f"task {task.id} at version {version} is off by {gap}")
    return {"answers": answers, "furthest": furthest}


async def load(program: Program, clients: int, seconds: float, restart: bool) -> list[Client]:
    """So many clients for so long; restart: the server is killed in the middle, and started again."""
    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    async with httpx.AsyncClient(base_url=program.url, timeout=120, limits=limits, trust_env=False) as http:
        many, until = [Client(i, http) for i in range(clients)], asyncio.Event()
        running = [asyncio.create_task(client.run(until)) for client in many]
        await asyncio.sleep(seconds / 2)
        if restart:
            await asyncio.to_thread(program.kill)
            await asyncio.to_thread(program.start)
        await asyncio.sleep(seconds / 2)
        until.set()
        await asyncio.gather(*running)
        await asyncio.gather(*(client.look_again() for client in many))
        text = (await http.get("/metrics")).text
    kept = int(float(next(line for line in text.splitlines() if line.startswith("quickstudy_tasks ")).split()[1]))
    left = sum(not task.gone for client in many for task in client.tasks)
    if not left <= kept <= left + sum(client.lost_creations for client in many):
        many[0].wrong.append(f"{kept} tasks are kept, and {left} must be")
    return many
