"""What `quickstudy tune` gains over the defaults, measured on test tasks that had no say in the choice.

    python benchmarks/tuning.py sinusoid clinc150      # about ten minutes of one core each

Each study goes on where it was broken off (runs/tuning-SUITE). Writes benchmarks/results/tuning.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from results import FOLDER, data_folder, machine, write

from quickstudy.cli import main as quickstudy
from quickstudy.scores import in_words

STUDIES: dict[str, tuple[str, list[str]]] = {
    "sinusoid": ("maml", ["--tasks=sinusoid", "--learner=maml", "--train.steps=600", "--trials=20"]),
    "clinc150": (
        "protonet, r2d2 or matching",
        [
            *("--tasks=intents", f"--tasks.path={data_folder() / 'intents' / 'clinc150.tsv'}", "--train.steps=300"),
            *("--search", "learner=protonet,r2d2,matching", "auto", "--trials=20"),
        ],
    ),
}
"""For each suite, what is searched in words and the words of the command."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suites", nargs="+", choices=STUDIES)
    parser.add_argument("--out", type=Path, default=Path("runs"))
    args = parser.parse_args()
    for name in args.suites:
        about, words = STUDIES[name]
        out = args.out / f"tuning-{name}"
        code = quickstudy(["tune", *words, "--out", str(out)])
        if code:
            raise SystemExit(code)
        path = FOLDER / "tuning.json"
        kept = json.loads(path.read_text())["studies"] if path.exists() else {}
        kept[name] = figures(json.loads((out / "tuning.json").read_text()), about, words)
        write("tuning", {**machine(), "studies": kept})


def figures(card: dict[str, Any], about: str, words: list[str]) -> dict[str, Any]:
    """What is kept of a study's tuning.json."""
    trials = card["trials"]
    best = next(t for t in trials if t["trial"] == card["best"])
    return {
        "searched": about, "words": [w for w in words if "tasks.path" not in w], "measure": card["measure"],
        "trials": {s: sum(t["state"] == s for t in trials) for s in ("complete", "pruned", "failed")},
        "seconds": round(sum(t["seconds"] for t in trials)), "best": best, "importance": card["importance"],
        "gain_on_validation": card["gain_on_validation"], "confirmed": card["confirmed"],
    }  # fmt: skip


def section() -> str:
    """The figures as Markdown; "" if there are none."""
    from tables import read, table

    found = read("tuning")
    if not found:
        return ""
    rows, notes = [], []
    for name, study in found["studies"].items():
        held, measure, counts = study["confirmed"], study["measure"], study["trials"]
        if held is None:
            none = ["", "", "the defaults were the best", "", ""]
            rows.append([name, study["searched"], str(sum(counts.values())), *none])
            continue
        seen = study["gain_on_validation"]
        gain = in_words(measure, seen["difference"], seen["interval"], True)
        rows.append([
            name, study["searched"],
            f"{sum(counts.values())} ({counts['pruned']} stopped early, {counts['failed']} failed)",
            f"{measure} {in_words(measure, held['defaults'])}", in_words(measure, held["best"]),
            f"{in_words(measure, held['difference'], held['interval'], True)} {held['verdict']}",
            str(held["seeds"]), gain,
        ])  # fmt: skip
        chosen = ", ".join(f"{option} {value}" for option, value in study["best"]["chosen"].items())
        spent = f"{study['seconds'] / 60:.0f} minutes of trials"
        best = " ".join(filter(None, (study["best"]["variant"], chosen)))
        notes.append(f"- {name}: {best}; {spent}. {held['note']}".rstrip())
    head = ["suite", "learner", "trials", "defaults", "best", "difference, unseen tasks", "seeds"]
    head.append("on the tasks chosen by")
    first = next(s["confirmed"] for s in found["studies"].values() if s["confirmed"])
    about = (
        "Best and defaults trained anew from the same three seeds, of which those count from which both came through, "
        f"and scored on the same {first['tasks']} test tasks, which had no say in the choice; ± is the 95 % interval "
        "over what was held out and over seeds together, from one seed over what was held out alone. The last column "
        "is what the study itself saw: the tasks that the best was chosen by flatter it."
    )
    return "\n".join([
        "## Tuning", "", table(head, rows), "", about, "", *notes, "",
        f"{found['hardware']}. `python benchmarks/tuning.py {' '.join(found['studies'])}`",
    ])  # fmt: skip


if __name__ == "__main__":
    main()
