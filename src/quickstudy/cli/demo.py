"""`quickstudy demo`: the whole way once, on letters, without a download."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentParser, Namespace

from quickstudy import checkpoint
from quickstudy.cli.arguments import Command
from quickstudy.cli.evaluating import curves, measure, page, run_log
from quickstudy.core.files import write_whole
from quickstudy.core.learner import MetaLearner
from quickstudy.learners import make
from quickstudy.tables import evaluation_table, terminal
from quickstudy.tasks.glyphs import Glyphs, script
from quickstudy.train import train

TRAINED: tuple[tuple[str, dict[str, Any], dict[str, Any]], ...] = (
    ("protonet", {"turns": True}, {"meta_batch": 1}),
    ("linear_probe", {}, {"pooled_rows": 64}),
)
"""Name, options of the learner, options of its training."""
BESIDE = ("logistic", "centroid", "chance")


def _add(parser: ArgumentParser) -> None:
    parser.add_argument("--out", type=str, default="demo", help="folder for the checkpoints")
    parser.add_argument("--report", type=str, default="report.html", help="where to write the page")
    parser.add_argument("--json", type=str | None, default=None, help="also write every score to this file")
    parser.add_argument("--steps", type=int, default=1200, help="outer steps")
    parser.add_argument("--test_tasks", type=int, default=600, help="tasks of unseen writing systems to score on")
    parser.add_argument("--seed", type=int, default=0, help="decides the tasks and the first weights")


def run(options: Namespace) -> int:
    out = Path(options.out)
    print("Letters of the fonts that matplotlib ships; whole writing systems are kept for the test.")
    source = Glyphs(way=20, shot=1, query=5)
    ask = source.reshaped(way=5, query=10)
    spec = source.spec
    names = ", ".join(sorted({script(name[0]).title() for name in source.names("test")}))
    print(f"{spec.train_classes} letters to train on; to be tested on letters of {names}.")
    shared = dict(valid_source=ask, valid_every=options.steps // 4, warmup=50, seed=options.seed, overwrite=True)

    learners: dict[str, MetaLearner] = {}
    for name, own, extra in TRAINED:
        torch.manual_seed(options.seed)
        learner = make(name, spec, **own)
        print(f"training {name} ...")
        done = train(learner, source, steps=options.steps, lr=2e-3, out=out / name, **shared, **extra)  # type: ignore[arg-type]
        if done.stopped == "interrupted":
            print(f"stopped at step {done.steps}: run it again to start over.")
            return 130
        print(f"  {done.steps} steps in {done.seconds:.0f} seconds")
        learners[name] = done.learner
    learners |= {name: make(name, ask.spec) for name in BESIDE}

    fewer = min(100, options.test_tasks)
    asked = Namespace(**{**vars(options), "split": "test", "shots": "1,2,5,10", "steps": 0, "curve_tasks": fewer})
    found = [measure(learner, ask, asked, name) for name, learner in learners.items()]
    terminal().print(evaluation_table(found, title="unseen writing systems, 5-way 1-shot"))
    few = {name: learners[name] for name in ("protonet", "linear_probe", "centroid")}
    shots, _ = curves(asked, few, ask)
    if options.json:
        write_whole(options.json, json.dumps([json.loads(one.to_json()) for one in found]).encode())
    trained = checkpoint.load(out / "protonet" / "best.safetensors")
    log = run_log(out / "protonet")
    page(options.report, "make demo", trained.learner, trained.card, ask, found, log, shots, None)
    print(f"wrote {options.report}: open it in a browser")
    print(f"next: quickstudy adapt {out}/protonet/best.safetensors FOLDER --invert")
    return 0


DEMO = Command(
    "demo",
    "Train on letters, test on writing systems never seen, and write report.html.",
    "quickstudy demo --report report.html",
    _add,
    run,
)
