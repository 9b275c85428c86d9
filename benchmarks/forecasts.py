"""How good the forecasts of `quickstudy shots` are: larger numbers of examples are hidden, then measured.

    python benchmarks/forecasts.py                    # about ten minutes of processor time
    python benchmarks/forecasts.py --development      # other curves, to choose the two constants of the forecast on

Every curve (hidden.py) is fitted to 200 tasks with few examples and forecast to two and four times as many (three on
Omniglot, whose classes hold 20 drawings), where 300 other tasks of the same classes say the truth. It goes on where it
was broken off (runs/forecasts) and writes benchmarks/results/forecasts.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from hidden import FIT_TASKS, TRUE_TASKS, Curves, curves, judged
from results import FOLDER, machine, write
from tables import table

from quickstudy.allocator import keep_memory
from quickstudy.fanout import Crew


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--development", action="store_true")
    parser.add_argument("--curves", type=int, default=1000, help="the first so many")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs"))
    args = parser.parse_args()
    place = args.out / ("forecasts-development" if args.development else "forecasts")
    place.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    with Crew(args.processes) as crew:
        count = min(args.curves, len(curves(args.development)))
        for row in crew.each(Curves(args.development, str(place)), count):
            facts = {k: row[k] for k in ("data", "name", "learner", "measure", "shots", "hidden")}
            rows.append({**facts, "points": judged(row)})
            said = "; ".join(
                f"{p['times']:g}x: true {p['true']:.3f}, forecast {p['forecast']:.3f} [{p['low']:.3f}, {p['high']:.3f}]"
                f"{'' if p['inside'] else ' OUT'}, power law {p['power']:.3f}" for p in rows[-1]["points"]
            )  # fmt: skip
            print(f"{row['name']}, {row['learner']}: {said}", flush=True)
            if not args.development:  # whole after each
                write("forecasts", {"processes": args.processes, **machine(), "rows": rows})
    print(table(*summary(rows)))


def summary(rows: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """A line for each data set and one for all: coverage and errors, in points of accuracy or % of the true error."""
    lines = []
    names = list(dict.fromkeys(row["data"] for row in rows))
    for name, kept in [*((n, [r for r in rows if r["data"] == n]) for n in names), ("all", rows)]:
        points = [(p, row["measure"]) for row in kept for p in row["points"]]
        accuracy = [p for p, measure in points if measure == "accuracy"]
        values = [p for p, measure in points if measure == "mse"]
        cells = []
        for key in ("forecast", "power", "last"):
            parts = []
            if accuracy:
                parts.append(f"{100 * np.mean([abs(p[key] - p['true']) for p in accuracy]):.1f} points")
            if values:
                ratios = [abs(p[key] / p["true"] - 1) for p in values]
                parts.append(f"{100 * np.median(ratios):.0f} % (median)")
            cells.append("; ".join(parts))
        inside, width = sum(p["inside"] for p, _ in points), [100 * (p["high"] - p["low"]) for p in accuracy]
        share = f"{inside} of {len(points)} ({100 * inside / len(points):.0f} %)"
        lines.append([name, str(len(kept)), share, f"{np.mean(width):.1f} points" if width else "", *cells])
    heads = ["data", "curves", "inside the 90 % interval", "its width", "error of the forecast", "of a power law",
             "of no change"]  # fmt: skip
    return heads, lines


def section() -> str:
    """The Markdown of docs/results.md; "" before 40 curves were measured."""
    path = FOLDER / "forecasts.json"
    if not path.exists():
        return ""
    found = json.loads(path.read_text())
    if len(found["rows"]) < 40:  # a run that was broken off
        return ""
    return "\n".join(
        [
            "## Forecasts of learning curves",
            "",
            table(*summary(found["rows"])),
            "",
            f"`quickstudy shots` fitted to {FIT_TASKS} tasks with few examples and asked for two to four times as "
            f"many, which {TRUE_TASKS} other tasks of the same classes then told; {len(found['rows'])} curves, two "
            "forecasts each. The power law is a line through the logarithms of the same means; no change: the last "
            "measured error goes on. Squared errors in % of the true one. The forecast's two constants were not fitted "
            "to these curves, but how far a curve may drift was limited after six of them had been seen. "
            f"On {found['hardware']}. "
            "`python benchmarks/forecasts.py`",
        ]
    )


if __name__ == "__main__":
    keep_memory()
    main()
