"""What was measured on a GPU as Markdown, for docs/speed.md: speed.py --device cuda, and omniglot_published.py."""

from __future__ import annotations

from typing import Any

from speed_table import milliseconds, notes, timed_in
from tables import SCORED, read, scored_rows, table

TITLES = {"protonet": "ProtoNet", "maml": "MAML, second order"}


def section() -> str:
    parts = [part for part in (speed(read("speed_cuda")), published()) if part]
    return "\n\n".join(["## On a GPU", *(parts or ["Not measured."])])


def speed(found: dict[str, Any] | None) -> str:
    """Steps beside the peers; a run that was cut off says so."""
    if not found:
        return ""
    rows, names, lines = found["rows"], timed_in(found["rows"]), []
    for row in rows.values():
        cells = [milliseconds(row["found"].get(name, {})) for name in names]
        theirs = min(row["found"][name]["ms"] for name in found["fastest_of"] if "ms" in row["found"].get(name, {}))
        ours = [row["found"].get(name, {}).get("ms") for name in ("quickstudy", "quickstudy, compiled")]
        lines.append([row["title"], *cells, ", ".join(f"{ms / theirs:.3f}" for ms in ours if ms)])
    cut = f", cut off {found['cut']}: the other rows were not measured" if "cut" in found else ""
    return "\n".join(
        [
            table(["milliseconds", *names, "ours / fastest torch peer"], lines),
            "",
            *notes(rows),
            f"`python benchmarks/speed.py {found['words']}`{cut}. On {found['hardware']}, torch {found['torch']}, as "
            "torch comes: convolutions in TF32, which puts our gradient of the images some 4 % off in single "
            "precision; the check in float64 is that of the table above. Compiled, on a GPU, is one CUDA graph, "
            "recorded in a second.",
        ]
    )


def published() -> str:
    """The papers' protocols, and the time to their accuracy."""
    lines, said = [], []
    for row, title in TITLES.items():
        found = read(f"omniglot_published_{row}")
        if not found or "rows" not in found:
            continue
        options, first = found["options"], found["reached"]
        lines += scored_rows(title, found["rows"])
        done = f"{found['steps']:,} steps in {found['seconds']:.0f} seconds"
        if found["steps"] < options["steps"]:
            done += f", broken off before the {options['steps']:,} that were meant"
        reached = (
            f"the published accuracy was first reached on validation tasks after {first['seconds']:.0f} seconds and "
            f"{first['step']:,} steps"
            if first
            else "the published accuracy was not reached on validation tasks"
        )
        how = "transductive" if found["transductive"] else "not transductive"
        said.append(
            f"- **{title}** ({how}): {done}, best on validation tasks at step {found['best_step']:,}; {reached}. "
            f"{found['differences']} On {found['hardware']}, torch {found['torch']}. "
            f"`python benchmarks/omniglot_published.py {row}`, then `--score`."
        )
    if not lines:
        return ""
    about = "Omniglot by the protocols of the papers: accuracy in %, 600 tasks of unseen characters, 15 queries a "
    about += "class unless it says otherwise. Drawing tasks, validation and recording the graph are in the times."
    return "\n".join([table(SCORED, lines), "", about, "", *said])
