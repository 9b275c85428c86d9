"""Requests that come at about the same time are worked out in one call."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from torch import Tensor

from quickstudy.adaptation import Support, adapt_all
from quickstudy.adapted import AdaptedTask, predict_all
from quickstudy.serve.limits import Refused

ROWS = 4096
"""Rows worked out at once, of all tasks together; one task may have more."""


class Asked(NamedTuple):
    """Rows to predict, which `AdaptedTask.check` gave."""

    task: AdaptedTask
    x: Tensor


Question = Support | Asked | Callable[[], Any]
"""A task to adapt to, rows to predict, or anything else that the learner is needed for."""


def size_of(question: Question) -> int:
    """How many rows a question is about."""
    if isinstance(question, Support):
        return question.rows.weight.shape[1]
    return len(question.x) if isinstance(question, Asked) else 1


def work_out(questions: Sequence[Question]) -> list[Any]:
    """The answer to each question, or the exception that it raised, in their order.

    Where a call for several tasks fails, each is asked alone: one of them does not spoil the others.
    """
    found: dict[int, Any] = {}
    for kind, answer in ((Support, _adapt), (Asked, _predict)):
        at = [i for i, question in enumerate(questions) if isinstance(question, kind)]
        if at:
            found |= zip(at, _together(answer, [questions[i] for i in at]), strict=True)
    for i, question in enumerate(questions):
        if i not in found:
            found |= {i: _together(lambda one: [one[0]()], [question])[0]}
    return [found[i] for i in range(len(questions))]


def _adapt(supports: Sequence[Any]) -> list[AdaptedTask]:
    return adapt_all(supports)


def _predict(asked: Sequence[Any]) -> list[Tensor]:
    return predict_all([one.task for one in asked], [one.x for one in asked])


def _together(answer: Callable[[Sequence[Any]], list[Any]], questions: Sequence[Any]) -> list[Any]:
    try:
        return answer(questions)
    except Exception as error:
        if len(questions) == 1:
            return [error]
        return [_together(answer, [one])[0] for one in questions]


class Gatherer:
    """Works out questions in a thread of its own, those that wait at the same time in one go.

    wait: seconds that the first of a batch waits for others; while a batch is worked out the next one gathers anyway.
    most: questions worked out at once; 1 gives each the answer to the last bit that it would get alone.
    seen: called with the number of questions and the seconds of each batch.
    """

    def __init__(self, wait: float, most: int, seen: Callable[[int, float], object] = lambda many, seconds: None):
        self.wait = wait
        self.most = most
        self.seen = seen
        self._queue: deque[tuple[Question, asyncio.Future[Any]]] = deque()
        self._come = asyncio.Event()
        self._full = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "learner")
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; called in the event loop."""
        self._loop = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Work out what still waits, and end."""
        while self._queue:
            await asyncio.sleep(0.01)
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
        self._thread.shutdown()

    async def ask(self, question: Question, seconds: float) -> Any:
        """The answer. Raises what it raised, and Refused if it takes longer than that."""
        waiting: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._queue.append((question, waiting))
        self._come.set()
        if len(self._queue) >= self.most:
            self._full.set()
        try:
            async with asyncio.timeout(seconds):
                return await waiting
        except TimeoutError:
            raise Refused(
                503, f"this takes longer than {seconds:g} seconds: give fewer rows, or try again when less is asked."
            ) from None

    async def _run(self) -> None:
        while True:
            await self._come.wait()
            if self.wait and self.most > 1 and len(self._queue) < self.most:
                self._full.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._full.wait(), self.wait)
            batch = self._next()
            if not self._queue:
                self._come.clear()
            if batch:
                await self._answer(batch)

    def _next(self) -> list[tuple[Question, asyncio.Future[Any]]]:
        batch: list[tuple[Question, asyncio.Future[Any]]] = []
        rows = 0
        while self._queue and len(batch) < self.most:
            rows += size_of(self._queue[0][0])
            if batch and rows > ROWS:
                break
            question, waiting = self._queue.popleft()
            if not waiting.done():  # else whoever asked is gone
                batch.append((question, waiting))
        return batch

    async def _answer(self, batch: list[tuple[Question, asyncio.Future[Any]]]) -> None:
        begin = time.perf_counter()
        questions = [question for question, _ in batch]
        found = await asyncio.get_running_loop().run_in_executor(self._thread, work_out, questions)
        self.seen(len(batch), time.perf_counter() - begin)
        for (_, waiting), answer in zip(batch, found, strict=True):
            if waiting.done():
                continue
            if isinstance(answer, Exception):
                waiting.set_exception(answer)
            else:
                waiting.set_result(answer)
