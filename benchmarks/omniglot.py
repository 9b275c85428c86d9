"""Omniglot, Vinyals split, rotations as classes: train on two CPU cores, then score unseen characters.

    python benchmarks/omniglot.py protonet          # about 15 minutes
    python benchmarks/omniglot.py maml              # about 50 minutes, second order
    python benchmarks/omniglot.py maml_first_order  # about 30 minutes

Each writes benchmarks/results/omniglot_<row>.json. Choices (steps, rates) were made on the
validation characters alone; the test characters are scored once, on 600 seeded tasks.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from pathlib import Path

import torch

import quickstudy as qs
from quickstudy.allocator import keep_memory
from quickstudy.train import json_scores

HERE = Path(__file__).parent
PUBLISHED = {
    "protonet": {"5-way 1-shot": "98.8", "5-way 5-shot": "99.7", "20-way 1-shot": "96.0", "20-way 5-shot": "98.9"},
    "maml": {"5-way 1-shot": "98.7 ± 0.4"},
    "maml_first_order": {"5-way 1-shot": "98.3 ± 0.5"},
}
DIFFERENCES = {
    "protonet": "One network for all four rows, trained 60-way 1-shot with 5 queries, a cosine schedule and "
    "a fixed number of steps; the paper trains one per row until the validation loss stops falling.",
    "maml": "32 tasks a step and a few thousand steps instead of 60,000; a cosine schedule; transductive batch "
    "statistics as in the paper; the Vinyals split instead of 1,200 random characters.",
    "maml_first_order": "As for second order.",
}


def protonet(data: str, steps: int | None, out: Path) -> tuple[qs.MetaLearner, qs.Source, list, dict]:
    source = qs.tasks.Omniglot(data, way=60, shot=1, query=5)
    learner = qs.make("protonet", source.spec, net_options={"norm": "running"})
    options = dict(steps=steps or 6000, meta_batch=1, lr=2e-3, warmup=100, valid_every=500, valid_tasks=100)
    run = qs.train(learner, source, valid_source=source.reshaped(way=20, query=5), out=out, **options)
    return run.learner, source, [(5, 1), (5, 5), (20, 1), (20, 5)], options | {"seconds": run.seconds}


def maml(data: str, steps: int | None, out: Path, first_order: bool = False) -> tuple:
    source = qs.tasks.Omniglot(data, way=5, shot=1, query=5)
    inner = dict(inner_steps=3, inner_lr=0.2, first_order=first_order, eval_steps=5)
    learner = qs.make("maml", source.spec, net_options={"norm": "batch"}, **inner)
    options = dict(steps=steps or 4000, meta_batch=16, lr=2e-3, warmup=100, clip=10.0, valid_every=500)
    run = qs.train(learner, source, out=out, **options)
    return run.learner, source, [(5, 1)], options | inner | {"seconds": run.seconds}


def maml_first_order(data: str, steps: int | None, out: Path) -> tuple:
    return maml(data, steps, out, first_order=True)


ROWS = {"protonet": protonet, "maml": maml, "maml_first_order": maml_first_order}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("row", choices=ROWS)
    folder = Path(os.environ.get("QUICKSTUDY_TEST_DATA", HERE.parent.parent / "shared" / "data"))
    parser.add_argument("--data", default=str(folder / "omniglot" / "omniglot28.npz"))
    parser.add_argument("--steps", type=int)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--tasks", type=int, default=600)
    parser.add_argument("--out", type=Path, default=Path("runs"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    learner, source, shapes, options = ROWS[args.row](args.data, args.steps, args.out / f"omniglot_{args.row}")
    rows = {}
    for way, shot in shapes:
        found = qs.evaluate(learner, source.reshaped(way=way, shot=shot, query=15), "test", tasks=args.tasks)
        key = f"{way}-way {shot}-shot"
        rows[key] = {**json_scores(found), "ece": found.ece, "published": PUBLISHED[args.row].get(key)}
        for name in ("centroid",):
            plain = qs.evaluate(
                qs.make(name, source.reshaped(way=way).spec),
                source.reshaped(way=way, shot=shot, query=15),
                "test",
                tasks=args.tasks,
            )
            rows[key][name] = json_scores(plain)["accuracy"]
        print(key, found, f"(published {rows[key]['published']})")
    result = {
        "row": args.row,
        "split": "Vinyals, rotations as classes",
        "test_tasks": args.tasks,
        "transductive": learner.transductive,
        "options": options,
        "threads": args.threads,
        "hardware": f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPU cores, no GPU",
        "torch": torch.__version__,
        "differences": DIFFERENCES[args.row],
        "rows": rows,
    }
    path = HERE / "results" / f"omniglot_{args.row}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    keep_memory()
    main()
