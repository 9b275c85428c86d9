"""What `make demo` prints, kept, and the picture of a task in the README.

    python benchmarks/demo.py            # under five minutes

Writes benchmarks/results/demo.json and docs/task.png.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from results import machine, write

import quickstudy as qs
from quickstudy.allocator import keep_memory
from quickstudy.cli import main as quickstudy
from quickstudy.evaluate import evaluating, ready
from quickstudy.report import task_picture
from quickstudy.scores import Evaluation
from quickstudy.tasks.glyphs import script

DOCS = Path(__file__).resolve().parents[1] / "docs"


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        words = [f"--out={folder / 'demo'}", f"--report={folder / 'report.html'}", f"--json={folder / 'scores.json'}"]
        assert quickstudy(["demo", *words]) == 0
        found = [Evaluation.from_json(json.dumps(one)) for one in json.loads((folder / "scores.json").read_text())]
        trained = qs.load(folder / "demo" / "protonet" / "best.safetensors")
    source = qs.tasks.Glyphs(way=5, shot=1, query=5)
    scripts = sorted({script(name[0]).title() for name in source.names("test")})
    rows = [(one.learner, {"mean": one.mean(), "interval": one.interval()}, one.ece) for one in found]
    write("demo", {"rows": rows, "test_tasks": found[0].tasks, "scripts": ", ".join(scripts), **machine()})
    learner = ready(trained.learner, source)
    names, drawn = source.names("test"), source.draw("test", 1, source.rng("a picture"))
    task = source.sample("test", 1, source.rng("a picture"))
    with evaluating(learner, seed=0):
        predictions = learner.predict(learner.adapt(task.support), task.query.x)
    labels = [" ".join(names[c].split()[1:2] + names[c].split()[-1:]).title() for c in drawn.classes[0].tolist()]
    task_picture(task, labels, predictions, DOCS / "task.png")


if __name__ == "__main__":
    keep_memory()
    main()
