"""What bfloat16 costs in accuracy: the same training twice, in float32 and under bfloat16 autocast.

    python benchmarks/precision.py                            # about twenty minutes on two cores
    python benchmarks/precision.py --learners protonet maml   # some of them, about eight

Writes benchmarks/results/precision.json: the scores on the same 600 test tasks of unseen scripts with their
paired difference, the time of a step, and the error of one meta-gradient against float64.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from results import machine, write

import quickstudy as qs
from quickstudy.allocator import keep_memory
from quickstudy.core.task import map_tensors
from quickstudy.train import json_scores

LEARNERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "protonet": ({}, {"way": 20, "query": 5}),
    "maml": ({"inner_steps": 1, "inner_lr": 0.4, "eval_steps": 3}, {"way": 5, "query": 5}),
    "maml 5 steps": ({"inner_steps": 5, "inner_lr": 0.1}, {"way": 5, "query": 5}),
    "r2d2": ({}, {"way": 5, "query": 5}),
}


def gradient(learner: qs.MetaLearner, tasks: qs.Task, half: bool = False) -> torch.Tensor:
    with torch.autocast(tasks.query.y.device.type, torch.bfloat16, enabled=half):
        loss = learner(tasks)
    return torch.cat([g.flatten().double() for g in torch.autograd.grad(loss, list(learner.parameters()))])


def error(name: str, options: dict[str, Any], source: qs.Source, device: str) -> dict[str, float]:
    """The relative error of one meta-gradient at the start, |g - g64| / |g64|, of each precision."""
    torch.manual_seed(0)
    learner = qs.make(name, source.spec, **options).train().to(device)
    tasks = map_tensors(source.sample("train", 1, source.rng(0)), lambda t: t.to(device))
    single, half = gradient(learner, tasks), gradient(learner, tasks, half=True)
    exact = gradient(learner.double(), map_tensors(tasks, lambda t: t.double() if t.is_floating_point() else t))
    return {key: float((g - exact).norm() / exact.norm()) for key, g in (("float32", single), ("bfloat16", half))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--tasks", type=int, default=600)
    parser.add_argument("--learners", nargs="+", choices=LEARNERS, default=list(LEARNERS), metavar="LEARNER")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    args = parser.parse_args()
    rows = {}
    for title in args.learners:
        options, shape = LEARNERS[title]
        name = title.split()[0]
        source = qs.tasks.Glyphs(shot=1, **shape)
        scores, seconds = {}, {}
        for precision in ("32-true", "bf16-mixed"):
            torch.manual_seed(0)
            learner = qs.make(name, source.spec, **options)
            how: dict[str, Any] = {"precision": precision, "accelerator": args.device, "compile": args.device == "cuda"}
            run = qs.train(learner, source, args.steps, 4, lr=2e-3, valid_every=0, **how)
            scores[precision] = qs.evaluate(learner, source.reshaped(way=5, query=15), "test", tasks=args.tasks)
            seconds[precision] = run.seconds / args.steps
        difference = qs.compare(scores["bf16-mixed"], scores["32-true"])
        rows[title] = {
            "float32": json_scores(scores["32-true"])["accuracy"],
            "bfloat16": json_scores(scores["bf16-mixed"])["accuracy"],
            "difference": {"mean": difference.difference, "interval": difference.interval},
            "step_seconds": {"float32": seconds["32-true"], "bfloat16": seconds["bf16-mixed"]},
            "gradient_error": error(name, options, source, args.device),
        }
        print(title, rows[title])
    name = "precision" if args.device == "cpu" else f"precision_{args.device}"
    write(name, {"rows": rows, "steps": args.steps, "test_tasks": args.tasks, **machine()})


if __name__ == "__main__":
    keep_memory()
    main()
