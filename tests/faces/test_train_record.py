"""What a run writes down: JSON lines, TensorBoard, the progress bar."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import quickstudy as qs
from quickstudy.core.files import write_whole
from quickstudy.record import Bar, Record, read_log


def train(**options: Any) -> Any:
    learner = qs.learners.MAML(qs.nets.MLP((1,), out=1, width=8), qs.Regression(), inner_steps=1)
    return qs.train(learner, qs.tasks.Sinusoid(), progress=False, **options)


def test_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = train(steps=20, valid_every=10, valid_tasks=2, out=tmp_path, tensorboard=True)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    losses = [(e.step, e.value) for e in events.Scalars("loss")]
    assert losses == [(r["step"], pytest.approx(r["loss"])) for r in run.log if "loss" in r]
    assert [e.step for e in events.Scalars("valid")] == [10, 20]


def test_the_log_is_json_lines(tmp_path: Path) -> None:
    run = train(steps=20, valid_every=8, valid_tasks=2, out=tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert rows == run.log
    assert [r["step"] for r in rows] == [1, 8, 10, 16, 20, 20]
    assert set(rows[0]) == {"step", "loss", "gradient_norm", "lr", "seconds"}


def test_a_line_cut_short_is_left_out(tmp_path: Path) -> None:
    write_whole(tmp_path / "log.jsonl", b'{"step": 1, "loss": 2.0}\n{"step": 9, "loss": 1.0}\n{"step": 10, "lo')
    with Record(tmp_path, from_step=9) as record:
        record.add(step=10, loss=0.5)
    assert [r["step"] for r in read_log(tmp_path / "log.jsonl")] == [1, 9, 10]


def test_the_bar_counts_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rich.console.Console.is_terminal", True)
    with Bar(50, 10, True) as bar:
        for _ in range(40):
            bar.advance(4, 1.5, "valid mse 2.000")
    (task,) = bar.progress.tasks
    assert task.completed == 50
    assert task.fields["facts"].startswith("loss 1.500  valid mse 2.000  ")


def test_the_card_tells_what_the_log_says(tmp_path: Path) -> None:
    run = train(steps=30, valid_every=30, valid_tasks=2, out=tmp_path)
    card = qs.load(tmp_path / "best.safetensors").card
    losses = [row["loss"] for row in run.log if "loss" in row]
    assert card["log"]["steps"] == 30 and card["log"]["first_loss"] == losses[0]
    assert card["log"]["late_loss"] == pytest.approx(sum(losses) / len(losses))
    assert card["log"]["seconds"] > 0
    assert set(card["scores"]["valid"]["mse"]) == {"mean", "interval"}
