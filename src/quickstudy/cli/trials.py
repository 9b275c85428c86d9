"""The trials of a study on the terminal: the best so far while it runs, and all that is to be seen in the end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from quickstudy.scores import in_words
from quickstudy.tables import heading
from quickstudy.tune import Tuning, ledger, outcome
from quickstudy.tune.outcome import Outcome, Trial

SHOWN = 10
"""Trials in a table; tuning.json holds all of them."""
EVERY = 1.0
"""Seconds between two looks at the study."""


def trials_table(found: Outcome, shown: int = SHOWN) -> Table:
    """The best trials so far, and the defaults."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name, side in (("trial", "right"), (f"valid {heading(found.measure)}", "right"), ("tried", "left")):
        table.add_column(Text(name), justify=side, overflow="fold")  # type: ignore[arg-type]
    ranked = found.ranked()
    rows = ranked[:shown]
    if found.defaults and found.defaults not in rows:
        rows = [*rows, found.defaults]
    for trial in rows:
        table.add_row(str(trial.place), score(found, trial), Text(trial.in_words()))
    return table


def score(found: Outcome, trial: Trial) -> str:
    """The score of a trial in words."""
    if trial.scores:
        return in_words(found.measure, trial.scores.mean(found.measure), trial.scores.interval(found.measure))
    return "" if trial.value is None else in_words(found.measure, found.sign * trial.value)


def line(found: Outcome, trial: Trial) -> str:
    """One trial that is over, in one line."""
    if trial.state == "failed":
        said = f"failed: {trial.failed}"
    elif trial.state == "pruned":
        said = f"stopped at validation {trial.checks} with {found.measure} {score(found, trial)}"
    else:
        said = f"{found.measure} {score(found, trial)}"
    best = found.best
    end = f"; best so far: trial {best.place}" if best and best.place != trial.place else ""
    return f"trial {trial.place}: {said} ({trial.in_words()}, {trial.seconds:.0f} s){end}"


@contextmanager
def following(tuning: Tuning, quiet: bool) -> Iterator[None]:
    """Inside, the study is looked at every second: a table of the best on a terminal, else a line for every trial."""
    if quiet:
        yield
        return
    console = Console(stderr=True)
    study, scored_by = tuning.open(), tuning.measure()
    known = {trial.place for trial in outcome(tuning, study, scored_by).trials if trial.over}
    seen, over = len(known), threading.Event()
    live = Live(console=console, transient=True, auto_refresh=False) if console.is_terminal else None

    def look() -> None:
        nonlocal seen
        count = ledger.settled(study)
        if count == seen:
            return
        seen = count
        found = outcome(tuning, study, scored_by)
        fresh = [t for t in found.trials if t.place not in known and t.over]
        known.update(trial.place for trial in fresh)
        if live:
            words = f"{count} of {tuning.trials} trials done; Ctrl-C keeps the study"
            live.update(Group(trials_table(found, 5), Text(words, style="dim")), refresh=True)
        else:
            for trial in fresh:
                print(f"  {line(found, trial)}", flush=True)

    def follow() -> None:
        while not over.wait(EVERY):
            look()

    thread = threading.Thread(target=follow, daemon=True)
    if live:
        live.start()
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        if live:
            live.stop()
        else:
            look()
