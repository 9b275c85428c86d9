"""The section of docs/results.md on texts, from benchmarks/results/text.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tables import percent, table

SETS = {"clinc150": "CLINC150", "hwu64": "HWU64"}
ENCODERS = ("hashed", "all-MiniLM-L6-v2")
PLAIN = {"centroid": "nearest centroid", "logistic": "logistic regression"}
META = {"protonet": "ProtoNet", "r2d2": "R2D2", "simple_shot": "SimpleShot"}


def section() -> str:
    """The section as Markdown; "" if there is no result file."""
    path = Path(__file__).parent / "results" / "text.json"
    if not path.exists():
        return ""
    found = json.loads(path.read_text())
    options, there = found["options"], [name for name in ENCODERS if name in found]
    header = ["data", "encoder", "tasks", *PLAIN.values(), *META.values()]
    few = [line for name in there for line in _rows(found[name]["few_way"], name, "5-way {}")]
    full = [line for name in there for line in _rows(found[name]["full"], name, "all intents, {}")]
    parts = [
        "## Texts: intents that were never seen", "",
        table(header, few), "",
        f"Accuracy in %, {options['test_tasks']} tasks of unseen intents (fold 1 of ProtAugment's class splits, arXiv "
        "2105.12995), 5 queries an intent; every column sees the same frozen embeddings. The strength of logistic "
        "regression, and network, rate and step of the meta-learners, were chosen on tasks of the valid intents.", "",
        *_verdicts(found, there, "few_way", "5-way {}"), "",
        table([*header, "RoBERTa", "best published"], full), "",
        f"All intents at once from k examples each (drawn {options['draws']} times from the official training rows; "
        "± is over these draws), on all official test rows. RoBERTa: a classifier fine-tuned on the k examples, as "
        "arXiv 2109.06349 gives it; best published: arXiv 2302.05096, which generates further examples with a large "
        "language model. Differences: those papers fine-tune a network of 125 million weights or more on the k "
        "examples of every intent, so none is unseen there; here nothing is trained on the data set but a linear "
        "classifier or class means (the hashed encoder of the plain columns is fitted to the texts of the fold's "
        "training intents, without their labels), and the meta-learners were trained on intents of the other data set "
        "alone, some of which mean the same.", "",
        *_verdicts(found, there, "full", "all intents, {}"), "",
        *_sizes(found),
        f"{found['cpu_seconds'] / 60:.0f} minutes of processor time on {found['hardware']}, encoding the sentences "
        "once not counted (about 6 ms each). ProtAugment's own 5-way rows are not shown: they could not be verified. "
        "`python benchmarks/text.py --model FOLDER`",
    ]  # fmt: skip
    return "\n".join(parts)


def _rows(found: dict[str, Any], encoder: str, tasks: str) -> list[list[str]]:
    lines = []
    for data, title in SETS.items():
        for shot, row in found[data]["rows"].items():
            cells = [percent(row["learners"].get(name)) for name in (*PLAIN, *META)]
            lines.append([title, encoder, tasks.format(shot), *cells, *row.get("published", ())])
    return lines


def _verdicts(found: dict[str, Any], there: list[str], part: str, tasks: str) -> list[str]:
    """For each meta-learner, where it is better or worse than the better plain one, with paired intervals."""
    lines = []
    for name, title in META.items():
        said: dict[str, list[str]] = {"better": [], "worse": [], "cannot tell": []}
        for encoder in there:
            for data, where in SETS.items():
                for shot, row in found[encoder][part][data]["rows"].items():
                    learners = row["learners"]
                    if name not in learners:
                        continue
                    plain = max(PLAIN, key=lambda base: learners[base]["mean"])
                    gap, half, verdict = learners[name]["than"][plain]
                    at = f"{where}, {encoder}, {tasks.format(shot)} ({100 * gap:+.1f} ± {100 * half:.1f})"
                    said[verdict].append(at)
        pays = f"pays in {'; '.join(said['better'])}" if said["better"] else "pays nowhere here"
        worse = f" It is worse in {'; '.join(said['worse'])}." if said["worse"] else ""
        unclear = f" Not to be told apart: {'; '.join(said['cannot tell'])}." if said["cannot tell"] else ""
        lines.append(f"- {title}, beside the better plain column on the same tasks, {pays}.{worse}{unclear}")
    return lines


def _sizes(found: dict[str, Any]) -> list[str]:
    rows = [row for row in found.get("hashed", {}).get("sizes", []) if "data" in row]
    if not rows:
        return []
    lines = []
    for row in rows:
        cells = [f"{percent(row[shot])} ({_signed(row[shot]['than_most'])})" for shot in ("1-shot", "5-shot")]
        lines.append([SETS[row["data"]], f"{row['buckets']:,}", f"{row['megabytes']:.1f}", *cells])
    words = (
        "What the hashed encoder takes in a checkpoint, and the accuracy of nearest centroid on 5-way tasks of the "
        "valid intents (in brackets: beside 16,384 buckets, paired). The tool keeps 4,096 buckets, in half precision."
    )
    return [table(["data", "buckets", "MB", "1-shot, %", "5-shot, %"], lines), "", words, ""]


def _signed(pair: list[float]) -> str:
    return f"{100 * pair[0]:+.1f} ± {100 * pair[1]:.1f}"
