"""Omniglot by the protocols of the papers, and how long it takes to their accuracy; meant for a GPU.

    python benchmarks/omniglot_published.py protonet      # 10,000 steps
    python benchmarks/omniglot_published.py maml          # 60,000 steps of 32 tasks, second order
    python benchmarks/omniglot_published.py maml --score  # its best weights on the test characters

Each writes benchmarks/results/omniglot_published_<row>.json. The time to the published accuracy is that at which the
validation characters were first answered so well, on 600 tasks every so many steps; drawing tasks, validation and
compiling are in it. The test characters are scored once, at the end, with the plain baselines beside; no GPU is needed
for that.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from omniglot import scored
from results import FOLDER, data_folder, machine, write

import quickstudy as qs
from quickstudy import checkpoint
from quickstudy.core.catalogue import describe
from quickstudy.train import Run

PUBLISHED = {
    "protonet": {"5-way 1-shot": "98.8", "20-way 1-shot": "96.0"},
    "maml": {"5-way 1-shot, 1 query a class": "98.7 ± 0.4"},
}
DIFFERENCES = {
    "protonet": "A cosine schedule over a fixed number of steps, and the weights of the best validation (the paper: a "
    "rate halved every 2,000 steps, until the validation loss stops falling; one network a row).",
    "maml": "The weights of the best validation instead of the last; the Vinyals split instead of 1,200 random "
    "characters.",
}
SHAPES = {"protonet": [(5, 1, 15), (20, 1, 15)], "maml": [(5, 1, 1), (5, 1, 15)]}
"""What is scored: way, shot and query. MAML's paper asks one query a class; its batch statistics meet them together."""
STEPS = {"protonet": 10_000, "maml": 60_000}
VALID_EVERY = {"protonet": 500, "maml": 2000}


def protonet(data: str, options: dict[str, Any]) -> tuple[Run, qs.Source]:
    source = qs.tasks.Omniglot(data, way=60, shot=1, query=5)
    learner = qs.make("protonet", source.spec)
    asked = source.reshaped(way=5, query=15)
    return qs.train(learner, source, meta_batch=1, schedule="cosine", valid_source=asked, **options), source


def maml(data: str, options: dict[str, Any]) -> tuple[Run, qs.Source]:
    """Strided convolutions, and one query a class, in training and in validation."""
    source = qs.tasks.Omniglot(data, way=5, shot=1, query=1)
    net = {"pool": "stride"}
    learner = qs.make("maml", source.spec, net_options=net, inner_steps=1, inner_lr=0.4, eval_steps=3)
    return qs.train(learner, source, meta_batch=32, schedule="constant", **options), source


ROWS = {"protonet": protonet, "maml": maml}


def history(run: Run) -> list[dict[str, float]]:
    """Seconds since the start, step and accuracy of every validation."""
    found, seconds = [], 0.0
    for row in run.log:
        seconds = row.get("seconds", seconds)
        if "valid" in row:
            found.append({"seconds": seconds, "step": row["step"], "accuracy": row["valid"]})
    return found


def trained(row: str, args: argparse.Namespace) -> None:
    """Train, and write what the way there was."""
    torch.manual_seed(0)
    options = {"steps": args.steps or STEPS[row], "lr": 1e-3, "valid_every": VALID_EVERY[row]}
    options["valid_tasks"] = args.tasks
    how = {"accelerator": args.accelerator, "compile": True, "save_every": 5000}
    run, source = ROWS[row](args.data, {**options, **how, "out": args.out / f"published_{row}", "overwrite": True})
    valid, mark = history(run), float(next(iter(PUBLISHED[row].values())).split()[0]) / 100
    first = next((one for one in valid if one["accuracy"] >= mark), None)
    print(f"{run.seconds:.0f} s for {run.steps:,} steps; the published accuracy on validation tasks: {first}")
    write(
        f"omniglot_published_{row}",
        {
            "row": row,
            "split": "Vinyals, rotations as classes",
            "tasks": {k: v for k, v in describe(source, "tasks").items() if k != "path"},
            "transductive": run.learner.transductive,
            "options": {**options, **how},
            "steps": run.steps,
            "seconds": run.seconds,
            "best_step": run.best_step,
            "validation": valid,
            "reached": first,
            **machine(),
        },
    )


def score(row: str, args: argparse.Namespace) -> None:
    """Score the best weights on the test characters, and add that to what was written."""
    learner = checkpoint.load(args.out / f"published_{row}" / "best.safetensors").learner
    rows = scored(learner, qs.tasks.Omniglot(args.data), SHAPES[row], args.tasks, PUBLISHED[row])
    found = json.loads((FOLDER / f"omniglot_published_{row}.json").read_text())
    said = {"test_tasks": args.tasks, "rows": rows, "differences": DIFFERENCES[row]}
    write(f"omniglot_published_{row}", {**found, **said})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("row", choices=ROWS)
    parser.add_argument("--data", default=str(data_folder() / "omniglot" / "omniglot28.npz"))
    parser.add_argument("--steps", type=int, help="as published if not given")
    parser.add_argument("--tasks", type=int, default=600)
    parser.add_argument("--accelerator", default="cuda")
    parser.add_argument("--score", action="store_true", help="score what was trained before, on this machine")
    parser.add_argument("--out", type=Path, default=Path("runs"))
    args = parser.parse_args()
    (score if args.score else trained)(args.row, args)


if __name__ == "__main__":
    main()
