"""The figures in benchmarks/results as Markdown: docs/results.md and docs/speed.md whole, the tables of the README;
and the catalogue as docs/learners.md.

    python benchmarks/tables.py            # writes all
    python benchmarks/tables.py --check    # exit code 1 if they say something else
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any

from quickstudy.cli.listing import markdown

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def read(name: str) -> dict[str, Any] | None:
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def percent(score: dict[str, float] | None) -> str:
    return f"{100 * score['mean']:.1f} ± {100 * score['interval']:.1f}" if score else ""


def number(score: dict[str, float], digits: int = 2) -> str:
    return f"{score['mean']:.{digits}f} ± {score['interval']:.{digits}f}"


def minutes(found: dict[str, Any]) -> str:
    options = found["options"]
    processor = f" ({options['cpu_seconds'] / 60:.0f} minutes of processor time)" if "cpu_seconds" in options else ""
    return f"{options['seconds'] / 60:.0f} minutes{processor}"


SCORED = ["learner", "tasks", "ours", "published", "logistic regression", "nearest centroid"]
"""The heads of `scored_rows`."""
OMNIGLOT = {"protonet": "ProtoNet", "maml": "MAML, second order", "maml_first_order": "MAML, first order"}


def omniglot_rows() -> list[list[str]]:
    rows = []
    for key, title in OMNIGLOT.items():
        found = read(f"omniglot_{key}")
        rows += scored_rows(title, found["rows"] if found else {})
    return rows


def scored_rows(title: str, rows: dict[str, Any]) -> list[list[str]]:
    """A line a kind of task: ours, published, and the plain baselines on the same tasks."""
    return [
        [title, task, percent(row["accuracy"]), row["published"] or ""]
        + [percent(row.get(name)) for name in ("logistic", "centroid")]
        for task, row in rows.items()
    ]


def omniglot() -> str:
    parts = ["## Omniglot", "", table(SCORED, omniglot_rows()), ""]
    parts += ["Accuracy in %, 600 tasks of unseen characters, 15 queries a class. Baselines see raw pixels.", ""]
    for key, title in OMNIGLOT.items():
        found = read(f"omniglot_{key}")
        if found:
            options = found["options"]
            trained = f"{options['steps']:,} steps of {options['meta_batch']} task(s), {minutes(found)}"
            processes, threads = options.get("devices", 1), found["threads"]
            how = "transductive" if found["transductive"] else "not transductive"
            parts += [
                f"- **{title}**: {trained} on {found['hardware']}, {processes} process(es) of {threads} "
                f"thread(s); {how}. Differences from the published protocol: {found['differences']} "
                f"`python benchmarks/omniglot.py {key}`"
            ]
    return "\n".join(parts)


def sinusoid() -> str:
    found = read("sinusoid")
    if not found:
        return ""
    names = {
        "maml": "MAML, one inner step",
        "scratch": "training from scratch, 100 steps",
        "pooled": "pooled network",
        "chance": "mean of the support",
    }
    rows = [[title, number(found["mse"][key])] for key, title in names.items()]
    curve = found["maml_over_inner_steps"]
    steps = table(["inner steps", *map(str, curve["at"])], [["MSE", *(f"{m:.2f}" for m in curve["means"])]])
    return "\n".join(
        [
            "## Sinusoid, 10-shot",
            "",
            table(["learner", "mean squared error"], rows),
            "",
            "MAML's error over the inner steps:",
            "",
            steps,
            "",
            f"{found['test_tasks']:,} unseen tasks: {found['tasks']}. Trained in "
            f"{found['training_seconds'] / 60:.1f} minutes on {found['hardware']}, {found['threads']} threads. "
            f"Published after one step: {found['published_one_step']}. {found['differences']} "
            "`python benchmarks/sinusoid.py`",
        ]
    )


def transfer() -> str:
    found = read("transfer")
    if not found:
        return ""
    names = list(next(iter(found["rows"].values())))
    rows = [[task, *(percent(row[name]) for name in names)] for task, row in found["rows"].items()]
    return "\n".join(
        [
            "## Letters of fonts to handwriting",
            "",
            table(["tasks", *names], rows),
            "",
            f"Trained on {found['trained_on']}, tested on {found['tested_on']}, {found['test_tasks']} tasks; no "
            "drawing of Omniglot was seen, nor used for any choice. `python benchmarks/transfer.py`",
        ]
    )


def gaussian_process() -> str:
    found = read("gaussian_process")
    if not found:
        return ""
    rows = []
    for points, learners in found["rows"].items():
        for name, row in learners.items():
            measures = [number(row["log_likelihood"]), number(row["mse"], 4), percent(row["coverage_90"])]
            rows.append([points, name, *measures])
    return "\n".join(
        [
            "## Functions of a Gaussian process",
            "",
            table(["seen", "learner", "log likelihood", "mean squared error", "90 % interval covers, %"], rows),
            "",
            f"{found['tasks']}; {found['test_tasks']:,} unseen tasks, 50 queries each. The exact posterior is the best "
            f"there is. Trained in {found['training_seconds'] / 60:.1f} minutes on {found['hardware']}. "
            "`python benchmarks/gaussian_process.py`",
        ]
    )


def sampling() -> str:
    found = read("sampling")
    if not found:
        return ""
    rows = [
        [
            name,
            f"{row['tasks_a_second']:,.0f}",
            f"{row['sample_ms']:.2f}",
            f"{row['step_ms']:.1f}",
            f"{100 * row['share_of_a_step']:.1f}",
        ]
        for name, row in found["rows"].items()
    ]
    header = ["tasks", "tasks a second", "sampling, ms", "training step, ms", "share of a step, %"]
    file = found.get("file")
    said = (
        f" From disk: a file of {file['bytes'] / 1e9:.1f} GB, mapped, beside {file['memory'] / 1e9:.1f} GB of memory; "
        "cold: rows that were not read before, again: the same rows a second time."
        if file
        else ""
    )
    return "\n".join(
        [
            "## Sampling",
            "",
            table(header, rows),
            "",
            f"Medians on {found['hardware']}, {found['threads']} thread(s).{said} `python benchmarks/sampling.py`",
        ]
    )


def demo_rows() -> str:
    found = read("demo")
    if not found:
        return ""
    rows = [[name, percent(row), f"{100 * ece:.1f}"] for name, row, ece in found["rows"]]
    words = f"Accuracy on {found['test_tasks']} tasks: five letters of {found['scripts']}, one example of each."
    return "\n".join([table(["learner", "accuracy, %", "calibration error, %"], rows), "", words])


PAGES = {
    "data.md": ("# Data of every kind", ("text_table", "patients", "tabular")),
    "finance.md": ("# Finance: volatility, direction and credit", ("finance_table",)),
    "healthcare.md": ("# Healthcare: new patients, hospitals, X-rays and heartbeats", ("healthcare_table",)),
    "language.md": ("# Language: intents from a handful of sentences", ("language_table", "text_layers")),
    "faces.md": ("# Tuning and the server, measured", ("tuning", "serving")),
    "questions.md": ("# The questions users ask", ("verdicts", "forecasts", "audits", "trust", "labelling")),
}
WRITTEN = (
    "Written by `python benchmarks/tables.py`; every section names the command that makes its figures. Nothing was "
    "tuned on the test split."
)


def sections(*scripts: str) -> list[str]:
    """What scripts say of their own figures; "" for one that was not run. They take their tables from here."""
    return [importlib.import_module(name).section() for name in scripts]


def pages() -> dict[Path, str]:
    """What each file is to say."""
    parts = [part() for part in (omniglot, sinusoid, transfer, gaussian_process, sampling)]
    top = (
        "# Results\n\nWritten by `python benchmarks/tables.py` from [benchmarks/results](../benchmarks/results); every "
        "section names\nthe command that makes its figures. ± is the 95 % interval over test tasks. Nothing was tuned "
        "on the test split.\nWhat was measured on a GPU stands in [speed.md](speed.md).\n\n"
    )
    readme = ROOT / "README.md"
    text = readme.read_text()
    short = table(["learner", "Omniglot tasks", "ours", "published"], [row[:4] for row in omniglot_rows()])
    for name, content in (("demo", demo_rows()), ("results", short)):
        mark = rf"(<!-- {name} table -->\n).*?(<!-- end -->)"
        text = re.sub(mark, lambda m, c=content: f"{m.group(1)}\n{c}\n\n{m.group(2)}", text, flags=re.DOTALL)
    parts += sections("presentations", "completion", "calibration", "hierarchy", "zero_shot")
    said = {ROOT / "docs" / "results.md": top + "\n\n".join(p for p in parts if p) + "\n", readme: text}
    for name, (title, scripts) in PAGES.items():
        found = [part for part in sections(*scripts) if part]
        if found:
            said[ROOT / "docs" / name] = "\n\n".join([title, WRITTEN, *found]) + "\n"
    said[ROOT / "docs" / "learners.md"] = markdown()
    compared = sorted(RESULTS.glob("catalogue_*.md"))
    if compared:
        tables = [f"## {path.stem.removeprefix('catalogue_')}\n\n{path.read_text()}" for path in compared]
        about = "Every learner that fits, with the same seconds of training, on the same unseen tasks. Few seconds on "
        about += "two cores favour what learns quickly: read the tables for that, and the published rows for the rest. "
        about += "The machine had other work at most of these runs: how far each method came is told by its steps."
        said[ROOT / "docs" / "compared.md"] = "\n".join(["# Methods compared\n", about + "\n", *tables])
    speed = read("speed")
    if speed:
        from cost_tables import growth, precision  # not above: they take their tables from here
        from gpu_table import section as gpu_section
        from speed_table import CONVOLVED, compiled, convolved, page, plain

        parts = [
            page(speed), plain(read("speed_plain")), compiled(read("speed_compiled")),
            convolved(read(CONVOLVED)), growth(read("growth")), precision(read("precision")), gpu_section(),
        ]  # fmt: skip
        said[ROOT / "docs" / "speed.md"] = "\n\n".join(p.rstrip("\n") for p in parts if p) + "\n"
    return said


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    stale = [path for path, text in pages().items() if not path.exists() or path.read_text() != text]
    if args.check:
        for path in stale:
            print(f"{path.relative_to(ROOT)} says something else than benchmarks/results: run benchmarks/tables.py")
        return int(bool(stale))
    for path, text in pages().items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
