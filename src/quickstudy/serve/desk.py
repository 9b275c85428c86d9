"""What is done with tasks: made, extended, asked, described and forgotten, from any number of requests at once."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from quickstudy.adaptation import Support
from quickstudy.answer import Answer
from quickstudy.checkpoint import Checkpoint
from quickstudy.core.errors import nearest as nearest_name
from quickstudy.core.objective import Regression
from quickstudy.questions.trust import Trust
from quickstudy.serve.answers import answered, nearest_rows, trusted
from quickstudy.serve.entry import Entry, Rows
from quickstudy.serve.gathering import Asked, Gatherer
from quickstudy.serve.limits import Limits, Refused
from quickstudy.serve.rows import Intake
from quickstudy.serve.store import Store, StoreError

T = TypeVar("T")
CACHED = 256 * 2**20
"""Bytes of states that are held ready; all are in the store."""
TRIES = 20
"""How often an extension begins again when another process was faster."""
Given = tuple[list[Any], list[str] | list[list[float]], bool]
"""Rows as JSON gave them, their labels or values, and whether images show dark ink on white."""


class Desk:
    """Everything but HTTP. What is read, worked out and kept never blocks the event loop."""

    def __init__(
        self, trained: Checkpoint, store: Store, limits: Limits, gatherer: Gatherer, trust: Trust | None = None
    ):
        self.trained = trained
        self.store = store
        self.limits = limits
        self.gatherer = gatherer
        self.trust = trust
        self.shown, self.asked = Intake(trained, limits, support=True), Intake(trained, limits)
        self.digest = str(trained.card["digest"])
        self._cache: OrderedDict[str, Entry] = OrderedDict()
        self._size = 0
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._readers = ThreadPoolExecutor(2, "rows")
        self._keepers = ThreadPoolExecutor(8, "store")

    @property
    def classifies(self) -> bool:
        """Whether tasks have classes, else values."""
        return self.trained.learner.objective.kind == "classification"

    async def create(self, given: Given) -> Entry:
        """A new task from examples."""
        rows = await self._read(lambda: self._rows(given))
        task = await self._learn(lambda: Support.of(self.trained, rows.x, rows.y, "the task"))
        now = time.time()
        entry = Entry(secrets.token_urlsafe(16), 1, now, now, task, rows.columns)
        if not await self._keep(lambda: self.store.add(entry.kept(rows), self.limits.tasks)):
            raise Refused(503, f"{self.limits.tasks} tasks are kept, which is the most: delete one first.")
        self._remember(entry)
        return entry

    async def extend(self, id: str, given: Given, version: int | None = None) -> Entry:
        """A task with more examples; version: the one that it must have.

        What learns bit by bit goes on from what it knows; else, or where there is a class that it did not know, it
        learns from all examples again.
        """
        more: Rows | None = None
        lock = self._turns.setdefault(id, asyncio.Lock())
        async with lock:
            for _ in range(TRIES):
                entry, old = await self._whole(id)
                if version is not None and version != entry.version:
                    raise Refused(409, f"the task is at version {entry.version} and not {version}: look at it again.")
                if more is None:
                    more = await self._read(lambda columns=entry.columns: self._rows(given, columns))
                rows = self._joined(old, more)
                task = await self._learn(lambda n=more, r=rows, e=entry: self._support(e, n, r))
                new = Entry(id, entry.version + 1, entry.made, time.time(), task, entry.columns)
                if await self._keep(lambda n=new, r=rows: self.store.replace(n.kept(r))):
                    self._remember(new)
                    return new
        raise Refused(503, "many others extend this task at the same time: try again.")

    async def predict(
        self, id: str, rows: list[Any], invert: bool = False, coverage: float | None = None, nearest: int = 0
    ) -> Answer:
        """What a task says of rows."""
        if coverage is not None and self.trust is None:
            raise Refused(422, "the learner served is not calibrated: run `quickstudy calibrate` on its checkpoint.")
        entry = await self.entry(id)
        task, trust = entry.task, self.trust

        def read() -> Tensor:
            x, columns = self.asked.read(rows, invert)
            _check_columns(columns, entry.columns)
            return task.check(x)

        x = await self._read(read)
        prediction = await self.gatherer.ask(Asked(task, x), self.limits.seconds)
        answer = answered(entry, prediction)
        if coverage is not None and trust is not None:
            surer = partial(trusted, answer, task, x, trust, coverage)
            answer = await self.gatherer.ask(surer, self.limits.seconds)
        if nearest:
            if self.shown.x_shape != self.asked.x_shape:
                raise Refused(422, "the examples of this learner describe classes, and rows do not: leave nearest out.")
            known = (await self._whole(id))[1].x[: task.card["rows"]]  # it may have been extended since
            numbers = await self.gatherer.ask(lambda: nearest_rows(task, known, x, nearest), self.limits.seconds)
            answer = replace(answer, nearest=numbers)
        return answer

    async def forget(self, id: str) -> None:
        """Delete a task."""
        self._drop(id)
        if not await self._keep(lambda: self.store.remove(id)):
            raise _unknown()

    async def entry(self, id: str) -> Entry:
        """A task as it is now, whichever process changed it last."""
        found = await self._keep(lambda: self.store.glance(id))
        if found is None:
            self._drop(id)
            raise _unknown()
        self._check_digest(found[1])
        known = self._cache.get(id)
        if known is not None and known.version == found[0]:
            self._cache.move_to_end(id)
            return known
        return (await self._whole(id))[0]

    async def count(self) -> int:
        """How many tasks are kept."""
        return await self._keep(self.store.count)

    async def close(self) -> None:
        """Finish what was begun."""
        await self.gatherer.stop()
        self._readers.shutdown()
        self._keepers.shutdown()

    async def _whole(self, id: str) -> tuple[Entry, Rows]:
        kept = await self._keep(lambda: self.store.find(id))
        if kept is None:
            raise _unknown()
        self._check_digest(kept.digest)
        entry, rows = await self._read(lambda: (Entry.of(kept, self.trained), Rows.unpacked(kept.support)))
        self._remember(entry)
        return entry, rows

    def _rows(self, given: Given, columns: int = 0) -> Rows:
        rows, y, invert = given
        if len(rows) != len(y):
            what = "labels" if self.classifies else "values"
            raise Refused(422, f"there are {len(rows)} rows and {len(y)} {what}: give one for each row.")
        if self.classifies and len(set(map(str, y))) > self.limits.classes:
            raise self._too_many(len(set(map(str, y))))
        known = self.shown.reader.classes
        new = next((str(label) for label in y if known and str(label) not in known), None)
        if new is not None:
            raise Refused(422, f"the class {new!r} is unknown in training: {nearest_name(new, known)}")
        x, found = self.shown.read(rows, invert)
        _check_columns(found, columns)
        return Rows(x, [str(label) for label in y] if self.classifies else torch.tensor(y, dtype=torch.float32), found)

    def _joined(self, old: Rows, more: Rows) -> Rows:
        rows = old.and_then(more)
        if len(rows.x) > self.limits.rows:
            raise Refused(422, f"the task would have {len(rows.x)} rows and {self.limits.rows} are the most.")
        if self.classifies and len(set(rows.y)) > self.limits.classes:  # type: ignore[arg-type]
            raise self._too_many(len(set(rows.y)))  # type: ignore[arg-type]
        return rows

    def _too_many(self, classes: int) -> Refused:
        return Refused(422, f"the task would have {classes} classes and {self.limits.classes} are the most.")

    def _support(self, entry: Entry, more: Rows, rows: Rows) -> Support:
        learner, known = self.trained.learner, set(entry.task.classes)
        # how sure values are that come without a deviation can only be asked of all examples
        new = self.classifies and not known.issuperset(more.y)  # type: ignore[arg-type]
        if learner.incremental and not new and not isinstance(learner.objective, Regression):
            return Support.of(self.trained, more.x, more.y, "the task", before=entry.task)
        return Support.of(self.trained, rows.x, rows.y, "the task")

    async def _learn(self, make: Callable[[], Support]) -> Any:
        return await self.gatherer.ask(await self._read(make), self.limits.seconds)

    async def _read(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._readers, work)

    async def _keep(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._keepers, work)
        except StoreError as error:
            raise Refused(503, f"{error}: try again later.") from None

    def _check_digest(self, digest: str) -> None:
        if digest != self.digest:
            raise Refused(409, "the task was adapted with another learner than is served here: make it again.")

    def _remember(self, entry: Entry) -> None:
        known = self._cache.get(entry.id)
        if known is not None and known.version > entry.version:
            return
        self._drop(entry.id)
        self._cache[entry.id] = entry
        self._size += entry.size
        while self._size > CACHED and len(self._cache) > 1:
            self._drop(next(iter(self._cache)))

    def _drop(self, id: str) -> None:
        gone = self._cache.pop(id, None)
        self._size -= gone.size if gone is not None else 0


def _unknown() -> Refused:
    return Refused(404, "there is no such task: make one with POST /tasks.")


def _check_columns(found: int, known: int) -> None:
    if found and known and found != known:
        raise Refused(422, f"the rows have {found} columns and those of the task {known}: give the same columns.")
