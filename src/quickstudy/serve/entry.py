"""One task as the server holds it, and as bytes to keep: safetensors with a JSON card, never a pickle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from quickstudy import checkpoint
from quickstudy.adapted import AdaptedTask
from quickstudy.checkpoint import Checkpoint
from quickstudy.serve.store import Kept


@dataclass(frozen=True)
class Rows:
    """The examples of a task, as they were given: x (n, *x_shape), and the label or the values (n, y_size) of each.

    columns: how many columns the rows had where that is the task's own affair, else 0.
    """

    x: Tensor
    y: list[str] | Tensor
    columns: int = 0

    def and_then(self, more: Rows) -> Rows:
        """These rows followed by others."""
        y = torch.cat([self.y, more.y]) if isinstance(self.y, Tensor) else [*self.y, *more.y]  # type: ignore[list-item]
        return Rows(torch.cat([self.x, more.x]), y, self.columns)  # type: ignore[arg-type]

    def packed(self) -> bytes:
        """These rows as bytes."""
        valued = isinstance(self.y, Tensor)
        tensors = {"x": self.x, "y": self.y} if isinstance(self.y, Tensor) else {"x": self.x}
        labels = [] if valued else self.y
        return checkpoint.packed("support", tensors, {"labels": labels, "columns": self.columns})[1]

    @classmethod
    def unpacked(cls, content: bytes) -> Rows:
        """The rows that `packed` made these bytes of. Raises UserError if they are damaged."""
        tensors, card, _ = checkpoint.unpacked(content, "support", "a kept task")
        labels = [str(label) for label in card["labels"]]
        return cls(tensors["x"], tensors.get("y", labels), int(card["columns"]))


@dataclass(frozen=True)
class Entry:
    """An adapted task with its id, its version, when it was made and changed (seconds since 1970), and its columns."""

    id: str
    version: int
    made: float
    changed: float
    task: AdaptedTask
    columns: int = 0

    @property
    def size(self) -> int:
        """Bytes of its state."""
        return sum(t.numel() * t.element_size() for t in self.task.state.values())

    def kept(self, rows: Rows) -> Kept:
        """This task as it is kept, with the examples it was adapted to."""
        card = {**self.task.card, "columns": self.columns}
        state = checkpoint.packed("adapted", self.task.state, card)[1]
        digest = str(card["checkpoint"]["digest"])
        return Kept(self.id, digest, self.version, self.made, self.changed, state, rows.packed())

    @classmethod
    def of(cls, kept: Kept, trained: Checkpoint) -> Entry:
        """The task that was kept. Raises UserError if its bytes are damaged."""
        state, card, _ = checkpoint.unpacked(kept.state, "adapted", "a kept task")
        task = AdaptedTask.of(trained, state, card)
        return cls(kept.id, kept.version, kept.made, kept.changed, task, int(card.get("columns", 0)))

    def card(self) -> dict[str, Any]:
        """What is said of the task."""
        own = self.task.card
        return {
            "id": self.id,
            "version": self.version,
            "kind": self.task.learner.objective.kind,
            "classes": self.task.classes,
            "counts": [own["counts"][name] for name in self.task.classes],
            "rows": own["rows"],
            "state_bytes": self.size,
            "made": self.made,
            "changed": self.changed,
            "checkpoint": own["checkpoint"]["digest"],
        }
