"""Which example to label next: accuracy by the number of labels, beside labelling at random, on the same tasks.

    python benchmarks/labelling.py              # about five minutes on one core
    python benchmarks/labelling.py --short      # a trial: few steps and tasks, nothing is written

A task begins with one example of each of five unseen classes; the rest of its rows, some classes rarer than others,
are the pool, of which five are labelled in each of three rounds. Says which strategy is best on validation tasks: that
is what the default of `quickstudy label-next` should be. Writes benchmarks/results/labelling.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from results import machine, write
from small_learners import RECIPES, clinc, omniglot, trained

import quickstudy as qs
from quickstudy.allocator import keep_memory
from quickstudy.core.learner import MetaLearner
from quickstudy.core.source import Source, Split
from quickstudy.evaluate import draw, evaluating, ready
from quickstudy.questions.labelling import STRATEGIES, Asked, label_next
from quickstudy.questions.row_features import behind_network, row_features
from quickstudy.scores import interval

ROUNDS, EACH = 3, 5
SLOW = {"logistic": ("lookahead",)}
"""Strategies left out: a convex fit for each label that may come takes minutes a task."""


def on_features(learner: MetaLearner, task: qs.Task) -> tuple[MetaLearner, qs.Task]:
    """The learner behind its network, where it has one, so that every row passes it once."""
    behind = behind_network(learner)
    if behind is None:
        return learner, task
    with evaluating(learner, 0):
        return behind, qs.Task(*(rows._replace(x=row_features(learner, rows.x)) for rows in task))


def curve(learner: MetaLearner, task: qs.Task, strategy: str, seed: int) -> list[float]:
    """The accuracy of one task with 5, 10, 15 and 20 labels."""
    support, way = task.support, learner.objective.size
    real = (support.weight[0] > 0).nonzero().flatten()
    first = {int(support.y[0, i]): int(i) for i in real.flip(0)}
    labelled = sorted(first.values())
    rest = [int(i) for i in real if int(i) not in labelled]
    made = []
    for turn in range(ROUNDS + 1):
        known = qs.examples(support.x[:, labelled], support.y[:, labelled])
        with evaluating(learner, seed):
            state = learner.adapt(known)
            made.append(float(learner.objective.score(learner.predict(state, task.query.x), task.query)))
        if turn < ROUNDS and rest:
            asked = Asked(learner, state, support.x[0, rest], known, way)
            picked = label_next(asked, strategy, EACH, seed=1000 * seed + turn)
            labelled += [rest[i] for i in picked]
            rest = [row for i, row in enumerate(rest) if i not in set(picked)]
    return made


def curves(
    learner: MetaLearner, source: Source, split: Split, tasks: int, strategies: tuple[str, ...]
) -> dict[str, np.ndarray]:
    """The accuracies (task, number of labels) of each strategy on the same tasks."""
    found: dict[str, list[list[float]]] = {name: [] for name in strategies}
    number = 0
    for block in draw(source, split, tasks, 0):
        for t in range(block.support.tasks):
            behind, task = on_features(learner, qs.select(block, slice(t, t + 1)))
            for name in strategies:
                found[name].append(curve(behind, task, name, number))
            number += 1
    return {name: np.array(values) for name, values in found.items()}


def paired(values: np.ndarray, plain: np.ndarray) -> list[dict[str, float]]:
    gaps = values - plain
    return [{"mean": float(gap.mean()), "interval": interval(gap.tolist())} for gap in gaps.T]


def mean(values: np.ndarray) -> list[dict[str, float]]:
    return [{"mean": float(column.mean()), "interval": interval(column.tolist())} for column in values.T]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--tasks", type=int, default=300)
    parser.add_argument("--valid_tasks", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("runs/small"))
    args = parser.parse_args()
    tasks, valid, fewer = (6, 6, 50) if args.short else (args.tasks, args.valid_tasks, 1)
    pools = {"imbalance": 1.5, "query": 5}
    sources = {"omniglot": omniglot(shot=14, **pools), "clinc150": clinc(shot=30, **pools)}
    rows: dict[str, Any] = {}
    gains: dict[str, list[float]] = {name: [] for name in STRATEGIES}
    for data, source in sources.items():
        for kind in ("protonet", "logistic"):
            if kind == "protonet":
                learner = trained(f"{data} protonet", args.out, fewer)[0]
            else:
                torch.manual_seed(0)
                learner = qs.make("logistic", source.spec)
            learner = ready(learner, source)
            names = tuple(name for name in STRATEGIES if name not in SLOW.get(kind, ()))
            held = curves(learner, source, "valid", valid, names)
            for name in names:
                gains[name].append(float((held[name] - held["random"])[:, 1:].mean()))
            found = curves(learner, source, "test", tasks, names)
            rows[f"{data}, {kind}"] = {
                "recipe": RECIPES[f"{data} protonet"].words() if kind == "protonet" else "raw inputs",
                "accuracy": {name: mean(found[name]) for name in names},
                "against_random": {name: paired(found[name], found["random"]) for name in names},
                "valid_gain": {name: gains[name][-1] for name in names},
            }
            for name in names:
                told = " ".join(f"{100 * v['mean']:5.1f}" for v in rows[f"{data}, {kind}"]["accuracy"][name])
                print(f"{data} {kind} {name:10} {told}  valid gain {100 * gains[name][-1]:+.2f}")
    whole = {name: values for name, values in gains.items() if len(values) == len(rows)}
    chosen = max(whole, key=lambda name: float(np.mean(whole[name])))
    print("best on validation tasks, of those that every learner was given:", chosen)
    if not args.short:
        figures = {"test_tasks": tasks, "valid_tasks": valid, "chosen_on_valid": chosen, "gains_on_valid": gains}
        labels = [EACH * (1 + k) for k in range(ROUNDS + 1)]
        write("labelling", {**figures, "labels": labels, "rows": rows, **machine()})


def section() -> str:
    """What was measured, as Markdown; "" if nothing was."""
    from tables import percent, read, table

    found = read("labelling")
    if not found:
        return ""
    cells, misses = [], []
    for name, row in found["rows"].items():
        for strategy, scores in row["accuracy"].items():
            gaps = row["against_random"][strategy]
            told = [percent(score) for score in scores[1:]]
            last = gaps[-1]
            verdict = "" if strategy == "random" else f"{100 * last['mean']:+.1f} ± {100 * last['interval']:.1f}"
            cells.append([name, strategy, *told, verdict])
            if strategy != "random" and last["mean"] + last["interval"] < 0:
                misses.append(f"{strategy} ({name})")
    heads = ["tasks, learner", "strategy", *(f"{n} labels, %" for n in found["labels"][1:]), "against random, at last"]
    said = f" Worse than labelling at random: {', '.join(misses)}." if misses else ""
    return "\n".join(
        [
            "## Which example to label next",
            "",
            table(heads, cells),
            "",
            f"Accuracy on {found['test_tasks']} tasks of unseen classes, ± the 95 % interval; the last column paired. "
            f"{found['labels'][0]} labels to begin with, one of each class, then {EACH} a round from a pool in which "
            f"some classes are rare. Best on {found['valid_tasks']} validation tasks: {found['chosen_on_valid']}; the "
            f"default of `quickstudy label-next` for classes is diverse.{said} {found['hardware']}. "
            "`python benchmarks/labelling.py`",
        ]
    )


if __name__ == "__main__":
    keep_memory()
    main()
