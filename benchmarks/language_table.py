"""The sections of docs/language.md, from benchmarks/results/language.json (examples/language.py)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tables import percent, table

SETS = {"clinc150": "CLINC150", "hwu64": "HWU64"}
TITLES = {
    "centroid": "nearest centroid", "logistic": "logistic regression", "protonet": "ProtoNet", "r2d2": "R2D2",
    "simple_shot": "SimpleShot",
}  # fmt: skip
PLAIN = ("centroid", "logistic")
META = tuple(name for name in TITLES if name not in PLAIN)
SIGNS = {"better": "+", "worse": "-", "cannot tell": "="}
FEW = 12
"""Rows of a part in which a method is worse that a sentence names at most."""
ABOUT = {
    "five": (
        "Five intents that were never seen",
        "Accuracy in %, 600 tasks of unseen intents (fold 1 of ProtAugment's class splits, arXiv 2105.12995).",
    ),
    "all": (
        "All unseen intents at once",
        "Accuracy in %, 600 tasks of all intents of the test split at once, from 1, 5 and 10 examples of each.",
    ),
    "domains": (
        "Domains that were never seen",
        "Accuracy in %, intents of one domain of CLINC150 at a time, 5 of them or all 15, 600 tasks; training saw six "
        "other domains. Every domain is unseen once (five rounds of training), and ± counts the ten domains, not the "
        "tasks.",
    ),
}
SCOPE = (
    "A task knows five unseen intents and is asked as many sentences of other intents; or, of CLINC150, sentences "
    "collected to be out of scope. AUROC: how often such a sentence looks less like the five than one that belongs (50 "
    "% is chance). False alarms: sentences that belong and were taken for others, at thresholds that are to keep 95 % "
    "of a new task's (conformal, from validation tasks); caught: those of the others at that threshold. 600 tasks. "
    "What is thresholded, the largest probability or the largest logit, was chosen on validation tasks for each method."
)


def section() -> str:
    """All sections as Markdown; "" if nothing was measured."""
    path = Path(__file__).parent / "results" / "language.json"
    if not path.exists():
        return ""
    found = json.loads(path.read_text())
    parts = [_intents(found["encoders"], part) for part in ("five", "all", "domains")] + [_scope(found["encoders"])]
    spent = sum(p.get("cpu_seconds", 0) for own in found["encoders"].values() for p in own.values())
    open_ = [f"{e}: {p}" for e, own in found["encoders"].items() for p, one in own.items() if not one["done"]]
    note = f" Not finished: {', '.join(open_)}." if open_ else ""
    how = (
        "In brackets: better (+), worse (-) or not to be told (=) beside the better plain method on the same tasks, by "
        "the 95 % interval of the paired difference. Plain methods see the new task alone; learners (a projection on "
        "the same frozen vectors) were trained on other intents of the same data, with rate and step chosen on "
        "validation tasks of 5 intents and 1 example, and the strength of logistic regression on validation tasks of "
        f"the same sizes. 5 queries an intent.{note} {spent / 60:.0f} minutes of processor time on {found['hardware']}."
        " `python examples/language.py --data DATA [--model FOLDER]`"
    )
    return "\n\n".join([*(part for part in parts if part), how])


def _intents(encoders: dict[str, Any], part: str) -> str:
    lines: list[list[str]] = []
    said: dict[str, dict[str, list[str]]] = {name: {sign: [] for sign in SIGNS} for name in META}
    for encoder, parts in encoders.items():
        for what, row in parts.get(part, {"rows": {}})["rows"].items():
            data, way, shot = what.split("/")
            learners = row["learners"]
            cells = [_cell(learners, name, said, f"{SETS[data]}, {encoder}, {way}-way {shot}-shot") for name in TITLES]
            lines.append([SETS[data], encoder, f"{way}-way {shot}-shot", *cells])
    if not lines:
        return ""
    title, words = ABOUT[part]
    head = ["data", "encoder", "tasks", *TITLES.values()]
    return "\n".join([f"## {title}", "", table(head, lines), "", words, "", *_verdicts(said, len(lines))])


def _cell(learners: dict[str, Any], name: str, said: dict[str, dict[str, list[str]]], where: str) -> str:
    one = learners.get(name)
    if one is None:
        return ""
    if name in PLAIN:
        return percent(one)
    best = max(PLAIN, key=lambda base: learners[base]["mean"])
    gap, half, verdict = one["than"][best]
    said[name][verdict].append(f"{where} ({100 * gap:+.1f} ± {100 * half:.1f})")
    return f"{percent(one)} ({SIGNS[verdict]})"


def _verdicts(said: dict[str, dict[str, list[str]]], rows: int) -> list[str]:
    lines = []
    for name, by in said.items():
        counts = ", ".join(f"{len(by[verdict])} {verdict}" for verdict in SIGNS if by[verdict])
        worse = by["worse"]
        more = f" and {len(worse) - FEW} more" if len(worse) > FEW else ""
        tail = f" It does not pay in {'; '.join(worse[:FEW])}{more}." if worse else ""
        lines.append(f"- {TITLES[name]}, beside the better plain method in {rows} rows: {counts}.{tail}")
    return lines


def _scope(encoders: dict[str, Any]) -> str:
    lines: list[list[str]] = []
    said: dict[str, dict[str, list[str]]] = {name: {sign: [] for sign in SIGNS} for name in META}
    rows = 0
    for encoder, parts in encoders.items():
        for what, row in parts.get("scope", {"rows": {}})["rows"].items():
            data, kind = what.split("/")
            rows += 1
            areas = {name: one["auroc"] for name, one in row["learners"].items()}
            for name, one in row["learners"].items():
                area = _cell(areas, name, said, f"{SETS[data]}, {encoder}, {kind}")
                lines.append([
                    SETS[data], encoder, kind, TITLES[name], area, percent(one["alarms"]), percent(one["caught"]),
                ])  # fmt: skip
    if not lines:
        return ""
    head = ["data", "encoder", "outside", "method", "AUROC, %", "false alarms, %", "caught, %"]
    title = "## Sentences that ask for none of the intents"
    return "\n".join([title, "", table(head, lines), "", SCOPE, "", *_verdicts(said, rows)])
