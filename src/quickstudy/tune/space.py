"""What is searched: options with a range or a list of values, as a user writes them, and where nothing is written."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import yaml

from quickstudy.configuration import Config
from quickstudy.core.errors import UserError, nearest
from quickstudy.learners.limits import LARGEST, LEAST, MOST

Kind = Literal["log", "float", "int", "logint", "choice"]
RANGES = ("log", "float", "int", "logint")
SLOTS = ("learner", "net")
"""What may be chosen by name in a search."""
FIXED = (
    *("seed", "valid_seed", "valid_every", "valid_tasks", "save_every"),
    *("tensorboard", "accelerator", "devices", "nodes"),
)
"""Options of training that decide how, where or on what it is measured: a search over them would compare nothing."""
FORM = "log:LOW:HIGH, float:LOW:HIGH, int:LOW:HIGH, logint:LOW:HIGH or values with commas"


@dataclass(frozen=True)
class Dimension:
    """One option with what it may be: from low to high, both included, or one of `values`.

    variant: the entry of the search (see `Tuning.bases`) for which alone it is; "" for all that have the option.
    """

    option: str
    kind: Kind
    low: float = 0.0
    high: float = 0.0
    values: tuple[Any, ...] = ()
    variant: str = ""

    @property
    def whole(self) -> bool:
        """Whether its values are whole numbers."""
        return self.kind in ("int", "logint")

    def ends(self) -> tuple[Any, ...]:
        """Both ends of the range, or all values."""
        if self.kind == "choice":
            return self.values
        return (int(self.low), int(self.high)) if self.whole else (self.low, self.high)

    def holds(self, value: Any) -> bool:
        """Whether a value is within."""
        if self.kind == "choice":
            return value in self.values
        number = isinstance(value, int if self.whole else int | float) and not isinstance(value, bool)
        return number and self.low <= value <= self.high

    def within(self, config: Config) -> bool:
        """Whether a configuration has such an option."""
        slot, _, name = self.option.partition(".")
        return slot in SLOTS if not name else name in config.get(slot, {})

    def card(self) -> dict[str, Any]:
        """As JSON holds it."""
        return json.loads(json.dumps(asdict(self)))


def dimension(option: str, given: Any) -> Dimension:
    """An option with what was written for it: see `FORM`; a list of values where it comes from YAML.

    Raises UserError for what is neither a range nor values.

    >>> dimension("learner.inner_steps", "int:1:10").ends()
    (1, 10)
    >>> dimension("learner.first_order", "true,false").values
    (True, False)
    """
    where = f"--search {option}"
    if isinstance(given, Sequence) and not isinstance(given, str):
        return _choice(where, option, list(given))
    text = str(given).strip() if not isinstance(given, bool) else json.dumps(given)
    kind, *ends = text.split(":")
    if kind not in RANGES:
        if ends:
            raise UserError(f"{where} is {text!r}: {nearest(kind, RANGES)} The forms are {FORM}.")
        return _choice(where, option, [_value(part.strip()) for part in text.split(",") if part.strip()])
    try:
        low, high = map(float, ends)
    except ValueError:
        raise UserError(f"{where} is {text!r}: give two numbers, as {kind}:1:10.") from None
    if not (math.isfinite(low) and math.isfinite(high)):
        raise UserError(f"{where} is {text!r}: give two finite numbers.")
    if low > high:
        raise UserError(f"{where} is {text!r}, a range that is reversed: write {kind}:{ends[1]}:{ends[0]}.")
    if low == high:
        raise UserError(f"{where} is {text!r}, a single value: give it as --{option} {ends[0]}, outside of the search.")
    if kind.startswith("log") and low <= 0:
        raise UserError(f"{where} is {text!r}: a logarithmic range begins above 0.")
    if kind.endswith("int") and not (low.is_integer() and high.is_integer()):
        raise UserError(f"{where} is {text!r}: give whole numbers, or use {'log' if kind == 'logint' else 'float'}.")
    return Dimension(option, kind, low, high)  # type: ignore[arg-type]


def _choice(where: str, option: str, values: list[Any]) -> Dimension:
    values = [tuple(v) if isinstance(v, list) else v for v in values]
    unique = tuple(v for i, v in enumerate(values) if not any(v == w and type(v) is type(w) for w in values[:i]))
    if len(unique) < 2 and option not in SLOTS:
        raise UserError(f"{where} names {len(unique) or 'no'} value: give {FORM}.")
    if not unique or any(isinstance(v, Mapping) for v in unique):
        raise UserError(f"{where} cannot be read: give {FORM}.")
    return Dimension(option, "choice", values=unique)


def _value(text: str) -> Any:
    """A value as YAML reads it, but numbers such as 1e-3 are numbers."""
    try:
        return float(text) if "e" in text.lower() and text[0] in "+-.0123456789" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError):
        return text


def known(config: Config) -> list[str]:
    """The options of a configuration that can be searched."""
    inside = [f"{slot}.{name}" for slot in SLOTS for name in config.get(slot, {}) if name != "name"]
    return [*SLOTS, *inside, *(f"train.{name}" for name in config.get("train", {}) if name not in FIXED)]


def check_known(space: Sequence[Dimension], bases: Mapping[str, Config]) -> None:
    """Raise UserError for an option that no configuration of the search has, or that is given twice."""
    options = list(dict.fromkeys(name for config in bases.values() for name in known(config)))
    for place, one in enumerate(space):
        if one.option.removeprefix("train.") in FIXED:
            raise UserError(f"--search names {one.option}, which decides how trials are measured: give it one value.")
        if one.option not in options:
            names = " or ".join(dict.fromkeys(str(config["learner"]["name"]) for config in bases.values()))
            hint = nearest(one.option, options)
            raise UserError(f"--search names {one.option}, which a search over {names} has not: {hint}")
        if any((one.option, one.variant) == (other.option, other.variant) for other in space[:place]):
            raise UserError(f"--search names {one.option} twice: give it once.")


def with_options(config: Config, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with some options exchanged; the one given is left as it was.

    >>> with_options({"train": {"lr": 0.1, "steps": 5}}, {"train.lr": 0.2})
    {'train': {'lr': 0.2, 'steps': 5}}
    """
    tree = {name: dict(part) if isinstance(part, Mapping) else part for name, part in config.items()}
    for option, value in chosen.items():
        slot, _, name = option.partition(".")
        tree[slot][name] = value
    return tree


STEPS, TENFOLD, MANY_STEPS = "steps", 10.0, 20
SIZES = ("width", "hidden", "latents", "channels", "units", "context", "components", "particles", "neighbours", "draws")
LEFT_ALONE = ("multi_step_tasks", "first_order_tasks", "in_sequence", "density", "floor", "others", "alpha")
"""Schedules, facts about the data, and numbers for which a tenth or tenfold has no meaning."""
SHARES = {"dropout": (0.0, 0.8), "decay": (0.5, 0.999)}


def default_space(config: Config, pooled: bool, variant: str = "") -> list[Dimension]:
    """What to search where nothing was named: around the values of a configuration, within learners/limits.py.

    Rates and other positive numbers log-uniform from a tenth to tenfold; steps as whole numbers from 1 to twice as
    many (from a quarter to fourfold where they are many); sizes half or twice as large; what is true or false, both.
    Of training, the rate and the tasks (rows, for a pooled baseline) in an outer step.
    """
    found = [
        Dimension(f"learner.{name}", *_around(name, value), variant=variant)
        for name, value in config["learner"].items()
        if name not in LEFT_ALONE and _around(name, value)
    ]
    training = config["train"]
    batch = ("pooled_rows", (64, 128, 256, 512)) if pooled else ("meta_batch", (2, 4, 8, 16))
    found.append(Dimension("train.lr", *_around("lr", training["lr"]), variant=variant))
    return [*found, Dimension(f"train.{batch[0]}", "choice", values=batch[1], variant=variant)]


def _around(name: str, value: Any) -> tuple[Any, ...]:
    """Kind, low, high and values of a range around a value; () where there is none to be had."""
    least, most = LEAST.get(name, 0), MOST.get(name, LARGEST)
    if isinstance(value, bool):
        return "choice", 0.0, 0.0, (value, not value)
    if isinstance(value, int) and STEPS in name and value > 0:
        few = value < MANY_STEPS
        return ("int", 1.0, float(max(2 * value, 3))) if few else ("logint", float(value // 4), float(4 * value))
    if isinstance(value, int) and name in SIZES and value > 1:
        return "choice", 0.0, 0.0, tuple(n for n in (value // 2, value, 2 * value) if least <= n <= most)
    if isinstance(value, float) and name in SHARES:
        return "float", *SHARES[name]
    if isinstance(value, float) and value > 0:
        return "log", value / TENFOLD, min(value * TENFOLD, most)
    return ()
