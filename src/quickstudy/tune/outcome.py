"""What a study has found so far: the best trial, how it compares with the defaults, and what mattered."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import yaml

from quickstudy.configuration import Config
from quickstudy.core.files import write_whole
from quickstudy.scores import Comparison, Evaluation, compare
from quickstudy.tune import ledger
from quickstudy.tune.storages import optuna_module
from quickstudy.tune.tuning import Tuning

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

ENOUGH = 16
"""Finished trials of a variant below which nothing is said of the importance of options."""


@dataclass(frozen=True)
class Trial:
    """One trial that counts.

    state: "complete", "pruned", "failed", "running" or "waiting". value: its score, higher is better; of a pruned
    trial, the last one seen on its way. failed: one sentence. scores: on the validation tasks of the study.
    """

    place: int
    state: str
    variant: str = ""
    chosen: Mapping[str, Any] | None = None
    value: float | None = None
    seconds: float = 0.0
    failed: str = ""
    scores: Evaluation | None = None
    checks: int = 0

    @property
    def over(self) -> bool:
        """Whether nothing of it is left to be done."""
        return self.state not in ("running", "waiting")

    def in_words(self) -> str:
        """What it tried."""
        parts = [f"{option}={value}" for option, value in (self.chosen or {}).items()]
        return " ".join([*([self.variant] if self.variant else []), *parts]) or "the defaults"


@dataclass(frozen=True)
class Outcome:
    """All trials by place; measure and sign: what they were scored by, and +1 if higher is better."""

    tuning: Tuning
    measure: str
    sign: int
    trials: Sequence[Trial]

    def ranked(self) -> list[Trial]:
        """The trials that came through, the best first."""
        whole = [t for t in self.trials if t.state == "complete" and t.value is not None]
        return sorted(whole, key=lambda t: (-(t.value or 0.0), t.place))

    @property
    def best(self) -> Trial | None:
        """The trial with the best score; None if none came through."""
        return next(iter(self.ranked()), None)

    @property
    def defaults(self) -> Trial | None:
        """Trial 0, if it came through."""
        return next((t for t in self.ranked() if t.place == 0), None)

    def config(self, trial: Trial) -> Config:
        """What `quickstudy train --config` takes to do a trial again."""
        return self.tuning.configured(trial.variant or next(iter(self.tuning.bases)), trial.chosen or {}, trial.place)

    def gain(self) -> Comparison | None:
        """The paired difference best - defaults on the validation tasks; None where there is no such pair.

        The best was chosen by these tasks: it looks better on them than it is.
        """
        best, plain = self.best, self.defaults
        if not (best and plain and best.scores and plain.scores) or best is plain:
            return None
        a, b = replace(best.scores, learner="the best"), replace(plain.scores, learner="the defaults")
        return compare(a, b, self.measure)

    def importance(self) -> dict[str, float]:
        """The share of each option in what made scores differ, by functional ANOVA (Hutter and others 2014).

        Of the trials of the best one's variant that came through; {} where they are too few.
        """
        best = self.best
        if best is None:
            return {}
        study = self.tuning.open()
        variant = best.variant or next(iter(self.tuning.bases))
        names = {self.tuning.named(d, variant): d.option for d in self.tuning.concerning(variant)}
        done = [t for t in self.ranked() if t.place > 0 and t.variant == best.variant]
        if len(done) < ENOUGH or not names:
            return {}
        importance = optuna_module().importance
        judge = importance.FanovaImportanceEvaluator(seed=0)
        found = importance.get_param_importances(study, evaluator=judge, params=list(names))
        return {names[name]: float(share) for name, share in found.items()}

    def card(self) -> dict[str, Any]:
        """All of it as JSON holds it, but the scores of single tasks."""
        rows = [
            {
                "trial": t.place, "state": t.state, "variant": t.variant, "chosen": t.chosen, "seconds": t.seconds,
                "failed": t.failed, "checks": t.checks,
                self.measure: None if t.value is None else self.sign * t.value,
                "interval": t.scores and t.scores.interval(self.measure),
            }
            for t in self.trials
        ]  # fmt: skip
        gain, best = self.gain(), self.best
        return {
            "measure": self.measure, "higher_is_better": self.sign > 0, "best": best and best.place,
            "gain_on_validation": gain and {"difference": gain.difference, "interval": gain.interval},
            "importance": self.importance(), "trials": rows,
        }  # fmt: skip


def outcome(tuning: Tuning, study: Any = None, scored_by: tuple[str, int] | None = None) -> Outcome:
    """What the study of a search has found so far.

    study, scored_by: `tuning.open()` and `tuning.measure()`, where they are at hand already.
    """
    study = study or tuning.open()
    found = sorted((_trial(study, t) for t in ledger.counted(study)), key=lambda t: t.place)
    return Outcome(tuning, *(scored_by or tuning.measure()), found)


def _trial(study: Study, found: FrozenTrial) -> Trial:
    attributes = found.user_attrs
    value = found.value
    if value is None and found.intermediate_values:
        value = found.intermediate_values[max(found.intermediate_values)]
    scores = attributes.get("scores")
    state = "failed" if found.state.name == "FAIL" else found.state.name.lower()
    return Trial(
        ledger.place_of(study, found), state, attributes.get("variant", ""), attributes.get("chosen"), value,
        attributes.get("seconds", 0.0), attributes.get("failed", ""),
        scores and Evaluation.from_json(json.dumps(scores)), max(found.intermediate_values, default=0),
    )  # fmt: skip


def write_config(path: Any, config: Config, said: str) -> None:
    """A configuration as the YAML that `quickstudy train --config` reads, with a comment at its top."""
    text = yaml.safe_dump(_plain(config), sort_keys=False)
    write_whole(path, (f"# {said}\n{text}").encode())


def _plain(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {name: _plain(part) for name, part in tree.items()}
    return [_plain(part) for part in tree] if isinstance(tree, list | tuple) else tree
