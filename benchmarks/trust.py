"""Whether predictions can be trusted after `quickstudy calibrate`: reliability, coverage and sizes of sets.

    python benchmarks/trust.py              # about five minutes on one core
    python benchmarks/trust.py --short      # a trial: few steps and tasks, nothing is written

Learnt on validation tasks, measured on test tasks of other classes. Writes benchmarks/results/trust.json.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from results import machine, write
from small_learners import RECIPES, trained

from quickstudy.allocator import keep_memory
from quickstudy.questions.coverage import as_json, coverage
from quickstudy.questions.trust import calibrate

SHOTS = {
    "omniglot protonet": (1, 5),
    "omniglot maml": (1,),
    "clinc150 protonet": (1, 5),
    "sinusoid maml": (10,),
    "gp cnp": (5, 20),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--only", nargs="*", default=list(SHOTS))
    parser.add_argument("--fit_tasks", type=int, default=900)
    parser.add_argument("--tasks", type=int, default=600)
    parser.add_argument("--out", type=Path, default=Path("runs/small"))
    args = parser.parse_args()
    fit, tasks, fewer = (60, 40, 50) if args.short else (args.fit_tasks, args.tasks, 1)
    rows: dict[str, Any] = {}
    for name in args.only:
        begin = time.process_time()
        learner, source = trained(name, args.out, fewer)
        trust = calibrate(learner, source, tasks=fit, shots=SHOTS[name])
        found = coverage(learner, source, trust, tasks=tasks, shots=SHOTS[name])
        rows[name] = {"recipe": RECIPES[name].words(), "seconds": time.process_time() - begin, "shown": as_json(found)}
        for one in found:
            print(f"{name}, shot {one.shot[0]}: T {one.temperature:.3g}, {one.before} -> {one.after}")
            for sets in one.levels:
                print("  ", sets)
    if not args.short:
        write("trust", {"fit_tasks": fit, "test_tasks": tasks, "rows": rows, **machine()})


def section() -> str:
    """What was measured, as Markdown; "" if nothing was."""
    from tables import read, table

    found = read("trust")
    if not found:
        return ""
    before, sets = [], []
    for name, row in found["rows"].items():
        for one in row["shown"]:
            shots = "-".join(str(n) for n in sorted(set(one["shot"])))
            tasks = f"{name}, {shots} {'shot' if one['way'][1] else 'points'}"
            losses = [_number(one[when]["log_loss"]) for when in ("before", "after")]
            errors = [_percent(one[when].get("ece")) for when in ("before", "after")]
            before.append([tasks, _percent(one["accuracy"]), f"{one['temperature']:.3g}", *losses, *errors])
            for level in one["levels"]:
                promise = "tasks" if level["by_task"] else "rows"
                sets.append([
                    tasks, f"{100 * level['level']:.0f}", promise,
                    f"{100 * level['coverage']:.1f} ± {100 * level['interval']:.1f}", _percent(level["below"]),
                    _percent(level["by_chance"]), _number(level["size"], 2), _percent(level["alone"]),
                    _percent(level["wrong"]),
                ])  # fmt: skip
    heads = ["learner, tasks", "accuracy, %", "temperature", "log loss before", "after", "ECE before, %", "after"]
    more = ["learner, tasks", "asked, %", "promised for", "covered, %", "tasks below, %", "by chance, %", "set size"]
    return "\n".join(
        [
            "## Whether predictions can be trusted",
            "",
            table(heads, before),
            "",
            table([*more, "one class, %", "of these wrong, %"], sets),
            "",
            f"A temperature and conformal thresholds learnt from {found['fit_tasks']} validation tasks, measured on "
            f"{found['test_tasks']} test tasks of other classes, ± the 95 % interval over tasks. For regression the "
            "temperature multiplies deviations and the size is the width of the interval. Promised for rows: a row of "
            "a new task is covered with that probability; for tasks: 90 % of tasks have at least that share of their "
            "rows covered. Tasks below: where a smaller share is covered than asked; by chance: what so few rows give "
            "where all are covered alike. A set is never empty, so that a learner more accurate than the level covers "
            f"more. {found['hardware']}. `python benchmarks/trust.py`",
        ]
    )


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _number(value: float | None, digits: int = 3) -> str:
    return "" if value is None else f"{value:.{digits}f}"


if __name__ == "__main__":
    keep_memory()
    main()
