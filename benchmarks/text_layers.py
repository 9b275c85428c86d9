"""The last layers of a sentence encoder learnt with the rest, beside a projection on its frozen vectors.

    python benchmarks/text_layers.py --model FOLDER              # about ten minutes of processor time
    python benchmarks/text_layers.py --model FOLDER --short      # a trial: few steps and tasks, nothing is written

5-way 1-shot tasks of CLINC150's unseen intents (fold 1 of ProtAugment's class splits), from the first 40 sentences of
each intent. FOLDER holds all-MiniLM-L6-v2 (see benchmarks/requirements.txt). The rate and the step of each method are
chosen on validation tasks. Writes benchmarks/results/text_layers.json after every method; those that are there are not
trained again unless --again is given.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from results import FOLDER, data_folder, machine, write

import quickstudy as qs
from quickstudy.allocator import keep_memory
from quickstudy.core.learner import MetaLearner
from quickstudy.core.source import SPLITS
from quickstudy.scores import Comparison, interval
from quickstudy.tasks.intents import PUBLISHED, published_split, read_table

SENTENCES = 40
LAYERS = 2
METHODS: dict[str, dict[str, Any]] = {
    "centroid": {"title": "nearest centroid, frozen vectors"},
    "projection": {
        "title": "ProtoNet, projection on frozen vectors", "rates": (1e-3, 1e-4), "steps": 600, "meta_batch": 4,
    },
    "layers": {
        "title": f"ProtoNet, the encoder's last {LAYERS} layers", "layers": LAYERS, "rates": (1e-4, 3e-5), "steps": 200,
        "meta_batch": 1,
    },
    "layers_first": {
        "title": f"the encoder's last {LAYERS} layers, untrained", "layers": LAYERS,
    },
}  # fmt: skip


def source_of(model: str, layers: int) -> qs.tasks.Texts:
    """Fewer sentences of CLINC150 than there are, so that it can be repeated in minutes."""
    path = data_folder() / "intents" / "clinc150.tsv"
    texts, labels = read_table(str(path))
    names = sorted(set(labels))
    numbers = published_split(path.parent / PUBLISHED, 1, names)
    split = {names[c]: part for part in SPLITS for c in numbers[part].tolist()}
    counts = dict.fromkeys(names, 0)
    rows = []
    for text, label in zip(texts, labels, strict=True):
        counts[label] += 1
        if label in split and counts[label] <= SENTENCES:
            rows.append({"text": text, "label": label, "split": split[label]})
    return qs.tasks.Texts.of(rows, encoder=model, layers=layers, split_column="split", way=5, shot=1, query=5)


def learner_of(name: str, source: qs.tasks.Texts, fewer: int) -> tuple[MetaLearner, dict[str, Any]]:
    """The method's learner, of the rate that does best on validation tasks."""
    method = METHODS[name]
    if "rates" not in method:
        return qs.make("centroid" if name == "centroid" else "protonet", source.spec), {}
    harder = source.reshaped(way=10, query=2)
    steps = max(method["steps"] // fewer, 4)
    best: tuple[float, MetaLearner, dict[str, Any]] | None = None
    for rate in method["rates"]:
        torch.manual_seed(0)
        learner = qs.make("protonet", harder.spec)
        options = {"valid_every": steps // 4, "valid_tasks": max(100 // fewer, 4), "valid_source": source}
        run = qs.train(learner, harder, steps, method["meta_batch"], rate, progress=False, **options)
        score = run.best_score or 0.0
        print(name, rate, f"{100 * score:.1f} at step {run.best_step}", flush=True)
        if best is None or score > best[0]:
            best = score, run.learner, {"rate": rate, "step": run.best_step, "valid": score}
    assert best is not None
    return best[1], best[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="the folder of the sentence encoder")
    parser.add_argument("--tasks", type=int, default=600)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--again", action="store_true")
    args = parser.parse_args()
    fewer, tasks = (50, 20) if args.short else (1, args.tasks)
    path = FOLDER / "text_layers.json"
    figures: dict[str, Any] = json.loads(path.read_text()) if path.exists() and not (args.again or args.short) else {}
    rows = figures.setdefault("rows", {})
    for name, method in METHODS.items():
        if name in rows:
            continue
        source = source_of(args.model, method.get("layers", 0))
        source.prepare()
        begin = time.process_time()
        learner, setting = learner_of(name, source, fewer)
        trained = time.process_time() - begin
        found = qs.evaluate(learner, source, "test", tasks)
        rows[name] = {
            "setting": setting, "values": found.values(), "training_seconds": round(trained, 1),
            "adapt_ms": 1000 * found.adapt_seconds,
            "weights": sum(p.numel() for p in learner.parameters()) if "rates" in method else 0,
        }  # fmt: skip
        print(name, found, f"{trained:.0f} s", flush=True)
        if not args.short:
            write("text_layers", {**figures, "test_tasks": tasks, **machine()})


def section() -> str:
    """What was measured, as Markdown; "" if it was not."""
    from tables import percent, table

    path = Path(__file__).parent / "results" / "text_layers.json"
    found = json.loads(path.read_text()) if path.exists() else {"rows": {}}
    rows = found["rows"]
    if not rows.keys() >= METHODS.keys():
        return ""
    lines = []
    for name, method in METHODS.items():
        row = rows[name]
        score = {"mean": sum(row["values"]) / len(row["values"]), "interval": interval(row["values"])}
        gap = [a - b for a, b in zip(row["values"], rows["projection"]["values"], strict=True)]
        pair = Comparison(name, "projection", "accuracy", 1, sum(gap) / len(gap), interval(gap), len(gap))
        beside = "" if name == "projection" else f"{100 * pair.difference:+.1f} ± {100 * pair.interval:.1f}"
        lines.append([method["title"], percent(score), beside, f"{row['weights']:,}", f"{row['training_seconds']:.0f}"])
    settings = [rows[name]["setting"] for name in ("projection", "layers")]
    header = ["method", "accuracy, %", "beside the projection", "weights learnt", "training, s"]
    return "\n".join([
        "## Learning an encoder's last layers", "",
        table(header, lines), "",
        f"5-way 1-shot tasks of CLINC150's unseen intents, {found['test_tasks']} tasks, from {SENTENCES} sentences an "
        "intent, through all-MiniLM-L6-v2; differences are paired. Rates and steps were chosen on validation tasks: "
        f"{settings[0]['rate']:g} and {settings[0]['step']} of 600 steps of 4 tasks (projection), "
        f"{settings[1]['rate']:g} and {settings[1]['step']} of 200 steps of 1 task (layers), tasks of 10 ways. "
        "Untrained, the layers give the encoder's own vectors back, but for the half precision that a token's vector "
        f"is kept in. Seconds of one core of {found['hardware']}. `python benchmarks/text_layers.py --model FOLDER`",
    ])  # fmt: skip


if __name__ == "__main__":
    keep_memory()
    main()
