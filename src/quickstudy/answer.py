"""What a served task says of rows: what the server sends and its client receives."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Answer:
    """The columns of an answer, an entry for each row; None for what was not asked or does not fit the kind of task."""

    version: int
    classes: list[str] | None = None
    labels: list[str] | None = None
    probabilities: list[list[float]] | None = None
    values: list[list[float]] | None = None
    deviations: list[list[float]] | None = None
    sets: list[list[str]] | None = None
    low: list[list[float]] | None = None
    high: list[list[float]] | None = None
    note: str | None = None
    nearest: list[list[int]] | None = None

    def card(self) -> dict[str, Any]:
        """What is not None, as JSON holds it."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in found.items() if value is not None}
