"""A search for good options: trials that train and are scored on validation tasks, until there are enough of them."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from quickstudy.configuration import Config, learner_in, source_in, valid_source_in
from quickstudy.core.errors import UserError, nearest
from quickstudy.core.learner import MetaLearner
from quickstudy.core.source import Source
from quickstudy.evaluate import device_of, evaluate
from quickstudy.interrupt import noted
from quickstudy.options import check_learner, check_options
from quickstudy.scores import Evaluation
from quickstudy.train import Run, train
from quickstudy.tune import ledger
from quickstudy.tune.space import SLOTS, Dimension, check_known, with_options
from quickstudy.tune.storages import optuna_module, reached

if TYPE_CHECKING:
    from optuna import Study, Trial

Pruner = Literal["halving", "hyperband", "none"]
FAILS = (RuntimeError, ValueError, ArithmeticError, MemoryError)
"""What a method may raise where its options were chosen badly; anything else is a fault of the program."""
JOURNAL = "study.journal"


class Pruned(Exception):
    """A trial that was stopped since others were better at the same point."""


@dataclass(frozen=True)
class Tuning:
    """A search that is to be done, or gone on with. Trial 0 is the defaults: the first of `bases` as it is.

    bases: by variant, the names of learner and net that are searched joined by "/" ("" where none is), a
        configuration whose options stand where the search says nothing.
    space: what is searched. trials: how many, those of an earlier run counted.
    seed: decides trials, their training and their tasks: trial t depends on (seed, t) and on what was found before.
    score_tasks: validation tasks that the score of a trial is the mean over; the same for all.
    pruner: "halving" (asynchronous successive halving, Li and others 2020, arXiv 1810.05934: at validation 1, 2, 4,
        ... a trial goes on if it is among the better half of those that came so far), "hyperband" or "none".
    out: folder of the study. storage: a path, or the URL of an SQL database; a journal file in `out` if not given.
    study: its name in the storage. minutes: after which no trial is begun.
    """

    bases: Mapping[str, Config]
    space: Sequence[Dimension]
    out: Path
    trials: int = 30
    seed: int = 0
    score_tasks: int = 200
    pruner: Pruner = "halving"
    storage: str | None = None
    study: str = "tune"
    minutes: float | None = None

    @property
    def where(self) -> str:
        """The storage, as `storages.storage` takes it."""
        return self.storage or str(self.out / JOURNAL)

    @property
    def defaults(self) -> Config:
        """The configuration of trial 0."""
        return next(iter(self.bases.values()))

    def check(self) -> None:
        """Raise UserError for what no trial could make up for: before a study is made."""
        for name, least in (("trials", 1), ("score_tasks", 2)):
            if getattr(self, name) < least:
                raise UserError(f"{name} is {getattr(self, name)}: give a whole number of at least {least}.")
        if self.minutes is not None and not self.minutes > 0:
            raise UserError(f"minutes is {self.minutes}: give a positive number.")
        check_known(self.space, self.bases)
        source = source_in(self.defaults)
        for variant, base in self.bases.items():
            training = base["train"]
            if training.get("devices", 1) * training.get("nodes", 1) > 1:
                raise UserError("a trial trains on one device: give --processes, and --train.devices 1.")
            learner = self.made(base, source)
            asked = {"accumulate": 1, "save_every": 1, "devices": 1, "nodes": 1, **training}
            check_options(asked, learner.pooled)
            if not asked.get("valid_every"):
                raise UserError("valid_every is 0 and trials are compared by their validations: give at least 1.")
            check_learner(learner, source, valid_source_in(base, source) or source, self.seed)
            for one in self.concerning(variant):
                for value in one.ends() if one.option not in SLOTS and not one.option.startswith("train.") else ():
                    self.made(with_options(base, {one.option: value}), source)
        self.measure(source)

    def measure(self, source: Source | None = None) -> tuple[str, int]:
        """What trials are scored by, and +1 if higher is better: the first measure that all learners have.

        Raises UserError where they have none in common.
        """
        source = source or source_in(self.defaults)
        found = [self.made(base, source).objective.measures for base in self.bases.values()]
        for name, sign in found[0].items():
            if all(name in measures for measures in found):
                return name, sign
        raise UserError("these learners share no measure: search over learners of one kind.")

    def concerning(self, variant: str) -> list[Dimension]:
        """The dimensions that a variant has."""
        base = self.bases[variant]
        return [d for d in self.space if d.variant in ("", variant) and d.option not in SLOTS and d.within(base)]

    def made(self, config: Config, source: Source) -> MetaLearner:
        """The learner of a configuration, as `quickstudy train` makes it."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config["train"]["seed"])
            return learner_in(config, source)

    def facts(self) -> dict[str, Any]:
        """What makes a study what it is: it is gone on with only where these are the same."""
        checks = max(math.ceil(b["train"]["steps"] / b["train"]["valid_every"]) for b in self.bases.values())
        facts = {
            "bases": self.bases, "space": [d.card() for d in self.space], "seed": self.seed, "pruner": self.pruner,
            "score_tasks": self.score_tasks, "checks": checks,
        }  # fmt: skip
        return json.loads(json.dumps(facts))

    def open(self) -> Study:
        """The study in its storage.

        Raises UserError where it cannot be reached, or is of something else.
        """
        if self.pruner not in ("halving", "hyperband", "none"):
            raise UserError(f"unknown pruner {self.pruner!r}: {nearest(self.pruner, ('halving', 'hyperband', 'none'))}")
        return ledger.opened(self.where, self.study, self.seed, self.pruner, self.facts())

    def work(self, index: int = 0) -> int:
        """Do trials until there are enough; how many. Several processes may do so at once.

        Raises KeyboardInterrupt after Ctrl-C; the trial at work is then put back, to be done again.
        """
        with reached(self.where):
            return self._work()

    def _work(self) -> int:
        study, source = self.open(), source_in(self.defaults)
        measure, _ = self.measure(source)
        begun, done = time.monotonic(), 0
        taken = optuna_module().exceptions.UpdateFinishedTrialError
        while self._wanted(study) and (self.minutes is None or time.monotonic() - begun < 60 * self.minutes):
            trial = study.ask()
            place = ledger.place_of(study, trial)
            if place >= self.trials:  # several processes asked at once
                ledger.void(study, trial.number, "one too many")
                break
            try:
                self._trial(study, trial, place, source, measure)
            except taken:  # we were silent for so long that another machine does it again
                continue
            except BaseException:
                ledger.put_back(study, study.get_trials(deepcopy=False)[trial.number], place)
                raise
            done += 1
        return done

    def _wanted(self, study: Study) -> bool:
        ledger.put_back_silent(study)
        trials = ledger.counted(study)
        return len(trials) < self.trials or any(t.state.name == "WAITING" for t in trials)

    def _trial(self, study: Study, trial: Trial, place: int, source: Source, measure: str) -> None:
        states = optuna_module().trial.TrialState
        trial.set_user_attr("place", place)
        with ledger.at_work(trial) as end:
            variant, chosen = self._choose(trial, place)
            config = self.configured(variant, chosen, place)
            trial.set_user_attr("variant", variant)
            trial.set_user_attr("chosen", chosen)
            begun, value, state = time.perf_counter(), None, states.COMPLETE

            def watch(step: int, found: Evaluation) -> bool:
                check = math.ceil(step / config["train"]["valid_every"])
                trial.report(found.signs[measure] * found.mean(measure), check)
                return place > 0 and trial.should_prune()

            try:
                scores, run = self.scored(config, source, watch)
                trial.set_user_attr("scores", json.loads(scores.to_json()))
                trial.set_user_attr("best_step", run.best_step)
                value = scores.signs[measure] * scores.mean(measure)
                if not math.isfinite(value):
                    raise UserError(f"its score is {value}: its predictions are not finite.")
            except Pruned:
                state = states.PRUNED
            except optuna_module().exceptions.UpdateFinishedTrialError:
                raise
            except UserError as error:
                trial.set_user_attr("failed", str(error))
                state, value = states.FAIL, None
            except FAILS as error:  # a method's failure is a row of the table, not the end of it
                said = (str(error).strip().splitlines() or [""])[0]
                trial.set_user_attr("failed", f"{type(error).__name__}: {said}")
                state, value = states.FAIL, None
            trial.set_user_attr("seconds", round(time.perf_counter() - begun, 2))
            end()
            study.tell(trial.number, value, state)

    def scored(
        self,
        config: Config,
        source: Source,
        watch: Callable[[int, Evaluation], object] | None = None,
        split: Literal["valid", "test"] = "valid",
        tasks: int | None = None,
        seed: int | None = None,
    ) -> tuple[Evaluation, Run]:
        """Train as a configuration says, and score the best weights; by default on the validation tasks of the study.

        Raises UserError where training fails, Pruned where `watch` stopped it, KeyboardInterrupt after Ctrl-C.
        """
        valid = valid_source_in(config, source) or source
        learner = self.made(config, source)
        rest = {name: config.get(name) for name in ("memory", "compile") if config.get(name)}
        interrupts = noted()
        run = train(learner, source, valid_source=valid, progress=False, watch=watch, **rest, **config["train"])
        if run.stopped == "interrupted" or noted() > interrupts:
            raise KeyboardInterrupt
        if run.stopped == "halted":
            raise Pruned
        seed = ledger.seed_of(self.seed, "score") if seed is None else seed
        asked = (split, self.score_tasks if tasks is None else tasks, seed)
        return evaluate(learner, valid.to(device_of(learner)), *asked), run

    def _choose(self, trial: Trial, place: int) -> tuple[str, dict[str, Any]]:
        """What a trial tries: its variant, and a value for each dimension of it. Trial 0 tries the defaults."""
        variant = next(iter(self.bases))
        if place == 0:
            return variant, {}
        if len(self.bases) > 1:
            variant = trial.suggest_categorical("variant", list(self.bases))
        return variant, {d.option: suggested(trial, d, self.named(d, variant)) for d in self.concerning(variant)}

    def named(self, one: Dimension, variant: str) -> str:
        """The name of a dimension in the study: variants do not learn from one another."""
        return f"{variant}: {one.option}" if len(self.bases) > 1 else one.option

    def configured(self, variant: str, chosen: Mapping[str, Any], *words: int | str) -> Config:
        """The configuration of a trial: the YAML that `quickstudy train --config` takes holds just this."""
        seeds = {"train.seed": ledger.seed_of(self.seed, *words), "train.valid_seed": self.seed}
        return with_options(self.bases[variant], {**chosen, **seeds})


def suggested(trial: Trial, one: Dimension, name: str) -> Any:
    """A value of a dimension, real numbers to four digits."""
    if one.kind == "choice":
        cards = [v if v is None or isinstance(v, bool | int | float | str) else json.dumps(v) for v in one.values]
        return one.values[cards.index(trial.suggest_categorical(name, cards))]
    log = one.kind.startswith("log")
    if one.whole:
        return trial.suggest_int(name, int(one.low), int(one.high), log=log)
    value = float(f"{trial.suggest_float(name, one.low, one.high, log=log):.4g}")
    return min(max(value, one.low), one.high)
