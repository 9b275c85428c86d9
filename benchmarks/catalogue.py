"""Every learner of the catalogue on the same tasks with the same seconds of training: the tables of `recommend`.

    python benchmarks/catalogue.py glyphs sinusoid --seconds 20     # about ten minutes a suite on two cores

For each suite it goes on where it was broken off (runs/catalogue-SUITE), writes benchmarks/results/catalogue_SUITE.md
and puts the suite's table into src/quickstudy/measured.json, which is what `quickstudy recommend` reads.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from results import FOLDER, data_folder, machine

from quickstudy.allocator import keep_memory
from quickstudy.benchmark import Contest, Entry, common_measure, fitting, pays
from quickstudy.cli.benchmarking import failures, in_one_line, markdown
from quickstudy.core.catalogue import build
from quickstudy.recommend import MEASURED
from quickstudy.suites import SUITES

PATHS = {
    "omniglot": {"path": str(data_folder() / "omniglot" / "omniglot28.npz")},
    "clinc150": {"path": str(data_folder() / "intents" / "clinc150.tsv")},
    "hwu64": {"path": str(data_folder() / "intents" / "hwu64.tsv")},
    "zero-shot": {"path": str(data_folder() / "intents" / "clinc150.tsv")},
}
"""Options of a suite that say where its data lies here."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suites", nargs="+", choices=SUITES)
    parser.add_argument("--learners", nargs="*", default=[])
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--test-tasks", type=int, default=600)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs"))
    args = parser.parse_args()
    for name in args.suites:
        suite = SUITES[name]
        source = build({**suite.tasks, **PATHS.get(name, {})}, "tasks")
        place = args.out / f"catalogue-{name}"
        learners = args.learners or fitting(source)
        contest = Contest(source, learners, args.seconds, args.test_tasks, 0, suite.options, suite.training, place)
        found = contest.run(args.processes, watch=lambda entry: print(in_one_line(entry), flush=True))
        shot = getattr(source, "shot", None)
        facts = {
            "kind": source.spec.kind, "about": suite.about, "way": source.spec.way,
            "x_shape": list(source.spec.x_shape), "shot": shot if isinstance(shot, int) else None,
            "seconds": args.seconds, "test_tasks": args.test_tasks, "processes": args.processes, **machine(),
        }  # fmt: skip
        tables = json.loads(MEASURED.read_text()) if MEASURED.exists() else {}
        tables[name] = tabulated(found, facts)
        MEASURED.write_text(json.dumps(tables, indent=1, ensure_ascii=False, sort_keys=True) + "\n")
        made = (
            f"`python benchmarks/catalogue.py {name} --seconds {args.seconds:g}` on {facts['hardware']}, "
            f"{at_once(args.processes)}: {suite.about}; {args.test_tasks} test tasks, the same ones for all."
        )
        text = markdown(found, suite, [pays(found), *failures(found), suite.differences, made])
        (FOLDER / f"catalogue_{name}.md").write_text(text.rstrip() + "\n")


def at_once(processes: int) -> str:
    return "one learner at once" if processes == 1 else f"{processes} learners at once"


def tabulated(entries: Sequence[Entry], facts: Mapping[str, Any]) -> dict[str, Any]:
    """A suite's table in measured.json."""
    scored = [(entry, entry.scores) for entry in entries if entry.scores]
    measure = common_measure(scored[0][1])
    rows = {
        entry.learner: {
            "mean": scores.mean(measure),
            "interval": scores.interval(measure),
            "seconds": entry.seconds,
            "steps": entry.steps,
            "adapt_ms": 1e3 * scores.adapt_seconds,
            "state_bytes": scores.state_bytes,
        }
        for entry, scores in scored
    }
    return {**facts, "measure": measure, "sign": scored[0][1].signs[measure], "rows": rows}


if __name__ == "__main__":
    keep_memory()
    main()
