"""`quickstudy tune`: a search over any option of learner and training, and whether what it found holds."""

from __future__ import annotations

import json
import re
import shlex
import warnings
from collections.abc import Mapping, Sequence
from itertools import pairwise, product
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from quickstudy.cli.arguments import Command, check_seed, parse, read_config
from quickstudy.cli.training import add_run
from quickstudy.cli.trials import following, score, trials_table
from quickstudy.core.errors import UserError
from quickstudy.core.files import write_whole
from quickstudy.fanout import Crew
from quickstudy.learners import LEARNERS
from quickstudy.scores import in_words
from quickstudy.tables import terminal
from quickstudy.tune import Confirmation, Dimension, Tuning, confirm, default_space, dimension, ledger, outcome
from quickstudy.tune.outcome import Outcome, write_config
from quickstudy.tune.space import FORM, SLOTS
from quickstudy.tune.storages import optuna_module
from quickstudy.tune.tuning import Pruner

AUTO = "auto"
"""Stands in --search for what is searched where nothing is named."""
CHECKS = 8
"""Validations in a trial, unless --train.valid_every says otherwise."""
FAILURES = 3
"""Failed trials whose sentence is told in the end; tuning.json holds all of them."""
CONFIG = ("tasks", "learner", "net", "valid", "train", "memory", "compile")
SEARCH = f"what to search, as OPTION={FORM}; a YAML file of such lines; or {AUTO} (the default)"


def _add(parser: ArgumentParser) -> None:
    parser.add_argument("--search", type=list[str], default=[AUTO], help=SEARCH)
    parser.add_argument("--trials", type=int, default=30, help="how many in all; trial 0 is the defaults")
    parser.add_argument("--minutes", type=float | None, default=None, help="begin no trial after so many")
    parser.add_argument("--processes", type=int, default=1, help="trials at once, sharing the threads")
    parser.add_argument("--pruner", type=Pruner, default="halving", help="what stops trials early")
    parser.add_argument("--storage", type=str | None, default=None, help="URL of a database (default: a file in --out)")
    parser.add_argument("--study", type=str, default="tune", help="name of the study in the storage")
    parser.add_argument("--out", type=str | None, default=None, help="folder (default: runs/tune-LEARNER-TASKS)")
    parser.add_argument("--seed", type=int, default=0, help="decides trials and tasks, in place of --train.seed")
    parser.add_argument("--score_tasks", type=int, default=200, help="validation tasks that a trial is scored on")
    parser.add_argument("--confirm", type=int, default=3, help="seeds to train best and defaults anew from; 0 for none")
    parser.add_argument("--test_tasks", type=int, default=600, help="unseen tasks to confirm on")
    parser.add_argument("--quiet", action="store_true", help="show only what was found in the end")
    add_run(parser)


def _often(words: Sequence[str]) -> Mapping[str, Any]:
    """Several validations in a trial, however few steps are asked for: halving goes by them."""
    given = [word.partition("=")[2] for word in words if word.startswith("--train.steps=")]
    given += [after for word, after in pairwise(words) if word == "--train.steps"]
    steps = int(given[-1]) if given and re.fullmatch(r"\d{1,12}", given[-1]) else 1000
    return {"train": {"valid_every": max(1, -(-steps // CHECKS))}}


def named(given: Sequence[str]) -> tuple[list[Dimension], bool]:
    """What --search names, and whether it asks for the default space too.

    Raises UserError for what is neither OPTION=..., a file nor `auto`.
    """
    whole: list[str] = []
    for part in given:  # a list of values with commas was taken apart on the command line
        if "=" in part or part == AUTO or not whole or "=" not in whole[-1] or Path(part).is_file():
            whole.append(part)
        else:
            whole[-1] += f",{part}"
    found: list[Dimension] = []
    for part in whole:
        option, equals, value = part.partition("=")
        if equals:
            found.append(dimension(option.strip().removeprefix("--"), value))
        elif Path(part).is_file():
            found += [dimension(name, value) for name, value in _flat(read_config(part))]
        elif part != AUTO:
            raise UserError(f"--search is {part!r}: give OPTION={FORM}, a YAML file of such lines, or {AUTO}.")
    return found, AUTO in whole


def _flat(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for name, value in tree.items():
        pairs += _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [(f"{prefix}{name}", value)]
    return pairs


def tuning_of(options: Namespace) -> Tuning:
    """The search that the options describe, checked.

    Raises UserError for what is unknown, or does not fit.
    """
    check_seed(options.seed, "--seed")
    space, auto = named(options.search)
    choices = {slot: next((d.values for d in space if d.option == slot), ()) for slot in SLOTS}
    bases: dict[str, dict[str, Any]] = {}
    for names in product(*(choices[slot] or (None,) for slot in SLOTS)):
        words = [f"--{slot}={name}" for slot, name in zip(SLOTS, names, strict=True) if name is not None]
        tree = (parse(TUNE, [*options.words, *words]) if words else options).as_dict()
        bases["/".join(str(name) for name in names if name is not None)] = {key: tree[key] for key in CONFIG}
    out = Path(options.out or f"runs/tune-{next(iter(bases.values()))['learner']['name']}-{options.tasks.name}")
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file: give the folder of the study with --out.")
    taken = {d.option for d in space}
    for variant, base in bases.items() if auto else ():
        own = default_space(base, LEARNERS[base["learner"]["name"]].pooled, variant)
        space += [d for d in own if d.option not in taken]
    tuning = Tuning(
        bases, space, out, options.trials, options.seed, options.score_tasks, options.pruner, options.storage,
        options.study, options.minutes,
    )  # fmt: skip
    tuning.check()
    for variant in bases:
        for one in (d for d in tuning.concerning(variant) if d.option in taken):
            _check_type(one, variant, tuning, options)
    return tuning


def _check_type(one: Dimension, variant: str, tuning: Tuning, options: Namespace) -> None:
    """Raise UserError for an end of a range that the option itself would not take."""
    searched = {d.option for d in tuning.space}
    words = [f"--{slot}={tuning.bases[variant][slot]['name']}" for slot in SLOTS if slot in searched]
    for value in one.ends():
        text = value if isinstance(value, str) else json.dumps(value)
        try:
            parse(TUNE, [*options.words, *words, f"--{one.option}={text}"])
        except UserError as error:
            raise UserError(f"--search {one.option} goes to {text}, which does not fit: {error}") from None


def run(options: Namespace) -> int:
    optuna_module()
    for name, least in (("processes", 1), ("confirm", 0), ("test_tasks", 2)):
        if getattr(options, name) < least:
            raise UserError(f"--{name} is {getattr(options, name)}: give a whole number of at least {least}.")
    tuning = tuning_of(options)
    if tuning.pruner != "none" and tuning.facts()["checks"] < 2:
        warnings.warn("trials are validated once, at their end, and none can be stopped early: give a smaller "
                      "--train.valid_every", stacklevel=2)  # fmt: skip
    study = tuning.open()
    gone = ledger.put_back_silent(study)
    tried = "; ".join(dict.fromkeys(d.option for d in tuning.space))
    begun = ledger.settled(study)
    after = f", {begun} done already" if begun else ""
    after += f", {gone} broken off and done again" if gone else ""
    print(f"{tuning.trials} trials over {tried} in {tuning.where}{after}", flush=True)
    try:
        with following(tuning, options.quiet), Crew(options.processes) as crew:
            for _ in crew.each(tuning.work, options.processes):
                pass
    except KeyboardInterrupt:
        ledger.put_back_silent(study)
        _told(outcome(tuning), None)
        print(f"stopped; the study is kept: go on with quickstudy tune {shlex.join(options.words)}")
        return 130
    found = outcome(tuning)
    if found.best is None:
        failed = next((t for t in found.trials if t.failed), None)
        why = f"trial {failed.place} failed: {failed.failed}" if failed else "give more --trials or --minutes."
        raise UserError(f"no trial came through; {why}")
    confirmed = _confirmed(options, found) if options.confirm else None
    _told(found, confirmed)
    return 0


def _confirmed(options: Namespace, found: Outcome) -> Confirmation | None:
    columns = (TextColumn("training best and defaults anew"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=options.quiet or not console.is_terminal) as bar:
        line = bar.add_task("", total=2 * options.confirm)
        watch = lambda done: bar.update(line, completed=done)  # noqa: E731
        return confirm(found, options.confirm, options.test_tasks, options.processes, watch)


def _told(found: Outcome, confirmed: Confirmation | None) -> None:
    """Say what was found, and write it: best.yaml and tuning.json."""
    terminal().print(trials_table(found))
    counts = [(state, sum(t.state == state for t in found.trials)) for state in ("complete", "pruned", "failed")]
    said = [", ".join(f"{n} {state}" for state, n in counts if n)]
    said += [f"trial {t.place} failed: {t.failed}" for t in found.trials if t.failed][:FAILURES]
    best, gain = found.best, found.gain()
    if best is None:
        print("\n".join(filter(None, said)))
        return
    if best.place == 0:
        said.append("Nothing that was tried is better than the defaults.")
    if found.defaults is None:
        said.append("The defaults did not come through: there is nothing to compare the best with.")
    if gain:
        words = in_words(gain.measure, gain.difference, gain.interval, signed=True)
        said.append(f"On the {gain.tasks} validation tasks that it was chosen by, which flatter it, trial {best.place} "
                    f"has {gain.measure} {words} against the defaults ({gain.verdict}).")  # fmt: skip
    said += [str(confirmed)] if confirmed else []
    importance = found.importance()
    if importance:
        parts = [f"{option} {100 * share:.0f} %" for option, share in importance.items()]
        said.append(f"What made scores differ, of the trials that came through: {', '.join(parts)}.")
    out = found.tuning.out
    about = f"trial {best.place} of {len(found.trials)}: valid {found.measure} {score(found, best)}"
    write_config(out / "best.yaml", found.config(best), about)
    card = {**found.card(), "confirmed": confirmed and confirmed.card()}
    write_whole(out / "tuning.json", (json.dumps(card, ensure_ascii=False) + "\n").encode())
    said += [f"wrote {out / 'best.yaml'} and {out / 'tuning.json'}"]
    said += [f"next: quickstudy train --config {shlex.quote(str(out / 'best.yaml'))}"]
    Console(soft_wrap=True).print("\n".join(filter(None, said)), highlight=False, markup=False)


TUNE = Command(
    "tune",
    "Search for better options of learner and training on validation tasks, and confirm them on unseen ones.",
    "quickstudy tune --learner maml --tasks sinusoid --trials 20\n"
    "quickstudy tune --learner maml --tasks sinusoid --search learner.inner_lr=log:0.001:0.5 train.lr=log:1e-4:1e-2\n"
    "quickstudy tune --tasks glyphs --search learner=protonet,maml auto --storage postgresql://me@host/studies",
    _add,
    run,
    {"tasks": "glyphs", "learner": "protonet", "net": "auto"},
    _often,
    ("search",),
)
