"""`quickstudy calibrate`: how far predictions can be trusted, learnt on held-out tasks and shown on others."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Sequence

from jsonargparse import ArgumentParser, Namespace
from rich import box
from rich.table import Table
from rich.text import Text

from quickstudy.cli.arguments import Command, check_seed
from quickstudy.cli.evaluating import TRAINED, card_tasks
from quickstudy.cli.trained import check_least, counts, shares, trained_on, watched
from quickstudy.core.errors import UserError
from quickstudy.core.files import check_place, write_whole
from quickstudy.core.source import Split
from quickstudy.questions.coverage import Shown, as_json, coverage
from quickstudy.questions.trust import calibrate, place_for
from quickstudy.tables import terminal


def _add(parser: ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=str, help="the file that `quickstudy train` wrote")
    parser.add_argument("--trust", type=str | None, default=None, help="where to write it (CHECKPOINT.trust.json)")
    parser.add_argument("--split", type=Split, default="valid", help="what to learn from; it is shown on test tasks")
    parser.add_argument("--fit_tasks", type=int, default=900, help="tasks to learn from, for each way and shot")
    parser.add_argument("--test_tasks", type=int, default=600, help="tasks to show it on, for each way and shot")
    parser.add_argument("--seed", type=int, default=0, help="decides which tasks")
    parser.add_argument("--shots", type=str, default="", help="calibrate for each of these, as 1,5")
    parser.add_argument("--ways", type=str, default="", help="calibrate for each of these, as 5,20")
    parser.add_argument("--levels", type=str, default="0.8,0.9,0.95", help="coverages to show")
    parser.add_argument("--sure", type=float, default=0.9, help="share of tasks that thresholds by task hold for")
    parser.add_argument("--json", type=str | None, default=None, help="write every number to this file")


def run(options: Namespace) -> int:
    check_seed(options.seed, "--seed")
    check_least(options, fit_tasks=30, test_tasks=1)
    if options.split == "test":
        raise UserError("--split is test, which coverage is shown on: learn from valid (or train).")
    shots, ways = counts(options.shots, "--shots"), counts(options.ways, "--ways")
    levels = shares(options.levels, "--levels")
    if not 0.5 <= options.sure < 1:
        raise UserError(f"--sure is {options.sure}: give a share from 0.5 to below 1.")
    place = options.trust or str(place_for(options.checkpoint))
    for path in filter(None, (place, options.json)):
        if path.endswith(".safetensors"):
            raise UserError(f"{path} is the name of a checkpoint: give another one to --trust and --json.")
        check_place(path)
    trained, source = trained_on(options)
    if source.spec.kind == "regression" and ways:
        raise UserError("--ways is about classes, and these tasks have none: leave it out.")
    settings = max(len(shots), 1) * max(len(ways), 1)
    rest = (options.seed, shots, ways)
    with watched("calibrating", settings * options.fit_tasks) as watch:
        asked = (options.split, options.fit_tasks, *rest, options.sure, str(trained.card["digest"]))
        trust = calibrate(trained.learner, source, *asked, watch)
    for level in levels:
        trust.settings[0].threshold(level)
    trust.write(place)
    with watched("showing it on test tasks", settings * options.test_tasks) as watch:
        found = coverage(trained.learner, source, trust, "test", options.test_tasks, *rest, levels, watch)
    console = terminal()
    console.print(reliability_table(found))
    console.print(coverage_table(found, trust.sure))
    for line in notes(found, options.split, options.fit_tasks, options.test_tasks):
        console.print(Text(line, style="dim"))
    if options.json:
        numbers = {"checkpoint": trained.card, "trust": place, "test": as_json(found)}
        write_whole(options.json, (json.dumps(numbers, ensure_ascii=False) + "\n").encode())
        print(f"wrote {options.json}")
    print(f"saved {place}")
    own = "" if options.trust is None else f" --trust {shlex.quote(place)}"
    print(f"next: quickstudy predict TASK FILES --coverage 0.9{own}")
    return 0


def reliability_table(found: Sequence[Shown]) -> Table:
    """Probabilities before and after, a line for each way and shot."""
    classes = "ece" in found[0].after
    heads = ["log loss before", "after", *(["ECE % before", "after"] if classes else [])]
    table = _table("tasks", *(["accuracy %"] if classes else []), "temperature" if classes else "deviation x", *heads)
    for one in found:
        cells = [_number(one.before["log_loss"]), _number(one.after["log_loss"])]
        if classes:
            cells += [_percent(one.before["ece"]), _percent(one.after["ece"])]
            cells = [_percent(one.accuracy), f"{one.temperature:.3g}", *cells]
        else:
            cells = [f"{one.temperature:.3g}", *cells]
        table.add_row(kind_of(one), *cells)
    return table


def coverage_table(found: Sequence[Shown], sure: float) -> Table:
    """Sets of each level, a line for each way, shot and promise."""
    classes = "ece" in found[0].after
    last = ["classes in a set", "alone %", "of these wrong %"] if classes else ["width"]
    table = _table("tasks", "asked %", "promised for", "covered %", "tasks below %", "by chance %", *last)
    for one in found:
        for sets in one.levels:
            promised = f"{100 * sure:.0f} % of tasks" if sets.by_task else "rows"
            half = f" ± {100 * sets.interval:.1f}" if math.isfinite(sets.interval) else ""
            cells = [f"{100 * sets.level:.0f}", promised, f"{100 * sets.coverage:.1f}{half}"]
            cells += [_percent(sets.below), _percent(sets.by_chance)]
            ends = [f"{sets.size:.2f}", _percent(sets.alone), _percent(sets.wrong)]
            table.add_row(kind_of(one), *cells, *(ends if classes else [_number(sets.size)]))
    return table


def notes(found: Sequence[Shown], split: str, fit: int, test: int) -> list[str]:
    """What the tables stand on."""
    lines = [
        f"learnt from {fit} {split} tasks, shown on {test} test tasks; ± is the 95 % interval over tasks",
        "below: tasks where fewer rows are covered than asked; by chance: as many as so few rows would give anyway",
    ]
    if any(not math.isfinite(sets.size) for one in found for sets in one.levels):
        lines.append("inf: too few tasks for such a promise; give more with --fit_tasks")
    return lines


def kind_of(one: Shown) -> str:
    """The way and the shot of a setting in words."""
    ways, shots = ("-".join(map(str, sorted(set(ends)))) for ends in (one.way, one.shot))
    return f"{ways}-way {shots}-shot" if one.way[1] else f"{shots} rows"


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3f}"


def _percent(value: float) -> str:
    return "" if math.isnan(value) else f"{100 * value:.1f}"


def _table(*names: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for i, name in enumerate(names):
        table.add_column(Text(name), justify="right" if i else "left", overflow="fold", no_wrap=not i)
    return table


CALIBRATE = Command(
    "calibrate",
    "Learn on held-out tasks how far a learner's predictions can be trusted, and show it on test tasks.",
    "quickstudy calibrate runs/glyphs/best.safetensors\n"
    "quickstudy calibrate runs/glyphs/best.safetensors --shots 1,5 --ways 5,20\n"
    "quickstudy predict letters.safetensors new/*.png --coverage 0.9",
    _add,
    run,
    {"tasks": TRAINED},
    card_tasks,
)
