"""The report is one file that needs nothing else, says the answer first, and trusts no text it is given."""

from __future__ import annotations

import io
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import matplotlib
import pytest
import torch
from PIL import Image

from quickstudy.calibration import Reliability
from quickstudy.core.errors import UserError
from quickstudy.core.task import Task, examples
from quickstudy.curves import Curve
from quickstudy.report import task_picture, write_report
from quickstudy.scores import Evaluation

VOID = {"meta", "br", "img", "hr", "input", "link"}


def met(learner: str, score: float, kind: str = "classification") -> Evaluation:
    noise = torch.linspace(-0.05, 0.05, 50)
    name, sign = ("accuracy", 1) if kind == "classification" else ("mse", -1)
    return Evaluation(
        learner=learner,
        source="glyphs",
        split="test",
        seed=0,
        kind=kind,
        way=5 if kind == "classification" else 0,
        shot=1,
        signs={name: sign},
        measures={name: (score + noise).tolist()},
        reliability=Reliability([1.0, 3.0], [0.4, 0.9], [0.5, 0.8]) if kind == "classification" else None,
        adapt_seconds=0.0012,
        state_bytes=1280,
        fingerprint="same",
    )


def images(way: int = 5, shot: int = 1, query: int = 4, channels: int = 1) -> Task:
    rng = torch.Generator().manual_seed(0)
    prototypes = (torch.rand(way, channels, 28, 28, generator=rng) > 0.8).float()

    def rows(n: int):
        y = torch.arange(way).repeat_interleave(n)
        return examples(prototypes[y].unsqueeze(0), y.unsqueeze(0))

    return Task(rows(shot), rows(query))


def functions(rows: int = 40) -> Task:
    x = torch.linspace(-3, 3, rows).reshape(1, -1, 1)
    return Task(examples(x[:, ::8], x[:, ::8].sin()), examples(x, x.sin()))


def points() -> Task:
    y = torch.arange(3).repeat(4).unsqueeze(0)
    x = torch.randn(1, 12, 2, generator=torch.Generator().manual_seed(0)) + y.unsqueeze(-1)
    return Task(examples(x[:, :6], y[:, :6]), examples(x, y))


class Closed(HTMLParser):
    """Every element is closed in its order, and all references are collected."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []
        self.tags: set[str] = set()
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.references += [v for k, v in attrs if k in ("href", "src", "xlink:href", "srcset", "action")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def full(path: Path, **changes) -> tuple[str, Closed]:
    task = images()
    shots = Curve("protonet", "shot", "accuracy", 1, 50, [1, 5], [0.9, 0.97], [0.01, 0.005], ["no shot 10"])
    given = {
        "title": "protonet on glyphs",
        "command": "quickstudy demo",
        "evaluations": [met("protonet", 0.931), met("nearest_centroid", 0.55), met("chance", 0.2)],
        "log": [{"step": s, "loss": 2.0 / (s + 1), "score": 0.5, "note": "x"} for s in range(1000)],
        "shot_curves": {"protonet": shots},
        "adaptation": Curve("maml", "step", "accuracy", 1, 50, [0, 1], [0.2, 0.9], [0.01, 0.01]),
        "sample_task": task,
        "predictions": torch.eye(5)[(task.query.y + (torch.arange(20) == 3)) % 5],
        "card": {"name": "protonet", "net": {"name": "conv4"}},
        "published": [{"method": "ProtoNet", "5-way 1-shot": "98.8", "paper": "arXiv 1703.05175"}],
    } | changes
    page = write_report(path, **given).read_text("utf-8")
    parsed = Closed()
    parsed.feed(page)
    assert not parsed.open
    return page, parsed


def test_the_answer_comes_first_in_plain_words(tmp_path):
    _, parsed = full(tmp_path / "report.html")
    text = re.sub(r"\s+", " ", " ".join(parsed.text))
    lead = "From 1 example of each of 5 classes never seen in training: 93.1 ± 0.8 % right."
    assert lead in text and text.index(lead) < text.index("One task")
    assert re.search(r"nearest centroid: 55\.0 ± \d\.\d % right \(worse\)", text)
    for wanted in ("quickstudy demo", "arXiv 1703.05175", "no shot 10", "conv4", "torch", "✗ B"):
        assert wanted in text


def test_nothing_is_fetched_from_anywhere(tmp_path):
    page, parsed = full(tmp_path / "report.html")
    assert not re.search(r"https?:|@import|url\((?!#)", page)
    assert all(r.startswith(("data:image/png;base64,", "#")) for r in parsed.references)
    assert not parsed.tags & {"script", "link", "iframe", "object", "form"}
    assert "prefers-color-scheme: dark" in page and 'name="viewport"' in page
    assert len(page) < 1_000_000


def test_text_is_never_markup(tmp_path):
    evil = '<script>alert("$x$")</script>'
    curve = Curve(evil, "shot", "accuracy", 1, 5, [1], [0.5], [0.1], [evil])
    page, parsed = full(
        tmp_path / "report.html",
        title=evil,
        command=evil,
        evaluations=[met(evil, 0.9), met(evil, 0.5)],
        shot_curves={evil: curve},
        names=[evil] * 5,
        card={"name": evil},
        published=[{evil: evil}],
    )
    assert "script" not in parsed.tags and "<script" not in page


def test_a_report_of_little(tmp_path):
    page = write_report(
        tmp_path / "new" / "r.html", title="t", command="c", evaluations=[met("np", 0.5, "regression")]
    )
    text = page.read_text("utf-8")
    assert "From 1 point of a function never seen in training:" in text and "mean squared error 0.5" in text
    assert "calibration" not in text


def test_a_failed_write_leaves_the_old_report(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("old")

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(UserError, match="No space left"):
        write_report(path, title="t", command="c", evaluations=[met("np", 0.5)])
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_no_evaluation_is_refused(tmp_path):
    with pytest.raises(UserError, match="at least one evaluation"):
        write_report(tmp_path / "r.html", title="t", command="c", evaluations=[])


@pytest.mark.parametrize("answered", [False, True])
@pytest.mark.parametrize("task", [images(), images(channels=3), images(way=20, shot=6), functions(), points()])
def test_pictures_of_tasks(task, answered, tmp_path):
    predictions = None
    if answered:
        classes = task.query.y.dim() == 2
        predictions = torch.eye(20)[task.query.y] if classes else torch.cat([task.query.y] * 2, -1)
    data = task_picture(task, None, predictions, tmp_path / "task.png")
    assert (tmp_path / "task.png").read_bytes() == data
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode == "RGBA" and min(image.size) > 200


def test_names_in_any_script_and_rows_of_padding():
    task = images(way=3)
    hidden = task.query._replace(weight=task.query.weight * (task.query.y != 2))
    task_picture(Task(task.support, hidden), ["ღ", "ພ", "$\\frac$ <&> a very long name indeed"])


def test_a_task_that_cannot_be_drawn():
    x, y = torch.zeros(1, 4, 7), torch.zeros(1, 4, dtype=torch.long)
    with pytest.raises(UserError, match="cannot be drawn"):
        task_picture(Task(examples(x, y), examples(x, y)))


def test_drawing_leaves_the_global_style_alone(tmp_path):
    before = dict(matplotlib.rcParams)
    full(tmp_path / "report.html")
    assert dict(matplotlib.rcParams) == before
