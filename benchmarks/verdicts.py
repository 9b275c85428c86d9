"""How often `quickstudy verdict` is right, on families of tasks in which the truth is planted.

    python benchmarks/verdicts.py --seconds 4     # about twelve minutes of processor time

Each family (planted.py) gets one verdict as its user would: --seconds of training for all methods, 600 test tasks. The
truth is the gain of the chosen learner on 600 tasks of the whole population (400 other classes), the larger of two: as
the verdict trained it, over the baseline that it chose; and after twice its share of training, over the best of that
one and those baselines that can be trained longer too. A gain whose 95 % interval holds what is worth having is called
near, and no answer to it is wrong. A step of training counts 2 ms, about what it takes on one core, so that a busy
machine changes nothing. It goes on where it was broken off (runs/verdicts) and writes
benchmarks/results/verdicts.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from planted import families
from results import FOLDER, machine, write
from tables import table
from truth import LONG, TRUTH_TASKS, Trials, outcome

from quickstudy.allocator import keep_memory
from quickstudy.fanout import Crew


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--step-ms", type=float, default=2.0, help="what a step counts; 0 for what it takes")
    parser.add_argument("--families", type=int, default=len(families()), help="the first so many")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/verdicts"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    with Crew(args.processes) as crew:
        for row in crew.each(Trials(args.seconds, str(args.out), args.step_ms), args.families):
            rows.append(row)
            true, met = row["long"], row["effect"]
            print(
                f"{row['family']}: {row['answer']} ({met['mean']:+.1f} ± {met['half']:.1f} {met['unit']}), truth "
                f"{row['truth']} ({row['now']['mean']:+.1f}, longer {true['mean']:+.1f}): {outcome(row)}",
                flush=True,
            )
            # whole after each family
            facts = {"seconds": args.seconds, "step_ms": args.step_ms, "processes": args.processes}
            write("verdicts", {**facts, **machine(), "rows": rows})


def section() -> str:
    """The Markdown of docs/results.md; "" before 40 families were measured."""
    path = FOLDER / "verdicts.json"
    if not path.exists():
        return ""
    found = json.loads(path.read_text())
    if len(found["rows"]) < 40:  # a run that was broken off
        return ""
    kinds = ("right", "abstained", "near", "wrong")
    lines = []
    for title, shared in (("something shared", True), ("nothing shared", False)):
        for unit, kind in (("points", "classes"), ("%", "functions")):
            rows = [r for r in found["rows"] if r["shared"] == shared and r["effect"]["unit"] == unit]
            counts = [sum(outcome(r) == k for r in rows) for k in kinds]
            pays = sum(r["truth"] == "pays" for r in rows)
            loss = {k: [r["lost"] for r in rows if outcome(r) == k] for k in ("wrong", "abstained")}
            costs = [f"{max(v):.1f} {unit}" if v else "" for v in loss.values()]
            lines.append([f"{kind}, {title}", str(len(rows)), str(pays), *map(str, counts), *costs])
    heads = ["planted", "families", "it pays in", *kinds, "a wrong answer costs, most", "an abstention costs, most"]
    wrong = [r for r in found["rows"] if outcome(r) == "wrong"]
    named = "".join(
        f" Wrong: {r['family']} ({r['answer']}, {r['effect']['mean']:+.1f} ± {r['effect']['half']:.1f}; in truth "
        f"{max(r['now']['mean'], r['long']['mean']):+.1f} {r['effect']['unit']})."
        for r in wrong
    )
    return "\n".join(
        [
            "## Verdicts on planted families",
            "",
            table(heads, lines),
            "",
            f"`quickstudy verdict` with {found['seconds']:g} seconds of training for all methods (a step counted as "
            f"{found['step_ms']:g} ms, so that a busy machine changes nothing) and 600 test tasks, "
            f"once on each of {len(found['rows'])} families of tasks in which it is planted whether they share "
            f"anything (benchmarks/planted.py). The truth is the gain on {TRUTH_TASKS:,} tasks of 400 other classes, "
            f"the larger of as trained, over the chosen plain baseline, and after {LONG} times the training, over the "
            "best of that one and those trained longer too; near: its interval holds what is worth having (1 point, "
            "5 % of the error), so that no answer is wrong. What an answer costs is the score lost by following it."
            f"{named} On {found['hardware']}. `python benchmarks/verdicts.py --seconds {found['seconds']:g}`",
        ]
    )


if __name__ == "__main__":
    keep_memory()
    main()
