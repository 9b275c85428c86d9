"""`quickstudy shots`: how many examples a task needs, from the score against their number and a forecast beyond."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentParser, Namespace
from rich.console import Console
from rich.table import Table

from quickstudy import checkpoint
from quickstudy.cli.arguments import Command, check_seed
from quickstudy.cli.evaluating import TRAINED, card_tasks
from quickstudy.cli.trained import watched
from quickstudy.core.catalogue import build
from quickstudy.core.errors import UserError
from quickstudy.core.files import check_place, write_whole
from quickstudy.core.learner import MetaLearner
from quickstudy.core.source import Source, Split
from quickstudy.evaluate import name_of
from quickstudy.learners import LEARNERS, make
from quickstudy.questions.forecast import Forecast, Reach
from quickstudy.questions.forecast_picture import forecast_figure
from quickstudy.questions.shots import ShotScores, shot_scores
from quickstudy.report.drawing import png, style
from quickstudy.scores import PERCENT, in_words
from quickstudy.tables import heading, terminal

OWN = "none"
"""Stands for: the learner of the checkpoint."""
FAR = 10
"""Times the largest measured number beyond which a forecast is said to be a guess."""


def _add(parser: ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=str, nargs="?", default="", help="a trained learner; or --learner, --tasks")
    parser.add_argument("--target", type=float | None, default=None, help="accuracy to reach (0.9), or squared error")
    parser.add_argument("--shots", type=str, default="1,2,3,5,10", help="numbers of examples to measure, with commas")
    parser.add_argument("--most", type=int, default=100, help="examples up to which to look")
    parser.add_argument("--split", type=Split, default="test", help="train, valid or test")
    parser.add_argument("--test_tasks", type=int, default=300, help="how many; the same ones for every number")
    parser.add_argument("--seed", type=int, default=0, help="decides which tasks")
    parser.add_argument("--json", type=str | None, default=None, help="write every number to this file")
    parser.add_argument("--plot", type=str | None, default=None, help="draw the curve into this .png file")


def run(options: Namespace) -> int:
    shots = _check(options)
    name, learner, source = _learner_and_source(options)
    _check_target(options.target, source)
    asked = (shots, options.test_tasks, options.seed, options.split, name)
    with watched(f"measuring {name}", options.test_tasks) as watch:
        found = shot_scores(learner, source, *asked, watch=watch)
    curve = found.forecast()
    terminal().print(_table(found, curve, options.most))
    said = [*_answer(found, curve, options.target, options.most), *_grounds(found, curve, options.most)]
    Console(soft_wrap=True).print("\n".join(said), highlight=False, markup=False)
    if options.json:
        write_whole(options.json, (json.dumps(_card(found, curve, options, said), ensure_ascii=False) + "\n").encode())
        print(f"wrote {options.json}")
    if options.plot:
        with style():
            write_whole(options.plot, png(forecast_figure(found, curve, options.most, options.target)))
        print(f"wrote {options.plot}")
    return 0


def _check(options: Namespace) -> list[int]:
    """The numbers of examples; raise UserError for what would only be found to be wrong after long work."""
    check_seed(options.seed, "--seed")
    try:
        shots = sorted({int(part) for part in options.shots.split(",")})
        if shots[0] < 1:
            raise ValueError
    except ValueError:
        raise UserError(f"--shots is {options.shots!r}: give whole numbers from 1 with commas, as 1,2,5,10.") from None
    for name, least in (("test_tasks", 2), ("most", 1)):
        if getattr(options, name) < least:
            raise UserError(f"--{name} is {getattr(options, name)}: give a whole number of at least {least}.")
    if options.most > 1_000_000:
        raise UserError(f"--most is {options.most}: give at most 1000000; no curve says what lies beyond.")
    for path in filter(None, (options.json, options.plot)):
        if Path(path).suffix == ".safetensors":
            raise UserError(f"{path} is the name of a checkpoint: give another one to --json and --plot.")
        check_place(path)
    if options.plot and Path(options.plot).suffix.lower() != ".png":
        raise UserError(f"--plot is {options.plot!r}: give the name of a .png file.")
    return shots


def _check_target(target: float | None, source: Source) -> None:
    if target is None:
        return
    if source.spec.way and not 0 < target <= 1:
        raise UserError(f"--target is {target:g}: give an accuracy between 0 and 1, as 0.9 for 90 %.")
    if not source.spec.way and not 0 < target < math.inf:
        raise UserError(f"--target is {target:g}: these tasks are judged by squared error, so give one above 0.")


def _learner_and_source(options: Namespace) -> tuple[str, MetaLearner, Source]:
    named = options.learner.name
    if (not options.checkpoint) == (named == OWN):
        raise UserError("give the checkpoint of a trained learner, or an untrained one with --learner: one of them.")
    if options.tasks.name == TRAINED:
        given = options.checkpoint
        why = f"{given} does not say which tasks it was trained on" if given else "no tasks are named"
        raise UserError(f"{why}: name some with --tasks.")
    source = build(options.tasks.as_dict(), "tasks")
    if options.checkpoint:
        trained = checkpoint.load(options.checkpoint)
        return name_of(trained.learner, "learner"), trained.learner, source.read_by(trained.reader)
    if LEARNERS[named].trained:
        raise UserError(f"{named} has to be trained first: give the checkpoint that `quickstudy train` wrote.")
    given = options.learner.as_dict()
    torch.manual_seed(options.seed)
    return given.pop("name"), make(named, source.spec, **given), source


def _table(found: ShotScores, curve: Forecast, most: int) -> Table:
    """The table: a line for each number of examples, measured or not."""
    beyond = [n for n in (2 * found.shots[-1], 5 * found.shots[-1], most) if found.shots[-1] < n <= most]
    at = [*found.shots, *dict.fromkeys(beyond)]
    measured = dict(zip(found.shots, zip(found.means(), found.intervals(), strict=True), strict=True))
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    head = heading(found.measure)
    for name in (f"examples of each {found.each}", f"{head}, measured", "forecast", "90 % interval"):
        made.add_column(name, justify="right")
    for n, *ends in zip(at, *curve.interval(at), strict=True):
        middle, *span = (_plain(found, found.score(error)) for error in ends)
        words = in_words(found.measure, *measured[n]) if n in measured else ""
        made.add_row(str(n), words, middle, " to ".join(sorted(span, key=float)))
    return made


def _plain(found: ShotScores, value: float) -> str:
    value = min(max(value, 0.0), 1.0) if found.sign > 0 else value
    return f"{100 * value:.1f}" if found.measure in PERCENT else f"{value:.3g}"


def _answer(found: ShotScores, curve: Forecast, target: float | None, most: int) -> list[str]:
    if target is None:
        return []
    reach = curve.reach(1 - target if found.sign > 0 else target, most)
    wanted = f"{100 * target:g} % accuracy" if found.sign > 0 else f"a squared error of {target:g}"
    if math.isinf(reach.median):
        return [
            f"{found.learner} is not forecast to reach {wanted} within {most} examples of each {found.each}: "
            f"{100 * reach.within:.0f} % of the curves that fit do."
        ]
    high = f"{reach.high:.0f}" if math.isfinite(reach.high) else f"more than {most}"
    return [
        f"{found.learner} reaches {wanted} with about {reach.median:.0f} examples of each {found.each} "
        f"(90 % interval: {reach.low:.0f} to {high})."
    ]


def _grounds(found: ShotScores, curve: Forecast, most: int) -> list[str]:
    """What the forecast rests on, and where it should not be trusted."""
    families = sorted(curve.weights.items(), key=lambda pair: -pair[1])
    count = found.units.count
    units = {"class": "classes", "group": "groups of classes"}.get(found.units.name, "")
    over = f"{len(found.values)} {found.split} tasks" + (f" of {count} {units}" if count else "")
    said = [
        f"measured on the same {over}; curves that fit: "
        + ", ".join(f"{name} {100 * share:.0f} %" for name, share in families if share >= 0.01)
    ]
    if curve.misfit > 3:
        said.append(f"no curve fits well (chi-square {curve.misfit:.1f} a degree of freedom): intervals were widened")
    if most > FAR * found.shots[-1]:
        said.append(f"beyond {FAR * found.shots[-1]} examples it is a guess: measure with more (--shots)")
    if found.units.note:
        said.append(found.units.note)
    return [*said, *found.notes]


def _card(found: ShotScores, curve: Forecast, options: Namespace, said: list[str]) -> dict[str, Any]:
    at = sorted({*found.shots, *range(1, min(options.most, 200) + 1), options.most})
    middle, low, high = (1 - part if found.sign > 0 else part for part in curve.interval(at))
    reach: Reach | None = None
    if options.target is not None:
        reach = curve.reach(1 - options.target if found.sign > 0 else options.target, options.most)
    return {
        "learner": found.learner, "tasks": found.source, "split": found.split, "seed": found.seed,
        "measure": found.measure, "sign": found.sign, "each": found.each, "test_tasks": len(found.values),
        "shots": found.shots, "means": found.means(), "intervals_95": found.intervals(),
        "forecast": {
            "at": at, "median": middle.tolist(), "one_end_90": low.tolist(), "other_end_90": high.tolist(),
            "weights": curve.weights, "misfit": curve.misfit,
        },
        "target": options.target,
        "reach": reach and {k: v if math.isfinite(v) else None for k, v in reach._asdict().items()},
        "said": said,
    }  # fmt: skip


SHOTS = Command(
    "shots",
    "Say how many examples are needed: the score against their number, and a forecast beyond what was measured.",
    "quickstudy shots runs/glyphs/best.safetensors --target 0.9\n"
    "quickstudy shots --learner logistic --tasks omniglot --tasks.path omniglot28.npz --target 0.8 --plot curve.png",
    _add,
    run,
    {"tasks": TRAINED, "learner": OWN},
    card_tasks,
)
