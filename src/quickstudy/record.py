"""What a training run leaves behind while it runs: a JSON-lines log, TensorBoard, a progress bar."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from quickstudy.core.errors import UserError


class Record:
    """The log of a run: rows are appended to `log.jsonl` and kept in `rows`.

    folder: where to write, None for memory only. from_step: rows after it are dropped when a run
    is resumed, so that the log has every step once.
    """

    def __init__(self, folder: Path | None, tensorboard: bool = False, from_step: int = 0):
        self.rows: list[dict[str, Any]] = []
        self.path = folder / "log.jsonl" if folder else None
        if self.path and self.path.exists() and from_step:
            rows = [json.loads(line) for line in self.path.read_text().splitlines()]
            self.rows = [r for r in rows if r["step"] <= from_step]
        if self.path:
            self.path.write_text("".join(json.dumps(r) + "\n" for r in self.rows))
        self.writer: Any = None
        if tensorboard and folder:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                raise UserError(
                    "--train.tensorboard needs the tensorboard package: pip install 'quickstudy[tensorboard]'."
                ) from None
            self.writer = SummaryWriter(str(folder), purge_step=from_step or None)

    def add(self, **row: Any) -> None:
        """Append one row; `step` is among its fields."""
        self.rows.append(row)
        if self.path:
            with self.path.open("a") as f:
                f.write(json.dumps(row) + "\n")
        if self.writer:
            for name, value in row.items():
                if name != "step" and isinstance(value, int | float):
                    self.writer.add_scalar(name, value, row["step"])

    def close(self) -> None:
        if self.writer:
            self.writer.close()


class Bar:
    """A progress bar with loss, score, tasks a second and time left; silent off a terminal."""

    def __init__(self, steps: int, done: int, show: bool):
        console = Console(stderr=True)
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[facts]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not (show and console.is_terminal),
        )
        self.id = self.progress.add_task("training", total=steps, completed=done, facts="")
        self.start, self.tasks = time.perf_counter(), 0

    def __enter__(self) -> Bar:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def advance(self, tasks: int, loss: float, score: str) -> None:
        self.tasks += tasks
        rate = self.tasks / (time.perf_counter() - self.start)
        self.progress.update(self.id, advance=1, facts=f"loss {loss:.3f}  {score}  {rate:.0f} tasks/s")
