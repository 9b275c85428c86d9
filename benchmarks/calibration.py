"""Whether predictive distributions hold what they say: the 50 and 90 % intervals beside the exact posterior.

    python benchmarks/calibration.py              # about twelve minutes on one core
    python benchmarks/calibration.py --short      # a trial: few steps and tasks, nothing is written

Every learner that predicts a Gaussian, on sinusoids with noise and on functions of a Gaussian process. Nothing is
calibrated afterwards: these are the learners' own deviations. Writes benchmarks/results/calibration.json after every
learner; `--only` measures some of them and keeps the others' figures.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from results import FOLDER, machine, write
from torch import Tensor

import quickstudy as qs
from quickstudy.allocator import keep_memory
from quickstudy.core.learner import MetaLearner
from quickstudy.evaluate import BLOCK, draw_block, evaluating
from quickstudy.scores import interval
from quickstudy.tasks.gaussian_process import GaussianProcess

NOISE = 0.3
LEVELS = (0.5, 0.9)
SOURCES = {
    "sinusoids": qs.tasks.Sinusoid(shot=10, query=10, noise=NOISE),
    "gaussian process": GaussianProcess(shot="3-20", query=20, noise=0.1),
}
ABOUT = {
    "sinusoids": "a sin(x - p), a ~ U[0.1, 5], p ~ U[0, pi], x ~ U[-5, 5], noise 0.3; 10 points seen, 10 asked",
    "gaussian process": "RBF kernel, length scale 0.4, variance 1, x ~ U[-2, 2], noise 0.1; 3 to 20 points seen, "
    "20 asked",
}
BEST = "exact posterior"


@dataclass(frozen=True)
class Recipe:
    """How a learner is trained: steps of 16 tasks at the rate lr, weights kept by validation tasks. gaussian: it would
    predict a value alone unless told otherwise."""

    steps: int
    lr: float = 2e-3
    options: dict[str, Any] = field(default_factory=dict)
    gaussian: bool = False


DESCENT = {"inner_steps": 3, "inner_lr": 0.02}
RECIPES = {
    "cnp": Recipe(4000),
    "anp": Recipe(1500),
    "conv_cnp": Recipe(800),
    "tnp": Recipe(800, 1e-3),
    "in_context": Recipe(800, 1e-3),
    "versa": Recipe(3000),
    "alpaca": Recipe(1000, 5e-3),
    "dkt": Recipe(500, 1e-2),
    "abml": Recipe(400, options=DESCENT | {"draws": 2}, gaussian=True),
    "bmaml": Recipe(400, options=DESCENT | {"chaser": False, "particles": 4}, gaussian=True),
    "platipus": Recipe(400, options=DESCENT, gaussian=True),
}

Judged = Callable[[qs.Task], tuple[Tensor, Tensor, Tensor]]
"""For the queries of tasks: the probability below y, its log density, and the mean; each (task, n)."""


def gaussian(learner: MetaLearner) -> Judged:
    """What a learner's Gaussians say of the queries."""
    objective = learner.objective
    assert isinstance(objective, qs.GaussianRegression)

    def judged(tasks: qs.Task) -> tuple[Tensor, Tensor, Tensor]:
        out = learner.predict(learner.adapt(tasks.support), tasks.query.x, tasks.query.weight)
        mean, deviation = objective.mean_and_deviation(out)
        return normal(tasks.query.y, mean, deviation)

    return judged


def normal(y: Tensor, mean: Tensor, deviation: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    y, mean, deviation = (t.squeeze(-1).double() for t in (y, mean, deviation))
    z = (y - mean) / deviation
    density = -deviation.log() - z.square() / 2 - math.log(2 * math.pi) / 2
    return torch.special.ndtr(z), density, mean


def exact_process(process: GaussianProcess) -> Judged:
    """The posterior of the process itself."""

    def judged(tasks: qs.Task) -> tuple[Tensor, Tensor, Tensor]:
        assert isinstance(tasks.query.x, Tensor)
        mean, deviation = process.posterior(tasks.support, tasks.query.x)
        return normal(tasks.query.y, mean, (deviation.square() + process.noise**2).sqrt())

    return judged


def exact_sinusoid(tasks: qs.Task, fine: int = 240) -> tuple[Tensor, Tensor, Tensor]:
    """The posterior over amplitude and phase on a grid of `fine` x `fine` cells, and the mixture it predicts.

    Ten points of noise 0.3 leave a deviation of about 0.13 in amplitude and, at the largest amplitude, 0.03 in phase:
    cells are 0.02 and 0.013 wide, and a sum over cells at most half a deviation wide is exact to many digits.
    """
    middle = (torch.arange(fine, dtype=torch.float64) + 0.5) / fine
    amplitude, phase = (g.flatten() for g in torch.meshgrid(0.1 + 4.9 * middle, math.pi * middle, indexing="ij"))
    asked, seen = tasks.query, tasks.support
    assert isinstance(seen.x, Tensor) and isinstance(asked.x, Tensor)
    parts = []
    for x, y, at, wanted in zip(seen.x, seen.y, asked.x, asked.y, strict=True):
        # (cell, n): all cells at all points
        wave = lambda points: amplitude.unsqueeze(1) * torch.sin(points.double().T - phase.unsqueeze(1))  # noqa: E731
        log = -(wave(x) - y.double().T).square().sum(1) / (2 * NOISE**2)
        share = log.softmax(0)
        kept = share > 1e-9
        share = share[kept] / share[kept].sum()
        means = (amplitude[kept].unsqueeze(1) * torch.sin(at.double().T - phase[kept].unsqueeze(1))).unsqueeze(-1)
        below, density, _ = normal(wanted.double().unsqueeze(0), means, torch.full_like(means, NOISE))
        density = (density + share.log().unsqueeze(1)).logsumexp(0)
        parts.append((share @ below, density, share @ means.squeeze(-1)))
    below, density, mean = (torch.stack(column) for column in zip(*parts, strict=True))
    return below, density, mean


def measured(judged: Judged, source: qs.Source, tasks: int) -> dict[str, list[float]]:
    """Coverage of the central intervals, log likelihood and squared error of each test task."""
    found: dict[str, list[float]] = {f"coverage_{100 * level:.0f}": [] for level in LEVELS}
    found |= {"log_likelihood": [], "mse": []}
    for index in range(math.ceil(tasks / BLOCK)):
        block = draw_block(source, "test", tasks, 0, index)
        below, density, mean = judged(block)
        for level in LEVELS:
            inside = (below - 0.5).abs() <= level / 2
            found[f"coverage_{100 * level:.0f}"] += inside.double().mean(1).tolist()
        found["log_likelihood"] += density.mean(1).tolist()
        found["mse"] += (mean - block.query.y.squeeze(-1)).square().mean(1).tolist()
    return found


def trained(name: str, source: qs.Source, fewer: int) -> MetaLearner:
    recipe = RECIPES[name]
    more: dict[str, Any] = {}
    if recipe.gaussian:
        objective = qs.GaussianRegression(1, floor=0.01)
        more = {"objective": objective, "net_options": {"out": objective.size}}
    torch.manual_seed(0)
    learner = qs.make(name, source.spec, **recipe.options, **more)
    steps = max(recipe.steps // fewer, 2)
    options = {"warmup": min(100, steps), "clip": 10.0, "valid_every": max(steps // 10, 1), "progress": False}
    qs.train(learner, source, steps, meta_batch=16, lr=recipe.lr, **options)
    return learner


def summary(values: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    return {m: {"mean": sum(v) / len(v), "interval": interval(v)} for m, v in values.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--only", nargs="*", default=list(RECIPES))
    parser.add_argument("--tasks", type=int, default=600)
    args = parser.parse_args()
    tasks, fewer = (40, 50) if args.short else (args.tasks, 1)
    path = FOLDER / "calibration.json"
    rows: dict[str, Any] = {name: {} for name in SOURCES}
    if path.exists() and set(args.only) != set(RECIPES):
        rows |= json.loads(path.read_text())["rows"]
    for where, source in SOURCES.items():
        exact = exact_process(source) if isinstance(source, GaussianProcess) else exact_sinusoid
        best = measured(exact, source, tasks)
        rows[where][BEST] = summary(best)
        print(where, BEST, {m: round(v["mean"], 3) for m, v in rows[where][BEST].items()}, flush=True)
        for name in args.only:
            begin = time.process_time()
            learner = trained(name, source, fewer)
            spent = time.process_time() - begin
            with evaluating(learner, seed=0):
                found = measured(gaussian(learner), source, tasks)
            behind = [a - b for a, b in zip(found["log_likelihood"], best["log_likelihood"], strict=True)]
            row = summary(found | {"behind": behind}) | {"seconds": spent, "steps": RECIPES[name].steps}
            rows[where][name] = row
            shown = {m: round(v["mean"], 3) for m, v in row.items() if isinstance(v, dict)}
            print(where, name, shown, f"{spent:.0f} s", flush=True)
            if not args.short:
                write("calibration", {"test_tasks": tasks, "about": ABOUT, "rows": rows, **machine()})


def section() -> str:
    """What was measured, as Markdown; "" if nothing was."""
    from tables import number, percent, read, table

    found = read("calibration")
    if not found:
        return ""
    lines = []
    for where, learners in found["rows"].items():
        for name, row in learners.items():
            behind = number(row["behind"]) if "behind" in row else ""
            covers = [percent(row[f"coverage_{100 * level:.0f}"]) for level in LEVELS]
            lines.append([where, name, *covers, number(row["log_likelihood"]), behind, number(row["mse"], 3)])
    heads = ["tasks", "learner", "50 % interval covers, %", "90 % interval covers, %", "log likelihood"]
    seconds = sum(row.get("seconds", 0) for learners in found["rows"].values() for row in learners.values())
    return "\n".join(
        [
            "## Whether predictive distributions hold what they say",
            "",
            table([*heads, "against the exact posterior, paired", "mean squared error"], lines),
            "",
            f"{'; '.join(f'{k}: {v}' for k, v in found['about'].items())}. {found['test_tasks']} unseen tasks, ± the "
            "95 % interval over them; log likelihood in nats a point. The exact posterior is the best there is: by "
            "closed form for the process, on a grid of amplitudes and phases for sinusoids (where it is no Gaussian, "
            f"and its own quantiles are taken). Each learner was trained for a short while ({seconds / 60:.0f} minutes "
            "of processor time together), with unequal steps: read coverage from this table, and no ranking. "
            f"{found['hardware']}. `python benchmarks/calibration.py`",
        ]
    )


if __name__ == "__main__":
    keep_memory()
    main()
