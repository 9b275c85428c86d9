"""Sampling tasks must never be what training waits for: tasks a second, beside a training step on the same tasks.

    python benchmarks/sampling.py        # about a minute

Writes benchmarks/results/sampling.json. Each pair is measured interleaved; figures are medians.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from results import data_folder, machine, write

import quickstudy as qs
from quickstudy.allocator import keep_memory


def seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=str(data_folder() / "omniglot" / "omniglot28.npz"))
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args()
    omniglot = qs.tasks.Omniglot(args.data)
    rows = {}
    for name, source, learner, options, tasks in (
        ("omniglot 60-way 1-shot", omniglot.reshaped(way=60, query=5), "protonet", {}, 1),
        ("omniglot 5-way 1-shot", omniglot.reshaped(way=5, query=5), "maml", {"inner_steps": 1}, 16),
        ("omniglot Meta-Dataset sampler", omniglot.reshaped(scheme="meta_dataset", way="5-20"), "protonet", {}, 4),
        ("glyphs 5-way 5-shot", qs.tasks.Glyphs(way=5, shot=5), "protonet", {}, 4),
        ("sinusoid 10-shot", qs.tasks.Sinusoid(), "maml", {"inner_steps": 1}, 25),
    ):
        model = qs.make(learner, source.spec, **options)
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)
        batch = source.sample("train", tasks, source.rng(0))

        def step(model=model, optimizer=optimizer, batch=batch) -> None:
            optimizer.zero_grad()
            model(batch).backward()
            optimizer.step()

        drawn, stepped = [], []
        for i in range(args.repeats + 2):
            drawn.append(seconds(lambda s=source, t=tasks, i=i: s.sample("train", t, s.rng(i))))
            stepped.append(seconds(step))
        sample, work = statistics.median(drawn[2:]), statistics.median(stepped[2:])
        rows[name] = {
            "learner": learner,
            "tasks": tasks,
            "tasks_a_second": tasks / sample,
            "sample_ms": 1e3 * sample,
            "step_ms": 1e3 * work,
            "share_of_a_step": sample / work,
        }
        print(f"{name:30} {tasks / sample:9.0f} tasks/s, {100 * sample / work:.1f} % of a step of {learner}")
    write("sampling", {"rows": rows, **machine()})


if __name__ == "__main__":
    keep_memory()
    main()
