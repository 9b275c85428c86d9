"""One piece of work in several processes of this machine, its numbered parts given back in order.

Workers are programs of their own, started afresh: nothing is forked, and the user's script is not run again, as
multiprocessing would. They are told what to do over a pipe, and answer in JSON.
"""

from __future__ import annotations

import copyreg
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.reduction import ForkingPickler
from queue import SimpleQueue
from typing import Any

import torch

from quickstudy.core.errors import UserError

Job = Callable[[int], Any]
"""From the number of a part to what it comes to, as JSON holds it. It is handed to the workers whole."""
COMMAND = (sys.executable, "-P", "-c", "from quickstudy.fanout import serve; serve()")


class _ByValue(ForkingPickler):
    """Hands tensors over by value: torch's own way needs shared memory, of which containers have little."""

    def __init__(self, *args: Any):
        super().__init__(*args)
        self.dispatch_table = copyreg.dispatch_table.copy()


class Crew:
    """Processes that work out the parts of one job after another; they are started when first needed.

    processes: how many; the threads that torch has here are shared out among them. Use it in a `with`:
    however that is left, the processes have ended.
    """

    def __init__(self, processes: int):
        if processes < 1:
            raise UserError(f"processes is {processes}: give at least 1.")
        self.processes = processes
        self.workers: list[_Worker] = []

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def each(self, job: Job, parts: int) -> Iterator[Any]:
        """job(0), job(1), ..., job(parts - 1), in this order; with one process they are worked out here.

        Raises UserError for what the job refuses, for a job that cannot be handed over, and if a process ends.
        """
        wanted = min(self.processes, parts)
        if wanted <= 1:
            yield from map(job, range(parts))
            return
        payload = _handed_over(job)
        threads = max(1, torch.get_num_threads() // self.processes)
        self.workers += [_Worker(threads) for _ in range(wanted - len(self.workers))]
        idle: SimpleQueue[_Worker] = SimpleQueue()

        def begin(worker: _Worker) -> None:
            worker.ask(f"job {len(payload)}\n".encode(), payload)
            idle.put(worker)

        def work(part: int) -> Any:
            worker = idle.get()
            try:
                return worker.ask(f"part {part}\n".encode())
            finally:
                idle.put(worker)

        with ThreadPoolExecutor(wanted) as waiting:
            try:
                list(waiting.map(begin, self.workers[:wanted]))
                yield from waiting.map(work, range(parts))
            except BaseException:  # Ctrl-C too: those who wait are set free by the end of their processes
                self.close()
                raise

    def close(self) -> None:
        """End the processes at once."""
        workers, self.workers = self.workers, []
        for worker in workers:
            worker.process.kill()
        for worker in workers:
            worker.process.wait()
            for pipe in (worker.process.stdin, worker.process.stdout):
                with suppress(OSError):  # what was not yet sent cannot be
                    pipe.close()  # type: ignore[union-attr]


class _Worker:
    """One process, and the pipes to it."""

    def __init__(self, threads: int):
        path = os.pathsep.join(place or os.getcwd() for place in sys.path)
        environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": str(threads)}
        # in a session of its own, for Ctrl-C is this process's to handle; without it, the worker's input ends
        self.process = subprocess.Popen(
            COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, start_new_session=True
        )

    def ask(self, question: bytes, payload: bytes | memoryview = b"") -> Any:
        """The answer to a question.

        Raises what the worker raised, and UserError if it ended.
        """
        asked, answers = self.process.stdin, self.process.stdout
        assert asked and answers
        try:
            asked.write(question)
            asked.write(payload)
            asked.flush()
            line = answers.readline()
        except (OSError, ValueError):  # it is gone, or `close` was faster
            line = b""
        if not line.endswith(b"\n"):
            code = self.process.wait()
            how = f"by signal {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
            raise UserError(
                f"a process of the evaluation ended {how} before its work was done: look for too little memory, "
                "and evaluate with fewer processes or a smaller batch."
            )
        said = json.loads(line)
        if "refused" in said:
            raise UserError(said["refused"])
        if "failed" in said:
            kind = MemoryError if said["memory"] else RuntimeError
            raise kind(f"a process of the evaluation failed:\n{said['failed']}")
        return said["found"]


def _handed_over(job: Job) -> bytes | memoryview:
    """A job as it is sent to a worker.

    Raises UserError for one that cannot be.
    """
    remedy = "define learner and tasks in a module that can be imported, or evaluate with one process."
    try:
        payload: bytes | memoryview = _ByValue.dumps((torch.get_default_dtype(), job))  # type: ignore[assignment]
    except Exception as error:  # an object may refuse with whatever it likes
        raise UserError(f"the work cannot be handed to other processes ({error}): {remedy}") from None
    if b"__main__" in bytes(payload):
        raise UserError(f"the work needs what is defined in the script itself, which other processes lack: {remedy}")
    return payload


def serve() -> None:
    """What a worker runs: jobs and the numbers of their parts come in, an answer to each goes out."""
    asked, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a learner prints must not get between the answers
    job: Job | None = None
    for line in asked:
        kind, number = line.split()
        try:
            if kind == b"job":
                dtype, job = ForkingPickler.loads(asked.read(int(number)))  # type: ignore[attr-defined]
                torch.set_default_dtype(dtype)
                answer: dict[str, Any] = {"found": None}
            else:
                assert job is not None
                answer = {"found": job(int(number))}
        except UserError as error:
            answer = {"refused": str(error)}
        except Exception as error:
            answer = {"failed": traceback.format_exc(), "memory": isinstance(error, MemoryError)}
        try:
            answers.write(json.dumps(answer) + "\n")
            answers.flush()
        except BrokenPipeError:  # whoever asked is gone
            os._exit(1)
