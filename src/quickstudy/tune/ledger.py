"""The study that all processes share: an Optuna study in a file or a database, and who is at work on what.

A trial is known by its place: 0 is the defaults, and trial t draws from (seed, t) alone. One that was broken off is
void, and is done again at its place: a study that was killed goes on to the same trials as an unbroken one.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quickstudy.core.errors import UserError
from quickstudy.core.source import generator
from quickstudy.tune.storages import optuna_module, shown, storage

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

BEAT = 20.0
"""Seconds between two signs of life of a trial at work."""
SILENT = 600.0
"""Seconds without one after which a trial on another machine counts as broken off."""
NAMELESS = 3.0
"""Seconds after which a trial that no process has put its name to counts as broken off: they are milliseconds apart."""
VOID = "void "
"""Begins the names of the study's notes on trials that do not count, each followed by a number."""


def seed_of(*words: int | str) -> int:
    """A seed of at most nine digits that depends on all the words and nothing else."""
    return generator("tune", *words).initial_seed() % 10**9


def sampler(seed: int) -> Any:
    """Optuna's tree-structured Parzen estimator, seeded anew for each trial by study's seed and trial's place."""
    optuna = optuna_module()

    class Seeded(optuna.samplers.BaseSampler):
        def __init__(self) -> None:
            self.inner: Any = None
            self.whole: Any = None  # the study itself: a pruner may show a part of it

        def before_trial(self, study: Any, trial: Any) -> None:
            place = place_of(self.whole, trial)
            self.inner = optuna.samplers.TPESampler(seed=seed_of(seed, "sample", place), multivariate=False)

        def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, Any]:
            return {}

        def sample_relative(self, study: Any, trial: Any, search_space: Any) -> dict[str, Any]:
            return {}

        def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
            return self.inner.sample_independent(study, trial, param_name, param_distribution)

    return Seeded()


def counting(inner: Any) -> Any:
    """A pruner that compares a trial with those that count: what one that was broken off had come to is left out."""

    class Counted:
        def __init__(self, study: Any):
            self.study = study

        def __getattr__(self, name: str) -> Any:
            return getattr(self.study, name)

        def get_trials(self, *_: Any, **__: Any) -> list[FrozenTrial]:
            return counted(self.study)

    class Counting(optuna_module().pruners.BasePruner):
        def prune(self, study: Any, trial: Any) -> bool:
            return inner.prune(Counted(study), trial)

    return Counting()


def opened(where: str, name: str, seed: int, pruner: str, facts: Mapping[str, Any]) -> Study:
    """The study of that name in a storage, made if it is not there.

    Raises UserError where the storage cannot be reached, or holds a study of other facts under this name.
    """
    optuna, pruners = optuna_module(), optuna_module().pruners
    chosen = {
        "halving": lambda: pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2),
        "hyperband": lambda: pruners.HyperbandPruner(min_resource=1, max_resource=facts["checks"], reduction_factor=2),
        "none": pruners.NopPruner,
    }[pruner]()
    proposing = sampler(seed)
    study = optuna.create_study(
        storage=storage(where), study_name=name, sampler=proposing, pruner=counting(chosen),
        direction="maximize", load_if_exists=True,
    )  # fmt: skip
    proposing.whole = study
    if "facts" not in study.user_attrs:
        study.set_user_attr("facts", dict(facts))
    known = study.user_attrs["facts"]
    for key in facts:
        if known.get(key) != facts[key]:
            other = _difference(known.get(key), facts[key], key)
            raise UserError(
                f"the study {name!r} in {shown(where)} was made with other {other}: give another --study or --out, or "
                "what it was made with."
            )
    return study


def _difference(old: Any, new: Any, name: str) -> str:
    """The first difference between two trees of facts, in words."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in dict.fromkeys([*old, *new]):
            if old.get(key) != new.get(key):
                return _difference(old.get(key), new.get(key), f"{name} {key}" if name != "bases" else key)
    return f"settings ({name} {old}, and now {new})"


def settled(study: Study) -> int:
    """How many trials that count are over."""
    return sum(trial.state.is_finished() for trial in counted(study))


def voids(study: Study) -> set[int]:
    """The numbers of the trials that do not count."""
    return {int(name.removeprefix(VOID)) for name in study.user_attrs if name.startswith(VOID)}


def counted(study: Study) -> list[FrozenTrial]:
    """The trials that count, in the order in which they were begun."""
    gone = voids(study)
    return [trial for trial in study.get_trials(deepcopy=False) if trial.number not in gone]


def place_of(study: Study, trial: Any) -> int:
    """The place of a trial: the one it takes over, or how many that count were begun before it."""
    given = trial.user_attrs.get("place")
    return trial.number - sum(number < trial.number for number in voids(study)) if given is None else given


def put_back(study: Study, trial: FrozenTrial, place: int) -> None:
    """Void a trial that was broken off, and have it done again with the same choices."""
    study.enqueue_trial(trial.params, user_attrs={"place": place})
    void(study, trial.number, "broken off")


def void(study: Study, number: int, why: str) -> None:
    """Leave a trial out of the count."""
    study.set_user_attr(f"{VOID}{number}", why)
    study.tell(number, state=optuna_module().trial.TrialState.FAIL, skip_if_finished=True)


def put_back_silent(study: Study) -> int:
    """Put back the trials whose process is no more; how many.

    One whose machine was only silent for long is done twice, and the later one counts.
    """
    end = time.monotonic() + NAMELESS
    begun = _begun(study)
    while any("who" not in t.user_attrs for t in begun) and time.monotonic() < end:
        time.sleep(0.05)
        begun = _begun(study)
    gone = [t for t in begun if not _alive(t)]
    for trial in gone:
        put_back(study, trial, place_of(study, trial))
    return len(gone)


def _begun(study: Study) -> list[FrozenTrial]:
    """The trials that count and are not over."""
    running = optuna_module().trial.TrialState.RUNNING
    return [trial for trial in counted(study) if trial.state == running]


def _alive(trial: FrozenTrial) -> bool:
    who = trial.user_attrs.get("who")
    if who is None:
        return False
    begun = trial.datetime_start.timestamp() if trial.datetime_start else 0.0
    if who["host"] == socket.gethostname():
        return who["born"] == _born(who["process"])
    return time.time() - trial.user_attrs.get("beat", begun) < SILENT


def _born(process: int) -> str:
    """What tells a process from a later one of the same number; "" where there is none."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return ""
    except OSError:
        pass  # another user's
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        return "alive"


@contextmanager
def at_work(trial: Trial, beat: float = BEAT) -> Iterator[Callable[[], None]]:
    """Inside, the trial gives signs of life; call what is given before it is told to be over."""
    process = os.getpid()
    trial.set_user_attr("who", {"host": socket.gethostname(), "process": process, "born": _born(process)})
    over = threading.Event()

    def live() -> None:
        while not over.wait(beat):
            with suppress(Exception):  # a storage may be out of reach for a while
                trial.set_user_attr("beat", time.time())

    thread = threading.Thread(target=live, daemon=True)
    thread.start()

    def end() -> None:
        over.set()
        thread.join()

    try:
        yield end
    finally:
        end()
