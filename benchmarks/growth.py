"""How the cost of an outer step grows: time and memory against inner steps, tasks, classes and image size.

    python benchmarks/growth.py        # about six minutes

Writes benchmarks/results/growth.json and docs/growth.png. Each point is the median of three steps, through
`quickstudy.plan.cost`; memory is the most that tensors made in the step hold at once. A straight line is fitted
to each curve, and its share of the variance (R²) is reported.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from results import machine, write

import quickstudy as qs
from quickstudy.allocator import keep_memory
from quickstudy.plan import cost

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "growth.png"
STEPS = (1, 2, 3, 5, 10, 15, 20)
TASKS = (1, 2, 4, 8, 16, 32, 64)
WAYS = (2, 5, 10, 20)
SIZES = (16, 28, 42, 56, 84)
PLANS = ("store", "checkpoint", "sweep", "truncated", "first_order", "implicit")


def images(way: int = 5, pixels: int = 28, tasks: int = 1, query: int = 5) -> qs.Task:
    """Noise: what is shown does not matter to the arithmetic."""
    rng = torch.Generator().manual_seed(0)
    parts = []
    for rows in (1, query):
        x = torch.rand(tasks, way * rows, 1, pixels, pixels, generator=rng)
        parts.append(qs.examples(x, torch.arange(way).repeat_interleave(rows).expand(tasks, -1)))
    return qs.Task(*parts)


def conv(learner: str = "maml", way: int = 5, pixels: int = 28, **options: Any) -> qs.MetaLearner:
    torch.manual_seed(0)
    options = {"inner_lr": 0.1, "inner_steps": 1, **options} if learner == "maml" else options
    return qs.make(learner, qs.Spec("classification", (1, pixels, pixels), way=way), **options)


def sines(steps: int) -> qs.MetaLearner:
    torch.manual_seed(0)
    return qs.make("maml", qs.Spec("regression", (1,)), inner_steps=steps, inner_lr=0.01)


def curves() -> Iterator[tuple[str, str, str, int, qs.MetaLearner, qs.Task, str, int]]:
    """(panel, curve, axis, its value, learner, tasks, plan, how many times that part is worked through)."""
    source = qs.tasks.Sinusoid()
    few = source.sample("train", 25, source.rng(0))
    for plan in PLANS:
        for steps in STEPS:
            yield "MLP, 25 sinusoids", plan, "inner steps", steps, sines(steps), few, plan, 1
    for plan in PLANS:
        for steps in STEPS:
            yield "Conv4, one 5-way task", plan, "inner steps", steps, conv(inner_steps=steps), images(), plan, 1
    for tasks in TASKS:
        many = source.sample("train", tasks, source.rng(0))
        yield "meta-batch, MLP", "MAML, 1 step", "tasks", tasks, sines(1), many, "store", 1
    for tasks in TASKS:
        learner = conv()
        part = learner.chunk or tasks
        yield "meta-batch, Conv4", "MAML, 1 step", "tasks", tasks, learner, images(tasks=part), "store", tasks // part
    for name in ("maml", "protonet"):
        for way in WAYS:
            yield "way, Conv4", name, "way", way, conv(name, way=way), images(way), "store", 1
    for name in ("maml", "protonet"):
        for pixels in SIZES:
            found = conv(name, pixels=pixels), images(pixels=pixels)
            yield "image size, Conv4", name, "pixels", pixels**2, *found, "store", 1


def straightness(x: list[float], y: list[float]) -> dict[str, float]:
    """Slope, intercept and R² of the least-squares line."""
    slope, intercept = np.polyfit(x, y, 1)
    rest = np.var(np.array(y) - slope * np.array(x) - intercept)
    return {"slope": float(slope), "intercept": float(intercept), "r2": float(1 - rest / max(np.var(y), 1e-30))}


def draw(panels: dict[str, Any]) -> None:
    figure = Figure(figsize=(13, 3 * 2.4 + 1), layout="constrained")
    places = figure.subplots(4, 3).T.flatten()  # type: ignore[union-attr]
    for i, (title, panel) in enumerate(panels.items()):
        for axes, measure, unit in ((places[2 * i], "milliseconds", "ms"), (places[2 * i + 1], "megabytes", "MB")):
            for name, curve in panel["curves"].items():
                axes.plot(curve["at"], curve[measure], marker="o", markersize=3, label=name)
            axes.set_title(f"{title}: {unit}", fontsize=9)
            axes.set_xlabel(panel["axis"], fontsize=8)
            axes.set_ylim(bottom=0)
            axes.tick_params(labelsize=7)
            axes.legend(fontsize=6)
    figure.savefig(PICTURE, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    panels: dict[str, Any] = {}
    for title, name, axis, at, learner, tasks, plan, times in curves():
        found = cost(learner.train(), tasks, plan)
        curve = panels.setdefault(title, {"axis": axis, "curves": {}})["curves"].setdefault(
            name, {"at": [], "milliseconds": [], "megabytes": []}
        )
        curve["at"].append(at)
        curve["milliseconds"].append(1e3 * found.seconds * times)
        curve["megabytes"].append(found.bytes / 1e6)
        print(f"{title:24} {name:12} {axis} {at:5}: {1e3 * found.seconds * times:9.1f} ms {found.bytes / 1e6:8.1f} MB")
    for panel in panels.values():
        for curve in panel["curves"].values():
            curve["lines"] = {m: straightness(curve["at"], curve[m]) for m in ("milliseconds", "megabytes")}
    write("growth", {"panels": panels, **machine(), "threads": args.threads})
    draw(panels)


if __name__ == "__main__":
    keep_memory()
    main()
