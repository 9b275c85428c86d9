"""Intents of sentences from a handful of examples each: what training on other intents buys, and where it does not pay.

    python examples/language.py --data DATA                 # all parts, about half an hour of one processor
    python examples/language.py --data DATA --model FOLDER  # through a sentence encoder
    python examples/language.py five --data DATA --short    # one part, in seconds, to see that it runs

five: 5 unseen intents from 1, 5 and 10 examples (CLINC150, HWU64). scope: telling sentences that ask for none of them.
domains: intents of a domain that was never seen, 5 of them and all 15. all: all unseen intents of a data set at once.

DATA holds intents/clinc150.tsv (Larson and others, EMNLP 2019), intents/hwu64.tsv (Liu and others 2019, arXiv
1903.05566) and intents/class_splits.json (Dopierre and others, ACL 2021). FOLDER holds a sentence-transformers model,
all-MiniLM-L6-v2 for the figures shown (see benchmarks/requirements.txt); without it texts are encoded by their letters.
What is done is kept in benchmarks/results/language.json, row by row, and a run that was broken off goes on; learners
are kept in runs/language. docs/language.md shows the figures.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from language_scope import scope
from language_tasks import (
    META,
    PLAIN,
    ROTATIONS,
    SETS,
    SHOTS,
    compared,
    compared_by,
    learners,
    plain,
    unseen_domains,
    unseen_intents,
)

import quickstudy as qs
from quickstudy.allocator import keep_memory
from quickstudy.core.source import Split
from quickstudy.evaluate import BLOCK
from quickstudy.tasks import Texts
from quickstudy.tasks.text import HASHED

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))
results: Any = importlib.import_module("results")

Row = tuple[str, dict[str, Any]]


def five(data: Path, encoder: str, folder: Path, short: bool, whole: bool = False) -> Iterator[Row]:
    """5 unseen intents; or all those of a data set at once, if `whole`."""
    steps, tasks, valid_tasks = (20, 20, 20) if short else (600, 600, 200)
    for name in SETS[:1] if short else SETS:
        source = unseen_intents(data, name, encoder)
        known = learners(source, folder / name, steps, valid_tasks, META[:1] if short else META)
        ways = {split: len(source.names(split)) if whole else 5 for split in ("valid", "test")}
        for shot in SHOTS[:1] if short else SHOTS:
            asked = source.reshaped(way=ways["test"], shot=shot)
            chosen_on = source.reshaped(way=ways["valid"], shot=shot)
            plainly = plain(chosen_on, valid_tasks // 8 if whole else valid_tasks)
            everyone = {one: learner.for_way(ways["test"]) for one, learner in {**plainly, **known}.items()}
            found = {one: qs.evaluate(learner, asked, "test", tasks) for one, learner in everyone.items()}
            yield f"{name}/{ways['test']}/{shot}", {"learners": compared(found)}


def all_at_once(data: Path, encoder: str, folder: Path, short: bool) -> Iterator[Row]:
    """All unseen intents of a data set at once."""
    return five(data, encoder, folder, short, whole=True)


def outside(data: Path, encoder: str, folder: Path, short: bool) -> Iterator[Row]:
    """Sentences that ask for none of the intents."""
    for name in SETS[-1:] if short else SETS:
        for what, row in scope(name, data, encoder, folder / name, short).items():
            yield f"{name}/{what}", row


def domains(data: Path, encoder: str, folder: Path, short: bool) -> Iterator[Row]:
    """Intents of one unseen domain: the domain is what an interval counts."""
    steps, tasks, valid_tasks = (20, 20, 20) if short else (600, 120, 200)
    values: dict[str, dict[str, dict[str, list[float]]]] = {}
    for rotation in range(1 if short else ROTATIONS):
        source = unseen_domains(data, encoder, rotation)
        known = learners(source, folder / f"domains{rotation}", steps, valid_tasks, META[:1] if short else META)
        for way in (5,) if short else (5, 15):
            for shot in SHOTS[:1] if short else SHOTS:
                asked = source.reshaped(way=way, shot=shot)
                everyone = {**plain(asked, valid_tasks // 4), **known}
                of = domains_of(asked, "test", tasks)
                for one, learner in everyone.items():
                    scores = qs.evaluate(learner.for_way(way), asked, "test", tasks).values()
                    by_domain = values.setdefault(f"{way}/{shot}", {}).setdefault(one, {})
                    for domain, score in zip(of, scores, strict=True):
                        by_domain.setdefault(domain, []).append(score)
    for what, methods in values.items():
        means = {one: [sum(v) / len(v) for _, v in sorted(by.items())] for one, by in methods.items()}
        counts = [len(v) for v in methods[PLAIN[0]].values()]
        yield f"clinc150/{what}", {
            "learners": compared_by(means, "accuracy"), "tasks": sum(counts), "domains": len(counts),
        }  # fmt: skip


def domains_of(source: Texts, split: Split, tasks: int) -> list[str]:
    """The domain of each task that `evaluate` meets."""
    names, found = source.names(split), []
    for index in range(-(-tasks // BLOCK)):
        drawn = source.draw(split, min(BLOCK, tasks - index * BLOCK), source.rng(0, split, "evaluate", index))
        found += [names[c].split("/")[0] for c in drawn.classes[:, 0].tolist()]
    return found


PARTS = {"five": five, "scope": outside, "domains": domains, "all": all_at_once}


def run(parts: list[str], data: Path, encoder: str, out: Path, short: bool = False) -> dict[str, Any]:
    """The figures of the parts; those that were there stay, and short ones are not written."""
    path = results.FOLDER / "language.json"
    figures: dict[str, Any] = json.loads(path.read_text()) if path.exists() and not short else {}
    name = HASHED if encoder == HASHED else "all-MiniLM-L6-v2"
    own = figures.setdefault("encoders", {}).setdefault(name, {})
    for part in parts:
        if own.get(part, {}).get("done"):
            continue
        begin, rows = time.process_time(), {}
        for what, row in PARTS[part](data, encoder, out / ("short" if short else "long") / name, short):
            rows[what] = row
            print(name, part, what, {k: _short(v) for k, v in row["learners"].items()}, flush=True)
            own[part] = {"rows": rows, "done": False}
            if not short:
                results.write("language", {**figures, **results.machine()})
        own[part] = {"rows": rows, "done": True, "cpu_seconds": round(time.process_time() - begin)}
        if not short:
            results.write("language", {**figures, **results.machine()})
    return figures


def _short(found: dict[str, Any]) -> str:
    return f"{100 * found.get('auroc', found)['mean']:.1f}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="all, if none is named")
    parser.add_argument("--data", type=Path, required=True, help="the folder of the data sets")
    parser.add_argument("--model", default=HASHED, help="the folder of a sentence encoder")
    parser.add_argument("--out", type=Path, default=Path("runs/language"), help="keeps the learners")
    parser.add_argument("--short", action="store_true", help="few tasks and steps; no figures are written")
    given = parser.parse_args()
    torch.set_num_threads(1)
    keep_memory()
    warnings.simplefilter("ignore", UserWarning)
    run(given.parts or list(PARTS), given.data, given.model, given.out, given.short)
