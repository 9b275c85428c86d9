"""Which methods to try on tasks of a kind: a short list with reasons, from what was measured and nothing else."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from quickstudy.core.errors import UserError
from quickstudy.core.source import Spec
from quickstudy.learners import FAMILIES, LEARNERS, make
from quickstudy.scores import in_words

MEASURED = Path(__file__).parent / "measured.json"
"""What `benchmarks/catalogue.py` measured: a table a suite."""


@dataclass(frozen=True)
class Advice:
    """One method and why. measured: its score in words; seconds, adapt_ms: of training, and of adapting to a task."""

    learner: str
    measured: str
    reasons: list[str]
    seconds: float
    adapt_ms: float


def recommend(
    spec: Spec,
    shot: int | None = None,
    gradients: bool = True,
    varying_way: bool = False,
    adapt_ms: float | None = None,
    top: int = 5,
) -> tuple[list[Advice], list[str]]:
    """The best methods for tasks of a spec, the first to try first, and what the list rests on.

    Those whose 95 % interval reaches that of the best, and whose mean is nearer to it than to the best plain baseline,
    count as good as it, and stand in the order of what adapting costs; the rest follow by score. The best plain
    baseline is always among them.

    shot: rows a class (rows of a task for regression), None if unknown or varying. gradients: whether adapting may
    take gradients of a network. varying_way: whether tasks have different numbers of classes. adapt_ms: the most that
    adapting to a task may take. top: how many.
    Raises UserError where nothing was measured on tasks of this kind, or nothing is left.
    """
    suite, measured = nearest_suite(spec, shot)
    sign, rows = measured["sign"], measured["rows"]

    def score(name: str) -> float:
        return sign * rows[name]["mean"]

    left = [name for name, row in rows.items() if name in LEARNERS and math.isfinite(row["mean"])]
    dropped: list[str] = []
    for rule, keep in (
        ("adapting takes gradients", lambda name: gradients or not make(name, spec).descends),
        ("the number of classes is fixed", lambda name: not varying_way or LEARNERS[name].any_way),
        ("adapting takes longer", lambda name: adapt_ms is None or rows[name]["adapt_ms"] <= adapt_ms),
    ):
        gone = [name for name in left if not keep(name)]
        left = [name for name in left if name not in gone]
        dropped += [f"left out since {rule}: {', '.join(sorted(gone))}"] if gone else []
    if not left:
        raise UserError("no method that was measured meets all of these conditions: drop one of them.")
    best = max(left, key=score)
    plain = max((n for n in left if n in FAMILIES["baseline"]), key=score, default="")
    # a wide interval alone makes nothing as good as the best: the mean has to be nearer to it than to the baseline
    nearer = (score(best) + score(plain)) / 2 if plain not in ("", best) else -math.inf
    reaching = [n for n in left if score(n) + rows[n]["interval"] >= score(best) - rows[best]["interval"]]
    level = [n for n in reaching if score(n) >= nearer]
    order = sorted(level, key=lambda n: rows[n]["adapt_ms"]) + sorted(set(left) - set(level), key=score, reverse=True)
    chosen = order[:top] + [plain] * (plain not in ("", *order[:top]))
    advice = [
        Advice(
            name,
            in_words(measured["measure"], rows[name]["mean"], rows[name]["interval"]),
            reasons(name, best, plain, rows, sign, name in level),
            rows[name]["seconds"],
            rows[name]["adapt_ms"],
        )
        for name in chosen
    ]
    return advice, [*grounds(suite, measured, spec, shot), *dropped]


def reasons(
    name: str, best: str, plain: str, rows: Mapping[str, Any], sign: int, level: bool
) -> list[str]:
    """Why a method stands where it does, in plain words."""
    said = [LEARNERS[name].choose] if LEARNERS[name].choose else []
    if name == best:
        said.append("the best score measured on such tasks")
    elif level:
        said.append(f"its interval reaches that of the best, {best}")
    if name == plain:
        said.append("the best plain baseline: what the others have to beat")
    elif plain:
        gap = sign * (rows[name]["mean"] - rows[plain]["mean"])
        clear = abs(gap) > rows[name]["interval"] + rows[plain]["interval"]
        verdict = "better than" if gap > 0 else "worse than"
        said.append(f"clearly {verdict} the plain baseline {plain}" if clear else f"not clearly apart from {plain}")
    return said


def grounds(suite: str, measured: Mapping[str, Any], spec: Spec, shot: int | None) -> list[str]:
    """What a list rests on, and where the tasks at hand differ from those that were measured."""
    said = [
        f"measured on {suite}: {measured['about']}; {measured['seconds']:g} seconds of training each, "
        f"{measured['test_tasks']} unseen tasks, {measured['hardware']}"
    ]
    theirs = {"classes": measured["way"], "examples of each": measured["shot"], "rows of": tuple(measured["x_shape"])}
    own = {"classes": spec.way, "examples of each": shot, "rows of": spec.x_shape}
    apart = [f"{own[what]} ({theirs[what]} there) {what}" for what in own if own[what] and own[what] != theirs[what]]
    if apart:
        said.append(f"yours have {', '.join(apart)}: compare on your own with `quickstudy benchmark`")
    return said


def nearest_suite(spec: Spec, shot: int | None) -> tuple[str, Mapping[str, Any]]:
    """The measured suite of the same kind whose rows, way and shot are most like those of the spec.

    Raises UserError if there is none of this kind.
    """
    known = {name: one for name, one in tables().items() if one["kind"] == spec.kind}
    if not known:
        raise UserError(
            f"nothing was measured on {spec.kind} tasks: compare methods on your own with `quickstudy benchmark`."
        )

    def apart(one: Mapping[str, Any]) -> tuple[bool, float]:
        ratios = [(spec.way, one["way"]), (shot, one["shot"])]
        return len(one["x_shape"]) != len(spec.x_shape), sum(abs(math.log(a / b)) for a, b in ratios if a and b)

    name = min(known, key=lambda name: apart(known[name]))
    return name, known[name]


@cache
def tables() -> Mapping[str, Mapping[str, Any]]:
    """Every table of measured.json by suite; {} where none is shipped."""
    return json.loads(MEASURED.read_text(encoding="utf-8")) if MEASURED.is_file() else {}
