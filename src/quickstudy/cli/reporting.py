"""`quickstudy report`: one or several runs as one page of HTML that needs nothing else."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from quickstudy.checkpoint import glance
from quickstudy.cli.arguments import Command, check_seed
from quickstudy.cli.citing import entries_of
from quickstudy.cli.evaluating import TRAINED, device_called
from quickstudy.cli.measured import Group
from quickstudy.cli.reported import chapter, tasks_of
from quickstudy.cli.trained import check_least, counts
from quickstudy.core.catalogue import build
from quickstudy.core.errors import UserError
from quickstudy.core.files import check_place
from quickstudy.core.source import Source, Split
from quickstudy.report.chapter import made
from quickstudy.report.page import write_page
from quickstudy.report.runs import BEST, RunFiles, find_run, labels
from quickstudy.report.shown import clipped
from quickstudy.shipped import located
from quickstudy.tasks.pool import ClassSource

MOST_RUNS = 12
BY_CLASS, BY_TASK = "1,2,5,10", "5,10,20"
"""Examples that are tried, of each class or in all."""
LONGEST = 20_000
"""Letters of a config or a card that are shown."""


def _add(parser: ArgumentParser) -> None:
    parser.add_argument("runs", type=str, nargs="+", help="folders that `quickstudy train` wrote, or checkpoints")
    parser.add_argument("--out", type=str, default="report.html", help="where to write the page")
    parser.add_argument("--split", type=Split, default="test", help="train, valid or test")
    parser.add_argument("--test_tasks", type=int, default=600, help="how many tasks; the same ones for every learner")
    parser.add_argument("--shots", type=str, default="auto", help="numbers of examples to try, as 1,2,5,10; or none")
    parser.add_argument("--curve_tasks", type=int, default=200, help="tasks for each number of examples")
    parser.add_argument("--baselines", type=str, default="auto", help="names with commas, auto, or none")
    parser.add_argument("--samples", type=int, default=2, help="tasks that are shown with their answers")
    parser.add_argument("--seed", type=int, default=0, help="decides which tasks")
    parser.add_argument("--device", type=str, default="cpu", help="cpu, cuda, ...")
    parser.add_argument("--again", action="store_true", help="measure anew what was kept beside the runs")


def first_tasks(words: Sequence[str]) -> dict[str, Any]:
    """The tasks that the first run among the words was trained on, as `Command.defaults` gives them."""
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word.startswith("-"):
            if "=" not in word and word != "--again" and rest and not rest[0].startswith("--"):
                rest.pop(0)  # the value of the option
            continue
        file = Path(word) / BEST if Path(word).is_dir() else located(word)
        if file.is_file():
            card = glance(file)
            return {"tasks": card["tasks"]} if card.get("tasks") else {}
    return {}


def run(options: Namespace) -> int:
    _check(options)
    runs = [find_run(path) for path in dict.fromkeys(options.runs)]
    if len(runs) > MOST_RUNS:
        raise UserError(f"{len(runs)} runs are more than one can take in: give at most {MOST_RUNS}.")
    cards = _tasks(options, runs)
    sources = _sources(runs, cards)
    kinds = {source.spec.kind: run for run, source in zip(runs, sources, strict=True)}
    if len(kinds) > 1:
        (a, first), (b, other) = list(kinds.items())[:2]
        raise UserError(
            f"{first.file} does {a} and {other.file} does {b}: write a page for the runs of each kind of task."
        )
    if "zero-shot" in kinds:
        options.shots = "none"
    by_class = isinstance(sources[0], ClassSource)
    options.shots = _shots(options.shots, BY_CLASS if by_class else BY_TASK)
    named = labels(runs)
    groups = _groups(runs, named, sources, cards, options)
    chapters = []
    for group in groups:
        about = tasks_of(group.sources[0])
        print(f"{', '.join(group.labels)} on {options.test_tasks} {options.split} tasks of {about}", flush=True)
        chapters.append(chapter(group, f"{', '.join(group.labels)} on {about}"))
    title = f"{', '.join(named)} on {', '.join(dict.fromkeys(c['name'] for c in cards))}"
    notice = ""
    if len(groups) > 1:
        notice = (
            f"These runs are on {len(groups)} different sets of tasks. Scores on different tasks cannot be compared "
            "with each other, so differences are given only within a set; to compare all runs, name tasks that all of "
            "them can take with --tasks."
        )
        print(f"note: {notice}")
    command = shlex.join(["quickstudy", "report", *options.words])
    facts = made(groups[0].evaluations[0])[len(groups) > 1 :]
    facts += [fact for label, one in zip(named, runs, strict=True) for fact in _facts(label, one)]
    write_page(options.out, title, chapters, command, facts, _details(named, runs), notice)
    print(f"wrote {options.out} ({Path(options.out).stat().st_size / 1000:.0f} kB): open it in a browser")
    return 0


def _check(options: Namespace) -> None:
    """Raise UserError for what would only be found to be wrong after long work."""
    check_seed(options.seed, "--seed")
    check_least(options, test_tasks=2, curve_tasks=2, samples=0)
    if options.samples > 5:
        raise UserError(f"--samples is {options.samples}: give at most 5.")
    options.device = str(device_called(options.device))
    _shots(options.shots, BY_CLASS)
    if Path(options.out).suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--out is {options.out!r} and is a page: give a name that ends in .html.")
    check_place(options.out)


def _shots(asked: str, auto: str) -> list[int]:
    return sorted(set(counts({"auto": auto, "none": ""}.get(asked, asked), "--shots")))


def _tasks(options: Namespace, runs: Sequence[RunFiles]) -> list[dict[str, Any]]:
    """The tasks of each run: those it was trained on, with whatever the words say of them.

    Raises UserError if a run does not say its tasks and none are named.
    """
    known = [run.trained.card.get("tasks") for run in runs]
    given = options.tasks.as_dict()
    if given["name"] != TRAINED and (not known[0] or given["name"] != known[0]["name"]):
        return [given] * len(runs)  # other tasks were named, for all
    silent = next((run for run, card in zip(runs, known, strict=True) if not card), None)
    if silent or not known[0]:
        where = (silent or runs[0]).file
        raise UserError(f"{where} does not say which tasks it was trained on: name some with --tasks.")
    changed = {k: v for k, v in given.items() if k in known[0] and _plain(v) != _plain(known[0][k])}
    found = []
    for run, card in zip(runs, known, strict=True):
        for option in changed.keys() - (card or {}).keys():
            raise UserError(f"{run.file} was trained on {(card or {})['name']} tasks, which have no option {option!r}.")
        found.append({**(card or {}), **changed})
    return found


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))


def _sources(runs: Sequence[RunFiles], cards: Sequence[Mapping[str, Any]]) -> list[Source]:
    """The source of each run, read as its learner reads; equal ones are made once."""
    made: dict[str, Source] = {}
    found = []
    for one, card in zip(runs, cards, strict=True):
        reader = one.trained.reader
        key = json.dumps(_plain(card), sort_keys=True)
        source = made.setdefault(key, build(card, "tasks"))
        found.append(source.read_by(reader))
    return found


def _groups(
    runs: Sequence[RunFiles],
    named: Sequence[str],
    sources: Sequence[Source],
    cards: Sequence[Mapping[str, Any]],
    options: Namespace,
) -> list[Group]:
    """The runs by what they are measured on."""
    places: dict[str, list[int]] = {}
    for number, card in enumerate(cards):
        places.setdefault(json.dumps(_plain(card), sort_keys=True), []).append(number)
    return [
        Group([runs[i] for i in some], [named[i] for i in some], [sources[i] for i in some], options)
        for some in places.values()
    ]


def _facts(label: str, run: RunFiles) -> list[tuple[str, str]]:
    """What is to be known of a run, in one line."""
    card = run.trained.card
    log, said = card.get("log") or {}, [f"{run.file}"]
    if card.get("step") is not None:
        said.append(f"weights of step {card['step']}")
    if log.get("seconds") is not None:
        said.append(f"{log['seconds']:.0f} seconds of training until then")
    if card.get("seed") is not None:
        said.append(f"trained with seed {card['seed']}")
    said.append(f"by quickstudy {card.get('quickstudy')}")
    return [(label, "; ".join(said)), (f"digest of {label}", run.digest)]


def _details(named: Sequence[str], runs: Sequence[RunFiles]) -> list[tuple[str, str]]:
    """What is folded away: how each run was trained, its card, and what to cite."""
    found = []
    for label, run in zip(named, runs, strict=True):
        if run.config:
            how = f"# quickstudy train --config {shlex.quote(str(run.file.parent / 'config.yaml'))} --out FOLDER\n"
            found.append((f"How {label} was trained", clipped(how + run.config, LONGEST)))
        card = {k: v for k, v in run.trained.card.items() if k != "path"}
        text = json.dumps(card, indent=1, ensure_ascii=False, default=str)
        found.append((f"The card of {label}", clipped(text, LONGEST)))
    cited = dict.fromkeys(entry for run in runs for entry in entries_of(run.trained.card))
    if cited:
        found.append(("What to cite", "\n\n".join(cited)))
    return found


REPORT = Command(
    "report",
    "Write one page about a run, or several compared: samples, scores, curves, calibration, confusions, influence.",
    "quickstudy report runs/glyphs --out glyphs.html\n"
    "quickstudy report runs/maml runs/protonet --test_tasks 200 --shots 1,5 --out both.html",
    _add,
    run,
    {"tasks": TRAINED},
    first_tasks,
)
