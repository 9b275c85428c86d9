"""Trained on letters of fonts, tested on Omniglot's handwriting without having seen it.

    python benchmarks/transfer.py

Writes benchmarks/results/transfer.json: a prototypical network and a linear probe beside nearest centroid and
logistic regression on raw pixels, on the same 600 tasks of Omniglot's test characters.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from results import data_folder, machine, write

import quickstudy as qs
from quickstudy.allocator import keep_memory
from quickstudy.train import json_scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=str(data_folder() / "omniglot" / "omniglot28.npz"))
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--tasks", type=int, default=600)
    parser.add_argument("--out", type=Path, default=Path("runs"))
    args = parser.parse_args()
    letters = qs.tasks.Glyphs(way=40, shot=1, query=5, rotations=True)
    options = {"steps": args.steps, "lr": 2e-3, "warmup": 50, "valid_every": args.steps // 5, "overwrite": True}
    learners = {}
    for name, extra, more in (
        ("protonet", {"turns": True}, {"meta_batch": 1}),
        ("linear_probe", {}, {"pooled_rows": 128}),
    ):
        torch.manual_seed(0)
        learner = qs.make(name, letters.spec, **extra)
        easier = letters.reshaped(way=20)
        run = qs.train(learner, letters, valid_source=easier, out=args.out / f"transfer_{name}", **options, **more)
        learners[name] = run.learner
    hand = qs.tasks.Omniglot(args.data)
    rows = {}
    for way in (5, 20):
        asked = hand.reshaped(way=way, shot=1, query=15)
        found = {name: qs.evaluate(learner, asked, "test", args.tasks) for name, learner in learners.items()}
        for name in ("logistic", "centroid"):
            found[name] = qs.evaluate(qs.make(name, asked.spec), asked, "test", args.tasks)
        rows[f"{way}-way 1-shot"] = {name: json_scores(one)["accuracy"] for name, one in found.items()}
        for name, one in found.items():
            print(f"{way:2}-way 1-shot {name:12} {one}")
    write(
        "transfer",
        {
            "trained_on": "glyphs with rotations, 40-way 1-shot",
            "tested_on": "Omniglot, test characters of the Vinyals split with rotations",
            "test_tasks": args.tasks,
            "options": options,
            "rows": rows,
            **machine(),
        },
    )


if __name__ == "__main__":
    keep_memory()
    main()
