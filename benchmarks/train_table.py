"""Trains the weights of the table learner that the package ships, on synthetic tables alone.

    python benchmarks/train_table.py train --out runs/table --devices 2                      # goes on with --resume
    python benchmarks/train_table.py anneal runs/table/best.safetensors --out runs/annealed --devices 2
    python benchmarks/train_table.py ship runs/annealed/best.safetensors                   # into src/quickstudy/weights
    python benchmarks/train_table.py check                            # beside scikit-learn, on unseen synthetic tables

No real table has a say in any of it: prior and settings were chosen before one was looked at, and the weights are those
of the best validation on synthetic tables. What is shipped had an hour of two busy cores: the first run was broken off
after 2,486 of its 6,000 steps (Ctrl-C), its best weights being those of step 2,400, and annealed from there, which was
broken off after 759 of 1,000 steps, the best being those of step 750: 3,150 steps, 100,800 tables in all. A run that is
finished needs no annealing.

`check` writes benchmarks/results/table_prior.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from results import machine, write

import quickstudy as qs
from quickstudy import checkpoint, shipped
from quickstudy.core.catalogue import describe
from quickstudy.tasks import TablePrior
from quickstudy.tasks.tables import TablesReader

WEIGHTS = shipped.FOLDER / f"tabular{shipped.SUFFIX}"
SOURCE: dict[str, Any] = {"shot": "6-80", "features": "2-40", "cells": 1800}
OPTIONS: dict[str, Any] = {
    "steps": 6000, "meta_batch": 32, "lr": 2e-3, "warmup": 300, "clip": 1.0, "valid_every": 600, "valid_tasks": 200,
    "seed": 0, "save_every": 100,
}  # fmt: skip
ANNEALING: dict[str, Any] = {**OPTIONS, "steps": 1000, "lr": 1.4e-3, "warmup": 20, "valid_every": 250, "seed": 1}
WIDTH = 512
"""Columns that a file of a task may have. Those without a cell cost nothing."""


def training(out: str, resume: bool, devices: int) -> None:
    torch.manual_seed(0)
    source = TablePrior(**SOURCE)
    run = qs.train(qs.make("tabular", source.spec), source, **OPTIONS, out=out, resume=resume, devices=devices)
    print(f"{run.stopped} at step {run.steps}, {run.seconds:.0f} s, best at {run.best_step}: {run.best_score}")


def anneal(path: str, out: str, resume: bool, devices: int) -> None:
    """Go on from a checkpoint with the rate falling to 0: the end of a run that is broken off before its own."""
    found, source = checkpoint.load(path), TablePrior(**SOURCE)
    run = qs.train(found.learner, source, **ANNEALING, out=out, resume=resume, devices=devices)
    print(f"{run.stopped} at step {run.steps}, {run.seconds:.0f} s, best at {run.best_step}: {run.best_score}")


def ship(path: str) -> None:
    """Copy a checkpoint of the training into the package; its card says nothing of a width, for any will do."""
    found = checkpoint.load(path)
    facts = {name: found.card[name] for name in ("learner", "tasks", "seed", "options", "step", "scores", "log")}
    spec = {"kind": "classification", "way": found.card["spec"]["way"]}
    reader = describe(TablesReader(WIDTH), "reader")
    WEIGHTS.parent.mkdir(exist_ok=True)
    checkpoint.write(WEIGHTS, "learner", found.learner.state_dict(), {**facts, "spec": spec, "reader": reader})
    print(f"{WEIGHTS}: {WEIGHTS.stat().st_size:,} bytes, best at step {facts['step']}")


def check(path: str, tables: int) -> None:
    """Mean AUC on unseen tables of the prior, beside the methods of benchmarks/tabular.py."""
    from tabular import METHODS, auc, paired

    trained = checkpoint.load(path)
    trained = checkpoint.Checkpoint(trained.learner, {"digest": trained.card["digest"]})
    figures: dict[str, Any] = {}
    for shot in (8, 16, 32, 64):
        source = TablePrior(**{**SOURCE, "way": "2-4", "shot": shot, "query": 64})
        found: dict[str, list[float]] = {name: [] for name in METHODS}
        for number in range(tables):
            task = source.sample("test", 1, source.rng("check", shot, number))
            x, asked = (np.asarray(part.x)[0] for part in task)
            x, asked = (np.where(cells[:, 1] > 0, cells[:, 0], np.nan) for cells in (x, asked))
            y, wanted = (part.y[0].numpy() for part in task)
            if len(np.unique(wanted)) < 2:
                continue
            y, wanted = (np.searchsorted(np.unique(y), part) for part in (y, wanted))
            kept = np.flatnonzero(~np.isnan(x).all(0))
            if not len(kept):
                continue
            for name, method in METHODS.items():
                found[name].append(auc(wanted, method(trained, x[:, kept], y, asked[:, kept])))
        scores = {name: np.array(values) for name, values in found.items()}
        figures[str(shot)] = {name: paired(scores["tabular"], values) for name, values in scores.items()}
        for name, v in figures[str(shot)].items():
            print(f"{shot} {name:22} {v['auc']:.4f} ahead {v['ahead']:+.4f} ± {v['interval']:.4f}", flush=True)
    if Path(path) == WEIGHTS:
        write("table_prior", {"tables": tables, "weights": trained.card["digest"], "rows": figures, **machine()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["train", "anneal", "ship", "check"])
    parser.add_argument("path", nargs="?", default=str(WEIGHTS))
    parser.add_argument("--out", default="runs/table")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--tables", type=int, default=300)
    given = parser.parse_args()
    if given.what == "train":
        training(given.out, given.resume, given.devices)
    elif given.what == "anneal":
        anneal(given.path, given.out, given.resume, given.devices)
    elif given.what == "ship":
        ship(given.path)
    else:
        check(given.path, given.tables)


if __name__ == "__main__":
    main()
