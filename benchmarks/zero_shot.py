"""Zero-shot learners on intents known by their names, and on letters known by their attributes.

    python benchmarks/zero_shot.py              # about eight minutes on one core
    python benchmarks/zero_shot.py --encoder F  # also with the sentence-transformers model in the folder F
    python benchmarks/zero_shot.py --short      # a trial: few steps and tasks, nothing is written

Classes of the test split are never trained on. Two questions: 5 unseen classes; and 5 unseen beside 5 seen ones
(generalised), where seen classes are asked with sentences or drawings that training never showed. Everything is
chosen on validation tasks. Writes benchmarks/results/zero_shot.json after every row; `--only` keeps the others.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import product
from pathlib import Path
from typing import Any

import torch
from results import FOLDER, data_folder, machine, write

import quickstudy as qs
from quickstudy.allocator import keep_memory
from quickstudy.core.learner import MetaLearner
from quickstudy.core.source import Source
from quickstudy.learners import ESZSL
from quickstudy.scores import harmonic_mean
from quickstudy.tasks.zero_shot import DescribedSource

LEARNERS = ("semantic_protonet", "eszsl", "devise", "dap")
TABLES = {"CLINC150": "clinc150.tsv", "HWU64": "hwu64.tsv"}
RATES = {"text": (1e-3, 3e-3), "image": (2e-3,)}
STEPS = {"text": 600, "image": 400}
PENALTIES = (0.01, 0.1, 1.0)
LETTERS = "letters"


def sources(kind: str, encoder: str, seen: int, way: int) -> DescribedSource:
    """Zero-shot tasks: `seen` of the `way` classes of a valid or test task are training classes."""
    if kind == LETTERS:
        return qs.tasks.GlyphAttributes(way=way, query=5, seen=seen)
    path = str(data_folder() / "intents" / TABLES[kind])
    return qs.tasks.Intents(path, way=way, query=5, zero_shot=True, seen=seen, encoder=encoder)


def shown(kind: str, encoder: str) -> Source:
    """Tasks of the same unseen classes with one example of each, and no description."""
    if kind == LETTERS:
        return qs.tasks.Glyphs(way=5, shot=1, query=5)
    path = str(data_folder() / "intents" / TABLES[kind])
    return qs.tasks.Intents(path, way=5, shot=1, query=5, encoder=encoder)


def trained(name: str, source: Source, kind: str, fewer: int) -> tuple[MetaLearner, dict[str, Any]]:
    """The best on validation tasks of all rates (or penalties) tried, and which it was."""
    sort = "image" if kind == LETTERS else "text"
    net = {"channels": 32} if sort == "image" else {}
    found: list[tuple[float, MetaLearner, dict[str, Any]]] = []
    if name == "eszsl":
        assert isinstance(source, DescribedSource)
        rows = source.sample_pooled("train", 4000, source.rng(0))
        for gamma, penalty in product(PENALTIES, PENALTIES):
            learner = qs.make(name, source.spec, gamma=gamma, penalty=penalty)
            assert isinstance(learner, ESZSL)
            learner.solve(rows, source.descriptions("train"))
            score = qs.evaluate(learner, source, "valid", 200, seed=1).mean()
            found.append((score, learner, {"gamma": gamma, "penalty": penalty}))
    else:
        for lr in RATES[sort]:
            torch.manual_seed(0)
            learner = qs.make(name, source.spec, net_options=net)
            steps = max(STEPS[sort] // fewer, 2)
            every = max(steps // 6, 1)
            qs.train(learner, source, steps, meta_batch=2, lr=lr, clip=10.0, valid_every=every, progress=False)
            score = qs.evaluate(learner, source, "valid", 200, seed=1).mean()
            found.append((score, learner, {"lr": lr, "steps": steps}))
    _, learner, chosen = max(found, key=lambda one: one[0])
    return learner, chosen


def judged(learner: MetaLearner, kind: str, encoder: str, tasks: int) -> dict[str, Any]:
    """Accuracy on unseen classes alone; on seen and unseen ones among all of a task, and their harmonic mean."""
    plain = qs.evaluate(learner, sources(kind, encoder, 0, 5), "test", tasks)
    both = sources(kind, encoder, 5, 10)
    seen, unseen = (qs.evaluate(learner, both.reshaped(asked=asked), "test", tasks) for asked in ("seen", "unseen"))
    value, half = harmonic_mean(seen, unseen)
    named = {"unseen": plain, "among_seen": seen, "among_unseen": unseen}
    row = {k: {"mean": one.mean("accuracy"), "interval": one.interval("accuracy")} for k, one in named.items()}
    return row | {"harmonic": {"mean": value, "interval": half}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--encoder", type=Path, help="folder of a sentence-transformers model")
    parser.add_argument("--only", nargs="*", default=[*TABLES, LETTERS], help="of CLINC150, HWU64, letters")
    parser.add_argument("--tasks", type=int, default=600)
    args = parser.parse_args()
    tasks, fewer = (40, 60) if args.short else (args.tasks, 1)
    path = FOLDER / "zero_shot.json"
    rows: dict[str, Any] = json.loads(path.read_text())["rows"] if path.exists() and not args.short else {}
    for kind in args.only:
        encoders = {"": ""} if kind == LETTERS else {"hashed": "hashed"}
        if args.encoder and kind != LETTERS:
            encoders[sentence_model(args.encoder)] = str(args.encoder)
        for said, encoder in encoders.items():
            where = f"{kind}, {said}" if said else kind
            rows[where] = {}
            for name in LEARNERS + (() if kind == LETTERS else ("nearest description",)) + ("protonet, 1 shot",):
                begin = time.process_time()
                if name == "nearest description":
                    learner, chosen = qs.make("nearest_description", sources(kind, encoder, 0, 5).spec), {}
                    row = judged(learner, kind, encoder, tasks)
                elif name.startswith("protonet"):
                    learner, chosen = trained("protonet", shown(kind, encoder), kind, fewer)
                    one = qs.evaluate(learner, shown(kind, encoder), "test", tasks)
                    row = {"unseen": {"mean": one.mean(), "interval": one.interval()}}
                else:
                    # 10 classes a task, without the rows that are kept back for generalised tasks
                    learner, chosen = trained(name, sources(kind, encoder, 5, 10), kind, fewer)
                    row = judged(learner, kind, encoder, tasks)
                rows[where][name] = row | {"chosen": chosen, "seconds": time.process_time() - begin}
                said_row = {k: round(100 * v["mean"], 1) for k, v in row.items()}
                print(where, name, said_row, chosen, f"{time.process_time() - begin:.0f} s", flush=True)
                if not args.short:
                    write("zero_shot", {"test_tasks": tasks, "rows": rows, **machine()})


def sentence_model(folder: Path) -> str:
    """What to call the model in a folder: its own name, or that of the package that brought it."""
    return folder.parent.name.replace("_", "-") if folder.name == "model" else folder.name


def section() -> str:
    """What was measured, as Markdown; "" if nothing was."""
    from tables import percent, read, table

    found = read("zero_shot")
    if not found:
        return ""
    columns = ("unseen", "among_seen", "among_unseen", "harmonic")
    lines = []
    for where, learners in found["rows"].items():
        lines += [[where, name, *(percent(row.get(k)) for k in columns)] for name, row in learners.items()]
        lines.append([where, "chance", "20.0", "10.0", "10.0", "10.0"])
    heads = ["classes", "learner", "5 unseen", "5 + 5: seen", "unseen", "harmonic mean"]
    return "\n".join(
        [
            "## Zero-shot",
            "",
            table(heads, lines),
            "",
            "Accuracy in %, ± the 95 % interval over tasks. Intents are described by their names alone, encoded as the "
            "sentences are: by hashed runs of letters, or by a sentence-transformers model where one is named. Letters "
            "are described by 22 attributes computed from other drawings of them. 5 unseen: tasks of five test "
            "classes; 5 + 5: five test and five training classes together, asked on rows that training never showed. "
            f"{found['test_tasks']} tasks each. ProtoNet sees one example of each class instead, on tasks drawn from "
            "the same test classes. Nearest description is not trained. DAP takes the numbers of a text vector for "
            "attributes, which they are not. Rates and penalties were chosen on validation tasks. "
            f"{found['hardware']}. `python benchmarks/zero_shot.py --encoder FOLDER`",
        ]
    )


if __name__ == "__main__":
    keep_memory()
    main()
