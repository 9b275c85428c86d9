"""Sinusoid, 10-shot: MAML beside training from scratch and the pooled network, on 1,000 unseen tasks.

    python benchmarks/sinusoid.py        # about two minutes of training on one core

Writes benchmarks/results/sinusoid.json: the mean squared error after one inner step and the curve over ten.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from results import machine, write

import quickstudy as qs
from quickstudy.allocator import keep_memory
from quickstudy.curves import adaptation_curve
from quickstudy.scores import in_words

PUBLISHED = "0.85 ± 0.14 (MAML, 10-shot, 70,000 outer steps; Meta-SGD's table, arXiv 1707.09835)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30_000)
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path("runs"))
    args = parser.parse_args()
    source = qs.tasks.Sinusoid(shot=10, query=10)
    asked = source.reshaped(query=100)
    spec = source.spec

    torch.manual_seed(0)
    inner = {"inner_steps": 1, "inner_lr": 0.01}
    maml = qs.make("maml", spec, **inner)
    options = {"steps": args.steps, "meta_batch": 25, "lr": 2e-3, "warmup": 100, "clip": 10.0}
    more = {"valid_every": args.steps // 10, "save_every": args.steps // 10, "valid_tasks": 200, "overwrite": True}
    run = qs.train(maml, source, out=args.out / "sinusoid_maml", **options, **more)

    torch.manual_seed(0)
    pooled = qs.make("pooled", spec)
    other = {"steps": 5000, "lr": 1e-3, "valid_every": 1000, "valid_tasks": 200, "overwrite": True}
    qs.train(pooled, source, out=args.out / "sinusoid_pooled", **other)

    found = {
        "maml": qs.evaluate(maml, asked, "test", args.tasks),
        "scratch": qs.evaluate(qs.make("scratch", spec, inner_steps=100, inner_lr=0.01), asked, "test", args.tasks),
        "pooled": qs.evaluate(pooled, asked, "test", args.tasks),
        "chance": qs.evaluate(qs.make("chance", spec), asked, "test", args.tasks),
    }
    for name, one in found.items():
        print(f"{name:8} {one}")
    curve = adaptation_curve(maml, asked, steps=10, tasks=args.tasks)
    print("steps   ", "  ".join(in_words("mse", m) for m in curve.means))
    write(
        "sinusoid",
        {
            "tasks": "a ~ U[0.1, 5], p ~ U[0, pi], x ~ U[-5, 5], 10 support and 100 query rows",
            "test_tasks": args.tasks,
            "options": options | inner,
            "training_seconds": run.seconds,
            "mse": {name: {"mean": one.mean("mse"), "interval": one.interval("mse")} for name, one in found.items()},
            "maml_over_inner_steps": curve.card(),
            "published_one_step": PUBLISHED,
            "differences": "A cosine schedule and fewer outer steps; the mean over 1,000 seeded tasks.",
            **machine(),
        },
    )


if __name__ == "__main__":
    keep_memory()
    main()
