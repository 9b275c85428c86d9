"""A conditional neural process beside the exact posterior of the Gaussian process its tasks come from.

    python benchmarks/gaussian_process.py        # about five minutes

Writes benchmarks/results/gaussian_process.json: log likelihood, squared error and coverage of the 90 % interval
on 1,000 unseen tasks, by the number of points seen.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
from results import machine, write
from torch import Tensor

import quickstudy as qs
from quickstudy.allocator import keep_memory
from quickstudy.core.learner import MetaLearner
from quickstudy.train import json_scores


class ExactPosterior(MetaLearner):
    """The best there is: the posterior of the process itself."""

    kinds = ("regression",)
    trained = False

    def __init__(self, process: qs.tasks.GaussianProcess):
        super().__init__()
        self.process = process
        self.objective = qs.GaussianRegression(1, floor=0.0)

    def adapt(self, support: qs.Examples, prior: qs.State | None = None) -> qs.State:
        return {"x": support.x, "y": support.y, "weight": support.weight}

    def predict(self, state: qs.State, x: Tensor, weight: Tensor | None = None) -> Tensor:
        mean, deviation = self.process.posterior(qs.Examples(**state), x)
        total = (deviation.square() + self.process.noise**2).sqrt().double()
        raw = total + (-(-total).expm1()).log()  # the inverse of softplus
        return torch.cat([mean, raw.to(mean.dtype)], -1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path("runs"))
    args = parser.parse_args()
    process = qs.tasks.GaussianProcess(shot="3-50", query=50)
    torch.manual_seed(0)
    learner = qs.make("cnp", process.spec)
    options = {"steps": args.steps, "meta_batch": 16, "lr": 1e-3, "warmup": 100, "clip": 10.0}
    more = {"valid_every": args.steps // 10, "save_every": args.steps // 10, "overwrite": True}
    run = qs.train(learner, process, out=args.out / "gaussian_process_cnp", **options, **more)
    rows = {}
    for shot in (3, 10, 50):
        asked = process.reshaped(shot=shot)
        chance = qs.make("chance", process.spec)
        chance.objective = learner.objective
        judged = {"cnp": learner, "exact posterior": ExactPosterior(process), "chance": chance}
        found = {name: qs.evaluate(one, asked, "test", args.tasks, name=name) for name, one in judged.items()}
        rows[f"{shot} points"] = {name: json_scores(one) for name, one in found.items()}
        for name, one in found.items():
            cover = f"90 % interval covers {100 * one.mean('coverage_90'):.1f} %"
            print(f"{shot:2} points {name:15} {one}, mse {one.mean('mse'):.4f}, {cover}")
    floor = 0.5 * math.log(2 * math.pi * math.e) + math.log(process.noise)
    write(
        "gaussian_process",
        {
            "tasks": "RBF kernel, length scale 0.4, variance 1, noise 0.02, x ~ U[-2, 2]",
            "test_tasks": args.tasks,
            "noise_alone": -floor,
            "options": options,
            "training_seconds": run.seconds,
            "rows": rows,
            **machine(),
        },
    )


if __name__ == "__main__":
    keep_memory()
    main()
