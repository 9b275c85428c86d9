"""Asks a server that `quickstudy serve` runs: a task is made from examples, and then asked, as `adapt` would."""

from __future__ import annotations

import base64
import importlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from quickstudy.answer import Answer
from quickstudy.core.errors import UserError


class Refused(UserError):
    """The server refused; `status` is that of HTTP, 0 where it was not reached."""

    def __init__(self, sentence: str, status: int):
        super().__init__(sentence)
        self.status = status


class Client:
    """A server by its address, and the token that it asks for.

    >>> with Client("http://127.0.0.1:8000") as client:         # doctest: +SKIP
    ...     client.task(["refund please", "lost my card"], ["money", "card"]).predict(["where is my card"]).labels
    ['card']

    Rows are what the learner was trained on: texts; arrays of numbers (lists, NumPy arrays, tensors); images as paths
    or bytes; rows of a table as dicts. Raises UserError without httpx; asking raises Refused.
    """

    def __init__(self, url: str, token: str = "", seconds: float = 60.0):
        try:
            self._httpx: Any = importlib.import_module("httpx")
        except ImportError:
            raise UserError("the client needs the package httpx: pip install 'quickstudy[serve]'.") from None
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = self._httpx.Client(base_url=url, headers=headers, timeout=seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def card(self) -> dict[str, Any]:
        """What is served, and what it takes."""
        return self.ask("GET", "/card")

    def task(self, x: Any, y: Any, invert: bool = False) -> Task:
        """A new task from rows x with a label each, or with values; invert: images show dark ink on white."""
        return Task(self, self.ask("POST", "/tasks", _examples(x, y, invert)))

    def find(self, id: str) -> Task:
        """A task that was made before."""
        return Task(self, self.ask("GET", f"/tasks/{id}"))

    def ask(self, verb: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The server's answer, as JSON. Raises Refused with the sentence that it says."""
        try:
            answer = self._http.request(verb, path, json=body)
        except (self._httpx.HTTPError, self._httpx.InvalidURL) as error:
            where = self._http.base_url
            raise Refused(f"the server at {where} was not reached ({error}): check that it runs.", 0) from None
        if answer.is_success:
            return answer.json() if answer.content else None
        try:
            said = str(answer.json()["error"])
        except (ValueError, KeyError, TypeError):
            said = f"the server answers {answer.status_code}, and is none of quickstudy's: check the address."
        raise Refused(said, answer.status_code)


class Task:
    """A task on the server. card: what is known of it."""

    def __init__(self, client: Client, card: dict[str, Any]):
        self.client = client
        self.card = card

    @property
    def id(self) -> str:
        """What to find it by later."""
        return self.card["id"]

    def extend(self, x: Any, y: Any, invert: bool = False) -> Self:
        """Give it more examples. Raises Refused, of status 409, if it was changed since this one was last seen."""
        body = {**_examples(x, y, invert), "version": self.card["version"]}
        self.card = self.client.ask("PATCH", f"/tasks/{self.id}", body)
        return self

    def predict(self, x: Any, coverage: float | None = None, nearest: int = 0, invert: bool = False) -> Answer:
        """What it says of rows; coverage: with sets or intervals that hold the truth so often."""
        body: dict[str, Any] = {"rows": _rows(x)} | ({"invert": True} if invert else {})
        body |= ({"coverage": coverage} if coverage is not None else {}) | ({"nearest": nearest} if nearest else {})
        return Answer(**self.client.ask("POST", f"/tasks/{self.id}/predict", body))

    def forget(self) -> None:
        """Delete it, and its examples."""
        self.client.ask("DELETE", f"/tasks/{self.id}")


def _examples(x: Any, y: Any, invert: bool) -> dict[str, Any]:
    known = _listed(y)
    valued = bool(known) and isinstance(known[0], list | float)
    if valued:
        known = [v if isinstance(v, list) else [v] for v in known]
    return {"rows": _rows(x), "values" if valued else "labels": known} | ({"invert": True} if invert else {})


def _rows(x: Any) -> list[Any]:
    return [_row(row) for row in _listed(x)]


def _row(row: Any) -> Any:
    if isinstance(row, Path):
        row = row.read_bytes()
    if isinstance(row, bytes):
        return base64.b64encode(row).decode()
    if isinstance(row, Mapping):
        return {str(name): _cell(value) for name, value in row.items()}
    return row if isinstance(row, str) else [_row(v) for v in _listed(row)] if _is_list(row) else _cell(row)


def _cell(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and math.isnan(value) else value


def _is_list(row: Any) -> bool:
    return (hasattr(row, "tolist") and getattr(row, "ndim", 1) > 0) or isinstance(row, Sequence)


def _listed(values: Any) -> list[Any]:
    return values.tolist() if hasattr(values, "tolist") else list(values)
