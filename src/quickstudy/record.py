"""What a training run leaves behind while it runs: a JSON-lines log, TensorBoard, a progress bar."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from quickstudy.core.errors import UserError
from quickstudy.core.files import write_whole


class Record:
    """The log of a run: rows are appended to `log.jsonl` and kept in `rows`.

    folder: where to write, None for memory only. from_step: when a run is resumed, rows after it are
    dropped, so that the log has every step once. A number that is not finite is written as null.
    """

    def __init__(self, folder: Path | None, tensorboard: bool = False, from_step: int = 0):
        self.rows: list[dict[str, Any]] = []
        self.file: TextIO | None = None
        self.writer: Any = None
        if folder:
            path = folder / "log.jsonl"
            if from_step and path.exists():
                self.rows = [row for row in read_log(path) if row["step"] <= from_step]
            write_whole(path, "".join(json.dumps(row) + "\n" for row in self.rows).encode())
            self.file = path.open("a")
            if tensorboard:
                self.writer = summary_writer()(str(folder), purge_step=from_step + 1 if from_step else None)

    def add(self, **row: Any) -> None:
        """Append one row; `step` is among its fields."""
        row = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
        self.rows.append(row)
        if self.file:
            self.file.write(json.dumps(row) + "\n")
            self.file.flush()
        if self.writer:
            for name, value in row.items():
                if name != "step" and isinstance(value, int | float):
                    self.writer.add_scalar(name, value, row["step"])

    def summary(self) -> dict[str, Any]:
        """The run so far in a few numbers: its last step, and the loss at the start and of late.

        The late loss is the mean of the last ten rows that have one.
        """
        losses = [row["loss"] for row in self.rows if row.get("loss") is not None]
        if not losses:
            return {"steps": 0}
        late = losses[-10:]
        return {"steps": self.rows[-1]["step"], "first_loss": losses[0], "late_loss": sum(late) / len(late)}

    def __enter__(self) -> Record:
        return self

    def __exit__(self, *_: object) -> None:
        if self.file:
            self.file.close()
        if self.writer:
            self.writer.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """The rows of a log; a line that was cut short when its process was killed is left out."""
    rows = []
    for line in path.read_text(errors="replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
    return rows


def summary_writer() -> Any:
    """TensorBoard's writer.

    Raises UserError if it is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UserError(
            "--train.tensorboard needs the tensorboard package: pip install 'quickstudy[tensorboard]'."
        ) from None
    return SummaryWriter


class Bar:
    """A progress bar with loss, score, tasks a second and time left; silent off a terminal.

    It is drawn at most ten times a second.
    """

    def __init__(self, steps: int, done: int, show: bool, unit: str = "tasks"):
        console = Console(stderr=True)
        self.shown = show and console.is_terminal
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[facts]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not self.shown,
        )
        self.id = self.progress.add_task("training", total=steps, completed=done, facts="")
        self.unit, self.tasks, self.waiting = unit, 0, 0
        self.start = self.drawn = time.perf_counter()
        self.last = ""

    def __enter__(self) -> Bar:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._draw()
        self.progress.stop()

    def advance(self, tasks: int, loss: float, score: str) -> None:
        """One more step, of so many tasks."""
        if not self.shown:
            return
        self.tasks += tasks
        self.waiting += 1
        now = time.perf_counter()
        rate = self.tasks / (now - self.start)
        self.last = f"loss {loss:.3f}  {score}  {rate:.0f} {self.unit}/s"
        if now - self.drawn > 0.1:
            self.drawn = now
            self._draw()

    def _draw(self) -> None:
        self.progress.update(self.id, advance=self.waiting, facts=self.last)
        self.waiting = 0
