"""`quickstudy train`: from a source of tasks to a checkpoint."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentParser, Namespace
from lightning_fabric.utilities.rank_zero import rank_zero_only

from quickstudy.cli.arguments import Command, as_yaml, check_seed, read_config
from quickstudy.configuration import learner_in, source_in, valid_source_in
from quickstudy.core.errors import UserError
from quickstudy.core.files import write_whole
from quickstudy.core.learner import MetaLearner
from quickstudy.core.source import Source
from quickstudy.scores import in_words
from quickstudy.tasks.sampling import Count
from quickstudy.train import Run, train

RESERVED: set[str | int] = {
    *("learner", "source", "valid_source", "out", "resume", "overwrite", "progress", "started", "watch"),
    *("memory", "compile"),
}
MEMORY = "budget of an outer step (500MB), or a plan by name: store, checkpoint, sweep, truncated, implicit"


def _add(parser: ArgumentParser) -> None:
    parser.add_argument("--out", type=str | None, default=None, help="folder of the run (default: runs/LEARNER-TASKS)")
    parser.add_argument("--resume", action="store_true", help="go on with the run in that folder, exactly")
    parser.add_argument("--overwrite", action="store_true", help="start again in a folder that holds a run")
    add_run(parser)
    parser.add_argument("--quiet", action="store_true", help="show no progress bar")


def add_run(parser: ArgumentParser) -> None:
    """The options that make a run what it is, beside tasks, learner and net."""
    parser.add_argument("--memory", type=str | None, default=None, help=MEMORY)
    parser.add_argument("--compile", action="store_true", help="run the outer step as one compiled program")
    for name in ("way", "shot", "query"):
        parser.add_argument(f"--valid.{name}", type=Count | None, default=None, help=f"{name} of the validation tasks")
    parser.add_function_arguments(train, "train", skip=RESERVED)
    parser._option_string_actions["--train"].help = "a YAML file of training options alone"


def source_of(options: Namespace) -> Source:
    """The source that the options describe."""
    return source_in(options.as_dict())


def learner_of(options: Namespace, source: Source) -> MetaLearner:
    """The learner that the options describe, for the tasks of a source."""
    return learner_in(options.as_dict(), source)


def run(options: Namespace) -> int:
    check_seed(options.train.seed, "--train.seed")
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    out = Path(options.out or f"runs/{options.learner.name}-{options.tasks.name}")
    torch.manual_seed(options.train.seed)
    source = source_of(options)
    learner = learner_of(options, source)
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file: give the folder of the run with --out.")
    given = options.train.as_dict()
    try:
        done = train(
            learner,
            source,
            valid_source=valid_source_in(options.as_dict(), source),
            out=out,
            resume=options.resume,
            overwrite=options.overwrite,
            progress=not options.quiet,
            memory=options.memory,
            compile=options.compile,
            started=lambda: write_whole(out / "config.yaml", as_yaml(_kept(options)).encode()),
            **given,
        )
    except UserError as error:
        raise UserError(_as_given(str(error), given)) from None
    if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
        print(_said(done, options, out))
    return 130 if done.stopped == "interrupted" else 0


def _as_given(said: str, names: Collection[str]) -> str:
    """A sentence of `train` with its options as they are written here: the first word, and those with an underscore."""
    known = "|".join(sorted(names, key=len, reverse=True))
    joined = "|".join(name for name in names if "_" in name)
    return re.sub(rf"^(?:{known})\b|(?<=^unknown )(?:{known})\b|(?<![\w.-])(?:{joined})\b", r"--train.\g<0>", said)


def _kept(options: Namespace) -> Namespace:
    """The options that make a run what it is."""
    kept = options.clone()
    for name in ("resume", "overwrite", "quiet", "out", "words"):
        kept.pop(name, None)
    return kept


def _before(words: Sequence[str]) -> Mapping[str, Any]:
    """With --resume, the options that the run in the folder was started with.

    Raises UserError if there is no such run.
    """
    if "--resume" not in words:
        return {}
    given = [w.partition("=")[2] for w in words if w.startswith("--out=")]
    given += [after for word, after in pairwise(words) if word == "--out" and not after.startswith("--")]
    if not given:
        raise UserError("--resume needs the folder of the run: give it with --out.")
    config = Path(given[-1]) / "config.yaml"
    if not config.exists():
        raise UserError(f"there is no run to resume in {config.parent}: check --out, or start one without --resume.")
    return read_config(config)


def _said(done: Run, options: Namespace, out: Path) -> str:
    name, tasks = options.learner.name, options.tasks.name
    best = ""
    if done.best_score is not None:
        measure = next(iter(done.learner.objective.measures))
        sign = done.learner.objective.measures[measure]
        best = f"; best valid {measure} {in_words(measure, sign * done.best_score)} at step {done.best_step}"
    spent = f"{done.seconds / 60:.1f} minutes" if done.seconds >= 60 else f"{done.seconds:.0f} seconds"
    if done.stopped == "interrupted":
        return f"go on with: quickstudy train --resume --out {out}"
    early = " (stopped early)" if done.stopped == "early" else ""
    return (
        f"trained {name} on {tasks}: {done.steps} steps in {spent}{early}{best}\n"
        f"saved {out / 'best.safetensors'}\n"
        f"next: quickstudy evaluate {out / 'best.safetensors'}"
    )


TRAIN = Command(
    "train",
    "Train a learner over many tasks and keep the best weights.",
    "quickstudy train --learner protonet --tasks omniglot --tasks.way 60 --train.steps 6000\n"
    "quickstudy train --learner maml --tasks sinusoid --print_config > maml.yaml\n"
    "quickstudy train --config maml.yaml --train.lr 0.003 --out runs/maml",
    _add,
    run,
    {"tasks": "glyphs", "learner": "protonet", "net": "auto"},
    _before,
)
