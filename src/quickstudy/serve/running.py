"""A server from its start to its end: one process, or several that share a port and a store."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from quickstudy import checkpoint
from quickstudy.core.errors import UserError
from quickstudy.questions.trust import Trust, place_for
from quickstudy.serve.limits import Limits
from quickstudy.serve.store import Store, store_at

COMMAND = (sys.executable, "-P", "-c", "from quickstudy.serve.running import work; work()")
FALLS = 5
"""Workers that may end by themselves within a minute, before all is given up."""
SHARED = "PROMETHEUS_MULTIPROC_DIR"


@dataclass(frozen=True)
class Settings:
    """What a server is told, as JSON holds it.

    wait: seconds that the first of a batch waits for others; batch: questions worked out at once. trust: what
    `quickstudy calibrate` wrote, "" for what lies beside the checkpoint, if anything does. token: "" for none.
    """

    checkpoint: str
    store: str = "tasks.sqlite"
    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    wait: float = 0.002
    batch: int = 64
    trust: str = ""
    token: str = field(default="", repr=False)
    limits: Limits = field(default_factory=Limits)


def needed() -> None:
    """Raise UserError where a package that serving needs is missing."""
    for name in ("fastapi", "uvicorn", "prometheus_client"):
        try:
            importlib.import_module(name)
        except ImportError:
            raise UserError(f"serving needs the package {name}: pip install 'quickstudy[serve]'.") from None


def built(settings: Settings, store: Store) -> Any:
    """The ASGI application of a server, guard and all; the store is open.

    Raises UserError for a checkpoint that cannot be served, or the calibration of another one.
    """
    from quickstudy.serve.app import application
    from quickstudy.serve.desk import Desk
    from quickstudy.serve.gathering import Gatherer
    from quickstudy.serve.guard import Guard, is_loopback
    from quickstudy.serve.metrics import Metrics

    trained, metrics = checkpoint.load(settings.checkpoint), Metrics()
    gatherer = Gatherer(settings.wait, settings.batch, metrics.batched)
    desk = Desk(trained, store, settings.limits, gatherer, _trust(settings, trained))
    app = application(desk, metrics, bool(settings.token))
    return Guard(app, settings.limits, settings.token, is_loopback(settings.host), metrics.request)


def _trust(settings: Settings, trained: checkpoint.Checkpoint) -> Trust | None:
    place = Path(settings.trust or place_for(str(trained.card["path"])))
    if not settings.trust and not place.is_file():
        return None
    trust = Trust.read(place)
    if trust.digest and trust.digest != trained.card["digest"]:
        if settings.trust:
            raise UserError(f"{place} is the calibration of another learner: make one with `quickstudy calibrate`.")
        return None
    return trust


def run(settings: Settings, tell: Callable[[str], object] = print) -> int:
    """Serve until a signal says to stop; the exit code is 130 after Ctrl-C, else 0.

    What runs is finished first, for as long as a request may take; a second Ctrl-C ends at once. `tell` is called with
    one line when the server answers. Raises UserError where it cannot begin.
    """
    needed()
    store = store_at(settings.store)
    with listening(settings.host, settings.port) as listener:
        store.open()
        try:
            app = built(settings, store)  # also where others will serve: what is wrong is said here, once
            trained = checkpoint.glance(checkpoint.located(settings.checkpoint))
            others = store.count() - store.count(app.app.state.desk.digest)
            if others:
                tell(f"{others} tasks in the store were adapted with other learners, and are not answered for")
            host, port = listener.getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            line = f"{trained['learner']['name']} is served at http://{shown}:{port}/ (Ctrl-C stops it)"
            if settings.workers == 1:
                return _one(app, listener, settings.limits, lambda: tell(line))
            del app
            return _several(settings, listener, lambda: tell(line))
        finally:
            store.close()


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens. Raises UserError if the port is taken, or the host is not this machine's."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        made = socket.socket(family)
    except (OSError, OverflowError):
        raise UserError(f"--host is {host!r} and --port {port}, which is no address of this machine.") from None
    with made:
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind((host, port))
            made.listen(2048)
        except OSError as error:
            raise UserError(
                f"cannot listen at port {port} of {host} ({error.strerror}): give another --port, or 0 for a free one."
            ) from None
        made.set_inheritable(True)
        yield made


def server_for(app: Any, limits: Limits) -> Any:
    """A server of uvicorn for an application that `built` made; it is not started yet."""
    import uvicorn

    from quickstudy.serve.protocol import protocol_for

    config = uvicorn.Config(
        app, http=protocol_for(limits), ws="none", loop="asyncio", lifespan="on", log_level="warning", access_log=False,
        proxy_headers=False, server_header=False, timeout_keep_alive=5, timeout_graceful_shutdown=round(limits.seconds),
        backlog=2048,
    )  # fmt: skip
    return uvicorn.Server(config)


def _one(app: Any, listener: socket.socket, limits: Limits, ready: Callable[[], object]) -> int:
    """Serve in this process."""
    server = server_for(app, limits)
    caught: list[int] = []

    def stop(number: int) -> None:
        server.force_exit = server.should_exit and number == signal.SIGINT
        server.should_exit = True
        caught.append(number)

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop, number)
        serving = loop.create_task(server._serve([listener]))  # `serve` would raise the signal again
        while not server.started and not serving.done():
            await asyncio.sleep(0.01)
        if server.started:
            ready()
        await serving

    with asyncio.Runner() as runner:
        runner.run(serve())
    return 130 if signal.SIGINT in caught else 0


def work() -> None:
    """What a worker runs: its settings come in a line, and when its input ends it stops."""
    try:
        _work()
    except UserError as error:
        sys.exit(f"quickstudy: {error}")


def _work() -> None:
    told = json.loads(sys.stdin.readline())
    settings = Settings(**{**told["settings"], "limits": Limits(**told["settings"]["limits"])})
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one that started it
    torch.set_num_threads(told["threads"])
    store = store_at(settings.store)
    store.open()

    def watch() -> None:
        sys.stdin.read()
        os.kill(os.getpid(), signal.SIGTERM)

    def ready() -> None:
        print("ready", flush=True)
        threading.Thread(target=watch, daemon=True).start()

    listener = socket.socket(fileno=told["listener"])
    _one(built(settings, store), listener, settings.limits, ready)
    store.close()


class _Worker:
    """One process, which listens at the same port as the others."""

    def __init__(self, settings: Settings, listener: socket.socket, folder: str):
        path = os.pathsep.join(place or os.getcwd() for place in sys.path)
        self.process = subprocess.Popen(
            COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[listener.fileno()],
            env=os.environ | {"PYTHONPATH": path, SHARED: folder}, start_new_session=True,
        )  # fmt: skip
        threads = max(1, torch.get_num_threads() // settings.workers)
        told = {"settings": asdict(settings), "threads": threads, "listener": listener.fileno()}
        with suppress(OSError):  # it ended already, which is seen when it is waited for
            assert self.process.stdin
            self.process.stdin.write(json.dumps(told).encode() + b"\n")
            self.process.stdin.flush()

    def ready(self) -> bool:
        """Wait until it answers; False if it ended."""
        assert self.process.stdout
        return self.process.stdout.readline() == b"ready\n"

    def stop(self) -> None:
        """Let it finish what runs, and end."""
        with suppress(OSError):
            assert self.process.stdin
            self.process.stdin.close()


def _several(settings: Settings, listener: socket.socket, ready: Callable[[], object]) -> int:
    """Serve in processes of their own, and start each again that ends by itself."""
    caught: list[int] = []
    before = {n: signal.signal(n, lambda number, frame: caught.append(number)) for n in (signal.SIGINT, signal.SIGTERM)}
    falls: list[float] = []
    with tempfile.TemporaryDirectory(prefix="quickstudy-metrics-") as folder:
        workers = [_Worker(settings, listener, folder) for _ in range(settings.workers)]
        try:
            if not all(worker.ready() for worker in workers):
                if caught:
                    return 130 if signal.SIGINT in caught else 0
                raise UserError("a worker ended before it served: see what it said above.")
            ready()
            while not caught:
                time.sleep(0.1)
                for i, worker in enumerate(workers):
                    if worker.process.poll() is not None and not caught:
                        falls = [*(t for t in falls if t > time.monotonic() - 60), time.monotonic()]
                        if len(falls) > FALLS:
                            raise UserError("workers end again and again: see what they said above.")
                        print(f"quickstudy: worker {worker.process.pid} ended: another one starts", file=sys.stderr)
                        workers[i] = _Worker(settings, listener, folder)
                        workers[i].ready()
        finally:
            for worker in workers:
                worker.stop()
            _wait(workers, settings.limits.seconds + 5, caught)
            for number, handler in before.items():
                signal.signal(number, handler)
    return 130 if signal.SIGINT in caught else 0


def _wait(workers: list[_Worker], seconds: float, caught: list[int]) -> None:
    """Wait for workers to end; those that do not in time, or after a second Ctrl-C, are ended."""
    until = time.monotonic() + seconds
    while any(worker.process.poll() is None for worker in workers):
        if time.monotonic() > until or caught.count(signal.SIGINT) > 1:
            for worker in workers:
                worker.process.kill()
        time.sleep(0.05)
    for worker in workers:
        assert worker.process.stdout
        worker.process.stdout.close()
